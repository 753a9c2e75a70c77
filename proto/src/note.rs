//! Signed notes (C2SP signed-note): a text of lines, and under it one line for each signature.
//!
//! ```text
//! example.com/log            ┐
//! 42                         │ the text, which ends in a newline
//! 2qkGGeMtbVqSOGD8Kg…=       ┘
//!                            (an empty line)
//! — example.com/log Az3grl…= a signature: key name, then base64 of key hash and signature
//! ```
//!
//! A signature by an unknown key says nothing and is passed over; a signature that claims to
//! be by the key in question and does not match makes the whole note false.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::digest::{from_hex, to_hex};
use crate::key::{PublicKey, Signer};

mod key;
#[cfg(test)]
mod tests;

pub use key::{Algorithm, NoteKey, NoteKeyError};

/// The most bytes a note may have, as in Go's `sumdb/note`.
pub const MAX_NOTE: usize = 1024 * 1024;

/// The most signatures a note may have, as in Go's `sumdb/note`; C2SP asks for 16 at least.
pub const MAX_SIGNATURES: usize = 100;

/// What every signature line begins with: an em dash and a space.
const DASH: &str = "— ";

/// A text and the signatures under it, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The signed text with its final newline.
    pub text: String,
    /// The signatures in their order.
    pub signatures: Vec<NoteSignature>,
}

/// One signature of a note, printed as its line without the newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The first four bytes of the key's hash: with the name, they identify the key.
    pub key_hash: [u8; 4],
    /// What the algorithm yields: for Ed25519 64 bytes, for cosignatures 8 bytes of time more.
    pub signature: Vec<u8>,
}

/// Why a note or one of its signatures is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The bytes are not a signed note, or the parts cannot make one up.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The key has not signed the note.
    #[error("the note is not signed by {0}")]
    Unsigned(String),
    /// A signature names the key, but does not match it and the text.
    #[error("the signature by {0} does not match: the note was changed or is forged")]
    Forged(String),
    /// The key makes another kind of signature than was asked for.
    #[error("the key {0} is of the wrong kind for this signature")]
    Algorithm(String),
}

fn malformed<T>(reason: &'static str) -> Result<T, NoteError> {
    Err(NoteError::Malformed(reason))
}

impl Note {
    /// A note that nobody has signed yet. The text has to end in a newline.
    pub fn new(text: impl Into<String>) -> Result<Note, NoteError> {
        let text = text.into();
        check_text(&text)?;
        Ok(Note {
            text,
            signatures: Vec::new(),
        })
    }

    /// Reads a signed note. Nothing is verified by this.
    pub fn parse(bytes: &[u8]) -> Result<Note, NoteError> {
        if bytes.len() > MAX_NOTE {
            return malformed("it is larger than 1 MiB");
        }
        let Ok(note) = std::str::from_utf8(bytes) else {
            return malformed("it is not UTF-8");
        };
        check_text(note)?;
        // The last empty line is the one that counts: a text may contain others.
        let Some(end) = note.rfind("\n\n") else {
            return malformed("no empty line stands before the signatures");
        };
        let (text, lines) = (&note[..end + 1], &note[end + 2..]);
        let signatures = lines
            .split_terminator('\n')
            .take(MAX_SIGNATURES + 1)
            .map(str::parse)
            .collect::<Result<Vec<NoteSignature>, _>>()?;
        match signatures.len() {
            0 => malformed("it has no signature"),
            1..=MAX_SIGNATURES => Ok(Note {
                text: text.to_owned(),
                signatures,
            }),
            _ => malformed("it has more than 100 signatures"),
        }
    }

    /// Checks that `key`, an Ed25519 key, has signed this text.
    ///
    /// Signatures by other keys are ignored; every one that claims to be by this key has to
    /// match. Time-stamped signatures are verified by [`crate::checkpoint::verify_cosignature`].
    pub fn verify(&self, key: &NoteKey) -> Result<(), NoteError> {
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(NoteError::Algorithm(key.to_string()));
        }
        let mut signed = false;
        for signature in self.by(key) {
            key.public()
                .verify(self.text.as_bytes(), &signature.signature)
                .map_err(|_| NoteError::Forged(key.to_string()))?;
            signed = true;
        }
        if signed {
            Ok(())
        } else {
            Err(NoteError::Unsigned(key.to_string()))
        }
    }

    /// The signatures that claim to be by `key`.
    pub fn by(&self, key: &NoteKey) -> impl Iterator<Item = &NoteSignature> {
        let hash = key.hash();
        let name = key.name().to_owned();
        self.signatures
            .iter()
            .filter(move |signature| signature.key_hash == hash && signature.name == name)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            writeln!(f, "{signature}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_hash, &self.signature[..]].concat();
        write!(f, "{DASH}{} {}", self.name, BASE64_STANDARD.encode(bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    /// Reads a signature line without its newline.
    fn from_str(line: &str) -> Result<NoteSignature, NoteError> {
        let Some((name, encoded)) = line
            .strip_prefix(DASH)
            .and_then(|rest| rest.split_once(' '))
        else {
            return malformed("a signature line is an em dash, a key name and base64");
        };
        check_name(name)?;
        let Ok(bytes) = BASE64_STANDARD.decode(encoded) else {
            return malformed("a signature is not base64");
        };
        match bytes.split_first_chunk() {
            Some((key_hash, signature)) if !signature.is_empty() => Ok(NoteSignature {
                name: name.to_owned(),
                key_hash: *key_hash,
                signature: signature.to_vec(),
            }),
            _ => malformed("a signature is shorter than five bytes"),
        }
    }
}

/// Signs a note's text with an Ed25519 key under the given name.
pub fn sign(text: &str, name: &str, signer: &dyn Signer) -> Result<NoteSignature, NoteError> {
    check_text(text)?;
    let key = NoteKey::new(name, Algorithm::Ed25519, signer.public().clone())?;
    Ok(NoteSignature {
        name: name.to_owned(),
        key_hash: key.hash(),
        signature: signer.sign(text.as_bytes()),
    })
}

/// Checks what holds for a note's text and for a note as a whole.
pub(crate) fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return malformed("it does not end in a newline");
    }
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        return malformed("it contains a control character");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c == '+' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.contains(bad) {
        return malformed("a key name is not empty and has no spaces and no plus");
    }
    Ok(())
}
