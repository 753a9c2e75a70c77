//! The Merkle tree over a state, and what is proved from it: that a record is there, or none.
//!
//! A state is a map from text keys to records ([`crate::state`]). Each of its records is a
//! [`Row`], the SHA-256 of the key and that of the record. The first two bytes of a row put it
//! into one of 65,536 *buckets*; the rows of each bucket, sorted and joined, are one leaf of an
//! RFC 6962 tree of that size:
//!
//! ```text
//!                     root             named by a snapshot statement in the log
//!                   ╱      ╲
//!                 ╱   16     ╲         sibling hashes, in a proof
//!               ╱              ╲
//!   leaf 0x0000   …   0x4d91   …   0xffff
//!                       │
//!            row, row, row: all of them, in a proof
//! ```
//!
//! So a change of one record costs one leaf and sixteen nodes; and all rows of a bucket with the
//! way from it to the root show that a record is there, or that none is, to an auditor who has
//! nothing else of the state. Rows hold hashes and not keys: those that stand beside the one in
//! question tell nothing of themselves.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::merkle::{self, leaf_hash, node_hash, verify_inclusion};

/// The tree's levels above its leaves: the bits of a bucket's number.
const DEPTH: usize = 16;
/// Leaves of the tree.
const BUCKETS: usize = 1 << DEPTH;

/// A record in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// SHA-256 of the key.
    pub key: Digest,
    /// SHA-256 of the record.
    pub record: Digest,
}

impl Row {
    /// The row of a record.
    pub fn of(key: &str, record: &[u8]) -> Row {
        Row {
            key: Digest::of(key.as_bytes()),
            record: Digest::of(record),
        }
    }
}

/// The bucket of a key, by its SHA-256.
fn bucket(key: &Digest) -> usize {
    let bytes = key.as_bytes();
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The leaf of a bucket with these rows.
fn leaf(rows: &[Row]) -> Digest {
    let hashes = rows.iter().flat_map(|row| [row.key, row.record]);
    let bytes: Vec<u8> = hashes.flat_map(|hash| *hash.as_bytes()).collect();
    leaf_hash(&bytes)
}

/// The tree of one state, in memory: 64 bytes for each record, and 6 MiB.
pub struct Tree {
    buckets: Vec<Vec<Row>>,
    /// The hashes of each level, the leaves first; those above `changed` are out of date.
    levels: Vec<Vec<Digest>>,
    changed: BTreeSet<usize>,
}

impl Default for Tree {
    fn default() -> Tree {
        let empty = std::iter::successors(Some(leaf(&[])), |hash| Some(node_hash(hash, hash)));
        let levels = empty.take(DEPTH + 1).enumerate();
        Tree {
            buckets: vec![Vec::new(); BUCKETS],
            levels: levels
                .map(|(level, hash)| vec![hash; BUCKETS >> level])
                .collect(),
            changed: BTreeSet::new(),
        }
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let records: usize = self.buckets.iter().map(Vec::len).sum();
        write!(f, "Tree({records} records)")
    }
}

impl<'a> FromIterator<(&'a String, &'a Vec<u8>)> for Tree {
    fn from_iter<I: IntoIterator<Item = (&'a String, &'a Vec<u8>)>>(state: I) -> Tree {
        let mut tree = Tree::default();
        for (key, record) in state {
            tree.set(key, Some(record));
        }
        tree
    }
}

impl Tree {
    /// Says what stands under `key` now.
    pub fn set(&mut self, key: &str, record: Option<&[u8]>) {
        let key = Digest::of(key.as_bytes());
        let number = bucket(&key);
        let rows = &mut self.buckets[number];
        let row = record.map(|record| Row {
            key,
            record: Digest::of(record),
        });
        match (rows.binary_search_by_key(&key, |row| row.key), row) {
            (Ok(place), Some(row)) => rows[place] = row,
            (Ok(place), None) => _ = rows.remove(place),
            (Err(place), Some(row)) => rows.insert(place, row),
            (Err(_), None) => return,
        }
        self.changed.insert(number);
    }

    /// The root: what a snapshot statement names.
    pub fn root(&mut self) -> Digest {
        let mut changed = std::mem::take(&mut self.changed);
        for number in &changed {
            self.levels[0][*number] = leaf(&self.buckets[*number]);
        }
        for level in 1..=DEPTH {
            changed = changed.iter().map(|place| place / 2).collect();
            for place in &changed {
                let below = &self.levels[level - 1];
                let hash = node_hash(&below[place * 2], &below[place * 2 + 1]);
                self.levels[level][*place] = hash;
            }
        }
        self.levels[DEPTH][0]
    }

    /// The proof of what stands under `key`: `record`, which must be what the tree was told, or
    /// nothing.
    pub fn prove(&mut self, key: &str, record: Option<&[u8]>) -> Proof {
        self.root();
        let number = bucket(&Digest::of(key.as_bytes()));
        let siblings = self.levels.iter().take(DEPTH).enumerate();
        Proof {
            record: record.map(|record| String::from_utf8_lossy(record).into_owned()),
            rows: self.buckets[number].clone(),
            hashes: siblings
                .map(|(level, hashes)| hashes[(number >> level) ^ 1])
                .collect(),
        }
    }
}

/// What a snapshot's tree says of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The record, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// All rows of the key's bucket.
    pub rows: Vec<Row>,
    /// The siblings on the bucket's way to the root, from the leaf's on.
    pub hashes: Vec<Digest>,
}

/// A proof that shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The rows are not the bucket's.
    #[error("what is shown of the state around ‘{key}’ is not in the snapshot: {source}")]
    Bucket {
        /// The key in question.
        key: String,
        /// How the way to the root fails.
        source: merkle::ProofError,
    },
    /// The record is not the one of the row.
    #[error("the record of ‘{0}’ is not the one in the snapshot")]
    Record(String),
}

impl Proof {
    /// The record that stands under `key` in the state with this root, or that none does.
    pub fn verify(&self, key: &str, root: &Digest) -> Result<Option<&[u8]>, ProofError> {
        let wanted = Digest::of(key.as_bytes());
        let number = bucket(&wanted) as u64;
        verify_inclusion(
            &leaf(&self.rows),
            number,
            BUCKETS as u64,
            &self.hashes,
            root,
        )
        .map_err(|source| ProofError::Bucket {
            key: key.to_owned(),
            source,
        })?;
        let row = self.rows.iter().find(|row| row.key == wanted);
        match (row, &self.record) {
            (None, None) => Ok(None),
            (Some(row), Some(record)) if row.record == Digest::of(record.as_bytes()) => {
                Ok(Some(record.as_bytes()))
            }
            _ => Err(ProofError::Record(key.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
