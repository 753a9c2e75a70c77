//! A registry that lies, with the registry's own keys: every replica notices, keeps what it has
//! verified, and says what is wrong.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, DatasetId};
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::statement::Statement;
use jingwei_registry::clock::Clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::log::Entry;
use jingwei_registry::replica::{Misbehaviour, Replica, ReplicaError};
use jingwei_registry::source::Source;
use jingwei_tests::Federation;
use jingwei_tests::keyring::{Agent, noon};
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Files, Forger, LyingRegistry, altered, entries, entry};
use jingwei_tests::reading::LogFiles;

/// A log of seven honest entries, and a replica of it that reads from a liar.
struct Stage {
    federation: Federation,
    agent: Agent,
    honest: Vec<Entry>,
    forger: Forger,
    liar: LyingRegistry,
    replica: Arc<Replica>,
    count: usize,
}

/// 0 root, 1 the agency, 2 one@1, 3 one@2, 4 two@1, 5 three@1, 6 three@2
const SIZE: u64 = 7;

impl Stage {
    /// The replica has seen all of it.
    fn new() -> Stage {
        let stage = Stage::fresh();
        stage
            .liar
            .show(Files::of(&stage.federation.registry.dir.join("log")));
        stage.advance().unwrap();
        assert_eq!(stage.replica.log().size(), SIZE);
        stage
    }

    /// The replica has seen nothing yet.
    fn fresh() -> Stage {
        let mut federation = Federation::start();
        let agent = Agent::new(&federation.registry, "aa", 7);
        let mut statements = vec![agent.enrolment(&federation.registry)];
        for (name, versions) in [("one", 2), ("two", 1), ("three", 2)] {
            let mut before = None;
            for _ in 0..versions {
                let (statement, envelope) = agent.version(name, before);
                before = Some((statement.head.sequence, envelope.payload_digest()));
                statements.push(envelope);
            }
        }
        let submitter = federation.registry.submitter();
        for statement in &statements {
            runtime().block_on(submitter.submit(statement)).unwrap();
        }
        federation.registry.stop();
        let log = federation.registry.dir.join("log");
        let files = LogFiles::read(&log);
        assert_eq!(files.size(), SIZE);
        let replica = Replica::open(
            &federation.dir.path().join("replica"),
            &files.origin,
            federation.registry.root(),
            Disk::new(),
        )
        .unwrap();
        Stage {
            honest: entries(&log),
            forger: Forger::new(&federation.registry.dir),
            liar: LyingRegistry::start(SocketAddr::from(([127, 0, 0, 1], 0)), Files::default()),
            agent,
            federation,
            replica,
            count: 0,
        }
    }

    fn advance(&self) -> Result<(), ReplicaError> {
        advance(&self.replica, &self.liar)
    }

    fn empty_dir(&mut self) -> PathBuf {
        self.count += 1;
        self.federation
            .dir
            .path()
            .join(format!("lie-{}", self.count))
    }

    /// Shows a log of these entries, sealed with the registry's true keys.
    fn show_sealed(&mut self, entries: &[Entry]) {
        let dir = self.empty_dir();
        self.liar.show(self.forger.write(&dir, entries));
    }

    /// The misbehaviour that the next look at the registry is refused for.
    fn refused(&self) -> Misbehaviour {
        let before = self.replica.log().checkpoint();
        let misbehaviour = match self.advance() {
            Err(ReplicaError::Misbehaviour(misbehaviour)) => misbehaviour,
            other => panic!("the lie was not noticed: {other:?}"),
        };
        // What was verified before is still there, and answers.
        assert_eq!(self.replica.log().checkpoint(), before);
        self.replica.log().audit().unwrap();
        if before.size == SIZE {
            assert_eq!(self.versions("three"), Some(2));
        }
        misbehaviour
    }

    fn alarm(&self) -> Option<String> {
        self.replica.standing().borrow().alarm.clone()
    }

    fn versions(&self, name: &str) -> Option<u64> {
        versions(&self.replica, &self.agent.id, name)
    }
}

fn versions(replica: &Replica, agency: &AgencyId, name: &str) -> Option<u64> {
    let id = DatasetId {
        agency: agency.clone(),
        name: name.parse().unwrap(),
    };
    replica
        .index()
        .newest(&id)
        .unwrap()
        .map(|chain| chain.sequence)
}

