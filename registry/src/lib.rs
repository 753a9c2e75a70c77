//! The registry: a log of signed statements that nobody has to trust, and replicas of it.
//!
//! ```text
//! submit ─► sequencer ─► log (files) ─► HTTP ─► replica ─► index (sled) ─► answers
//! ```
//!
//! Here live the log on disk, the sequencer, the index of the state, replicas, the TLS whose
//! trust comes from the membership, and what both programs need to serve and to connect. Out of
//! scope, on purpose: SQL, Parquet, and everything else that is about data.

/// Prints a line to standard output. Whoever has closed the other end, as `head` does, has seen
/// enough: that is no error.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stdout(), $($part)*);
    }};
}

pub mod activity;
pub mod bodies;
pub mod ceremony;
pub mod clock;
pub mod command;
pub mod config;
pub mod confirm;
pub mod connect;
pub mod connection;
pub mod disk;
pub mod enrolment;
pub mod fault;
pub mod found;
pub mod history;
pub mod http;
pub mod index;
pub mod keyfile;
pub mod keyring;
pub mod lifecycle;
pub mod log;
pub mod meter;
pub mod opening;
pub mod parcel;
pub mod paths;
pub mod publishing;
pub mod queue;
pub mod quota;
pub mod registry;
pub mod rehearsal;
pub mod replica;
pub mod request_id;
pub mod sequencer;
pub mod serve;
pub mod service;
pub mod setting;
pub mod settings;
pub mod shell;
pub mod snapshots;
pub mod source;
pub mod standing;
pub mod submit;
pub mod take_over;
pub mod telemetry;
pub mod tls;
pub mod unix_socket;
pub mod view;
pub mod visitors;
pub mod witness;

#[cfg(test)]
mod transport_tests;
