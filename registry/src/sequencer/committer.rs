//! What brings admitted batches into the log and before its readers, one after the other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::{Head, Predicate, RegistryKeys, Snapshot, Statement};

use super::{KeyRing, LogKeys, Place, Reply, Work, root_in, too_old};
use crate::clock::Clock;
use crate::fault::{Blame, Fault};
use crate::index::{Batch, Behind, Index};
use crate::log::Entry;
use crate::publishing::Publishing;

/// Holds the log and the index, and the keys that sign.
pub(super) struct Committer {
    pub log: Publishing,
    /// Behind the log by what is being taken in.
    pub index: Index,
    pub behind: Behind,
    pub ring: Box<dyn KeyRing>,
    pub clock: Clock,
}

/// A batch that was admitted, and who waits for it.
pub(super) struct Prepared {
    pub entries: Vec<Entry>,
    pub batch: Batch,
    /// The root that the last entry brings.
    pub next: Option<Box<NewRoot>>,
    /// Each with what it hears once the batch is in the log.
    pub waiting: Vec<(Reply, Result<Place, Fault>)>,
}

impl Prepared {
    pub fn new(batch: Batch) -> Prepared {
        Prepared {
            entries: Vec::new(),
            batch,
            next: None,
            waiting: Vec::new(),
        }
    }

    /// How many entries the log has with it.
    pub fn size(&self) -> u64 {
        self.batch.base() + self.entries.len() as u64
    }
}

/// A root document, and the keys that sign after it.
pub(super) struct NewRoot {
    keys: LogKeys,
    quorum: u64,
    registry: RegistryKeys,
}

impl Committer {
    /// Commits a batch, tells those who wait for it, and lets the index take it in. Returns whether
    /// all of that was done, so that a batch which was admitted on top may follow.
    pub fn commit(&mut self, prepared: Prepared) -> bool {
        let Prepared {
            entries,
            batch,
            next,
            waiting,
        } = prepared;
        let result = self.append(&entries, batch, next);
        for (reply, found) in waiting {
            // A submitter that went away will submit again, and get the same index.
            let _ = reply.send(match &result {
                Ok(_) => found,
                Err(fault) => Err(fault.clone()),
            });
        }
        match result {
            // While the next statements are on their way. What goes wrong here has been logged, and
            // what was admitted meanwhile is void.
            Ok(Some(batch)) => self.take_in(batch).is_ok(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Finishes a commit that the disk cut off, and brings the index to the log's size: nothing
    /// may be admitted against a state that the log has left behind. Returns what is admitted next.
    pub fn catch_up(&mut self) -> Result<Batch, Fault> {
        self.may_sign()?;
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
        self.behind.batch().map_err(unwritable)
    }

    /// As [`Committer::catch_up`], once the index has everything.
    pub fn settled(&mut self) -> Result<Batch, Fault> {
        self.settle()?;
        self.behind.batch().map_err(unwritable)
    }

    fn may_sign(&self) -> Result<(), Fault> {
        match self.log.halted() {
            Some(reason) => Err(halted(&reason)),
            None => Ok(()),
        }
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
        self.may_sign()?;
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

    /// The statement that is to be entered: a snapshot is made of what has been committed.
    pub fn envelope(&self, work: &Work) -> Result<Arc<Envelope>, Fault> {
        match work {
            Work::Statement(envelope) => Ok(envelope.clone()),
            Work::Snapshot => Ok(Arc::new(self.snapshot()?)),
        }
    }

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
    pub fn new_root(&self, envelope: &Envelope) -> Result<Option<Box<NewRoot>>, Fault> {
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

/// A committer that is at hand, or at work on a thread of its own.
pub(super) struct Working {
    committer: Option<Box<Committer>>,
    jobs: Option<SyncSender<(Box<Committer>, Prepared)>>,
    done: Receiver<(Box<Committer>, bool)>,
    thread: Option<JoinHandle<()>>,
}

impl Working {
    /// Starts the thread, which ends with this, after what it has been sent.
    pub fn start(committer: Committer) -> std::io::Result<Working> {
        let (jobs, sent) = sync_channel::<(Box<Committer>, Prepared)>(1);
        let (told, done) = sync_channel(1);
        let work = move || {
            for (mut committer, prepared) in sent {
                let committed = committer.commit(prepared);
                if told.send((committer, committed)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("committer".into());
        Ok(Working {
            committer: Some(Box::new(committer)),
            jobs: Some(jobs),
            done,
            thread: Some(thread.spawn(work)?),
        })
    }

    /// Waits for what was sent; whether the log and the index have it.
    pub fn landed(&mut self) -> bool {
        if self.committer.is_some() {
            return true;
        }
        let (committer, committed) = self.done.recv().expect("the committer has not panicked");
        self.committer = Some(committer);
        committed
    }

    /// The committer, once it is at hand.
    pub fn home(&mut self) -> &mut Committer {
        self.landed();
        self.committer.as_mut().expect("it has landed")
    }

    /// Lets it commit a batch meanwhile.
    pub fn send(&mut self, prepared: Prepared) {
        self.landed();
        let (committer, jobs) = (self.committer.take(), self.jobs.as_ref());
        let job = committer.expect("it has landed");
        let sent = jobs.is_some_and(|jobs| jobs.send((job, prepared)).is_ok());
        assert!(sent, "the committer has not panicked");
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.jobs = None;
        // Whoever opens the log next finds it let go of.
        let _ = self.thread.take().map(JoinHandle::join);
    }
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
