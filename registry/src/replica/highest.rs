//! The highest checkpoint ever verified, in a small file of its own: the signed note as it came,
//! so that it can be held against a registry that says otherwise later.

use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::note::Note;

use super::ReplicaError;
use crate::disk::Disk;

/// The file, and what it holds.
pub(super) struct Highest {
    path: PathBuf,
    disk: Disk,
    held: Option<(Checkpoint, String)>,
}

impl Highest {
    /// Reads the file; one that is not there yet is empty.
    pub fn open(path: &Path, disk: Disk) -> Result<Highest, ReplicaError> {
        let mut highest = Highest {
            path: path.to_owned(),
            disk,
            held: None,
        };
        match std::fs::read_to_string(path) {
            Ok(note) => {
                let checkpoint = read(&note).ok_or_else(|| {
                    let reason = "it does not hold a signed checkpoint";
                    highest.failed(io::Error::new(io::ErrorKind::InvalidData, reason))
                })?;
                highest.held = Some((checkpoint, note));
                Ok(highest)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(highest),
            Err(error) => Err(highest.failed(error)),
        }
    }

    /// The checkpoint and its note.
    pub fn checkpoint(&self) -> Option<(&Checkpoint, &str)> {
        let (checkpoint, note) = self.held.as_ref()?;
        Some((checkpoint, note))
    }

    /// Keeps a checkpoint that was verified, durably.
    pub fn keep(&mut self, checkpoint: &Checkpoint, note: &str) -> Result<(), ReplicaError> {
        self.disk
            .replace(&self.path, note.as_bytes())
            .map_err(|error| self.failed(error))?;
        self.held = Some((checkpoint.clone(), note.to_owned()));
        Ok(())
    }

    fn failed(&self, source: io::Error) -> ReplicaError {
        ReplicaError::Highest {
            path: self.path.display().to_string(),
            source,
        }
    }
}

fn read(note: &str) -> Option<Checkpoint> {
    Note::parse(note.as_bytes()).ok()?.text.parse().ok()
}
