//! Roots and proofs published by transparency-dev/merkle; see `vectors/README.md`.

use std::convert::Infallible;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jingwei_proto::digest::{Digest, from_hex};
use jingwei_proto::merkle::{self, Edge, HashReader, leaf_hash};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    leaves: Vec<String>,
    roots: Vec<Digest>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    file: String,
    leaf_idx: u64,
    tree_size: u64,
    root: String,
    leaf_hash: String,
    proof: Vec<String>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    file: String,
    size1: u64,
    size2: u64,
    root1: String,
    root2: String,
    proof: Vec<String>,
    want_err: bool,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/merkle.json")).unwrap()
}

/// `None` where it is not 32 bytes, which no proof's hash can be here.
fn digest(base64: &str) -> Option<Digest> {
    let bytes = BASE64_STANDARD.decode(base64).unwrap();
    bytes.try_into().ok().map(Digest)
}

fn digests(base64: &[String]) -> Option<Vec<Digest>> {
    base64.iter().map(|text| digest(text)).collect()
}

/// Two trees of one size and one root, where that root is a text of other length than a hash: they
/// are equal there, and are no roots here.
const NO_ROOTS: &str = "consistency/additional/sizes-are-equal-one-and-proof-is-empty";

/// The published entries' tree, each complete subtree hashed when it is asked for.
struct Published(Vec<Digest>);

impl Published {
    fn new() -> Published {
        let leaves = vectors().leaves;
        Published(
            leaves
                .iter()
                .map(|leaf| leaf_hash(&from_hex(leaf).unwrap()))
                .collect(),
        )
    }
}

impl HashReader for Published {
    type Error = Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Infallible> {
        let width = 1 << level;
        let mut edge = Edge::new();
        for leaf in &self.0[index as usize * width..][..width] {
            edge.push(*leaf);
        }
        Ok(edge.root())
    }
}

#[test]
fn roots() {
    let tree = Published::new();
    let roots = vectors().roots;
    assert_eq!(roots.len(), tree.0.len() + 1);
    let mut edge = Edge::new();
    for (size, root) in roots.iter().enumerate() {
        assert_eq!(edge.root(), *root, "size {size}");
        assert_eq!(merkle::root(&tree, size as u64), Ok(*root), "size {size}");
        if let Some(leaf) = tree.0.get(size) {
            edge.push(*leaf);
        }
    }
}

#[test]
fn inclusion_proofs() {
    let tree = Published::new();
    let cases = vectors().inclusion;
    assert_eq!(cases.len(), 98);
    let mut made = 0;
    for case in cases {
        let (index, size) = (case.leaf_idx, case.tree_size);
        let parts = (|| {
            let (leaf, root) = (digest(&case.leaf_hash)?, digest(&case.root)?);
            Some((leaf, root, digests(&case.proof)?))
        })();
        let Some((leaf, root, proof)) = parts else {
            assert!(case.want_err, "{}", case.file);
            continue;
        };
        let verdict = merkle::verify_inclusion(&leaf, index, size, &proof, &root);
        assert_eq!(verdict.is_err(), case.want_err, "{}", case.file);
        if verdict.is_ok() && vectors().roots.get(size as usize) == Some(&root) {
            made += 1;
            let own = merkle::inclusion_proof(&tree, index, size);
            assert_eq!(own, Ok(proof), "{}", case.file);
        }
    }
    assert_eq!(made, 5);
}

#[test]
fn consistency_proofs() {
    let tree = Published::new();
    let cases = vectors().consistency;
    assert_eq!(cases.len(), 98);
    let mut made = 0;
    for case in cases {
        let (old, new) = (case.size1, case.size2);
        let parts = (|| {
            let (old, new) = (digest(&case.root1)?, digest(&case.root2)?);
            Some((old, new, digests(&case.proof)?))
        })();
        let Some((old_root, new_root, proof)) = parts else {
            let known = case.file == NO_ROOTS;
            assert!(case.want_err || known, "{}", case.file);
            continue;
        };
        let verdict = merkle::verify_consistency(old, new, &old_root, &new_root, &proof);
        assert_eq!(verdict.is_err(), case.want_err, "{}", case.file);
        if verdict.is_ok() && vectors().roots.get(new as usize) == Some(&new_root) {
            made += 1;
            let own = merkle::consistency_proof(&tree, old, new);
            assert_eq!(own, Ok(proof), "{}", case.file);
        }
    }
    assert_eq!(made, 5);
}
