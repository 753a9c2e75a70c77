//! The state as it was at the newest snapshot, beside the state as it is: what proofs come from.
//!
//! ```text
//! newest snapshot ──► every change since, with what stood there before ──► the index's size
//!    Tree, proofs                 undo/<index>, in sled                        state/…
//! ```
//!
//! Evidence rests on the newest snapshot that the log has, and the state goes on from there. So
//! each batch leaves behind what it overwrote, in the same atomic write; the next snapshot throws
//! that away. The tree is made when it is first asked for, and then follows the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use jingwei_proto::digest::Digest;
use jingwei_proto::snapshot::{Proof, Tree};
use jingwei_proto::state::{ApplyError, Lookup as _};
use jingwei_proto::statement::Snapshot;

use super::{Batch, Index, IndexError, STATE};

/// Where the newest snapshot stands in the log; it is not in the state before that.
const NEWEST: &str = "meta/snapshot";
const UNDO: &[u8] = b"undo/";

/// Records by key, as they stood before something changed them.
pub(super) type Before = BTreeMap<String, Option<String>>;

/// What a snapshot shows of some keys.
pub type Proofs = BTreeMap<String, Proof>;

/// A state of a while ago, and what has changed since.
pub(super) struct Past {
    /// The entries that led to it.
    size: u64,
    tree: Tree,
    since: Before,
}

impl Index {
    /// The Merkle root over the state that the entries so far lead to, which a snapshot after
    /// them names.
    pub fn state_root(&self) -> Result<Digest, IndexError> {
        let mut place = self.past();
        let mut past = match place.take() {
            Some(past) => past,
            None => self.load()?,
        };
        for key in std::mem::take(&mut past.since).into_keys() {
            past.tree.set(&key, self.get(&key)?.as_deref());
        }
        past.size = self.size()?;
        let root = past.tree.root();
        *place = Some(past);
        Ok(root)
    }

    /// Whether the snapshot, which is the next entry, says what the entries so far lead to.
    pub(super) fn check_snapshot(&self, snapshot: &Snapshot) -> Result<(), ApplyError<IndexError>> {
        let root = self.state_root().map_err(ApplyError::Storage)?;
        snapshot.names(&root).map_err(ApplyError::Rejected)
    }

    /// The newest snapshot's place in the log, and by it proofs of what stood under each of the
    /// keys that `wanted` names for it; `None` before the first snapshot.
    pub fn prove(
        &self,
        wanted: impl FnOnce(u64) -> BTreeSet<String>,
    ) -> Result<Option<(u64, Proofs)>, IndexError> {
        let mut place = self.past();
        let index = self.meta(NEWEST)?;
        if index == 0 {
            return Ok(None);
        }
        let mut past = match place.take() {
            Some(past) if past.size == index => past,
            _ => self.load()?,
        };
        let mut proofs = Proofs::new();
        for key in wanted(index) {
            let record = match past.since.get(&key) {
                Some(before) => before.clone().map(String::into_bytes),
                None => self.get(&key)?,
            };
            let proof = past.tree.prove(&key, record.as_deref());
            proofs.insert(key, proof);
        }
        *place = Some(past);
        Ok(Some((index, proofs)))
    }

    /// The state at the newest snapshot; before the first, that of now.
    fn load(&self) -> Result<Past, IndexError> {
        let mut tree = Tree::default();
        for item in self.db.scan_prefix(STATE) {
            let (key, record) = item.map_err(|source| self.sled(source))?;
            let key = String::from_utf8_lossy(&key[STATE.len()..]);
            tree.set(&key, Some(&record));
        }
        let mut since = Before::new();
        for item in self.db.scan_prefix(UNDO) {
            let (key, before) = item.map_err(|source| self.sled(source))?;
            let before: Before = serde_json::from_slice(&before)
                .map_err(|_| self.unreadable(&String::from_utf8_lossy(&key)))?;
            note(&mut since, before);
        }
        for (key, before) in &since {
            tree.set(key, before.as_ref().map(String::as_bytes));
        }
        let size = match self.meta(NEWEST)? {
            0 => self.size()?,
            newest => newest,
        };
        Ok(Past { size, tree, since })
    }

    fn past(&self) -> MutexGuard<'_, Option<Past>> {
        // It is taken out while it changes: whoever panicked between left nothing behind.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was there before the earliest change counts.
fn note(since: &mut Before, before: Before) {
    for (key, record) in before {
        since.entry(key).or_insert(record);
    }
}

impl Batch {
    /// Adds to `writes` what the batch overwrites, for as long as the newest snapshot is the
    /// newest, and writes all of it.
    pub(super) fn write_with_undo(&self, mut writes: sled::Batch) -> Result<(), IndexError> {
        let index = &self.index;
        let mut place = index.past();
        if let Some(newest) = self.snapshot {
            for key in index.db.scan_prefix(UNDO).keys() {
                writes.remove(key.map_err(|source| index.sled(source))?);
            }
            writes.insert(NEWEST, &newest.to_be_bytes());
        }
        let kept = self.snapshot.is_some() || index.meta(NEWEST)? > 0;
        let before = match kept || place.is_some() {
            true => self.before()?,
            false => Before::new(),
        };
        if kept {
            let undo = serde_json::to_vec(&before).expect("a map of texts is JSON");
            let at = index.size()?.to_be_bytes();
            writes.insert([UNDO, &at].concat(), undo);
        }
        let written = index.db.apply_batch(writes);
        written.map_err(|source| index.sled(source))?;
        if let Some(past) = place.as_mut() {
            note(&mut past.since, before);
        }
        Ok(())
    }

    /// What stands below the batch under the keys that it writes.
    fn before(&self) -> Result<Before, IndexError> {
        let keys = self.layer.state.keys();
        keys.map(|key| {
            let record = self.index.get(key)?;
            let text = record.map(|record| String::from_utf8_lossy(&record).into_owned());
            Ok((key.clone(), text))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests;
