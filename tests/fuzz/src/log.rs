//! The log's formats: notes, checkpoints, tiles, bundles and proofs.

use std::convert::Infallible;

use jingwei_proto::checkpoint::{Checkpoint, cosign, verify_cosignature};
use jingwei_proto::digest::Digest;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::merkle::{self, Edge, HashReader};
use jingwei_proto::note::{self, Algorithm, MAX_SIGNATURES, Note, NoteKey};
use jingwei_proto::tile::{self, TileKind, TilePath};
use jingwei_proto::time::Time;
use jingwei_proto::tlog_proof::TlogProof;

const NAME: &str = "fuzz.example/key";

fn secret() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

fn key(name: &str, algorithm: Algorithm) -> Option<NoteKey> {
    NoteKey::new(name, algorithm, secret().public().clone()).ok()
}

/// A note prints as it was read; a signature added to it verifies, and over another text not.
/// A verifier key that is read is the same when it is printed and read again.
pub fn note(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(key) = text.parse::<NoteKey>()
    {
        let printed = key.to_string();
        assert_eq!(printed.parse::<NoteKey>().as_ref(), Ok(&key));
        assert!(text.eq_ignore_ascii_case(&printed));
    }
    let Ok(read) = Note::parse(input) else { return };
    assert_eq!(read.to_string().as_bytes(), input);
    assert!((1..=MAX_SIGNATURES).contains(&read.signatures.len()));
    let key = key(NAME, Algorithm::Ed25519).expect("a good name");
    if read.by(&key).next().is_some() {
        return;
    }
    assert!(read.verify(&key).is_err());
    let mut signed = read;
    let signature = note::sign(&signed.text, NAME, &secret()).expect("the text of a note");
    signed.signatures.push(signature);
    signed.verify(&key).expect("what was signed verifies");
    if let Ok(again) = Note::parse(signed.to_string().as_bytes()) {
        assert_eq!(again, signed);
    } else {
        assert!(signed.signatures.len() > MAX_SIGNATURES || input.len() > 1_000_000);
    }
    signed.text.push('\n');
    assert!(signed.verify(&key).is_err());
}

/// A checkpoint prints as it was read, can be signed and co-signed exactly as it stands, and
/// neither signature fits a checkpoint of another size.
pub fn checkpoint(input: &[u8]) {
    if let Some(log) = key(NAME, Algorithm::Ed25519) {
        // Nobody has this key's signature but this function.
        assert!(Checkpoint::open(input, &log).is_err());
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(read) = text.parse::<Checkpoint>() else {
        return;
    };
    assert_eq!(read.to_string(), text);
    let cosigner = key(NAME, Algorithm::CosignatureV1).expect("a good name");
    let time = Time::from_seconds(1_700_000_000).expect("a time");
    // An origin need not be a key's name: then there is no key of its log.
    let Some(log) = key(&read.origin, Algorithm::Ed25519) else {
        return;
    };
    let mut note = read.sign(&secret()).expect("what was read can be signed");
    assert_eq!(note.text, text);
    let cosignature = cosign(text, NAME, &secret(), time).expect("so can it be co-signed");
    note.signatures.push(cosignature);
    if note.to_string().len() <= note::MAX_NOTE {
        let (opened, note) =
            Checkpoint::open(note.to_string().as_bytes(), &log).expect("signed by its log");
        assert_eq!(opened, read);
        assert_eq!(verify_cosignature(&note, &cosigner), Ok(time));
    }
    note.text = Checkpoint {
        size: read.size ^ 1,
        ..read
    }
    .to_string();
    assert!(Checkpoint::open(note.to_string().as_bytes(), &log).is_err());
    assert!(verify_cosignature(&note, &cosigner).is_err());
}

/// A tile's path has one spelling, and is the path of that tile in the log it ends.
pub fn tile_path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(path) = text.parse::<TilePath>() else {
        return;
    };
    assert_eq!(path.to_string(), text);
    assert!((1..=tile::WIDTH).contains(&path.width));
    assert!(path.full().is_full() && path.full().to_string().parse() == Ok(path.full()));
    let shift = match path.kind {
        TileKind::Hash { level } => u32::from(level) * 8,
        TileKind::Entries | TileKind::Envelopes => 0,
    };
    // The smallest log with exactly this tile, if a log can be as large as that.
    let end = u128::from(path.index) * 256 + u128::from(path.width);
    if shift < 64
        && let Ok(size) = u64::try_from(end << shift)
    {
        assert_eq!(TilePath::in_log(path.kind, path.index, size), Some(path));
        assert_ne!(
            TilePath::in_log(path.kind, path.index, size - 1),
            Some(path)
        );
        let changed: Vec<TilePath> = tile::bundles(path.kind, size - 1, size).collect();
        assert_eq!(changed, [path]);
    }
}

