//! A registry on a full disk: what its submitters are told, and that it goes on where it was.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jingwei_proto::key::{KeyId, SecretKey, Signer};
use jingwei_proto::statement::{Head, Node, Predicate, Statement};

use super::*;
use crate::clock;
use crate::disk::faults::{FailAt, Failure, Faults, Operation, full};
use crate::enrolment::{Profile, Proposal, parse_territory, propose};
use crate::fault::{Blame, Fault};
use crate::found::{Founded, Plan, found, sign_together};
use crate::log::tests::directory;
use crate::log::tests::faults::copy;

/// The enrolment of a national agency, signed by the only root key.
pub(crate) fn enrolment(founded: &Founded, id: &str, key: &SecretKey, now: Time) -> Envelope {
    let profile = Profile {
        id: id.parse().unwrap(),
        name: id.to_uppercase(),
        level: 1,
        territory: parse_territory("test@1:A").unwrap(),
        roles: Vec::new(),
    };
    let proposal = propose(&profile, &founded.federation, key, now);
    let proposal = Proposal::parse(&proposal.to_bytes()).unwrap();
    let root_key: SecretKey = keyfile::load(&founded.root_keys[0]).unwrap();
    sign_together(&proposal.statement(), &[&root_key as &dyn Signer], 1)
}

/// Closes a registry as [`Registry::serve`] does, so that it can be opened again.
fn close(registry: Registry) {
    let Registry {
        sequencer,
        writer,
        index,
        ..
    } = registry;
    drop((sequencer, index));
    writer.join().unwrap();
}

/// Opens a registry whose directory was let go of a moment ago. A child that another test is just
/// starting has the lock too, until it has become its own program.
fn unlocked(open: impl Fn() -> Result<Registry, OpenError>) -> Result<Registry, OpenError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Err(OpenError::Locked(_)) if Instant::now() < until => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// What is in the log, read from its files; each statement once.
fn entered(registry: &Registry) -> Vec<Vec<u8>> {
    let log = registry.log();
    audit(log).unwrap();
    let envelopes = log.envelopes(0..log.size()).unwrap();
    let envelopes: Vec<Vec<u8>> = envelopes.map(Result::unwrap).collect();
    let distinct: std::collections::BTreeSet<_> = envelopes.iter().collect();
    assert_eq!(distinct.len(), envelopes.len(), "a statement stands twice");
    envelopes
}

#[tokio::test]
async fn a_full_disk_at_any_write_of_the_log_loses_and_doubles_nothing() {
    let (base, now) = (directory(), clock::system()());
    let clock: Clock = Arc::new(move || now);
    let founded = found(base.path(), &Plan::new("test", 1, 1), now, Disk::new()).unwrap();
    let statements = ["aa", "bb"].map(|id| enrolment(&founded, id, &SecretKey::generate(), now));
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        let mut refused = 0;
        for n in 1.. {
            let at = format!("{failure:?} at step {n}");
            let dir = directory();
            copy(base.path(), dir.path());
            let faults = Arc::new(FailAt::new(n, failure));
            let disk = Disk::with_faults(faults.clone());
            let open = || unlocked(|| Registry::open(dir.path(), clock.clone(), disk.clone()));
            let registry = match open() {
                Ok(registry) => registry,
                Err(error) => {
                    assert!(
                        error.to_string().contains("no storage space"),
                        "{at}: {error}"
                    );
                    faults.repair();
                    open().unwrap_or_else(|error| panic!("{at}: {error}"))
                }
            };
            let first = registry.sequencer().submit(statements[0].clone()).await;
            if let Err(fault) = &first {
                assert_eq!(fault.blame, Blame::Unavailable, "{at}: {fault}");
                assert!(
                    fault.message.contains("cannot write its log"),
                    "{at}: {fault}"
                );
                refused += 1;
            }
            let reached = faults.reached(n);
            faults.repair();
            for (place, statement) in (1..).zip(&statements) {
                let again = registry.sequencer().submit(statement.clone()).await;
                let index = again.unwrap_or_else(|fault| panic!("{at}: {fault}")).index;
                assert_eq!(index, place, "{at}");
            }
            let before = entered(&registry);
            assert_eq!(
                before[1..],
                statements.each_ref().map(Envelope::to_bytes),
                "{at}"
            );
            close(registry);
            let registry = open().unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(entered(&registry), before, "{at}");
            close(registry);
            if !reached {
                assert!(first.is_ok() && n > 20, "{at}: so few steps, or {first:?}");
                break;
            }
        }
        assert!(
            refused > 5,
            "{failure:?}: only {refused} submissions met a full disk"
        );
    }
}

