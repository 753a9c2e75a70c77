//! Keys: Ed25519 with one rule of verification, named by the SHA-256 of their public SPKI form.
//!
//! The rule is that of RFC 8032 §5.1.7 in its first form, with the cofactor: `8·S·B = 8·R + 8·k·A`,
//! where S is reduced, R and A are spelt as §5.1.2 does, and neither is of small order. It is the
//! one of which many signatures can be checked at once with the same verdict as one by one, which
//! the second form, without the cofactor, is not: there everybody who follows the log would have to
//! take the same signatures together to come to the same state. The two forms differ for signatures
//! with a part of small order, which nobody but the key's owner can make, and no library makes.

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
pub struct PublicKey {
    point: VerifyingKey,
    id: KeyId,
}

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
        if !is_reduced(raw) {
            return Err(KeyError::Malformed);
        }
        let key = VerifyingKey::from_bytes(raw).map_err(|_| KeyError::Malformed)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        let key = PublicKey::of(key);
        RECENT.with_borrow_mut(|recent| recent.keep(&key));
        Ok(key)
    }

    /// The key in the given SubjectPublicKeyInfo (RFC 8410 §4).
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::from_raw(raw_of_spki(der).ok_or(KeyError::Malformed)?)
    }

    fn of(point: VerifyingKey) -> PublicKey {
        let id = KeyId::of_spki(&spki(&point));
        PublicKey { point, id }
    }

    /// The 32 raw bytes of RFC 8032.
    pub fn raw(&self) -> [u8; 32] {
        self.point.to_bytes()
    }

    /// The SubjectPublicKeyInfo in DER, 44 bytes.
    pub fn spki(&self) -> Vec<u8> {
        spki(&self.point)
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Checks a signature.
    ///
    /// What holds without the cofactor holds with it, so the quicker form is asked first.
    #[expect(
        clippy::disallowed_methods,
        reason = "what it would accept besides is refused before"
    )]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = read_signature(signature).ok_or(KeyError::Signature)?;
        if self.point.verify(message, &signature).is_ok() {
            return Ok(());
        }
        ed25519_zebra::VerificationKey::try_from(self.raw())
            .and_then(|key| key.verify(&signature, message))
            .map_err(|_| KeyError::Signature)
    }

    /// Whether all of these signatures hold, each of a key over a message: as
    /// [`PublicKey::verify`] says, in about a third of its time where they are a hundred or more.
    /// That one does not hold is missed once in 2^128 times, whoever made it.
    pub fn verify_all<'a>(
        signed: impl IntoIterator<Item = (&'a PublicKey, Vec<u8>, &'a [u8; 64])>,
    ) -> bool {
        let mut together = ed25519_zebra::batch::Verifier::new();
        for (key, message, signature) in signed {
            let Some(signature) = read_signature(signature) else {
                return false;
            };
            together.queue((key.raw().into(), signature, &message));
        }
        together.verify(rand::rng()).is_ok()
    }
}

fn spki(point: &VerifyingKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], point.as_bytes()].concat()
}

/// A signature whose R is spelt as it has to be and is not of small order.
fn read_signature(signature: &[u8]) -> Option<Signature> {
    let signature = Signature::from_slice(signature).ok()?;
    let r = signature.r_bytes();
    (is_reduced(r) && !has_small_order(r)).then_some(signature)
}

