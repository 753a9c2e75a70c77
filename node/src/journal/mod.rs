//! An agency's journal: its private record of every exchange, durable before it counts, in a
//! log that anybody may see without learning anything.
//!
//! ```text
//! DIR/<agency>/<year>/records/000000000000    the records with their keys, as appended
//!                     records/000000004711    the next segment, from record 4711 on
//!                     log/…                   the log: one leaf for each record, in order
//! ```
//!
//! # When a record counts
//!
//! A record gets a fresh random key, is appended to the last segment, and counts when the fsync
//! has returned: only then is its caller answered, and only then does a message leave the node.
//! A thread writes for all callers at once: what arrived during one fsync shares the next, so
//! that a thousand exchanges a second cost as many fsyncs as the disk can do, not three thousand.
//! A caller may hand over several records at once; they come after one another, all of them or
//! none.
//!
//! The leaf is `HMAC-SHA256(key, record)`. The log can be shown, witnessed and proved from;
//! erase record and key, and its leaf means nothing any more while the log stays whole.
//!
//! # Why every record is in the log exactly once
//!
//! A record's index is settled when it is appended: a segment's name is the index of its first
//! record, and records within it are counted. Segments are never renamed or rewritten, so the
//! index of a durable record never changes. Leaf *i* of the log is that of record *i*: the
//! sequencer hands the log leaves in this order, beginning at the log's size, and asks for the
//! size again after every failure. At a restart the same holds: the log recovers first, and says
//! by its size *s* how many leaves it has; the records from *s* on are the ones to append. There
//! is no mark of what was sequenced that could be lost, or be out of step with the log.
//!
//! The log never has more leaves than there are durable records, since only durable ones are
//! handed to it. If it has, records were removed, and the journal says so and does not open.
//!
//! # What a crash or a full disk leaves
//!
//! Half of a record may stand at the end of the last segment; its checksum fails, nobody was
//! told of it, it is cut off. Whole records whose fsync never returned may stand there too; they
//! are kept, which harms nobody. After a failed write or fsync the segment is cut back at once,
//! every waiting caller gets the error, and later records are taken when the disk can again.
//!
//! # What is read back at open
//!
//! [`Journal::record_new`] takes a nonce that no unexpired request has used. The nonces follow
//! from the records and are read back at open, as far back as a request can live
//! ([`LONGEST_LIFE`]), across the turn of the year too. On the same way the exchanges are
//! found that a restart goes on with ([`Journal::take_unfinished`]).
//!
//! Out of scope: what the messages mean, and who may see them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::Signer;
use jingwei_proto::time::Time;
use jingwei_registry::disk::Disk;
use jingwei_registry::log::LogReader;
use tokio::sync::{mpsc, oneshot};

mod error;
mod nonces;
mod read;
mod recent;
mod record;
mod sequencer;
#[cfg(test)]
mod tests;
mod writer;
mod year;

pub use error::JournalError;
pub use nonces::LONGEST_LIFE;
use nonces::Nonces;
pub use read::{Records, read_all};
use recent::Recent;
pub use recent::{Unfinished, WAIT};
pub use record::{Kind, MAX_RECORD, Record, Stored, leaf};
use writer::{Pending, Shared, Task, Writer};
use year::Year;

/// Records that may wait for the writer; beyond it callers wait for a place.
const QUEUE: usize = 4_096;

/// What a journal needs.
#[derive(Clone)]
pub struct Setup {
    /// The directory of all journals of the node.
    pub dir: PathBuf,
    /// The federation, for the log's origin.
    pub federation: FederationId,
    /// Whose journal it is.
    pub agency: AgencyId,
    /// The agency's journal key.
    pub signer: Arc<dyn Signer>,
    /// The way to the disk.
    pub disk: Disk,
}

impl Setup {
    fn year_dir(&self, year: i32) -> PathBuf {
        self.dir.join(self.agency.as_str()).join(year.to_string())
    }

