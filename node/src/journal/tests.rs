//! Tests of the journal: durability, replays, years, crashes and a full disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jingwei_proto::key::SecretKey;
use jingwei_registry::disk::faults::{FailAt, Failure};
use jingwei_registry::disk::{Faults, Operation};
use tempfile::TempDir;

use super::read::{log_dir, segment_path};
use super::*;

/// In memory where there is such a place: the tests below sync thousands of times.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

fn now() -> Time {
    time("2024-06-01T12:00:00Z")
}

fn setup(dir: &Path, disk: Disk) -> Setup {
    Setup {
        dir: dir.to_owned(),
        federation: FederationId::new("test", [0; 8]).unwrap(),
        agency: "fr.bre".parse().unwrap(),
        signer: Arc::new(SecretKey::from_seed(&[9; 32])),
        disk,
    }
}

fn open(dir: &Path) -> Journal {
    Journal::open(setup(dir, Disk::new()), now()).unwrap()
}

fn year_dir(dir: &Path, year: i32) -> PathBuf {
    setup(dir, Disk::new()).year_dir(year)
}

fn record(at: Time, i: usize) -> Record {
    let kind = [Kind::Request, Kind::Acceptance, Kind::Receipt][i % 3];
    Record {
        time: at,
        kind,
        nonce: format!("{i:032x}"),
        body: format!("body {i}").into(),
    }
}

