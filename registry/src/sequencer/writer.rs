//! The one writer of the log: admits statements by the rules and commits them in batches.

use std::collections::VecDeque;
use std::sync::Arc;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::leaf::leaf;
use jingwei_proto::merkle::leaf_hash;
use jingwei_proto::state::{ApplyError, KeyRecord, Lookup, RootRecord, keys, record as record_of};
use jingwei_proto::statement::{Head, Predicate, RegistryKeys, Snapshot, Statement};

use super::{
    KeyRing, LogKeys, Place, Reply, Submission, Work, from_rejection, root_in, too_old, unreadable,
};
use crate::clock::Clock;
use crate::fault::{Blame, Fault};
use crate::index::{Batch, Behind, Index, IndexError};
use crate::log::Entry;
use crate::publishing::Publishing;
use crate::queue;
use crate::quota::Payer;

/// Statements in one commit; a larger batch would make the first wait for the last.
const BATCH: usize = 1_024;
/// Bytes of statements in one commit, which are in memory a few times over.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often the writer lets others have the processor before it takes what waits. Where nobody
/// wants it that takes no time; where all are busy, more statements come along, and share a commit.
const GIVES_WAY: usize = 4;

/// The thread's state.
pub(super) struct Writer {
    pub log: Publishing,
    /// Behind the log by what is being taken in.
    pub index: Index,
    pub behind: Behind,
    pub ring: Box<dyn KeyRing>,
    pub clock: Clock,
}

