//! The state of a federation: a pure, total, deterministic fold over its log.
//!
//! `apply(state, index, envelope)` says what an entry changes, or why it changes nothing. The
//! registry admits statements by it, every replica checks the registry by it, and an auditor
//! repeats it over the few statements that an answer rests on. It reads nothing but the log:
//! no clock, and no code table that ships with the software.
//!
//! The rules stand by subject: `root`, `agency`, `node`, `data`; who must have signed, and
//! what a statement continues, in `signatures`.
//!
//! The state is a map from text keys to JSON records, so that any ordered store can hold it:
//!
//! | key | record |
//! |---|---|
//! | `root` | [`RootRecord`] in force |
//! | `root/<n>` | [`RootRecord`] of version n |
//! | `agency/<id>` | [`AgencyRecord`] |
//! | `change/<id>/<n>` | the index of the n-th entry that changed the agency's record |
//! | `key/<key id>` | [`KeyRecord`] of a key that was ever used |
//! | `recoveries` | the ids of agencies whose key is being recovered |
//! | `time` | [`TimeRecord`]: log time |
//! | `node/<id>` | [`NodeRecord`] |
//! | `tls/<key id>` | the agency ids whose node uses the TLS key |
//! | `dataset/<id>/<name>` | [`Chain`] of the dataset's newest version |
//! | `version/<id>/<name>@<n>` | [`VersionRecord`] |
//! | `schema/<id>/<name>` | [`SchemaRecord`] |

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dsse::Envelope;
use crate::id::{AgencyId, DatasetId, VersionId};
use crate::json::canonical;
use crate::key::PublicKey;
use crate::statement::{
    Action, Agency, Attributes, Dataset, Enrolment, Head, NewKey, Node, Predicate, Role, Root,
    Schema, Snapshot, Statement, Successor,
};

mod agency;
mod authority;
mod data;
mod keys_in_use;
mod node;
mod records;
mod root;
mod signatures;
mod snapshot;

pub use authority::{Authority, authority};
pub use records::{
    AgencyRecord, Chain, KeyRecord, NodeRecord, Purpose, Recovery, RootRecord, SchemaRecord,
    Status, TimeRecord, VersionRecord, keys, record,
};
use signatures::member;

/// The newest rules that this software knows.
pub const RULES: u64 = 1;

/// Where the fold reads the state from.
pub trait Lookup {
    /// What can go wrong with the storage.
    type Error;

    /// The record under `key`.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The record under `key`, read. Every entry asks for the root and its signer: a storage may
    /// keep what it has read.
    fn find<T: Record>(&self, key: &str) -> Result<Option<T>, ApplyError<Self::Error>> {
        let bytes = self.get(key).map_err(ApplyError::Storage)?;
        bytes.map(|bytes| read(key, &bytes)).transpose()
    }
}

/// Reads the record that stands under `key`.
pub fn read<T: Record, E>(key: &str, bytes: &[u8]) -> Result<T, ApplyError<E>> {
    record(bytes).ok_or_else(|| ApplyError::Unreadable(key.to_owned()))
}

/// What a record can be read as.
pub trait Record: DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: DeserializeOwned + Clone + Send + Sync + 'static> Record for T {}

/// A state in memory: for tests, for auditors and for a batch on top of a stored state.
impl Lookup for std::collections::BTreeMap<String, Vec<u8>> {
    type Error = std::convert::Infallible;

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.get(key).cloned())
    }
}

/// What an entry changes.
#[derive(Debug, Clone)]
pub struct Change {
    /// Records to write, or to remove where there is none.
    pub writes: Vec<(String, Option<Vec<u8>>)>,
    /// The statement, parsed.
    pub statement: Statement,
    /// The key that signed it.
    pub signer: PublicKey,
}

