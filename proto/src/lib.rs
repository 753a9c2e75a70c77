//! The protocol of a Jingwei federation, pure: what is signed, how it is logged, what follows
//! from the log, what may cross the border between agencies, and how anyone verifies an answer.
//!
//! ```text
//! signed statement ──► log (durable truth) ──► state (pure fold) ──► index ──► answers
//! ```
//!
//! Out of scope here, on purpose: sockets, clocks, runtimes, storage and query engines. Time
//! comes in as an argument and stored bytes come in through small traits, so that an auditor
//! can read the whole path from a file to a verdict in this one crate.

pub mod border;
pub mod checkpoint;
pub mod digest;
pub mod dsse;
pub mod evidence;
pub mod id;
pub mod json;
pub mod key;
pub mod leaf;
pub mod merkle;
pub mod misbehaviour;
pub mod note;
pub mod policy;
pub mod snapshot;
pub mod state;
pub mod statement;
mod text;
pub mod tile;
pub mod time;
pub mod tlog_proof;
pub mod wire;
pub mod witness;
pub mod words;

/// The start of a stranger's text, short enough to repeat in an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
