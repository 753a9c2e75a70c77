//! Proofs of misbehaviour: one file with which anyone confirms, offline, that a registry lied.
//!
//! Like evidence it is an uncompressed ustar archive in one byte form. It holds what the
//! registry itself signed, and the least that shows it false:
//!
//! ```text
//! misbehaviour.json     what is claimed; type urn:jingwei:misbehaviour:v1
//! roots/1.json …        the root document with the given fingerprint, and each later one: they
//!                       name the registry's keys
//! ```
//!
//! | claim | further members | what it shows |
//! |---|---|---|
//! | `two-histories` | `older.checkpoint`, `newer.checkpoint` | the newer tree's first entries yield another root than the one signed for them |
//! | `shrunk-log` | `larger.checkpoint`, `smaller.checkpoint` | one key dated the smaller tree later than the larger |
//! | `malformed-entry` | `entry.leaf`, `.tlog-proof` | an entry that is no entry |
//! | `forged-entry` | `entry.leaf`, `.payload`, `.tlog-proof` | an entry whose signature is not by the key that it names |
//! | `repeated-entry` | `entry.leaf`, `first.tlog-proof`, `second.tlog-proof` | one entry at two places |
//! | `conflicting-entries` | `first.…`, `second.…`, each as for a forged entry | two statements that cannot both continue one chain, in this order |
//! | `rejected-entry` | `before.envelopes`, `entry.leaf`, `.payload`, `checkpoint` | the first entry of the log that the rules reject, with all statements before it |
//! | the same | first `state.json` | the first such entry after a snapshot, with the statements from that on, and what it says of the records that the rules ask for |
//!
//! The first six need a few hashes of the log, whatever its size. The seventh needs what the
//! statements before the accused one lead to, because most rules speak of what is *not* in the log
//! before it ("no such agency is enrolled"). A snapshot says that with a proof for each record, and
//! only the statements since then are needed. Where none stands before the entry it takes all, and
//! so a log that is not too large; so it does for a snapshot that names a false state. That the
//! snapshot is true is not asked: it is the registry's own word, and if it is false, the
//! registry has lied there. Signatures by others than the accused are left out of the checkpoints: nothing here
//! rests on them, and so there is no byte in the file that could be changed unnoticed.
//!
//! What no file can show: that a registry withholds an entry, or serves bytes that match
//! nothing it has signed. Those may be the fault of anyone on the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::note::{Note, NoteError, NoteKey};
use crate::snapshot;
use crate::tlog_proof::TlogProof;

mod file;
mod known;
#[cfg(test)]
mod tests;
mod verify;

pub use file::MAX_BEFORE;
pub use verify::{Liar, Verdict};

/// The type of the first member, and its name.
pub const TYPE: &str = "urn:jingwei:misbehaviour:v1";
/// The first member, by which the file is told from evidence.
pub const CLAIM: &str = "misbehaviour.json";

/// What a registry is accused of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two signed checkpoints of which neither continues the other.
    TwoHistories,
    /// A smaller tree dated later than a larger one.
    ShrunkLog,
    /// An entry that is not in the form of entries.
    MalformedEntry,
    /// An entry that its key did not sign.
    ForgedEntry,
    /// One entry at two places.
    RepeatedEntry,
    /// Two statements that cannot both continue one chain.
    ConflictingEntries,
    /// An entry that the rules reject.
    RejectedEntry,
}

impl Kind {
    /// Its name in files, metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::TwoHistories => "two-histories",
            Kind::ShrunkLog => "shrunk-log",
            Kind::MalformedEntry => "malformed-entry",
            Kind::ForgedEntry => "forged-entry",
            Kind::RepeatedEntry => "repeated-entry",
            Kind::ConflictingEntries => "conflicting-entries",
            Kind::RejectedEntry => "rejected-entry",
        }
    }
}

