//! The witness as a service and its store: each case with its answer, and nothing forgotten.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use jingwei_proto::checkpoint::{Checkpoint, verify_cosignature};
use jingwei_proto::digest::Digest;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::merkle::{Edge, leaf_hash};
use jingwei_proto::note::{Algorithm, Note, NoteKey};
use jingwei_proto::time::Time;
use jingwei_proto::witness::{AddCheckpoint, Refusal};
use tower::ServiceExt as _;

use super::*;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::disk::faults::{FailAt, Failure, Full};

const ORIGIN: &str = "example.com/log";

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn log_key() -> NoteKey {
    NoteKey::new(ORIGIN, Algorithm::Ed25519, secret(1).public().clone()).unwrap()
}

fn open_with(dir: &Path, seed: u8, clock: Clock, disk: Disk) -> Result<Witness, WitnessError> {
    let witness = Witness::open(dir, "w.example", Arc::new(secret(seed)), clock, disk)?;
    witness.watch(ORIGIN, vec![log_key()])?;
    Ok(witness)
}

fn at(seconds: i64) -> Clock {
    Arc::new(move || Time::from_seconds(seconds).unwrap())
}

fn open(dir: &Path) -> Witness {
    open_with(dir, 9, at(1_000), Disk::new()).unwrap()
}

fn root(word: &[u8], size: u64) -> Digest {
    let mut edge = Edge::new();
    (0..size).for_each(|_| edge.push(leaf_hash(word)));
    edge.root()
}

/// A request about the log of `size` leaves that are all `word`; the sizes here are powers of two,
/// of which the left half of one is the whole of the one before.
fn request(old: u64, word: &[u8], size: u64) -> Vec<u8> {
    let mut proof = Vec::new();
    let mut half = old;
    while half > 0 && half < size {
        proof.push(root(word, half));
        half *= 2;
    }
    let note = Checkpoint::new(ORIGIN, size, root(word, size))
        .sign(&secret(1))
        .unwrap();
    let request = AddCheckpoint { old, proof, note };
    request.to_string().into_bytes()
}

fn refusal(witness: &Witness, body: &[u8]) -> Refusal {
    match witness.add_checkpoint(body) {
        Err(Denied::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn newest(witness: &Witness) -> Option<(u64, Time)> {
    let note = witness.newest(&Digest::of(ORIGIN.as_bytes()))?;
    let (checkpoint, note) = Checkpoint::open(note.as_bytes(), &log_key()).unwrap();
    assert_eq!(note.signatures.len(), 2);
    Some((
        checkpoint.size,
        verify_cosignature(&note, witness.key()).unwrap(),
    ))
}

#[test]
fn what_was_signed_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path());
    assert_eq!(newest(&witness), None);
    witness.add_checkpoint(&request(0, b"a", 2)).unwrap();
    let again = open_with(dir.path(), 9, at(1), Disk::new());
    assert!(matches!(again, Err(WitnessError::Locked(_))));
    drop(witness);

    let witness = open(dir.path());
    assert_eq!(newest(&witness), Some((2, at(1_000)())));
    assert_eq!(
        refusal(&witness, &request(0, b"b", 2)),
        Refusal::Conflict(2)
    );
    assert_eq!(refusal(&witness, &request(2, b"b", 2)).status(), 422);
    assert_eq!(refusal(&witness, &request(2, b"b", 4)).status(), 422);
    witness.add_checkpoint(&request(2, b"a", 2)).unwrap();
    witness.add_checkpoint(&request(2, b"a", 8)).unwrap();
    assert_eq!(
        refusal(&witness, &request(2, b"a", 4)),
        Refusal::Conflict(8)
    );
    // A request that would go back names an old size of its own choice, and gets nowhere.
    assert_eq!(refusal(&witness, &request(8, b"a", 4)).status(), 400);
    assert_eq!(newest(&witness), Some((8, at(1_000)())));
}

#[test]
fn a_fork_is_kept_as_the_log_signed_it() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path());
    let kept = dir
        .path()
        .join(Digest::of(ORIGIN.as_bytes()).to_string())
        .with_extension("fork");
    witness.add_checkpoint(&request(0, b"a", 2)).unwrap();
    let mut forged = AddCheckpoint::parse(&request(2, b"b", 2)).unwrap();
    forged.note.signatures[0].signature[9] ^= 1;
    let forged = forged.to_string();
    assert_eq!(refusal(&witness, forged.as_bytes()).status(), 403);
    // A larger tree with a wrong proof may be somebody's mistake.
    assert_eq!(refusal(&witness, &request(2, b"b", 4)).status(), 422);
    assert_eq!(refusal(&witness, &request(0, b"a", 2)).status(), 409);
    assert!(!kept.exists());

    for word in [b"b", b"c"] {
        assert_eq!(refusal(&witness, &request(2, word, 2)).status(), 422);
        let pair = std::fs::read_to_string(&kept).unwrap();
        let (mine, other) = pair.split_at(pair.rfind("\nexample.com/log\n").unwrap());
        let roots = [mine, &other[1..]].map(|note| {
            let opened = Checkpoint::open(note.as_bytes(), &log_key());
            let (checkpoint, _) = opened.unwrap();
            assert_eq!(checkpoint.size, 2);
            checkpoint.root
        });
        assert_eq!(roots, [root(b"a", 2), root(b"b", 2)]);
    }
    // It is no memory of another log, and the witness goes on.
    drop(witness);
    open(dir.path())
        .add_checkpoint(&request(2, b"a", 4))
        .unwrap();
}

