//! Evidence by an asker who holds every key: what is changed in it is signed again, so that it is
//! found by the rules or not at all.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jingwei_proto::checkpoint::{Checkpoint, cosign};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::evidence::{Writer, read_archive, verify};
use jingwei_proto::key::{KeyId, SecretKey, Signer as _};
use jingwei_proto::leaf::leaf as entry;
use jingwei_proto::merkle;
use jingwei_proto::statement::{EvidenceMember, Predicate, Statement};
use jingwei_proto::time::Time;
use jingwei_proto::tlog_proof::TlogProof;

use super::log::Leaves;
use super::statement::fitted;

/// Valid evidence whose keys are those of the seeds below.
const VALID: &[u8] = include_bytes!("../seeds/archive/signed");
const ORIGIN: &str = "jingwei/test-0123456789abcdef/registry/1";
const LOG: u8 = 90;
const COSIGNER: u8 = 91;

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

static KEYS: LazyLock<BTreeMap<KeyId, SecretKey>> = LazyLock::new(|| {
    let keys = [1, 10, 20, LOG].map(secret);
    keys.into_iter()
        .map(|key| (key.public().id(), key))
        .collect()
});

/// A member, and if it is an envelope what was signed and by which key.
#[derive(Clone)]
struct Part {
    name: String,
    bytes: Vec<u8>,
    signed: Option<(Vec<u8>, KeyId)>,
}

static PARTS: LazyLock<Vec<Part>> = LazyLock::new(|| {
    let members = read_archive(VALID).expect("it is evidence");
    let part = |name: String, bytes: Vec<u8>| Part {
        signed: Envelope::parse(&bytes)
            .ok()
            .map(|envelope| (envelope.payload().to_vec(), envelope.key())),
        name,
        bytes,
    };
    let mut at = 0;
    let mut parts = Vec::new();
    for member in members {
        // Answers are not kept in memory.
        let size = usize::try_from(member.size).expect("it is small");
        parts.push(part(member.name, VALID[at + 512..at + 512 + size].to_vec()));
        at += 512 + size.next_multiple_of(512);
    }
    parts
});

/// However the parts of evidence are changed, signed again and put together, the verifier comes to
/// a verdict; under another root there is none, and what is unchanged is valid.
///
/// Four bytes of the input are a change: where, what, at which place and with which byte.
pub fn evidence(input: &[u8]) {
    let mut parts = PARTS.clone();
    for edit in input.chunks_exact(4).take(16) {
        change(&mut parts, [edit[0], edit[1], edit[2], edit[3]]);
    }
    let root = parts.iter().find(|part| part.name == "statements/0.json");
    let Some((root, _)) = root.and_then(|part| part.signed.clone()) else {
        return;
    };
    let pinned = Digest::of(&root);
    let file = sealed(parts);
    let verdict = verify(&file[..], &pinned);
    assert!(verdict.is_ok() || input.len() >= 4, "{verdict:?}");
    assert!(verify(&file[..], &Digest::of(&file)).is_err());
    if let Err(invalid) = verdict {
        let reason = invalid.to_string();
        assert!(
            reason.len() < 8_192 && !reason.chars().any(char::is_control),
            "{reason:?}"
        );
    }
}

fn change(parts: &mut Vec<Part>, [which, what, at, byte]: [u8; 4]) {
    let length = parts.len().max(1);
    let which = usize::from(which) % length;
    let other = usize::from(at) % length;
    match what % 6 {
        0 if length > 1 => drop(parts.remove(which)),
        1 => parts.swap(which, other),
        2 => {
            let copy = parts[other].signed.clone();
            parts[which].signed = copy.or(parts[which].signed.take());
        }
        3 => {
            let key = KEYS.keys().nth(usize::from(byte) % KEYS.len()).copied();
            if let (Some((_, signer)), Some(key)) = (&mut parts[which].signed, key) {
                *signer = key;
            }
        }
        _ => {
            let part = &mut parts[which];
            let bytes = match &mut part.signed {
                Some((payload, _)) => payload,
                None => &mut part.bytes,
            };
            let place = (usize::from(at) << 8 | usize::from(byte)) % bytes.len().max(1);
            if let Some(found) = bytes.get_mut(place) {
                *found = if what % 2 == 0 { byte } else { *found ^ 1 };
            }
        }
    }
}

