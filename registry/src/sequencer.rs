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

use jingwei_proto::checkpoint::{self, Checkpoint, CheckpointError};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{PublicKey, SecretKey, Signer};
use jingwei_proto::leaf::leaf;
use jingwei_proto::merkle::leaf_hash;
use jingwei_proto::state::{ApplyError, KeyRecord, Lookup, Rejection, keys, record as record_of};
use jingwei_proto::statement::{Predicate, RegistryKeys, Statement};
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::fault::{Blame, Fault};
use crate::index::{Batch, Index, IndexError};
use crate::log::{Entry, Log, LogReader};
use crate::queue::{self, Full};
use crate::quota::{self, Payer, Quotas, SubmitLimits};
use crate::visitors::Network;

/// Statements in one commit; a larger batch would make the first wait for the last.
const BATCH: usize = 1_024;
/// Bytes of statements in one commit, which are in memory a few times over.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// What a waiting statement takes in memory beside its payload.
const OVERHEAD: usize = 1_024;

/// What every root document contains.
const ROOT: &str = "urn:jingwei:root:v1";

/// The keys that a registry signs its log's checkpoints with.
#[derive(Debug)]
pub struct LogKeys {
    /// The log's origin.
    pub origin: String,
    /// Signs.
    pub log: SecretKey,
    /// Dates, where no witness does.
    pub cosigner: SecretKey,
}

impl LogKeys {
    /// Whether these are the keys that a root document names.
    pub fn are_of(&self, root: &RegistryKeys) -> bool {
        *self.log.public() == root.log && *self.cosigner.public() == root.cosigner
    }

    /// A note signed with these keys and with the next ones: the first checkpoint that covers a
    /// new root is read by those who know it already, and by those who are about to.
    fn seal_with_next(
        &self,
        next: Option<&LogKeys>,
        checkpoint: &Checkpoint,
        clock: &Clock,
    ) -> Result<String, CheckpointError> {
        let note = self.seal(checkpoint, clock)?;
        let Some(next) = next.filter(|next| next.log.public() != self.log.public()) else {
            return Ok(note);
        };
        let (_, signatures) = note.split_once("\n\n").unwrap_or_default();
        Ok(next.seal(checkpoint, clock)? + signatures)
    }

    /// A signed and dated note of the checkpoint.
    pub fn seal(&self, checkpoint: &Checkpoint, clock: &Clock) -> Result<String, CheckpointError> {
        let mut note = checkpoint.sign(&self.log)?;
        let cosignature = checkpoint::cosign(&note.text, &self.origin, &self.cosigner, clock())?;
        note.signatures.push(cosignature);
        Ok(note.to_string())
    }
}

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

struct Submission {
    envelope: Envelope,
    reply: oneshot::Sender<Result<Accepted, Fault>>,
}

/// The way to the writer: who pays is found out here, side by side, before anything waits.
#[derive(Clone)]
pub struct Sequencer {
    queue: queue::Sender<Payer, Submission>,
    quotas: Arc<Quotas>,
    index: Index,
    log: LogReader,
    size: watch::Receiver<u64>,
}

impl Sequencer {
    /// Starts the writer's thread, which ends when the last `Sequencer` is dropped. `ring` has
    /// the keys that a later root may name.
    pub fn start(
        log: Log,
        index: Index,
        keys: LogKeys,
        ring: Box<dyn KeyRing>,
        clock: Clock,
    ) -> std::io::Result<(Sequencer, JoinHandle<()>)> {
        let limits = SubmitLimits::default();
        let (queue, submissions) = queue::queue(limits.queue);
        let (reader, reading) = (log.reader(), index.clone());
        let (published, size) = watch::channel(reader.size());
        let writer = Writer {
            log,
            index,
            keys,
            ring,
            clock,
            published,
        };
        let thread = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || writer.run(submissions))?;
        let sequencer = Sequencer {
            queue,
            quotas: Arc::new(Quotas::new(&limits)),
            index: reading,
            log: reader,
            size,
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
            Some(Ok(None)) | None => self.enter(Payer::Keepers, envelope).await,
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
        let signer = quota::signer(&self.index, &envelope).map_err(unreadable)?;
        let payer = match signer {
            Some(signer) => match self.entered(&envelope, &signer.key)? {
                Some(accepted) => return Ok(accepted),
                None => Payer::Agency(signer.agency),
            },
            None => Payer::Stranger(network),
        };
        self.enter(payer, envelope).await
    }