/// A disk that takes no tiles while it is told so.
#[derive(Default)]
struct NoTiles(AtomicBool);

impl Faults for NoTiles {
    fn before(&self, _: Operation, path: &Path) -> io::Result<()> {
        let tile = path.components().any(|part| part.as_os_str() == "tile");
        match tile && self.0.load(Ordering::SeqCst) {
            true => Err(full()),
            false => Ok(()),
        }
    }
}

/// The announcement of a node, the first or the one after `before`.
pub(crate) fn announcement(
    founded: &Founded,
    key: &SecretKey,
    before: Option<&Envelope>,
    now: Time,
) -> Envelope {
    let head = Head {
        federation: founded.federation.clone(),
        agency: Some("aa".parse().unwrap()),
        time: now,
        sequence: 1 + u64::from(before.is_some()),
        previous: before.map(Envelope::payload_digest),
    };
    let predicate = Predicate::Node(Node {
        address: "aa.example:7100".to_owned(),
        tls: vec![KeyId::of_spki(b"tls")],
        journal: SecretKey::generate().public().clone(),
        witness: SecretKey::generate().public().clone(),
    });
    Statement { head, predicate }.sign(key)
}

#[tokio::test]
async fn what_is_in_the_log_is_found_though_its_writer_is_stuck() {
    let (dir, now) = (directory(), clock::system()());
    let founded = found(dir.path(), &Plan::new("test", 1, 1), now, Disk::new()).unwrap();
    let key = SecretKey::generate();
    let faults = Arc::new(NoTiles::default());
    let disk = Disk::with_faults(faults.clone());
    let clock: Clock = Arc::new(move || now);
    let registry = unlocked(|| Registry::open(dir.path(), clock.clone(), disk.clone())).unwrap();
    let submit = |envelope: &Envelope| registry.sequencer().submit(envelope.clone());
    submit(&enrolment(&founded, "aa", &key, now)).await.unwrap();
    let first = announcement(&founded, &key, None, now);
    let place = submit(&first).await.unwrap().index;
    // Committed, and not to be finished.
    faults.0.store(true, Ordering::SeqCst);
    let second = announcement(&founded, &key, Some(&first), now);
    for _ in 0..2 {
        let fault = submit(&second).await.unwrap_err();
        assert_eq!(fault.blame, Blame::Unavailable, "{fault}");
        assert_eq!(submit(&first).await.unwrap().index, place);
    }
    faults.0.store(false, Ordering::SeqCst);
    assert_eq!(submit(&second).await.unwrap().index, place + 1);
    close(registry);
}

#[tokio::test]
async fn of_statements_that_come_together_each_is_judged_by_itself() {
    let (dir, now) = (directory(), clock::system()());
    let founded = found(dir.path(), &Plan::new("test", 1, 1), now, Disk::new()).unwrap();
    let key = SecretKey::generate();
    let clock: Clock = Arc::new(move || now);
    let registry = unlocked(|| Registry::open(dir.path(), clock.clone(), Disk::new())).unwrap();
    let enrolled = enrolment(&founded, "aa", &key, now);
    registry.sequencer().submit(enrolled).await.unwrap();
    let first = announcement(&founded, &key, None, now);
    let second = announcement(&founded, &key, Some(&first), now);
    let mut signature = *second.signature();
    signature[40] ^= 1;
    let forged = Envelope::from_parts(second.payload().to_vec(), second.key(), signature);
    let unreadable = Fault::new(Blame::Malformed, "no envelope");
    let together = vec![Ok(first), Ok(forged), Err(unreadable), Ok(second)];
    let from = std::net::IpAddr::from([127, 0, 0, 1]).into();
    let outcomes = registry.sequencer().submit_all_from(from, together).await;
    let outcomes: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.map(|accepted| accepted.index))
        .map(|outcome| outcome.map_err(|fault| fault.blame))
        .collect();
    let expected = [Ok(2), Err(Blame::Forged), Err(Blame::Malformed), Ok(3)];
    assert_eq!(outcomes, expected);
    close(registry);
}
