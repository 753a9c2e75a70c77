//! Commit records: numbered, each naming its predecessor by digest. That one exists is the
//! commit point of its batch.

use std::sync::Arc;

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::json;
use jingwei_proto::note::Note;
use serde::{Deserialize, Serialize};

use super::{LogError, Storage};

/// Commit records kept. Recovery reads only the newest, and fencing needs only that the
/// writer's own predecessor still stands: a writer that missed more commits than are kept finds
/// it gone and stops. So nothing older is ever read; a thousand leave an engineer the history
/// of an incident.
const KEPT: u64 = 1_000;

/// The record of one batch, stored as `commit/<number>`: a line in RFC 8785 form, and a line with
/// its SHA-256.
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
        let mut bytes = json::canonical(self);
        let sum = Digest::of(&bytes);
        bytes.extend(format!("\n{sum}\n").into_bytes());
        bytes
    }

    /// Reads such bytes; what was altered since is found by the digest at the end.
    fn parse(bytes: &[u8]) -> Result<Commit, String> {
        let split = bytes.iter().position(|byte| *byte == b'\n');
        let (record, sum) = bytes.split_at(split.unwrap_or(bytes.len()));
        if sum != format!("\n{}\n", Digest::of(record)).as_bytes() {
            return Err("its bytes do not have the digest at its end".into());
        }
        json::parse_into(record).map_err(|error| error.to_string())
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

const DIR: &str = "commit";

/// The commit records of a log and what is done with them.
pub(super) struct Commits {
    storage: Arc<dyn Storage>,
}

impl Commits {
    pub fn new(storage: Arc<dyn Storage>) -> Commits {
        Commits { storage }
    }

    /// The name of a record's file.
    pub fn name(number: u64) -> String {
        // Twelve digits keep the order of names that of numbers for thousands of years.
        format!("{DIR}/{number:012}")
    }

    /// The newest record, `None` where there is none.
    pub fn newest(&self) -> Result<Option<Commit>, LogError> {
        let Some(number) = self.numbers()?.into_iter().max() else {
            return Ok(None);
        };
        let damaged = |reason| LogError::corrupt(&*self.storage, &Commits::name(number), reason);
        let commit = self.load(number)?.ok_or_else(|| damaged("it is gone"))?;
        if let Some(previous) = number.checked_sub(1).and_then(|n| self.load(n).transpose()) {
            self.check_follows(&commit, &previous?)?;
        }
        Ok(Some(commit))
    }

    /// Checks that each record that is kept follows from the one before it.
    pub fn check_chain(&self) -> Result<(), LogError> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        let mut before: Option<Commit> = None;
        for number in numbers {
            let commit = self.load(number)?;
            if let (Some(commit), Some(before)) = (&commit, &before) {
                self.check_follows(commit, before)?;
            }
            before = commit;
        }
        Ok(())
    }

    fn check_follows(&self, commit: &Commit, before: &Commit) -> Result<(), LogError> {
        let follows = commit.previous == Some(before.digest()) && commit.before == before.size;
        // Old records are removed while others read; then there is a gap.
        if follows || commit.number != before.number + 1 {
            return Ok(());
        }
        let name = Commits::name(commit.number);
        let reason = "it does not follow the record before it";
        Err(LogError::corrupt(&*self.storage, &name, reason))
    }

    /// The stored bytes of a record, `None` where there is none.
    pub fn read(&self, number: u64) -> Result<Option<Vec<u8>>, LogError> {
        let name = Commits::name(number);
        let read = self.storage.get(&name);
        read.map_err(|error| LogError::io(&*self.storage, &name, error))
    }

    fn load(&self, number: u64) -> Result<Option<Commit>, LogError> {
        let Some(bytes) = self.read(number)? else {
            return Ok(None);
        };
        let damaged =
            |reason: &str| LogError::corrupt(&*self.storage, &Commits::name(number), reason);
        let commit = Commit::parse(&bytes).map_err(|reason| damaged(&reason))?;
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
    pub fn prune(&self, newest: u64) {
        if let Some(old) = newest.checked_sub(KEPT).filter(|old| *old > 0) {
            let _ = self.storage.delete(&Commits::name(old));
        }
    }

    /// Removes all such records, also those that a crash or a full disk left.
    pub fn prune_all(&self, newest: u64) -> Result<(), LogError> {
        for number in self.numbers()? {
            if number + KEPT <= newest {
                let _ = self.storage.delete(&Commits::name(number));
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>, LogError> {
        let names = self.storage.list(DIR);
        let names = names.map_err(|error| LogError::io(&*self.storage, DIR, error))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}
