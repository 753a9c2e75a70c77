//! The Merkle tree of RFC 6962 and RFC 9162 §2.1: roots, proofs that an entry is in a tree,
//! and proofs that one tree is the beginning of another.
//!
//! Nothing here stores a tree. A writer carries only the [`Edge`], and a prover reads hashes
//! of complete subtrees through a [`HashReader`], be they in memory, in tiles or elsewhere.

use crate::digest::{Digest, Hasher};
use crate::words::{counted, entries};

/// The hash of a log entry: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&[0]);
    hasher.update(entry);
    hasher.finish()
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&[1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    hasher.finish()
}

/// The root of the tree without entries: SHA-256 of nothing.
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// Something that knows the hashes of complete subtrees.
pub trait HashReader {
    /// Why a hash could not be read.
    type Error;

    /// The hash of the `index`-th complete subtree of 2^`level` leaves; level 0 is the leaves.
    fn hash(&self, level: u8, index: u64) -> Result<Digest, Self::Error>;
}

impl<R: HashReader + ?Sized> HashReader for &R {
    type Error = R::Error;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, R::Error> {
        (**self).hash(level, index)
    }
}

/// The right edge of a tree: what is needed of it to append more leaves and know its root.
///
/// It holds one hash, a peak, for each bit set in the size: those of the complete subtrees
/// that the leaves divide into, the largest and leftmost first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    peaks: Vec<Digest>,
}

impl Edge {
    /// The edge of the tree without leaves.
    pub fn new() -> Edge {
        Edge::default()
    }

    /// The edge of the tree of the first `size` leaves that `reader` knows.
    pub fn from_reader<R: HashReader>(size: u64, reader: &R) -> Result<Edge, R::Error> {
        let peaks = subtrees(0, size)
            .map(|(level, index)| reader.hash(level, index))
            .collect::<Result<_, _>>()?;
        Ok(Edge { size, peaks })
    }

    /// The edge with these peaks, `None` when their number does not fit the size.
    pub fn from_peaks(size: u64, peaks: Vec<Digest>) -> Option<Edge> {
        (peaks.len() == size.count_ones() as usize).then_some(Edge { size, peaks })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the complete subtrees, the largest and leftmost first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Appends a leaf; amortised, this costs one hash.
    pub fn push(&mut self, leaf: Digest) {
        self.push_each(leaf, |_, _, _| ());
    }

    /// Appends a leaf and shows every subtree that it completes, as level, index and hash:
    /// the leaf itself first, then its ancestors. A writer of tiles keeps those it stores.
    pub fn push_each(&mut self, leaf: Digest, mut completed: impl FnMut(u8, u64, &Digest)) {
        let mut hash = leaf;
        completed(0, self.size, &hash);
        // Each low bit set in the size is a peak as large as what is being carried upward.
        for level in 1..=self.size.trailing_ones() as u8 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            completed(level, self.size >> level, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Digest {
        join(&self.peaks)
    }
}

/// The root over peaks that stand side by side, the largest and leftmost first.
fn join(peaks: &[Digest]) -> Digest {
    match peaks.split_last() {
        None => empty_root(),
        Some((last, left)) => left
            .iter()
            .rev()
            .fold(*last, |right, peak| node_hash(peak, &right)),
    }
}

/// The complete subtrees, as level and index, that `length` leaves from `start` divide into.
/// `start` must be a multiple of the largest of them, as it is for every node of a tree.
fn subtrees(start: u64, length: u64) -> impl Iterator<Item = (u8, u64)> {
    (0..64u8)
        .rev()
        .filter(move |level| length >> level & 1 == 1)
        .map(move |level| {
            // What lies before this subtree: the part of `length` above its own bit.
            let before = (length >> level & !1) << level;
            (level, (start + before) >> level)
        })
}

/// The hash over the leaves `start..end`, which are those of one node of the tree.
fn range_hash<R: HashReader>(reader: &R, start: u64, end: u64) -> Result<Digest, R::Error> {
    let peaks = subtrees(start, end - start)
        .map(|(level, index)| reader.hash(level, index))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(join(&peaks))
}

/// How many of `length` leaves lie on the left: the largest power of two below `length`.
fn split(length: u64) -> u64 {
    debug_assert!(length >= 2);
    1 << (63 - (length - 1).leading_zeros())
}

/// The root of the tree of the first `size` leaves.
pub fn root<R: HashReader>(reader: &R, size: u64) -> Result<Digest, R::Error> {
    Ok(Edge::from_reader(size, reader)?.root())
}

/// The proof that leaf `index` is in the tree of the first `size` leaves (RFC 9162 §2.1.3.1).
///
/// No such leaf has no proof: beyond the size the answer is empty and verifies nothing.
pub fn inclusion_proof<R: HashReader>(
    reader: &R,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, R::Error> {
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, if index < size { size } else { 0 });
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_hash(reader, middle, end)?);
            end = middle;
        } else {
            proof.push(range_hash(reader, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the first `old` leaves is the beginning of that of the first
/// `new` (RFC 9162 §2.1.4.1).
///
/// It is empty when `old` is 0 or equal to `new`, where nothing needs proof, and when `old` is
/// larger, where nothing is proven.
pub fn consistency_proof<R: HashReader>(
    reader: &R,
    old: u64,
    new: u64,
) -> Result<Vec<Digest>, R::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(range_hash(reader, middle, end)?);
            end = middle;
        } else {
            proof.push(range_hash(reader, start, middle)?);
            start = middle;
        }
    }
    // The verifier knows the old root; a node further right it has to be told.
    if start > 0 {
        proof.push(range_hash(reader, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The numbers do not describe a leaf of a tree, or two trees in their order.
    #[error("no proof can exist: position {position} in a tree of {}", entries(*size))]
    Position {
        /// The leaf's index or the old tree's size.
        position: u64,
        /// The size of the tree that should contain it.
        size: u64,
    },
    /// The proof is not as long as these sizes require.
    #[error(
        "a proof of {} is too long or too short for these tree sizes",
        counted(*hashes as u64, "hash", "hashes")
    )]
    Length {
        /// How many hashes the proof has.
        hashes: usize,
    },
    /// The proof leads to another root than the one given.
    #[error("the proof does not lead to the root: the entry, the tree or the proof was changed")]
    Root,
}

/// Checks that `leaf` is the hash of leaf `index` in the tree with this size and root.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Position {
            position: index,
            size,
        });
    }
    let mut climb = Climb::new(index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        match climb.step(proof)? {
            Side::Left => hash = node_hash(sibling, &hash),
            Side::Right => hash = node_hash(&hash, sibling),
        }
    }
    climb.finish(proof)?;
    same(&hash, root)
}

