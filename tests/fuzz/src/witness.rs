//! What logs ask of witnesses, and which of their signatures make a checkpoint count.

use std::sync::LazyLock;

use jingwei_proto::checkpoint::{Checkpoint, cosign};
use jingwei_proto::digest::Digest;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::merkle::{self, Edge};
use jingwei_proto::note::{self, Algorithm, Note, NoteError, NoteKey};
use jingwei_proto::policy::{MAX_ITEMS, Name, Policy, PolicyLog};
use jingwei_proto::time::Time;
use jingwei_proto::witness::{
    AddCheckpoint, MAX_PROOF, Refusal, Seen, read_cosignature, read_size,
};

use super::log::{Leaves, altered, leaf};

const ORIGIN: &str = "fuzz.example/log";

/// The key of the log, and those of six witnesses.
static SECRETS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    (9..16)
        .map(|seed| SecretKey::from_seed(&[seed; 32]))
        .collect()
});

fn secret_of(key: &NoteKey) -> Option<&'static SecretKey> {
    SECRETS
        .iter()
        .find(|secret| secret.public() == key.public())
}

fn log_key() -> NoteKey {
    let public = SECRETS[0].public().clone();
    NoteKey::new(ORIGIN, Algorithm::Ed25519, public).expect("a good name")
}

/// A policy that is read is the same when it is printed and read again. It accepts exactly what a
/// definition by all of its groups at once accepts, and nothing with a false signature.
///
/// In the input `@L` stands for the log's key and `@A` to `@F` for those of witnesses, so that
/// what is changed is the policy and not the base64.
pub fn policy(input: &[u8]) {
    let Ok(read) = Policy::parse(&expanded(input)) else {
        return;
    };
    let printed = read.to_bytes();
    assert_eq!(Policy::parse(&printed).as_ref(), Ok(&read));
    for count in [read.logs.len(), read.witnesses.len(), read.groups.len()] {
        assert!(count <= MAX_ITEMS);
    }
    let seen = Digest::of(input).0;
    for log in &read.logs {
        if let Some(secret) = secret_of(&log.key) {
            judged(&read, log, secret, &seen);
        }
    }
}

fn expanded(input: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = input;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first()) {
            (b'@', Some(which @ (b'L' | b'A'..=b'F'))) => {
                text.extend(key_of(*which).to_string().into_bytes());
                rest = &after[1..];
            }
            _ => text.push(*byte),
        }
    }
    text
}

fn key_of(which: u8) -> NoteKey {
    let place = match which {
        b'L' => return log_key(),
        witness => usize::from(witness - b'A') + 1,
    };
    let name = format!("{}.example", char::from(which));
    let public = SECRETS[place].public().clone();
    NoteKey::new(&*name, Algorithm::CosignatureV1, public).expect("a good name")
}

/// A checkpoint of `log` that some of the witnesses have signed, as the bytes in `seen` say.
fn judged(policy: &Policy, log: &PolicyLog, secret: &SecretKey, seen: &[u8; 32]) {
    let checkpoint = Checkpoint::new(log.key.name(), 7, Digest(*seen));
    let Ok(mut note) = checkpoint.sign(secret) else {
        return;
    };
    let mut times: Vec<(&Name, Time)> = Vec::new();
    for (witness, byte) in policy.witnesses.iter().zip(seen.iter().cycle()) {
        let known = secret_of(&witness.key).filter(|_| byte % 4 != 0);
        let Some(secret) = known else { continue };
        let time = Time::from_seconds(1_700_000_000 + i64::from(byte / 4)).expect("a time");
        let line = cosign(&note.text, witness.key.name(), secret, time).expect("a checkpoint");
        note.signatures.push(line);
        times.push((&witness.name, time));
    }
    if note.signatures.len() > note::MAX_SIGNATURES {
        return;
    }
    let accepted = policy.verify(note.to_string().as_bytes());
    match &policy.quorum {
        None => assert_eq!(accepted.expect("signed by its log").time, None),
        Some(quorum) => {
            let time = accepted.ok().and_then(|accepted| accepted.time);
            assert_eq!(time, since(policy, quorum, &times));
        }
    }
    for at in 0..note.signatures.len() {
        let mut forged = note.clone();
        if let Some(last) = forged.signatures[at].signature.last_mut() {
            *last ^= 1;
        }
        assert!(policy.verify(forged.to_string().as_bytes()).is_err() || !asks(policy, at));
    }
}

/// Whether the signature at this place is looked at: those of witnesses are not where none need
/// have signed.
fn asks(policy: &Policy, at: usize) -> bool {
    at == 0 || policy.quorum.is_some()
}

/// The latest time since which those who have signed make up the quorum, from the definition: the
/// quorum is looked at anew for the signatures since each time.
fn since(policy: &Policy, quorum: &Name, times: &[(&Name, Time)]) -> Option<Time> {
    let mut latest: Vec<Time> = times.iter().map(|(_, time)| *time).collect();
    latest.sort();
    latest.into_iter().rev().find(|since| {
        let mut satisfied: Vec<&Name> = times
            .iter()
            .filter(|(_, time)| time >= since)
            .map(|(name, _)| *name)
            .collect();
        for group in &policy.groups {
            let members = group.members.iter();
            if members.filter(|name| satisfied.contains(name)).count() >= group.threshold {
                satisfied.push(&group.name);
            }
        }
        satisfied.contains(&quorum)
    })
}

