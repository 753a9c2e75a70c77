//! Tests of the log: growth, proofs, recovery, fencing. Faults are in `tests/faults.rs`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;

use jingwei_proto::key::SecretKey;
use jingwei_proto::merkle::{verify_consistency, verify_inclusion};
use jingwei_proto::tile::{TileKind, TilePath};
use tempfile::TempDir;

use super::*;

pub(crate) mod faults;
mod matrix;

const ORIGIN: &str = "jingwei/test-0000000000000000/registry/1";

/// In memory where there is such a place: the tests below sync thousands of times.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

fn entry(content: &str, envelopes: bool) -> Entry {
    Entry {
        leaf: format!("leaf of {content}").into_bytes(),
        envelope: envelopes.then(|| format!("envelope of {content}").into_bytes()),
    }
}

fn entries(start: u64, count: u64) -> Vec<Entry> {
    (start..start + count)
        .map(|i| entry(&i.to_string(), true))
        .collect()
}

fn seal(checkpoint: &Checkpoint) -> Result<String, Infallible> {
    let key = SecretKey::from_seed(&[7; 32]);
    Ok(checkpoint.sign(&key).unwrap().to_string())
}

fn open(dir: &Path) -> Log {
    let mut log = Log::open(dir, Disk::new(), ORIGIN).unwrap();
    log.publish_sealed().unwrap();
    log
}

/// A log grown by batches of the given sizes.
fn grown(dir: &Path, batches: &[u64]) -> Log {
    let mut log = open(dir);
    for count in batches {
        log.append_and_publish(&entries(log.size(), *count), seal)
            .unwrap();
    }
    log
}

/// All tile files under a log, by path.
fn tiles(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    files(dir, "tile")
}

