//! The keys that verify notes, in their text form (`vkey`): name, key hash and key.

use super::*;
use crate::digest::Digest;

/// How a key signs; the byte that C2SP signed-note assigns to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 over the text (0x01).
    Ed25519,
    /// Ed25519 over a time and a checkpoint, `cosignature/v1` (0x04).
    CosignatureV1,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Algorithm::Ed25519 => 0x01,
            Algorithm::CosignatureV1 => 0x04,
        }
    }
}

/// A key that verifies notes, written `example.com/log+530d903a+AekyeR…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    algorithm: Algorithm,
    public: PublicKey,
    hash: [u8; 4],
}

impl NoteKey {
    /// The key under a name, which has neither spaces nor `+`.
    pub fn new(
        name: impl Into<String>,
        algorithm: Algorithm,
        public: PublicKey,
    ) -> Result<NoteKey, NoteError> {
        let name = name.into();
        check_name(&name)?;
        let mut key = NoteKey {
            name,
            algorithm,
            public,
            hash: [0; 4],
        };
        let [a, b, c, d, ..] = key.id().0;
        key.hash = [a, b, c, d];
        Ok(key)
    }

    /// SHA-256(name ‖ newline ‖ algorithm ‖ key), which Sigstore calls the log's id.
    pub fn id(&self) -> Digest {
        let (name, algorithm) = (self.name.as_bytes(), [self.algorithm.byte()]);
        Digest::of(&[name, b"\n", &algorithm, &self.public.raw()].concat())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The first four bytes of its id, which signature lines carry.
    pub fn hash(&self) -> [u8; 4] {
        self.hash
    }
}

/// The text is not a verifier key that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a verifier key: expected NAME+HASH+KEY with an Ed25519 key, as C2SP signed-note has it"
)]
pub struct NoteKeyError;

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.algorithm.byte()], &self.public.raw()[..]].concat();
        let (hash, key) = (to_hex(&self.hash), BASE64_STANDARD.encode(key));
        write!(f, "{}+{hash}+{key}", self.name)
    }
}

impl FromStr for NoteKey {
    type Err = NoteKeyError;

    fn from_str(text: &str) -> Result<NoteKey, NoteKeyError> {
        read(text).ok_or(NoteKeyError)
    }
}

fn read(text: &str) -> Option<NoteKey> {
    // Base64 may contain a plus; a name and a hash may not.
    let mut parts = text.splitn(3, '+');
    let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
    let key = BASE64_STANDARD.decode(key).ok()?;
    let (byte, raw) = key.split_first()?;
    let algorithm = [Algorithm::Ed25519, Algorithm::CosignatureV1]
        .into_iter()
        .find(|algorithm| algorithm.byte() == *byte)?;
    let public = PublicKey::from_raw(raw.try_into().ok()?).ok()?;
    let key = NoteKey::new(name, algorithm, public).ok()?;
    (from_hex(hash)? == key.hash).then_some(key)
}
