//! Alarms: files in the replica's directory, which outlive the process and stay until a person
//! has looked into them and moves them away.
//!
//! ```text
//! alarms/two-histories.alarm           what was seen, in a sentence
//! alarms/two-histories.misbehaviour    the proof of it, if there is one
//! alarms/rejected-entry-17.alarm       lies about entries have the entry's place in their names
//! ```
//!
//! The files are the only truth about which alarms stand: nothing of it is kept in memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::disk::Disk;

use super::alarms_dir;

/// More alarms than anybody reads; beyond them there is only the log and the metric.
const MOST: usize = 100;

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What it is about; the same word as in the metric.
    pub kind: String,
    /// What was seen.
    pub text: String,
    /// When it was first seen.
    pub since: Option<SystemTime>,
    /// The file of the alarm; moved away, the alarm no longer stands.
    pub file: PathBuf,
    /// The proof of misbehaviour, for `jingwei-verify`.
    pub proof: Option<PathBuf>,
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; ", self.kind, self.text)?;
        match &self.proof {
            Some(proof) => write!(f, "the proof is {}", proof.display()),
            None => f.write_str(
                "nothing is proved by it, for it may also be the fault of somebody else",
            ),
        }
    }
}

/// The alarms of the replica in `dir`, oldest first.
pub fn alarms_in(dir: &Path) -> Vec<Alarm> {
    let entries = fs::read_dir(alarms_dir(dir)).into_iter().flatten();
    let mut alarms: Vec<Alarm> = entries
        .filter_map(|entry| read(&entry.ok()?.path()))
        .collect();
    alarms.sort_by(|a, b| (a.since, &a.file).cmp(&(b.since, &b.file)));
    alarms
}

fn read(file: &Path) -> Option<Alarm> {
    if file.extension()? != "alarm" {
        return None;
    }
    let name = file.file_stem()?.to_str()?;
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    let proof = file.with_extension("misbehaviour");
    Some(Alarm {
        kind: kind.to_owned(),
        text: fs::read_to_string(file).ok()?.trim_end().to_owned(),
        since: fs::metadata(file).and_then(|meta| meta.modified()).ok(),
        proof: proof.exists().then_some(proof),
        file: file.to_owned(),
    })
}

/// The alarms of one replica.
pub(super) struct Alarms {
    dir: PathBuf,
    disk: Disk,
}

impl Alarms {
    /// Those of the replica in `dir`; what stands from before counts in the metric again.
    pub fn open(dir: &Path, disk: Disk) -> Alarms {
        for alarm in alarms_in(dir) {
            tracing::error!(%alarm, "an alarm stands");
            count(&alarm.kind);
        }
        Alarms {
            dir: dir.to_owned(),
            disk,
        }
    }

    /// The alarms that stand.
    pub fn list(&self) -> Vec<Alarm> {
        alarms_in(&self.dir)
    }

    /// Raises an alarm: in the log, as a metric, and as a file. One that stands already is left
    /// as it is, but for a proof that is new.
    pub fn raise(
        &self,
        kind: &str,
        place: Option<u64>,
        text: &str,
        proof: Option<&[u8]>,
    ) -> Raised {
        let name = match place {
            Some(place) => format!("{kind}-{place}"),
            None => kind.to_owned(),
        };
        let file = alarms_dir(&self.dir).join(format!("{name}.alarm"));
        if !file.exists() {
            count(kind);
        }
        let proved = proof.is_some();
        let raised = self.store(&file, text, proof).unwrap_or_else(|error| {
            tracing::error!(%error, "an alarm cannot be stored");
            Raised::Failed
        });
        match raised {
            Raised::Before => {}
            Raised::New => {
                tracing::error!(kind, alarm = text, file = %file.display(), proved, "the registry misbehaves");
            }
            Raised::Failed | Raised::TooMany => {
                tracing::error!(kind, alarm = text, "the registry misbehaves");
            }
        }
        raised
    }

    fn store(&self, file: &Path, text: &str, proof: Option<&[u8]>) -> io::Result<Raised> {
        let proved = file.with_extension("misbehaviour");
        if file.exists() && (proof.is_none() || proved.exists()) {
            return Ok(Raised::Before);
        }
        if !file.exists() && self.list().len() >= MOST {
            return Ok(Raised::TooMany);
        }
        self.disk.create_dir_all(&alarms_dir(&self.dir))?;
        // The proof first: an alarm that says so has one.
        if let Some(proof) = proof {
            self.disk.replace(&proved, proof)?;
        }
        self.disk.replace(file, format!("{text}\n").as_bytes())?;
        Ok(Raised::New)
    }
}

/// What became of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raised {
    /// It, or its proof, stands from now on.
    New,
    /// It stood already.
    Before,
    /// So many stand that this one is only logged and counted.
    TooMany,
    /// It has to be raised again.
    Failed,
}

fn count(kind: &str) {
    metrics::counter!("jingwei_alarms_total", "kind" => kind.to_owned()).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_stand_until_they_are_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let alarms = Alarms::open(dir.path(), Disk::new());
        assert_eq!(alarms.list(), []);
        alarms.raise("rejected-entry", Some(17), "as it was seen", None);
        alarms.raise("two-histories", None, "at first", Some(b"proof"));
        alarms.raise("two-histories", None, "again", Some(b"another"));
        // Later a proof was found for the first.
        alarms.raise(
            "rejected-entry",
            Some(17),
            "as it was proved",
            Some(b"proof"),
        );
        let again = Alarms::open(dir.path(), Disk::new()).list();
        let mut kinds: Vec<&str> = again.iter().map(|alarm| &*alarm.kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["rejected-entry", "two-histories"]);
        for alarm in &again {
            assert!(["as it was proved", "at first"].contains(&&*alarm.text));
            assert_eq!(fs::read(alarm.proof.as_ref().unwrap()).unwrap(), b"proof");
        }
        fs::remove_file(&again[0].file).unwrap();
        assert_eq!(alarms.list().len(), 1);
    }

    #[test]
    fn a_liar_cannot_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let alarms = Alarms::open(dir.path(), Disk::new());
        for place in 0..MOST as u64 + 5 {
            alarms.raise("bad-entry", Some(place), "x", None);
        }
        assert_eq!(alarms.list().len(), MOST);
    }
}