    /// The newest year before `year` that has a journal.
    fn year_before(&self, year: i32) -> Option<i32> {
        let entries = fs::read_dir(self.dir.join(self.agency.as_str())).ok()?;
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|other| *other < year)
            .max()
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The journal's year.
    pub year: i32,
    /// The record's index there, and its leaf's in the log.
    pub index: u64,
}

/// The open journal of one agency. Dropping it sequences what is recorded and joins the threads.
pub struct Journal {
    tasks: Option<mpsc::Sender<Task>>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    unfinished: Mutex<Unfinished>,
}

impl Journal {
    /// Opens the journal of the year of `now`, and finishes what a crash cut off, there and in
    /// the year before.
    pub fn open(setup: Setup, now: Time) -> Result<Journal, JournalError> {
        let mut nonces = Nonces::default();
        let mut recent = Recent::new(&mut nonces, now);
        let mut sequencers = Vec::new();
        if let Some(before) = setup.year_before(now.year()) {
            let (_, sequencer) = Year::open(&setup, before, &mut recent)?;
            sequencers.push(sequencer);
        }
        let (year, sequencer) = Year::open(&setup, now.year(), &mut recent)?;
        sequencers.push(sequencer);
        let unfinished = recent.finish();
        let shared = Arc::new(Shared {
            nonces: Mutex::new(nonces),
            reader: RwLock::new(year.reader.clone()),
        });
        let dir = setup.dir.clone();
        let (tasks, received) = mpsc::channel(QUEUE);
        let writer = Writer {
            setup,
            year,
            shared: shared.clone(),
            sequencers,
        };
        let writer = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(received))
            .map_err(|error| JournalError::disk(&dir, error))?;
        Ok(Journal {
            tasks: Some(tasks),
            shared,
            writer: Some(writer),
            unfinished: Mutex::new(unfinished),
        })
    }

    /// Records messages, one or several; on `Ok` all are durable, on `Err` none counts. The
    /// position is that of the first, which the others follow.
    pub async fn record(&self, records: impl Into<Vec<Record>>) -> Result<Position, JournalError> {
        self.submit(records.into(), None).await
    }

    /// Records messages of which the first opens an exchange, unless its nonce is in use; the
    /// nonce stays in use until the request expires, at `until`. Whoever calls this has checked
    /// that the request has not expired; after that time its nonce protects no longer.
    pub async fn record_new(
        &self,
        until: Time,
        records: impl Into<Vec<Record>>,
    ) -> Result<Position, JournalError> {
        let records = records.into();
        let Some(opener) = records.first() else {
            return Err(JournalError::Empty);
        };
        let now = opener.time;
        if until < now || until > now.plus(LONGEST_LIFE) {
            return Err(JournalError::Expiry { most: LONGEST_LIFE });
        }
        {
            let mut nonces = self.shared.nonces();
            nonces.forget(now);
            if !nonces.take(&opener.nonce, until) {
                return Err(JournalError::Replayed {
                    nonce: opener.nonce.clone(),
                });
            }
        }
        self.submit(records, Some(until)).await
    }

    /// What was unfinished when the journal was opened; it is handed out once.
    pub fn take_unfinished(&self) -> Unfinished {
        let mut unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *unfinished)
    }

    /// Puts everything recorded before this call into the log and publishes its checkpoint.
    pub async fn sequence(&self) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Task::Sequence(reply)).await?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    /// The log of the current year, for proofs and checkpoints.
    pub fn log(&self) -> LogReader {
        self.shared
            .reader
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn submit(
        &self,
        records: Vec<Record>,
        until: Option<Time>,
    ) -> Result<Position, JournalError> {
        if records.is_empty() {
            return Err(JournalError::Empty);
        }
        let (reply, answer) = oneshot::channel();
        self.send(Task::Record(Pending {
            records,
            until,
            reply,
        }))
        .await?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    async fn send(&self, task: Task) -> Result<(), JournalError> {
        match &self.tasks {
            Some(tasks) => tasks.send(task).await.map_err(|_| JournalError::Closed),
            None => Err(JournalError::Closed),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
