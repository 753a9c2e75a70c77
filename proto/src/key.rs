//! Keys: Ed25519 with strict verification, named by the SHA-256 of their public SPKI form.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::digest::{Digest, DigestError};

/// The 12 bytes before the key in an Ed25519 SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A key's name: the SHA-256 of its SubjectPublicKeyInfo in DER, as hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub Digest);

impl KeyId {
    /// The name of the key whose SubjectPublicKeyInfo is `der`, whatever its algorithm.
    pub fn of_spki(der: &[u8]) -> KeyId {
        KeyId(Digest::of(der))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<KeyId, DigestError> {
        text.parse().map(KeyId)
    }
}

/// An Ed25519 public key, written in statements as `ed25519:` and the base64 of its SPKI DER.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// What is wrong with a key or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text or bytes are not a key of a known algorithm.
    #[error("not a public key: expected ed25519: and the base64 of its SubjectPublicKeyInfo")]
    Malformed,
    /// A point of small order: signatures under it prove nothing.
    #[error("a weak Ed25519 key")]
    Weak,
    /// The signature does not match the key and the bytes.
    #[error("the signature does not match")]
    Signature,
}

impl PublicKey {
    /// The key whose 32 raw bytes are given.
    pub fn from_raw(raw: &[u8; 32]) -> Result<PublicKey, KeyError> {
        if let Some(key) = RECENT.with_borrow(|recent| recent.find(raw)) {
            return Ok(key);
        }
        let key = VerifyingKey::from_bytes(raw).map_err(|_| KeyError::Malformed)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        let key = PublicKey(key);
        RECENT.with_borrow_mut(|recent| recent.keep(&key));
        Ok(key)
    }

    /// The key in the given SubjectPublicKeyInfo (RFC 8410 §4).
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::from_raw(raw_of_spki(der).ok_or(KeyError::Malformed)?)
    }

    /// The 32 raw bytes of RFC 8032.
    pub fn raw(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The SubjectPublicKeyInfo in DER, 44 bytes.
    pub fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], self.0.as_bytes()].concat()
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        KeyId::of_spki(&self.spki())
    }

    /// Checks a signature by the strict rules of RFC 8032 §5.1.7, without small-order points.
    ///
    /// This is what `verify_strict` of ed25519-dalek does, in four fifths of its time: the library's
    /// `verify` makes the point R anew and compares its bytes, so that R is known by its bytes, too,
    /// and need not be found from them. The key is of no small order since it was read.
    #[expect(
        clippy::disallowed_methods,
        reason = "what it would accept besides is refused before"
    )]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        if has_small_order(signature.r_bytes()) {
            return Err(KeyError::Signature);
        }
        self.0
            .verify(message, &signature)
            .map_err(|_| KeyError::Signature)
    }
}

/// The y coordinates of the eight points of small order, as bytes: 0, 1, -1, and those of the four
/// points of order 8, of which two each share one.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// Whether these are the bytes of a point of small order, spelt as RFC 8032 §5.1.2 does.
fn has_small_order(point: &[u8; 32]) -> bool {
    let mut y = *point;
    // The highest bit is the sign of x.
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// Keys that were read lately, since to find the point of one takes a seventh of a signature's
/// verification, and every record of the state names some: the same few again and again.
struct Recent(Vec<Option<PublicKey>>);

/// Places for them; a key takes 200 bytes, in each thread that reads any.
const RECENT_KEYS: usize = 128;

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::new(Recent(vec![None; RECENT_KEYS]));
}

impl Recent {
    /// Keys are as good as random in any of their bytes but the last. Whoever makes keys that
    /// share a place makes them slow to read, and nothing else.
    fn place(raw: &[u8; 32]) -> usize {
        usize::from(raw[0]) % RECENT_KEYS
    }

    fn find(&self, raw: &[u8; 32]) -> Option<PublicKey> {
        let key = self.0[Recent::place(raw)].as_ref();
        key.filter(|key| key.0.as_bytes() == raw).cloned()
    }

    fn keep(&mut self, key: &PublicKey) {
        self.0[Recent::place(key.0.as_bytes())] = Some(key.clone());
    }
}

