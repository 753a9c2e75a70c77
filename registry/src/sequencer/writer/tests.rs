//! Batches that are admitted while the one before is being committed.

use std::path::Path;
use std::sync::Arc;

use jingwei_proto::key::SecretKey;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use super::*;
use crate::clock;
use crate::disk::Disk;
use crate::disk::faults::Full;
use crate::fault::Blame;
use crate::found::{Founded, Plan, found};
use crate::index::{Behind, Index};
use crate::keyring::Ring;
use crate::log::tests::directory;
use crate::paths::Paths;
use crate::publishing::Publishing;
use crate::queue::queue;
use crate::quota::SubmitLimits;
use crate::registry::tests::{announcement, enrolment};

type Answer = Receiver<Result<Place, Fault>>;

/// Statements that wait, and where their submitters hear.
fn waiting<const N: usize>(envelopes: [&Envelope; N]) -> (VecDeque<Submission>, [Answer; N]) {
    let mut waiting = VecDeque::new();
    let answers = envelopes.map(|envelope| {
        let (reply, answer) = oneshot::channel();
        let work = Work::Statement(Arc::new(envelope.clone()));
        waiting.push_back(Submission { work, reply });
        answer
    });
    (waiting, answers)
}

fn heard(answer: Answer) -> Result<u64, Blame> {
    let placed = answer.blocking_recv().unwrap();
    placed.map(|place| place.index).map_err(|fault| fault.blame)
}

fn writer(dir: &Path, founded: &Founded, disk: Disk) -> Writer {
    let paths = Paths::new(dir);
    let log = paths
        .open_log(disk, &founded.federation.registry_origin(1))
        .unwrap();
    let index = Index::open(&paths.index(), &log.committed()).unwrap();
    let root = index.root().unwrap().unwrap();
    let ring = Ring::new(&paths);
    let keys = ring.find(&root.registry).unwrap();
    let (log, _) = Publishing::start(log, root, keys, clock::system(), Vec::new()).unwrap();
    let committer = Committer {
        log,
        behind: Behind::start(index.clone()).unwrap(),
        index,
        ring: Box::new(Unchanged),
        clock: clock::system(),
    };
    Writer::new(committer).unwrap()
}

/// No root changes here.
struct Unchanged;

impl super::super::KeyRing for Unchanged {
    fn keys_of(
        &self,
        _: &jingwei_proto::statement::RegistryKeys,
    ) -> Result<super::super::LogKeys, String> {
        Err("there are no others".into())
    }

    fn in_force(&self, _: &jingwei_proto::statement::RegistryKeys) {}
}

#[test]
fn a_verdict_that_rests_on_others_of_its_batch_waits_for_them() {
    let (dir, now) = (directory(), clock::system()());
    let founded = found(dir.path(), &Plan::new("test", 1, 1), now, Disk::new()).unwrap();
    let disk = Arc::new(Full::default());
    let mut writer = writer(dir.path(), &founded, Disk::with_faults(disk.clone()));
    let (_queue, mut submissions) = queue(SubmitLimits::default().queue);
    let key = SecretKey::generate();
    let (mut first, [enrolled]) = waiting([&enrolment(&founded, "aa", &key, now)]);
    writer.take(&mut first, &mut submissions);
    assert_eq!(heard(enrolled), Ok(1));
    // Two announcements in the same place: the second is late only where the first is in the log.
    let [node, late] = [(); 2].map(|()| announcement(&founded, &key, None, now));
    for (full, verdicts) in [
        (true, [Err(Blame::Unavailable), Err(Blame::Unavailable)]),
        (false, [Ok(2), Err(Blame::Stale)]),
    ] {
        disk.set(full);
        let (mut both, answers) = waiting([&node, &late]);
        while !both.is_empty() {
            writer.take(&mut both, &mut submissions);
        }
        assert_eq!(answers.map(heard), verdicts);
    }
    // A root that the rules do not admit is one statement among others.
    let root = writer.committer.home().log.committed().envelope(0).unwrap();
    let root = Envelope::parse(&root).unwrap();
    let next = announcement(&founded, &key, Some(&node), now);
    let (mut all, answers) = waiting([&next, &root, &late]);
    writer.take(&mut all, &mut submissions);
    assert!(all.is_empty());
    assert_eq!(answers.map(heard), [Ok(3), Ok(0), Err(Blame::Stale)]);
}