#[test]
fn a_clock_that_was_set_back_dates_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(500));
    let clock = {
        let now = now.clone();
        Arc::new(move || Time::from_seconds(now.load(Ordering::SeqCst)).unwrap())
    };
    let witness = open_with(dir.path(), 9, clock.clone(), Disk::new()).unwrap();
    witness.add_checkpoint(&request(0, b"a", 1)).unwrap();
    now.store(400, Ordering::SeqCst);
    witness.add_checkpoint(&request(1, b"a", 2)).unwrap();
    assert_eq!(newest(&witness), Some((2, at(500)())));
    drop(witness);
    let witness = open_with(dir.path(), 9, clock, Disk::new()).unwrap();
    witness.add_checkpoint(&request(2, b"a", 4)).unwrap();
    assert_eq!(newest(&witness), Some((4, at(500)())));
}

#[test]
fn of_two_histories_at_once_one_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path());
    witness.add_checkpoint(&request(0, b"a", 1)).unwrap();
    // From the log of one `a` both of these grow; they differ in what comes second.
    let fork = |word: &[u8]| {
        let mut edge = Edge::new();
        edge.push(leaf_hash(b"a"));
        edge.push(leaf_hash(word));
        let note = Checkpoint::new(ORIGIN, 2, edge.root())
            .sign(&secret(1))
            .unwrap();
        let request = AddCheckpoint {
            old: 1,
            proof: vec![leaf_hash(word)],
            note,
        };
        request.to_string().into_bytes()
    };
    let forks: Vec<Vec<u8>> = (0..8_u8).map(|n| fork(&[n])).collect();
    let signed: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = forks
            .iter()
            .map(|fork| scope.spawn(|| witness.add_checkpoint(fork).is_ok()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(signed.iter().filter(|signed| **signed).count(), 1);
}

#[test]
fn a_disk_that_fails_at_any_step_never_lets_two_roots_out() {
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        let mut step = 1;
        while fails_at(step, failure) {
            step += 1;
        }
        assert!(
            step > 5,
            "{step} steps are too few for a file that is replaced durably"
        );
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Full::default());
    let witness = open_with(dir.path(), 9, at(1), Disk::with_faults(disk.clone())).unwrap();
    let router = service::router(Arc::new(witness));
    let ask = async |body: Vec<u8>| {
        let request = http::Request::post("/add-checkpoint").body(Body::from(body));
        let answer = router.clone().oneshot(request.unwrap()).await;
        answer.unwrap().status().as_u16()
    };
    disk.set(true);
    assert_eq!(ask(request(0, b"a", 1)).await, 503);
    disk.set(false);
    // Nobody has that signature, so another history may be the first.
    assert_eq!(ask(request(0, b"b", 1)).await, 200);
    assert_eq!(ask(request(0, b"a", 1)).await, 409);
}

#[test]
fn a_witness_of_its_own_agency_s_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let name = "jingwei/test/witness/fr.bre";
    let witness = Witness::open(dir.path(), name, Arc::new(secret(9)), at(1), Disk::new()).unwrap();
    let watch = |origin: &str| {
        let public = secret(1).public().clone();
        let key = NoteKey::new(origin, Algorithm::Ed25519, public).unwrap();
        witness.watch(origin, vec![key])
    };
    let own = "jingwei/test/journal/fr.bre/2026";
    let refused = watch(own).unwrap_err();
    assert!(matches!(&refused, WitnessError::Own { origin, .. } if origin == own));
    assert!(refused.to_string().contains("its own agency"), "{refused}");
    assert_eq!(witness.origins(), [""; 0]);
    for other in [
        "jingwei/test/journal/fr/2026",
        "jingwei/other/journal/fr.bre/2026",
        "jingwei/test/registry/1",
    ] {
        watch(other).unwrap();
    }
    assert_eq!(witness.origins().len(), 3);
}

