//! Why a record was not taken into a journal, or cannot be read back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jingwei_registry::log::LogError;

/// A journal's refusal. Every error of an append means that the record does not count.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The nonce was used before: somebody sends the same request again.
    #[error("the nonce {nonce} was used before: a request is answered once, make a new one")]
    Replayed {
        /// The nonce.
        nonce: String,
    },
    /// The time until which the nonce must be remembered is past, or too far ahead.
    #[error("the request's expiry has to lie between now and {most} seconds ahead")]
    Expiry {
        /// The longest time ahead, in seconds.
        most: i64,
    },
    /// The record is larger than any exchange needs, or its nonce is.
    #[error("a record of {length} bytes, at most {most}; or a nonce of more than 255")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
        /// The most bytes that a record may have.
        most: usize,
    },
    /// A group of no records was handed over.
    #[error("there is nothing to record")]
    Empty,
    /// The disk refused. Later records are taken once there is space again.
    #[error("nothing was recorded, {}: {source}", .path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The journal's log cannot be opened or written.
    #[error("the journal's log: {0}")]
    Log(#[from] Arc<LogError>),
    /// A file is not what the journal wrote there.
    #[error("{} is damaged: {reason}; restore the journal from a backup", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The records could not be put into the log yet; they are durable and will be.
    #[error("recorded, but not yet in the journal's log: {0}")]
    Unsequenced(String),
    /// The node is stopping.
    #[error("the journal is closed: the node is stopping")]
    Closed,
}

impl JournalError {
    pub(super) fn disk(path: &Path, source: io::Error) -> JournalError {
        JournalError::Disk {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(super) fn corrupt(path: &Path, reason: impl ToString) -> JournalError {
        JournalError::Corrupt {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl From<LogError> for JournalError {
    fn from(error: LogError) -> JournalError {
        JournalError::Log(Arc::new(error))
    }
}
