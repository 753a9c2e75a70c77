//! The state of a federation: a pure, total, deterministic fold over its log.
//!
//! `apply(state, index, envelope)` says what an entry changes, or why it changes nothing. The
//! registry admits statements by it, every replica checks the registry by it, and an auditor
//! repeats it over the few statements that an answer rests on. It reads nothing but the log:
//! no clock, and no code table that ships with the software.
//!
//! The state is a map from text keys to JSON records, so that any ordered store can hold it:
//!
//! | key | record |
//! |---|---|
//! | `root` | [`RootRecord`] |
//! | `agency/<id>` | [`AgencyRecord`] |
//! | `key/<key id>` | the agency id that the signing key belongs to |
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
use crate::statement::{Agency, Dataset, Head, Node, Predicate, Role, Root, Schema, Statement};

mod records;

pub use records::{
    AgencyRecord, Chain, NodeRecord, RootRecord, SchemaRecord, VersionRecord, keys, record,
};

/// The newest rules that this software knows.
pub const RULES: u64 = 1;

/// Where the fold reads the state from.
pub trait Lookup {
    /// What can go wrong with the storage.
    type Error;

    /// The record under `key`.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Self::Error>;
}

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

fn find<T: DeserializeOwned, L: Lookup>(
    state: &L,
    key: &str,
) -> Result<Option<T>, ApplyError<L::Error>> {
    let bytes = state.get(key).map_err(ApplyError::Storage)?;
    Ok(bytes.as_deref().and_then(record))
}

fn put<T: Serialize>(key: String, record: &T) -> (String, Option<Vec<u8>>) {
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
    let root: Option<RootRecord> = find(state, keys::ROOT)?;
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
                Predicate::Agency(body) => entry.enrol(body, &root)?,
                Predicate::Node(body) => entry.node(body)?,
                Predicate::Dataset(body) => entry.dataset(body)?,
                Predicate::Schema(body) => entry.schema(body)?,
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

type Writes = Vec<(String, Option<Vec<u8>>)>;

/// One entry while its rules are checked.
struct Entry<'a, L> {
    state: &'a L,
    envelope: &'a Envelope,
    index: u64,
    statement: &'a Statement,
    head: &'a Head,
}

