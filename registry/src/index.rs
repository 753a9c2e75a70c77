//! The state of the federation, indexed in sled so that questions to it are quick.
//!
//! ```text
//! log (durable truth) ──► apply (pure fold) ──► sled: state/… leaf/… meta/size
//! ```
//!
//! Nothing here cannot be rebuilt: delete the directory and the next start folds the log again.
//! Each batch of entries and the size they lead to go into sled as one atomic batch, so that
//! after a crash the index stands at some size and goes on from there. Entries that the rules
//! reject are noted in the same batch, under `rejected/…`, until somebody has settled them: a
//! crash between finding one and saying so loses nothing. `meta/format` says in
//! which form the records are; an index of another form, or with a record that cannot be read,
//! is built anew when it is opened.
//!
//! Where the log asks for rules that this program is too old for, the index stops before that
//! entry, for good: what it holds stays true, and what follows is for a newer program.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, DatasetId, VersionId};
use jingwei_proto::key::{KeyId, PublicKey};
use jingwei_proto::state::{
    self, AgencyRecord, ApplyError, Chain, KeyRecord, Lookup, NodeRecord, Record, RootRecord,
    SchemaRecord, TimeRecord, VersionRecord, keys,
};
use jingwei_proto::statement::Snapshot;

use crate::log::{LogError, LogReader};
use crate::tls::Members;
pub use batch::Batch;
pub use behind::Behind;
use kept::Kept;
pub use snapshots::Proofs;

mod batch;
mod behind;
mod kept;
mod snapshots;

/// The form of the records; a change of any of them counts it up.
const FORMAT: u64 = 4;
/// Before the keys of the state's records.
const STATE: &[u8] = b"state/";
/// How long a lock of sled's may outlive the handles to it.
const RELEASED: Duration = Duration::from_secs(5);
/// How sled says that there is one.
const LOCKED: &str = "could not acquire lock";
/// Entries folded between two writes to sled.
const BATCH: usize = 256;
/// Before the places of rejected entries.
const REJECTED: &[u8] = b"rejected/";
/// sled's page cache, in bytes: a node hosts many agencies in little memory.
const CACHE: u64 = 48 * 1024 * 1024;

/// The index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// sled failed, and a fresh index failed too.
    #[error(
        "the index in {path} cannot be used ({source}); it holds nothing of its own: delete it and start again"
    )]
    Sled {
        /// The index's directory.
        path: PathBuf,
        /// What sled says.
        source: sled::Error,
    },
    /// The log that it is built from cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry that was accepted into the log is no envelope.
    #[error("entry {index} of the log cannot be read: {reason}")]
    Entry {
        /// Its place in the log.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// A record is not in the form that this program writes.
    #[error(
        "the record {key} of the index in {path} cannot be read; start again, and the index is built anew"
    )]
    Record {
        /// The index's directory.
        path: PathBuf,
        /// The record's key.
        key: String,
    },
    /// The federation has moved on to rules that this program does not know.
    #[error(
        "the federation uses rules {0} from here on, and this program is too old for them: install a newer one"
    )]
    RulesTooNew(u64),
}

/// An entry that the log holds and the rules reject: the registry should not have admitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the log.
    pub index: u64,
    /// The rule that it breaks.
    pub reason: String,
}

/// The index of one log.
#[derive(Clone)]
pub struct Index {
    db: sled::Db,
    path: PathBuf,
    /// Batches written by this process.
    writes: Arc<AtomicU64>,
    /// Rules that the log asks for and this program is too old for; 0 if there are none.
    newer_rules: Arc<AtomicU64>,
    /// Records as they were read, while the index stands where it does.
    kept: Arc<Mutex<Kept>>,
    /// The state at the newest snapshot, once it has been asked for.
    past: Arc<Mutex<Option<snapshots::Past>>>,
}

