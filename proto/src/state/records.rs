//! The records that the state holds, and the keys under which it holds them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgencyId, FederationId};
use crate::key::PublicKey;
use crate::statement::{Dataset, Node, RegistryKeys, Role, Schema, Territory, Witness};
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
}

/// An agency as enrolled.
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
    /// Its signing key.
    pub key: PublicKey,
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

    /// An agency.
    pub fn agency(id: &AgencyId) -> String {
        format!("agency/{id}")
    }

    /// The owner of a signing key.
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

/// Reads a record that an earlier change wrote.
///
/// A record that cannot be read is as good as none: the store is rebuilt from the log.
pub fn record<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