/// All files in one of a log's directories, by path.
fn files(dir: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.join(name)];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.exists() {
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

/// Checks everything that can be read of a log of `size` numbered entries.
fn check(log: &Log, size: u64) {
    let reader = log.reader();
    assert_eq!(reader.size(), size);
    let mut edge = Edge::new();
    for (i, leaf) in reader.leaves(0..size).unwrap().enumerate() {
        let leaf = leaf.unwrap();
        assert_eq!(leaf, entry(&i.to_string(), true).leaf);
        edge.push(leaf_hash(&leaf));
        assert_eq!(reader.root_at(i as u64 + 1).unwrap(), edge.root());
    }
    assert_eq!(log.checkpoint(), Checkpoint::new(ORIGIN, size, edge.root()));
    assert_eq!(
        read_note(&log.reader().checkpoint_note().unwrap()),
        Ok(log.checkpoint())
    );
    let envelopes: Vec<_> = reader
        .envelopes(0..size)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(envelopes.len() as u64, size);
    assert_eq!(
        reader.envelope(size - 1).unwrap(),
        *envelopes.last().unwrap()
    );
    reader.audit().unwrap();
}

#[test]
fn grows_across_the_width_of_a_tile() {
    for batches in [
        &[255, 1, 1][..],
        &[256],
        &[257],
        &[1, 254, 2],
        &[250, 600, 3],
    ] {
        let dir = directory();
        let size = batches.iter().sum();
        check(&grown(dir.path(), batches), size);
        check(&open(dir.path()), size);
        // However it grew, the full tiles are the same, and partials of full tiles are gone.
        let at_once = directory();
        grown(at_once.path(), &[size]);
        let stored = tiles(dir.path());
        for (path, bytes) in tiles(at_once.path()) {
            assert_eq!(stored.get(&path), Some(&bytes), "{path}");
        }
        if size >= 256 {
            assert!(!stored.keys().any(|path| path.starts_with("tile/0/000.p")));
        }
    }
}

#[test]
fn a_second_level_of_tiles() {
    let dir = directory();
    let mut log = grown(dir.path(), &[10_000; 7]);
    log.append_and_publish(&entries(log.size(), 5), seal)
        .unwrap();
    let reader = log.reader();
    assert!(tiles(dir.path()).contains_key("tile/2/000.p/1"));
    let (size, root) = (reader.size(), reader.checkpoint().root);
    for index in [0, 255, 256, 65_535, 65_536, 70_000, 70_004] {
        let proof = reader.inclusion_proof(index, size).unwrap();
        let leaf = leaf_hash(&reader.leaf(index).unwrap());
        verify_inclusion(&leaf, index, size, &proof, &root).unwrap();
    }
    drop(log);
    assert_eq!(open(dir.path()).checkpoint().root, root);
}

#[test]
fn proofs_verify_for_old_sizes_too() {
    let dir = directory();
    let log = grown(dir.path(), &[200, 57, 43]);
    let reader = log.reader();
    for new in [1, 199, 200, 255, 256, 257, 300] {
        let root = reader.root_at(new).unwrap();
        for old in [1, 2, 128, 255, 256].into_iter().filter(|old| *old <= new) {
            let proof = reader.consistency_proof(old, new).unwrap();
            verify_consistency(old, new, &reader.root_at(old).unwrap(), &root, &proof).unwrap();
        }
        let proof = reader.inclusion_proof(new - 1, new).unwrap();
        let leaf = leaf_hash(&reader.leaf(new - 1).unwrap());
        verify_inclusion(&leaf, new - 1, new, &proof, &root).unwrap();
    }
    assert!(matches!(
        reader.inclusion_proof(300, 300),
        Err(LogError::Beyond { .. })
    ));
    assert!(matches!(
        reader.consistency_proof(5, 301),
        Err(LogError::Beyond { .. })
    ));
    assert!(matches!(reader.leaf(300), Err(LogError::Beyond { .. })));
}

#[test]
fn a_narrower_tile_is_cut_from_a_wider_one() {
    let dir = directory();
    let log = grown(dir.path(), &[300]);
    let reader = log.reader();
    for kind in [
        TileKind::Hash { level: 0 },
        TileKind::Entries,
        TileKind::Envelopes,
    ] {
        for (index, width) in [(0, 7), (1, 3), (1, 44)] {
            let path = TilePath { kind, index, width };
            let small = directory();
            let other = grown(small.path(), &[index * 256 + u64::from(width)]);
            assert_eq!(
                reader.tile(&path).unwrap(),
                other.reader().tile(&path).unwrap()
            );
        }
        let beyond = TilePath {
            kind,
            index: 1,
            width: 45,
        };
        assert_eq!(reader.tile(&beyond).unwrap(), None);
    }
}

#[test]
fn a_log_without_envelopes() {
    let dir = directory();
    let mut log = open(dir.path());
    assert!(matches!(
        log.reader().checkpoint_note(),
        Err(LogError::Empty { .. })
    ));
    let plain: Vec<Entry> = (0..260).map(|i| entry(&i.to_string(), false)).collect();
    log.append_and_publish(&plain, seal).unwrap();
    assert!(!dir.path().join("tile/envelopes").exists());
    let mixed = log.append_and_publish(&entries(260, 1), seal);
    assert!(matches!(mixed, Err(AppendError::Refused(_))));
    assert_eq!(log.reader().leaf(259).unwrap(), plain[259].leaf);
}

#[test]
fn what_breaks_a_rule_changes_nothing() {
    let dir = directory();
    let mut log = grown(dir.path(), &[3]);
    let long = Entry {
        leaf: vec![0; 65_536],
        envelope: Some(Vec::new()),
    };
    assert!(matches!(
        log.append_and_publish(&[long], seal),
        Err(AppendError::Refused(_))
    ));
    let refused = log.append_and_publish(&entries(3, 1), |_| Err::<String, _>("fork"));
    assert!(matches!(refused, Err(AppendError::Seal("fork"))));
    let other = log.append_and_publish(&entries(3, 1), |checkpoint| {
        seal(&Checkpoint::new(
            ORIGIN,
            checkpoint.size,
            Digest::of(b"other"),
        ))
    });
    assert!(matches!(other, Err(AppendError::Refused(_))));
    check(&log, 3);
    log.append_and_publish(&entries(3, 2), seal).unwrap();
    check(&log, 5);
}

#[test]
fn one_writer_and_one_origin() {
    let dir = directory();
    let log = grown(dir.path(), &[2]);
    assert!(matches!(
        Log::open(dir.path(), Disk::new(), ORIGIN),
        Err(LogError::Locked(_))
    ));
    let seen = LogReader::open(dir.path()).unwrap();
    assert_eq!(seen.checkpoint(), log.reader().checkpoint());
    assert_eq!(
        LogReader::first_envelope(&(Arc::new(Local::reader(dir.path())) as Arc<dyn Storage>))
            .unwrap(),
        b"envelope of 0"
    );
    drop(log);
    assert!(matches!(
        Log::open(dir.path(), Disk::new(), "other"),
        Err(LogError::Origin { .. })
    ));
}

#[test]
fn a_second_writer_is_fenced() {
    let dir = directory();
    let mut log = grown(dir.path(), &[2]);
    // Another process that does not honour the lock, as on a shared volume.
    fs::write(dir.path().join("commit/000000000002"), "another's").unwrap();
    let refused = log.append_and_publish(&entries(2, 1), seal);
    assert!(matches!(
        refused,
        Err(AppendError::Fenced(LogError::Fenced { .. }))
    ));
    assert_eq!(log.size(), 2);
}

/// `note` with one more signature, as a witness adds it.
fn cosigned(note: &str) -> String {
    format!("{note}— witness.example AAAAAAAA\n")
}

#[test]
fn committed_is_not_yet_published() {
    let dir = directory();
    let mut log = grown(dir.path(), &[250]);
    let first = log.append(&entries(250, 3), seal).unwrap();
    let second = log.append(&entries(253, 9), seal).unwrap();
    let reader = log.reader();
    assert_eq!((log.size(), reader.size()), (262, 250));
    assert!(matches!(reader.leaf(250), Err(LogError::Beyond { .. })));
    assert_eq!(
        reader
            .tile(&"tile/entries/001.p/6".parse().unwrap())
            .unwrap(),
        None
    );
    assert_eq!(log.committed().leaf(261).unwrap(), entry("261", true).leaf);
    // A quorum for the first may come while the second is committed already.
    let sealed = seal(&first).unwrap();
    log.publish(&cosigned(&sealed)).unwrap();
    assert_eq!((log.size(), reader.size()), (262, 253));
    assert_eq!(reader.checkpoint_note().unwrap(), cosigned(&sealed));
    reader.audit().unwrap();
    drop(log);
    let mut log = Log::open(dir.path(), Disk::new(), ORIGIN).unwrap();
    assert_eq!((log.size(), log.reader().size()), (262, 253));
    let unpublished = log.unpublished().unwrap();
    assert_eq!(unpublished, seal(&second).unwrap());
    log.publish(&cosigned(&unpublished)).unwrap();
    assert_eq!(log.unpublished(), None);
    check(&log, 262);
}

#[test]
fn only_a_committed_checkpoint_is_published() {
    let dir = directory();
    let mut log = grown(dir.path(), &[2, 2]);
    let committed = log.append(&entries(4, 2), seal).unwrap();
    for (size, root) in [
        (2, log.committed().root_at(2).unwrap()),
        (7, committed.root),
        (6, Digest::of(b"another")),
        (5, committed.root),
    ] {
        let note = seal(&Checkpoint::new(ORIGIN, size, root)).unwrap();
        let refused = log.publish(&note);
        assert!(
            matches!(refused, Err(LogError::Unpublishable { .. })),
            "{size}"
        );
    }
    let other = seal(&Checkpoint::new("other", 6, committed.root)).unwrap();
    for note in [&other, "", "no note"] {
        assert!(matches!(
            log.publish(note),
            Err(LogError::Unpublishable { .. })
        ));
    }
    assert_eq!(log.reader().size(), 4);
    log.publish_sealed().unwrap();
    check(&log, 6);
}

#[test]
fn added_signatures_are_kept_and_a_lost_checkpoint_file_is_published_anew() {
    let dir = directory();
    let mut log = grown(dir.path(), &[2]);
    let note = log.reader().checkpoint_note().unwrap();
    log.publish(&cosigned(&note)).unwrap();
    drop(log);
    assert_eq!(
        open(dir.path()).reader().checkpoint_note().unwrap(),
        cosigned(&note)
    );
    for torn in ["", "jingwei/te", "\u{fffd}\n"] {
        fs::write(dir.path().join("checkpoint"), torn).unwrap();
        let mut log = Log::open(dir.path(), Disk::new(), ORIGIN).unwrap();
        assert_eq!(log.unpublished().as_ref(), Some(&note));
        log.publish_sealed().unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("checkpoint")).unwrap(),
            note
        );
    }
}

