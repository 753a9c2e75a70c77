//! A look at a federation by a program that follows no registry: the whole log, verified in a
//! directory of its own that goes away with it.
//!
//! What root keys sign rests on what the log says. Its keepers need not believe the registry for
//! that, and may sit at another machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jingwei_proto::digest::Digest;
use jingwei_proto::state::RootRecord;

use crate::clock;
use crate::disk::Disk;
use crate::fault::{Blame, Fault};
use crate::index::Index;
use crate::keyfile;
use crate::log::LogReader;
use crate::registry::{OpenError, Paths, first_root};
use crate::replica::{Replica, ReplicaError};
use crate::source::Source;

/// The state of a federation at one time.
pub struct View {
    replica: Arc<Replica>,
    _dir: Temporary,
}

impl View {
    /// Reads and verifies the log of the registry at `address` (`host:port`), whose directory is
    /// at hand and says which root and log are meant.
    pub async fn of_registry(paths: &Paths, address: &str) -> Result<View, Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::new(Blame::Internal, error.to_string());
        let (root, origin) = first_root(paths).map_err(|error| match error {
            OpenError::Missing(_) => Fault::new(Blame::WrongUse, error.to_string())
                .advise("name the registry's directory with --dir"),
            error => failed(&error),
        })?;
        View::open(&format!("http://{address}"), &origin, root).await
    }

    /// Reads and verifies the log `origin` at `registry`, of the federation with this first root.
    pub async fn open(registry: &str, origin: &str, root: Digest) -> Result<View, Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::new(Blame::Internal, error.to_string());
        let dir = Temporary::create().map_err(|error| failed(&error))?;
        let source = Source::new(registry)
            .map_err(|error| Fault::new(Blame::WrongUse, error.to_string()))?;
        let replica = Replica::open(&dir.0, origin, root, Disk::new().private())
            .map_err(|error| failed(&error))?;
        let clock = clock::system();
        let read = replica.advance(&source, Duration::ZERO, &clock);
        read.await.map_err(|error| match error {
            ReplicaError::Source(error) => {
                Fault::new(Blame::Unavailable, error.to_string()).advise(error.advice())
            }
            ReplicaError::Misbehaviour(error) => {
                Fault::new(Blame::Unverified, format!("{registry}: {error}")).advise(
                    "if another registry answers there, name the address of the one in --dir with --registry",
                )
            }
            error => failed(&error),
        })?;
        Ok(View { replica, _dir: dir })
    }

    /// What the log says.
    pub fn index(&self) -> &Index {
        self.replica.index()
    }

    /// The log itself.
    pub fn log(&self) -> &LogReader {
        self.replica.log()
    }

    /// The checkpoint that was verified, as the signed note.
    pub fn checkpoint(&self) -> Result<String, Fault> {
        let note = self.replica.log().checkpoint_note();
        note.map_err(|error| Fault::new(Blame::Internal, error.to_string()))
    }

    /// The root in force.
    pub fn root(&self) -> Result<RootRecord, Fault> {
        let root = self.index().root();
        root.ok()
            .flatten()
            .ok_or_else(|| Fault::new(Blame::Internal, "the log has no root document"))
    }
}

struct Temporary(PathBuf);

impl Temporary {
    fn create() -> Result<Temporary, keyfile::KeyFileError> {
        let name = format!("jingwei-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        keyfile::create_private_dir(&path)?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is only space, in a directory made for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
