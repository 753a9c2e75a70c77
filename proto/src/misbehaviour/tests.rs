//! Each kind of lie with the proof of it, what an honest log cannot be accused of, and files
//! with one bit changed.

use std::convert::Infallible;

use super::*;
use crate::checkpoint::{Checkpoint, CheckpointKeys, cosign};
use crate::id::AgencyId;
use crate::key::{SecretKey, Signer};
use crate::leaf::leaf;
use crate::merkle::{self, Edge, HashReader, leaf_hash};
use crate::statement::*;
use crate::time::Time;

mod since;

const ORIGIN: &str = "jingwei/test-0123456789abcdef/registry/1";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn at(seconds: i64) -> Time {
    Time::from_seconds(1_700_000_000 + seconds).unwrap()
}

fn statement(agency: Option<&str>, sequence: u64, previous: Option<Digest>) -> Head {
    Head {
        federation: "test-0123456789abcdef".parse().unwrap(),
        agency: agency.map(|id| id.parse::<AgencyId>().unwrap()),
        time: at(0),
        sequence,
        previous,
    }
}

fn root() -> Envelope {
    let root = Root {
        version: 1,
        keys: vec![key(1).public().clone()],
        threshold: 1,
        registry: RegistryKeys {
            origin: ORIGIN.into(),
            log: key(90).public().clone(),
            cosigner: key(91).public().clone(),
            tls: key(92).public().id(),
        },
        witnesses: vec![Witness {
            name: "witness.example/1".into(),
            key: key(93).public().clone(),
        }],
        quorum: 0,
        rules: 1,
        recovery_delay: 600,
        continues: None,
        consents: vec![],
    };
    let statement = Statement {
        head: statement(None, 1, None),
        predicate: Predicate::Root(root),
    };
    statement.sign(&key(1))
}

fn enrolment() -> Envelope {
    let proposal = Statement {
        head: statement(Some("aa"), 1, None),
        predicate: Predicate::Agency(
            Action::Enrol(Enrolment {
                name: "aa".into(),
                level: 1,
                territory: Territory {
                    list: "test".into(),
                    edition: "1".into(),
                    chains: vec![vec!["A".into()]],
                },
                roles: vec![],
                key: key(10).public().clone(),
            })
            .proposed(),
        ),
    };
    let consent = proposal.sign(&key(10));
    proposal.with_consents(vec![consent]).sign(&key(1))
}

/// Version `sequence` of a withheld dataset, signed with the key of this seed.
fn version(name: &str, sequence: u64, previous: Option<&Envelope>, seed: u8) -> Envelope {
    let statement = Statement {
        head: statement(Some("aa"), sequence, previous.map(Envelope::payload_digest)),
        predicate: Predicate::Dataset(Box::new(Dataset {
            name: name.parse().unwrap(),
            sharing: Sharing::Withheld,
            title: None,
            description: None,
            schema: None,
            rows: None,
            files: vec![],
            source: None,
            commitment: Some(Digest::of(name.as_bytes())),
        })),
    };
    statement.sign(&key(seed))
}

/// A log in memory: leaves, and the payloads behind them.
#[derive(Clone)]
struct Log {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    envelopes: Vec<Envelope>,
}

impl HashReader for Log {
    type Error = Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Infallible> {
        let mut edge = Edge::new();
        for at in index << level..(index + 1) << level {
            edge.push(leaf_hash(&self.entries[at as usize].0));
        }
        Ok(edge.root())
    }
}

impl Log {
    /// 0 root, 1 the agency, 2 one@1, 3 one@2, 4 two@1
    fn honest() -> Log {
        let mut log = Log {
            entries: vec![],
            envelopes: vec![],
        };
        log.push(root(), 1);
        log.push(enrolment(), 1);
        let first = version("one", 1, None, 10);
        log.push(first.clone(), 10);
        log.push(version("one", 2, Some(&first), 10), 10);
        log.push(version("two", 1, None, 10), 10);
        log
    }

    fn with(mut self, envelope: Envelope, signer: u8) -> Log {
        self.push(envelope, signer);
        self
    }

    fn push(&mut self, envelope: Envelope, signer: u8) {
        let leaf = leaf(&envelope, key(signer).public());
        self.entries.push((leaf, envelope.payload().to_vec()));
        self.envelopes.push(envelope);
    }

    fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The checkpoint of the first `size` entries, dated by the registry and by its witness.
    fn note(&self, size: u64, time: i64) -> String {
        let Ok(root) = merkle::root(self, size);
        let mut note = Checkpoint::new(ORIGIN, size, root).sign(&key(90)).unwrap();
        for (name, seed) in [(ORIGIN, 91), ("witness.example/1", 93)] {
            let dated = cosign(&note.text, name, &key(seed), at(time)).unwrap();
            note.signatures.push(dated);
        }
        note.to_string()
    }

    fn proof(&self, index: u64) -> TlogProof {
        let Ok(hashes) = merkle::inclusion_proof(self, index, self.size());
        TlogProof {
            index,
            hashes,
            checkpoint: self.note(self.size(), 0),
            extra: None,
        }
    }

    fn logged(&self, index: u64) -> Logged {
        let (leaf, payload) = self.entries[index as usize].clone();
        Logged {
            leaf,
            payload,
            proof: self.proof(index),
        }
    }

    fn rejected(&self, index: u64) -> Lie {
        let Ok(path) = merkle::consistency_proof(self, index + 1, self.size());
        let (leaf, payload) = self.entries[index as usize].clone();
        let before = &self.envelopes[..index as usize];
        Lie::RejectedEntry {
            since: None,
            before: before.iter().map(Envelope::to_bytes).collect(),
            leaf,
            payload,
            checkpoint: self.note(self.size(), 0),
            path,
        }
    }

    fn conflicting(&self, first: u64, second: u64) -> Lie {
        Lie::ConflictingEntries(Box::new([self.logged(first), self.logged(second)]))
    }
}

/// What `newer` says of its first `older.size()` entries, against what `older` says.
fn histories(older: &Log, newer: &Log) -> Lie {
    let Ok(root) = merkle::root(newer, older.size());
    let Ok(path) = merkle::consistency_proof(newer, older.size(), newer.size());
    Lie::TwoHistories {
        older: older.note(older.size(), 0),
        newer: newer.note(newer.size(), 9),
        root,
        path,
    }
}

fn pinned() -> Digest {
    root().payload_digest()
}

fn proved(lie: Lie) -> (Misbehaviour, Verdict) {
    Misbehaviour::new(vec![root()], lie, &pinned()).unwrap()
}

#[track_caller]
fn refused(lie: Lie, why: &str) {
    let NotProved(reason) = Misbehaviour::new(vec![root()], lie, &pinned()).unwrap_err();
    assert!(reason.contains(why), "{reason}");
}

/// One proof of every kind, and the word by which its verdict is known.
fn all() -> Vec<(Lie, &'static str)> {
    let honest = Log::honest();
    let mut forked = honest.clone();
    forked.entries.swap(2, 4);
    let fork_grown = forked.clone().with(version("three", 1, None, 10), 10);
    let mut odd = honest.clone();
    odd.entries[3].0.push(b' ');
    let mut other_key = honest.clone();
    let leaf_of_another = leaf(&other_key.envelopes[3], key(11).public());
    other_key.entries[3].0 = leaf_of_another;
    let repeated = honest.clone().with(honest.envelopes[2].clone(), 10);
    let again = honest
        .clone()
        .with(version("two", 2, Some(&root()), 10), 10);
    let unknown = honest.clone().with(version("five", 1, None, 12), 12);
    let unknown = unknown.with(version("six", 1, None, 10), 10);
    let stated = honest.clone().with(honest.snapshot(None), 90);
    let stated = stated.with(version("three", 1, None, 10), 10);
    let stated = stated.with(version("five", 1, None, 12), 12);
    let stated = stated.with(version("six", 1, None, 10), 10);
    vec![
        (histories(&honest, &forked), "two different logs of 5"),
        (histories(&honest, &fork_grown), "does not continue it"),
        (
            Lie::ShrunkLog {
                larger: honest.note(5, 3),
                smaller: honest.note(4, 4),
            },
            "dated a log of 4 entries after",
        ),
        (
            Lie::MalformedEntry {
                leaf: odd.entries[3].0.clone(),
                proof: odd.proof(3),
            },
            "entry 3 is not in the form",
        ),
        (
            Lie::ForgedEntry(other_key.logged(3)),
            "entry 3 is not signed",
        ),
        (
            Lie::RepeatedEntry {
                leaf: repeated.entries[2].0.clone(),
                first: repeated.proof(2),
                second: repeated.proof(5),
            },
            "entry 5 repeats entry 2",
        ),
        (
            again.conflicting(4, 5),
            "entry 5 cannot stand after entry 4",
        ),
        (unknown.rejected(5), "entry 5 is one that the rules reject"),
        (
            stated.rejected_since(5, 7),
            "entry 7 is one that the rules reject",
        ),
    ]
}

