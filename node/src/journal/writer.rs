//! The one writer of an agency's records: all that wait share one write and one fsync.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use jingwei_proto::digest::Digest;
use jingwei_proto::time::Time;
use jingwei_registry::log::LogReader;
use tokio::sync::{mpsc, oneshot};

use super::nonces::Nonces;
use super::recent::Recent;
use super::record::{Record, encode, frame};
use super::sequencer::Order;
use super::year::Year;
use super::{JournalError, Position, Setup};

/// Records in one write; more do not make the fsync cheaper for each.
const GROUP: usize = 1_024;
/// Bytes in one write, which bounds the memory.
const GROUP_BYTES: usize = 8 << 20;

/// How often the writer lets others have the processor before it writes. Where nobody wants it that
/// takes no time; where all are busy, more records come along, and an fsync is what costs most.
const GIVES_WAY: usize = 4;

/// What the writer is asked.
pub(super) enum Task {
    /// Record these.
    Record(Pending),
    /// Put everything recorded so far into the log.
    Sequence(oneshot::Sender<Result<(), JournalError>>),
}

/// One or more records on their way, which come after one another or not at all.
pub(super) struct Pending {
    pub records: Vec<Record>,
    /// Until when the first one's nonce, which was taken for it, is in use.
    pub until: Option<Time>,
    pub reply: oneshot::Sender<Result<Position, JournalError>>,
}

/// What callers and writer share.
pub(super) struct Shared {
    pub nonces: Mutex<Nonces>,
    pub reader: RwLock<LogReader>,
}

impl Shared {
    pub fn nonces(&self) -> std::sync::MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's state.
pub(super) struct Writer {
    pub setup: Setup,
    pub year: Year,
    pub shared: Arc<Shared>,
    pub sequencers: Vec<JoinHandle<()>>,
}

/// Records of one group that go into the same year.
#[derive(Default)]
struct Group {
    frames: Vec<u8>,
    leaves: Vec<Digest>,
    pending: Vec<Pending>,
}

impl Group {
    /// Adds all records of `pending`, or none of them.
    fn add(&mut self, pending: Pending) -> Result<(), (Pending, JournalError)> {
        let mut encoded = Vec::with_capacity(pending.records.len());
        for (place, record) in pending.records.iter().enumerate() {
            match encode(record, pending.until.filter(|_| place == 0)) {
                Ok(bytes) => encoded.push(bytes),
                Err(error) => return Err((pending, error)),
            }
        }
        for bytes in encoded {
            let leaf = frame(&mut self.frames, &rand::random(), &bytes);
            self.leaves.push(leaf);
        }
        self.pending.push(pending);
        Ok(())
    }
}

impl Writer {
    /// Works until all senders are gone; then everything is sequenced.
    pub fn run(mut self, mut tasks: mpsc::Receiver<Task>) {
        while let Some(task) = tasks.blocking_recv() {
            for _ in 0..GIVES_WAY {
                std::thread::yield_now();
            }
            let mut group = Group::default();
            let mut next = Some(task);
            while let Some(task) = next {
                self.take(task, &mut group);
                let full = group.leaves.len() >= GROUP || group.frames.len() >= GROUP_BYTES;
                next = if full { None } else { tasks.try_recv().ok() };
            }
            self.write(group);
        }
        let Writer {
            year, sequencers, ..
        } = self;
        drop(year);
        for sequencer in sequencers {
            let _ = sequencer.join();
        }
    }

    fn take(&mut self, task: Task, group: &mut Group) {
        match task {
            Task::Sequence(reply) => {
                self.write(std::mem::take(group));
                self.year.order(Order::Now(reply));
            }
            Task::Record(pending) => {
                let time = pending.records.iter().map(|record| record.time).max();
                let entered = time.map_or(Ok(()), |time| self.enter_year(time, group));
                let added = match entered {
                    Ok(()) => group.add(pending),
                    Err(error) => Err((pending, error)),
                };
                if let Err((pending, error)) = added {
                    self.refuse(pending, error);
                }
            }
        }
    }

    /// Goes on to a later year's journal. A record that is late by a breath at the turn of the
    /// year stays in the new one.
    fn enter_year(&mut self, time: Time, group: &mut Group) -> Result<(), JournalError> {
        if time.year() <= self.year.year {
            return Ok(());
        }
        self.write(std::mem::take(group));
        let opened = {
            let mut nonces = self.shared.nonces();
            Year::open(
                &self.setup,
                time.year(),
                &mut Recent::new(&mut nonces, time),
            )
        };
        let (year, sequencer) = opened?;
        *self
            .shared
            .reader
            .write()
            .unwrap_or_else(PoisonError::into_inner) = year.reader.clone();
        // The old year's sequencer ends by itself when it has done its work.
        self.year = year;
        self.sequencers.push(sequencer);
        Ok(())
    }

    fn write(&mut self, group: Group) {
        if group.pending.is_empty() {
            return;
        }
        match self.year.append(&group.frames, group.leaves) {
            Ok(mut index) => {
                let year = self.year.year;
                for pending in group.pending {
                    // Whoever asked may have gone; the records count all the same.
                    let _ = pending.reply.send(Ok(Position { year, index }));
                    index += pending.records.len() as u64;
                }
            }
            Err(error) => {
                for pending in group.pending {
                    self.refuse(pending, error.clone());
                }
            }
        }
    }

    fn refuse(&self, pending: Pending, error: JournalError) {
        if let (Some(until), Some(opener)) = (pending.until, pending.records.first()) {
            self.shared.nonces().give_back(&opener.nonce, until);
        }
        let _ = pending.reply.send(Err(error));
    }
}