    async fn enter(&self, payer: Payer, envelope: Envelope) -> Result<Accepted, Fault> {
        let length = envelope.payload().len();
        self.quotas.charge(&payer, length as u64, Instant::now())?;
        let entered = self.wait(&payer, length + OVERHEAD, envelope).await;
        if entered.is_err() {
            self.quotas.give_back(&payer, length as u64);
        }
        entered
    }

    async fn wait(
        &self,
        payer: &Payer,
        bytes: usize,
        envelope: Envelope,
    ) -> Result<Accepted, Fault> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .push(payer, bytes, Submission { envelope, reply })
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
        answer.await.unwrap_or_else(|_| Err(stopped()))
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
        self.size.clone()
    }
}

fn unreadable(error: impl std::fmt::Display) -> Fault {
    tracing::error!(%error, "the log or its index cannot be read");
    Fault::new(Blame::Unavailable, "the registry cannot read its index")
}

fn cannot_write() -> Fault {
    Fault::new(Blame::Unavailable, "the registry cannot write its log")
        .advise("submit again later; its engineer finds the reason in its own log")
}

fn too_old(rules: u64) -> Fault {
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

struct Writer {
    log: Log,
    index: Index,
    keys: LogKeys,
    ring: Box<dyn KeyRing>,
    clock: Clock,
    published: watch::Sender<u64>,
}

type Waiting = Vec<(oneshot::Sender<Result<Accepted, Fault>>, u64)>;

impl Writer {
    fn run(mut self, mut submissions: queue::Receiver<Payer, Submission>) {
        while let Some(first) = submissions.blocking_recv() {
            let mut bytes = first.envelope.payload().len();
            let mut batch = vec![first];
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Some(next) = submissions.try_recv() else {
                    break;
                };
                bytes += next.envelope.payload().len();
                batch.push(next);
            }
            let mut batch = VecDeque::from(batch);
            while !batch.is_empty() {
                self.commit(&mut batch);
            }
        }
    }

    /// Commits what is at the front of the queue: all of it, or up to a new root, after which
    /// other keys may sign.
    fn commit(&mut self, submissions: &mut VecDeque<Submission>) {
        if let Err(fault) = self.catch_up() {
            for Submission { reply, .. } in submissions.drain(..) {
                let _ = reply.send(Err(fault.clone()));
            }
            return;
        }
        let index = self.index.clone();
        let mut batch = Batch::new(&index);
        let mut entries = Vec::new();
        let mut waiting: Waiting = Vec::new();
        let mut next = None;
        while next.is_none()
            && let Some(Submission { envelope, reply }) = submissions.pop_front()
        {
            match self.admit(
                &mut batch,
                self.log.size() + entries.len() as u64,
                &envelope,
            ) {
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
            Ok(())
        } else {
            self.append(&entries, batch, next)
        };
        let published = self.log.reader().checkpoint_note();
        let checkpoint: Arc<str> = published.unwrap_or_default().into();
        for (reply, index) in waiting {
            // A submitter that went away will submit again, and get the same index.
            let _ = reply.send(match &result {
                Ok(()) => Ok(Accepted {
                    index,
                    checkpoint: checkpoint.clone(),
                }),
                Err(fault) => Err(fault.clone()),
            });
        }
    }

    /// Finishes a commit that the disk cut off, and brings the index to the log's size: nothing
    /// may be admitted against a state that the log has left behind.
    fn catch_up(&mut self) -> Result<(), Fault> {
        let unwritable = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "the log or its index cannot be written");
            cannot_write()
        };
        if let Some(rules) = self.index.newer_rules() {
            return Err(too_old(rules));
        }
        self.log.complete().map_err(|error| unwritable(&error))?;
        self.log
            .publish_sealed()
            .map_err(|error| unwritable(&error))?;
        let size = self.log.size();
        if self.index.size().map_err(|error| unwritable(&error))? < size {
            self.index
                .catch_up(&self.log.committed())
                .map_err(|error| unwritable(&error))?;
        }
        self.published.send_if_modified(|published| {
            let grown = *published < size;
            *published = size;
            grown
        });
        if let Some(rules) = self.index.newer_rules() {
            return Err(too_old(rules));
        }
        self.keep_keys().map_err(|error| unwritable(&error))
    }

    /// Goes over to the keys that the root in force names, after a commit that brought one in.
    fn keep_keys(&mut self) -> Result<(), String> {
        let root = self.index.root().map_err(|error| error.to_string())?;
        if let Some(root) = root.filter(|root| !self.keys.are_of(&root.registry)) {
            self.keys = self.ring.keys_of(&root.registry)?;
            self.ring.in_force(&root.registry);
        }
        Ok(())
    }

    fn append(
        &mut self,
        entries: &[Entry],
        batch: Batch<'_>,
        next: Option<Box<NewRoot>>,
    ) -> Result<(), Fault> {
        let (keys, clock) = (&self.keys, &self.clock);
        let next_keys = next.as_ref().map(|next| &next.keys);
        let sealed = self.log.append_and_publish(entries, |checkpoint| {
            keys.seal_with_next(next_keys, checkpoint, clock)
        });
        let size = self.log.size();
        if let Err(error) = sealed {
            tracing::error!(%error, "the log could not be written");
            return Err(cannot_write());
        }
        if let Err(error) = batch.write(size) {
            // The log has the entries; the index catches up from it before the next batch.
            tracing::error!(%error, "the index could not be written");
        }
        metrics::counter!("jingwei_registry_entries_total").increment(entries.len() as u64);
        if let Some(next) = next {
            let NewRoot { keys, registry } = *next;
            tracing::info!("a new root is in force");
            self.keys = keys;
            self.ring.in_force(&registry);
        }
        self.published.send_replace(size);
        Ok(())
    }

    fn admit(
        &self,
        batch: &mut Batch<'_>,
        next: u64,
        envelope: &Envelope,
    ) -> Result<Admitted, Fault> {
        // Before the batch takes it in: a registry that could sign nothing after it would be
        // at its end.
        let root = self.new_root(envelope)?;
        admit(batch, next, envelope, root)
    }

    /// The keys for the root that an envelope brings, if it brings one.
    fn new_root(&self, envelope: &Envelope) -> Result<Option<Box<NewRoot>>, Fault> {
        // Roots are rare, and to parse each statement twice would not be cheap.
        let text = std::str::from_utf8(envelope.payload()).unwrap_or_default();
        if !text.contains(ROOT) {
            return Ok(None);
        }
        let Ok(statement) = Statement::parse(envelope.payload()) else {
            return Ok(None);
        };
        let Predicate::Root(root) = statement.predicate else {
            return Ok(None);
        };
        let keys = self.ring.keys_of(&root.registry).map_err(|missing| {
            Fault::new(
                Blame::Inconsistent,
                format!("this registry has not the keys that the root names: {missing}"),
            )
            .advise("put them into its keys directory first, or submit the root to the registry that it names")
        })?;
        Ok(Some(Box::new(NewRoot {
            keys,
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

/// A root document, and the keys that sign after it.
struct NewRoot {
    keys: LogKeys,
    registry: RegistryKeys,
}

fn admit(
    batch: &mut Batch<'_>,
    next: u64,
    envelope: &Envelope,
    root: Option<Box<NewRoot>>,
) -> Result<Admitted, Fault> {
    match batch.admit(next, envelope) {
        Ok(change) => {
            let entry = Entry {
                leaf: leaf(envelope, &change.signer),
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
fn known(batch: &Batch<'_>, envelope: &Envelope) -> Result<Option<u64>, IndexError> {
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