impl Index {
    /// Opens the index in `path`, or builds it anew, and folds in what `log` has beyond it.
    pub fn open(path: &Path, log: &LogReader) -> Result<Index, IndexError> {
        match Index::open_as_it_is(path, log) {
            Ok(Some(open)) => return Ok(open),
            Ok(None) => {}
            // The log itself is not mended by building the index anew.
            Err(error @ (IndexError::Log(_) | IndexError::Entry { .. })) => return Err(error),
            Err(error) => tracing::warn!(%error, "the index is of no use"),
        }
        tracing::warn!(path = %path.display(), "building the index anew");
        // Only what this type wrote is removed, and all of it follows from the log.
        let _ = std::fs::remove_dir_all(path);
        let index = Index::open_at(path)?;
        index.put_meta("meta/format", FORMAT)?;
        index.catch_up(log)?;
        Ok(index)
    }

    /// `None` if the index is of another form, or of another log.
    fn open_as_it_is(path: &Path, log: &LogReader) -> Result<Option<Index>, IndexError> {
        let index = Index::open_at(path)?;
        if index.db.is_empty() {
            index.put_meta("meta/format", FORMAT)?;
        }
        if index.meta("meta/format")? != FORMAT || index.size()? > log.size() {
            return Ok(None);
        }
        index.catch_up(log)?;
        Ok(Some(index))
    }

    fn open_at(path: &Path) -> Result<Index, IndexError> {
        let db = open_db(path).map_err(|source| IndexError::Sled {
            path: path.to_owned(),
            source,
        })?;
        Ok(Index {
            db,
            path: path.to_owned(),
            writes: Arc::default(),
            newer_rules: Arc::default(),
            kept: Arc::default(),
            past: Arc::default(),
        })
    }

    /// Entries folded in.
    pub fn size(&self) -> Result<u64, IndexError> {
        self.meta("meta/size")
    }

    fn meta(&self, key: &str) -> Result<u64, IndexError> {
        let bytes = self.db.get(key).map_err(|source| self.sled(source))?;
        Ok(bytes
            .and_then(|bytes| bytes.as_ref().try_into().ok())
            .map_or(0, u64::from_be_bytes))
    }

    fn put_meta(&self, key: &str, value: u64) -> Result<(), IndexError> {
        let written = self.db.insert(key, &value.to_be_bytes());
        written.map(|_| ()).map_err(|source| self.sled(source))
    }

    /// The rules that the log asks for and this program is too old for. The index then stands
    /// before the entry that asks for them.
    pub fn newer_rules(&self) -> Option<u64> {
        Some(self.newer_rules.load(Ordering::Acquire)).filter(|rules| *rules > 0)
    }

    /// How many batches this process has written: while it stays, no record has changed.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Folds in the entries that `log` has beyond the index.
    pub fn catch_up(&self, log: &LogReader) -> Result<(), IndexError> {
        let end = log.size();
        let mut at = self.size()?;
        while at < end && self.newer_rules().is_none() {
            let to = end.min(at + BATCH as u64);
            let mut envelopes = Vec::new();
            for (index, bytes) in (at..to).zip(log.envelopes(at..to)?) {
                let envelope = Envelope::parse(&bytes?).map_err(|error| IndexError::Entry {
                    index,
                    reason: error.to_string(),
                })?;
                envelopes.push(envelope);
            }
            self.fold(at, &envelopes)?;
            at = to;
        }
        Ok(())
    }

    /// Folds in the next entries, of which the first has the place `from`: the index's size.
    pub fn fold(&self, from: u64, envelopes: &[Envelope]) -> Result<(), IndexError> {
        let mut done = 0;
        while done < envelopes.len() && self.newer_rules().is_none() {
            let at = from + done as u64;
            done += self.fold_batch(at, &envelopes[done..])?;
        }
        Ok(())
    }

    /// Entries that the rules reject and that nobody has settled, in the log's order.
    pub fn rejected(&self) -> impl Iterator<Item = Rejected> + use<> {
        self.db.scan_prefix(REJECTED).filter_map(|item| {
            let (key, reason) = item.ok()?;
            Some(Rejected {
                index: u64::from_be_bytes(key[REJECTED.len()..].try_into().ok()?),
                reason: String::from_utf8(reason.to_vec()).ok()?,
            })
        })
    }

    /// The rejected entry has been seen to by whoever looks after the log.
    pub fn settle(&self, index: u64) -> Result<(), IndexError> {
        let removed = self.db.remove(rejected_key(index));
        removed.map(|_| ()).map_err(|source| self.sled(source))
    }