#[test]
fn what_was_admitted_on_top_of_a_failed_commit_is_admitted_again() {
    let (dir, now) = (directory(), clock::system()());
    let founded = found(dir.path(), &Plan::new("test", 1, 1), now, Disk::new()).unwrap();
    let disk = Arc::new(Full::default());
    let mut writer = writer(dir.path(), &founded, Disk::with_faults(disk.clone()));
    let (_queue, mut submissions) = queue(SubmitLimits::default().queue);
    let mut take = |waiting: &mut VecDeque<Submission>| writer.take(waiting, &mut submissions);
    let key = SecretKey::generate();
    let (mut first, [enrolled]) = waiting([&enrolment(&founded, "aa", &key, now)]);
    take(&mut first);
    assert_eq!(heard(enrolled), Ok(1));
    let node = announcement(&founded, &key, None, now);
    let next = announcement(&founded, &key, Some(&node), now);
    let other = enrolment(&founded, "bb", &SecretKey::generate(), now);

    disk.set(true);
    let (mut one, [refused]) = waiting([&node]);
    take(&mut one);
    // On top of the first, the second is good; nobody hears that before the first is in the log.
    let (mut two, [mut second, mut third]) = waiting([&next, &other]);
    take(&mut two);
    assert_eq!(two.len(), 2);
    assert_eq!(heard(refused), Err(Blame::Unavailable));
    assert_eq!(second.try_recv().err(), Some(TryRecvError::Empty));
    assert_eq!(third.try_recv().err(), Some(TryRecvError::Empty));
    disk.set(false);
    take(&mut two);
    assert_eq!(heard(second), Err(Blame::Stale));
    assert_eq!(heard(third), Ok(2));

    // Where the disk has room, the second follows the first though that is not yet durable.
    let (mut one, [first]) = waiting([&node]);
    let (mut two, [second, again]) = waiting([&next, &node]);
    take(&mut one);
    take(&mut two);
    assert!(one.is_empty() && two.is_empty());
    let places = [first, second, again].map(heard);
    assert_eq!(places, [Ok(3), Ok(4), Ok(3)]);
}

#[test]
fn a_batch_that_fills_a_tile_ends_with_one() {
    let (dir, now) = (directory(), clock::system()());
    let founded = found(dir.path(), &Plan::new("test", 1, 1), now, Disk::new()).unwrap();
    let mut writer = writer(dir.path(), &founded, Disk::new());
    let (sender, mut submissions) = queue(SubmitLimits::default().queue);
    let mut numbers = 1..;
    let mut push = |count| {
        let mut last = None;
        for number in numbers.by_ref().take(count) {
            let key = SecretKey::generate();
            let enrolled = enrolment(&founded, &format!("a{number}"), &key, now);
            let (mut one, [answer]) = waiting([&enrolled]);
            let submission = one.pop_front().unwrap();
            assert!(sender.push(&Payer::Keepers, 1, submission).is_ok());
            last = Some(answer);
        }
        last.unwrap()
    };
    let mut sizes = || {
        writer.take(&mut VecDeque::new(), &mut submissions);
        (writer.committer.home().log.size(), submissions.waiting())
    };
    // The root stands there already.
    let last = push(599);
    assert_eq!([sizes(), sizes()], [(512, 88), (600, 0)]);
    assert_eq!(heard(last), Ok(599));
    // Less than a tile's width goes in at once, wherever it ends.
    let last = push(255);
    assert_eq!(sizes(), (855, 0));
    assert_eq!(heard(last), Ok(854));
    let last = push(300);
    assert_eq!(sizes(), (1_155, 0));
    assert_eq!(heard(last), Ok(1_154));
    let last = push(400);
    assert_eq!([sizes(), sizes()], [(1_536, 19), (1_555, 0)]);
    assert_eq!(heard(last), Ok(1_554));
}
