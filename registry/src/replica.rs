//! A verified replica of a registry's log: what every node answers from, whether or not the
//! registry is up.
//!
//! ```text
//! /checkpoint ─► signature and date ─► not smaller, not another history
//!             ─► entries and envelopes ─► each leaf rebuilt from its envelope
//!             ─► append, if the root is the signed one ─► `apply` ─► index
//! ```
//!
//! A replica is a log of the same form as the registry's own, so that one could take over. The
//! highest checkpoint ever verified stands in a small file of its own, since it is the one
//! thing that cannot be had again from a registry that lies.

mod newer_root;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jingwei_proto::checkpoint::{Checkpoint, CheckpointError, CheckpointKeys};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::json;
use jingwei_proto::key::PublicKey;
use jingwei_proto::leaf::leaf;
use jingwei_proto::merkle::leaf_hash;
use jingwei_proto::note::Note;
use jingwei_proto::state::{self, RootRecord};
use jingwei_proto::statement::fingerprint;
use jingwei_proto::tile::{self, TileKind, TilePath};
use jingwei_proto::time::Time;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::index::{Index, IndexError};
use crate::log::{AppendError, Entry, Log, LogError, LogReader, MAX_BATCH};
use crate::source::{Source, SourceError};

/// How long a request for a newer checkpoint may wait at the registry.
const WAIT: Duration = Duration::from_secs(25);
/// Between two looks at a registry that does not wait.
const POLL: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The registry did something that an honest one does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// The log became shorter.
    #[error(
        "the registry shows a log of {shown} entries, and {verified} were verified before: it hides entries"
    )]
    Shrunk {
        /// Entries shown now.
        shown: u64,
        /// Entries verified before.
        verified: u64,
    },
    /// Two histories of one size.
    #[error(
        "the registry shows another history: at {size} entries its root is {shown}, and here it is {verified}"
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
    #[error("the registry's root has the fingerprint {0}, which is not the one you joined with")]
    OtherRoot(String),
    /// A checkpoint with a wrong signature.
    #[error("the registry's checkpoint does not verify: {0}")]
    Checkpoint(String),
    /// An entry and its envelope do not belong together, or cannot be read.
    #[error("entry {index} of the registry's log is not what its envelope says: {reason}")]
    Entry {
        /// Its place.
        index: u64,
        /// What is wrong.
        reason: String,
    },
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
    /// What the registry did wrong; stays until a person has looked into it.
    pub alarm: Option<String>,
}

/// A replica in its directory.
pub struct Replica {
    pinned: Digest,
    log: Mutex<Log>,
    reader: LogReader,
    index: Index,
    disk: Disk,
    highest: Mutex<Highest>,
    standing: watch::Sender<Standing>,
}

struct Highest {
    path: std::path::PathBuf,
    checkpoint: Option<(u64, Digest)>,
}

