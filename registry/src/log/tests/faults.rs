//! The fault matrix: a script of appends with its n-th step failing, for every n, in every way.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::disk::faults::{FailAt, Failure};

/// Batches after the first 250 entries: they end at 255, 256, 257 and 260.
const SCRIPT: [u64; 4] = [5, 1, 1, 3];
const BEGIN: u64 = 250;

/// What the caller of the log knows and has seen.
#[derive(Default)]
struct Caller {
    /// Entries that were acknowledged, by index.
    acknowledged: BTreeMap<u64, Vec<u8>>,
    /// Every root that was ever published, by size.
    roots: BTreeMap<u64, Digest>,
    attempts: u64,
}

impl Caller {
    /// Appends the next batch. Its content is new at each attempt, so that a batch which gets in
    /// after it was reported as failed is told from one that gets in twice.
    fn append(&mut self, log: &mut Log, count: u64) -> bool {
        let (start, attempt) = (log.size(), self.attempts);
        self.attempts += 1;
        let batch: Vec<Entry> = (start..start + count)
            .map(|i| entry(&format!("{i} at attempt {attempt}"), true))
            .collect();
        let appended = log.append_and_publish(&batch, seal);
        self.look(log);
        let Ok(checkpoint) = appended else {
            return false;
        };
        assert_eq!(checkpoint.size, start + count);
        for (i, entry) in (start..).zip(batch) {
            self.acknowledged.insert(i, entry.leaf);
        }
        true
    }

    /// No size ever has two roots, and nothing acknowledged is missing.
    fn look(&mut self, log: &Log) {
        let checkpoint = log.checkpoint();
        let root = *self.roots.entry(checkpoint.size).or_insert(checkpoint.root);
        assert_eq!(root, checkpoint.root);
        let published =
            read_note(&fs::read_to_string(log.storage.place("checkpoint")).unwrap()).unwrap();
        let root = *self.roots.entry(published.size).or_insert(published.root);
        assert_eq!(root, published.root);
        let reader = log.reader();
        for (index, leaf) in &self.acknowledged {
            assert_eq!(&reader.leaf(*index).unwrap(), leaf);
        }
    }
}

/// Batch sizes still to come, given the log's size.
fn rest(size: u64) -> Option<u64> {
    let mut end = BEGIN;
    SCRIPT.into_iter().find(|count| {
        end += count;
        size < end
    })
}

/// Copies a directory and all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

/// Runs the script with a fault at step `n`, or so many from there on; `false` when it has fewer
/// steps.
fn run(base: &Path, n: u64, (failure, times): (Failure, u64), reopen: bool) -> bool {
    let dir = directory();
    copy(base, dir.path());
    let faults = Arc::new(FailAt::in_a_row(n, times, failure));
    let disk = Disk::with_faults(faults.clone());
    let mut caller = Caller::default();
    let mut opened = Log::open(dir.path(), disk.clone(), ORIGIN).ok();
    loop {
        let Some(mut log) = opened.take() else {
            faults.repair();
            opened = Some(Log::open(dir.path(), disk.clone(), ORIGIN).unwrap());
            continue;
        };
        assert!(
            caller.attempts < 50,
            "{failure:?} at {n}, {times} in a row: the log never recovers"
        );
        let size = log.size();
        if rest(size).is_none() && log.publish_sealed().is_err() {
            // Nobody but the disk can be waited for now.
            faults.repair();
            opened = (!reopen).then_some(log);
            continue;
        }
        let Some(count) = rest(size) else {
            finish(log, caller, dir.path());
            break;
        };
        // A writer goes on after an error, or is killed and starts again.
        if caller.append(&mut log, count) || !reopen {
            let grown = log.size() - size;
            assert!(grown == 0 || grown == count);
            opened = Some(log);
        }
        if failure == Failure::FromThenOn && caller.attempts > 8 {
            faults.repair();
        }
    }
    faults.reached(n)
}

