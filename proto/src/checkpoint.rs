//! Checkpoints (C2SP tlog-checkpoint): a log's name, size and root, signed as a note by the
//! log and, with the time, by witnesses (C2SP tlog-cosignature, `cosignature/v1`).
//!
//! ```text
//! example.com/log                                  origin
//! 42                                               size
//! 2qkGGeMtbVqSOGD8KgPsDnZ…=                        root
//!
//! — example.com/log Az3grl…=                       the log: “this is my tree”
//! — witness.example/w1 jWbPPw…=                    a witness: “at this time I had seen
//!                                                   no larger tree, and none that differs”
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::digest::Digest;
use crate::key::Signer;
use crate::note::{self, Algorithm, Note, NoteError, NoteKey, NoteSignature};
use crate::time::Time;

mod keys;
#[cfg(test)]
mod tests;

pub use keys::{CheckpointKeys, is_own};

/// The text of a checkpoint, printed as the note text that is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries the log has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
    /// Further lines, which the log may add and nothing here interprets.
    pub extensions: Vec<String>,
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The text is not that of a checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// The note is malformed, unsigned or forged.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It is another log's checkpoint.
    #[error("a checkpoint of the log {found}, not of {expected}")]
    Origin {
        /// The log it should be of.
        expected: String,
        /// The log it names.
        found: String,
    },
    /// Too few witnesses have co-signed it.
    #[error("{found} of {needed} needed witnesses have co-signed; ask again when more have")]
    Quorum {
        /// How many have.
        found: usize,
        /// How many have to.
        needed: u64,
    },
    /// It is the checkpoint of a log that the policy does not list.
    #[error("a checkpoint of the log {0}, which the policy does not list")]
    UnknownLog(String),
    /// The witnesses that have co-signed it do not satisfy the policy.
    #[error("the {found} witnesses that have co-signed do not make up the quorum ‘{quorum}’")]
    Policy {
        /// How many have co-signed.
        found: usize,
        /// The policy's name for what is needed.
        quorum: String,
    },
}

fn malformed<T>(reason: &'static str) -> Result<T, CheckpointError> {
    Err(CheckpointError::Malformed(reason))
}

impl Checkpoint {
    /// A checkpoint without further lines.
    pub fn new(origin: impl Into<String>, size: u64, root: Digest) -> Checkpoint {
        Checkpoint {
            origin: origin.into(),
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// Signs it as the log does, under the origin as the key's name.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Note, CheckpointError> {
        let text = self.to_string();
        // Whatever was put into the fields, only what reads back as it was is ever signed.
        if text.parse().as_ref() != Ok(self) {
            return malformed("a line is empty or contains a newline");
        }
        let mut note = Note::new(text)?;
        note.signatures
            .push(note::sign(&note.text, &self.origin, signer)?);
        Ok(note)
    }

    /// Reads a signed checkpoint and checks that the log, whose key's name is its origin, has
    /// signed it. Cosignatures are left to be verified on the note that is returned.
    pub fn open(bytes: &[u8], log: &NoteKey) -> Result<(Checkpoint, Note), CheckpointError> {
        let note = Note::parse(bytes)?;
        note.verify(log)?;
        let checkpoint: Checkpoint = note.text.parse()?;
        if checkpoint.origin != log.name() {
            return Err(CheckpointError::Origin {
                expected: log.name().to_owned(),
                found: crate::excerpt(&checkpoint.origin),
            });
        }
        Ok((checkpoint, note))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = BASE64_STANDARD.encode(self.root.as_bytes());
        write!(f, "{}\n{}\n{root}\n", self.origin, self.size)?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Checkpoint, CheckpointError> {
        note::check_text(text)?;
        let mut lines = text.split_terminator('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return malformed("it has fewer than three lines");
        };
        if origin.is_empty() {
            return malformed("its first line, the origin, is empty");
        }
        let Some(size) = number(size) else {
            return malformed("its second line is not a size in decimal digits");
        };
        let Some(root) = hash(root) else {
            return malformed("its third line is not a SHA-256 root in base64");
        };
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return malformed("a further line is empty");
        }
        Ok(Checkpoint {
            origin: origin.to_owned(),
            size,
            root,
            extensions,
        })
    }
}

/// A decimal number without sign or leading zeros.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .filter(|number: &u64| number.to_string() == text)
}

/// A SHA-256 hash in base64.
pub(crate) fn hash(text: &str) -> Option<Digest> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    bytes.try_into().map(Digest).ok()
}

/// What a `cosignature/v1` signs: two lines of its own, then the checkpoint's whole text.
fn cosigned(text: &str, time: Time) -> Vec<u8> {
    format!("cosignature/v1\ntime {}\n{text}", time.seconds()).into_bytes()
}

/// Co-signs a checkpoint's text: a statement that at `time` the signer had verified this tree
/// and had seen no larger one of this log. To have verified that is the caller's part.
pub fn cosign(
    text: &str,
    name: &str,
    signer: &dyn Signer,
    time: Time,
) -> Result<NoteSignature, CheckpointError> {
    text.parse::<Checkpoint>()?;
    let key = NoteKey::new(name, Algorithm::CosignatureV1, signer.public().clone())?;
    let signature = signer.sign(&cosigned(text, time));
    Ok(NoteSignature {
        name: name.to_owned(),
        key_hash: key.hash(),
        signature: [&time.seconds().to_be_bytes(), &signature[..]].concat(),
    })
}

/// Checks that `key` has co-signed the note, and says when; the latest time if more than once.
pub fn verify_cosignature(note: &Note, key: &NoteKey) -> Result<Time, NoteError> {
    if key.algorithm() != Algorithm::CosignatureV1 {
        return Err(NoteError::Algorithm(key.to_string()));
    }
    let mut latest = None;
    for signature in note.by(key) {
        let time = verify_one(&note.text, key, &signature.signature)
            .ok_or_else(|| NoteError::Forged(key.to_string()))?;
        latest = latest.max(Some(time));
    }
    latest.ok_or_else(|| NoteError::Unsigned(key.to_string()))
}

fn verify_one(text: &str, key: &NoteKey, signature: &[u8]) -> Option<Time> {
    let (seconds, signature) = signature.split_first_chunk()?;
    let time = Time::from_seconds(i64::from_be_bytes(*seconds))?;
    key.public().verify(&cosigned(text, time), signature).ok()?;
    Some(time)
}
