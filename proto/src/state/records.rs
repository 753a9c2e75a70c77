//! The records that the state holds, and the keys under which it holds them.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgencyId, FederationId};
use crate::key::PublicKey;
use crate::statement::{Dataset, Head, Node, RegistryKeys, Role, Root, Schema, Territory, Witness};
use crate::time::Time;

/// The newest link of a chain of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its sequence.
    pub sequence: u64,
    /// The digest of its payload.
    pub payload: Digest,
    /// Its index in the log.
    pub index: u64,
}

/// The root document in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootRecord {
    /// Its place in the log.
    pub chain: Chain,
    /// The federation.
    pub federation: FederationId,
    /// The root keys.
    pub keys: Vec<PublicKey>,
    /// How many must sign.
    pub threshold: u64,
    /// The registry it trusts.
    pub registry: RegistryKeys,
    /// Witnesses of the log.
    pub witnesses: Vec<Witness>,
    /// How many must co-sign.
    pub quorum: u64,
    /// The rules that hold from this entry on.
    pub rules: u64,
    /// Seconds of log time between a recovery and its effect.
    pub recovery_delay: u64,
}

impl RootRecord {
    /// The record of a root document at its place in the log.
    pub fn of(head: &Head, body: &Root, chain: Chain) -> RootRecord {
        RootRecord {
            chain,
            federation: head.federation.clone(),
            keys: body.keys.clone(),
            threshold: body.threshold,
            registry: body.registry.clone(),
            witnesses: body.witnesses.clone(),
            quorum: body.quorum,
            rules: body.rules,
            recovery_delay: body.recovery_delay,
        }
    }
}

/// An agency as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgencyRecord {
    /// Its place in the log.
    pub chain: Chain,
    /// Its id.
    pub id: AgencyId,
    /// Its name for people.
    pub name: String,
    /// 1 national to 5 township.
    pub level: u64,
    /// What it answers for.
    pub territory: Territory,
    /// Its roles.
    pub roles: Vec<Role>,
    /// The signing key in force.
    pub key: PublicKey,
    /// Whether it may act.
    pub status: Status,
    /// Who has its tasks since it was ended.
    pub successor: Option<AgencyId>,
    /// Its superior is replacing its key.
    pub recovery: Option<Recovery>,
    /// How many entries have made this record what it is; each stands under [`keys::change`].
    pub changes: u64,
}

impl AgencyRecord {
    /// Whether it may enter statements, ask and answer.
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }
}

/// Whether an agency may act. What it signed while it might stays valid for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It may.
    Active,
    /// Not until its superior resumes it.
    Suspended,
    /// Never again.
    Revoked,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Active => "active",
            Status::Suspended => "suspended",
            Status::Revoked => "revoked",
        })
    }
}

/// A recovery that the old key may still contest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The key that it leads to.
    pub key: PublicKey,
    /// The log time from which the new key holds; unknown until the first snapshot after it.
    pub due: Option<Time>,
}

/// A key that was ever used in the federation, and what for. No key is used for anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key.
    pub key: PublicKey,
    /// What for.
    pub purpose: Purpose,
}

/// What a key is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// An agency's statements and messages, now or formerly.
    Agency(AgencyId),
    /// Root documents.
    Root,
    /// The registry's checkpoints.
    Log,
    /// Their dates where no witness has to.
    Cosigner,
    /// Cosignatures.
    Witness,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Agency(id) => write!(f, "{id}"),
            Purpose::Root => f.write_str("the root"),
            Purpose::Log => f.write_str("the log"),
            Purpose::Cosigner => f.write_str("the log's cosigner"),
            Purpose::Witness => f.write_str("a witness"),
        }
    }
}

/// Log time: the time of the newest snapshot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct TimeRecord {
    /// The snapshot's place in the log.
    pub chain: Chain,
    /// When the registry says it was made.
    pub time: Time,
}

/// The node of an agency.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its place in the log.
    pub chain: Chain,
    /// Address and keys.
    pub node: Node,
}

/// A version of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its place in the log; its sequence is the version.
    pub chain: Chain,
    /// When the agency says it was published.
    pub time: Time,
    /// The manifest.
    pub dataset: Dataset,
}

/// A schema entered as a standard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchemaRecord {
    /// Its place in the log.
    pub chain: Chain,
    /// The schema.
    pub schema: Schema,
}

/// Keys of the state, for those who read it.
pub mod keys {
    use crate::id::{AgencyId, DatasetId, VersionId};
    use crate::key::KeyId;

    /// The root record.
    pub const ROOT: &str = "root";

    /// The `version`-th root record.
    pub fn root_version(version: u64) -> String {
        format!("root/{version}")
    }

    /// Log time.
    pub const TIME: &str = "time";

    /// The agencies whose key is being recovered.
    pub const RECOVERIES: &str = "recoveries";

    /// The log index of the `n`-th entry that changed an agency's record, counted from 1.
    pub fn change(id: &AgencyId, n: u64) -> String {
        format!("change/{id}/{n}")
    }

    /// An agency.
    pub fn agency(id: &AgencyId) -> String {
        format!("agency/{id}")
    }

    /// A key that was ever used.
    pub fn signer(key: KeyId) -> String {
        format!("key/{key}")
    }

    /// An agency's node.
    pub fn node(id: &AgencyId) -> String {
        format!("node/{id}")
    }

    /// The users of a TLS key.
    pub fn tls(key: KeyId) -> String {
        format!("tls/{key}")
    }

    /// A dataset's newest version.
    pub fn dataset(id: &DatasetId) -> String {
        format!("dataset/{id}")
    }

    /// A version.
    pub fn version(id: &VersionId) -> String {
        format!("version/{id}")
    }

    /// A schema.
    pub fn schema(id: &DatasetId) -> String {
        format!("schema/{id}")
    }
}

/// Reads a record that an earlier change wrote. One that cannot be read is never taken for an
/// absent one: whoever keeps the state makes it anew from the log.
pub fn record<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