impl Change {
    /// Makes the change in a state in memory.
    pub fn write_to(&self, state: &mut std::collections::BTreeMap<String, Vec<u8>>) {
        for (key, record) in &self.writes {
            match record {
                Some(record) => state.insert(key.clone(), record.clone()),
                None => state.remove(key),
            };
        }
    }
}

/// Whose fault it is that a statement is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blame {
    /// It cannot be read, or breaks a rule of its own type.
    Malformed,
    /// A signature does not verify.
    Forged,
    /// The signer may not say this.
    Unauthorised,
    /// It contradicts what the log already holds.
    Inconsistent,
    /// It does not continue the newest statement of its chain.
    Stale,
}

/// Why an entry changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Whose fault.
    pub blame: Blame,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.blame, self.reason)
    }
}

/// The fold stopped at an entry.
#[derive(Debug)]
pub enum ApplyError<E> {
    /// The entry is a no-op.
    Rejected(Rejection),
    /// The log asks for rules that this software is too old for; it must stop here.
    RulesTooNew(u64),
    /// The storage failed; nothing is known about the entry.
    Storage(E),
    /// A record of the state cannot be read; nothing is known about the entry.
    Unreadable(String),
}

impl<E: fmt::Display> fmt::Display for ApplyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Rejected(rejection) => rejection.fmt(f),
            ApplyError::RulesTooNew(rules) => write!(
                f,
                "the federation uses rules {rules} from here on, and this program knows rules up to {RULES}: install a newer one"
            ),
            ApplyError::Storage(error) => error.fmt(f),
            ApplyError::Unreadable(key) => {
                write!(f, "the record {key} of the state cannot be read")
            }
        }
    }
}

impl<E> From<Rejection> for ApplyError<E> {
    fn from(rejection: Rejection) -> Self {
        ApplyError::Rejected(rejection)
    }
}

fn reject(blame: Blame, reason: impl Into<String>) -> Rejection {
    Rejection {
        blame,
        reason: reason.into(),
    }
}

fn put<T: Serialize>(key: String, record: &T) -> Write {
    (key, Some(canonical(record)))
}

/// What the entry at `index` changes in `state`.
pub fn apply<L: Lookup>(
    state: &L,
    index: u64,
    envelope: &Envelope,
) -> Result<Change, ApplyError<L::Error>> {
    let statement = Statement::parse(envelope.payload())
        .map_err(|error| reject(Blame::Malformed, error.to_string()))?;
    let entry = Entry {
        state,
        envelope,
        index,
        statement: &statement,
        head: &statement.head,
    };
    let root: Option<RootRecord> = state.find(keys::ROOT)?;
    let (writes, signer) = match (&statement.predicate, root) {
        (Predicate::Root(body), root) => entry.root(body, root)?,
        (_, None) => {
            return Err(reject(Blame::Inconsistent, "a log begins with its root document").into());
        }
        (predicate, Some(root)) => {
            if statement.head.federation != root.federation {
                return Err(reject(Blame::Inconsistent, "it belongs to another federation").into());
            }
            match predicate {
                Predicate::Agency(body) => entry.agency(body, &root)?,
                Predicate::Node(body) => entry.node(body)?,
                Predicate::Dataset(body) => entry.dataset(body)?,
                Predicate::Schema(body) => entry.schema(body)?,
                Predicate::Snapshot(body) => entry.snapshot(body, &root)?,
                other => {
                    let reason = format!("{} statements do not belong in a registry", other.kind());
                    return Err(reject(Blame::Malformed, reason).into());
                }
            }
        }
    };
    Ok(Change {
        writes,
        statement,
        signer,
    })
}

/// A record to write, or to remove.
type Write = (String, Option<Vec<u8>>);
type Writes = Vec<Write>;

/// One entry while its rules are checked.
struct Entry<'a, L> {
    state: &'a L,
    envelope: &'a Envelope,
    index: u64,
    statement: &'a Statement,
    head: &'a Head,
}

#[cfg(test)]
mod tests;
