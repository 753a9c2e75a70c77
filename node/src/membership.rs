//! Joining a federation: its root is pinned once and everything else follows from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jingwei_proto::digest::Digest;
use jingwei_proto::id::FederationId;
use jingwei_registry::clock::Clock;
use jingwei_registry::disk::{Created, Disk};
use jingwei_registry::replica::{Replica, ReplicaError};
use jingwei_registry::source::{Source, SourceError};
use serde::{Deserialize, Serialize};

use crate::home::Home;

/// Which federation a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Membership {
    /// The federation.
    pub federation: FederationId,
    /// The digest of its first root document, as compared with its fingerprint.
    pub root: Digest,
    /// The registry's address, `http://host:port`.
    pub registry: String,
    /// The name that the registry's log had when the node joined.
    pub origin: String,
}

/// Joining failed, or the node has not joined.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It has not joined.
    #[error(
        "the node in {0} has joined no federation yet: ‘jingwei join http://HOST:PORT --root FINGERPRINT --dir {0}’"
    )]
    NotJoined(PathBuf),
    /// It has joined another.
    #[error("the node in {dir} belongs to {federation} already; a node belongs to one federation")]
    Other {
        /// The node's directory.
        dir: PathBuf,
        /// Its federation.
        federation: FederationId,
    },
    /// The address is none.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The registry cannot be read, or its root is another.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Membership {
    /// The membership of the node in `home`.
    pub fn load(home: &Home) -> Result<Membership, MembershipError> {
        let path = home.federation();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| MembershipError::File {
                path,
                reason: error.to_string(),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(MembershipError::NotJoined(home.dir().to_owned()))
            }
            Err(error) => Err(MembershipError::File {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Joins the federation whose registry is at `address` and whose first root has the digest
    /// `root`: reads the log once, verifies all of it, and pins the root.
    pub async fn join(
        home: &Home,
        address: &str,
        root: Digest,
        clock: &Clock,
        disk: &Disk,
    ) -> Result<Membership, MembershipError> {
        let candidate = Candidate::read(home, address, root, clock, disk).await?;
        Ok(candidate.join(home, disk)?.0)
    }

    /// Follows the registry that `source` names from now on.
    pub fn follow(home: &Home, source: &Source, disk: &Disk) -> Result<(), MembershipError> {
        let mut membership = Membership::load(home)?;
        membership.registry = source.to_string();
        let path = home.federation();
        let written = membership.to_bytes().and_then(|bytes| {
            let replaced = disk.replace(&path, &bytes);
            replaced.map_err(|error| error.to_string())
        });
        written.map_err(|reason| MembershipError::File { path, reason })
    }

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| error.to_string())?;
        text.push(b'\n');
        Ok(text)
    }

    fn store(&self, home: &Home, disk: &Disk) -> Result<(), MembershipError> {
        let path = home.federation();
        let failed = |reason: String| MembershipError::File {
            path: path.clone(),
            reason,
        };
        let text = self.to_bytes().map_err(failed)?;
        match disk.create_if_absent(&path, &text) {
            Ok(Created::New) => Ok(()),
            Ok(Created::Existed) => Err(failed("another process joined at the same time".into())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// A federation whose log has been read and verified, before the node belongs to it.
pub struct Candidate {
    membership: Membership,
    replica: Arc<Replica>,
    /// Whether the node belongs to it already.
    joined: bool,
    /// Whether the replica was not there before.
    fresh: bool,
}

impl Candidate {
    /// Reads the log at `address` as [`Membership::join`] does; where the node belongs to that
    /// federation already, the replica stays as it is.
    pub async fn read(
        home: &Home,
        address: &str,
        root: Digest,
        clock: &Clock,
        disk: &Disk,
    ) -> Result<Candidate, MembershipError> {
        let source = Source::new(address)?;
        match Membership::load(home) {
            Ok(membership) if membership.root == root => {
                let replica =
                    Replica::open(&home.replica(), &membership.origin, root, disk.clone())?;
                // What is judged by it should be new; without the registry it is what is here.
                if let Err(error) = replica.advance(&source, Duration::ZERO, clock).await {
                    tracing::warn!(%error, "the log is not newer than it was here");
                }
                return Ok(Candidate {
                    membership,
                    replica,
                    joined: true,
                    fresh: false,
                });
            }
            Ok(membership) => {
                return Err(MembershipError::Other {
                    dir: home.dir().to_owned(),
                    federation: membership.federation,
                });
            }
            Err(MembershipError::NotJoined(_)) => {}
            Err(error) => return Err(error),
        }
        let note = source.checkpoint(0, Duration::ZERO).await?;
        // The log's name is taken from the registry's word here and checked below: the root
        // document, whose digest is pinned, names it too.
        let origin = note.lines().next().unwrap_or_default().to_owned();
        let fresh = !home.replica().exists();
        let replica = Replica::open(&home.replica(), &origin, root, disk.clone())?;
        replica.advance(&source, Duration::ZERO, clock).await?;
        let record = replica.index().root().map_err(ReplicaError::from)?;
        let path = home.federation();
        let Some(record) = record.filter(|record| record.registry.origin == origin) else {
            return Err(MembershipError::File {
                path,
                reason: "the registry's root names another log".into(),
            });
        };
        let membership = Membership {
            federation: record.federation,
            root,
            registry: source.to_string(),
            origin,
        };
        Ok(Candidate {
            membership,
            replica,
            joined: false,
            fresh,
        })
    }

    /// The federation's log.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Makes the node a member.
    pub fn join(
        self,
        home: &Home,
        disk: &Disk,
    ) -> Result<(Membership, Arc<Replica>), MembershipError> {
        if !self.joined {
            self.membership.store(home, disk)?;
        }
        Ok((self.membership, self.replica))
    }

    /// Leaves nothing behind: the node does not join. A replica that was there before stays, since
    /// alarms may stand in it.
    pub fn give_up(self, home: &Home) {
        drop(self.replica);
        if self.fresh {
            // A copy of a public log: where it cannot be removed, the next attempt takes it up.
            let _ = std::fs::remove_dir_all(home.replica());
        }
    }
}
