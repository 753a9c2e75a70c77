//! DSSE envelopes (secure-systems-lab/dsse v1) with exactly one signer, in one byte form.
//!
//! The signed payload is kept as it was signed and never re-encoded. Around it the envelope
//! itself is RFC 8785 canonical JSON; any other spelling is refused, so that an envelope has
//! one digest and a replica can rebuild the log's leaf from it byte for byte.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::key::{KeyError, KeyId, PublicKey, Signer};

/// The payload type of every envelope: an in-toto Statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The largest envelope accepted, in bytes; a manifest with a 64 KiB schema fits with room.
pub const MAX_ENVELOPE: usize = 256 * 1024;

/// The RFC 8785 form around its three values: the members in their order. Base64 and hex need no
/// escapes.
const BEFORE_PAYLOAD: &str = r#"{"payload":""#;
const BEFORE_KEY: &str =
    r#"","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":""#;
const BEFORE_SIGNATURE: &str = r#"","sig":""#;
const END: &str = r#""}]}"#;

/// A signed payload: one Ed25519 signature by the key that `key` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    key: KeyId,
    signature: [u8; 64],
    verified: Verified,
}

/// Whether the signature holds: nothing in an envelope ever changes, so this is found out once,
/// wherever it is asked first. It is not part of what an envelope is.
#[derive(Debug, Clone, Default)]
struct Verified(OnceLock<bool>);

impl PartialEq for Verified {
    fn eq(&self, _: &Verified) -> bool {
        true
    }
}

impl Eq for Verified {}

/// Bytes that are not an envelope as this protocol writes it.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than [`MAX_ENVELOPE`].
    #[error("an envelope of {0} bytes; at most {MAX_ENVELOPE} are accepted")]
    TooLarge(usize),
    /// Not the JSON of an envelope.
    #[error("not a DSSE envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// A member has a value that is not acceptable.
    #[error("not an acceptable envelope: {0}")]
    Member(&'static str),
    /// JSON of an envelope, but not in RFC 8785 form.
    #[error("the envelope is not in RFC 8785 canonical form")]
    NotCanonical,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// Signs `payload`, an in-toto Statement.
    ///
    /// # Panics
    /// If the signer makes a signature that is not 64 bytes, which no Ed25519 signer does.
    pub fn sign(payload: Vec<u8>, signer: &dyn Signer) -> Envelope {
        let signature = signer
            .sign(&pae(&payload))
            .try_into()
            .expect("an Ed25519 signature has 64 bytes");
        Envelope {
            payload,
            key: signer.public().id(),
            signature,
            verified: Verified::default(),
        }
    }

    /// An envelope of parts that came by another way; the signature is not checked here.
    pub fn from_parts(payload: Vec<u8>, key: KeyId, signature: [u8; 64]) -> Envelope {
        Envelope {
            payload,
            key,
            signature,
            verified: Verified::default(),
        }
    }

    /// Reads an envelope. The signature is not checked here: see [`Envelope::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLarge(bytes.len()));
        }
        if let Some(envelope) = spelt(bytes) {
            return Ok(envelope);
        }
        // What it is instead.
        from_wire(serde_json::from_slice(bytes)?)?;
        Err(EnvelopeError::NotCanonical)
    }

    /// The RFC 8785 form.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Base64 has four digits for three bytes; 300 are more than the rest has.
        let mut text = String::with_capacity(self.payload.len().div_ceil(3) * 4 + 300);
        text.push_str(BEFORE_PAYLOAD);
        BASE64_STANDARD.encode_string(&self.payload, &mut text);
        text.push_str(BEFORE_KEY);
        text.push_str(&self.key.to_string());
        text.push_str(BEFORE_SIGNATURE);
        BASE64_STANDARD.encode_string(self.signature, &mut text);
        text.push_str(END);
        text.into_bytes()
    }

    /// The signed bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The digest of the signed bytes, by which later statements name this one.
    pub fn payload_digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// The key that the envelope says it was signed with.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// The signature, 64 bytes.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// Checks that `key` is the key named and that it signed the payload.
    pub fn verify(&self, key: &PublicKey) -> Result<(), KeyError> {
        if key.id() != self.key {
            return Err(KeyError::Signature);
        }
        // A key's id is the digest of the key: under one id there is one key.
        let verify = || key.verify(&self.pae(), &self.signature).is_ok();
        match self.verified.0.get_or_init(verify) {
            true => Ok(()),
            false => Err(KeyError::Signature),
        }
    }

    /// Verifies envelopes together, each by its key, in less time than one by one; each remembers
    /// whether it holds, for [`Envelope::verify`].
    pub fn verify_together(pairs: &[(&Envelope, &PublicKey)]) {
        if let [(envelope, key)] = pairs {
            let _ = envelope.verify(key);
            return;
        }
        let own = || {
            let named = |(envelope, key): &&(&Envelope, &PublicKey)| key.id() == envelope.key;
            pairs.iter().filter(named)
        };
        let signed = own().map(|(envelope, key)| (*key, envelope.pae(), &envelope.signature));
        let all = PublicKey::verify_all(signed);
        for (envelope, key) in own() {
            // Where one does not hold, only each by itself can tell which.
            let _ = match all {
                true => envelope.verified.0.set(true),
                false => envelope.verify(key).or(Ok(())),
            };
        }
    }

    /// The bytes under the signature: the DSSE pre-authentication encoding.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload)
    }
}

