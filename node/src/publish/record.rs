//! What a node remembers of one dataset's publications: a small file of its own.

use std::collections::BTreeMap;

use jingwei_proto::digest::{Digest, from_hex, to_hex};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, DatasetName};
use jingwei_proto::json;
use jingwei_proto::statement::{Dataset, DatasetFile, Sharing};
use jingwei_registry::fault::{Blame, Fault};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::home::Home;
use crate::node::Node;

/// The file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The newest version that is in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedVersion>,
    /// A publication under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// Withheld versions, whose manifests stand nowhere else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withheld: BTreeMap<u64, WithheldVersion>,
}

/// A version that is in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublishedVersion {
    /// Of which source, schema and options.
    pub sameness: Digest,
    /// Its number.
    pub version: u64,
    /// Its rows.
    pub rows: u64,
    /// Its place in the registry's log.
    pub index: u64,
    /// Its Parquet file.
    pub file: Digest,
    /// The file's size.
    pub bytes: u64,
}

/// A publication under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Staged {
    /// Of which source, schema and options.
    pub sameness: Digest,
    /// The salt of its Parquet file.
    #[serde(with = "hex32")]
    pub salt: [u8; 32],
    /// Its signed manifest, once the data is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
    /// Its rows.
    #[serde(default)]
    pub rows: u64,
    /// Its files.
    #[serde(default)]
    pub files: Vec<DatasetFile>,
    /// Its manifest, if the registry sees only a commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<WithheldVersion>,
}

impl Staged {
    /// A publication with a salt of its own.
    pub fn new(sameness: Digest) -> Staged {
        Staged {
            sameness,
            salt: rand::random(),
            envelope: None,
            rows: 0,
            files: Vec::new(),
            withheld: None,
        }
    }
}

/// A withheld manifest and the salt of its commitment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WithheldVersion {
    /// Opens the commitment.
    #[serde(with = "hex32")]
    pub salt: [u8; 32],
    /// What was committed to.
    pub manifest: Dataset,
}

impl WithheldVersion {
    /// With a salt of its own.
    pub fn new(manifest: Dataset) -> WithheldVersion {
        WithheldVersion {
            salt: rand::random(),
            manifest,
        }
    }

    /// What the registry sees.
    pub fn entry(&self, name: DatasetName) -> Dataset {
        Dataset {
            name,
            sharing: Sharing::Withheld,
            title: None,
            description: None,
            schema: None,
            rows: None,
            files: Vec::new(),
            source: None,
            commitment: Some(Digest::keyed(&self.salt, &json::canonical(&self.manifest))),
        }
    }
}

impl Record {
    /// The record of a dataset; empty if nothing was published yet.
    pub fn load(home: &Home, agency: &AgencyId, name: &DatasetName) -> Result<Record, Fault> {
        let path = home.publication(agency, name);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Fault::new(Blame::Internal, format!("{}: {error}", path.display()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(Fault::new(
                Blame::Internal,
                format!("{}: {error}", path.display()),
            )),
        }
    }

    /// Whether a version is signed, and not known to be entered.
    pub fn waits(&self) -> bool {
        let staged = self.staged.as_ref();
        staged.is_some_and(|staged| staged.envelope.is_some())
    }

    /// Writes the record durably.
    pub fn store(&self, node: &Node, agency: &AgencyId, name: &DatasetName) -> Result<(), Fault> {
        let path = node.home.publication(agency, name);
        let failed = |error: &dyn std::fmt::Display| {
            Fault::new(
                Blame::Internal,
                format!("cannot write {}: {error}", path.display()),
            )
            .advise("free some space and publish again; nothing is lost")
        };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(&error))?;
        if let Some(dir) = path.parent() {
            node.disk
                .create_dir_all(dir)
                .map_err(|error| failed(&error))?;
        }
        node.disk
            .replace(&path, &bytes)
            .map_err(|error| failed(&error))
    }

    /// The datasets that a node has records of.
    pub fn all(home: &Home) -> Vec<(AgencyId, DatasetName)> {
        let list = |dir: &std::path::Path| -> Vec<std::path::PathBuf> {
            let entries = std::fs::read_dir(dir).into_iter().flatten();
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect()
        };
        let mut found = Vec::new();
        for dir in list(&home.publications()) {
            let agency = dir
                .file_name()
                .and_then(|name| name.to_str()?.parse::<AgencyId>().ok());
            for file in list(&dir) {
                let name = file.file_name().and_then(|name| {
                    name.to_str()?
                        .strip_suffix(".json")?
                        .parse::<DatasetName>()
                        .ok()
                });
                found.extend(agency.clone().zip(name));
            }
        }
        found
    }
}

/// 32 bytes as hexadecimal digits.
mod hex32 {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
    }
}
