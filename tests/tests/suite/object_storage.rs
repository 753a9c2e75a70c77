//! A registry's log in a bucket of an S3-compatible store, with a store that denies, loses and
//! delays, with writers that are killed, and with two writers at once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::SecretKey;
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Blame;
use jingwei_registry::log::{AppendError, Entry, Log, LogError, LogReader, Patience, Storage};
use jingwei_registry::replica::Replica;
use jingwei_registry::source::Source;
use jingwei_tests::Registry;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Files, LyingRegistry};
use jingwei_tests::programs::copy_dir;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::s3::{Failing, S3, THE_BUCKET, Trouble};

const ORIGIN: &str = "jingwei/test-0000000000000000/registry/1";

/// Long enough for a loaded machine to answer.
const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(10),
    call: Duration::from_secs(60),
};
/// For calls that are never answered.
const SHORT: Patience = Patience {
    answer: Duration::from_secs(1),
    call: Duration::from_secs(3),
};
/// For a writer that gives up before its store recovers.
const NONE: Patience = Patience {
    answer: Duration::from_secs(10),
    call: Duration::from_millis(150),
};

fn seal(checkpoint: &Checkpoint) -> Result<String, std::convert::Infallible> {
    let signed = checkpoint.sign(&SecretKey::from_seed(&[7; 32]));
    Ok(signed.expect("a name that fits a note").to_string())
}

fn entries(from: u64, count: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        leaf: format!("leaf {index}").into_bytes(),
        envelope: Some(format!("envelope of {index}").into_bytes()),
    };
    (from..from + count).map(entry).collect()
}

fn open(s3: &S3, prefix: &str, patience: Patience) -> Result<Log, LogError> {
    let storage: Arc<dyn Storage> = Arc::new(s3.objects(prefix, patience));
    Log::open_in(storage, ORIGIN)
}

