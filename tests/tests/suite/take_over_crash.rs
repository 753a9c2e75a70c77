//! A take-over that is broken off: by `kill -9` of the command, of a node that goes over, and at each
//! step that changes a disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::statement::{Head, Predicate, Root, Statement};
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::disk::faults::{FailAt, Failure};
use jingwei_registry::found::sign_together;
use jingwei_registry::keyfile;
use jingwei_registry::registry::Paths;
use jingwei_registry::replica::{Misbehaviour, Replica, ReplicaError};
use jingwei_registry::source::Source;
use jingwei_registry::take_over;
use jingwei_tests::local::runtime;
use jingwei_tests::programs::{copy_dir, eventually};
use jingwei_tests::reading::LogFiles;
use jingwei_tests::{Node, Ran};

use crate::take_over::{Unequal, signed_by, take_over, texts};

const ROUNDS: u64 = 12;

#[test]
fn a_take_over_survives_kill_9_at_the_registry_and_at_nodes() {
    let unequal = Unequal::new();
    let keys = signed_by(&unequal.safe, 2);
    let dir = unequal.place("new");
    for round in 0..ROUNDS {
        killed(take_over(&unequal.a.dir, &dir, &texts(&keys)), round * 8);
    }
    let last = Ran::run(&mut take_over(&unequal.a.dir, &dir, &texts(&keys)));
    // One of those that were killed may have come to its end.
    assert!(last.code == 0 || last.stderr.contains("complete"), "{last}");
    let mut registry = unequal.federation.registry.successor(&dir);
    registry.start();
    let log = LogFiles::read(&dir.join("log"));
    for round in 0..ROUNDS {
        let name = format!("copy-{round}");
        copy_dir(&unequal.b.dir, &unequal.place(&name));
        let mut node = Node::new(unequal.federation.dir.path(), &name);
        node.listen = unequal.b.listen;
        killed(node.command(&["follow", &registry.url()]), round * 8);
        node.run(&["follow", &registry.url()]).ok();
        let replica = LogFiles::read(&node.dir.join("replica/log"));
        assert_eq!(replica.size(), log.size());
        assert_eq!(replica.root_at(log.size()), log.root_at(log.size()));
    }
    // A running node that is killed while it goes over.
    let mut node = unequal.b;
    node.start();
    let mut follow = node.command(&["follow", &registry.url()]);
    let mut following = follow
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    node.kill9();
    following.wait().unwrap();
    node.start();
    node.run(&["follow", &registry.url()]).ok();
    eventually("it is at one with the registry", || {
        node.status()
            .is_ok_and(|status| status.log_size >= log.size())
    });
}

/// Runs a command and ends it after so many milliseconds.
fn killed(mut command: Command, milliseconds: u64) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // Different moments; what matters is that each of them is survived.
    std::thread::sleep(Duration::from_millis(milliseconds));
    let _ = child.kill();
    child.wait().expect("it ends");
}

const FAILURES: [Failure; 3] = [Failure::Once, Failure::FromThenOn, Failure::Persisted];

/// Tries again as long as a directory is locked: a process that another test is starting shares this
/// one's locks for a moment, also those that were let go of.
fn unshared<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    loop {
        match attempt() {
            Err(reason) if reason.contains("in use by this process") => std::thread::yield_now(),
            done => return done,
        }
    }
}

/// What comes of it if the disk fails at one step.
fn failing<T>(
    step: u64,
    failure: Failure,
    attempt: impl Fn(Disk) -> Result<T, String>,
) -> (Arc<FailAt>, Result<T, String>) {
    let mut faults = Arc::new(FailAt::new(step, failure));
    let result = unshared(|| {
        faults = Arc::new(FailAt::new(step, failure));
        attempt(Disk::with_faults(faults.clone()))
    });
    (faults, result)
}

