//! What a log has shown its readers, remembered outside of the log, beside the key that signs it.
//!
//! Nothing in a log tells that it is an old copy: a backup is complete and consistent, and a log
//! that went on from it would show a second history. Who restores a log without its key's
//! directory is found out by this record. Who restores both at once is not, and only others can
//! tell: the witnesses, who have signed more, and every replica.
//!
//! It is written for every publication, so the file has two places that are written in turn: one
//! wait for the disk, where a file that takes another's place needs two and an inode. A place
//! that a power cut has torn is told by its digest, and was never acknowledged; the other holds what
//! was shown before.

use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;

use super::LogError;
use crate::disk::{Disk, parent};

/// Where each place begins: no two share a block of any file system.
const PLACES: [u64; 2] = [0, 65_536];

/// The record, and what it holds: size, root and the digest of both lines, a line each.
pub(super) struct Highest {
    path: PathBuf,
    disk: Disk,
    shown: Option<(u64, Digest)>,
    /// Where the next one is written: not over what was shown last. `None` where the file is to be
    /// made, or made anew.
    next: Option<u64>,
}

impl Highest {
    /// Reads the record; one that is not there yet is empty.
    pub fn open(path: &Path, disk: Disk) -> Result<Highest, LogError> {
        let mut highest = Highest {
            path: path.to_owned(),
            disk,
            shown: None,
            next: None,
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(highest),
            Err(error) => return Err(highest.failed(error)),
        };
        // Whoever gave it its name may have died before that was durable.
        let synced = highest.disk.sync_directory(parent(path));
        synced.map_err(|error| highest.failed(error))?;
        if let Some(shown) = parse_plain(&bytes) {
            highest.shown = Some(shown);
            return Ok(highest);
        }
        let places = PLACES.map(|place| bytes.get(place as usize..).unwrap_or_default());
        let [first, second] = places.map(parse);
        highest.next = Some(PLACES[usize::from(first > second)]);
        highest.shown = first.max(second);
        if highest.shown.is_none() {
            return Err(LogError::Forgotten {
                record: path.to_owned(),
            });
        }
        let torn = |place: &[u8]| parse(place).is_none() && place.iter().any(|byte| *byte != 0);
        if places.into_iter().any(torn) {
            let path = path.display();
            tracing::warn!(%path, "one of its two places is torn or damaged; what the other says counts");
        }
        Ok(highest)
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
        let shown = (checkpoint.size, checkpoint.root);
        if self.shown.is_some_and(|(size, _)| size >= shown.0) {
            return Ok(());
        }
        let text = text(shown);
        let written = match self.next {
            None => self.disk.replace(&self.path, text.as_bytes()),
            Some(place) => self.disk.write_at(&self.path, place, text.as_bytes()),
        };
        written.map_err(|error| self.failed(error))?;
        self.shown = Some(shown);
        self.next = Some(PLACES[usize::from(self.next != Some(PLACES[1]))]);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> LogError {
        LogError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn text((size, root): (u64, Digest)) -> String {
    let lines = format!("{size}\n{root}\n");
    format!("{lines}{}\n", Digest::of(lines.as_bytes()))
}

/// What stands at the beginning of `place`, if it is whole.
fn parse(place: &[u8]) -> Option<(u64, Digest)> {
    let shown = lines(place)?;
    place.starts_with(text(shown).as_bytes()).then_some(shown)
}

/// What the whole file says in the form of before, which was two lines.
fn parse_plain(bytes: &[u8]) -> Option<(u64, Digest)> {
    let shown = lines(bytes)?;
    let text = format!("{}\n{}\n", shown.0, shown.1);
    (bytes == text.as_bytes()).then_some(shown)
}

fn lines(bytes: &[u8]) -> Option<(u64, Digest)> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(lines.next()?).ok();
    Some((line()?.parse().ok()?, line()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faults::{FailAt, Failure};
    use crate::log::tests::directory;
    use std::sync::Arc;

    fn raise(highest: &mut Highest, size: u64) -> bool {
        let checkpoint = Checkpoint::new("test", size, Digest::of(&size.to_be_bytes()));
        highest.raise(&checkpoint).is_ok()
    }

    fn stored(path: &Path) -> Option<u64> {
        let highest = Highest::open(path, Disk::new()).unwrap();
        highest.shown().map(|(size, root)| {
            assert_eq!(root, Digest::of(&size.to_be_bytes()));
            size
        })
    }

    /// Whatever step fails, and whether its work was done or half of it: what was acknowledged
    /// stands there, or what was on its way.
    #[test]
    fn a_fault_at_any_step_leaves_what_was_acknowledged_or_more() {
        for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
            for n in 1.. {
                let dir = directory();
                let path = dir.path().join("shown");
                let faults = Arc::new(FailAt::new(n, failure));
                let disk = Disk::with_faults(faults.clone());
                let mut highest = Highest::open(&path, disk).unwrap();
                let (mut acknowledged, mut tried) = (None, None);
                for size in [1, 20, 300, 4_000, 50_000] {
                    tried = Some(size);
                    if raise(&mut highest, size) {
                        acknowledged = tried;
                    }
                    let found = stored(&path);
                    assert!((acknowledged..=tried).contains(&found), "{failure:?} {n}");
                }
                faults.repair();
                assert!(raise(&mut highest, 600_000));
                assert_eq!(stored(&path), Some(600_000));
                if !faults.reached(n) {
                    assert_eq!(acknowledged, tried);
                    break;
                }
            }
        }
    }

    #[test]
    fn the_form_of_before_is_read() {
        let dir = directory();
        let path = dir.path().join("shown");
        let root = Digest::of(&20_u64.to_be_bytes());
        std::fs::write(&path, format!("20\n{root}\n")).unwrap();
        assert_eq!(stored(&path), Some(20));
        let mut highest = Highest::open(&path, Disk::new()).unwrap();
        for size in [21, 22, 23] {
            assert!(raise(&mut highest, size));
            assert_eq!(stored(&path), Some(size));
        }
    }

    /// A write that is torn at any byte leaves the one before; without either the file is refused.
    #[test]
    fn a_torn_place_is_none() {
        let dir = directory();
        let path = dir.path().join("shown");
        let mut highest = Highest::open(&path, Disk::new()).unwrap();
        assert!([1, 20].into_iter().all(|size| raise(&mut highest, size)));
        let whole = std::fs::read(&path).unwrap();
        for end in PLACES[1] as usize..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(stored(&path), Some(1));
            let mut highest = Highest::open(&path, Disk::new()).unwrap();
            assert!(raise(&mut highest, 3));
            assert_eq!(stored(&path), Some(3));
        }
        std::fs::write(&path, vec![0; whole.len()]).unwrap();
        let damaged = Highest::open(&path, Disk::new());
        assert!(matches!(damaged, Err(LogError::Forgotten { .. })));
    }
}