/// The names and contents of all objects of a log.
fn objects(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Batches after the first 250 entries: they end at 255, 256 and 257.
const SCRIPT: [u64; 3] = [5, 1, 1];
const BEGIN: u64 = 250;
/// All that a commit puts, and what else it and the next start ask of the store.
const CALLS: [(Method, &str); 12] = [
    (Method::PUT, "staged"),
    (Method::PUT, "commit"),
    (Method::PUT, "tile/0/"),
    (Method::PUT, "tile/1/"),
    (Method::PUT, "tile/entries/"),
    (Method::PUT, "tile/envelopes/"),
    (Method::PUT, "checkpoint"),
    (Method::GET, "commit"),
    (Method::GET, "tile/"),
    (Method::GET, "checkpoint"),
    (Method::GET, THE_BUCKET),
    (Method::POST, THE_BUCKET),
];

/// Runs the script, whatever happens: a writer goes on after an error, and starts again when it
/// cannot.
fn grow(s3: &S3, prefix: &str, patience: Patience) {
    let mut opened = None;
    let mut ends = SCRIPT.iter().scan(BEGIN, |end, count| {
        *end += count;
        Some(*end)
    });
    let mut end = ends.next();
    for _ in 0..60 {
        let Some(goal) = end else { return };
        let Some(mut log) = opened.take() else {
            opened = open(s3, prefix, patience).ok();
            continue;
        };
        let size = log.size();
        let stuck = if size < goal {
            let appended = log.append(&entries(size, goal - size), seal);
            appended.is_err() && log.complete().is_err()
        } else {
            log.publish_sealed().is_err()
        };
        if log.reader().size() == goal {
            end = ends.next();
        }
        opened = (!stuck).then_some(log);
    }
    panic!("{prefix}: the log never recovers");
}

/// Each call about each object of a commit, each way to fail, once and twice in a row: the bucket ends up the same.
#[test]
fn every_call_fails_in_every_way() {
    let troubles = [
        (Trouble::Denied(500), [1, 2], PATIENCE),
        (Trouble::Denied(409), [1, 2], PATIENCE),
        (Trouble::Disowned(503), [1, 2], PATIENCE),
        (Trouble::Disowned(409), [1, 2], PATIENCE),
        (Trouble::Lost, [1, 2], PATIENCE),
        (Trouble::Silent, [1, 2], SHORT),
        // Longer than patience lasts: the writer is told, and asks again or starts again.
        (Trouble::Denied(503), [5, 10], NONE),
        (Trouble::Disowned(500), [5, 10], NONE),
    ];
    std::thread::scope(|scope| {
        for (trouble, times, patience) in troubles {
            scope.spawn(move || fails_in(trouble, times, patience));
        }
    });
}

fn fails_in(trouble: Trouble, often: [u32; 2], patience: Patience) {
    let s3 = S3::start();
    let mut log = open(&s3, "base", PATIENCE).unwrap();
    log.append_and_publish(&entries(0, BEGIN), seal).unwrap();
    let copy = |prefix: &str| copy_dir(&s3.files("base"), &s3.files(prefix));
    copy("clean");
    grow(&s3, "clean", PATIENCE);
    let clean = objects(&s3.files("clean"));
    assert!(clean.contains_key(Path::new("tile/0/000")));
    for (method, name) in CALLS {
        for times in often {
            let failing = Failing {
                method: method.clone(),
                name,
                trouble,
                times,
            };
            let prefix = format!("{method}-{}-{times}", name.replace(['/', '?'], "-"));
            copy(&prefix);
            s3.fail(failing.clone());
            grow(&s3, &prefix, patience);
            assert!(s3.failures_left() < times, "{failing:?} never came");
            s3.fail(Failing {
                times: 0,
                ..failing.clone()
            });
            // What could not be cleaned up, the next start does.
            drop(open(&s3, &prefix, PATIENCE).unwrap());
            same(&objects(&s3.files(&prefix)), &clean, &failing);
        }
    }
}

#[track_caller]
fn same(found: &BTreeMap<PathBuf, Vec<u8>>, clean: &BTreeMap<PathBuf, Vec<u8>>, failing: &Failing) {
    for (name, bytes) in clean {
        assert_eq!(
            found.get(name),
            Some(bytes),
            "{failing:?}: {}",
            name.display()
        );
    }
    for name in found.keys().filter(|name| !clean.contains_key(*name)) {
        // A partial tile that could not be removed is in nobody's way: the full one is there.
        let path = name.to_str().unwrap();
        let full = path.split(".p/").next().unwrap();
        let spare = full != path && clean.contains_key(Path::new(full));
        assert!(
            spare && failing.method == Method::POST,
            "{failing:?}: {path}"
        );
    }
}

/// A commit record whose put was given up arrives after all: while its writer still waits for it,
/// or after another has taken its place.
#[test]
fn a_commit_record_that_arrives_late() {
    let s3 = S3::start();
    let late = || Failing {
        method: Method::PUT,
        name: "commit",
        trouble: Trouble::Late,
        times: 9,
    };
    let stop = || s3.fail(Failing { times: 0, ..late() });
    for (prefix, killed) in [("waits", false), ("killed", true)] {
        let mut log = open(&s3, prefix, PATIENCE).unwrap();
        log.append_and_publish(&entries(0, 3), seal).unwrap();
        drop(log);
        let mut log = open(&s3, prefix, SHORT).unwrap();
        s3.fail(late());
        let doubtful = log.append(&entries(3, 2), seal);
        assert!(
            matches!(doubtful, Err(AppendError::Unfinished(_))),
            "{doubtful:?}"
        );
        stop();
        if killed {
            // Nobody was told of those two; others take their place.
            log = open(&s3, prefix, PATIENCE).unwrap();
            assert_eq!(log.size(), 3);
            log.append_and_publish(&entries(103, 4), seal).unwrap();
            s3.release();
        } else {
            s3.release();
            log.complete().unwrap();
            log.publish_sealed().unwrap();
            log.append_and_publish(&entries(5, 2), seal).unwrap();
        }
        let size = log.size();
        assert_eq!(size, 7);
        drop(log);
        let log = open(&s3, prefix, PATIENCE).unwrap();
        assert_eq!((log.size(), log.unpublished()), (size, None));
        log.committed().audit().unwrap();
        let leaf = log.reader().leaf(3).unwrap();
        assert_eq!(leaf, entries(if killed { 103 } else { 3 }, 1)[0].leaf);
    }
}

#[test]
fn of_two_writers_on_a_bucket_one_is_fenced_off() {
    let s3 = S3::start();
    let mut log = open(&s3, "log", PATIENCE).unwrap();
    log.append_and_publish(&entries(0, 250), seal).unwrap();
    drop(log);
    let mut slow = open(&s3, "log", PATIENCE).unwrap();
    let mut quick = open(&s3, "log", PATIENCE).unwrap();
    let committed = slow.append(&entries(250, 3), seal).unwrap();
    let late = quick.append(&entries(250, 8), seal);
    assert!(matches!(late, Err(AppendError::Fenced(_))), "{late:?}");
    let mut quick = open(&s3, "log", PATIENCE).unwrap();
    quick.append_and_publish(&entries(253, 8), seal).unwrap();
    // The slow one comes back to publish what it committed.
    let note = seal(&committed).unwrap();
    let refused = slow.publish(&note);
    assert!(
        matches!(refused, Err(LogError::Fenced { .. })),
        "{refused:?}"
    );
    let refused = slow.append(&entries(253, 8), seal);
    assert!(
        matches!(refused, Err(AppendError::Fenced(_))),
        "{refused:?}"
    );
    let reader = LogReader::of(Arc::new(s3.objects("log", PATIENCE))).unwrap();
    assert_eq!(reader.size(), 261);
    reader.audit().unwrap();
}

/// Two at the very same moment, many times: each commit is one writer's.
#[test]
fn writers_race_for_every_commit() {
    let s3 = S3::start();
    open(&s3, "log", PATIENCE)
        .unwrap()
        .append_and_publish(&entries(0, 1), seal)
        .unwrap();
    let write = |who: u64| {
        let mut own = Vec::new();
        let mut tries = 0;
        while own.len() < 12 {
            tries += 1;
            assert!(tries < 400, "one of the writers never gets a turn");
            let Ok(mut log) = open(&s3, "log", PATIENCE) else {
                continue;
            };
            let entry = &entries(who * 1_000 + tries, 1);
            // Committed is what was acknowledged; the other may publish it, or it us.
            if let Ok(committed) = log.append(entry, seal) {
                own.push((committed.size - 1, entry[0].leaf.clone()));
                let _ = log.publish_sealed();
            }
        }
        own
    };
    let mut all = std::thread::scope(|scope| {
        let writers = [1, 2].map(|who| scope.spawn(move || write(who)));
        writers.map(|writer| writer.join().unwrap()).concat()
    });
    all.sort();
    let mut log = open(&s3, "log", PATIENCE).unwrap();
    log.publish_sealed().unwrap();
    log.reader().audit().unwrap();
    for (index, leaf) in all {
        assert_eq!(log.reader().leaf(index).unwrap(), leaf);
    }
}

/// A store that passes over conditions could lose a log at any moment: it is not used at all.
#[test]
fn a_store_that_keeps_no_conditions_is_refused() {
    let s3 = S3::start();
    s3.objects("good", PATIENCE).probe().unwrap();
    assert!(objects(&s3.files("good")).is_empty());
    let careless = S3::careless();
    let refused = careless.objects("bad", PATIENCE).probe().unwrap_err();
    assert!(refused.to_string().contains("If-None-Match"), "{refused}");
}

fn environment(s3: &S3, prefix: &str) -> Vec<(String, String)> {
    let mut environment = s3.environment();
    environment.push(("JINGWEI_REGISTRY_STORAGE".into(), S3::url(prefix)));
    environment
}

/// A registry whose log is in the bucket, and an agency.
fn registry(s3: &S3, dir: &Path) -> (Registry, Agent) {
    let environment = environment(s3, "log");
    let mut registry = Registry::found_in(&dir.join("registry"), "test", &[], environment);
    assert!(!registry.dir.join("log").exists());
    registry.start();
    let agent = Agent::new(&registry, "aa", 7);
    let enrolled = registry.submitter();
    let enrolment = agent.enrolment(&registry);
    runtime().block_on(enrolled.submit(&enrolment)).unwrap();
    (registry, agent)
}

/// Submits until it is entered; the registry may be slow because its store is.
fn enter(registry: &Registry, envelope: &Envelope) -> u64 {
    let submitter = registry.submitter();
    for _ in 0..50 {
        match runtime().block_on(submitter.submit(envelope)) {
            Ok(accepted) => return accepted.index,
            Err(fault) => assert_eq!(fault.blame, Blame::Unavailable, "{fault}"),
        }
    }
    panic!("the registry never enters it");
}

/// `kill -9` again and again while one call of seven fails: what was acknowledged is there once,
/// by an independent reading of the objects, and whoever reads needs no registry for it.
#[test]
fn a_registry_in_a_bucket_is_killed_while_its_store_fails() {
    let s3 = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let (mut registry, agent) = registry(&s3, dir.path());
    let mut acknowledged: HashMap<u64, Envelope> = HashMap::new();
    s3.unreliable(Some(7));
    for round in 0..12 {
        for number in 0..3 {
            let envelope = agent.dataset(&format!("d{round}_{number}"));
            let before = acknowledged.insert(enter(&registry, &envelope), envelope);
            assert!(before.is_none());
        }
        // One more is on its way when it is killed.
        let last = agent.dataset(&format!("last{round}"));
        let submitter = registry.submitter();
        let sent = last.clone();
        let submitting = runtime().spawn(async move { submitter.submit(&sent).await });
        std::thread::sleep(Duration::from_millis(round * 9));
        registry.kill9();
        let told = runtime().block_on(submitting).unwrap();
        registry.start();
        let index = enter(&registry, &last);
        if let Ok(told) = told {
            assert_eq!(told.index, index);
        }
        assert!(acknowledged.insert(index, last).is_none());
    }
    registry.stop();
    s3.unreliable(None);
    let log = LogFiles::read(&s3.files("log"));
    assert_eq!(log.size(), 2 + acknowledged.len() as u64);
    assert!(!log.repeats());
    for (index, envelope) in &acknowledged {
        assert_eq!(log.envelopes[*index as usize], envelope.to_bytes());
    }
    read_without_registry(&s3, &registry, dir.path(), log.size());
}

/// A replica follows the bucket's files as any web server hands them out.
fn read_without_registry(s3: &S3, registry: &Registry, dir: &Path, size: u64) {
    let origin = LogFiles::read(&s3.files("log")).origin;
    let server = LyingRegistry::start(([127, 0, 0, 1], 0).into(), Files::of(&s3.files("log")));
    let place = dir.join("replica");
    let replica = Replica::open(&place, &origin, registry.root(), Disk::new()).unwrap();
    let source = Source::new(&server.url()).unwrap();
    let clock = clock::system();
    let advanced = replica.advance(&source, Duration::ZERO, &clock);
    runtime().block_on(advanced).unwrap();
    assert_eq!(replica.log().size(), size);
}

/// Two registries with the same keys and bucket: one goes on, the other says why it cannot.
#[test]
fn of_two_registries_on_a_bucket_one_is_fenced_off() {
    let s3 = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let (mut first, agent) = registry(&s3, dir.path());
    let mut second = first.double(&dir.path().join("second"));
    second.start();
    enter(&first, &agent.dataset("one"));
    let refused = runtime().block_on(second.submitter().submit(&agent.dataset("two")));
    assert_eq!(refused.unwrap_err().blame, Blame::Unavailable);
    second.logged("was written by somebody else");
    enter(&first, &agent.dataset("three"));
    // Started again it takes up the log as it is, and then the first is the one that is fenced off.
    second.kill9();
    second.start();
    enter(&second, &agent.dataset("two"));
    let refused = runtime().block_on(first.submitter().submit(&agent.dataset("four")));
    assert_eq!(refused.unwrap_err().blame, Blame::Unavailable);
    first.kill9();
    second.stop();
    assert_eq!(LogFiles::read(&s3.files("log")).size(), 5);
}

/// The bucket is put back to what it was: the registry remembers that it has shown more.
#[test]
fn an_old_copy_of_a_bucket_is_refused() {
    let s3 = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let (mut registry, agent) = registry(&s3, dir.path());
    registry.stop();
    let old = objects(&s3.files("log"));
    registry.start();
    enter(&registry, &agent.dataset("one"));
    registry.stop();
    std::fs::remove_dir_all(s3.files("log")).unwrap();
    for (name, bytes) in old {
        let path = s3.files("log").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let said = registry.refuses_to_start().stderr;
    assert!(said.contains("is an old copy"), "{said}");
}