#[test]
fn a_log_older_than_its_published_checkpoint_is_refused() {
    let (dir, backup) = (directory(), directory());
    drop(grown(dir.path(), &[3]));
    faults::copy(dir.path(), backup.path());
    drop(grown(dir.path(), &[3]));
    fs::copy(
        dir.path().join("checkpoint"),
        backup.path().join("checkpoint"),
    )
    .unwrap();
    let refused = Log::open(backup.path(), Disk::new(), ORIGIN);
    assert!(matches!(refused, Err(LogError::Corrupt { path, .. }) if path.ends_with("checkpoint")));
}

#[test]
fn damage_is_found_at_open_and_named() {
    for file in [
        "tile/0/001.p/3",
        "tile/entries/001.p/3",
        "tile/0/000",
        "commit/000000000001",
    ] {
        for missing in [false, true] {
            let dir = directory();
            drop(grown(dir.path(), &[259]));
            let path = dir.path().join(file);
            let mut bytes = fs::read(&path).unwrap();
            bytes[9] ^= 1;
            if missing {
                fs::remove_file(&path).unwrap()
            } else {
                fs::write(&path, bytes).unwrap()
            }
            match Log::open(dir.path(), Disk::new(), ORIGIN) {
                Err(LogError::Corrupt { path: named, .. }) => {
                    assert!(named.starts_with(dir.path()), "{file}: {}", named.display());
                }
                Ok(log) => {
                    // Without its only record this is an empty log; and what no tail needs is
                    // found by the audit.
                    assert!(
                        log.size() == 0 || log.reader().audit().is_err() || file == "tile/0/000"
                    );
                }
                Err(other) => panic!("{file}: {other}"),
            }
        }
    }
}

