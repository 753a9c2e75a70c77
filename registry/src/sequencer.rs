//! The one writer of the log: admits statements by the rules, commits them in batches, and
//! answers each only when it is durable and covered by a published checkpoint.
//!
//! ```text
//! submit ─► who pays? ─► queue (bounded, in fair turns) ─► admit by `apply` ─► append to the log ─► index ─► answer
//! ```
//!
//! Whatever waits in the queue when the writer comes back goes into the next batch, so that
//! the cost of a commit is shared by all that arrived during the one before.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use jingwei_proto::checkpoint::{self, Checkpoint, CheckpointError};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{PublicKey, SecretKey};
use jingwei_proto::leaf::leaf;
use jingwei_proto::merkle::leaf_hash;
use jingwei_proto::state::{ApplyError, Rejection};
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

/// The keys that a registry signs its log's checkpoints with.
pub struct LogKeys {
    /// The log's origin.
    pub origin: String,
    /// Signs.
    pub log: SecretKey,
    /// Dates, where no witness does.
    pub cosigner: SecretKey,
}

impl LogKeys {
    /// A signed and dated note of the checkpoint.
    pub fn seal(&self, checkpoint: &Checkpoint, clock: &Clock) -> Result<String, CheckpointError> {
        let mut note = checkpoint.sign(&self.log)?;
        let cosignature = checkpoint::cosign(&note.text, &self.origin, &self.cosigner, clock())?;
        note.signatures.push(cosignature);
        Ok(note.to_string())
    }
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
    /// Starts the writer's thread, which ends when the last `Sequencer` is dropped.
    pub fn start(
        log: Log,
        index: Index,
        keys: LogKeys,
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

fn stopped() -> Fault {
    Fault::new(Blame::Unavailable, "the registry is stopping")
        .advise("submit again when it is back; the same statement is never entered twice")
}

struct Writer {
    log: Log,
    index: Index,
    keys: LogKeys,
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
            self.commit(batch);
        }
    }

    fn commit(&mut self, submissions: Vec<Submission>) {
        if let Err(fault) = self.catch_up() {
            for Submission { reply, .. } in submissions {
                let _ = reply.send(Err(fault.clone()));
            }
            return;
        }
        let index = self.index.clone();
        let mut batch = Batch::new(&index);
        let mut entries = Vec::new();
        let mut waiting: Waiting = Vec::new();
        for Submission { envelope, reply } in submissions {
            match admit(
                &mut batch,
                self.log.size() + entries.len() as u64,
                &envelope,
            ) {
                Ok(Admitted::New { place, entry }) => {
                    entries.push(entry);
                    waiting.push((reply, place));
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
            self.append(&entries, batch)
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
        Ok(())
    }

    fn append(&mut self, entries: &[Entry], batch: Batch<'_>) -> Result<(), Fault> {
        let (keys, clock) = (&self.keys, &self.clock);
        let sealed = self
            .log
            .append_and_publish(entries, |checkpoint| keys.seal(checkpoint, clock));
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
        self.published.send_replace(size);
        Ok(())
    }
}

enum Admitted {
    New { place: u64, entry: Entry },
    Old { place: u64 },
}

fn admit(batch: &mut Batch<'_>, next: u64, envelope: &Envelope) -> Result<Admitted, Fault> {
    match batch.admit(next, envelope) {
        Ok(change) => {
            let entry = Entry {
                leaf: leaf(envelope, &change.signer),
                envelope: Some(envelope.to_bytes()),
            };
            Ok(Admitted::New { place: next, entry })
        }
        Err(ApplyError::Rejected(rejection)) => match known(batch, envelope) {
            Ok(Some(place)) => Ok(Admitted::Old { place }),
            _ => Err(from_rejection(rejection)),
        },
        Err(ApplyError::RulesTooNew(rules)) => Err(Fault::new(
            Blame::Malformed,
            format!(
                "the root asks for rules {rules}, and this registry knows rules up to {}",
                jingwei_proto::state::RULES
            ),
        )),
        Err(ApplyError::Storage(error)) => Err(unreadable(error)),
    }
}

/// The place of a statement that is in the log already: a statement is known by its leaf, which
/// takes the signer's key. That key is in the state under its id, or in the root.
fn known(batch: &Batch<'_>, envelope: &Envelope) -> Result<Option<u64>, IndexError> {
    for key in candidate_keys(batch, envelope)? {
        if key.id() == envelope.key() && envelope.verify(&key).is_ok() {
            let hash: Digest = leaf_hash(&leaf(envelope, &key));
            return batch.place(&hash);
        }
    }
    Ok(None)
}

fn candidate_keys(batch: &Batch<'_>, envelope: &Envelope) -> Result<Vec<PublicKey>, IndexError> {
    use jingwei_proto::state::{AgencyRecord, Lookup, RootRecord, keys, record};
    let mut found = Vec::new();
    let owner = batch.get(&keys::signer(envelope.key()))?;
    if let Some(id) = owner.as_deref().and_then(record)
        && let Some(bytes) = batch.get(&keys::agency(&id))?
        && let Some(agency) = record::<AgencyRecord>(&bytes)
    {
        found.push(agency.key);
    }
    if let Some(root) = batch
        .get(keys::ROOT)?
        .as_deref()
        .and_then(record::<RootRecord>)
    {
        found.extend(root.keys);
    }
    Ok(found)
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