/// The 32 raw bytes in the SubjectPublicKeyInfo of an Ed25519 key.
pub(crate) fn raw_of_spki(der: &[u8]) -> Option<&[u8; 32]> {
    der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", BASE64_STANDARD.encode(self.spki()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        let encoded = text.strip_prefix("ed25519:").ok_or(KeyError::Malformed)?;
        let der = BASE64_STANDARD
            .decode(encoded)
            .map_err(|_| KeyError::Malformed)?;
        PublicKey::from_spki(&der)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Something that can sign for one public key: a key in a file today, a hardware token later.
pub trait Signer: Send + Sync {
    /// The key that verifies what this signs.
    fn public(&self) -> &PublicKey;

    /// A signature over `message`, 64 bytes for Ed25519.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// An Ed25519 private key in memory; erased when dropped, never printed.
pub struct SecretKey {
    secret: SigningKey,
    public: PublicKey,
}

impl SecretKey {
    /// The key of a 32-byte seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        let secret = SigningKey::from_bytes(seed);
        let public = PublicKey(secret.verifying_key());
        SecretKey { secret, public }
    }

    /// A new key from the operating system's randomness.
    pub fn generate() -> SecretKey {
        SecretKey::from_seed(&Zeroizing::new(rand::random()))
    }

    /// The seed, for writing to a key file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }
}

impl Signer for SecretKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.secret.sign(message).to_bytes().to_vec()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use curve25519_dalek::{EdwardsPoint, Scalar};
    use sha2::{Digest as _, Sha512};

    use super::*;

    #[test]
    fn text_form_round_trips_and_signs() {
        let key = SecretKey::from_seed(&[3; 32]);
        let public: PublicKey = key.public().to_string().parse().unwrap();
        assert_eq!(&public, key.public());
        let signature = key.sign(b"message");
        assert_eq!(public.verify(b"message", &signature), Ok(()));
        assert_eq!(
            public.verify(b"massage", &signature),
            Err(KeyError::Signature)
        );
        assert_eq!(
            public.verify(b"message", &signature[..63]),
            Err(KeyError::Signature)
        );
    }

    #[test]
    fn rfc_8032_test_1() {
        let seed = crate::digest::from_hex(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        )
        .unwrap();
        let key = SecretKey::from_seed(&seed.try_into().unwrap());
        assert_eq!(
            crate::digest::to_hex(&key.sign(b"")),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
    }

    /// A small order divides the cofactor, 8, and there are eight such points: none is missing.
    #[test]
    fn points_of_small_order_are_known_by_their_bytes() {
        let known: Vec<[u8; 32]> = EIGHT_TORSION
            .iter()
            .map(|point| point.compress().to_bytes())
            .collect();
        assert!(known.iter().all(has_small_order));
        let spelt = known.iter().map(|point| {
            let mut y = *point;
            y[31] &= 0x7f;
            y
        });
        let spelt: std::collections::BTreeSet<_> = spelt.collect();
        assert_eq!(spelt, SMALL_ORDER.into());
        assert!(!has_small_order(
            &SecretKey::from_seed(&[3; 32]).public().raw()
        ));
    }

    /// Signatures by keys and with points R that have a part of small order or nothing else.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "to see what would be accepted")]
    fn it_is_as_strict_as_the_library() {
        let secret = SecretKey::from_seed(&[3; 32]).secret.to_scalar();
        let nonces = [Scalar::ZERO, Scalar::from(7_u8)];
        let (mut accepted, mut only_lax) = (0, 0);
        for of_key in EIGHT_TORSION {
            let key = (EdwardsPoint::mul_base(&secret) + of_key).compress();
            let public = PublicKey::from_raw(key.as_bytes()).unwrap();
            for (of_r, nonce) in EIGHT_TORSION
                .iter()
                .flat_map(|of_r| nonces.map(|nonce| (of_r, nonce)))
            {
                let r = (EdwardsPoint::mul_base(&nonce) + of_r).compress();
                for message in (0..16_u8).map(|byte| [byte]) {
                    let hash = Sha512::new()
                        .chain_update(r.as_bytes())
                        .chain_update(key.as_bytes())
                        .chain_update(message);
                    let s = nonce + Scalar::from_hash(hash) * secret;
                    let signature = Signature::from_components(r.to_bytes(), s.to_bytes());
                    let strict = public.0.verify_strict(&message, &signature).is_ok();
                    let lax = public.0.verify(&message, &signature).is_ok();
                    let verdict = public.verify(&message, &signature.to_bytes()).is_ok();
                    assert_eq!(verdict, strict, "{signature}");
                    accepted += usize::from(strict);
                    only_lax += usize::from(lax && !strict);
                }
            }
        }
        assert!(accepted > 16 && only_lax > 16, "{accepted} {only_lax}");
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        assert_eq!(PublicKey::from_raw(&[0; 32]).unwrap_err(), KeyError::Weak);
        assert_eq!(
            "rsa:AAAA".parse::<PublicKey>().unwrap_err(),
            KeyError::Malformed
        );
    }
}
