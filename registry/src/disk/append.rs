//! A file that only grows, and never keeps half of an append that failed.
//!
//! After an error the file is cut back: a failed write to where it began, a failed fsync to
//! the last length known to be durable. (After a failed fsync the kernel may have dropped the
//! pages and calls them clean, so that a second fsync would succeed over lost bytes; those bytes
//! have to be written anew. The page at the boundary is, by the next append.) Where the cut
//! itself fails, the file is *broken*: every later call tries the cut again before all else, so
//! that the file heals once the disk does.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{Disk, Operation, parent};

/// A file open for appending.
pub struct Appender {
    disk: Disk,
    path: PathBuf,
    file: File,
    /// Bytes that are whole appends.
    length: u64,
    /// Bytes that are durable.
    synced: u64,
    /// The file may be longer than `length`.
    broken: bool,
}

impl Appender {
    pub(super) fn open(disk: Disk, path: &Path) -> io::Result<Appender> {
        let file = disk.step(Operation::Create, path, || {
            let mut options = disk.options();
            options.write(false).append(true).create(true).open(path)
        })?;
        let length = file.metadata()?.len();
        // What a crashed writer left unsynced counts as soon as it has been read: make it so.
        disk.step(Operation::Sync, path, || file.sync_all())?;
        disk.sync_directory(parent(path))?;
        Ok(Appender {
            disk,
            path: path.to_owned(),
            file,
            length,
            synced: length,
            broken: false,
        })
    }

    /// Length of the file in bytes, as far as appends succeeded.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds `bytes` at the end; durable only after [`Appender::sync`]. On error the file is as
    /// it was before the call.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.heal()?;
        match self.disk.write_to(&mut self.file, &self.path, bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.cut(self.length);
                Err(error)
            }
        }
    }

    /// Makes all appends durable. On error those since the last sync are undone.
    pub fn sync(&mut self) -> io::Result<()> {
        self.heal()?;
        match self
            .disk
            .step(Operation::Sync, &self.path, || self.file.sync_data())
        {
            Ok(()) => {
                self.synced = self.length;
                Ok(())
            }
            Err(error) => {
                self.cut(self.synced);
                Err(error)
            }
        }
    }

    /// Drops everything after the first `length` bytes, durably: for a torn tail found at open.
    pub fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.length = length.min(self.length);
        self.broken = true;
        self.heal()?;
        self.sync()
    }

    fn heal(&mut self) -> io::Result<()> {
        if self.broken {
            let length = self.length;
            self.disk.step(Operation::Truncate, &self.path, || {
                self.file.set_len(length)
            })?;
            self.broken = false;
            self.synced = self.synced.min(length);
        }
        Ok(())
    }

    fn cut(&mut self, length: u64) {
        self.length = length;
        self.broken = true;
        // An error is reported by the next call, which tries again.
        let _ = self.heal();
    }
}