#[test]
fn an_append_costs_the_fsyncs_that_the_essay_says() {
    #[derive(Default)]
    struct Syncs(std::sync::atomic::AtomicU64);
    impl crate::disk::Faults for Syncs {
        fn before(&self, operation: crate::disk::Operation, _: &Path) -> io::Result<()> {
            use crate::disk::Operation;
            if matches!(operation, Operation::Sync | Operation::SyncDirectory) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        }
    }
    for (envelopes, expected) in [(true, 9), (false, 7)] {
        let dir = directory();
        let syncs = std::sync::Arc::new(Syncs::default());
        let mut log = Log::open(dir.path(), Disk::with_faults(syncs.clone()), ORIGIN).unwrap();
        log.append_and_publish(&[entry("0", envelopes)], seal)
            .unwrap();
        let before = syncs.0.load(std::sync::atomic::Ordering::Relaxed);
        log.append_and_publish(&[entry("1", envelopes)], seal)
            .unwrap();
        assert_eq!(
            syncs.0.load(std::sync::atomic::Ordering::Relaxed) - before,
            expected
        );
    }
}

#[test]
fn old_commit_records_are_pruned() {
    let dir = directory();
    let mut log = open(dir.path());
    let plain = |i: u64| [entry(&i.to_string(), false)];
    for i in 0..1_005 {
        log.append_and_publish(&plain(i), seal).unwrap();
    }
    let records = || fs::read_dir(dir.path().join("commit")).unwrap().count();
    assert_eq!(records(), 1_000);
    drop(log);
    assert_eq!(open(dir.path()).size(), 1_005);
    assert_eq!(records(), 1_000);
}

/// What readers were shown is remembered outside the log: an old copy of it and another history
/// are refused, and nothing is shown that cannot be remembered.
#[test]
fn an_old_copy_is_refused_by_what_is_remembered_beside_the_key() {
    let (dir, keys) = (directory(), directory());
    let record = keys.path().join("shown");
    let remembering = |disk: Disk| {
        let mut log = open(dir.path());
        log.remember(&record, disk).map(|()| log)
    };
    let grow = |log: &mut Log, name: &str| {
        let at = log.size();
        let batch = [entry(&format!("{name} {at}"), true)];
        log.append_and_publish(&batch, seal).is_ok()
    };
    let mut log = remembering(Disk::new()).unwrap();
    assert!(grow(&mut log, "first"));
    drop(log);
    let old = directory();
    faults::copy(dir.path(), old.path());
    let mut log = remembering(Disk::new()).unwrap();
    assert!(grow(&mut log, "second"));
    drop(log);
    let shown = Highest::open(&record, Disk::new()).unwrap().shown();
    assert_eq!(shown.map(|(size, _)| size), Some(2));

    // A full disk where it is remembered: committed, not shown, and shown as soon as there is room.
    // Its first step makes the name of the file durable.
    let full = crate::disk::faults::FailAt::new(2, crate::disk::faults::Failure::FromThenOn);
    let full = Arc::new(full);
    let mut log = remembering(Disk::with_faults(full.clone())).unwrap();
    assert!(!grow(&mut log, "third"));
    assert_eq!((log.size(), log.reader().size()), (3, 2));
    full.repair();
    log.publish_sealed().unwrap();
    assert_eq!(log.reader().size(), 3);
    drop(log);

    let newest = directory();
    faults::copy(dir.path(), newest.path());
    let bring_back = |from: &Path| {
        fs::remove_dir_all(dir.path()).unwrap();
        faults::copy(from, dir.path());
    };
    let refused = || remembering(Disk::new()).map(drop).unwrap_err();
    bring_back(old.path());
    assert!(matches!(
        refused(),
        LogError::OldCopy {
            size: 1,
            shown: 3,
            ..
        }
    ));
    // Whoever signs over it all the same has two histories.
    let mut log = open(dir.path());
    while log.size() < 4 {
        assert!(grow(&mut log, "other"));
    }
    drop(log);
    assert!(matches!(
        refused(),
        LogError::OldCopy {
            size: 4,
            shown: 3,
            ..
        }
    ));
    bring_back(newest.path());
    drop(remembering(Disk::new()).unwrap());
    fs::write(&record, "3\n").unwrap();
    assert!(matches!(refused(), LogError::Forgotten { .. }));
}
