//! What a log asks of a witness and what the witness may answer (C2SP tlog-witness): bytes and
//! rules, without network and storage.
//!
//! ```text
//! old 20852014                                     the size that the witness co-signed last
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=     the proof that the new tree grew from it
//!
//! example.com/behind-the-sofa                      the checkpoint, signed by the log
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.com/behind-the-sofa Az3grlgtzPIC…
//! ```
//!
//! A witness need not trust the log, nor know what its entries mean. It remembers one size and
//! one root, and signs only what grew from them. [`AddCheckpoint::judge`] is that rule as a pure
//! function; whoever signs on its word has to store the new size and root first, and in one step
//! with the check.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError, hash, number, verify_cosignature};
use crate::digest::Digest;
use crate::merkle::{empty_root, verify_consistency};
use crate::note::{Note, NoteError, NoteKey, NoteSignature};
use crate::time::Time;
use crate::words::entries;

#[cfg(test)]
mod tests;

/// The most bytes of a request: 63 hashes and a checkpoint with many signatures fit.
pub const MAX_REQUEST: usize = 64 * 1024;

/// The most hashes of a proof in a request.
pub const MAX_PROOF: usize = 63;

/// The media type of the answer that tells a size.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// A request to co-sign, `add-checkpoint`, printed as the request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness co-signed last; 0 for none.
    pub old: u64,
    /// The consistency proof from that size.
    pub proof: Vec<Digest>,
    /// The checkpoint with the log's signature.
    pub note: Note,
}

/// What a witness remembers of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The size that it co-signed last; 0 for none.
    pub size: u64,
    /// The root of that size.
    pub root: Digest,
}

impl Seen {
    /// Of a log of which nothing was co-signed yet.
    pub fn nothing() -> Seen {
        Seen {
            size: 0,
            root: empty_root(),
        }
    }
}

/// Why a witness does not co-sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is no request.
    #[error("not an add-checkpoint request: {0}")]
    Malformed(String),
    /// It co-signs no log of this origin.
    #[error("unknown log: no key is known here for {0}")]
    UnknownLog(String),
    /// No known key of the log has signed, or a signature in its name is false.
    #[error("invalid signature: {0}")]
    Signature(NoteError),
    /// The witness has co-signed another size last.
    #[error("the newest checkpoint co-signed here has {}", entries(*.0))]
    Conflict(u64),
    /// The tree did not grow from the one that was co-signed last.
    #[error("the consistency proof does not hold: {0}")]
    Inconsistent(String),
}

impl Refusal {
    /// The HTTP status that the specification assigns to it.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Signature(_) => 403,
            Refusal::UnknownLog(_) => 404,
            Refusal::Conflict(_) => 409,
            Refusal::Inconsistent(_) => 422,
        }
    }

    /// The answer's body: of a conflict the size and nothing else, otherwise words.
    pub fn body(&self) -> String {
        match self {
            Refusal::Conflict(size) => format!("{size}\n"),
            other => format!("{other}\n"),
        }
    }
}

fn malformed<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Malformed(reason.into()))
}

impl AddCheckpoint {
    /// Reads a request's body. Nothing is verified by this.
    pub fn parse(body: &[u8]) -> Result<AddCheckpoint, Refusal> {
        if body.len() > MAX_REQUEST {
            return malformed(format!("it has more than {MAX_REQUEST} bytes"));
        }
        let Ok(text) = std::str::from_utf8(body) else {
            return malformed("it is not UTF-8");
        };
        let Some((head, note)) = text.split_once("\n\n") else {
            return malformed("no empty line stands before the checkpoint");
        };
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let Some(old) = old.and_then(number) else {
            return malformed("its first line is not ‘old’ and a size in decimal digits");
        };
        let proof = lines
            .take(MAX_PROOF + 1)
            .map(hash)
            .collect::<Option<Vec<_>>>()
            .filter(|proof| proof.len() <= MAX_PROOF);
        let Some(proof) = proof else {
            return malformed("its proof is not of at most 63 SHA-256 hashes in base64");
        };
        let note =
            Note::parse(note.as_bytes()).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let request = AddCheckpoint { old, proof, note };
        request.checkpoint()?;
        Ok(request)
    }

    /// The checkpoint that is to be co-signed.
    pub fn checkpoint(&self) -> Result<Checkpoint, Refusal> {
        let read: Result<Checkpoint, CheckpointError> = self.note.text.parse();
        read.map_err(|error| Refusal::Malformed(error.to_string()))
    }

    /// Says whether a witness that trusts `keys` for this log, and remembers `seen` of it, may
    /// co-sign, in the order of the specification. `Ok` is what it has to remember from now on.
    pub fn judge(&self, keys: &[NoteKey], seen: &Seen) -> Result<Seen, Refusal> {
        let Checkpoint {
            origin, size, root, ..
        } = self.checkpoint()?;
        if keys.is_empty() {
            return Err(Refusal::UnknownLog(crate::excerpt(&origin)));
        }
        self.check_signed(keys)?;
        if self.old > size {
            return malformed(format!(
                "the old size {} is larger than the checkpoint's {size}",
                self.old
            ));
        }
        if self.old != seen.size {
            return Err(Refusal::Conflict(seen.size));
        }
        verify_consistency(self.old, size, &seen.root, &root, &self.proof)
            .map_err(|error| Refusal::Inconsistent(error.to_string()))?;
        Ok(Seen { size, root })
    }

    /// At least one of the keys has signed, and none of them is named falsely.
    fn check_signed(&self, keys: &[NoteKey]) -> Result<(), Refusal> {
        let mut signed = Err(NoteError::Malformed("no key is known"));
        for key in keys {
            match self.note.verify(key) {
                Ok(()) => signed = Ok(()),
                Err(error @ NoteError::Unsigned(_)) => signed = signed.or(Err(error)),
                Err(error) => return Err(Refusal::Signature(error)),
            }
        }
        signed.map_err(Refusal::Signature)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// The cosignature by `key` in a witness's answer to a request to co-sign `text`, and its time.
/// Lines by other keys are passed over, as the specification has it.
pub fn read_cosignature(
    answer: &str,
    text: &str,
    key: &NoteKey,
) -> Result<(NoteSignature, Time), NoteError> {
    let note = Note::parse(format!("{text}\n{answer}").as_bytes())?;
    // With an empty line in the answer the text that is signed would end there.
    if note.text != text {
        return Err(NoteError::Malformed("an empty line stands in the answer"));
    }
    let time = verify_cosignature(&note, key)?;
    if time.seconds() <= 0 {
        return Err(NoteError::Malformed("a witness's cosignature has a time"));
    }
    let latest = note.by(key).find(|signature| {
        signature
            .signature
            .starts_with(&time.seconds().to_be_bytes())
    });
    match latest {
        Some(signature) => Ok((signature.clone(), time)),
        None => Err(NoteError::Unsigned(key.to_string())),
    }
}

/// The size in a witness's answer of a conflict.
pub fn read_size(answer: &str) -> Option<u64> {
    number(answer.strip_suffix('\n')?)
}
