//! The registry's own keys, as they lie in its directory: those of the first root in `keys/`, and
//! what a later root brings in anew in `keys/N/`, where `N` is its version.
//!
//! A root document is admitted only when its keys are here, so a change of keys needs no restart,
//! and no root can leave a registry unable to sign.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jingwei_proto::key::{KeyId, PublicKey, SecretKey, Signer};
use jingwei_proto::statement::RegistryKeys;

use crate::keyfile::{self, KeyFileError, TlsIdentity};
use crate::registry::Paths;
use crate::sequencer::{KeyRing, LogKeys};
use crate::tls::Identity;

/// The keys in a registry's directory.
pub struct Ring {
    keys: PathBuf,
    presented: Option<Arc<Identity>>,
}

impl Ring {
    /// Of the registry whose paths are given.
    pub fn new(paths: &Paths) -> Ring {
        Ring {
            keys: paths.keys(),
            presented: None,
        }
    }

    /// The same, for a registry that is served under an identity.
    pub fn presenting(self, identity: Arc<Identity>) -> Ring {
        Ring {
            presented: Some(identity),
            ..self
        }
    }

    /// The keys that sign checkpoints under `root`.
    pub fn find(&self, root: &RegistryKeys) -> Result<LogKeys, String> {
        Ok(LogKeys {
            origin: root.origin.clone(),
            log: self.key("log.pem", &root.log)?,
            cosigner: self.key("cosigner.pem", &root.cosigner)?,
        })
    }

    /// The TLS identity with the given key.
    pub fn identity(&self, id: KeyId) -> Result<TlsIdentity, String> {
        let identities = self.dirs().into_iter().map(|dir| TlsIdentity::load(&dir));
        let found = first(identities, |identity| identity.id == id);
        found.map_err(|unread| unread.unwrap_or_else(|| self.missing("TLS identity", id)))
    }

    fn key(&self, name: &str, public: &PublicKey) -> Result<SecretKey, String> {
        let files = self.dirs().into_iter().map(|dir| dir.join(name));
        let keys = files.map(|file| keyfile::load(&file));
        let found = first(keys, |key| key.public() == public);
        found.map_err(|unread| unread.unwrap_or_else(|| self.missing(name, public.id())))
    }

    /// `keys/` and what lies below it.
    fn dirs(&self) -> Vec<PathBuf> {
        let below = std::fs::read_dir(&self.keys).into_iter().flatten();
        let below = below.filter_map(|entry| Some(entry.ok()?.path()));
        let mut dirs: Vec<PathBuf> = below.filter(|path| path.is_dir()).collect();
        dirs.push(self.keys.clone());
        dirs
    }

    fn missing(&self, what: &str, id: KeyId) -> String {
        format!(
            "no {what} with the key {id} lies in {}",
            self.keys.display()
        )
    }
}

impl KeyRing for Ring {
    fn keys_of(&self, root: &RegistryKeys) -> Result<LogKeys, String> {
        self.identity(root.tls)?;
        self.find(root)
    }

    fn in_force(&self, root: &RegistryKeys) {
        let Some(presented) = &self.presented else {
            return;
        };
        let changed = self.identity(root.tls).and_then(|identity| {
            presented
                .replace(&identity)
                .map_err(|error| error.to_string())
        });
        if let Err(error) = changed {
            tracing::error!(%error, "the TLS key that the root names cannot be used");
        }
    }
}

/// The first of the files that is the one wanted; otherwise why one that is there was not read.
fn first<T>(
    files: impl Iterator<Item = Result<T, KeyFileError>>,
    wanted: impl Fn(&T) -> bool,
) -> Result<T, Option<String>> {
    let mut unread = None;
    for file in files {
        match file {
            Ok(found) if wanted(&found) => return Ok(found),
            Ok(_) => {}
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unread = Some(error.to_string()),
        }
    }
    Err(unread)
}
