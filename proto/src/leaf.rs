//! The registry's log entry: Rekor's `hashedrekord` 0.0.2, small and canonical, so that stock
//! Sigstore verifiers accept inclusion proofs of it.
//!
//! A stock verifier does not check that the key inside a leaf is the envelope's. Whoever
//! follows the log therefore rebuilds the leaf from the envelope and compares every byte.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::digest::Digest;
use crate::dsse::{self, Envelope};
use crate::key::{self, KeyError, PublicKey};

/// What stands between the three values of an entry, in RFC 8785 form.
const PARTS: [&str; 4] = [
    r#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":""#,
    r#""},"signature":{"content":""#,
    r#"","verifier":{"keyDetails":"PKIX_ED25519","publicKey":{"rawBytes":""#,
    r#""}}}}}}"#,
];

/// The log entry of `envelope`, signed by `key`.
pub fn leaf(envelope: &Envelope, key: &PublicKey) -> Vec<u8> {
    // Member names stand in order and no value needs escaping.
    let [head, signature, verifier, tail] = PARTS;
    [
        head,
        &BASE64_STANDARD.encode(Digest::of(&envelope.pae()).as_bytes()),
        signature,
        &BASE64_STANDARD.encode(envelope.signature()),
        verifier,
        &BASE64_STANDARD.encode(key.spki()),
        tail,
    ]
    .concat()
    .into_bytes()
}

/// An entry as read from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The SHA-256 of what is signed: the envelope's pre-authentication encoding.
    pub digest: Digest,
    /// The signature.
    pub signature: [u8; 64],
    /// The key that it is said to be by.
    pub key: PublicKey,
}

impl Leaf {
    /// Reads an entry; `None` for any bytes that [`leaf`] does not write.
    pub fn parse(bytes: &[u8]) -> Option<Leaf> {
        Leaf::parse_with(bytes, |raw| PublicKey::from_raw(raw).ok())
    }

    /// As [`Leaf::parse`], with keys from the caller, who may have read them before.
    pub fn parse_with(
        bytes: &[u8],
        key_of: impl FnOnce(&[u8; 32]) -> Option<PublicKey>,
    ) -> Option<Leaf> {
        let [head, signature, verifier, tail] = PARTS;
        let rest = std::str::from_utf8(bytes).ok()?.strip_prefix(head)?;
        let (digest, rest) = rest.split_once(signature)?;
        let (content, rest) = rest.split_once(verifier)?;
        let key = rest.strip_suffix(tail)?;
        // The decoder takes no other spelling of the same bytes.
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
        Some(Leaf {
            digest: Digest(decode(digest)?.try_into().ok()?),
            signature: decode(content)?.try_into().ok()?,
            key: key_of(key::raw_of_spki(&decode(key)?)?)?,
        })
    }

    /// Whether the entry is over this payload.
    pub fn is_over(&self, payload: &[u8]) -> bool {
        Digest::of(&dsse::pae(payload)) == self.digest
    }

    /// Checks the entry's own signature over its payload.
    pub fn verify(&self, payload: &[u8]) -> Result<(), KeyError> {
        self.key.verify(&dsse::pae(payload), &self.signature)
    }

    /// The envelope behind the entry, as its own key would have signed it.
    pub fn envelope(&self, payload: Vec<u8>) -> Envelope {
        Envelope::from_parts(payload, self.key.id(), self.signature)
    }

    /// Whether the entry is that of this envelope. Whether its key made the signature, and was
    /// allowed to, is not asked.
    pub fn is_of(&self, envelope: &Envelope) -> bool {
        self.key.id() == envelope.key()
            && self.signature == *envelope.signature()
            && self.is_over(envelope.payload())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{SecretKey, Signer};

    #[test]
    fn is_recognised_and_nothing_else_is() {
        let (key, other) = (
            SecretKey::from_seed(&[1; 32]),
            SecretKey::from_seed(&[2; 32]),
        );
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let entry = leaf(&envelope, key.public());
        let is_leaf_of = |entry: &[u8], envelope: &Envelope| {
            Leaf::parse(entry).is_some_and(|leaf| leaf.is_of(envelope))
        };
        assert!(is_leaf_of(&entry, &envelope));
        for at in 0..entry.len() {
            let mut flipped = entry.clone();
            flipped[at] ^= 1;
            assert!(!is_leaf_of(&flipped, &envelope), "byte {at}");
        }
        assert!(!is_leaf_of(&leaf(&envelope, other.public()), &envelope));
        assert!(!is_leaf_of(&entry, &Envelope::sign(b"[]".to_vec(), &key)));
        assert!(!is_leaf_of(b"", &envelope));
    }

    #[test]
    fn is_canonical_json_of_the_settled_form() {
        let key = SecretKey::from_seed(&[1; 32]);
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let leaf = leaf(&envelope, key.public());
        let value = crate::json::parse(&leaf).unwrap();
        assert_eq!(crate::json::canonical(&value), leaf);
        let record = &value["spec"]["hashedRekordV002"];
        assert_eq!(
            record["signature"]["verifier"]["keyDetails"],
            "PKIX_ED25519"
        );
        assert_eq!(value["apiVersion"], "0.0.2");
    }

    #[test]
    fn reads_back_what_it_writes_and_nothing_else() {
        let key = SecretKey::from_seed(&[1; 32]);
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let bytes = leaf(&envelope, key.public());
        let read = Leaf::parse(&bytes).unwrap();
        assert_eq!(&read.key, key.public());
        assert!(read.is_over(b"{}") && !read.is_over(b"[]"));
        assert!(read.verify(b"{}").is_ok() && read.verify(b"[]").is_err());
        assert_eq!(read.envelope(b"{}".to_vec()), envelope);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let other = Leaf::parse(&changed);
                assert!(other.is_none_or(|other| other != read), "byte {at}");
            }
        }
        assert_eq!(Leaf::parse(&[&bytes[..], b" "].concat()), None);
    }
}
