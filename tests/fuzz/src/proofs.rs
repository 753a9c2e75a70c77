//! Proofs: of misbehaviour, and of what a snapshot's state says.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use jingwei_proto::checkpoint::{Checkpoint, cosign};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::leaf::leaf as entry;
use jingwei_proto::merkle::{self, Edge, leaf_hash};
use jingwei_proto::misbehaviour::{Lie, Logged, Misbehaviour, Since};
use jingwei_proto::snapshot::{Proof, Row, Tree};
use jingwei_proto::state;
use jingwei_proto::statement::{Head, Predicate, Snapshot, Statement};
use jingwei_proto::time::Time;
use jingwei_proto::tlog_proof::TlogProof;

use super::log::{Leaves, altered};

/// A root, two agencies, a node and a dataset, each with the digit of its signer's key.
const STATEMENTS: &str = include_str!("../seeds/apply/federation");
const ORIGIN: &str = "jingwei/test-0123456789abcdef/registry/1";
/// The keys that the root names.
const LOG: u8 = 90;
const COSIGNER: u8 = 91;

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// The entry that is a snapshot.
const SNAPSHOT: usize = 3;

/// The log of a registry that has done nothing wrong.
struct Honest {
    envelopes: Vec<Envelope>,
    /// As they were hashed into the tree.
    entries: Vec<Vec<u8>>,
    leaves: Leaves,
    /// Its checkpoints, each dated when it was reached.
    notes: Vec<String>,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let mut honest = Honest {
        envelopes: Vec::new(),
        entries: Vec::new(),
        leaves: Leaves(Vec::new()),
        notes: Vec::new(),
    };
    for (at, line) in STATEMENTS.lines().enumerate() {
        if at == SNAPSHOT {
            let snapshot = honest.snapshot();
            honest.push(snapshot, &secret(LOG));
        }
        let signer = secret(line.as_bytes()[0] - b'0');
        let envelope = Envelope::sign(line.as_bytes()[1..].to_vec(), &signer);
        honest.push(envelope, &signer);
    }
    honest
});

impl Honest {
    fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    fn root_at(&self, size: u64) -> Digest {
        let Ok(root) = merkle::root(&self.leaves, size);
        root
    }

    /// What the entries so far lead to.
    fn state(&self) -> BTreeMap<String, Vec<u8>> {
        let mut state = BTreeMap::new();
        for (index, envelope) in (0..).zip(&self.envelopes) {
            let change = state::apply(&state, index, envelope).expect("it is honest");
            change.write_to(&mut state);
        }
        state
    }

    fn snapshot(&self) -> Envelope {
        let statement = Statement {
            head: Head {
                federation: "test-0123456789abcdef".parse().expect("an id"),
                agency: None,
                time: Time::from_seconds(1_700_000_000).expect("a time"),
                sequence: 1,
                previous: None,
            },
            predicate: Predicate::Snapshot(Snapshot {
                size: self.size(),
                state: self.state().iter().collect::<Tree>().root(),
            }),
        };
        statement.sign(&secret(LOG))
    }

    fn push(&mut self, envelope: Envelope, signer: &SecretKey) {
        let bytes = entry(&envelope, signer.public());
        self.leaves.0.push(leaf_hash(&bytes));
        self.entries.push(bytes);
        self.envelopes.push(envelope);
        self.seal();
    }

    fn seal(&mut self) {
        let size = self.size();
        let checkpoint = Checkpoint::new(ORIGIN, size, self.root_at(size));
        let mut note = checkpoint.sign(&secret(LOG)).expect("a good checkpoint");
        let time = Time::from_seconds(1_700_000_000 + size as i64).expect("a time");
        let dated = cosign(&note.text, ORIGIN, &secret(COSIGNER), time);
        note.signatures.push(dated.expect("a good checkpoint"));
        self.notes.push(note.to_string());
    }

    fn note(&self, place: u8) -> String {
        self.notes[usize::from(place) % self.notes.len()].clone()
    }

    /// Any of its entries, with the proof that its newest checkpoint covers it.
    fn logged(&self, place: u8) -> Logged {
        let index = usize::from(place) % self.entries.len();
        let Ok(hashes) = merkle::inclusion_proof(&self.leaves, index as u64, self.size());
        Logged {
            leaf: self.entries[index].clone(),
            payload: self.envelopes[index].payload().to_vec(),
            proof: TlogProof {
                index: index as u64,
                hashes,
                checkpoint: self.notes[self.notes.len() - 1].clone(),
                extra: None,
            },
        }
    }

    fn consistency(&self, old: u64, new: u64) -> Vec<Digest> {
        let Ok(path) = merkle::consistency_proof(&self.leaves, old.min(new), new);
        path
    }
}

