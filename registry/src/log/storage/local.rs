//! A log's files in a directory of this machine.
//!
//! The staged batch is one file, overwritten in place: the cheapest durable write there is. The
//! directory's lock keeps a second writer from overwriting a batch that is committed and not yet
//! in the tiles; on a file system that ignores locks the log is not safe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;

use super::{Begun, File, Storage};
use crate::disk::{Created, DirLock, Disk};
use crate::log::LogError;

const STAGED: &str = "staged";

/// A directory of the local file system.
pub struct Local {
    dir: PathBuf,
    disk: Disk,
}

impl Local {
    /// For reading, while somebody else may be writing.
    pub fn reader(dir: &Path) -> Local {
        Local {
            dir: dir.to_owned(),
            disk: Disk::new(),
        }
    }

    /// For the one writer, with the lock that makes it the one; creates the directory if it is not
    /// there.
    pub fn writer(dir: &Path, disk: Disk) -> Result<(Local, DirLock), LogError> {
        let commits = dir.join("commit");
        let failed = |source| LogError::Io {
            path: dir.to_owned(),
            source,
        };
        disk.create_dir_all(&commits).map_err(failed)?;
        let lock = DirLock::acquire(dir)?;
        disk.clean(dir)
            .and_then(|()| disk.clean(&commits))
            // What was named just before a crash may not be durable yet, and is about to count: a
            // record, or the staging.
            .and_then(|()| disk.sync_directory(&commits))
            .and_then(|()| disk.sync_directory(dir))
            .map_err(failed)?;
        let local = Local {
            dir: dir.to_owned(),
            disk,
        };
        Ok((local, lock))
    }
}

impl Storage for Local {
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created> {
        self.disk.create_if_absent(&self.place(name), bytes)
    }

    fn put(&self, files: &[File], begun: Begun) -> io::Result<()> {
        let Begun(mut written) = begun;
        if written.len() != files.len() {
            written = self
                .disk
                .each(files, |(_, bytes)| self.disk.write(&self.dir, bytes))?;
        }
        let mut named = Vec::with_capacity(files.len());
        for ((name, _), file) in files.iter().zip(written) {
            let path = self.place(name);
            self.disk.create_dir_all(path.parent().unwrap_or(&path))?;
            named.push((file, path));
        }
        self.disk.name(named)
    }

    fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8], lasting: bool) -> io::Result<()> {
        let found = self.get(name)?;
        if found.as_deref() != old && found.as_deref() != Some(new) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let path = self.place(name);
        if lasting {
            self.disk.replace(&path, new)
        } else {
            self.disk.replace_unsynced(&path, new)
        }
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.place(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.place(dir)) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.place(name);
        match self.disk.remove(&path) {
            Err(error) if absent(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                // The directory of a tile's partial forms goes with the last of them.
                if let Some(dir) = path.parent().filter(|dir| dir.extension().is_some()) {
                    let _ = fs::remove_dir(dir);
                }
                Ok(())
            }
        }
    }

    fn stage(&self, _: u64, _: &Digest, bytes: &[u8], files: &[File]) -> io::Result<Begun> {
        let staging = std::iter::once(None);
        let jobs: Vec<Option<&File>> = staging.chain(files.iter().map(Some)).collect();
        let done = self.disk.each(&jobs, |job| match job {
            None => self
                .disk
                .overwrite(&self.dir.join(STAGED), bytes)
                .map(|()| None),
            Some((_, bytes)) => self.disk.write(&self.dir, bytes).map(Some),
        })?;
        Ok(Begun(done.into_iter().flatten().collect()))
    }

    fn staged(&self, _: u64, _: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.get(STAGED)
    }

    fn unstage(&self, _: u64, _: &Digest) {
        // Emptied, not removed: the next batch need not make its name durable again. What stays
        // is written again by the next open, to no effect.
        let _ = fs::File::create(self.dir.join(STAGED));
    }

    fn clean(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn place(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.dir.clone()
        } else {
            self.dir.join(name)
        }
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Local").field(&self.dir).finish()
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