#[test]
fn every_kind_is_proved_by_its_file() {
    for (lie, word) in all() {
        let kind = lie.kind();
        let (proof, verdict) = proved(lie);
        assert!(verdict.lie.contains(word), "{}", verdict.lie);
        let liar = if kind == Kind::ShrunkLog { 91 } else { 90 };
        assert_eq!(&verdict.liar.key, key(liar).public());
        let bytes = proof.to_bytes().unwrap();
        let read = Misbehaviour::read(&bytes[..]).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.verify(&pinned()).unwrap(), verdict);
        // About another federation it says nothing.
        let NotProved(reason) = read.verify(&Digest::of(b"other")).unwrap_err();
        assert!(reason.contains("another federation"), "{reason}");
    }
}

#[test]
fn no_bit_of_a_file_can_be_changed() {
    for (lie, _) in all() {
        let kind = lie.kind();
        let bytes = proved(lie).0.to_bytes().unwrap();
        // Of a file with hundreds of hashes a part has to be enough.
        let step = 1 + bytes.len() / 10_000;
        for at in (0..bytes.len()).step_by(step) {
            // Most of an archive is padding, of which a part is enough.
            if bytes[at] == 0 && at % 16 != 0 {
                continue;
            }
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            let verdict =
                Misbehaviour::read(&changed[..]).and_then(|proof| proof.verify(&pinned()));
            assert!(verdict.is_err(), "{} byte {at}: {verdict:?}", kind.name());
        }
        for end in 0..bytes.len() / 512 {
            assert!(Misbehaviour::read(&bytes[..end * 512]).is_err());
        }
    }
}

#[test]
fn an_honest_log_cannot_be_accused() {
    let honest = Log::honest();
    let grown = honest.clone().with(version("three", 1, None, 10), 10);
    refused(histories(&honest, &grown), "there is no lie");
    refused(histories(&honest, &honest), "there is no lie");
    let shrunk = |larger, smaller| Lie::ShrunkLog { larger, smaller };
    // An old copy of an old checkpoint, and one of the same second.
    refused(
        shrunk(grown.note(6, 4), grown.note(5, 3)),
        "no key has dated",
    );
    refused(
        shrunk(grown.note(6, 4), grown.note(5, 4)),
        "no key has dated",
    );
    refused(
        shrunk(grown.note(5, 4), grown.note(6, 5)),
        "no key has dated",
    );
    for index in 0..grown.size() {
        let entry = grown.logged(index);
        refused(Lie::ForgedEntry(entry.clone()), "there is no lie");
        refused(grown.rejected(index), "there is no lie");
        let Logged { leaf, proof, .. } = entry;
        let malformed = Lie::MalformedEntry {
            leaf: leaf.clone(),
            proof: proof.clone(),
        };
        refused(malformed, "there is no lie");
        let repeated = Lie::RepeatedEntry {
            leaf,
            first: proof.clone(),
            second: proof,
        };
        refused(repeated, "two places");
    }
    refused(grown.conflicting(2, 3), "there is no lie");
    refused(grown.conflicting(3, 2), "in order");
    refused(grown.conflicting(2, 4), "of one chain");
}

#[test]
fn only_what_the_registry_signed_counts_against_it() {
    let honest = Log::honest();
    let forged = |log: &Log, size: u64| {
        let Ok(root) = merkle::root(log, size);
        let note = Checkpoint::new(ORIGIN, size, root).sign(&key(99)).unwrap();
        note.to_string()
    };
    let mut forked = honest.clone();
    forked.entries.swap(2, 4);
    let mut lie = histories(&honest, &forked);
    if let Lie::TwoHistories { newer, .. } = &mut lie {
        *newer = forged(&forked, 5);
    }
    refused(lie, "no signature");
    // A statement that is not behind the entry: no forgery of the registry's.
    let mut entry = honest.logged(3);
    entry.payload = honest.entries[2].1.clone();
    refused(Lie::ForgedEntry(entry), "over another statement");
    // An earlier entry left out, so that a later one seems to come from nowhere.
    let mut lie = honest.rejected(3);
    if let Lie::RejectedEntry { before, .. } = &mut lie {
        before.remove(2);
    }
    assert!(Misbehaviour::new(vec![root()], lie, &pinned()).is_err());
    // A root that nobody signed names other keys.
    let stranger = Envelope::sign(root().payload().to_vec(), &key(2));
    let (lie, _) = all().remove(0);
    assert!(Misbehaviour::new(vec![stranger], lie, &pinned()).is_err());
}

