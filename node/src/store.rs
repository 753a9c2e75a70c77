//! The dataset store: immutable Parquet files named by their SHA-256.
//!
//! A file is linked under its digest once it is complete, so whatever stands there under a
//! well-formed name is whole. It is never written again. Before the first use in the life of a
//! process its bytes are hashed, because disks rot and people restore the wrong backup.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use jingwei_proto::digest::Digest;
use jingwei_registry::disk::Disk;

use crate::ingest::Written;

/// The data files of one node.
pub struct DatasetStore {
    directory: PathBuf,
    disk: Disk,
    verified: Mutex<HashSet<Digest>>,
}

/// Why a data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such file.
    #[error("the data file {0} is not in this node's store; restore it from a backup")]
    Missing(Digest),
    /// The file's bytes are not those that its name promises.
    #[error("the data file {wanted} is damaged: its digest is {found}; restore it from a backup")]
    Damaged {
        /// The digest that is its name.
        wanted: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// The operating system refused.
    #[error("the dataset store: {0}")]
    Io(#[from] io::Error),
}

impl DatasetStore {
    /// Opens the store in `directory`, which is made if it is not there.
    pub fn open(directory: &Path, disk: Disk) -> Result<DatasetStore, StoreError> {
        disk.create_dir_all(directory)?;
        Ok(DatasetStore {
            directory: directory.to_owned(),
            disk,
            verified: Mutex::default(),
        })
    }

    /// Where the file with this digest stands, or would stand.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{digest}{EXTENSION}"))
    }

    /// Whether there is such a file; says nothing about its content.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Keeps a file, durably. The same file again changes nothing.
    ///
    /// # Errors
    /// The disk refused. Then the file may stand there, whole, without being durable: put it
    /// again.
    pub fn put(&self, written: Written) -> Result<Digest, StoreError> {
        let path = self.path(&written.digest);
        let stood = path.exists();
        if let Err(error) = written.file.finish_as(&path) {
            if !stood {
                // It is of no use yet. If this fails too, a whole but unused file is left.
                let _ = self.disk.remove(&path);
            }
            return Err(error.into());
        }
        Ok(written.digest)
    }

    /// Whether the file was found to be what its name promises, and still stands there.
    pub fn is_verified(&self, digest: &Digest) -> bool {
        self.known().contains(digest) && self.path(digest).is_file()
    }

    /// The path of a file whose bytes are what its name promises. Hashes them the first time.
    pub fn verified(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let path = self.path(digest);
        if self.is_verified(digest) {
            return Ok(path);
        }
        let found = match File::open(&path).and_then(Digest::of_reader) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(*digest));
            }
            found => found?,
        };
        if found != *digest {
            return Err(StoreError::Damaged {
                wanted: *digest,
                found,
            });
        }
        self.known().insert(*digest);
        Ok(path)
    }

    /// The digests of all files, in their order.
    pub fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(EXTENSION));
            digests.extend(name.and_then(|name| name.parse::<Digest>().ok()));
        }
        digests.sort();
        Ok(digests)
    }

    /// Removes a file that no version names: one of a publication that never was entered.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        self.known().remove(digest);
        Ok(self.disk.remove(&self.path(digest))?)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Digest>> {
        // A set of digests is whole after every operation, whatever panicked around it.
        self.verified
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

const EXTENSION: &str = ".parquet";

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &Path) -> DatasetStore {
        DatasetStore::open(&directory.join("data"), Disk::new()).unwrap()
    }

    fn put(store: &DatasetStore, bytes: &[u8]) -> Digest {
        use std::io::Write;
        let mut file = Disk::new().stage(&store.directory).unwrap();
        file.write_all(bytes).unwrap();
        let digest = Digest::of(bytes);
        let written = Written {
            digest,
            bytes: bytes.len() as u64,
            rows: 0,
            file,
        };
        store.put(written).unwrap()
    }

    #[test]
    fn files_are_kept_under_their_digest() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let digest = put(&store, b"one");
        assert_eq!(put(&store, b"one"), digest);
        fs::write(store.directory.join("notes.txt"), "").unwrap();
        assert_eq!(store.list().unwrap(), [digest]);
        assert_eq!(fs::read(store.verified(&digest).unwrap()).unwrap(), b"one");
        store.remove(&digest).unwrap();
        assert!(!store.contains(&digest));
        assert!(matches!(
            store.verified(&digest),
            Err(StoreError::Missing(_))
        ));
    }

    #[test]
    fn damage_is_found_when_a_process_first_uses_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let first = store(directory.path());
        let digest = put(&first, b"one");
        fs::write(first.path(&digest), "two").unwrap();
        assert!(matches!(
            first.verified(&digest),
            Err(StoreError::Damaged { .. })
        ));
        fs::write(first.path(&digest), "one").unwrap();
        first.verified(&digest).unwrap();
        assert!(store(directory.path()).verified(&digest).is_ok());
    }
}