fn advance(replica: &Arc<Replica>, liar: &LyingRegistry) -> Result<(), ReplicaError> {
    let source = Source::new(&liar.url()).unwrap();
    let clock: Clock = Arc::new(noon);
    runtime().block_on(replica.advance(&source, Duration::ZERO, &clock))
}

#[test]
fn an_entry_altered_on_the_way_is_noticed() {
    let stage = Stage::fresh();
    let log = stage.federation.registry.dir.join("log");
    for bundle in ["tile/entries/000.p/7", "tile/envelopes/000.p/7"] {
        let honest = std::fs::read(log.join(bundle)).unwrap();
        for at in [40, honest.len() / 2, honest.len() - 20] {
            let mut bytes = honest.clone();
            bytes[at] ^= 1;
            let mut files = Files::of(&log);
            files.instead.insert(bundle.to_owned(), bytes);
            stage.liar.show(files);
            let misbehaviour = stage.refused();
            assert!(
                matches!(
                    misbehaviour,
                    Misbehaviour::Entry { .. } | Misbehaviour::OtherRoot(_)
                ),
                "{misbehaviour}"
            );
            assert_eq!(stage.replica.log().size(), 0);
        }
    }
    // The truth is accepted afterwards.
    stage.liar.show(Files::of(&log));
    stage.advance().unwrap();
    assert_eq!(stage.versions("three"), Some(2));
}

#[test]
fn an_entry_altered_and_sealed_again_is_another_history() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    lie[2] = altered(&lie[2], |text| text.replace("one", "won"));
    stage.show_sealed(&lie);
    let misbehaviour = stage.refused();
    assert!(
        matches!(misbehaviour, Misbehaviour::Forked { size: SIZE, .. }),
        "{misbehaviour}"
    );
}

#[test]
fn an_entry_altered_before_anyone_saw_it_changes_nothing_and_raises_an_alarm() {
    let mut stage = Stage::fresh();
    let mut lie = stage.honest.clone();
    lie[4] = altered(&lie[4], |text| text.replace("two", "owt"));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    let alarm = stage.alarm().expect("an alarm");
    assert!(alarm.contains("entry 4"), "{alarm}");
    assert_eq!((stage.versions("owt"), stage.versions("two")), (None, None));
    assert_eq!(stage.versions("three"), Some(2));
}

#[test]
fn a_dropped_entry_is_noticed() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    let dropped = lie.remove(4);
    stage.show_sealed(&lie);
    let misbehaviour = stage.refused();
    assert_eq!(
        misbehaviour,
        Misbehaviour::Shrunk {
            shown: SIZE - 1,
            verified: SIZE
        }
    );
    // Filled up with another statement, it has the old length but not the old root.
    lie.push(entry(
        &stage.agent.dataset("four"),
        stage.agent.key.public(),
    ));
    stage.show_sealed(&lie);
    assert!(matches!(
        stage.refused(),
        Misbehaviour::Forked { size: SIZE, .. }
    ));
    // Longer than before, with the dropped one at a later place.
    lie.push(dropped);
    stage.show_sealed(&lie);
    let misbehaviour = stage.refused();
    assert!(
        matches!(misbehaviour, Misbehaviour::Forked { .. }),
        "{misbehaviour}"
    );
    assert_eq!(stage.versions("four"), None);
}

#[test]
fn a_gap_in_a_chain_is_noticed_even_by_a_newcomer() {
    let mut stage = Stage::fresh();
    let mut lie = stage.honest.clone();
    lie.remove(2);
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    let alarm = stage.alarm().expect("an alarm");
    assert!(alarm.contains("entry 2"), "{alarm}");
    assert_eq!(
        (stage.versions("one"), stage.versions("two")),
        (None, Some(1))
    );
}

#[test]
fn reordered_entries_are_noticed() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    lie.swap(4, 5);
    stage.show_sealed(&lie);
    assert!(matches!(
        stage.refused(),
        Misbehaviour::Forked { size: SIZE, .. }
    ));

    let mut newcomer = Stage::fresh();
    let mut lie = newcomer.honest.clone();
    lie.swap(2, 3);
    newcomer.show_sealed(&lie);
    newcomer.advance().unwrap();
    assert!(newcomer.alarm().expect("an alarm").contains("entry 2"));
    assert_eq!(newcomer.versions("one"), Some(1));
}

