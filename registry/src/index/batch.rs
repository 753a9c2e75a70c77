//! Entries on top of an index that are not in it yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{DatasetId, VersionId};
use jingwei_proto::key::PublicKey;
use jingwei_proto::leaf::leaf;
use jingwei_proto::merkle::leaf_hash;
use jingwei_proto::state::{
    self, ApplyError, KeyRecord, Lookup, Purpose, Record, VersionRecord, keys,
};
use jingwei_proto::statement::{Predicate, Snapshot, Statement};

use super::{Index, IndexError, leaf_key, rejected_key, state_key};

/// What a sequencer admits before it commits, and what a replica folds between two writes.
pub struct Batch {
    pub(super) index: Index,
    /// What the index is taking in meanwhile, or is about to, newest first.
    pub(super) below: Vec<Arc<Layer>>,
    /// The size that the index then has, where it is known.
    pub(super) base: u64,
    pub(super) layer: Arc<Layer>,
    /// The place of a snapshot, which nothing in the batch comes before.
    pub(super) snapshot: Option<u64>,
    pub(super) rejected: Vec<(u64, String)>,
}

/// What a batch changes.
#[derive(Clone, Default)]
pub(super) struct Layer {
    pub(super) state: BTreeMap<String, Option<Vec<u8>>>,
    /// The places of entries that no record of the state names for good.
    pub(super) leaves: BTreeMap<Digest, u64>,
}

impl Lookup for Batch {
    type Error = IndexError;

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changed(key) {
            Some(record) => Ok(record.clone()),
            None => self.index.get(key),
        }
    }

    fn find<T: Record>(&self, key: &str) -> Result<Option<T>, ApplyError<IndexError>> {
        match self.changed(key) {
            Some(Some(bytes)) => state::read(key, bytes).map(Some),
            Some(None) => Ok(None),
            None => Lookup::find(&self.index, key),
        }
    }
}

impl Batch {
    /// An empty batch on top of `index`.
    pub fn new(index: &Index) -> Batch {
        Batch {
            index: index.clone(),
            below: Vec::new(),
            base: 0,
            layer: Arc::default(),
            snapshot: None,
            rejected: Vec::new(),
        }
    }

    /// The size of the log that the batch continues.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// An empty batch on top of this one, with which the log is to have `size` entries: nothing is
    /// lost if it comes to nothing. When this one is committed, the index has all that lies under
    /// the one before it.
    pub fn ahead(&self, size: u64) -> Batch {
        let below = [&self.layer].into_iter().chain(self.below.first());
        Batch {
            below: below.cloned().collect(),
            base: size,
            ..Batch::new(&self.index)
        }
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.layer)
            .chain(&self.below)
            .map(|layer| &**layer)
    }

    /// The record under a key that is not as the index has it.
    fn changed(&self, key: &str) -> Option<&Option<Vec<u8>>> {
        self.layers().find_map(|layer| layer.state.get(key))
    }

    /// The place of a statement that is in the log already, signed by `signer`.
    ///
    /// Most are versions of datasets, whose place stands in the version's record, and there alone: it is
    /// known by what was signed, with any key that is or was the agency's. That of any other statement
    /// stands under its leaf.
    pub fn place(
        &self,
        envelope: &Envelope,
        signer: &PublicKey,
    ) -> Result<Option<u64>, IndexError> {
        let Some(version) = version_in(envelope) else {
            let leaf = leaf_hash(&leaf(envelope, signer));
            return match self.layers().find_map(|layer| layer.leaves.get(&leaf)) {
                Some(index) => Ok(Some(*index)),
                None => self.index.leaf(&leaf),
            };
        };
        let agency = Purpose::Agency(version.dataset.agency.clone());
        let signed: Option<KeyRecord> = self.read(&keys::signer(signer.id()))?;
        if signed.is_none_or(|record| record.purpose != agency) {
            return Ok(None);
        }
        let record: Option<VersionRecord> = self.read(&keys::version(&version))?;
        let itself = record.filter(|record| record.chain.payload == envelope.payload_digest());
        Ok(itself.map(|record| record.chain.index))
    }

    /// The record under `key`, read.
    pub fn read<T: Record>(&self, key: &str) -> Result<Option<T>, IndexError> {
        let bytes = self.get(key)?;
        let read = |bytes: Vec<u8>| state::record(&bytes).ok_or_else(|| self.index.unreadable(key));
        bytes.map(read).transpose()
    }

    /// Applies the entry at `index`; the change is seen by the entries after it. Returns the key that
    /// signed it. `snapshot` is the one in it, if it is one: then it is the first of the batch, and
    /// the index has all that comes before.
    pub fn admit(
        &mut self,
        index: u64,
        envelope: &Envelope,
        snapshot: Option<&Snapshot>,
    ) -> Result<PublicKey, ApplyError<IndexError>> {
        let change = state::apply(self, index, envelope)?;
        if let Some(snapshot) = snapshot {
            self.index.check_snapshot(snapshot)?;
            self.snapshot = Some(index);
        }
        let layer = Arc::make_mut(&mut self.layer);
        layer.state.extend(change.writes);
        if !matches!(change.statement.predicate, Predicate::Dataset(_)) {
            let leaf = leaf_hash(&leaf(envelope, &change.signer));
            layer.leaves.insert(leaf, index);
        }
        Ok(change.signer)
    }

    /// Writes the batch into the index, which then stands at `size`.
    pub fn write(self, size: u64) -> Result<(), IndexError> {
        let mut writes = sled::Batch::default();
        for (key, record) in &self.layer.state {
            match record {
                Some(record) => writes.insert(state_key(key), record.as_slice()),
                None => writes.remove(state_key(key)),
            }
        }
        for (leaf, index) in &self.layer.leaves {
            writes.insert(leaf_key(leaf), &index.to_be_bytes());
        }
        for (index, reason) in &self.rejected {
            writes.insert(rejected_key(*index), reason.as_bytes());
        }
        writes.insert("meta/size", &size.to_be_bytes());
        self.write_with_undo(writes)?;
        self.index.writes.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// The version that a statement publishes, if it publishes one.
fn version_in(envelope: &Envelope) -> Option<VersionId> {
    let statement = Statement::parse(envelope.payload()).ok()?;
    let Predicate::Dataset(body) = statement.predicate else {
        return None;
    };
    Some(VersionId {
        dataset: DatasetId {
            agency: statement.head.agency?,
            name: body.name,
        },
        version: statement.head.sequence,
    })
}