/// What fails at one step, whichever it is, is complete after the next start.
#[test]
fn a_node_goes_over_whichever_step_of_its_disk_fails() {
    let unequal = Unequal::new();
    let registry = unequal.taken_over(&unequal.a, "new");
    let log = LogFiles::read(&registry.dir.join("log"));
    let before = LogFiles::read(&unequal.b.dir.join("replica/log"));
    let source = Source::new(&registry.url()).unwrap();
    let advance = |dir: &Path, disk: Disk| -> Result<(), String> {
        let replica = Replica::open(dir, &before.origin, registry.root(), disk);
        let replica = replica.map_err(|error| error.to_string())?;
        let clock = clock::system();
        let advanced = runtime().block_on(replica.advance(&source, Duration::ZERO, &clock));
        advanced.map_err(|error| error.to_string())
    };
    for failure in FAILURES {
        for step in 1.. {
            let dir = unequal.place(&format!("{failure:?}-{step}"));
            copy_dir(&unequal.b.dir.join("replica"), &dir);
            let (faults, broken) = failing(step, failure, |disk| advance(&dir, disk));
            if !faults.reached(step) {
                broken.unwrap();
                assert!(step > 20, "only {step} steps were seen");
                break;
            }
            let shown = LogFiles::read(&dir.join("log"));
            let old = shown.origin == before.origin && shown.size() == before.size();
            assert!(old || (&shown.origin, shown.size()) == (&log.origin, log.size()));
            let again = unshared(|| advance(&dir, Disk::new()));
            again.unwrap_or_else(|error| panic!("{failure:?} {step}: {error}"));
            let shown = LogFiles::read(&dir.join("log"));
            assert_eq!((&shown.origin, shown.size()), (&log.origin, log.size()));
            assert_eq!(shown.root_at(log.size()), log.root_at(log.size()));
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

/// A node that was killed on its way to a signed checkpoint holds entries that it does not show yet.
#[test]
fn entries_that_are_stored_and_not_shown_yet_are_not_left_out_either() {
    let unequal = Unequal::new();
    let registry = unequal.taken_over(&unequal.b, "short");
    let dir = unequal.place("on-the-way");
    copy_dir(&unequal.a.dir.join("replica"), &dir);
    let behind = unequal.b.dir.join("replica");
    for file in ["highest", "log/checkpoint"] {
        std::fs::copy(behind.join(file), dir.join(file)).unwrap();
    }
    std::fs::remove_dir_all(dir.join("index")).unwrap();
    let shown = LogFiles::read(&dir.join("log"));
    let replica = Replica::open(&dir, &shown.origin, registry.root(), Disk::new()).unwrap();
    assert_eq!(replica.log().size(), shown.size());
    let source = Source::new(&registry.url()).unwrap();
    let clock = clock::system();
    let advanced = runtime().block_on(replica.advance(&source, Duration::ZERO, &clock));
    let Err(ReplicaError::Misbehaviour(Misbehaviour::ShortTakeOver {
        after, verified, ..
    })) = advanced
    else {
        panic!("{advanced:?}");
    };
    assert_eq!((after, verified), (shown.size(), shown.size() + 1));
}

/// Whichever step a node was killed at, all that it has committed is taken over.
#[test]
fn a_replica_is_taken_over_as_its_node_left_it() {
    let unequal = Unequal::new();
    let registry = unequal.taken_over(&unequal.a, "new");
    let log = LogFiles::read(&registry.dir.join("log"));
    let source = Source::new(&registry.url()).unwrap();
    let clock = clock::system();
    let mut sizes = Vec::new();
    for step in 1.. {
        let node = unequal.place(&format!("node-{step}"));
        let dir = node.join("replica");
        let (faults, _) = failing(step, Failure::FromThenOn, |disk| {
            let _ = std::fs::remove_dir_all(&node);
            copy_dir(&unequal.b.dir.join("replica"), &dir);
            let replica = Replica::open(&dir, &log.origin, registry.root(), disk);
            let replica = replica.map_err(|error| error.to_string())?;
            let advanced = runtime().block_on(replica.advance(&source, Duration::ZERO, &clock));
            advanced.map_err(|error| error.to_string())
        });
        if !faults.reached(step) {
            break;
        }
        let paths = Paths::new(&unequal.place(&format!("again-{step}")));
        let copied = unshared(|| {
            let replica = take_over::Replica::open(&node).map_err(|fault| fault.to_string())?;
            let copied = replica.copy_to(&paths, Disk::new());
            copied.map_err(|fault| fault.to_string())
        });
        let copied = copied.unwrap_or_else(|fault| panic!("{step}: {fault}"));
        let size = copied.continues.size;
        assert_eq!(copied.continues.root, log.root_at(size));
        sizes.push(size);
    }
    // Before the commit it is the old log, and after it the new one.
    assert!(sizes.is_sorted());
    assert!(sizes.first() < sizes.last() && sizes.last() == Some(&log.size()));
}

#[test]
fn a_registry_is_taken_over_whichever_step_of_its_disk_fails() {
    let unequal = Unequal::new();
    let from = take_over::Replica::open(&unequal.a.dir).unwrap();
    let keys: Vec<SecretKey> = (1..=2)
        .map(|n| keyfile::load(&unequal.safe.join(format!("{n}.pem"))).unwrap())
        .collect();
    let signers: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
    let whole = |paths: &Paths, disk: Disk| -> Result<u64, String> {
        let copied = from
            .copy_to(paths, disk.clone())
            .map_err(|fault| fault.to_string())?;
        let envelope = sign_together(&proposed(&copied), &signers, 2);
        let finished = take_over::finish(paths, &envelope, &clock::system(), disk);
        finished.map_err(|fault| fault.to_string())
    };
    for failure in FAILURES {
        for step in 1.. {
            let dir = unequal.place(&format!("{failure:?}-{step}"));
            let paths = Paths::new(&dir);
            let (faults, broken) = failing(step, failure, |disk| whole(&paths, disk));
            if !faults.reached(step) {
                broken.unwrap();
                assert!(step > 20, "only {step} steps were seen");
                break;
            }
            let again = unshared(|| whole(&paths, Disk::new()));
            if let Err(reason) = again {
                // The root is in, and was not shown: that is done when it is served.
                assert!(reason.contains("complete there, serve it"), "{reason}");
                let mut registry = unequal.federation.registry.successor(&dir);
                registry.start();
                registry.kill9();
            }
            let log = LogFiles::read(&dir.join("log"));
            let held = LogFiles::read(&unequal.a.dir.join("replica/log"));
            assert_eq!(log.size(), held.size() + 1, "{failure:?} {step}");
            assert_eq!(log.root_at(held.size()), held.root_at(held.size()));
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

/// What `take-over` proposes to the keepers of the root keys.
pub(crate) fn proposed(copied: &take_over::Copied) -> Statement {
    let root = &copied.root;
    Statement {
        head: Head {
            federation: root.federation.clone(),
            agency: None,
            time: copied.dated,
            sequence: root.chain.sequence + 1,
            previous: Some(root.chain.payload),
        },
        predicate: Predicate::Root(Root {
            version: root.chain.sequence + 1,
            keys: root.keys.clone(),
            threshold: root.threshold,
            registry: copied.registry.clone(),
            witnesses: root.witnesses.clone(),
            quorum: root.quorum,
            rules: root.rules,
            recovery_delay: root.recovery_delay,
            continues: Some(copied.continues.clone()),
            consents: Vec::new(),
        }),
    }
}