/// Whatever a witness answers, a size has one spelling, and its cosignature counts if it is its own,
/// over what was asked, and no line in its name is false; lines by others change nothing.
pub fn witness_answer(input: &[u8]) {
    let Ok(answer) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(size) = read_size(answer) {
        assert_eq!(format!("{size}\n"), answer);
    }
    let text = Checkpoint::new(ORIGIN, 7, Digest::of(b"asked")).to_string();
    let key = key_of(b'A');
    let unsigned = read_cosignature(answer, &text, &key);
    // Nobody has this key's signature but this function.
    assert!(unsigned.is_err());
    let time = Time::from_seconds(1_700_000_000).expect("a time");
    let sign = |text: &str| cosign(text, key.name(), &SECRETS[1], time).expect("a checkpoint");
    let line = sign(&text);
    let read = |answer: &str| read_cosignature(answer, &text, &key);
    let with = [format!("{answer}{line}\n"), format!("{line}\n{answer}")];
    match unsigned {
        // The lines are a note's, and of these there may be no more.
        Err(NoteError::Unsigned(_)) if answer.lines().count() < note::MAX_SIGNATURES => {
            for answer in &with {
                assert_eq!(read(answer), Ok((line.clone(), time)));
            }
        }
        Err(NoteError::Forged(_)) => assert!(with.iter().all(|answer| read(answer).is_err())),
        _ => {}
    }
    let larger = Checkpoint::new(ORIGIN, 8, Digest::of(input)).to_string();
    assert!(read(&format!("{answer}{}\n", sign(&larger))).is_err());
}

/// A request prints as it was read, and whatever requests come, a witness signs one root of a size
/// and never a smaller one. Inputs are split into requests at each zero byte.
pub fn witness_request(input: &[u8]) {
    let mut seen = Seen::nothing();
    for body in input.split(|byte| *byte == 0) {
        if let Ok(request) = AddCheckpoint::parse(body) {
            assert_eq!(request.to_string().as_bytes(), body);
            assert!(request.proof.len() <= MAX_PROOF);
            assert_eq!(judge(&request, &[], &seen), None);
            seen = judge(&request, &[log_key()], &seen).unwrap_or(seen);
            // Whatever it is, the log's key may have signed it.
            let signed = note::sign(&request.note.text, ORIGIN, &SECRETS[0]);
            let note = Note {
                text: request.note.text.clone(),
                signatures: signed.into_iter().collect(),
            };
            let signed = AddCheckpoint { note, ..request };
            seen = judge(&signed, &[log_key()], &seen).unwrap_or(seen);
        }
    }
    grown(input);
}

/// What the rule says of a request: what a witness remembers from then on.
fn judge(request: &AddCheckpoint, keys: &[NoteKey], seen: &Seen) -> Option<Seen> {
    let checkpoint = request.checkpoint().expect("it was read");
    match request.judge(keys, seen) {
        Ok(next) => {
            assert_eq!((next.size, next.root), (checkpoint.size, checkpoint.root));
            assert!(next.size >= seen.size && request.old == seen.size);
            assert!(next.size > seen.size || next.root == seen.root);
            Some(next)
        }
        Err(refusal) => {
            assert!([400, 403, 404, 409, 422].contains(&refusal.status()));
            assert!(refusal.body().ends_with('\n') && refusal.body().len() < 1_000);
            assert_eq!(keys.is_empty(), matches!(refusal, Refusal::UnknownLog(_)));
            None
        }
    }
}

/// A log that grows from `old` to `size` entries is co-signed; with another proof, or after
/// another history, it is not.
fn grown(input: &[u8]) {
    let [size, old, change, ..] = *input else {
        return;
    };
    let size = u64::from(size) + 1;
    let old = u64::from(old) % (size + 1);
    let leaves = Leaves((0..size).map(|n| leaf(input, n)).collect());
    let root_of = |size: u64| {
        let mut edge = Edge::new();
        (0..size).for_each(|n| edge.push(leaf(input, n)));
        edge.root()
    };
    let seen = Seen {
        size: old,
        root: root_of(old),
    };
    let Ok(proof) = merkle::consistency_proof(&leaves, old, size);
    let note = Checkpoint::new(ORIGIN, size, root_of(size)).sign(&SECRETS[0]);
    let note = note.expect("a good checkpoint");
    let request = AddCheckpoint { old, proof, note };
    let keys = [log_key()];
    let read = AddCheckpoint::parse(request.to_string().as_bytes());
    assert_eq!(read.as_ref(), Ok(&request));
    assert!(judge(&request, &keys, &seen).is_some());
    for proof in altered(&request.proof, change) {
        let other = AddCheckpoint {
            proof,
            ..request.clone()
        };
        let refusal = other.judge(&keys, &seen).expect_err("another proof");
        assert!(matches!(refusal.status(), 400 | 422));
    }
    let root = leaf(input, u64::MAX);
    if old > 0 {
        let refusal = request.judge(&keys, &Seen { size: old, root });
        assert_eq!(refusal.expect_err("another history").status(), 422);
    }
    let refusal = request.judge(
        &keys,
        &Seen {
            size: old ^ 1,
            root,
        },
    );
    assert_eq!(refusal, Err(Refusal::Conflict(old ^ 1)));
}
