//! What is signed: JSON, statements, envelopes, log entries, and what follows from them.

use std::collections::BTreeMap;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::{Envelope, MAX_ENVELOPE};
use jingwei_proto::json as strict;
use jingwei_proto::key::{PublicKey, SecretKey, Signer as _};
use jingwei_proto::leaf::leaf as entry;
use jingwei_proto::state::{self, ApplyError};
use jingwei_proto::statement::Statement;

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// JSON that is accepted means the same to an ordinary parser, and has one canonical form.
pub fn json(input: &[u8]) {
    let Ok(value) = strict::parse(input) else {
        return;
    };
    let ordinary: serde_json::Value =
        serde_json::from_slice(input).expect("strict is narrower than ordinary");
    assert_eq!(value, ordinary);
    let canonical = strict::canonical(&value);
    assert_eq!(strict::parse(&canonical).expect("a canonical form"), value);
    assert_eq!(
        strict::canonical(&strict::parse(&canonical).expect("the same")),
        canonical
    );
    assert!(strict::parse_with_floats(input).is_ok());
}

/// An envelope prints as it was read; its signature holds for its payload and for no other.
pub fn envelope(input: &[u8]) {
    let secret = secret(9);
    if let Ok(read) = Envelope::parse(input) {
        assert_eq!(read.to_bytes(), input);
        assert!(input.len() <= MAX_ENVELOPE);
        assert!(read.verify(secret.public()).is_err() || read.key() == secret.public().id());
    }
    if input.len() > MAX_ENVELOPE / 2 {
        return;
    }
    let signed = Envelope::sign(input.to_vec(), &secret);
    let read = Envelope::parse(&signed.to_bytes()).expect("an envelope that was printed");
    assert_eq!(read, signed);
    assert_eq!(read.payload(), input);
    assert_eq!(read.payload_digest(), Digest::of(input));
    read.verify(secret.public())
        .expect("what was signed verifies");
    // The same signature over one byte more.
    let more = Envelope::sign([input, b" "].concat(), &secret);
    assert_ne!(more.signature(), read.signature());
    assert_ne!(more.pae(), read.pae());
}

/// A log entry is canonical, fits a bundle, and says again exactly what it was made from.
pub fn leaf(input: &[u8]) {
    let Some((seed, payload)) = input.split_first() else {
        return;
    };
    let secret = secret(*seed);
    let envelope = Envelope::sign(payload.to_vec(), &secret);
    let bytes = entry(&envelope, secret.public());
    assert!(bytes.len() < 1024, "the payload stays outside");
    let value = strict::parse(&bytes).expect("JSON");
    assert_eq!(strict::canonical(&value), bytes);
    let record = &value["spec"]["hashedRekordV002"];
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    assert_eq!(value["kind"], "hashedrekord");
    assert_eq!(
        record["data"]["digest"],
        base64(Digest::of(&envelope.pae()).as_bytes())
    );
    assert_eq!(record["signature"]["content"], base64(envelope.signature()));
    let raw = text(&record["signature"]["verifier"]["publicKey"]["rawBytes"]);
    assert_eq!(raw, base64(&secret.public().spki()));
    let stranger = entry(&envelope, self::secret(seed.wrapping_add(1)).public());
    assert_ne!(stranger, bytes, "the key is part of the entry");
}

/// Base64 written by hand, so that no library vouches for itself.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| {
            bits << 8 | u32::from(chunk.get(n).copied().unwrap_or(0))
        });
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}

/// A statement prints as it was read; its consents are the only thing that its proposal lacks, and
/// its proposal is what they are given to.
pub fn statement(input: &[u8]) {
    reads_as_it_prints(input);
    if let Some(fitted) = fitted(input) {
        reads_as_it_prints(&fitted);
    }
}

fn reads_as_it_prints(input: &[u8]) {
    let Ok(read) = Statement::parse(input) else {
        return;
    };
    let payload = read.payload();
    assert_eq!(payload, input, "a statement has one spelling");
    assert!(!read.chain().is_empty());
    assert_eq!(
        read.proposal().with_consents(read.consents().to_vec()),
        read
    );
    assert_eq!(read.sign(&secret(9)).payload(), payload);
    let proposal = read.proposal();
    assert!(proposal.consents().is_empty());
    assert_eq!(
        Statement::parse(&proposal.payload()).expect("a statement too"),
        proposal
    );
}

/// The statement with the digest of its predicate made right, which a mutation seldom hits.
pub(crate) fn fitted(input: &[u8]) -> Option<Vec<u8>> {
    let mut value = strict::parse(input).ok()?;
    let mut proposal = value.get("predicate")?.as_object()?.clone();
    proposal.remove("consents");
    let digest = Digest::of(&strict::canonical(&proposal)).to_string();
    *value.pointer_mut("/subject/0/digest/sha256")? = digest.into();
    Some(strict::canonical(&value))
}

/// The fold is total and deterministic, and admits nothing twice: whatever statements are signed
/// by whatever keys, a second look says the same, and an entry that was admitted is refused when
/// it comes again.
///
/// The input is lines, each a character, which names the key, and a statement.
pub fn apply(input: &[u8]) {
    let mut state: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (index, line) in (0..).zip(input.split(|byte| *byte == b'\n').take(32)) {
        let Some((seed, payload)) = line.split_first() else {
            continue;
        };
        let secret = secret(seed.wrapping_sub(b'0'));
        let payload = fitted(payload).unwrap_or_else(|| payload.to_vec());
        let envelope = Envelope::sign(payload, &secret);
        let first = state::apply(&state, index, &envelope);
        let second = state::apply(&state, index, &envelope);
        match (first, second) {
            (Ok(change), Ok(same)) => {
                assert_eq!(change.writes, same.writes);
                assert_eq!(change.signer, same.signer);
                admitted(&envelope, &change.signer);
                change.write_to(&mut state);
                assert!(state::apply(&state, index + 1, &envelope).is_err());
            }
            (Err(ApplyError::Rejected(one)), Err(ApplyError::Rejected(other))) => {
                assert_eq!(one, other);
                assert!(
                    one.reason.len() < 4096,
                    "a stranger's text is not repeated at length"
                );
            }
            (Err(ApplyError::RulesTooNew(one)), Err(ApplyError::RulesTooNew(other))) => {
                assert_eq!(one, other);
            }
            _ => panic!("two looks at one entry differ"),
        }
    }
}

fn admitted(envelope: &Envelope, signer: &PublicKey) {
    envelope
        .verify(signer)
        .expect("nothing is admitted unsigned");
    Statement::parse(envelope.payload()).expect("nothing is admitted unread");
}