impl Replica {
    /// Opens the replica in `dir` of the federation whose first root has the digest `pinned`,
    /// and whose registry's log has the given origin.
    pub fn open(
        dir: &Path,
        origin: &str,
        pinned: Digest,
        disk: Disk,
    ) -> Result<Arc<Replica>, ReplicaError> {
        let mut log = Log::open(&dir.join("log"), disk.clone(), origin)?;
        log.publish_sealed()?;
        let reader = log.reader();
        let (index, rejected) = Index::open(&dir.join("index"), &reader)?;
        let path = dir.join("highest");
        let highest = Highest {
            checkpoint: read_highest(&path)?,
            path,
        };
        let standing = Standing {
            size: index.size()?,
            ..Standing::default()
        };
        let replica = Replica {
            pinned,
            log: Mutex::new(log),
            reader,
            index,
            disk,
            highest: Mutex::new(highest),
            standing: watch::Sender::new(standing),
        };
        replica.raise_rejected(rejected);
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

    /// Waits until the replica holds more than `index` entries.
    pub async fn reached(&self, index: u64) {
        let mut standing = self.standing.subscribe();
        // The sender lives as long as the replica does.
        let _ = standing.wait_for(|standing| standing.size > index).await;
    }

    /// Follows the registry until `shutdown`. Failures are retried after a growing pause.
    pub async fn follow(
        self: Arc<Self>,
        source: Source,
        clock: Clock,
        shutdown: CancellationToken,
    ) {
        let mut pause = Duration::from_millis(200);
        // The first look does not wait: it shows at once whether the registry is there.
        let mut wait = Duration::ZERO;
        loop {
            let began = Instant::now();
            let before = self.reader.size();
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.advance(&source, wait, &clock) => result,
            };
            let rest = match result {
                Ok(()) => {
                    pause = Duration::from_millis(200);
                    if std::mem::replace(&mut wait, WAIT).is_zero() {
                        continue;
                    }
                    let quick = began.elapsed() < Duration::from_secs(1);
                    if quick && self.reader.size() == before {
                        POLL
                    } else {
                        continue;
                    }
                }
                Err(error) => {
                    wait = Duration::ZERO;
                    self.note_failure(&error);
                    let rest = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Brings the replica to the registry's newest checkpoint, waiting up to `wait` for one.
    pub async fn advance(
        self: &Arc<Self>,
        source: &Source,
        wait: Duration,
        clock: &Clock,
    ) -> Result<(), ReplicaError> {
        self.knows_the_rules()?;
        let size = self.reader.size();
        let wait = if size == 0 { Duration::ZERO } else { wait };
        let note = source.checkpoint(size, wait).await?;
        let root = match self.index.root()? {
            Some(root) => root,
            None => self.first_root(source, &note).await?,
        };
        let (checkpoint, time) = match CheckpointKeys::of_root(&root).verify(&note) {
            Ok(verified) => verified,
            Err(error) => newer_root::verify(&self.index, self.pinned, source, &note)
                .await?
                .ok_or_else(|| Misbehaviour::Checkpoint(error.to_string()))?,
        };
        self.not_smaller(&checkpoint)?;
        if checkpoint.size > size {
            let entries = fetch(source, size, checkpoint.size).await?;
            let replica = self.clone();
            let moved = checkpoint.clone();
            let written =
                tokio::task::spawn_blocking(move || replica.extend(entries, &moved, note)).await;
            written.unwrap_or_else(|panic| Err(ReplicaError::Append(panic.to_string())))?;
        } else {
            self.same_history(&checkpoint)?;
        }
        let replica = self.clone();
        let indexed = tokio::task::spawn_blocking(move || replica.catch_up()).await;
        indexed.unwrap_or_else(|panic| Err(ReplicaError::Append(panic.to_string())))?;
        self.knows_the_rules()?;
        self.standing.send_modify(|standing| {
            standing.size = checkpoint.size;
            standing.log_time = Some(time);
            standing.registry_seen = Some(clock());
            standing.problem = None;
        });
        metrics::gauge!("jingwei_replica_entries").set(checkpoint.size as f64);
        Ok(())
    }

    /// Beyond an entry that asks for newer rules nothing is followed: what it means is unknown.
    fn knows_the_rules(&self) -> Result<(), IndexError> {
        match self.index.newer_rules() {
            Some(rules) => Err(IndexError::RulesTooNew(rules)),
            None => Ok(()),
        }
    }

    /// A checkpoint that a peer shows: the same registry must not have told it another history.
    pub fn compare(&self, note: &str) -> Result<(), Misbehaviour> {
        let Ok(Some(root)) = self.index.root() else {
            return Ok(());
        };
        let Ok((checkpoint, _)) = CheckpointKeys::of_root(&root).verify(note) else {
            // A peer can show anything; only what the registry signed counts against it.
            return Ok(());
        };
        let result = self.same_history(&checkpoint);
        if let Err(misbehaviour) = &result {
            self.raise(misbehaviour);
        }
        result
    }

    /// Records an alarm: in the log, as a metric, and in the standing.
    pub fn raise(&self, misbehaviour: &Misbehaviour) {
        tracing::error!(%misbehaviour, "the registry misbehaves");
        metrics::counter!("jingwei_replica_alarms_total").increment(1);
        self.standing
            .send_modify(|standing| standing.alarm = Some(misbehaviour.to_string()));
    }

    fn note_failure(&self, error: &ReplicaError) {
        let text = error.to_string();
        if let ReplicaError::Misbehaviour(misbehaviour) = error {
            self.raise(misbehaviour);
        } else if self.standing.borrow().problem.as_ref() != Some(&text) {
            tracing::warn!(error = %text, "the registry is not followed");
        }
        self.standing
            .send_modify(|standing| standing.problem = Some(text));
    }

    /// The first root, by which everything else is checked, before anything is stored.
    async fn first_root(&self, source: &Source, note: &str) -> Result<RootRecord, ReplicaError> {
        let size = Note::parse(note.as_bytes())
            .map_err(CheckpointError::from)
            .and_then(|note| note.text.parse::<Checkpoint>())
            .map_err(|error| Misbehaviour::Checkpoint(error.to_string()))?
            .size;
        let path = TilePath::in_log(TileKind::Envelopes, 0, size)
            .ok_or_else(|| Misbehaviour::Checkpoint("the log is empty".into()))?;
        let (bundle, width) = source.tile(&path).await?;
        let bytes = *tile::decode_bundle(TileKind::Envelopes, &bundle, width)
            .map_err(|error| bad_entry(0, error.to_string()))?
            .first()
            .ok_or_else(|| bad_entry(0, "it is missing".into()))?;
        let envelope = Envelope::parse(bytes).map_err(|error| bad_entry(0, error.to_string()))?;
        if envelope.payload_digest() != self.pinned {
            return Err(Misbehaviour::OtherRoot(fingerprint(&envelope.payload_digest())).into());
        }
        let mut memory = std::collections::BTreeMap::new();
        let change = state::apply(&memory, 0, &envelope)
            .map_err(|error| bad_entry(0, format!("{error:?}")))?;
        change.write_to(&mut memory);
        memory
            .get(state::keys::ROOT)
            .and_then(|bytes| state::record(bytes))
            .ok_or_else(|| bad_entry(0, "it is no root document".into()).into())
    }

    fn not_smaller(&self, checkpoint: &Checkpoint) -> Result<(), Misbehaviour> {
        let Some((verified, root)) = lock(&self.highest).checkpoint else {
            return Ok(());
        };
        if checkpoint.size < verified {
            return Err(Misbehaviour::Shrunk {
                shown: checkpoint.size,
                verified,
            });
        }
        if checkpoint.size == verified && checkpoint.root != root {
            return Err(forked(checkpoint, root));
        }
        Ok(())
    }

    /// A checkpoint of a size that this replica has reached must have its root.
    fn same_history(&self, checkpoint: &Checkpoint) -> Result<(), Misbehaviour> {
        if checkpoint.size == 0 || checkpoint.size > self.reader.size() {
            return Ok(());
        }
        match self.reader.root_at(checkpoint.size) {
            Ok(root) if root != checkpoint.root => Err(Misbehaviour::Forked {
                size: checkpoint.size,
                shown: checkpoint.root,
                verified: root,
            }),
            _ => Ok(()),
        }
    }

    fn extend(
        &self,
        entries: Vec<Entry>,
        signed: &Checkpoint,
        note: String,
    ) -> Result<(), ReplicaError> {
        self.leads_to(&entries, signed)?;
        let mut log = lock(&self.log);
        for batch in entries.chunks(MAX_BATCH) {
            let sealed = log.append_and_publish(batch, |own| match own.size == signed.size {
                true if own.root != signed.root => Err(forked(signed, own.root)),
                true => Ok(note.clone()),
                // On the way to the signed size, which these entries were seen to lead to.
                false => Ok(on_the_way(own, &note)),
            });
            match sealed {
                Ok(_) => {}
                Err(AppendError::Seal(misbehaviour)) => return Err(misbehaviour.into()),
                Err(error) => return Err(ReplicaError::Append(error.to_string())),
            }
        }
        self.write_highest(signed)
    }

    /// Before anything is stored: with these entries the log has the signed root, and on the way
    /// the root of the highest checkpoint that was ever verified.
    fn leads_to(&self, entries: &[Entry], signed: &Checkpoint) -> Result<(), ReplicaError> {
        let highest = lock(&self.highest).checkpoint;
        let mut edge = self.reader.edge()?;
        for entry in entries {
            edge.push(leaf_hash(&entry.leaf));
            if let Some((size, root)) = highest
                && size == edge.size()
                && root != edge.root()
            {
                return Err(Misbehaviour::Forked {
                    size,
                    shown: edge.root(),
                    verified: root,
                }
                .into());
            }
        }
        if edge.size() != signed.size || edge.root() != signed.root {
            return Err(forked(signed, edge.root()).into());
        }
        Ok(())
    }

    /// Brings the index to the log's size, whatever kept it behind.
    fn catch_up(&self) -> Result<(), ReplicaError> {
        if self.index.size()? < self.reader.size() {
            let rejected = self.index.catch_up(&self.reader)?;
            self.raise_rejected(rejected);
        }
        Ok(())
    }

    fn raise_rejected(&self, rejected: Vec<crate::index::Rejected>) {
        for entry in rejected {
            self.raise(&Misbehaviour::Entry {
                index: entry.index,
                reason: entry.rejection.to_string(),
            });
        }
    }

    fn write_highest(&self, checkpoint: &Checkpoint) -> Result<(), ReplicaError> {
        let mut highest = lock(&self.highest);
        let text = format!("{}\n{}\n", checkpoint.size, checkpoint.root);
        self.disk
            .replace(&highest.path, text.as_bytes())
            .map_err(|source| ReplicaError::Highest {
                path: highest.path.display().to_string(),
                source,
            })?;
        highest.checkpoint = Some((checkpoint.size, checkpoint.root));
        Ok(())
    }

    /// After a start, the date of the stored checkpoint is known before the registry answers.
    fn restore_time(&self) {
        if let (Ok(Some(root)), Ok(note)) = (self.index.root(), self.reader.checkpoint_note())
            && let Ok((_, time)) = CheckpointKeys::of_root(&root).verify(&note)
        {
            self.standing
                .send_modify(|standing| standing.log_time = Some(time));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the lock guards is on disk and is read again after any failure.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forked(signed: &Checkpoint, verified: Digest) -> Misbehaviour {
    Misbehaviour::Forked {
        size: signed.size,
        shown: signed.root,
        verified,
    }
}

/// A note for a size between two that the registry signed. It carries the signatures over the
/// later one, which do not verify over this: nobody can take it for a signed checkpoint.
fn on_the_way(own: &Checkpoint, note: &str) -> String {
    let signatures = note
        .split_once("\n\n")
        .map_or("", |(_, signatures)| signatures);
    format!("{own}\n{signatures}")
}

/// Size and root of the highest checkpoint ever verified.
fn read_highest(path: &Path) -> Result<Option<(u64, Digest)>, ReplicaError> {
    let failed = |source| ReplicaError::Highest {
        path: path.display().to_string(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let read = text
                .trim_end()
                .split_once('\n')
                .and_then(|(size, root)| Some((size.parse().ok()?, root.parse().ok()?)));
            read.map(Some).ok_or_else(|| {
                failed(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    "it does not hold a log size and a root",
                ))
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn bad_entry(index: u64, reason: String) -> Misbehaviour {
    Misbehaviour::Entry { index, reason }
}

/// The entries `from..to`, each leaf checked against its envelope.
async fn fetch(source: &Source, from: u64, to: u64) -> Result<Vec<Entry>, ReplicaError> {
    let mut entries = Vec::new();
    let mut at = from;
    while at < to {
        let bundle = at / 256;
        let end = to.min((bundle + 1) * 256);
        let leaves = fetch_bundle(source, TileKind::Entries, bundle, to).await?;
        let envelopes = fetch_bundle(source, TileKind::Envelopes, bundle, to).await?;
        for index in at..end {
            let within = usize::try_from(index % 256).unwrap_or(0);
            let (Some(leaf), Some(bytes)) = (leaves.get(within), envelopes.get(within)) else {
                return Err(bad_entry(index, "it is missing from its bundle".into()).into());
            };
            check_leaf(leaf, bytes).map_err(|reason| bad_entry(index, reason))?;
            entries.push(Entry {
                leaf: leaf.clone(),
                envelope: Some(bytes.clone()),
            });
        }
        at = end;
    }
    Ok(entries)
}

async fn fetch_bundle(
    source: &Source,
    kind: TileKind,
    bundle: u64,
    size: u64,
) -> Result<Vec<Vec<u8>>, ReplicaError> {
    let Some(path) = TilePath::in_log(kind, bundle, size) else {
        return Ok(Vec::new());
    };
    let (bytes, width) = source.tile(&path).await?;
    let items = tile::decode_bundle(kind, &bytes, width)
        .map_err(|error| bad_entry(bundle * 256, error.to_string()))?;
    Ok(items.into_iter().map(<[u8]>::to_vec).collect())
}

/// Rebuilds the leaf from the envelope and the key inside the leaf, and compares every byte.
/// Whether that key is the right one is for `apply` to say.
fn check_leaf(stored: &[u8], envelope: &[u8]) -> Result<(), String> {
    let envelope = Envelope::parse(envelope).map_err(|error| error.to_string())?;
    let value = json::parse(stored).map_err(|error| error.to_string())?;
    let key = value["spec"]["hashedRekordV002"]["signature"]["verifier"]["publicKey"]["rawBytes"]
        .as_str()
        .and_then(|text| format!("ed25519:{text}").parse::<PublicKey>().ok())
        .ok_or("the leaf holds no Ed25519 key")?;
    if key.id() != envelope.key() || leaf(&envelope, &key) != stored {
        return Err("the leaf was not made from this envelope".into());
    }
    Ok(())
}