/// All of a year's records by index, after the journal's own check of them.
fn stored(dir: &Path, year: i32) -> Vec<Stored> {
    let all = read_all(&year_dir(dir, year)).unwrap();
    for (i, stored) in all.iter().enumerate() {
        assert_eq!(stored.index, i as u64);
        assert_eq!(stored.leaf, leaf(&stored.key, &stored.bytes));
    }
    all
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn what_is_recorded_is_found_again() {
    let dir = directory();
    let runtime = runtime();
    runtime.block_on(async {
        let journal = Arc::new(open(dir.path()));
        let tasks: Vec<_> = (0..600)
            .map(|i| {
                let journal = journal.clone();
                tokio::spawn(async move { journal.record(record(now(), i)).await.unwrap().index })
            })
            .collect();
        let mut indices = BTreeSet::new();
        for task in tasks {
            assert!(indices.insert(task.await.unwrap()));
        }
        assert_eq!(indices, (0..600).collect());
        // Readable while the writer is at work, in the log or not.
        assert_eq!(stored(dir.path(), 2024).len(), 600);
        journal.sequence().await.unwrap();
        assert_eq!(journal.log().size(), 600);
        assert_eq!(
            journal.log().checkpoint().origin,
            "jingwei/test-0000000000000000/journal/fr.bre/2024"
        );
        assert!(
            stored(dir.path(), 2024)
                .iter()
                .all(|stored| stored.sequenced)
        );
    });
    let journal = open(dir.path());
    assert_eq!(
        runtime
            .block_on(journal.record(record(now(), 600)))
            .unwrap(),
        Position {
            year: 2024,
            index: 600
        }
    );
    drop(journal);
    let all = stored(dir.path(), 2024);
    let bodies: BTreeSet<_> = all
        .iter()
        .map(|stored| stored.record.body.clone())
        .collect();
    assert_eq!(bodies.len(), 601);
    assert!(
        all.iter().all(|stored| stored.sequenced),
        "closing sequences what is left"
    );
    let keys: BTreeSet<_> = all.iter().map(|stored| stored.key).collect();
    assert_eq!(keys.len(), 601, "each record has a key of its own");
}

#[test]
fn several_records_stand_together_or_not_at_all() {
    let dir = directory();
    let runtime = runtime();
    runtime.block_on(async {
        let journal = Arc::new(open(dir.path()));
        let until = now().plus(60);
        let groups: Vec<_> = (0..50)
            .map(|group| {
                let journal = journal.clone();
                let records: Vec<Record> = (0..3).map(|i| record(now(), group * 3 + i)).collect();
                tokio::spawn(async move {
                    let first = journal.record_new(until, records.clone()).await.unwrap();
                    (first.index, records)
                })
            })
            .collect();
        let mut expected = BTreeMap::new();
        for group in groups {
            let (first, records) = group.await.unwrap();
            expected.extend((first..).zip(records));
        }
        let large = Record {
            body: vec![0; MAX_RECORD].into(),
            ..record(now(), 1_000)
        };
        let mixed = vec![record(now(), 999), large, record(now(), 1_001)];
        let refused = journal.record_new(until, mixed).await;
        assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
        let none = journal.record(Vec::<Record>::new()).await;
        assert!(matches!(none, Err(JournalError::Empty)));
        let last = record(now(), 999);
        let position = journal.record_new(until, last.clone()).await.unwrap();
        expected.insert(position.index, last);
        let found: BTreeMap<_, _> = stored(dir.path(), 2024)
            .into_iter()
            .map(|stored| (stored.index, stored.record))
            .collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn receipts_without_an_acknowledgement_are_found_at_open() {
    let dir = directory();
    let runtime = runtime();
    let (eve, new_year) = (time("2024-12-31T23:59:59Z"), time("2025-01-01T00:00:00Z"));
    let message = |kind, at, i| Record {
        kind,
        ..record(at, i)
    };
    let open = |at| Journal::open(setup(dir.path(), Disk::new()), at).unwrap();
    let waiting = |at| -> BTreeSet<String> {
        let found = open(at).take_unfinished().receipts;
        assert!(found.iter().all(|record| record.kind == Kind::Receipt));
        found.into_iter().map(|record| record.nonce).collect()
    };
    let nonces =
        |of: &[usize]| -> BTreeSet<String> { of.iter().map(|i| record(eve, *i).nonce).collect() };
    runtime.block_on(async {
        let journal = open(eve);
        for i in 1..=4 {
            let receipt = message(Kind::Receipt, eve, i);
            journal.record(receipt).await.unwrap();
        }
        for (at, i) in [(eve, 1), (new_year, 2)] {
            let acknowledgement = message(Kind::Acknowledgement, at, i);
            journal.record(acknowledgement).await.unwrap();
        }
        let receipt = message(Kind::Receipt, new_year, 5);
        journal.record(receipt).await.unwrap();
        // Segments are closed in between, and looked through from the newest to the oldest.
        for i in 0..20 {
            let filler = Record {
                body: vec![0; MAX_RECORD - 200].into(),
                ..message(Kind::Request, new_year, 100 + i)
            };
            journal.record(filler).await.unwrap();
        }
        let acknowledgement = message(Kind::Acknowledgement, new_year, 3);
        journal.record(acknowledgement).await.unwrap();
    });
    let acknowledgements = |at| -> Vec<String> {
        let found = open(at).take_unfinished().acknowledgements;
        found.into_iter().map(|record| record.nonce).collect()
    };
    let in_order =
        |of: &[usize]| -> Vec<String> { of.iter().map(|i| record(eve, *i).nonce).collect() };
    assert_eq!(waiting(new_year), nonces(&[4, 5]));
    assert_eq!(acknowledgements(new_year.plus(WAIT)), in_order(&[2, 3]));
    assert_eq!(waiting(eve.plus(WAIT)), nonces(&[4, 5]));
    assert_eq!(waiting(new_year.plus(WAIT)), nonces(&[5]));
    assert_eq!(waiting(new_year.plus(WAIT + 1)), nonces(&[]));
}

#[test]
fn a_leaf_is_in_the_log_within_a_second_or_so() {
    let dir = directory();
    let runtime = runtime();
    let journal = open(dir.path());
    runtime.block_on(async {
        journal.record(record(now(), 0)).await.unwrap();
        let started = std::time::Instant::now();
        while journal.log().size() == 0 {
            assert!(started.elapsed().as_secs() < 10);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn the_log_keeps_up_under_load() {
    let dir = directory();
    let runtime = runtime();
    let journal = open(dir.path());
    let started = std::time::Instant::now();
    let mut recorded = 0;
    runtime.block_on(async {
        while journal.log().size() == 0 {
            assert!(
                started.elapsed().as_secs() < 10,
                "{recorded} records, none in the log"
            );
            journal.record(record(now(), recorded)).await.unwrap();
            recorded += 1;
        }
    });
}

#[test]
fn a_nonce_opens_one_exchange() {
    let dir = directory();
    let runtime = runtime();
    let opener = |at| Record {
        kind: Kind::Request,
        ..record(at, 1)
    };
    let until = now().plus(300);
    let replayed = |result| matches!(result, Err(JournalError::Replayed { .. }));
    runtime.block_on(async {
        let journal = open(dir.path());
        // Other messages of an exchange use its nonce freely.
        journal.record(opener(now())).await.unwrap();
        let both = tokio::join!(
            journal.record_new(until, opener(now())),
            journal.record_new(until, opener(now()))
        );
        assert!(both.0.is_ok() && replayed(both.1));
        let expired = journal.record_new(now().plus(-1), record(now(), 2)).await;
        assert!(matches!(expired, Err(JournalError::Expiry { .. })));
        drop(journal);
        let journal = open(dir.path());
        assert!(
            replayed(journal.record_new(until, opener(now())).await),
            "forgotten by a restart"
        );
        assert!(replayed(
            journal.record_new(until.plus(9), opener(until)).await
        ));
        let later = until.plus(1);
        journal
            .record_new(later.plus(9), opener(later))
            .await
            .unwrap();
    });
}

#[test]
fn the_year_turns_and_takes_nonces_with_it() {
    let dir = directory();
    let runtime = runtime();
    let (eve, new_year) = (time("2024-12-31T23:59:59Z"), time("2025-01-01T00:00:00Z"));
    runtime.block_on(async {
        let journal = Journal::open(setup(dir.path(), Disk::new()), eve).unwrap();
        let until = new_year.plus(600);
        journal.record_new(until, record(eve, 1)).await.unwrap();
        let turned = journal.record(record(new_year, 2)).await.unwrap();
        assert_eq!(
            turned,
            Position {
                year: 2025,
                index: 0
            }
        );
        assert_eq!(
            journal.record(record(eve, 3)).await.unwrap(),
            Position {
                year: 2025,
                index: 1
            }
        );
        drop(journal);
        assert!(
            stored(dir.path(), 2024)
                .iter()
                .all(|stored| stored.sequenced)
        );
        assert_eq!(stored(dir.path(), 2025).len(), 2);
        let journal = Journal::open(setup(dir.path(), Disk::new()), new_year).unwrap();
        let again = journal.record_new(until, record(new_year, 1)).await;
        assert!(matches!(again, Err(JournalError::Replayed { .. })));
    });
}

#[test]
fn segments_follow_each_other() {
    let dir = directory();
    let runtime = runtime();
    let large = |i| Record {
        body: vec![i as u8; MAX_RECORD - 200].into(),
        ..record(now(), i)
    };
    runtime.block_on(async {
        let journal = open(dir.path());
        for i in 0..20 {
            journal.record(large(i)).await.unwrap();
        }
        let too_large = Record {
            body: vec![0; MAX_RECORD].into(),
            ..record(now(), 0)
        };
        assert!(matches!(
            journal.record(too_large).await,
            Err(JournalError::TooLarge { .. })
        ));
    });
    assert_eq!(stored(dir.path(), 2024).len(), 20);
    let firsts = read::segments(&year_dir(dir.path(), 2024)).unwrap();
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    assert_eq!(
        runtime
            .block_on(open(dir.path()).record(large(20)))
            .unwrap()
            .index,
        20
    );
    // A closed segment that lost a record is damage, not a torn tail.
    let path = segment_path(&year_dir(dir.path(), 2024), firsts[1]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(
        read_all(&year_dir(dir.path(), 2024)),
        Err(JournalError::Corrupt { .. })
    ));
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    let base = directory();
    let runtime = runtime();
    let journal = open(base.path());
    for i in 0..2 {
        runtime.block_on(journal.record(record(now(), i))).unwrap();
    }
    drop(journal);
    let year = year_dir(base.path(), 2024);
    let bytes = fs::read(segment_path(&year, 0)).unwrap();
    let half = bytes.len();
    // A third record as an interrupted write would leave it.
    let journal = open(base.path());
    runtime.block_on(journal.record(record(now(), 2))).unwrap();
    drop(journal);
    let whole = fs::read(segment_path(&year, 0)).unwrap();
    for end in half..whole.len() {
        let dir = directory();
        let torn = year_dir(dir.path(), 2024);
        fs::create_dir_all(torn.join("records")).unwrap();
        fs::write(segment_path(&torn, 0), &whole[..end]).unwrap();
        let journal = open(dir.path());
        runtime.block_on(journal.record(record(now(), 9))).unwrap();
        drop(journal);
        let bodies: Vec<_> = stored(dir.path(), 2024)
            .into_iter()
            .map(|stored| stored.record.body)
            .collect();
        assert_eq!(
            bodies,
            [b"body 0".to_vec(), b"body 1".to_vec(), b"body 9".to_vec()]
        );
    }
    // Cut below what the log has: that is no crash.
    fs::write(segment_path(&year, 0), &whole[..half]).unwrap();
    let refused = Journal::open(setup(base.path(), Disk::new()), now());
    assert!(matches!(refused.err(), Some(JournalError::Corrupt { .. })));
}

#[test]
fn an_altered_record_is_found() {
    let dir = directory();
    let runtime = runtime();
    let journal = open(dir.path());
    for i in 0..3 {
        runtime.block_on(journal.record(record(now(), i))).unwrap();
    }
    drop(journal);
    let year = year_dir(dir.path(), 2024);
    let mut forged = Vec::new();
    for stored in stored(dir.path(), 2024) {
        let mut record = stored.record;
        record.body = [&record.body[..], b"!"].concat().into();
        record::frame(
            &mut forged,
            &stored.key,
            &record::encode(&record, None).unwrap(),
        );
    }
    fs::write(segment_path(&year, 0), forged).unwrap();
    assert!(matches!(read_all(&year), Err(JournalError::Corrupt { .. })));
    assert!(Journal::open(setup(dir.path(), Disk::new()), now()).is_err());
}

/// Runs a script with a fault at step `n`; `false` when it has fewer steps.
fn run(n: u64, failure: Failure, runtime: &tokio::runtime::Runtime) -> bool {
    let dir = directory();
    let faults = Arc::new(FailAt::new(n, failure));
    let disk = Disk::with_faults(faults.clone());
    let mut acknowledged = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let until = now().plus(60);
    if let Ok(journal) = Journal::open(setup(dir.path(), disk.clone()), now()) {
        runtime.block_on(async {
            for i in 0..6 {
                let record = record(now(), i);
                match journal.record_new(until, record.clone()).await {
                    Ok(position) => drop(acknowledged.insert(position.index, record.body)),
                    Err(_) => {
                        refused.insert(i);
                    }
                }
                if i % 2 == 1 {
                    let _ = journal.sequence().await;
                }
            }
            faults.repair();
            // Whoever was refused asks again with the same nonce, once there is space.
            for i in refused {
                let record = record(now(), i);
                let position = journal.record_new(until, record.clone()).await.unwrap();
                assert!(acknowledged.insert(position.index, record.body).is_none());
            }
            journal.sequence().await.unwrap();
        });
    }
    faults.repair();
    let journal = Journal::open(setup(dir.path(), disk), now()).unwrap();
    let last = runtime.block_on(journal.record(record(now(), 99))).unwrap();
    acknowledged.insert(last.index, record(now(), 99).body);
    drop(journal);
    let all = stored(dir.path(), 2024);
    assert!(
        all.iter().all(|stored| stored.sequenced),
        "{failure:?} at {n}"
    );
    let found: BTreeMap<_, _> = all
        .into_iter()
        .map(|stored| (stored.index, stored.record.body))
        .collect();
    assert_eq!(found, acknowledged, "{failure:?} at {n}");
    faults.reached(n)
}

#[test]
fn every_step_fails_in_every_way() {
    let runtime = runtime();
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        let steps = (1..).take_while(|n| run(*n, failure, &runtime)).count();
        assert!(steps > 50, "only {steps} steps were tried");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().exists() {
            // A file may vanish while another thread works; so it may in a crash.
            let _ = fs::copy(entry.path(), target);
        }
    }
}

/// Kills the node before every step: the directory is copied as it then is, and opened anew.
#[test]
fn killed_before_every_step() {
    struct Copies {
        from: PathBuf,
        to: PathBuf,
        taken: Mutex<usize>,
    }
    impl Faults for Copies {
        fn before(&self, _: Operation, _: &Path) -> std::io::Result<()> {
            let mut taken = self.taken.lock().unwrap();
            if self.from.join("fr.bre").exists() {
                copy(&self.from, &self.to.join(taken.to_string()));
                *taken += 1;
            }
            Ok(())
        }
    }
    let (dir, copies) = (directory(), directory());
    let faults = Arc::new(Copies {
        from: dir.path().to_owned(),
        to: copies.path().to_owned(),
        taken: Mutex::new(0),
    });
    let runtime = runtime();
    let mut acknowledged = Vec::new();
    let journal =
        Journal::open(setup(dir.path(), Disk::with_faults(faults.clone())), now()).unwrap();
    for i in 0..5 {
        runtime.block_on(journal.record(record(now(), i))).unwrap();
        acknowledged.push(*faults.taken.lock().unwrap());
        runtime.block_on(journal.sequence()).unwrap();
    }
    drop(journal);
    for copy in 0..*faults.taken.lock().unwrap() {
        let copied = copies.path().join(copy.to_string());
        let before = LogReader::open(&log_dir(&year_dir(&copied, 2024)))
            .unwrap()
            .size();
        drop(open(&copied));
        let all = stored(&copied, 2024);
        let least = acknowledged.iter().filter(|at| **at <= copy).count();
        assert!(
            (least..=least + 1).contains(&all.len()),
            "copy {copy}: {} records, {least} acknowledged",
            all.len()
        );
        assert!(before <= all.len() as u64);
        for (i, stored) in all.iter().enumerate() {
            assert!(stored.sequenced);
            assert_eq!(stored.record, record(now(), i));
        }
    }
}