#[test]
fn a_shorter_log_is_noticed_even_after_the_replica_lost_its_files() {
    let mut stage = Stage::new();
    let short = stage.honest[..4].to_vec();
    stage.show_sealed(&short);
    assert_eq!(
        stage.refused(),
        Misbehaviour::Shrunk {
            shown: 4,
            verified: SIZE
        }
    );
    // The highest checkpoint ever verified outlives the log and the index.
    let dir = stage.federation.dir.path().join("replica");
    let (origin, root) = (
        stage.replica.log().checkpoint().origin,
        stage.federation.registry.root(),
    );
    let Stage {
        replica,
        liar,
        federation,
        agent,
        honest,
        forger,
        ..
    } = stage;
    drop(replica);
    for lost in ["log", "index"] {
        std::fs::remove_dir_all(dir.join(lost)).unwrap();
    }
    let replica = Replica::open(&dir, &origin, root, Disk::new()).unwrap();
    let error = advance(&replica, &liar).unwrap_err();
    assert!(
        matches!(
            error,
            ReplicaError::Misbehaviour(Misbehaviour::Shrunk {
                shown: 4,
                verified: SIZE
            })
        ),
        "{error}"
    );
    liar.show(forger.write(&federation.dir.path().join("true"), &honest));
    advance(&replica, &liar).unwrap();
    assert_eq!(versions(&replica, &agent.id, "three"), Some(2));
}

#[test]
fn a_forked_history_is_noticed_when_two_members_compare() {
    let mut stage = Stage::new();
    let mut lie = stage.honest[..6].to_vec();
    lie.push(entry(
        &stage.agent.dataset("four"),
        stage.agent.key.public(),
    ));
    let dir = stage.empty_dir();
    let other_files = stage.forger.write(&dir, &lie);
    let note = std::fs::read_to_string(other_files.dir.join("checkpoint")).unwrap();
    // Two members, each shown a log that is consistent in itself.
    let other_dir = stage.federation.dir.path().join("other");
    let origin = stage.replica.log().checkpoint().origin;
    let other = Replica::open(
        &other_dir,
        &origin,
        stage.federation.registry.root(),
        Disk::new(),
    )
    .unwrap();
    stage.liar.show(other_files);
    advance(&other, &stage.liar).unwrap();
    assert!(matches!(
        stage.replica.compare(&note),
        Err(Misbehaviour::Forked { size: SIZE, .. })
    ));
    assert!(stage.alarm().expect("an alarm").contains("another history"));
    // A note that the registry did not sign proves nothing against it.
    let stranger = stage.forger.with_log_key(SecretKey::from_seed(&[99; 32]));
    let forged = stranger.write(
        &stage.federation.dir.path().join("forged"),
        &stage.honest[..3],
    );
    let note = std::fs::read_to_string(forged.dir.join("checkpoint")).unwrap();
    assert_eq!(other.compare(&note), Ok(()));
}

#[test]
fn another_key_and_another_root_are_refused() {
    let stage = Stage::fresh();
    let Stage {
        forger,
        federation,
        honest,
        liar,
        replica,
        ..
    } = stage;
    let stranger = forger.with_log_key(SecretKey::from_seed(&[99; 32]));
    liar.show(stranger.write(&federation.dir.path().join("forged"), &honest));
    let error = advance(&replica, &liar).unwrap_err();
    assert!(
        matches!(
            error,
            ReplicaError::Misbehaviour(Misbehaviour::Checkpoint(_))
        ),
        "{error}"
    );
    // A whole federation of somebody else's, at the same address.
    let other = Federation::start();
    liar.show(Files::of(&other.registry.dir.join("log")));
    let error = advance(&replica, &liar).unwrap_err();
    assert!(
        matches!(
            error,
            ReplicaError::Misbehaviour(Misbehaviour::OtherRoot(_))
        ),
        "{error}"
    );
    assert_eq!(replica.log().size(), 0);
}

#[test]
fn what_a_test_submits_is_a_statement() {
    // Guards the tests above: were these malformed, every lie would be noticed for that reason.
    let stage = Stage::fresh();
    for entry in &stage.honest {
        let envelope = Envelope::parse(entry.envelope.as_deref().unwrap()).unwrap();
        Statement::parse(envelope.payload()).unwrap();
    }
}