/// A bundle is written as it was read; cut anywhere it is not that bundle, and entries of any
/// bytes come back as they went in.
pub fn bundle(input: &[u8]) {
    let [kind, width, bytes @ ..] = input else {
        return;
    };
    let kind = match kind % 3 {
        0 => TileKind::Entries,
        1 => TileKind::Envelopes,
        _ => TileKind::Hash { level: 0 },
    };
    let width = u16::from(*width) + 1;
    if let TileKind::Hash { .. } = kind {
        assert!(tile::decode_bundle(kind, bytes, width).is_err());
        if let Ok(hashes) = tile::parse_hashes(bytes, width) {
            assert_eq!(tile::encode_hashes(&hashes), bytes);
        }
        return;
    }
    if let Ok(entries) = tile::decode_bundle(kind, bytes, width) {
        assert_eq!(entries.len(), usize::from(width));
        let held: usize = entries.iter().map(|entry| entry.len()).sum();
        assert!(held <= bytes.len());
        assert_eq!(tile::encode_bundle(kind, &entries).as_deref(), Ok(bytes));
        assert!(tile::decode_bundle(kind, bytes, width - 1).is_err());
        assert!(tile::decode_bundle(kind, &bytes[..bytes.len() - 1], width).is_err());
    }
    let entries: Vec<&[u8]> = bytes.split(|byte| *byte == 0).take(256).collect();
    if let Ok(encoded) = tile::encode_bundle(kind, &entries) {
        let width = u16::try_from(entries.len()).expect("at most 256");
        assert_eq!(tile::decode_bundle(kind, &encoded, width), Ok(entries));
    }
}

/// A proof of logging prints as it was read and holds for no entry that was not logged.
pub fn tlog_proof(input: &[u8]) {
    let Ok(read) = TlogProof::parse(input) else {
        return;
    };
    assert_eq!(read.to_string().as_bytes(), input);
    assert!(read.hashes.len() <= 64);
    let origin = read.checkpoint.lines().next().unwrap_or_default();
    if let Some(log) = key(origin, Algorithm::Ed25519) {
        assert!(read.verify(&merkle::leaf_hash(input), &log).is_err());
    }
}

/// The leaves of a tree in memory.
pub(crate) struct Leaves(pub(crate) Vec<Digest>);

impl HashReader for Leaves {
    type Error = Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Infallible> {
        Ok(match level {
            0 => self.0[usize::try_from(index).expect("a small tree")],
            _ => merkle::node_hash(
                &self.hash(level - 1, 2 * index)?,
                &self.hash(level - 1, 2 * index + 1)?,
            ),
        })
    }
}

/// Every proof of a tree verifies, alone and as a text; none does for another leaf, place, size
/// or root, or with any of its hashes changed, dropped or added.
pub fn merkle(input: &[u8]) {
    let [size, index, old, change, ..] = *input else {
        return;
    };
    let size = u64::from(size) + 1;
    let (index, old) = (u64::from(index) % size, u64::from(old) % (size + 1));
    let leaves = Leaves((0..size).map(|n| leaf(input, n)).collect());
    let Ok(root) = merkle::root(&leaves, size);
    let mut edge = Edge::new();
    leaves.0.iter().for_each(|leaf| edge.push(*leaf));
    assert_eq!(edge.root(), root);
    included(&leaves, index, size, &root, change);
    let Ok(old_root) = merkle::root(&leaves, old);
    let Ok(proof) = merkle::consistency_proof(&leaves, old, size);
    let consistent = |proof: &[Digest], root: &Digest| {
        merkle::verify_consistency(old, size, &old_root, root, proof)
    };
    consistent(&proof, &root).expect("one tree is the beginning of the other");
    for other in altered(&proof, change) {
        assert!(consistent(&other, &root).is_err());
    }
    if old > 0 {
        assert!(consistent(&proof, &merkle::leaf_hash(b"another root")).is_err());
    }
}

pub(crate) fn leaf(input: &[u8], n: u64) -> Digest {
    merkle::leaf_hash(&[input, &n.to_be_bytes()].concat())
}

fn included(leaves: &Leaves, index: u64, size: u64, root: &Digest, change: u8) {
    let Ok(hashes) = merkle::inclusion_proof(leaves, index, size);
    let leaf = leaves.0[usize::try_from(index).expect("a small tree")];
    let holds = |leaf: &Digest, index: u64, proof: &[Digest]| {
        merkle::verify_inclusion(leaf, index, size, proof, root).is_ok()
    };
    assert!(holds(&leaf, index, &hashes));
    assert!(!holds(&merkle::leaf_hash(b"another entry"), index, &hashes));
    assert!(size == 1 || !holds(&leaf, (index + 1) % size, &hashes));
    for other in altered(&hashes, change) {
        assert!(!holds(&leaf, index, &other));
    }
    let note = Checkpoint::new(NAME, size, *root).sign(&secret());
    let proof = TlogProof {
        index,
        hashes,
        checkpoint: note.expect("a good checkpoint").to_string(),
        extra: None,
    };
    let text = proof.to_string();
    let read = TlogProof::parse(text.as_bytes()).expect("a proof that was printed");
    assert_eq!(read, proof);
    let log = key(NAME, Algorithm::Ed25519).expect("a good name");
    read.verify(&leaf, &log).expect("the proof of an entry");
}

/// The proof with one bit of one hash changed, without its last hash, and with one hash more.
pub(crate) fn altered(proof: &[Digest], change: u8) -> Vec<Vec<Digest>> {
    let mut all = vec![[proof, &[Digest([0; 32])]].concat()];
    if let Some((_, shorter)) = proof.split_last() {
        all.push(shorter.to_vec());
        let mut changed = proof.to_vec();
        changed[usize::from(change) % proof.len()].0[usize::from(change / 8)] ^= 1 << (change % 8);
        all.push(changed);
    }
    all
}
