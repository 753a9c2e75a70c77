//! What a log has shown its readers, remembered outside of the log, beside the key that signs it.
//!
//! Nothing in a log tells that it is an old copy: a backup is complete and consistent, and a log
//! that went on from it would show a second history. Who restores a log without its key's
//! directory is found out by this record. Who restores both at once is not, and only others can
//! tell: the witnesses, who have signed more, and every replica.

use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;

use super::LogError;
use crate::disk::Disk;

/// The record, and what it holds: size and root, a line each.
pub(super) struct Highest {
    path: PathBuf,
    disk: Disk,
    shown: Option<(u64, Digest)>,
}

impl Highest {
    /// Reads the record; one that is not there yet is empty.
    pub fn open(path: &Path, disk: Disk) -> Result<Highest, LogError> {
        let mut highest = Highest {
            path: path.to_owned(),
            disk,
            shown: None,
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let (size, root) = parse(&text).ok_or_else(|| LogError::Corrupt {
                    path: path.to_owned(),
                    reason: "it does not hold a log's size and root".into(),
                })?;
                highest.shown = Some((size, root));
                Ok(highest)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(highest),
            Err(error) => Err(highest.failed(error)),
        }
    }

    /// Size and root of what was shown.
    pub fn shown(&self) -> Option<(u64, Digest)> {
        self.shown
    }

    /// Where the record is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers, durably, that a checkpoint is about to be shown.
    pub fn raise(&mut self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let next = (checkpoint.size, checkpoint.root);
        if self.shown.is_some_and(|(size, _)| size >= next.0) {
            return Ok(());
        }
        let text = format!("{}\n{}\n", next.0, next.1);
        let written = self.disk.replace(&self.path, text.as_bytes());
        written.map_err(|error| self.failed(error))?;
        self.shown = Some(next);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> LogError {
        LogError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn parse(text: &str) -> Option<(u64, Digest)> {
    let (size, root) = text.strip_suffix('\n')?.split_once('\n')?;
    Some((size.parse().ok()?, root.parse().ok()?))
}