/// Whether the witness takes as many steps.
fn fails_at(step: u64, failure: Failure) -> bool {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let faults = Arc::new(FailAt::new(step, failure));
    let opened = open_with(dir.path(), 9, at(1), Disk::with_faults(faults.clone()));
    let witness = match opened {
        Ok(witness) => witness,
        Err(error) => {
            assert!(matches!(error, WitnessError::Io { .. }), "{error}");
            return true;
        }
    };
    let first = witness.add_checkpoint(&request(0, b"a", 1));
    drop(witness);
    let again = open(dir.path());
    match first {
        Ok(_) => {
            assert_eq!(newest(&again).unwrap().0, 1);
            assert_eq!(refusal(&again, &request(0, b"b", 1)), Refusal::Conflict(1));
        }
        Err(Denied::Storage(_)) => {
            // Nobody has a signature, so either state will do; from it the log goes on.
            let old = newest(&again).map_or(0, |(size, _)| size);
            again.add_checkpoint(&request(old, b"a", 2)).unwrap();
        }
        Err(other) => panic!("{other}"),
    }
    faults.reached(step)
}

#[test]
fn a_memory_that_is_not_its_own_stops_the_witness() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path());
    witness.add_checkpoint(&request(0, b"a", 2)).unwrap();
    drop(witness);
    let other_key = open_with(dir.path(), 8, at(1), Disk::new());
    assert!(matches!(other_key, Err(WitnessError::Damaged { .. })));
    let file = dir.path().join(Digest::of(ORIGIN.as_bytes()).to_string());
    let stored = std::fs::read_to_string(&file).unwrap();
    let changed: Vec<String> = [
        stored.replacen("\n2\n", "\n1\n", 1),
        stored.replacen(ORIGIN, "example.com/gol", 1),
        stored[..stored.len() / 2].to_owned(),
        String::new(),
    ]
    .into();
    for bad in changed {
        std::fs::write(&file, bad).unwrap();
        let opened = open_with(dir.path(), 9, at(1), Disk::new());
        assert!(matches!(opened, Err(WitnessError::Damaged { .. })));
    }
    std::fs::write(&file, &stored).unwrap();
    let note = Note::parse(stored.as_bytes()).unwrap();
    assert_eq!(note.signatures.len(), 2);
    assert_eq!(newest(&open(dir.path())).unwrap().0, 2);
}

#[test]
fn a_log_s_new_key_is_trusted_for_the_same_history() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path());
    witness.add_checkpoint(&request(0, b"a", 2)).unwrap();
    let other = NoteKey::new(ORIGIN, Algorithm::Ed25519, secret(2).public().clone()).unwrap();
    witness.watch(ORIGIN, vec![other.clone()]).unwrap();
    assert_eq!(refusal(&witness, &request(2, b"a", 4)).status(), 403);
    witness.watch(ORIGIN, vec![other, log_key()]).unwrap();
    witness.add_checkpoint(&request(2, b"a", 4)).unwrap();
    assert_eq!(newest(&witness).unwrap().0, 4);
    let unknown = String::from_utf8(request(0, b"a", 1)).unwrap();
    let unknown = unknown.replace(ORIGIN, "example.com/other");
    assert_eq!(refusal(&witness, unknown.as_bytes()).status(), 404);
}

#[test]
fn a_log_that_was_left_is_unknown_and_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let witness = open(dir.path());
    witness.add_checkpoint(&request(0, b"a", 4)).unwrap();
    witness.leave(ORIGIN);
    assert!(witness.origins().is_empty());
    assert_eq!(refusal(&witness, &request(4, b"a", 8)).status(), 404);
    assert_eq!(newest(&witness).unwrap().0, 4);
    witness.watch(ORIGIN, vec![log_key()]).unwrap();
    assert_eq!(
        refusal(&witness, &request(0, b"b", 2)),
        Refusal::Conflict(4)
    );
    witness.add_checkpoint(&request(4, b"a", 8)).unwrap();
}