/// Compares the log with one that grew to the same entries without faults.
fn finish(log: Log, caller: Caller, dir: &Path) {
    let reader = log.reader();
    let size = reader.size();
    assert_eq!(size, BEGIN + SCRIPT.iter().sum::<u64>());
    reader.audit().unwrap();
    let all: Vec<Entry> = reader
        .leaves(0..size)
        .unwrap()
        .zip(reader.envelopes(0..size).unwrap())
        .map(|(leaf, envelope)| Entry {
            leaf: leaf.unwrap(),
            envelope: Some(envelope.unwrap()),
        })
        .collect();
    let distinct: std::collections::BTreeSet<_> = all.iter().map(|entry| &entry.leaf).collect();
    assert_eq!(distinct.len(), all.len(), "an entry stands twice");
    let clean = directory();
    let mut other = open(clean.path());
    let mut start = 0;
    for count in std::iter::once(BEGIN).chain(SCRIPT) {
        other
            .append_and_publish(&all[start..start + count as usize], seal)
            .unwrap();
        start += count as usize;
    }
    assert_eq!(
        other.reader().checkpoint_note().unwrap(),
        log.reader().checkpoint_note().unwrap()
    );
    let stored = tiles(dir);
    for (path, bytes) in tiles(clean.path()) {
        assert_eq!(stored.get(&path), Some(&bytes), "{path}");
    }
    assert!(caller.acknowledged.len() <= all.len());
    // What a failed commit has left, the next start takes away.
    drop(log);
    drop(open(dir));
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| name.to_string_lossy().starts_with(".tmp-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(files(dir, "commit"), files(clean.path(), "commit"));
}

#[test]
fn every_step_fails_in_every_way() {
    let base = directory();
    drop(grown(base.path(), &[BEGIN]));
    std::thread::scope(|scope| {
        // A step that fails without having persisted has done nothing, or half of a write.
        for failure in [
            (Failure::Once, 1),
            (Failure::Once, 2),
            (Failure::Persisted, 1),
            (Failure::Persisted, 2),
            (Failure::FromThenOn, 1),
        ] {
            for reopen in [false, true] {
                let base = base.path();
                scope.spawn(move || {
                    let steps = (1..).take_while(|n| run(base, *n, failure, reopen)).count();
                    assert!(steps > 100, "only {steps} steps were tried");
                });
            }
        }
    });
}

/// Kills the writer after every step: the directory is copied just before the step, as it then
/// is, and opened anew.
#[test]
fn killed_before_every_step() {
    struct Copies {
        from: std::path::PathBuf,
        to: std::path::PathBuf,
        taken: std::sync::Mutex<u64>,
    }
    impl crate::disk::Faults for Copies {
        fn before(&self, _: crate::disk::Operation, _: &Path) -> std::io::Result<()> {
            let mut taken = self.taken.lock().unwrap();
            copy(&self.from, &self.to.join(taken.to_string()));
            *taken += 1;
            Ok(())
        }
    }
    let (dir, copies) = (directory(), directory());
    drop(grown(dir.path(), &[BEGIN]));
    let faults = Arc::new(Copies {
        from: dir.path().to_owned(),
        to: copies.path().to_owned(),
        taken: Default::default(),
    });
    let mut log = Log::open(dir.path(), Disk::with_faults(faults.clone()), ORIGIN).unwrap();
    // How many copies there were when each size was acknowledged.
    let mut sizes = vec![(0, BEGIN)];
    while let Some(count) = rest(log.size()) {
        log.append_and_publish(&entries(log.size(), count), seal)
            .unwrap();
        sizes.push((*faults.taken.lock().unwrap(), log.size()));
    }
    let taken = *faults.taken.lock().unwrap();
    for i in 0..taken {
        let log = open(&copies.path().join(i.to_string()));
        let acknowledged = sizes
            .iter()
            .filter(|(at, _)| *at <= i)
            .map(|(_, size)| *size)
            .max()
            .unwrap();
        let next = acknowledged + rest(acknowledged).unwrap_or(0);
        assert!(
            [acknowledged, next].contains(&log.size()),
            "copy {i}: {}",
            log.size()
        );
        log.reader().audit().unwrap();
        for (i, leaf) in log.reader().leaves(0..log.size()).unwrap().enumerate() {
            assert_eq!(leaf.unwrap(), entry(&i.to_string(), true).leaf);
        }
    }
}