impl Writer {
    /// Works until all senders are gone.
    pub fn run(mut self, mut submissions: queue::Receiver<Payer, Submission>) {
        while let Some(first) = submissions.blocking_recv() {
            for _ in 0..GIVES_WAY {
                std::thread::yield_now();
            }
            let mut bytes = first.work.bytes();
            let mut batch = vec![first];
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Some(next) = submissions.try_recv() else {
                    break;
                };
                bytes += next.work.bytes();
                batch.push(next);
            }
            let mut batch = VecDeque::from(batch);
            while !batch.is_empty() {
                self.commit(&mut batch);
            }
        }
    }

    /// Commits what is at the front of the queue: all of it, or up to a new root, after which
    /// other keys may sign, or up to a snapshot, which is of what has been committed.
    fn commit(&mut self, submissions: &mut VecDeque<Submission>) {
        let mut batch = match self.catch_up() {
            Ok(batch) => batch,
            Err(fault) => {
                for Submission { reply, .. } in submissions.drain(..) {
                    let _ = reply.send(Err(fault.clone()));
                }
                return;
            }
        };
        let mut entries = Vec::new();
        let mut waiting: Vec<(Reply, Place)> = Vec::new();
        let mut next = None;
        while next.is_none()
            && let Some(Submission { work, reply }) = submissions.pop_front()
        {
            if work.is_snapshot() {
                if !entries.is_empty() {
                    submissions.push_front(Submission { work, reply });
                    break;
                }
                batch = match self.settle().and_then(|()| self.batch()) {
                    Ok(settled) => settled,
                    Err(fault) => {
                        let _ = reply.send(Err(fault));
                        break;
                    }
                };
            }
            let index = self.log.size() + entries.len() as u64;
            match self.admit(&mut batch, index, work) {
                Ok(Admitted::New { entry, root }) => {
                    entries.push(entry);
                    let again = false;
                    waiting.push((reply, Place { index, again }));
                    next = root;
                }
                Ok(Admitted::Old { index }) => {
                    let again = true;
                    waiting.push((reply, Place { index, again }));
                }
                Err(fault) => {
                    metrics::counter!("jingwei_registry_rejected_total", "reason" => fault.blame.reason())
                        .increment(1);
                    let _ = reply.send(Err(fault));
                }
            }
        }
        let result = if entries.is_empty() {
            Ok(None)
        } else {
            self.append(&entries, batch, next)
        };
        for (reply, place) in waiting {
            // A submitter that went away will submit again, and get the same index.
            let _ = reply.send(match &result {
                Ok(_) => Ok(place),
                Err(fault) => Err(fault.clone()),
            });
        }
        if let Ok(Some(batch)) = result {
            // While the next statements are on their way. What goes wrong here has been logged,
            // and nothing is admitted before the index has caught up.
            let _ = self.take_in(batch);
        }
    }

    /// Finishes a commit that the disk cut off, and brings the index to the log's size: nothing
    /// may be admitted against a state that the log has left behind. Returns what is admitted next.
    fn catch_up(&mut self) -> Result<Batch, Fault> {
        if let Some(reason) = self.log.halted() {
            return Err(halted(&reason));
        }
        if let Some(rules) = self.index.newer_rules() {
            return Err(too_old(rules));
        }
        self.log.complete().map_err(unwritable)?;
        if self.behind.size().map_err(unwritable)? < self.log.size() {
            self.settle()?;
        }
        self.show()?;
        if let Some(rules) = self.index.newer_rules() {
            return Err(too_old(rules));
        }
        self.keep_keys().map_err(unwritable)?;
        self.batch()
    }

    fn batch(&mut self) -> Result<Batch, Fault> {
        self.behind.batch().map_err(unwritable)
    }

    /// Brings what is committed before its readers, who go by the root in force.
    fn show(&self) -> Result<(), Fault> {
        self.log.show(Arc::new(self.root()?)).map_err(unwritable)
    }

    fn root(&self) -> Result<RootRecord, Fault> {
        let root = self.index.root().map_err(unwritable)?;
        root.ok_or_else(|| unwritable("the index holds no root document"))
    }

    /// Goes over to the keys that the root in force names, after a commit that brought one in.
    fn keep_keys(&mut self) -> Result<(), String> {
        let root = self.index.root().map_err(|error| error.to_string())?;
        if let Some(root) = root.filter(|root| !self.log.keys().are_of(&root.registry)) {
            self.log.go_over_to(self.ring.keys_of(&root.registry)?);
            self.ring.in_force(&root.registry);
        }
        Ok(())
    }

    /// Commits entries and brings them before readers, who go by the root in force: a new one has
    /// to be in the index by then. Anything else may come into it afterwards; that batch is
    /// returned.
    fn append(
        &mut self,
        entries: &[Entry],
        batch: Batch,
        next: Option<Box<NewRoot>>,
    ) -> Result<Option<Batch>, Fault> {
        let (quorum, keys) = match &next {
            Some(next) => (next.quorum, Some(&next.keys)),
            None => (self.root()?.quorum, None),
        };
        self.log.commit(entries, quorum, keys).map_err(unwritable)?;
        metrics::counter!("jingwei_registry_entries_total").increment(entries.len() as u64);
        let Some(next) = next else {
            self.show()?;
            return Ok(Some(batch));
        };
        self.take_in(batch)?;
        self.settle()?;
        let NewRoot { keys, registry, .. } = *next;
        tracing::info!("a new root is in force");
        self.log.go_over_to(keys);
        self.ring.in_force(&registry);
        self.show()?;
        Ok(None)
    }

    /// Lets the index take in what has been committed.
    fn take_in(&mut self, batch: Batch) -> Result<(), Fault> {
        match self.behind.hand_over(batch, self.log.size()) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "the index could not be written");
                self.settle()
            }
        }
    }

    /// Waits until the index has all that is committed. What could not be written it takes from the
    /// log.
    fn settle(&mut self) -> Result<(), Fault> {
        if let Err(error) = self.behind.settle() {
            tracing::error!(%error, "the index could not be written");
        }
        let committed = self.log.committed();
        self.index.catch_up(committed).map_err(unwritable)
    }

    fn admit(&self, batch: &mut Batch, next: u64, work: Work) -> Result<Admitted, Fault> {
        let envelope = match work {
            Work::Statement(envelope) => envelope,
            Work::Snapshot => Arc::new(self.snapshot()?),
        };
        // Before the batch takes it in: a registry that could sign nothing after it would be
        // at its end.
        let root = self.new_root(&envelope)?;
        admit(batch, next, &envelope, root)
    }

    /// A snapshot of what has been committed.
    fn snapshot(&self) -> Result<Envelope, Fault> {
        let last = self.index.log_time().map_err(unwritable)?;
        let statement = Statement {
            head: Head {
                federation: self.root()?.federation,
                agency: None,
                time: (self.clock)(),
                sequence: last.as_ref().map_or(1, |last| last.chain.sequence + 1),
                previous: last.map(|last| last.chain.payload),
            },
            predicate: Predicate::Snapshot(Snapshot {
                size: self.log.size(),
                state: self.index.state_root().map_err(unwritable)?,
            }),
        };
        Ok(statement.sign(&self.log.keys().log))
    }

    /// The keys for the root that an envelope brings, if it brings one.
    fn new_root(&self, envelope: &Envelope) -> Result<Option<Box<NewRoot>>, Fault> {
        let Some(root) = root_in(envelope) else {
            return Ok(None);
        };
        if root.registry.origin != self.log.keys().origin {
            let reason = "the root names another log than the one that this registry keeps";
            return Err(Fault::new(Blame::Inconsistent, reason)
                .advise("a registry is taken over with ‘jingwei-registry take-over’, which enters the root in the new log"));
        }
        let keys = self.ring.keys_of(&root.registry).map_err(|missing| {
            Fault::new(
                Blame::Inconsistent,
                format!("this registry has not the keys that the root names: {missing}"),
            )
            .advise("put them into its keys directory first, or submit the root to the registry that it names")
        })?;
        Ok(Some(Box::new(NewRoot {
            keys,
            quorum: root.quorum,
            registry: root.registry,
        })))
    }
}

