//! A verified replica of a registry's log: what every node answers from, whether or not the
//! registry is up.
//!
//! ```text
//! /checkpoint ─► signature and date ─► not smaller, not another history
//!             ─► leaf hashes, if much is new: do they lead to the signed root?
//!             ─► entries and envelopes, 4,096 at a time: are these the leaves? are they signed?
//!             ─► append ─► published at the signed size ─► `apply` ─► index
//! ```
//!
//! The index follows what is published, so that each of its answers has a signed checkpoint
//! above it. Only a replica that has none yet is indexed on the way to the first.
//!
//! A replica is a log of the same form as the registry's own, so that one could take over. The
//! highest checkpoint ever verified stands in a small file of its own, since it is the one
//! thing that cannot be had again from a registry that lies.
//!
//! | file | subject |
//! |---|---|
//! | `follow` | the loop, and one step of it |
//! | `fetch` | what is read from the registry, and checked before it is stored |
//! | `highest` | the highest checkpoint |
//! | `newer_root` | checkpoints by keys that a root names which is not here yet |
//! | `taken_over` | registries that go on from another's log |
//! | `accuse` | what a registry that lies is shown to have signed |
//! | `alarms` | what stays until a person has looked into it |

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::time::Time;
use tokio::sync::watch;

use crate::disk::Disk;
use crate::index::{Index, IndexError};
use crate::log::{Log, LogError, LogReader};
use crate::source::SourceError;
use jingwei_proto::words::entries;

mod accuse;
mod alarms;
mod fetch;
mod follow;
mod highest;
mod newer_root;
mod since;
mod taken_over;

pub use accuse::Comparison;
pub use alarms::{Alarm, alarms_in};

use alarms::Alarms;
use highest::Highest;

/// The registry did something that an honest one does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// The log became shorter.
    #[error(
        "the registry shows a log of {}, and {verified} were verified before: it hides entries",
        entries(.shown)
    )]
    Shrunk {
        /// Entries shown now.
        shown: u64,
        /// Entries verified before.
        verified: u64,
    },
    /// Two histories of one size.
    #[error(
        "the registry shows another history: at {} its root is {shown}, and here it is {verified}",
        entries(.size)
    )]
    Forked {
        /// Entries.
        size: u64,
        /// The root signed by the registry.
        shown: Digest,
        /// The root of the entries as they are.
        verified: Digest,
    },
    /// The log does not begin with the root that was pinned.
    #[error("the registry's root has the fingerprint {0}, which is not the one that is known here")]
    OtherRoot(String),
    /// A checkpoint with a wrong signature.
    #[error("the registry's checkpoint does not verify: {0}")]
    Checkpoint(String),
    /// Bytes that match no checkpoint.
    #[error("what the registry serves does not match what it has signed: {0}")]
    Unmatched(String),
    /// An entry and its envelope do not belong together, or cannot be read.
    #[error("entry {index} of the registry's log is not what its envelope says: {reason}")]
    Entry {
        /// Its place.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// An entry that the rules reject.
    #[error("entry {index} of the registry's log is one that the rules reject: {reason}")]
    Rejected {
        /// Its place.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint that is not dated anew.
    #[error(
        "the newest checkpoint that the registry shows is dated {dated}, and an honest one dates its log anew every few minutes: what came after that may be hidden"
    )]
    Stale {
        /// Its date.
        dated: Time,
    },
    /// A checkpoint that is dated ahead of this node's clock.
    #[error(
        "the registry's checkpoint is dated {dated}, and here it is {now}: such a one would not be seen to be old when it is (or is this machine's clock slow?)"
    )]
    Ahead {
        /// Its date.
        dated: Time,
        /// The time here.
        now: Time,
    },
    /// A snapshot that puts log time ahead of the dates of checkpoints.
    #[error(
        "the snapshot in entry {index} of the registry's log says that it is {time}, and a checkpoint over it is dated {dated}: a delay that goes by log time ends before its time"
    )]
    LogTimeAhead {
        /// The snapshot's place.
        index: u64,
        /// Its time.
        time: Time,
        /// When the checkpoint was co-signed.
        dated: Time,
    },
    /// A take-over that leaves out what was acknowledged.
    #[error(
        "another registry has taken over after {}, and {verified} of the log before are verified: it leaves out {left_out}",
        entries(.after)
    )]
    ShortTakeOver {
        /// Entries that the new log has of the old one.
        after: u64,
        /// Entries that the old one had.
        verified: u64,
        /// What is missing.
        left_out: String,
    },
    /// What somebody else has proved.
    #[error("of the registry another node has proved: {lie}")]
    Proved {
        /// The kind of lie.
        kind: &'static str,
        /// What was done.
        lie: String,
    },
}

/// What the alarm about a take-over is called that leaves entries out.
pub const SHORT_TAKE_OVER: &str = "short-take-over";

impl Misbehaviour {
    /// What an alarm is called as long as nothing is proved.
    fn kind(&self) -> &'static str {
        match self {
            Misbehaviour::Shrunk { .. } => "shrunk-log",
            Misbehaviour::Forked { .. } => "two-histories",
            Misbehaviour::OtherRoot(_) => "other-root",
            Misbehaviour::Checkpoint(_) => "bad-checkpoint",
            Misbehaviour::Unmatched(_) => "unmatched",
            Misbehaviour::Entry { .. } => "bad-entry",
            Misbehaviour::Rejected { .. } => "rejected-entry",
            Misbehaviour::Stale { .. } => "stale-checkpoint",
            Misbehaviour::Ahead { .. } => "checkpoint-ahead",
            Misbehaviour::LogTimeAhead { .. } => "log-time-ahead",
            Misbehaviour::ShortTakeOver { .. } => SHORT_TAKE_OVER,
            Misbehaviour::Proved { kind, .. } => kind,
        }
    }

    /// The entry that it is about.
    fn place(&self) -> Option<u64> {
        match self {
            Misbehaviour::Entry { index, .. } | Misbehaviour::Rejected { index, .. } => {
                Some(*index)
            }
            _ => None,
        }
    }
}

