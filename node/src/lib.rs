//! The node: what a department runs to publish its data, to ask others, and to prove both.
//!
//! ```text
//! file ─► ingest ─► store ─► publish ─► registry ─► replica ─► catalogue
//! SQL  ─► query ─► exchange/ask ═══ mTLS ═══ exchange/provider ─► query ─► store
//!                       └──► journal ◄── both sides ──► journal ◄──┘
//! ```
//!
//! Out of scope, on purpose: a second way to do what a lower room does. Statements, the log and
//! evidence are read in `jingwei-proto`, rows are validated in `jingwei-schemas`, and the log is
//! followed in `jingwei-registry`.

pub mod agency;
mod announce;
pub mod catalogue;
mod change;
pub mod cli;
pub mod config;
pub mod demo;
pub mod evidence;
pub mod exchange;
mod greet;
pub mod home;
pub mod ingest;
pub mod journal;
pub mod journals;
mod known;
pub mod local;
pub mod membership;
pub mod node;
pub mod output;
pub mod publish;
pub mod query;
pub mod serve;
pub mod signing;
mod stopped;
pub mod store;
mod witness;
#[cfg(test)]
mod world;