#[test]
fn a_witness_that_goes_back_is_named() {
    let honest = Log::honest();
    let strip = |note: &str| {
        let log = key(90).public().clone();
        let log = NoteKey::new(ORIGIN, crate::note::Algorithm::Ed25519, log).unwrap();
        let witness = key(93).public().clone();
        let algorithm = crate::note::Algorithm::CosignatureV1;
        let witness = NoteKey::new("witness.example/1", algorithm, witness).unwrap();
        signed_only_by(note, &[&log, &witness]).unwrap()
    };
    let lie = Lie::ShrunkLog {
        larger: strip(&honest.note(5, 3)),
        smaller: strip(&honest.note(4, 4)),
    };
    let (_, verdict) = proved(lie);
    assert_eq!(&verdict.liar.key, key(93).public());
    assert!(verdict.liar.role.contains("witness.example/1"));
}

#[test]
fn foreign_bytes_are_refused_without_a_panic() {
    for bytes in [&b""[..], &[0; 1024], &[0xff; 2048], b"misbehaviour.json"] {
        assert!(Misbehaviour::read(bytes).is_err());
    }
    // The checkpoints in these tests are ones that every node accepts.
    let honest = Log::honest();
    let mut state = std::collections::BTreeMap::new();
    crate::state::apply(&state.clone(), 0, &root())
        .unwrap()
        .write_to(&mut state);
    let record = crate::state::record(&state[crate::state::keys::ROOT]).unwrap();
    CheckpointKeys::of_root(&record)
        .verify(&honest.note(5, 0))
        .unwrap();
}

/// The root by which another registry takes over the honest log.
fn take_over() -> Envelope {
    let Predicate::Root(mut next) = Statement::parse(root().payload()).unwrap().predicate else {
        unreachable!("it is a root");
    };
    let honest = Log::honest();
    let Ok(tree) = merkle::root(&honest, honest.size());
    next.version = 2;
    next.continues = Some(Continues {
        origin: ORIGIN.into(),
        size: honest.size(),
        root: tree,
    });
    next.registry = RegistryKeys {
        origin: "jingwei/test-0123456789abcdef/registry/2".into(),
        log: key(80).public().clone(),
        cosigner: key(81).public().clone(),
        tls: key(82).public().id(),
    };
    let statement = Statement {
        head: statement(None, 2, Some(root().payload_digest())),
        predicate: Predicate::Root(next),
    };
    statement.sign(&key(1))
}

#[test]
fn after_a_take_over_each_log_answers_for_itself() {
    let newer = Log::honest()
        .with(take_over(), 1)
        .with(version("three", 1, None, 10), 10);
    let mut forked = newer.clone();
    forked.entries.swap(2, 4);
    let origin = "jingwei/test-0123456789abcdef/registry/2";
    let signed = |log: &Log| {
        let Ok(tree) = merkle::root(log, log.size());
        let note = Checkpoint::new(origin, log.size(), tree).sign(&key(80));
        note.unwrap().to_string()
    };
    let Ok(tree) = merkle::root(&forked, forked.size());
    let roots = || vec![root(), take_over()];
    let lie = |older: String| Lie::TwoHistories {
        older,
        newer: signed(&forked),
        root: tree,
        path: vec![],
    };
    let (proof, verdict) = Misbehaviour::new(roots(), lie(signed(&newer)), &pinned()).unwrap();
    assert_eq!(
        (&*verdict.origin, &verdict.liar.key),
        (origin, key(80).public())
    );
    let read = Misbehaviour::read(&*proof.to_bytes().unwrap()).unwrap();
    assert_eq!(read.verify(&pinned()).unwrap(), verdict);
    // What the one signed is no word of the other.
    let other = lie(newer.note(newer.size(), 0));
    let NotProved(reason) = Misbehaviour::new(roots(), other, &pinned()).unwrap_err();
    assert!(reason.contains("two logs"), "{reason}");
    // Without the root that took over nobody knows the key.
    assert!(Misbehaviour::new(vec![root()], lie(signed(&newer)), &pinned()).is_err());
}