/// A replica could not be opened or brought forward.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The registry cannot be read; the replica stays as it was.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The registry lies; the replica stays as it was.
    #[error(transparent)]
    Misbehaviour(#[from] Misbehaviour),
    /// This is the registry before a take-over.
    #[error(
        "the registry shows the log {origin}, from which another has taken over after {}: what it adds counts no more",
        entries(.ended)
    )]
    Former {
        /// The log's name.
        origin: String,
        /// How many of its entries count.
        ended: u64,
    },
    /// The replica's own log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The replica's own log could not be written.
    #[error("the replica's log cannot be written: {0}")]
    Append(String),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The file with the highest checkpoint failed.
    #[error("{path}: {source}")]
    Highest {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// How things stand with a replica.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Entries verified and indexed.
    pub size: u64,
    /// When the newest checkpoint was co-signed.
    pub log_time: Option<Time>,
    /// When the registry last answered with something that verified.
    pub registry_seen: Option<Time>,
    /// The registry cannot be read, and why.
    pub problem: Option<String>,
}

/// A replica in its directory.
pub struct Replica {
    pinned: Digest,
    log: Mutex<Log>,
    /// What is answered from: it ends at a signed checkpoint.
    reader: LogReader,
    /// What is known to lead to one, also while it is still on the way there.
    committed: LogReader,
    index: Index,
    highest: Mutex<Highest>,
    alarms: Alarms,
    /// One checkpoint is taken in after the other, whoever asks for it.
    turn: tokio::sync::Mutex<()>,
    /// Since when the registry has shown old checkpoints only.
    stale_since: Mutex<Option<Time>>,
    /// The first root document, while the log is empty.
    first_root: Mutex<Option<Envelope>>,
    standing: watch::Sender<Standing>,
}

impl Replica {
    /// Opens the replica in `dir` of the federation whose first root has the digest `pinned`. A
    /// new one begins as a replica of the log `origin`.
    pub fn open(
        dir: &Path,
        origin: &str,
        pinned: Digest,
        disk: Disk,
    ) -> Result<Arc<Replica>, ReplicaError> {
        let dir_of_log = dir.join("log");
        let origin = Log::origin_in(&dir_of_log)?.unwrap_or_else(|| origin.to_owned());
        let mut log = Log::open(&dir_of_log, disk.clone(), &origin)?;
        let highest = Highest::open(&dir.join("highest"), disk.clone())?;
        if let Some((checkpoint, note)) = highest.checkpoint()
            && (checkpoint.size, &checkpoint.origin) == (log.size(), &log.checkpoint().origin)
            && log.unpublished().is_some()
        {
            log.publish(note)?;
        }
        let (reader, committed) = (log.reader(), log.committed());
        let index = Index::open(&dir.join("index"), followed(&reader, &committed))?;
        let standing = Standing {
            size: index.size()?,
            ..Standing::default()
        };
        let replica = Replica {
            pinned,
            log: Mutex::new(log),
            reader,
            committed,
            index,
            highest: Mutex::new(highest),
            alarms: Alarms::open(dir, disk),
            turn: tokio::sync::Mutex::default(),
            stale_since: Mutex::default(),
            first_root: Mutex::default(),
            standing: watch::Sender::new(standing),
        };
        replica.report_rejected()?;
        replica.restore_time();
        Ok(Arc::new(replica))
    }

    /// The digest of the first root document.
    pub fn pinned(&self) -> Digest {
        self.pinned
    }

    /// The state of the federation.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The log.
    pub fn log(&self) -> &LogReader {
        &self.reader
    }

    /// How things stand, and every change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// The alarms that stand, from before the last start too.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.list()
    }

    /// The newest checkpoint that was verified, as the registry signed it.
    pub fn signed_note(&self) -> Option<String> {
        let highest = lock(&self.highest);
        highest.checkpoint().map(|(_, note)| note.to_owned())
    }

    /// Waits until the replica holds more than `index` entries.
    pub async fn reached(&self, index: u64) {
        let mut standing = self.standing.subscribe();
        // The sender lives as long as the replica does.
        let _ = standing.wait_for(|standing| standing.size > index).await;
    }

    /// What the index follows.
    fn followed(&self) -> &LogReader {
        followed(&self.reader, &self.committed)
    }

    /// After a start, the date of the stored checkpoint is known before the registry answers.
    fn restore_time(&self) {
        if let (Ok(Some(root)), Some(note)) = (self.index.root(), self.signed_note())
            && let Ok((_, time)) = CheckpointKeys::of_root(&root).verify(&note)
        {
            self.standing
                .send_modify(|standing| standing.log_time = Some(time));
        }
    }
}

fn followed<'a>(reader: &'a LogReader, committed: &'a LogReader) -> &'a LogReader {
    match reader.size() {
        0 => committed,
        _ => reader,
    }
}

/// Where a replica in `dir` keeps its alarms.
fn alarms_dir(dir: &Path) -> PathBuf {
    dir.join("alarms")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the lock guards is on disk and is read again after any failure.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