impl<L: Lookup> Entry<'_, L> {
    fn root(
        &self,
        body: &Root,
        current: Option<RootRecord>,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        if body.version != self.head.sequence {
            return Err(reject(Blame::Malformed, "the root's version is not its sequence").into());
        }
        if let Some(current) = &current {
            if self.head.federation != current.federation {
                return Err(reject(Blame::Inconsistent, "it belongs to another federation").into());
            }
            self.signed_by_threshold(&current.keys, current.threshold)?;
        } else if self.index != 0 {
            return Err(reject(
                Blame::Inconsistent,
                "the first root document is the log's first entry",
            )
            .into());
        }
        let signer = self.signed_by_threshold(&body.keys, body.threshold)?;
        let chain = self.continues(current.map(|root| root.chain))?;
        // Last of all: only a root that counts can ask for anything.
        if body.rules > RULES {
            return Err(ApplyError::RulesTooNew(body.rules));
        }
        let record = RootRecord {
            chain,
            federation: self.head.federation.clone(),
            keys: body.keys.clone(),
            threshold: body.threshold,
            registry: body.registry.clone(),
            witnesses: body.witnesses.clone(),
            quorum: body.quorum,
        };
        Ok((vec![put(keys::ROOT.to_owned(), &record)], signer))
    }

    fn enrol(
        &self,
        body: &Agency,
        root: &RootRecord,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let id = self.agency_id()?;
        let signer = match id.superior() {
            None => self.signed_by_threshold(&root.keys, root.threshold)?,
            Some(superior) => {
                let superior = self.member(&superior)?;
                self.signed_by(&superior.key)?;
                within(body, &superior)?;
                superior.key
            }
        };
        if find::<AgencyRecord, L>(self.state, &keys::agency(id))?.is_some() {
            return Err(reject(
                Blame::Inconsistent,
                format!("{id} is enrolled; an id is given once"),
            )
            .into());
        }
        let chain = self.continues(None)?;
        self.consent_of(&body.key)?;
        let owner = keys::signer(body.key.id());
        let is_root_key = root.keys.contains(&body.key);
        if is_root_key || find::<AgencyId, L>(self.state, &owner)?.is_some() {
            return Err(reject(Blame::Inconsistent, "the key is in use already").into());
        }
        let record = AgencyRecord {
            chain,
            id: id.clone(),
            name: body.name.clone(),
            level: body.level,
            territory: body.territory.clone(),
            roles: body.roles.clone(),
            key: body.key.clone(),
        };
        Ok((vec![put(keys::agency(id), &record), put(owner, id)], signer))
    }

    fn node(&self, body: &Node) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let agency = self.signing_agency()?;
        let id = &agency.id;
        if [&body.journal, &body.witness].contains(&&agency.key) {
            return Err(reject(
                Blame::Malformed,
                "journal and witness need keys of their own",
            )
            .into());
        }
        let current: Option<NodeRecord> = find(self.state, &keys::node(id))?;
        let chain = self.continues(current.as_ref().map(|record| record.chain))?;
        let mut writes = Vec::new();
        let old = current.map(|record| record.node.tls).unwrap_or_default();
        for key in old.iter().filter(|key| !body.tls.contains(key)) {
            let mut users: Vec<AgencyId> = find(self.state, &keys::tls(*key))?.unwrap_or_default();
            users.retain(|user| user != id);
            let record = (!users.is_empty()).then(|| canonical(&users));
            writes.push((keys::tls(*key), record));
        }
        for key in body.tls.iter().filter(|key| !old.contains(key)) {
            let mut users: Vec<AgencyId> = find(self.state, &keys::tls(*key))?.unwrap_or_default();
            users.push(id.clone());
            writes.push(put(keys::tls(*key), &users));
        }
        writes.push(put(
            keys::node(id),
            &NodeRecord {
                chain,
                node: body.clone(),
            },
        ));
        Ok((writes, agency.key))
    }

    fn dataset(&self, body: &Dataset) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let agency = self.signing_agency()?;
        let dataset = DatasetId {
            agency: agency.id,
            name: body.name.clone(),
        };
        let chain = self.continues(find(self.state, &keys::dataset(&dataset))?)?;
        let version = VersionId {
            dataset: dataset.clone(),
            version: chain.sequence,
        };
        let record = VersionRecord {
            chain,
            time: self.head.time,
            dataset: body.clone(),
        };
        let writes = vec![
            put(keys::dataset(&dataset), &chain),
            put(keys::version(&version), &record),
        ];
        Ok((writes, agency.key))
    }

    fn schema(&self, body: &Schema) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let agency = self.signing_agency()?;
        if !agency.roles.contains(&Role::Standards) {
            let reason = format!(
                "{} has not the standards role, which the root grants",
                agency.id
            );
            return Err(reject(Blame::Unauthorised, reason).into());
        }
        let id = DatasetId {
            agency: agency.id,
            name: body.name.clone(),
        };
        let current: Option<SchemaRecord> = find(self.state, &keys::schema(&id))?;
        let chain = self.continues(current.map(|record| record.chain))?;
        let record = SchemaRecord {
            chain,
            schema: body.clone(),
        };
        Ok((vec![put(keys::schema(&id), &record)], agency.key))
    }

    fn agency_id(&self) -> Result<&AgencyId, Rejection> {
        self.statement
            .agency()
            .map_err(|error| reject(Blame::Malformed, error.to_string()))
    }

    fn member(&self, id: &AgencyId) -> Result<AgencyRecord, ApplyError<L::Error>> {
        find(self.state, &keys::agency(id))?
            .ok_or_else(|| reject(Blame::Unauthorised, format!("{id} is not enrolled")).into())
    }

    /// The agency that the statement is about, once its own signature is seen to hold.
    fn signing_agency(&self) -> Result<AgencyRecord, ApplyError<L::Error>> {
        let agency = self.member(self.agency_id()?)?;
        self.signed_by(&agency.key)?;
        Ok(agency)
    }

    fn signed_by(&self, key: &PublicKey) -> Result<(), Rejection> {
        if self.envelope.key() != key.id() {
            let reason = format!(
                "it is signed with key {}, and {} must sign it",
                self.envelope.key(),
                key.id()
            );
            return Err(reject(Blame::Unauthorised, reason));
        }
        self.envelope
            .verify(key)
            .map_err(|_| reject(Blame::Forged, "the signature does not match"))
    }

    /// The outer signer is one of `keys`; with the consents, `threshold` different ones agree.
    fn signed_by_threshold(
        &self,
        keys: &[PublicKey],
        threshold: u64,
    ) -> Result<PublicKey, Rejection> {
        let proposal = self.statement.proposal().payload();
        let mut agreed = 0;
        let mut outer = None;
        for key in keys {
            if self.envelope.key() == key.id() {
                self.signed_by(key)?;
                outer = Some(key.clone());
                agreed += 1;
            } else if self.consents_from(key, &proposal)? {
                agreed += 1;
            }
        }
        let signer =
            outer.ok_or_else(|| reject(Blame::Unauthorised, "the signer is not a root key"))?;
        if agreed < threshold {
            let reason = format!("{agreed} root keys signed, and {threshold} must");
            return Err(reject(Blame::Unauthorised, reason));
        }
        Ok(signer)
    }

    fn consent_of(&self, key: &PublicKey) -> Result<(), Rejection> {
        if !self.consents_from(key, &self.statement.proposal().payload())? {
            return Err(reject(
                Blame::Unauthorised,
                "the agency's own signature (proof of possession) is missing",
            ));
        }
        Ok(())
    }

    /// Whether a consent by `key` is there; a broken one is a forgery, not an absence.
    fn consents_from(&self, key: &PublicKey, proposal: &[u8]) -> Result<bool, Rejection> {
        let id = key.id();
        let Some(consent) = self
            .statement
            .consents()
            .iter()
            .find(|consent| consent.key() == id)
        else {
            return Ok(false);
        };
        if consent.payload() != proposal {
            return Err(reject(
                Blame::Inconsistent,
                "a consent was given to another statement",
            ));
        }
        consent
            .verify(key)
            .map_err(|_| reject(Blame::Forged, "the signature of a consent does not match"))?;
        Ok(true)
    }

    /// The link that this statement adds to its chain, whose newest link is `current`.
    fn continues(&self, current: Option<Chain>) -> Result<Chain, Rejection> {
        let expected = current.map_or(1, |chain| chain.sequence + 1);
        let previous = current.map(|chain| chain.payload);
        if self.head.sequence != expected || self.head.previous != previous {
            let reason = format!(
                "{} continues at sequence {expected}{}, and this is sequence {}",
                self.statement.chain(),
                previous.map_or_else(String::new, |digest| format!(" after {digest}")),
                self.head.sequence,
            );
            return Err(reject(Blame::Stale, reason));
        }
        Ok(Chain {
            sequence: expected,
            payload: self.envelope.payload_digest(),
            index: self.index,
        })
    }
}

/// A child's level, territory and roles lie within its superior's.
fn within(child: &Agency, superior: &AgencyRecord) -> Result<(), Rejection> {
    let refuse = |reason: String| Err(reject(Blame::Unauthorised, reason));
    if child.level < superior.level {
        return refuse(format!(
            "level {} is above that of {} ({})",
            child.level, superior.id, superior.level
        ));
    }
    if !child.territory.lies_within(&superior.territory) {
        return refuse(format!(
            "{} does not lie within {} of {}",
            child.territory, superior.territory, superior.id
        ));
    }
    // Only the root grants roles so far, and standards always.
    if !child.roles.is_empty() {
        return refuse("only the root grants the standards role".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
