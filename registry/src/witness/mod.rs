//! Witnesses: who co-sign a log that they need not trust, and the log that asks them to.
//!
//! ```text
//! log ── old size, proof, checkpoint ─► witness: grown from what I signed last? ─► stored ─► signed
//!     ◄───────── cosignature ─────────
//! ```
//!
//! The protocol is C2SP tlog-witness; its bytes and rules are [`jingwei_proto::witness`]. Here
//! are the two sides of it. A [`Witness`] remembers one checkpoint of each log in a small fsynced
//! file, and stores the next before it lets its signature out: whatever happens to the process,
//! it never signs two roots of one size, nor a smaller log. A log asks all its witnesses at once,
//! each over a connection of its own, and publishes what a quorum has signed ([`rounds`]).
//!
//! Out of scope: which witnesses a root document names, and what a reader makes of their
//! signatures ([`jingwei_proto::checkpoint::CheckpointKeys`]).

pub mod client;
pub mod home;
pub mod rounds;
pub mod service;
mod store;
#[cfg(test)]
mod tests;

pub use store::{Denied, Witness, WitnessError};
