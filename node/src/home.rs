//! A node's directory: what stands where.
//!
//! ```text
//! DIR/node.toml                      configuration
//! DIR/keys/                          TLS identity, and the secret that salts what is local
//! DIR/agencies/<id>/                 keys and profile of each agency that the node hosts
//! DIR/federation.json                which federation, pinned by its root
//! DIR/replica/                       verified replica of the registry's log, and its index
//! DIR/witness/                       the newest checkpoint that it has co-signed of each log
//! DIR/data/<sha256>.parquet          published data, immutable
//! DIR/publications/<id>/<name>.json  what was published from what, and what is under way
//! DIR/journal/<id>/<year>/           records of exchanges
//! DIR/staging/                       uploads and answers in progress; emptied at start
//! DIR/node.sock                      where the command line reaches the node
//! ```

use std::path::{Path, PathBuf};

use jingwei_proto::id::{AgencyId, DatasetName};

/// The layout of a node's directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// Of the node in `dir`.
    pub fn new(dir: &Path) -> Home {
        Home(dir.to_owned())
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    pub fn settings(&self) -> PathBuf {
        self.0.join("node.toml")
    }

    /// The node's own keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The secret that salts what never leaves the node.
    pub fn secret(&self) -> PathBuf {
        self.keys().join("secret")
    }

    /// The hosted agencies.
    pub fn agencies(&self) -> PathBuf {
        self.0.join("agencies")
    }

    /// One hosted agency.
    pub fn agency(&self, id: &AgencyId) -> PathBuf {
        self.agencies().join(id.as_str())
    }

    /// The proposal that a hosted agency's superior must agree to.
    pub fn enrolment(&self, id: &AgencyId) -> PathBuf {
        self.0.join(format!("{id}.enrolment"))
    }

    /// Which federation the node belongs to.
    pub fn federation(&self) -> PathBuf {
        self.0.join("federation.json")
    }

    /// The replica of the registry's log.
    pub fn replica(&self) -> PathBuf {
        self.0.join("replica")
    }

    /// What the node has co-signed as a witness.
    pub fn witness(&self) -> PathBuf {
        self.0.join("witness")
    }

    /// Published data.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// What is known of the publications of one dataset.
    pub fn publication(&self, agency: &AgencyId, name: &DatasetName) -> PathBuf {
        self.publications()
            .join(agency.as_str())
            .join(format!("{name}.json"))
    }

    /// What is known of all publications.
    pub fn publications(&self) -> PathBuf {
        self.0.join("publications")
    }

    /// Journals.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// Files that do not outlive the process.
    pub fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    /// The socket for the command line.
    pub fn socket(&self) -> PathBuf {
        self.0.join("node.sock")
    }
}