/// The file with everything in it signed, logged and listed anew, as far as it can be.
fn sealed(mut parts: Vec<Part>) -> Vec<u8> {
    let envelopes: Vec<Option<Envelope>> = parts.iter().map(signed).collect();
    let logged = |part: &Part| part.name.starts_with("statements/") && part.signed.is_some();
    let statements: Vec<&Envelope> = parts
        .iter()
        .zip(&envelopes)
        .filter(|(part, _)| logged(part))
        .filter_map(|(_, envelope)| envelope.as_ref())
        .collect();
    let leaf = |envelope: &&Envelope| {
        let key = KEYS[&envelope.key()].public();
        merkle::leaf_hash(&entry(envelope, key))
    };
    let leaves = Leaves(statements.iter().map(leaf).collect());
    let note = note(&leaves);
    let mut index = 0;
    for (part, envelope) in parts.iter_mut().zip(envelopes) {
        if part.name == "checkpoint" {
            part.bytes = note.clone().into_bytes();
        }
        if part.name.ends_with(".tlog-proof") && index < leaves.0.len() as u64 {
            let Ok(hashes) = merkle::inclusion_proof(&leaves, index, leaves.0.len() as u64);
            let proof = TlogProof {
                index,
                hashes,
                checkpoint: note.clone(),
                extra: None,
            };
            part.bytes = proof.to_string().into_bytes();
            index += 1;
        }
        if let Some(envelope) = envelope {
            part.bytes = envelope.to_bytes();
        }
    }
    list(&mut parts);
    let mut writer = Writer::new(Vec::new());
    for part in &parts {
        // An order or a name that no archive has is not written.
        let _ = writer.member(&part.name, part.bytes.len() as u64, &part.bytes[..]);
    }
    writer.finish().expect("memory is large enough")
}

/// The envelope of a part: a statement's digest of its predicate made right, and whoever has
/// consented to it consenting to what it is now.
fn signed(part: &Part) -> Option<Envelope> {
    let (payload, signer) = part.signed.as_ref()?;
    let key = &KEYS[signer];
    let Some(statement) = read(payload) else {
        return Some(Envelope::sign(payload.clone(), key));
    };
    let proposal = statement.proposal();
    let consents = statement.consents().iter();
    let consents = consents.filter_map(|consent| KEYS.get(&consent.key()));
    let consents = consents.map(|key| proposal.sign(key)).collect();
    Some(proposal.with_consents(consents).sign(key))
}

/// The statement, if it is one when the digest of its predicate is made right.
fn read(payload: &[u8]) -> Option<Statement> {
    let read = Statement::parse(payload).ok();
    read.or_else(|| Statement::parse(&fitted(payload)?).ok())
}

fn note(leaves: &Leaves) -> String {
    let size = leaves.0.len() as u64;
    let Ok(root) = merkle::root(leaves, size);
    let checkpoint = Checkpoint::new(ORIGIN, size, root);
    let mut note = checkpoint.sign(&secret(LOG)).expect("a good checkpoint");
    let time = Time::from_seconds(1_700_000_050).expect("a time");
    let dated = cosign(&note.text, ORIGIN, &secret(COSIGNER), time);
    note.signatures.push(dated.expect("a good checkpoint"));
    note.to_string()
}

/// The asker's list of all other members.
fn list(parts: &mut [Part]) {
    let Some((first, rest)) = parts.split_first_mut() else {
        return;
    };
    let Some((payload, signer)) = &first.signed else {
        return;
    };
    let Some(mut statement) = read(payload) else {
        return;
    };
    if let Predicate::Evidence(index) = &mut statement.predicate {
        let member = |part: &Part| EvidenceMember {
            name: part.name.clone(),
            digest: Digest::of(&part.bytes),
            bytes: part.bytes.len() as u64,
        };
        index.members = rest.iter().map(member).collect();
        first.bytes = statement.sign(&KEYS[signer]).to_bytes();
    }
}