/// A file that is read is written again byte for byte, and proves nothing under a fingerprint that
/// is not its own. Whatever an honest registry has signed, put together in any way and with
/// anything changed, accuses it of nothing.
pub fn misbehaviour(input: &[u8]) {
    let root = HONEST.envelopes[0].clone();
    let pinned = root.payload_digest();
    if let Ok(read) = Misbehaviour::read(input) {
        assert_eq!(read.to_bytes().expect("memory is large enough"), input);
        assert!(read.verify(&Digest::of(input)).is_err());
        assert!(read.verify(&pinned).is_err());
    }
    let [kind, first, second, change, edits @ ..] = input else {
        return;
    };
    let lie = accusation(*kind, [*first, *second, *change], edits);
    assert!(Misbehaviour::new(vec![root], lie, &pinned).is_err());
}

/// What an honest log could be accused of by somebody who has all of it.
fn accusation(kind: u8, [first, second, change]: [u8; 3], edits: &[u8]) -> Lie {
    let honest = &*HONEST;
    let size = |place: u8| u64::from(place) % honest.size() + 1;
    let path = |old: u64, new: u64| -> Vec<Digest> {
        let true_path = honest.consistency(old, new);
        let false_ones = altered(&true_path, change);
        let all: Vec<Vec<Digest>> = [true_path].into_iter().chain(false_ones).collect();
        all[usize::from(change) % all.len()].clone()
    };
    let entry = edited(honest.logged(first), edits);
    match kind % 8 {
        0 => Lie::TwoHistories {
            older: honest.note(first),
            newer: honest.note(second),
            root: match change % 3 {
                0 => Digest::of(edits),
                _ => honest.root_at(size(change)),
            },
            path: path(size(first), size(second)),
        },
        1 => Lie::ShrunkLog {
            larger: honest.note(first),
            smaller: honest.note(second),
        },
        2 => Lie::MalformedEntry {
            leaf: entry.leaf,
            proof: entry.proof,
        },
        3 => Lie::ForgedEntry(entry),
        4 => Lie::RepeatedEntry {
            leaf: entry.leaf,
            first: entry.proof,
            second: TlogProof {
                index: u64::from(change) % honest.size(),
                ..honest.logged(second).proof
            },
        },
        5 => Lie::ConflictingEntries(Box::new([entry, honest.logged(second)])),
        6 => rests_on_the_snapshot(entry, path(size(second), honest.size()), edits),
        _ => Lie::RejectedEntry {
            since: None,
            before: before(usize::from(second) % (honest.envelopes.len() + 1), change),
            leaf: entry.leaf,
            payload: entry.payload,
            checkpoint: entry.proof.checkpoint,
            path: path(size(second), honest.size()),
        },
    }
}

/// What the snapshot says of the records that the entries from it on ask for.
static SINCE: LazyLock<Since> = LazyLock::new(|| {
    let honest = &*HONEST;
    let start = Honest {
        envelopes: honest.envelopes[..SNAPSHOT].to_vec(),
        entries: Vec::new(),
        leaves: Leaves(honest.leaves.0[..SNAPSHOT].to_vec()),
        notes: Vec::new(),
    };
    let (state, size) = (start.state(), SNAPSHOT as u64);
    let Ok(edge) = Edge::from_reader(size, &start.leaves);
    let mut tree: Tree = state.iter().collect();
    let mut since = Since {
        size,
        peaks: edge.peaks().to_vec(),
        state: BTreeMap::new(),
    };
    let last = honest.size() - 1;
    loop {
        let entry = honest.logged(last as u8);
        let lie = since_then(since.clone(), entry, honest.consistency(last + 1, last + 1));
        let root = honest.envelopes[0].clone();
        let pinned = root.payload_digest();
        let refused = Misbehaviour::new(vec![root], lie, &pinned).expect_err("it is honest");
        match refused.0.split_once("nothing is shown of ‘") {
            Some((_, key)) => {
                let key = key.trim_end_matches('’').to_owned();
                let proof = tree.prove(&key, state.get(&key).map(Vec::as_slice));
                assert!(since.state.insert(key, proof).is_none(), "{refused}");
            }
            None => {
                assert!(refused.0.contains("there is no lie"), "{refused}");
                return since;
            }
        }
    }
});

fn since_then(since: Since, entry: Logged, path: Vec<Digest>) -> Lie {
    let last = HONEST.envelopes.len() - 1;
    let before = HONEST.envelopes[SNAPSHOT..last].iter();
    Lie::RejectedEntry {
        since: Some(Box::new(since)),
        before: before.map(Envelope::to_bytes).collect(),
        leaf: entry.leaf,
        payload: entry.payload,
        checkpoint: entry.proof.checkpoint,
        path,
    }
}

/// An accusation of an entry after the snapshot, with something changed of what that says.
fn rests_on_the_snapshot(entry: Logged, path: Vec<Digest>, edits: &[u8]) -> Lie {
    let mut since = SINCE.clone();
    for edit in edits.chunks_exact(3).take(8) {
        let [what, at, mask] = *edit else { continue };
        let place = usize::from(at) % since.state.len().max(1);
        let key = since.state.keys().nth(place).cloned();
        match (what % 12, key) {
            (0, _) => since.size ^= u64::from(mask),
            (1, _) => since.peaks.reverse(),
            (2, Some(key)) => drop(since.state.remove(&key)),
            (_, Some(key)) => change(
                since.state.get_mut(&key).expect("its key"),
                [what, at, mask],
            ),
            (_, None) => {}
        }
    }
    since_then(since, entry, path)
}