    /// Folds in a batch from the front of `envelopes`, which ends before a snapshot: that names
    /// the state so far. Returns how many it was.
    fn fold_batch(&self, from: u64, envelopes: &[Envelope]) -> Result<usize, IndexError> {
        let mut batch = Batch::new(self);
        let mut done = 0;
        for (index, envelope) in (from..).zip(envelopes.iter().take(BATCH)) {
            let snapshot = Snapshot::of(envelope);
            if snapshot.is_some() && done > 0 {
                break;
            }
            match batch.admit(index, envelope, snapshot.as_ref()) {
                Ok(_) => {}
                Err(ApplyError::Rejected(rejection)) => {
                    batch.rejected.push((index, rejection.to_string()));
                }
                Err(ApplyError::RulesTooNew(rules)) => {
                    tracing::error!(
                        index,
                        rules,
                        "the log asks for rules that this program is too old for"
                    );
                    self.newer_rules.store(rules, Ordering::Release);
                    break;
                }
                Err(ApplyError::Storage(error)) => return Err(error),
                Err(ApplyError::Unreadable(key)) => return Err(self.unreadable(&key)),
            }
            done += 1;
        }
        batch.write(from + done as u64)?;
        Ok(done)
    }

    /// The place of a statement that is in the log, signed by `signer`.
    pub fn place(
        &self,
        envelope: &Envelope,
        signer: &PublicKey,
    ) -> Result<Option<u64>, IndexError> {
        Batch::new(self).place(envelope, signer)
    }

    /// The place of the entry with this leaf hash, if it is one that stands under its leaf.
    fn leaf(&self, leaf: &Digest) -> Result<Option<u64>, IndexError> {
        let bytes = self
            .db
            .get(leaf_key(leaf))
            .map_err(|source| self.sled(source))?;
        Ok(bytes
            .and_then(|bytes| bytes.as_ref().try_into().ok())
            .map(u64::from_be_bytes))
    }

    /// The root in force; `None` before the log's first entry.
    pub fn root(&self) -> Result<Option<RootRecord>, IndexError> {
        self.find(keys::ROOT)
    }

    /// An agency.
    pub fn agency(&self, id: &AgencyId) -> Result<Option<AgencyRecord>, IndexError> {
        self.find(&keys::agency(id))
    }

    /// A version of the root document.
    pub fn root_version(&self, version: u64) -> Result<Option<RootRecord>, IndexError> {
        self.find(&keys::root_version(version))
    }

    /// A key that was ever used.
    pub fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, IndexError> {
        self.find(&keys::signer(id))
    }

    /// Log time: that of the newest snapshot.
    pub fn log_time(&self) -> Result<Option<TimeRecord>, IndexError> {
        self.find(keys::TIME)
    }

    /// The places of all entries that made an agency's record what it is.
    pub fn changes_of(&self, agency: &AgencyRecord) -> Result<Vec<u64>, IndexError> {
        let changes = (1..=agency.changes).map(|n| self.find(&keys::change(&agency.id, n)));
        changes.filter_map(Result::transpose).collect()
    }

    /// An agency's node.
    pub fn node(&self, id: &AgencyId) -> Result<Option<NodeRecord>, IndexError> {
        self.find(&keys::node(id))
    }

    /// The agencies whose node uses this TLS key.
    pub fn users_of_tls(&self, key: KeyId) -> Result<Vec<AgencyId>, IndexError> {
        Ok(self.find(&keys::tls(key))?.unwrap_or_default())
    }

    /// A dataset's newest version.
    pub fn newest(&self, id: &DatasetId) -> Result<Option<Chain>, IndexError> {
        self.find(&keys::dataset(id))
    }

    /// A version of a dataset.
    pub fn version(&self, id: &VersionId) -> Result<Option<VersionRecord>, IndexError> {
        self.find(&keys::version(id))
    }

    /// A schema that was entered as a standard.
    pub fn schema(&self, id: &DatasetId) -> Result<Option<SchemaRecord>, IndexError> {
        self.find(&keys::schema(id))
    }

