//! A file that has no name of its own until it is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Created, Disk, Operation, parent};

/// A temporary file to write to. [`StagedFile::finish_as`] gives it its name durably; dropped
/// before that, it is removed.
pub struct StagedFile {
    disk: Disk,
    path: PathBuf,
    file: File,
    /// Whether the temporary name is still to be removed.
    named: bool,
}

impl StagedFile {
    pub(super) fn new(disk: Disk, dir: &Path) -> io::Result<StagedFile> {
        let path = disk.temporary(dir);
        let opened = disk.step(Operation::Create, &path, || {
            disk.options().create_new(true).open(&path)
        });
        match opened {
            Ok(file) => Ok(StagedFile {
                disk,
                path,
                file,
                named: true,
            }),
            Err(error) => {
                // A doubtful failure may have created it.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// The temporary file, for readers that check it before it gets its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file the name `path`, durably, unless that name is taken; `path` must be in
    /// the same file system. After an error the name may or may not stand there: read it back.
    pub fn finish_as(mut self, path: &Path) -> io::Result<Created> {
        self.sync()?;
        let linked = self
            .disk
            .step(Operation::Link, path, || fs::hard_link(&self.path, path));
        let created = match linked {
            Ok(()) => Created::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Created::Existed,
            Err(error) => return Err(error),
        };
        // Also for a name that existed: whoever linked it may have died before this sync.
        self.disk.sync_directory(parent(path))?;
        self.discard();
        Ok(created)
    }

    /// Makes the content durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk
            .step(Operation::Sync, &self.path, || self.file.sync_all())
    }

    /// Gives the file the name `path` in place of whatever has it. Content and name are as durable
    /// as they were synced.
    pub(super) fn rename_to(mut self, path: &Path) -> io::Result<()> {
        self.disk
            .step(Operation::Rename, path, || fs::rename(&self.path, path))?;
        self.named = false;
        Ok(())
    }

    /// Removes the temporary name. A failure leaves a file that [`Disk::clean`] removes.
    fn discard(&mut self) {
        if std::mem::take(&mut self.named) {
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(&mut self.file, &self.path, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        self.discard();
    }
}