enum Admitted {
    New {
        entry: Entry,
        root: Option<Box<NewRoot>>,
    },
    Old {
        index: u64,
    },
}

/// A root document, and the keys that sign after it.
struct NewRoot {
    keys: LogKeys,
    quorum: u64,
    registry: RegistryKeys,
}

fn admit(
    batch: &mut Batch,
    next: u64,
    envelope: &Envelope,
    root: Option<Box<NewRoot>>,
) -> Result<Admitted, Fault> {
    match batch.admit(next, envelope, Snapshot::of(envelope).as_ref()) {
        Ok(leaf) => {
            let entry = Entry {
                leaf,
                envelope: Some(envelope.to_bytes()),
            };
            Ok(Admitted::New { entry, root })
        }
        Err(ApplyError::Rejected(rejection)) => match known(batch, envelope) {
            Ok(Some(index)) => Ok(Admitted::Old { index }),
            _ => Err(from_rejection(rejection)),
        },
        Err(ApplyError::RulesTooNew(rules)) => Err(too_old(rules)),
        Err(error @ (ApplyError::Storage(_) | ApplyError::Unreadable(_))) => Err(unreadable(error)),
    }
}

/// The place of a statement that is in the log already: a statement is known by its leaf, which
/// takes the signer's key. That key is in the state under its id, also when it is a former one.
fn known(batch: &Batch, envelope: &Envelope) -> Result<Option<u64>, IndexError> {
    let record = batch.get(&keys::signer(envelope.key()))?;
    let Some(KeyRecord { key, .. }) = record.as_deref().and_then(record_of) else {
        return Ok(None);
    };
    if envelope.verify(&key).is_err() {
        return Ok(None);
    }
    batch.place(&leaf_hash(&leaf(envelope, &key)))
}

fn cannot_write() -> Fault {
    Fault::new(Blame::Unavailable, "the registry cannot write its log")
        .advise("submit again later; its engineer finds the reason in its own log")
}

fn unwritable(error: impl std::fmt::Display) -> Fault {
    tracing::error!(%error, "the log or its index cannot be written");
    cannot_write()
}

fn halted(reason: &str) -> Fault {
    Fault::new(
        Blame::Unavailable,
        format!("the registry signs nothing any more: {reason}"),
    )
    .advise("its engineer has to bring back the newest copy of the log")
}