/// DSSE v1 pre-authentication encoding of a payload of [`PAYLOAD_TYPE`].
pub fn pae(payload: &[u8]) -> Vec<u8> {
    encode(PAYLOAD_TYPE, payload)
}

/// DSSE v1 pre-authentication encoding: type and payload, each after its length in bytes.
fn encode(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The envelope whose RFC 8785 form these bytes are. There is one spelling of every value: hex in
/// lower case, and base64 with its padding and no bits left over.
fn spelt(bytes: &[u8]) -> Option<Envelope> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (payload, rest) = text.strip_prefix(BEFORE_PAYLOAD)?.split_once(BEFORE_KEY)?;
    let (key, rest) = rest.split_once(BEFORE_SIGNATURE)?;
    let signature = BASE64_STANDARD.decode(rest.strip_suffix(END)?).ok()?;
    Some(Envelope {
        payload: BASE64_STANDARD.decode(payload).ok()?,
        key: key.parse().ok()?,
        signature: signature.try_into().ok()?,
        verified: Verified::default(),
    })
}

fn from_wire(wire: Wire) -> Result<Envelope, EnvelopeError> {
    if wire.payload_type != PAYLOAD_TYPE {
        return Err(EnvelopeError::Member(
            "payloadType is not application/vnd.in-toto+json",
        ));
    }
    let [signature] = <[WireSignature; 1]>::try_from(wire.signatures)
        .map_err(|_| EnvelopeError::Member("there is not exactly one signature"))?;
    let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
    Ok(Envelope {
        payload: decode(&wire.payload).ok_or(EnvelopeError::Member("payload is not base64"))?,
        key: signature.keyid,
        signature: decode(&signature.sig)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(EnvelopeError::Member("sig is not the base64 of 64 bytes"))?,
        verified: Verified::default(),
    })
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            payload: BASE64_STANDARD.encode(&self.payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![WireSignature {
                keyid: self.key,
                sig: BASE64_STANDARD.encode(self.signature),
            }],
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Envelope, D::Error> {
        from_wire(Wire::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    fn signed() -> (SecretKey, Envelope) {
        let key = SecretKey::from_seed(&[1; 32]);
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        (key, envelope)
    }

    #[test]
    fn pre_authentication_encoding() {
        assert_eq!(
            pae(b"hello world"),
            b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
        );
    }

    /// The test vector of secure-systems-lab/dsse, protocol.md, by a P-256 key. Its encoding is
    /// ours; the envelope is not, because it holds another type of payload.
    #[test]
    fn the_protocol_s_example() {
        assert_eq!(
            encode("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        let envelope = br#"{"payload":"aGVsbG8gd29ybGQ=","payloadType":"http://example.com/HelloWorld","signatures":[{"sig":"A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"#;
        assert!(Envelope::parse(envelope).is_err());
    }

    #[test]
    fn round_trip_and_tampering() {
        let (key, envelope) = signed();
        let bytes = envelope.to_bytes();
        assert_eq!(bytes, crate::json::canonical(&envelope));
        let read = Envelope::parse(&bytes).unwrap();
        assert_eq!(read, envelope);
        read.verify(key.public()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let accepted = Envelope::parse(&changed)
                    .is_ok_and(|envelope| envelope.verify(key.public()).is_ok());
                assert!(!accepted, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_was_verified_is_good_for_that_key_alone() {
        let (key, envelope) = signed();
        let stranger = SecretKey::from_seed(&[2; 32]);
        assert!(envelope.verify(stranger.public()).is_err());
        for _ in 0..2 {
            envelope.verify(key.public()).unwrap();
            assert!(envelope.verify(stranger.public()).is_err());
            assert_eq!(envelope, Envelope::parse(&envelope.to_bytes()).unwrap());
        }
    }

    #[test]
    fn together_as_one_by_one() {
        let keys = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]));
        let stranger = SecretKey::from_seed(&[3; 32]);
        let envelopes: Vec<_> = (0..9_u8)
            .map(|n| Envelope::sign(vec![n], &keys[usize::from(n % 2)]))
            .collect();
        let pairs: Vec<_> = (0..).zip(&envelopes).collect();
        let pairs: Vec<_> = pairs
            .iter()
            // One is said to be by another key than it names: that says nothing of the rest.
            .map(|(n, envelope): &(usize, _)| match n {
                4 => (*envelope, stranger.public()),
                n => (*envelope, keys[n % 2].public()),
            })
            .collect();
        Envelope::verify_together(&pairs);
        let known = |envelope: &Envelope| envelope.verified.0.get().copied();
        for (n, envelope) in envelopes.iter().enumerate() {
            assert_eq!(known(envelope), (n != 4).then_some(true));
        }
        let mut forged = Envelope::sign(vec![9], &keys[0]);
        forged.signature[40] ^= 1;
        let good = Envelope::sign(vec![10], &keys[0]);
        Envelope::verify_together(&[(&good, keys[0].public()), (&forged, keys[0].public())]);
        assert_eq!((known(&good), known(&forged)), (Some(true), Some(false)));
        assert!(good.verify(keys[0].public()).is_ok());
        assert!(forged.verify(keys[0].public()).is_err());
    }

    #[test]
    fn other_spellings_and_signers_are_refused() {
        let (_, envelope) = signed();
        let text = String::from_utf8(envelope.to_bytes()).unwrap();
        let spaced = text.replacen(':', ": ", 1);
        assert!(matches!(
            Envelope::parse(spaced.as_bytes()),
            Err(EnvelopeError::NotCanonical)
        ));
        let twice = text.replacen("\"payload\":", "\"payload\":\"\",\"payload\":", 1);
        assert!(Envelope::parse(twice.as_bytes()).is_err());
        let stranger = SecretKey::from_seed(&[2; 32]);
        assert!(envelope.verify(stranger.public()).is_err());
        assert!(matches!(
            Envelope::parse(&vec![b' '; MAX_ENVELOPE + 1]),
            Err(EnvelopeError::TooLarge(_))
        ));
    }

    /// Inputs that fuzzing took for new, and their like, each with what it is instead of an envelope.
    #[test]
    fn what_is_no_envelope_is_told_apart() {
        let (_, envelope) = signed();
        let text = String::from_utf8(envelope.to_bytes()).unwrap();
        let key = envelope.key().to_string();
        let sig = BASE64_STANDARD.encode(envelope.signature());
        let signature = format!(r#"{{"keyid":"{key}","sig":"{sig}"}}"#);
        let changed = |from: &str, to: &str| {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text, "{from}");
            bad
        };
        for bad in [
            changed("{", "["),
            changed("}]}", "}]}\0"),
            changed("e30=", "\\ud800"),
            changed("\"payloadType", "\"payload\":\"\",\"payloadType"),
            changed(&key, &"A".repeat(64)),
        ] {
            let error = Envelope::parse(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, EnvelopeError::Json(_)), "{bad:?}: {error}");
        }
        for bad in [
            changed("e30=", "e31="),
            changed("e30=", "____"),
            changed("in-toto+", "in-toto++"),
            changed(&signature, &format!("{signature},{signature}")),
            changed("\"sig\":\"", "\"sig\":\"AAAA"),
        ] {
            let error = Envelope::parse(bad.as_bytes()).unwrap_err();
            assert!(
                matches!(error, EnvelopeError::Member(_)),
                "{bad:?}: {error}"
            );
        }
        for bad in [
            changed("}]}", "}]}\n"),
            changed("e30=", "\\u006530="),
            changed("application/", "application\\/"),
            // The values alone, in their order.
            changed(&signature, &format!(r#"["{key}","{sig}"]"#)),
            format!(r#"["e30=","{PAYLOAD_TYPE}",[{signature}]]"#),
        ] {
            let error = Envelope::parse(bad.as_bytes()).unwrap_err();
            assert!(
                matches!(error, EnvelopeError::NotCanonical),
                "{bad:?}: {error}"
            );
        }
        // What is signed is not asked what it is.
        for odd in [changed("e30=", ""), changed("e30=", "/w==")] {
            let read = Envelope::parse(odd.as_bytes()).unwrap();
            assert_eq!(read.to_bytes(), odd.as_bytes());
        }
    }
}
