//! What can go wrong with a stored log, and what it means for the caller's entries.

use std::io;
use std::path::PathBuf;

use super::Storage;
use crate::disk::LockError;

/// Why a log cannot be opened, read or finished.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process writes this log.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The disk refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not what the log wrote there. Nothing repairs this but a copy of the log: a
    /// replica has one.
    #[error("{} is damaged: {reason}; restore it from a replica or a backup", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory holds another log.
    #[error("{} holds the log {found}, not {expected}", .dir.display())]
    Origin {
        /// The directory.
        dir: PathBuf,
        /// The origin it was opened for.
        expected: String,
        /// The origin it holds.
        found: String,
    },
    /// Another writer has committed here. This one must not go on: open the log anew.
    #[error(
        "{} was written by somebody else: another process writes this log; stop one of them",
        .path.display()
    )]
    Fenced {
        /// The commit record that the other wrote.
        path: PathBuf,
    },
    /// Readers were shown more than this log has, or something else. It must sign nothing.
    #[error(
        "{} is an old copy, or not the only one: it has {size} entries, and {} remembers {shown} that readers were shown and that are not all in it; bring back the newest copy of the log, or let a replica take over",
        .log.display(), .record.display()
    )]
    OldCopy {
        /// The log.
        log: PathBuf,
        /// Its entries.
        size: u64,
        /// The file that remembers.
        record: PathBuf,
        /// The entries that were shown.
        shown: u64,
    },
    /// The file that remembers what readers were shown is not what was written.
    #[error(
        "{} does not hold the size and root that readers were shown last; no replica has that file, and an old one says less than the truth: where witnesses or replicas have seen no larger log than this one, move it away, and let a replica take over otherwise",
        .record.display()
    )]
    Forgotten {
        /// The file.
        record: PathBuf,
    },
    /// A note that cannot be shown to readers.
    #[error("not published: {reason}")]
    Unpublishable {
        /// What is wrong with it.
        reason: String,
    },
    /// No such entry, or the log was never so large.
    #[error("entry or size {asked} is beyond the log's {size} entries")]
    Beyond {
        /// What was asked for.
        asked: u64,
        /// The log's size.
        size: u64,
    },
    /// The threads that publish it cannot be started.
    #[error("the log cannot be published: {0}")]
    Threads(String),
    /// The log has no entry yet, so nothing was ever sealed.
    #[error(
        "the log in {} is empty and has no checkpoint yet; if it had one, bring back the newest copy of the log, or let a replica take over",
        .dir.display()
    )]
    Empty {
        /// The log's directory.
        dir: PathBuf,
    },
}

impl LogError {
    pub(super) fn io(storage: &dyn Storage, name: &str, source: io::Error) -> LogError {
        LogError::Io {
            path: storage.place(name),
            source,
        }
    }

    pub(super) fn corrupt(storage: &dyn Storage, name: &str, reason: impl ToString) -> LogError {
        LogError::Corrupt {
            path: storage.place(name),
            reason: reason.to_string(),
        }
    }

    /// Whether what failed may still happen.
    pub(super) fn in_doubt(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }
}

/// Why entries were not appended, or not yet; `E` is the seal's own error.
#[derive(Debug, thiserror::Error)]
pub enum AppendError<E> {
    /// The entries or the seal break a rule. The log is as it was.
    #[error("not appended: {0}")]
    Refused(String),
    /// The seal refused. The log is as it was.
    #[error("the checkpoint was not sealed: {0}")]
    Seal(E),
    /// The disk refused before the commit point. The log is as it was; append again later.
    #[error("not appended: {0}")]
    Storage(LogError),
    /// The disk refused at the commit point or after it. The entries are in the log, or will
    /// be: do not append them again, but call [`Log::complete`](super::Log::complete), and
    /// publish.
    #[error("the entries are committed, but the log could not go on: {0}")]
    Unfinished(LogError),
    /// Entries that an earlier [`AppendError::Unfinished`] spoke of were completed just now,
    /// and nothing else: look at the log's size, then append again.
    #[error(
        "an unfinished batch was completed first, the log has now {size} entries: append again"
    )]
    Grown {
        /// The log's size.
        size: u64,
    },
    /// Another writer has committed in this place: see [`LogError::Fenced`].
    #[error(transparent)]
    Fenced(LogError),
}