    /// All agencies, by id.
    pub fn agencies(&self) -> impl Iterator<Item = AgencyRecord> + use<> {
        self.scan("agency/")
            .filter_map(|(_, bytes)| state::record(&bytes))
    }

    /// All datasets, by id.
    pub fn datasets(&self) -> impl Iterator<Item = DatasetId> + use<> {
        self.scan("dataset/")
            .filter_map(|(key, _)| key.parse().ok())
    }

    /// The datasets of one agency.
    pub fn datasets_of(&self, agency: &AgencyId) -> impl Iterator<Item = DatasetId> + use<> {
        let agency = agency.clone();
        self.scan(&format!("dataset/{agency}/"))
            .filter_map(move |(name, _)| {
                Some(DatasetId {
                    agency: agency.clone(),
                    name: name.parse().ok()?,
                })
            })
    }

    /// Keys without `prefix`, and records, in order.
    fn scan(&self, prefix: &str) -> impl Iterator<Item = (String, sled::IVec)> + use<> {
        let prefix = state_key(prefix);
        let skip = prefix.len();
        self.db.scan_prefix(prefix).filter_map(move |item| {
            let (key, value) = item.ok()?;
            Some((String::from_utf8(key[skip..].to_vec()).ok()?, value))
        })
    }

    fn find<T: Record>(&self, key: &str) -> Result<Option<T>, IndexError> {
        // Held while the record is read, so that none is kept as of a later state than its own.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep_to(self.writes());
        if let Some(record) = kept.find(key) {
            return Ok(Some(record));
        }
        // What is not there may be asked for by anybody under any name, and is not kept.
        let Some(bytes) = self.get(key)? else {
            return Ok(None);
        };
        let Some(record) = state::record::<T>(&bytes) else {
            return Err(self.unreadable(key));
        };
        kept.add(key, bytes.len(), &record);
        Ok(Some(record))
    }

    /// A record that cannot be read; at the next start the index is built anew.
    fn unreadable(&self, key: &str) -> IndexError {
        if let Err(error) = self.put_meta("meta/format", 0) {
            tracing::error!(%error, "the index cannot be marked as unreadable");
        }
        IndexError::Record {
            path: self.path.clone(),
            key: key.to_owned(),
        }
    }

    /// The thread that writes it is gone.
    fn stopped(&self) -> IndexError {
        self.sled(sled::Error::Io(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn sled(&self, source: sled::Error) -> IndexError {
        IndexError::Sled {
            path: self.path.clone(),
            source,
        }
    }
}

impl Lookup for Index {
    type Error = IndexError;

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        let bytes = self
            .db
            .get(state_key(key))
            .map_err(|source| self.sled(source))?;
        Ok(bytes.map(|bytes| bytes.to_vec()))
    }

    fn find<T: Record>(&self, key: &str) -> Result<Option<T>, ApplyError<IndexError>> {
        Index::find(self, key).map_err(ApplyError::Storage)
    }
}

/// A connection's key is a member's if the node of some agency in force lists it.
impl Members for Index {
    fn knows(&self, key: &KeyId) -> bool {
        let active = |id: &AgencyId| {
            let record = self.agency(id).ok().flatten();
            record.is_some_and(|record| record.is_active())
        };
        self.users_of_tls(*key)
            .is_ok_and(|users| users.iter().any(active))
    }
}

/// Opens sled. The one who had it last in this process may be a moment away from letting go of it:
/// that is no reason to build an index anew.
fn open_db(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(Some(1_000));
    let until = Instant::now() + RELEASED;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains(LOCKED) && Instant::now() < until =>
            {
                std::thread::sleep(RELEASED / 100);
            }
            opened => return opened,
        }
    }
}

fn state_key(key: &str) -> Vec<u8> {
    [STATE, key.as_bytes()].concat()
}

fn rejected_key(index: u64) -> Vec<u8> {
    [REJECTED, &index.to_be_bytes()].concat()
}

fn leaf_key(leaf: &Digest) -> Vec<u8> {
    [b"leaf/", &leaf.as_bytes()[..]].concat()
}

#[cfg(test)]
mod tests;
