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

fn digest(base64: &str) -> Digest {
    Digest(BASE64_STANDARD.decode(base64).unwrap().try_into().unwrap())
}

fn digests(base64: &[String]) -> Vec<Digest> {
    base64.iter().map(|text| digest(text)).collect()
}

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
    for Inclusion {
        file,
        leaf_idx,
        tree_size,
        root,
        leaf_hash,
        proof,
        want_err,
    } in vectors().inclusion
    {
        let proof = digests(&proof);
        let (leaf, root) = (digest(&leaf_hash), digest(&root));
        let verdict = merkle::verify_inclusion(&leaf, leaf_idx, tree_size, &proof, &root);
        assert_eq!(verdict.is_err(), want_err, "{file}");
        if !want_err {
            assert_eq!(
                merkle::inclusion_proof(&tree, leaf_idx, tree_size),
                Ok(proof),
                "{file}"
            );
        }
    }
}

#[test]
fn consistency_proofs() {
    let tree = Published::new();
    for Consistency {
        file,
        size1,
        size2,
        root1,
        root2,
        proof,
        want_err,
    } in vectors().consistency
    {
        let proof = digests(&proof);
        let (root1, root2) = (digest(&root1), digest(&root2));
        let verdict = merkle::verify_consistency(size1, size2, &root1, &root2, &proof);
        assert_eq!(verdict.is_err(), want_err, "{file}");
        if !want_err {
            assert_eq!(
                merkle::consistency_proof(&tree, size1, size2),
                Ok(proof),
                "{file}"
            );
        }
    }
}