/// Whether y is less than the field's prime, 2^255 - 19.
fn is_reduced(point: &[u8; 32]) -> bool {
    point[31] & 0x7f != 0x7f || point[1..31].iter().any(|byte| *byte != 0xff) || point[0] < 0xed
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

/// Places for them; a key takes 230 bytes, in each thread that reads any.
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
        key.filter(|key| key.point.as_bytes() == raw).cloned()
    }

    fn keep(&mut self, key: &PublicKey) {
        self.0[Recent::place(key.point.as_bytes())] = Some(key.clone());
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
        crate::text::deserialize(deserializer)
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
        let public = PublicKey::of(secret.verifying_key());
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

    /// Signatures by keys and with points R that have a part of small order or nothing else: by
    /// the equation itself, one by one, and all together.
    #[test]
    fn one_by_one_and_together_the_verdict_is_that_of_the_equation() {
        let secret = SecretKey::from_seed(&[3; 32]).secret.to_scalar();
        let nonces = [Scalar::ZERO, Scalar::from(7_u8)];
        let (mut strict, mut held) = (0, Vec::new());
        for of_key in EIGHT_TORSION {
            let key = (EdwardsPoint::mul_base(&secret) + of_key).compress();
            let public = PublicKey::from_raw(key.as_bytes()).unwrap();
            for (of_r, nonce) in EIGHT_TORSION
                .iter()
                .flat_map(|of_r| nonces.map(|nonce| (of_r, nonce)))
            {
                let point = EdwardsPoint::mul_base(&nonce) + of_r;
                let r = point.compress();
                for (message, wrong) in (0..8_u8).map(|byte| (vec![byte], byte == 7)) {
                    let hash = Sha512::new()
                        .chain_update(r.as_bytes())
                        .chain_update(key.as_bytes())
                        .chain_update(&message);
                    let k = Scalar::from_hash(hash);
                    let s = nonce + k * secret + Scalar::from(u8::from(wrong));
                    let left = EdwardsPoint::mul_base(&s);
                    let right = point + k * (EdwardsPoint::mul_base(&secret) + of_key);
                    let holds = (left - right).mul_by_cofactor() == EdwardsPoint::default();
                    let expected = holds && !point.is_small_order();
                    let signature = Signature::from_components(r.to_bytes(), s.to_bytes());
                    let bytes = signature.to_bytes();
                    let alone = public.verify(&message, &bytes).is_ok();
                    let one = PublicKey::verify_all([(&public, message.clone(), &bytes)]);
                    assert_eq!((alone, one), (expected, expected), "{signature}");
                    strict += usize::from(public.point.verify_strict(&message, &signature).is_ok());
                    if expected {
                        held.push((public.clone(), message, bytes));
                    }
                }
            }
        }
        assert_eq!(held.len(), 8 * 8 * 7);
        assert!(strict > 16 && strict < held.len(), "{strict}");
        let together = |held: &[(PublicKey, Vec<u8>, [u8; 64])]| {
            let signed = held
                .iter()
                .map(|(key, message, signature)| (key, message.clone(), signature));
            PublicKey::verify_all(signed)
        };
        assert!(together(&held));
        for at in [0, 100, held.len() - 1] {
            let mut held = held.clone();
            held[at].1.push(0);
            assert!(!together(&held));
        }
    }

    /// The same point can be spelt with y + p where that is less than 2^255.
    #[test]
    fn a_point_has_one_spelling() {
        let prime = |low: u8| {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, 0x7f);
            bytes
        };
        assert!(is_reduced(&prime(0xec)));
        for low in 0xed..=0xff {
            let mut signed = prime(low);
            assert!(!is_reduced(&signed));
            signed[31] = 0xff;
            assert!(!is_reduced(&signed));
        }
        assert!(is_reduced(&[0xff; 32].map(|byte: u8| byte & 0xfe)));
        // y = 3 is a point, and this is y + p.
        let (three, other) = (
            PublicKey::from_raw(&{
                let mut y = [0; 32];
                y[0] = 3;
                y
            }),
            prime(0xf0),
        );
        assert!(three.is_ok());
        assert_eq!(PublicKey::from_raw(&other), Err(KeyError::Malformed));
        // The neutral point, spelt as 1 + p, for R: the equation holds.
        let (key, r) = (SecretKey::from_seed(&[3; 32]), prime(0xee));
        let hash = Sha512::new()
            .chain_update(r)
            .chain_update(key.public().raw())
            .chain_update(b"message");
        let s = Scalar::from_hash(hash) * key.secret.to_scalar();
        let signature = Signature::from_components(r, s.to_bytes());
        let lax = ed25519_zebra::VerificationKey::try_from(key.public().raw()).unwrap();
        assert!(lax.verify(&signature, b"message").is_ok());
        let signature = signature.to_bytes();
        assert!(key.public().verify(b"message", &signature).is_err());
        assert!(!PublicKey::verify_all([(
            key.public(),
            b"message".to_vec(),
            &signature
        )]));
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
