//! Evidence: one file with which anyone verifies one answer, offline.
//!
//! ```text
//! evidence.json                     the asker's envelope: SQL, answer, every member's SHA-256
//! checkpoint                        the registry's signed and dated log head
//! statements/<index>.json           roots, agencies and manifests that the answer rests on,
//! statements/<index>.tlog-proof     each with its C2SP proof of inclusion in that log
//! snapshot.json                     proofs that before the newest snapshot among the statements
//!                                   nothing else happened to the root and those agencies
//! exchanges/<n>/request.json        the four messages of each exchange
//! exchanges/<n>/acceptance.json
//! exchanges/<n>/receipt.json
//! exchanges/<n>/acknowledgement.json
//! exchanges/<n>/answer.arrows       the rows that were sent, as an Arrow IPC stream
//! answer.arrows                     the asker's table, computed from those answers
//! ```
//!
//! The verifier needs this file and the root's fingerprint, and nothing else. What it cannot
//! show: that the asker computed its table rightly from the answers (whoever doubts runs the
//! SQL again over the `.arrows` files), and that what a provider published is true.

mod archive;
pub mod command;
mod exchange;
mod members;
mod settled;
pub mod sigstore;
#[cfg(test)]
mod tests;
mod verify;

pub use archive::{ArchiveError, Member, Writer, read as read_archive};
pub use settled::{Settled, wanted};
pub use verify::{ExchangeReport, Invalid, Logged, Report, verify};

/// The member that the asker signed.
pub const INDEX: &str = "evidence.json";
/// The log head.
pub const CHECKPOINT: &str = "checkpoint";
/// What the newest snapshot shows to be there, and to be absent.
pub const SNAPSHOT: &str = "snapshot.json";
/// The asker's table.
pub const ANSWER: &str = "answer.arrows";

/// The member with the statement at `index` of the log.
pub fn statement_name(index: u64) -> String {
    format!("statements/{index}.json")
}

/// The member with the proof that the statement is in the log.
pub fn proof_name(index: u64) -> String {
    format!("statements/{index}.tlog-proof")
}

/// A member of the `n`-th exchange: one of [`MESSAGES`] or [`ANSWER`].
pub fn exchange_name(n: u64, part: &str) -> String {
    format!("exchanges/{n}/{part}")
}

/// The messages of an exchange, in their order.
pub const MESSAGES: [&str; 4] = [
    "request.json",
    "acceptance.json",
    "receipt.json",
    "acknowledgement.json",
];