/// The first statements of the log, perhaps in another order.
fn before(count: usize, change: u8) -> Vec<Vec<u8>> {
    let envelopes = HONEST.envelopes[..count].iter();
    let mut before: Vec<Vec<u8>> = envelopes.map(Envelope::to_bytes).collect();
    if change % 2 == 1 && count > 0 {
        before.rotate_left(usize::from(change) % count);
    }
    before
}

/// Bytes of the entry changed, its payload replaced, its place or its proof: three bytes of the
/// input say which.
fn edited(mut entry: Logged, edits: &[u8]) -> Logged {
    for edit in edits.chunks_exact(3).take(8) {
        let [what, at, mask] = *edit else { continue };
        let flip = |bytes: &mut [u8]| {
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(usize::from(at) * 7 % length) {
                *byte ^= mask;
            }
        };
        match what % 6 {
            0 => flip(&mut entry.leaf),
            1 => flip(&mut entry.payload),
            2 => entry.payload = HONEST.logged(at).payload,
            3 => entry.proof.index ^= u64::from(mask),
            4 => entry.proof.checkpoint = HONEST.note(at),
            _ => entry
                .proof
                .hashes
                .iter_mut()
                .for_each(|hash| flip(&mut hash.0)),
        }
    }
    entry
}

/// A state of some hundred records, and its tree.
struct Known {
    state: BTreeMap<String, Vec<u8>>,
    root: Digest,
    tree: Mutex<Tree>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let record = |n: u32| {
        (
            format!("agency/a{n}"),
            format!("{{\"n\":{n}}}").into_bytes(),
        )
    };
    let state: BTreeMap<String, Vec<u8>> = (0..600).map(record).collect();
    let mut tree: Tree = state.iter().collect();
    Known {
        root: tree.root(),
        tree: Mutex::new(tree),
        state,
    }
});

impl Known {
    /// The proof about a record that is there, or about one that is not.
    fn proof(&self, number: u16) -> (String, Proof) {
        let key = format!("agency/a{}", number % 1_200);
        let record = self.state.get(&key).map(Vec::as_slice);
        let mut tree = self.tree.lock().expect("nobody panics in between");
        let proof = tree.prove(&key, record);
        (key, proof)
    }
}

/// A proof says of a key what the state says of it, or nothing, whatever is changed of it. What is
/// read as one is the same when it is written and read again.
///
/// The first two bytes name the record, and then three each a change; or all of it is a proof.
pub fn snapshot_proof(input: &[u8]) {
    let known = &*KNOWN;
    if let Ok(read) = serde_json::from_slice::<Proof>(input) {
        let text = serde_json::to_vec(&read).expect("it was JSON");
        assert_eq!(serde_json::from_slice::<Proof>(&text).expect("it is"), read);
        holds(known, "agency/a7", &read);
        holds(known, "agency/none", &read);
    }
    let [high, low, edits @ ..] = input else {
        return;
    };
    let (key, mut proof) = known.proof(u16::from_be_bytes([*high, *low]));
    assert!(holds(known, &key, &proof));
    for edit in edits.chunks_exact(3).take(8) {
        let [what, at, mask] = *edit else { continue };
        change(&mut proof, [what, at, mask]);
        holds(known, &key, &proof);
    }
}

/// Whether the proof is accepted; then it says the truth.
fn holds(known: &Known, key: &str, proof: &Proof) -> bool {
    match proof.verify(key, &known.root) {
        Ok(found) => {
            assert_eq!(found, known.state.get(key).map(Vec::as_slice));
            true
        }
        Err(_) => false,
    }
}

fn change(proof: &mut Proof, [what, at, mask]: [u8; 3]) {
    let place = |length: usize| usize::from(at) % length.max(1);
    let (row, hash) = (place(proof.rows.len()), place(proof.hashes.len()));
    let other = || KNOWN.proof(u16::from_be_bytes([at, mask])).1;
    match what % 9 {
        0 if row < proof.rows.len() => drop(proof.rows.remove(row)),
        1 if row < proof.rows.len() => proof.rows[row].record.0[usize::from(mask) % 32] ^= 1,
        2 if row < proof.rows.len() => proof.rows[row].key.0[usize::from(mask) % 32] ^= 1,
        3 => proof.rows.push(Row::of("agency/none", &[mask])),
        4 => proof.rows.reverse(),
        5 if hash < proof.hashes.len() => proof.hashes[hash].0[usize::from(mask) % 32] ^= 1,
        6 => proof.hashes.truncate(usize::from(at)),
        7 => proof.record = (mask % 2 == 0).then(|| format!("{{\"n\":{at}}}")),
        _ => *proof = other(),
    }
}
