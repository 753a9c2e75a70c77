//! The one writer of the log: admits statements by the rules, commits them in batches, and
//! answers each only when it is durable and covered by a published checkpoint.
//!
//! ```text
//! submit ─► who pays? ─► queue (bounded, in fair turns) ─► admit by `apply` ─► append to the log ─► index ─► answer
//! ```
//!
//! Whatever waits in the queue when the writer comes back goes into the next batch, so that
//! the cost of a commit is shared by all that arrived during the one before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::PublicKey;
use jingwei_proto::leaf::leaf;
use jingwei_proto::merkle::leaf_hash;
use jingwei_proto::state::{
    ApplyError, KeyRecord, Lookup, Rejection, RootRecord, keys, record as record_of,
};
use jingwei_proto::statement::{Head, Predicate, RegistryKeys, Root, Snapshot, Statement};
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::fault::{Blame, Fault};
use crate::index::{Batch, Behind, Index, IndexError};
use crate::log::{Entry, Log, LogError, LogReader};
pub use crate::publishing::LogKeys;
use crate::publishing::{Coverage, PATIENCE, Publishing};
use crate::queue::{self, Full};
use crate::quota::{self, Payer, Quotas, SubmitLimits};
use crate::visitors::Network;
use crate::witness::client::WitnessAddress;
use crate::witness::rounds::Gate;

/// Statements in one commit; a larger batch would make the first wait for the last.
const BATCH: usize = 1_024;
/// Bytes of statements in one commit, which are in memory a few times over.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often the writer lets others have the processor before it takes what waits. Where nobody
/// wants it that takes no time; where all are busy, more statements come along, and share a commit.
const GIVES_WAY: usize = 4;
/// What a waiting statement takes in memory beside its payload.
const OVERHEAD: usize = 1_024;

/// What every root document contains.
const ROOT: &str = "urn:jingwei:root:v1";

/// Where a registry finds the keys that a new root names.
pub trait KeyRing: Send {
    /// The keys for `root`; the error says which are missing.
    fn keys_of(&self, root: &RegistryKeys) -> Result<LogKeys, String>;

    /// A root that names these keys is in force now.
    fn in_force(&self, root: &RegistryKeys);
}

/// A statement that is in the log.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its index.
    pub index: u64,
    /// A signed checkpoint that covers it.
    pub checkpoint: Arc<str>,
}

/// What goes into the log.
enum Work {
    Statement(Envelope),
    /// A statement that the writer itself makes, of the state that it then stands at.
    Snapshot,
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Statement(envelope) => envelope.payload().len(),
            Work::Snapshot => 0,
        }
    }

    fn is_snapshot(&self) -> bool {
        match self {
            Work::Statement(envelope) => Snapshot::of(envelope).is_some(),
            Work::Snapshot => true,
        }
    }
}

/// What waits for the writer.
struct Waiting {
    answer: oneshot::Receiver<Result<u64, Fault>>,
    /// When its submitter is told that no quorum has signed.
    deadline: tokio::time::Instant,
}

/// How far a submission has come.
enum Begun {
    /// It is in the log already, at this place.
    Entered(u64),
    /// It is in the queue, and paid for.
    Waits {
        waiting: Waiting,
        payer: Payer,
        length: u64,
    },
}

type Reply = oneshot::Sender<Result<u64, Fault>>;

struct Submission {
    work: Work,
    reply: Reply,
}

/// The way to the writer: who pays is found out here, side by side, before anything waits.
#[derive(Clone)]
pub struct Sequencer {
    queue: queue::Sender<Payer, Submission>,
    quotas: Arc<Quotas>,
    index: Index,
    log: LogReader,
    coverage: Coverage,
}

