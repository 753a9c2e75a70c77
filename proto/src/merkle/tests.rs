//! Tests of the Merkle tree against the definitions of RFC 6962, written out as they stand
//! there, and against the independent crate `ct-merkle`.

use std::convert::Infallible;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;

/// All hashes of complete subtrees, by level, as the edge reports them.
#[derive(Default)]
struct Memory(Vec<Vec<Digest>>);

impl HashReader for Memory {
    type Error = Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Infallible> {
        Ok(self.0[usize::from(level)][usize::try_from(index).unwrap()])
    }
}

struct Trees {
    memory: Memory,
    edge: Edge,
    oracle: MemoryBackedTree<Sha256, Vec<u8>>,
}

fn trees(size: u64) -> Trees {
    let mut trees = Trees {
        memory: Memory::default(),
        edge: Edge::new(),
        oracle: MemoryBackedTree::new(),
    };
    for i in 0..size {
        let levels = &mut trees.memory.0;
        trees
            .edge
            .push_each(leaf_hash(&entry(i)), |level, index, hash| {
                let level = usize::from(level);
                levels.resize(levels.len().max(level + 1), Vec::new());
                assert_eq!(levels[level].len() as u64, index, "in order, without gaps");
                levels[level].push(*hash);
            });
        trees.oracle.push(entry(i));
    }
    trees
}

fn entry(i: u64) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

fn leaves(n: u64) -> Vec<Digest> {
    (0..n).map(|i| leaf_hash(&entry(i))).collect()
}

/// MTH of RFC 6962 §2.1, over leaf hashes.
fn mth(d: &[Digest]) -> Digest {
    match d {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let k = d.len().next_power_of_two() / 2;
            node_hash(&mth(&d[..k]), &mth(&d[k..]))
        }
    }
}

/// PATH of RFC 6962 §2.1.1.
fn path(m: usize, d: &[Digest]) -> Vec<Digest> {
    if d.len() < 2 {
        return Vec::new();
    }
    let k = d.len().next_power_of_two() / 2;
    let (mut proof, sibling) = if m < k {
        (path(m, &d[..k]), mth(&d[k..]))
    } else {
        (path(m - k, &d[k..]), mth(&d[..k]))
    };
    proof.push(sibling);
    proof
}

/// SUBPROOF of RFC 6962 §2.1.2.
fn subproof(m: usize, d: &[Digest], known: bool) -> Vec<Digest> {
    if m == d.len() {
        return if known { Vec::new() } else { vec![mth(d)] };
    }
    let k = d.len().next_power_of_two() / 2;
    let (mut proof, sibling) = if m <= k {
        (subproof(m, &d[..k], known), mth(&d[k..]))
    } else {
        (subproof(m - k, &d[k..], false), mth(&d[..k]))
    };
    proof.push(sibling);
    proof
}

fn ok<T>(result: Result<T, Infallible>) -> T {
    let Ok(value) = result;
    value
}

