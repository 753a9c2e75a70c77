//! Commit records: numbered, each naming its predecessor by digest. That one exists is the
//! commit point of its batch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::json;
use jingwei_proto::note::Note;
use serde::{Deserialize, Serialize};

use super::LogError;
use crate::disk::Disk;

/// Commit records kept. Recovery reads only the newest, and fencing needs only that the
/// writer's own predecessor still stands: a writer that missed more commits than are kept finds
/// it gone and stops. So nothing older is ever read; a thousand leave an engineer the history
/// of an incident.
const KEPT: u64 = 1_000;

/// The record of one batch, stored as `commit/<number>` in RFC 8785 form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commit {
    /// Counted from 1.
    pub number: u64,
    /// SHA-256 of the preceding record's bytes.
    pub previous: Option<Digest>,
    /// The log's origin.
    pub origin: String,
    /// Size before the batch.
    pub before: u64,
    /// Size after it.
    pub size: u64,
    /// Root after it.
    pub root: Digest,
    /// SHA-256 of the staged batch.
    pub batch: Digest,
    /// Whether the log has envelopes beside its entries.
    pub envelopes: bool,
    /// The sealed checkpoint.
    pub note: String,
}

impl Commit {
    /// The bytes that are stored and that the successor names.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::canonical(self)
    }

    /// The digest that the successor names.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The checkpoint that this record sealed.
    pub fn checkpoint(&self) -> Checkpoint {
        // The note's text may carry further lines.
        read_note(&self.note)
            .unwrap_or_else(|_| Checkpoint::new(&self.origin, self.size, self.root))
    }
}

/// The checkpoint that a note is about; no signature is verified.
pub(super) fn read_note(note: &str) -> Result<Checkpoint, String> {
    let note = Note::parse(note.as_bytes()).map_err(|error| error.to_string())?;
    note.text
        .parse()
        .map_err(|error: jingwei_proto::checkpoint::CheckpointError| error.to_string())
}

/// The directory of commit records and what is done with it.
pub(super) struct Commits {
    dir: PathBuf,
}

impl Commits {
    pub fn new(log: &Path) -> Commits {
        Commits {
            dir: log.join("commit"),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, number: u64) -> PathBuf {
        // Twelve digits keep the order of names that of numbers for thousands of years.
        self.dir.join(format!("{number:012}"))
    }

    /// The newest record, `None` where there is none.
    pub fn newest(&self) -> Result<Option<Commit>, LogError> {
        let Some(number) = self.numbers()?.into_iter().max() else {
            return Ok(None);
        };
        let path = self.path(number);
        let commit = self
            .load(number)?
            .ok_or_else(|| LogError::corrupt(&path, "it is gone"))?;
        if let Some(previous) = number.checked_sub(1).and_then(|n| self.load(n).transpose()) {
            let previous = previous?;
            if commit.previous != Some(previous.digest()) || commit.before != previous.size {
                return Err(LogError::corrupt(
                    &path,
                    "it does not follow the record before it",
                ));
            }
        }
        Ok(Some(commit))
    }

    /// The stored bytes of a record, `None` where there is none.
    pub fn read(&self, number: u64) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.path(number);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io(&path, error)),
        }
    }

    fn load(&self, number: u64) -> Result<Option<Commit>, LogError> {
        let Some(bytes) = self.read(number)? else {
            return Ok(None);
        };
        let damaged = |reason: &str| LogError::corrupt(&self.path(number), reason);
        let commit: Commit =
            json::parse_into(&bytes).map_err(|error| damaged(&error.to_string()))?;
        let sealed = read_note(&commit.note).map_err(|reason| damaged(&reason))?;
        let consistent = commit.number == number
            && commit.before < commit.size
            && (&sealed.origin, sealed.size, sealed.root)
                == (&commit.origin, commit.size, commit.root);
        if consistent {
            Ok(Some(commit))
        } else {
            Err(damaged("its members contradict each other"))
        }
    }

    /// Removes records that nothing reads any more; one that stays does no harm.
    pub fn prune(&self, disk: &Disk, newest: u64) {
        if let Some(old) = newest.checked_sub(KEPT) {
            let _ = fs::metadata(self.path(old)).and_then(|_| disk.remove(&self.path(old)));
        }
    }

    /// Removes all such records, also those that a crash or a full disk left.
    pub fn prune_all(&self, disk: &Disk, newest: u64) -> Result<(), LogError> {
        for number in self.numbers()? {
            if number + KEPT <= newest {
                let _ = disk.remove(&self.path(number));
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>, LogError> {
        let failed = |error| LogError::io(&self.dir, error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }
}