/// An entry as the log holds it, with the statement behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// What was hashed into the tree.
    pub leaf: Vec<u8>,
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// The proof that the log holds the leaf.
    pub proof: TlogProof,
}

/// The log up to a snapshot, as far as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The entries before the snapshot.
    pub size: u64,
    /// The peaks of their tree ([`Edge`](crate::merkle::Edge)).
    pub peaks: Vec<Digest>,
    /// What the snapshot says of the records that the rules ask for, by key.
    pub state: BTreeMap<String, snapshot::Proof>,
}

/// A lie with what shows it. Checkpoints are signed notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lie {
    /// See [`Kind::TwoHistories`].
    TwoHistories {
        /// The checkpoint of the smaller tree.
        older: String,
        /// That of the larger, or of another one of the same size.
        newer: String,
        /// The root that the newer tree has at the older one's size.
        root: Digest,
        /// The proof of that (RFC 9162 §2.1.4).
        path: Vec<Digest>,
    },
    /// See [`Kind::ShrunkLog`].
    ShrunkLog {
        /// The checkpoint of the larger tree, dated earlier.
        larger: String,
        /// That of the smaller, dated later by the same key.
        smaller: String,
    },
    /// See [`Kind::MalformedEntry`].
    MalformedEntry {
        /// What was hashed into the tree.
        leaf: Vec<u8>,
        /// The proof of it.
        proof: TlogProof,
    },
    /// See [`Kind::ForgedEntry`].
    ForgedEntry(Logged),
    /// See [`Kind::RepeatedEntry`].
    RepeatedEntry {
        /// What was hashed into the tree.
        leaf: Vec<u8>,
        /// Where it stands first.
        first: TlogProof,
        /// Where it stands again.
        second: TlogProof,
    },
    /// See [`Kind::ConflictingEntries`].
    ConflictingEntries(Box<[Logged; 2]>),
    /// See [`Kind::RejectedEntry`].
    RejectedEntry {
        /// What came before `before`; `None` where that begins with the log.
        since: Option<Box<Since>>,
        /// The envelopes of the entries before it: of all, or from a snapshot on.
        before: Vec<Vec<u8>>,
        /// Its leaf.
        leaf: Vec<u8>,
        /// Its statement.
        payload: Vec<u8>,
        /// The checkpoint of a tree that holds it.
        checkpoint: String,
        /// The proof that the tree up to and with it is the beginning of that tree.
        path: Vec<Digest>,
    },
}

impl Lie {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Lie::TwoHistories { .. } => Kind::TwoHistories,
            Lie::ShrunkLog { .. } => Kind::ShrunkLog,
            Lie::MalformedEntry { .. } => Kind::MalformedEntry,
            Lie::ForgedEntry(_) => Kind::ForgedEntry,
            Lie::RepeatedEntry { .. } => Kind::RepeatedEntry,
            Lie::ConflictingEntries(_) => Kind::ConflictingEntries,
            Lie::RejectedEntry { .. } => Kind::RejectedEntry,
        }
    }
}

/// A proof of misbehaviour: a lie, and the root documents that say whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misbehaviour {
    /// The root documents from the first on.
    pub roots: Vec<Envelope>,
    /// The lie.
    pub lie: Lie,
}

/// The file proves nothing, and why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotProved(pub String);

fn not_proved<T>(reason: impl Into<String>) -> Result<T, NotProved> {
    Err(NotProved(reason.into()))
}

fn text(error: impl std::fmt::Display) -> NotProved {
    NotProved(error.to_string())
}

/// The same note with the signatures by these keys only.
pub fn signed_only_by(note: &str, keys: &[&NoteKey]) -> Result<String, NoteError> {
    let mut note = Note::parse(note.as_bytes())?;
    let wanted = |name: &str, hash| {
        keys.iter()
            .any(|key| key.name() == name && key.hash() == hash)
    };
    note.signatures
        .retain(|signature| wanted(&signature.name, signature.key_hash));
    Ok(note.to_string())
}