fn concatenated(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

fn oracle_root(root: &Digest, size: u64) -> RootHash<Sha256> {
    RootHash::new(root.0.into(), size)
}

/// Every digest list that differs from `proof` by one bit, or by one hash more or less.
fn spoiled(proof: &[Digest]) -> Vec<Vec<Digest>> {
    let mut all = Vec::new();
    for bit in 0..proof.len() * 256 {
        let mut other = proof.to_vec();
        other[bit / 256].0[bit / 8 % 32] ^= 1 << (bit % 8);
        all.push(other);
    }
    all.push([proof, &[empty_root()]].concat());
    all.push([&[empty_root()], proof].concat());
    for i in 0..proof.len() {
        let mut other = proof.to_vec();
        other.remove(i);
        all.push(other);
    }
    all
}

#[test]
fn every_small_tree_is_as_the_rfc_defines_it() {
    const MOST: u64 = 40;
    let memory = trees(MOST).memory;
    for size in 0..=MOST {
        let leaves = leaves(size);
        let head = ok(root(&memory, size));
        assert_eq!(head, mth(&leaves));
        for index in 0..size {
            let proof = ok(inclusion_proof(&memory, index, size));
            assert_eq!(proof, path(index as usize, &leaves));
            let leaf = &leaves[index as usize];
            assert_eq!(verify_inclusion(leaf, index, size, &proof, &head), Ok(()));
        }
        for old in 0..=size {
            let proof = ok(consistency_proof(&memory, old, size));
            if old > 0 {
                assert_eq!(proof, subproof(old as usize, &leaves, true));
            }
            let old_root = mth(&leaves[..old as usize]);
            assert_eq!(
                verify_consistency(old, size, &old_root, &head, &proof),
                Ok(())
            );
        }
    }
}

#[test]
fn proofs_hold_for_no_other_position() {
    let memory = trees(20).memory;
    let leaves = leaves(20);
    let head = mth(&leaves);
    for index in 0..20 {
        let proof = ok(inclusion_proof(&memory, index, 20));
        for other in (0..20).filter(|other| *other != index) {
            let leaf = &leaves[index as usize];
            assert!(verify_inclusion(leaf, other, 20, &proof, &head).is_err());
            let leaf = &leaves[other as usize];
            assert!(verify_inclusion(leaf, index, 20, &proof, &head).is_err());
        }
    }
}

#[test]
fn what_cannot_be_proven_is_refused() {
    let memory = trees(4).memory;
    let (head, leaf) = (ok(root(&memory, 4)), leaf_hash(&entry(0)));
    assert_eq!(ok(inclusion_proof(&memory, 4, 4)), []);
    assert_eq!(ok(consistency_proof(&memory, 5, 4)), []);
    let position = |position, size| Err(ProofError::Position { position, size });
    assert_eq!(verify_inclusion(&leaf, 4, 4, &[], &head), position(4, 4));
    assert_eq!(
        verify_inclusion(&leaf, 0, 0, &[], &empty_root()),
        position(0, 0)
    );
    assert_eq!(verify_consistency(5, 4, &head, &head, &[]), position(5, 4));
    // The tree without entries has one root, and equal sizes need equal roots.
    assert_eq!(
        verify_consistency(0, 4, &leaf, &head, &[]),
        Err(ProofError::Root)
    );
    assert_eq!(
        verify_consistency(4, 4, &leaf, &head, &[]),
        Err(ProofError::Root)
    );
    assert_eq!(
        verify_consistency(0, 4, &empty_root(), &head, &[head]),
        Err(ProofError::Length { hashes: 1 })
    );
    assert!(verify_consistency(3, 4, &head, &head, &[]).is_err());
}

#[test]
fn the_largest_sizes_do_not_overflow() {
    let proof = [empty_root(); 64];
    let hash = &proof[0];
    for size in [u64::MAX, 1 << 63, (1 << 63) + 1] {
        assert!(verify_inclusion(hash, size - 1, size, &proof, hash).is_err());
        assert!(verify_inclusion(hash, 0, size, &proof, hash).is_err());
        assert!(verify_consistency(size - 1, size, hash, hash, &proof).is_err());
        assert!(verify_consistency(1, size, hash, hash, &proof).is_err());
        struct Zero;
        impl HashReader for Zero {
            type Error = Infallible;
            fn hash(&self, _: u8, _: u64) -> Result<Digest, Infallible> {
                Ok(empty_root())
            }
        }
        let proof = ok(inclusion_proof(&Zero, size - 1, size));
        let head = ok(root(&Zero, size));
        if size == 1 << 63 {
            assert_eq!(
                verify_inclusion(&empty_root(), size - 1, size, &proof[..0], &head),
                Err(ProofError::Length { hashes: 0 })
            );
            assert_eq!(proof.len(), 63);
        }
        ok(consistency_proof(&Zero, size - 1, size));
    }
}

#[test]
fn edges_continue_where_they_were_left() {
    let all = trees(70);
    let mut edge = ok(Edge::from_reader(35, &all.memory));
    assert_eq!(
        Edge::from_peaks(35, edge.peaks().to_vec()),
        Some(edge.clone())
    );
    assert_eq!(Edge::from_peaks(36, edge.peaks().to_vec()), None);
    for i in 35..70 {
        edge.push(leaf_hash(&entry(i)));
    }
    assert_eq!(edge, all.edge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn agrees_with_an_independent_implementation(
        (size, index, old) in (1u64..700).prop_flat_map(|n| (Just(n), 0..n, 1..=n))
    ) {
        let trees = trees(size);
        let head = ok(root(&trees.memory, size));
        let theirs = trees.oracle.root();
        prop_assert_eq!(&head.0[..], &theirs.as_bytes()[..]);
        prop_assert_eq!(head, trees.edge.root());

        let proof = ok(inclusion_proof(&trees.memory, index, size));
        let theirs = trees.oracle.prove_inclusion(index as usize);
        prop_assert_eq!(concatenated(&proof), theirs.as_bytes());
        let ours = InclusionProof::from_bytes(concatenated(&proof));
        oracle_root(&head, size).verify_inclusion(&entry(index), index, &ours).unwrap();

        let old_root = ok(root(&trees.memory, old));
        let proof = ok(consistency_proof(&trees.memory, old, size));
        let theirs = trees.oracle.prove_consistency((size - old) as usize);
        prop_assert_eq!(concatenated(&proof), theirs.as_bytes());
        let ours = ConsistencyProof::try_from_bytes(concatenated(&proof)).unwrap();
        oracle_root(&head, size)
            .verify_consistency(&oracle_root(&old_root, old), &ours)
            .unwrap();
    }

    #[test]
    fn a_changed_proof_shows_nothing(
        (size, index, old) in (2u64..400).prop_flat_map(|n| (Just(n), 0..n, 1..n)),
        bit in 0usize..256,
    ) {
        let memory = trees(size).memory;
        let head = ok(root(&memory, size));
        let flip = |hash: &Digest| {
            let mut hash = *hash;
            hash.0[bit / 8] ^= 1 << (bit % 8);
            hash
        };

        let leaf = leaf_hash(&entry(index));
        let proof = ok(inclusion_proof(&memory, index, size));
        for other in spoiled(&proof) {
            prop_assert!(verify_inclusion(&leaf, index, size, &other, &head).is_err());
        }
        prop_assert!(verify_inclusion(&flip(&leaf), index, size, &proof, &head).is_err());
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &flip(&head)).is_err());

        let old_root = ok(root(&memory, old));
        let proof = ok(consistency_proof(&memory, old, size));
        for other in spoiled(&proof) {
            prop_assert!(verify_consistency(old, size, &old_root, &head, &other).is_err());
        }
        prop_assert!(verify_consistency(old, size, &flip(&old_root), &head, &proof).is_err());
        prop_assert!(verify_consistency(old, size, &old_root, &flip(&head), &proof).is_err());
    }
}