impl Sequencer {
    /// Starts the writer's thread, which ends when the last `Sequencer` is dropped. `ring` has
    /// the keys that a later root may name, and `witnesses` says where those are that it names.
    pub fn start(
        log: Log,
        index: Index,
        keys: LogKeys,
        ring: Box<dyn KeyRing>,
        clock: Clock,
        witnesses: Vec<WitnessAddress>,
    ) -> Result<(Sequencer, JoinHandle<()>), StartError> {
        let limits = SubmitLimits::default();
        let (queue, submissions) = queue::queue(limits.queue);
        let (reader, reading) = (log.reader(), index.clone());
        let root = index.root()?.ok_or(StartError::NoRoot)?;
        let (log, coverage) = Publishing::start(log, root, keys, clock.clone(), witnesses)?;
        let writer = Writer {
            log,
            behind: Behind::start(index.clone())?,
            index,
            ring,
            clock,
        };
        let thread = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || writer.run(submissions))?;
        let sequencer = Sequencer {
            queue,
            quotas: Arc::new(Quotas::new(&limits)),
            index: reading,
            log: reader,
            coverage,
        };
        Ok((sequencer, thread))
    }

    /// Sets other limits than the defaults, for what comes from now on.
    pub fn limit(&self, limits: &SubmitLimits) {
        self.queue.limit(limits.queue);
        self.quotas.limit(limits);
    }

    /// Enters a statement of the registry's keepers and waits until it is durable.
    pub async fn submit(&self, envelope: Envelope) -> Result<Accepted, Fault> {
        let signer = quota::signer(&self.index, &envelope).map_err(unreadable)?;
        match signer.map(|signer| self.entered(&envelope, &signer.key)) {
            Some(Ok(Some(accepted))) => Ok(accepted),
            Some(Err(fault)) => Err(fault),
            Some(Ok(None)) | None => {
                let deadline = tokio::time::Instant::now() + PATIENCE;
                let begun = self.begin(Payer::Keepers, envelope, deadline).await?;
                self.finish(begun).await
            }
        }
    }

    /// Enters a statement that came from `network` and waits until it is durable. Its signer
    /// pays, or whoever is there if that is nobody the log knows; what is in the log already
    /// costs nothing.
    pub async fn submit_from(
        &self,
        network: Network,
        envelope: Envelope,
    ) -> Result<Accepted, Fault> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let begun = self.begin_from(network, envelope, deadline).await?;
        self.finish(begun).await
    }

    /// Enters statements that came together, each as [`Sequencer::submit_from`] does: all of them
    /// are in the queue before the first is waited for.
    pub async fn submit_all_from(
        &self,
        network: Network,
        envelopes: Vec<Envelope>,
    ) -> Vec<Result<Accepted, Fault>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut begun = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            begun.push(self.begin_from(network, envelope, deadline).await);
            // To verify each of them takes a while, and others want a turn.
            tokio::task::consume_budget().await;
        }
        let mut accepted = Vec::with_capacity(begun.len());
        for begun in begun {
            accepted.push(match begun {
                Ok(begun) => self.finish(begun).await,
                Err(fault) => Err(fault),
            });
        }
        accepted
    }

    /// Enters a snapshot of the registry's own; returns its index.
    pub async fn snapshot(&self) -> Result<u64, Fault> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let waiting = self
            .queue(&Payer::Keepers, Work::Snapshot, deadline)
            .await?;
        Ok(self.entry(waiting).await?.index)
    }

    async fn begin_from(
        &self,
        network: Network,
        envelope: Envelope,
        deadline: tokio::time::Instant,
    ) -> Result<Begun, Fault> {
        let signer = quota::signer(&self.index, &envelope).map_err(unreadable)?;
        let payer = match signer {
            Some(signer) => match self.entered(&envelope, &signer.key)? {
                Some(accepted) => return Ok(Begun::Entered(accepted.index)),
                None => Payer::Agency(signer.agency),
            },
            None => Payer::Stranger(network),
        };
        self.begin(payer, envelope, deadline).await
    }

    async fn begin(
        &self,
        payer: Payer,
        envelope: Envelope,
        deadline: tokio::time::Instant,
    ) -> Result<Begun, Fault> {
        let length = envelope.payload().len() as u64;
        self.quotas.charge(&payer, length, Instant::now())?;
        let work = Work::Statement(envelope);
        match self.queue(&payer, work, deadline).await {
            Ok(waiting) => Ok(Begun::Waits {
                waiting,
                payer,
                length,
            }),
            Err(fault) => {
                self.quotas.give_back(&payer, length);
                Err(fault)
            }
        }
    }

    async fn finish(&self, begun: Begun) -> Result<Accepted, Fault> {
        match begun {
            // Covered already; what is shown by now covers what came with it, too.
            Begun::Entered(index) => {
                let checkpoint = self.log.checkpoint_note().map_err(unreadable)?.into();
                Ok(Accepted { index, checkpoint })
            }
            Begun::Waits {
                waiting,
                payer,
                length,
            } => {
                let entered = self.entry(waiting).await;
                if entered.is_err() {
                    self.quotas.give_back(&payer, length);
                }
                entered
            }
        }
    }

    /// Puts work into the queue, when the log takes any.
    async fn queue(
        &self,
        payer: &Payer,
        work: Work,
        deadline: tokio::time::Instant,
    ) -> Result<Waiting, Fault> {
        // A new root may be what brings the quorum back.
        let root = match &work {
            Work::Statement(envelope) => root_in(envelope).is_some(),
            Work::Snapshot => false,
        };
        if !root {
            self.coverage.open(deadline).await?;
        }
        let (reply, answer) = oneshot::channel();
        self.queue
            .push(payer, work.bytes() + OVERHEAD, Submission { work, reply })
            .map_err(|full| match full {
                Full::For(pause) => {
                    metrics::counter!("jingwei_registry_overloaded_total", "reason" => "queue")
                        .increment(1);
                    Fault::new(
                        Blame::Overloaded,
                        "too many statements wait at the registry",
                    )
                    .retry_after(pause)
                }
                Full::Closed => stopped(),
            })?;
        Ok(Waiting { answer, deadline })
    }

    /// Where it was entered, once that is durable and covered.
    async fn entry(&self, Waiting { answer, deadline }: Waiting) -> Result<Accepted, Fault> {
        let index = answer.await.unwrap_or_else(|_| Err(stopped()))?;
        let checkpoint = self.coverage.covered(index, deadline).await?;
        Ok(Accepted { index, checkpoint })
    }

    /// The place of a statement that a published checkpoint covers already.
    fn entered(&self, envelope: &Envelope, key: &PublicKey) -> Result<Option<Accepted>, Fault> {
        let hash = leaf_hash(&leaf(envelope, key));
        let place = self.index.place(&hash).map_err(unreadable)?;
        let Some(index) = place.filter(|place| *place < self.log.size()) else {
            return Ok(None);
        };
        let checkpoint = self.log.checkpoint_note().map_err(unreadable)?.into();
        Ok(Some(Accepted { index, checkpoint }))
    }

    /// The published size of the log, and its changes.
    pub fn size(&self) -> watch::Receiver<u64> {
        self.coverage.size()
    }

    /// Whether the log takes in statements, and the changes of that.
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.coverage.gate()
    }
}

