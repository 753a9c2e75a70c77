//! A file that has no name of its own until it is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::{Created, Disk, Operation, parent};

/// A temporary file to write to. [`StagedFile::finish_as`] gives it its name durably; dropped
/// before that, it is removed.
pub struct StagedFile {
    file: File,
    name: Temporary,
}

/// A complete file under its temporary name, as durable as it was made; dropped, it is removed.
pub struct Temporary {
    disk: Disk,
    path: PathBuf,
    /// Whether the temporary name is still to be removed.
    named: bool,
}

impl StagedFile {
    pub(super) fn new(disk: Disk, dir: &Path) -> io::Result<StagedFile> {
        let path = disk.temporary(dir);
        let creating = disk.creating.clone();
        let turn = creating.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = disk.step(Operation::Create, &path, || {
            disk.options().create_new(true).open(&path)
        });
        drop(turn);
        // A doubtful failure may have created it.
        let name = Temporary {
            disk,
            path,
            named: true,
        };
        opened.map(|file| StagedFile { file, name })
    }

    /// The temporary file, for readers that check it before it gets its name.
    pub fn path(&self) -> &Path {
        &self.name.path
    }

    /// Gives the file the name `path`, durably, unless that name is taken; `path` must be in
    /// the same file system. After an error the name may or may not stand there: read it back.
    pub fn finish_as(self, path: &Path) -> io::Result<Created> {
        let mut name = self.synced()?;
        let linked = name
            .disk
            .step(Operation::Link, path, || fs::hard_link(&name.path, path));
        let created = match linked {
            Ok(()) => Created::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Created::Existed,
            Err(error) => return Err(error),
        };
        // Also for a name that existed: whoever linked it may have died before this sync.
        name.disk.sync_directory(parent(path))?;
        name.discard();
        Ok(created)
    }

    /// The file, its content durable.
    pub(super) fn synced(self) -> io::Result<Temporary> {
        let StagedFile { file, name } = self;
        name.disk
            .step(Operation::Sync, &name.path, || file.sync_all())?;
        Ok(name)
    }

    /// The file, its content as durable as it happens to be.
    pub(super) fn unsynced(self) -> Temporary {
        self.name
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Temporary { disk, path, .. } = &self.name;
        disk.write_to(&mut self.file, path, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Temporary {
    /// Gives the file the name `path` in place of whatever has it. The name is not durable yet.
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

impl Drop for Temporary {
    fn drop(&mut self) {
        self.discard();
    }
}