/// Checks that the tree `old` with its root is the beginning of the tree `new` with its root.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Digest,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Position {
            position: old,
            size: new,
        });
    }
    if old == 0 {
        same(old_root, &empty_root())?;
    }
    if old == new {
        same(old_root, new_root)?;
    }
    if old == 0 || old == new {
        return if proof.is_empty() {
            Ok(())
        } else {
            Err(length(proof))
        };
    }
    let mut climb = Climb::new(old - 1, new - 1);
    // Begin at the node that is the last complete subtree of the old tree.
    climb.skip(old.trailing_zeros());
    let (first, rest) = match proof.split_first() {
        // A complete old tree is one node, and that node's hash is known.
        _ if old.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
        None => return Err(length(proof)),
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        match climb.step(proof)? {
            Side::Left => {
                old_hash = node_hash(sibling, &old_hash);
                new_hash = node_hash(sibling, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, sibling),
        }
    }
    climb.finish(proof)?;
    same(&old_hash, old_root)?;
    same(&new_hash, new_root)
}

fn same(computed: &Digest, given: &Digest) -> Result<(), ProofError> {
    if computed == given {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

fn length(proof: &[Digest]) -> ProofError {
    ProofError::Length {
        hashes: proof.len(),
    }
}

/// The way from a node up to the root: which side each sibling stands on.
struct Climb {
    /// The node's index on its level.
    node: u64,
    /// The index of the level's last node.
    last: u64,
}

enum Side {
    Left,
    Right,
}

impl Climb {
    fn new(node: u64, last: u64) -> Climb {
        Climb { node, last }
    }

    fn skip(&mut self, levels: u32) {
        self.node >>= levels;
        self.last >>= levels;
    }

    /// The side of the next sibling; then stands on the parent.
    fn step(&mut self, proof: &[Digest]) -> Result<Side, ProofError> {
        if self.last == 0 {
            return Err(length(proof));
        }
        if self.node < self.last && self.node & 1 == 0 {
            self.skip(1);
            return Ok(Side::Right);
        }
        // The last node of a level with an even index has no sibling there: it rises as it is
        // to the level where it has one. `node` is not 0 here, for then `last` were 0 too.
        self.skip(self.node.trailing_zeros());
        self.skip(1);
        Ok(Side::Left)
    }

    fn finish(&self, proof: &[Digest]) -> Result<(), ProofError> {
        if self.last == 0 {
            Ok(())
        } else {
            Err(length(proof))
        }
    }
}

#[cfg(test)]
mod tests;