/// The sequencer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log holds no root document.
    #[error("the log holds no root document")]
    NoRoot,
    /// The log cannot be published.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The thread cannot be started.
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

fn unreadable(error: impl std::fmt::Display) -> Fault {
    tracing::error!(%error, "the log or its index cannot be read");
    Fault::new(Blame::Unavailable, "the registry cannot read its index")
}

fn cannot_write() -> Fault {
    Fault::new(Blame::Unavailable, "the registry cannot write its log")
        .advise("submit again later; its engineer finds the reason in its own log")
}

pub(crate) fn too_old(rules: u64) -> Fault {
    Fault::new(
        Blame::Unavailable,
        format!(
            "the root asks for rules {rules}, and this registry knows rules up to {}",
            jingwei_proto::state::RULES
        ),
    )
    .advise("its engineer installs a newer jingwei-registry; until then it enters nothing")
}

fn stopped() -> Fault {
    Fault::new(Blame::Unavailable, "the registry is stopping")
        .advise("submit again when it is back; the same statement is never entered twice")
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

struct Writer {
    log: Publishing,
    /// Behind the log by what is being taken in.
    index: Index,
    behind: Behind,
    ring: Box<dyn KeyRing>,
    clock: Clock,
}

impl Writer {
    fn run(mut self, mut submissions: queue::Receiver<Payer, Submission>) {
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
        let mut waiting: Vec<(Reply, u64)> = Vec::new();
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
            let place = self.log.size() + entries.len() as u64;
            match self.admit(&mut batch, place, work) {
                Ok(Admitted::New { place, entry, root }) => {
                    entries.push(entry);
                    waiting.push((reply, place));
                    next = root;
                }
                Ok(Admitted::Old { place }) => waiting.push((reply, place)),
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
        for (reply, index) in waiting {
            // A submitter that went away will submit again, and get the same index.
            let _ = reply.send(match &result {
                Ok(_) => Ok(index),
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
            Work::Snapshot => self.snapshot()?,
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
        place: u64,
        entry: Entry,
        root: Option<Box<NewRoot>>,
    },
    Old {
        place: u64,
    },
}

/// The root document that an envelope holds, if it holds one.
fn root_in(envelope: &Envelope) -> Option<Root> {
    // Roots are rare, and to parse each statement twice would not be cheap.
    let text = std::str::from_utf8(envelope.payload()).ok()?;
    if !text.contains(ROOT) {
        return None;
    }
    match Statement::parse(envelope.payload()).ok()?.predicate {
        Predicate::Root(root) => Some(root),
        _ => None,
    }
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
            Ok(Admitted::New {
                place: next,
                entry,
                root,
            })
        }
        Err(ApplyError::Rejected(rejection)) => match known(batch, envelope) {
            Ok(Some(place)) => Ok(Admitted::Old { place }),
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

/// A rejection by the rules, as it crosses the wire.
pub fn from_rejection(rejection: Rejection) -> Fault {
    use jingwei_proto::state::Blame as Rule;
    let (blame, advice) = match rejection.blame {
        Rule::Malformed => (
            Blame::Malformed,
            "the statement itself is wrong; make it anew",
        ),
        Rule::Forged => (
            Blame::Forged,
            "the bytes were changed after signing, or signed with another key",
        ),
        Rule::Unauthorised => (
            Blame::Unauthorised,
            "ask your superior, or sign with the right key",
        ),
        Rule::Inconsistent => (
            Blame::Inconsistent,
            "it contradicts what the registry holds already",
        ),
        Rule::Stale => (
            Blame::Stale,
            "follow the registry and make the statement anew",
        ),
    };
    Fault::new(blame, rejection.reason).advise(advice)
}
