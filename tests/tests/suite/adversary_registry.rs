//! A registry that lies, with the registry's own keys: every replica notices, keeps what it has
//! verified, says what is wrong, and proves it where the registry's signature does.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, DatasetId};
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::misbehaviour::{Lie, Misbehaviour as Proof};
use jingwei_proto::statement::{Dataset, DatasetFile, Predicate, Sharing, Statement};
use jingwei_proto::time::Time;
use jingwei_registry::clock::{self, Clock};
use jingwei_registry::disk::faults::full;
use jingwei_registry::disk::{Disk, Faults, Operation};
use jingwei_registry::keyfile;
use jingwei_registry::log::Entry;
use jingwei_registry::replica::{Alarm, Comparison, Misbehaviour, Replica, ReplicaError};
use jingwei_registry::source::Source;
use jingwei_tests::Federation;
use jingwei_tests::accusing::confirm;
use jingwei_tests::keyring::{Agent, noon};
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Files, Forger, LyingRegistry, altered, entries, entry};
use jingwei_tests::reading::LogFiles;
use jingwei_tests::snapshots::{snapshot, state_of};

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

/// So many seconds from now the liar dates what it seals.
const LATER: i64 = 3_600;

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
            forger: Forger::new(&federation.registry.dir).dated_after(LATER),
            liar: LyingRegistry::start(SocketAddr::from(([127, 0, 0, 1], 0)), Files::default()),
            agent,
            federation,
            replica,
            count: 0,
        }
    }

    fn honest_log(&self) -> LogFiles {
        LogFiles::read(&self.federation.registry.dir.join("log"))
    }

    fn advance(&self) -> Result<(), ReplicaError> {
        advance(&self.replica, &self.liar)
    }

    /// Another member's replica, which keeps its files when it is opened again.
    fn second_replica(&self, disk: Disk) -> Arc<Replica> {
        let dir = self.federation.dir.path().join("second");
        let origin = LogFiles::read(&self.federation.registry.dir.join("log")).origin;
        Replica::open(&dir, &origin, self.federation.registry.root(), disk).unwrap()
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
    #[track_caller]
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

    /// The only alarm that stands.
    #[track_caller]
    fn alarm(&self) -> Alarm {
        let mut alarms = self.replica.alarms();
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        alarms.remove(0)
    }

    /// The only alarm that stands is of this kind, and the auditor's program confirms its proof.
    #[track_caller]
    fn proved(&self, kind: &str, words: &[&str]) {
        let alarm = self.alarm();
        assert_eq!(alarm.kind, kind);
        let root = &self.federation.registry.fingerprint;
        let proof = alarm.proof.expect("a proof");
        confirm(&proof, root, words);
    }

    /// The only alarm that stands is of this kind, and proves nothing.
    #[track_caller]
    fn unproved(&self, kind: &str) {
        let alarm = self.alarm();
        assert_eq!((&*alarm.kind, &alarm.proof), (kind, &None), "{alarm}");
        assert!(alarm.to_string().contains("nothing is proved"), "{alarm}");
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
    // When the forger seals: neither it nor the honest registry is ahead of that.
    let now = clock::system()().plus(LATER);
    advance_at(replica, liar, now)
}

fn advance_at(replica: &Arc<Replica>, liar: &LyingRegistry, now: Time) -> Result<(), ReplicaError> {
    let source = Source::new(&liar.url()).unwrap();
    let clock: Clock = Arc::new(move || now);
    runtime().block_on(replica.advance(&source, Duration::ZERO, &clock))
}

#[test]
fn bytes_altered_on_the_way_are_noticed_and_prove_nothing() {
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
                    Misbehaviour::Unmatched(_)
                        | Misbehaviour::Entry { index: 0, .. }
                        | Misbehaviour::OtherRoot(_)
                ),
                "{misbehaviour}"
            );
            assert_eq!(stage.replica.log().size(), 0);
        }
    }
    stage.unproved("unmatched");
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
    stage.proved("two-histories", &["two different logs of 7 entries"]);
}

#[test]
fn an_entry_altered_before_anyone_saw_it_changes_nothing_and_is_proved() {
    let mut stage = Stage::fresh();
    let mut lie = stage.honest.clone();
    lie[4] = altered(&lie[4], |text| text.replace("two", "owt"));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    assert!(stage.alarm().text.contains("entry 4"));
    stage.proved("rejected-entry", &["entry 4 is not signed by the key"]);
    assert_eq!((stage.versions("owt"), stage.versions("two")), (None, None));
    assert_eq!(stage.versions("three"), Some(2));
}

#[test]
fn an_entry_under_another_key_is_not_taken() {
    let mut stage = Stage::fresh();
    let mut lie = stage.honest.clone();
    let envelope = Envelope::parse(lie[4].envelope.as_deref().unwrap()).unwrap();
    lie[4] = entry(&envelope, SecretKey::from_seed(&[8; 32]).public());
    stage.show_sealed(&lie);
    let misbehaviour = stage.refused();
    assert!(
        matches!(misbehaviour, Misbehaviour::Entry { index: 4, .. }),
        "{misbehaviour}"
    );
    stage.proved("bad-entry", &["entry 4 is not signed by the key"]);
}

#[test]
fn an_entry_that_is_none_is_not_taken() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    let mut odd = entry(&stage.agent.dataset("four"), stage.agent.key.public());
    odd.leaf.push(b' ');
    lie.push(odd);
    stage.show_sealed(&lie);
    let misbehaviour = stage.refused();
    assert!(
        matches!(misbehaviour, Misbehaviour::Entry { index: SIZE, .. }),
        "{misbehaviour}"
    );
    stage.proved("bad-entry", &["entry 7 is not in the form of entries"]);
}

#[test]
fn a_dropped_entry_is_noticed() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    let dropped = lie.remove(4);
    stage.show_sealed(&lie);
    assert!(matches!(
        stage.refused(),
        Misbehaviour::Forked { size: 6, .. }
    ));
    let words = "a log of 6 entries, and one of 7 entries that does not continue it";
    stage.proved("two-histories", &[words]);
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
    std::fs::remove_dir_all(stage.alarm().file.parent().unwrap()).unwrap();
    lie.push(dropped);
    stage.show_sealed(&lie);
    assert!(matches!(
        stage.refused(),
        Misbehaviour::Forked { size: SIZE, .. }
    ));
    let words = "a log of 7 entries, and one of 8 entries that does not continue it";
    stage.proved("two-histories", &[words]);
    assert_eq!(stage.versions("four"), None);
}

/// Witnesses would not sign another history, and the registry's own signature is enough.
#[test]
fn another_history_is_proved_without_a_cosignature() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    lie.remove(4);
    let dir = stage.empty_dir();
    let mut files = stage.forger.write(&dir, &lie);
    let note = std::fs::read_to_string(dir.join("checkpoint")).unwrap();
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let own = signatures.lines().next().unwrap();
    let unsigned = format!("{text}\n\n{own}\n").into_bytes();
    files.instead.insert("checkpoint".to_owned(), unsigned);
    stage.liar.show(files);
    assert!(matches!(
        stage.refused(),
        Misbehaviour::Forked { size: 6, .. }
    ));
    let words = "a log of 6 entries, and one of 7 entries that does not continue it";
    stage.proved("two-histories", &[words]);
}

#[test]
fn a_gap_in_a_chain_is_noticed_even_by_a_newcomer() {
    let mut stage = Stage::fresh();
    let mut lie = stage.honest.clone();
    lie.remove(2);
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    stage.proved("rejected-entry", &["entry 2 is one that the rules reject"]);
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
    stage.proved("two-histories", &["two different logs"]);

    let mut newcomer = Stage::fresh();
    let mut lie = newcomer.honest.clone();
    lie.swap(2, 3);
    newcomer.show_sealed(&lie);
    newcomer.advance().unwrap();
    newcomer.proved("rejected-entry", &["entry 2 is one that the rules reject"]);
    assert_eq!(newcomer.versions("one"), Some(1));
}

#[test]
fn a_repeated_entry_is_proved() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    lie.push(lie[4].clone());
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    stage.proved("rejected-entry", &["entry 7 repeats entry 4"]);
    assert_eq!(stage.versions("two"), Some(1));
}

#[test]
fn two_statements_for_one_place_in_a_chain_are_proved() {
    let mut stage = Stage::new();
    let mut lie = stage.honest.clone();
    // After a first version that never was.
    let (_, other) = stage.agent.version("two", Some((1, Digest::of(b"no"))));
    lie.push(entry(&other, stage.agent.key.public()));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    stage.proved("rejected-entry", &["entry 7 cannot stand after entry 4"]);
    assert_eq!(stage.versions("two"), Some(1));
}

#[test]
fn a_statement_of_a_stranger_is_proved() {
    let mut stage = Stage::fresh();
    let stranger = Agent::new(&stage.federation.registry, "zz", 9);
    let mut lie = stage.honest.clone();
    lie.push(entry(&stranger.dataset("four"), stranger.key.public()));
    lie.push(entry(&stranger.dataset("five"), stranger.key.public()));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    let alarms = stage.replica.alarms();
    let proofs: Vec<_> = alarms
        .iter()
        .filter_map(|alarm| alarm.proof.clone())
        .collect();
    // The second is shown by the first, which needs all statements before it.
    assert_eq!((alarms.len(), proofs.len()), (2, 1), "{alarms:?}");
    let root = &stage.federation.registry.fingerprint;
    confirm(&proofs[0], root, &["entry 7 is one that the rules reject"]);
}

#[test]
fn a_snapshot_before_the_lie_stands_for_the_statements_before_it() {
    let mut stage = Stage::fresh();
    let registry = &stage.federation.registry;
    let key = keyfile::load(&registry.dir.join("keys/log.pem")).unwrap();
    let true_one = snapshot(registry, noon().seconds(), state_of(&stage.honest_log()));
    let stranger = Agent::new(registry, "zz", 9);
    let mut lie = stage.honest.clone();
    lie.push(entry(&true_one, key.public()));
    lie.push(entry(&stranger.dataset("four"), stranger.key.public()));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    stage.proved("rejected-entry", &["entry 8 is one that the rules reject"]);
    let proof = std::fs::read(stage.alarm().proof.unwrap()).unwrap();
    let Lie::RejectedEntry {
        since: Some(since),
        before,
        ..
    } = Proof::read(&proof[..]).unwrap().lie
    else {
        panic!("it does not rest on the snapshot");
    };
    assert_eq!((since.size, before.len()), (SIZE, 1));
}

#[test]
fn a_snapshot_of_another_state_is_proved() {
    let mut stage = Stage::fresh();
    let registry = &stage.federation.registry;
    let key = keyfile::load(&registry.dir.join("keys/log.pem")).unwrap();
    let time = noon().seconds();
    let mut lie = stage.honest.clone();
    let honest = snapshot(registry, time, state_of(&stage.honest_log()));
    lie.push(entry(&honest, key.public()));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    assert!(stage.replica.alarms().is_empty());
    assert_eq!(
        stage.replica.index().log_time().unwrap().unwrap().time,
        noon()
    );

    let mut stage = Stage::fresh();
    let registry = &stage.federation.registry;
    let key = keyfile::load(&registry.dir.join("keys/log.pem")).unwrap();
    let false_one = snapshot(registry, time, Digest::of(b"another state"));
    let mut lie = stage.honest.clone();
    lie.push(entry(&false_one, key.public()));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    stage.proved(
        "rejected-entry",
        &["entry 7 is one that the rules reject", "names the state"],
    );
    // What it says of the time does not hold either.
    assert!(stage.replica.index().log_time().unwrap().is_none());
    assert_eq!(stage.versions("three"), Some(2));
}

#[test]
fn a_shorter_log_is_noticed_even_after_the_replica_lost_its_files() {
    let mut stage = Stage::new();
    let short = stage.honest[..4].to_vec();
    stage.show_sealed(&short);
    let shrunk = Misbehaviour::Shrunk {
        shown: 4,
        verified: SIZE,
    };
    assert_eq!(stage.refused(), shrunk);
    stage.proved("shrunk-log", &["a log of 4 entries after", "cosigner key"]);
    // The highest checkpoint ever verified outlives the log and the index.
    let dir = stage.federation.dir.path().join("replica");
    let origin = stage.replica.log().checkpoint().origin;
    let root = stage.federation.registry.root();
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
    for lost in ["log", "index", "alarms"] {
        std::fs::remove_dir_all(dir.join(lost)).unwrap();
    }
    let replica = Replica::open(&dir, &origin, root, Disk::new()).unwrap();
    let error = advance(&replica, &liar).unwrap_err();
    assert!(
        matches!(&error, ReplicaError::Misbehaviour(found) if *found == shrunk),
        "{error}"
    );
    let proof = replica.alarms()[0].proof.clone().expect("a proof");
    confirm(
        &proof,
        &federation.registry.fingerprint,
        &["a log of 4 entries"],
    );
    liar.show(forger.write(&federation.dir.path().join("true"), &honest));
    advance(&replica, &liar).unwrap();
    assert_eq!(versions(&replica, &agent.id, "three"), Some(2));
}

#[test]
fn an_old_copy_of_an_old_checkpoint_is_refused_and_proves_nothing() {
    let stage = Stage::new();
    // Dated before what was verified: anyone on the way may have kept it.
    let old = Forger::new(&stage.federation.registry.dir);
    let files = old.write(&stage.federation.dir.path().join("old"), &stage.honest[..4]);
    stage.liar.show(files);
    assert!(matches!(stage.refused(), Misbehaviour::Shrunk { .. }));
    stage.unproved("shrunk-log");
}

#[test]
fn a_forked_history_is_noticed_when_two_members_compare() {
    for grown in [false, true] {
        let mut stage = Stage::new();
        let mut lie = stage.honest[..6].to_vec();
        for name in ["four", "five"].iter().take(1 + usize::from(grown)) {
            lie.push(entry(&stage.agent.dataset(name), stage.agent.key.public()));
        }
        let dir = stage.empty_dir();
        let files = stage.forger.write(&dir, &lie);
        // Two members, each shown a log that is consistent in itself.
        let other = Replica::open(
            &stage.federation.dir.path().join("other"),
            &stage.replica.log().checkpoint().origin,
            stage.federation.registry.root(),
            Disk::new(),
        )
        .unwrap();
        stage.liar.show(files);
        advance(&other, &stage.liar).unwrap();
        let (own, others) = (
            stage.replica.signed_note().unwrap(),
            other.signed_note().unwrap(),
        );
        if grown {
            // From the shorter log it cannot be told.
            assert_eq!(stage.replica.compare(&others), Comparison::Larger(8));
        }
        let Comparison::Different {
            proof: Some(proof), ..
        } = other.compare(&own)
        else {
            panic!("the fork was not noticed");
        };
        assert!(stage.replica.take_proof(&proof));
        stage.proved("two-histories", &["it signed"]);
        let root = &stage.federation.registry.fingerprint;
        confirm(
            other.alarms()[0].proof.as_ref().unwrap(),
            root,
            &["it signed"],
        );
        // A proof that proves nothing raises no alarm.
        let mut broken = proof.clone();
        broken[600] ^= 1;
        std::fs::remove_dir_all(stage.alarm().file.parent().unwrap()).unwrap();
        assert!(!stage.replica.take_proof(&broken));
        assert_eq!(stage.replica.alarms(), []);
        // A note that the registry did not sign proves nothing against it.
        let Stage {
            forger, federation, ..
        } = &mut stage;
        let stranger =
            Forger::new(&federation.registry.dir).with_log_key(SecretKey::from_seed(&[99; 32]));
        let forged = stranger.write(&federation.dir.path().join("forged"), &lie[..3]);
        let note = std::fs::read_to_string(forged.dir.join("checkpoint")).unwrap();
        assert_eq!(other.compare(&note), Comparison::Unsigned);
        let honest = forger.write(&federation.dir.path().join("part"), &lie[..3]);
        let note = std::fs::read_to_string(honest.dir.join("checkpoint")).unwrap();
        assert_eq!(other.compare(&note), Comparison::Same(3));
    }
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
fn a_long_log_is_taken_in_parts_and_only_if_all_of_it_is_signed() {
    let mut stage = Stage::fresh();
    let mut long = stage.honest.clone();
    long.extend((0..10_500).map(|n| {
        let envelope = stage.agent.dataset(&format!("d{n}"));
        entry(&envelope, stage.agent.key.public())
    }));
    let size = long.len() as u64;
    let dir = stage.empty_dir();
    let honest = stage.forger.write(&dir, &long);
    // Leaf hashes that do not lead to the signed root: nothing is stored.
    let changed = |name: &str| {
        let mut files = honest.clone();
        let mut bytes = std::fs::read(dir.join(name)).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        files.instead.insert(name.to_owned(), bytes);
        files
    };
    stage.liar.show(changed("tile/0/030"));
    assert!(matches!(stage.refused(), Misbehaviour::Unmatched(_)));
    assert_eq!(stage.replica.log().size(), 0);
    // An envelope that is not the entry's, late in the log: what is before it is kept, since it
    // is known to lead to the signed root.
    stage.liar.show(changed("tile/envelopes/030"));
    assert!(matches!(
        stage.advance(),
        Err(ReplicaError::Misbehaviour(Misbehaviour::Unmatched(_)))
    ));
    let kept = stage.replica.index().size().unwrap();
    assert!((1..=30 * 256).contains(&kept), "{kept}");
    assert_eq!(stage.versions("d0"), Some(1));
    // Nothing of it is shown under a checkpoint that was not reached.
    assert_eq!(stage.replica.log().size(), 0);
    stage.unproved("unmatched");
    // Where something is in service already, the index stays with it until the end is reached.
    let reopened = stage.second_replica(Disk::new());
    stage
        .liar
        .show(Files::of(&stage.federation.registry.dir.join("log")));
    advance(&reopened, &stage.liar).unwrap();
    stage.liar.show(changed("tile/envelopes/030"));
    assert!(matches!(
        advance(&reopened, &stage.liar),
        Err(ReplicaError::Misbehaviour(Misbehaviour::Unmatched(_)))
    ));
    drop(reopened);
    let reopened = stage.second_replica(Disk::new());
    assert_eq!(reopened.index().size().unwrap(), SIZE);
    assert_eq!(reopened.log().size(), SIZE);
    assert_eq!(versions(&reopened, &stage.agent.id, "d0"), None);
    // What is committed is not read again.
    let mut rest = honest.clone();
    rest.instead.insert("tile/envelopes/001".into(), Vec::new());
    stage.liar.show(rest);
    advance(&reopened, &stage.liar).unwrap();
    assert_eq!(reopened.index().size().unwrap(), size);
    assert_eq!(reopened.log().size(), size);
    assert_eq!(versions(&reopened, &stage.agent.id, "d10499"), Some(1));
    // A log that goes on otherwise than the registry has signed already.
    let mut other = long.clone();
    other.swap(9_000, 9_001);
    stage.show_sealed(&other);
    assert!(matches!(
        stage.advance(),
        Err(ReplicaError::Misbehaviour(Misbehaviour::Forked { .. }))
    ));
    stage.liar.show(honest);
    stage.advance().unwrap();
    assert_eq!(stage.replica.log().size(), size);
    stage.replica.log().audit().unwrap();
    assert_eq!(stage.versions("d10499"), Some(1));
    let note = stage.replica.log().checkpoint_note().unwrap();
    assert_eq!(stage.replica.signed_note(), Some(note));
}

/// Statements of tens of kilobytes: a bundle of them is read alone, and they go on the way by
/// bytes instead of by number.
#[test]
fn large_statements_are_taken_too() {
    let mut stage = Stage::fresh();
    let mut lie = stage.honest.clone();
    let schema = format!(r#"{{"description":"{}"}}"#, "x".repeat(60_000));
    lie.extend((0..600).map(|n| {
        let (mut statement, _) = stage.agent.version(&format!("d{n}"), None);
        let Predicate::Dataset(dataset) = &mut statement.predicate else {
            panic!("a dataset");
        };
        let digest = Digest::of(format!("{n}").as_bytes());
        **dataset = Dataset {
            sharing: Sharing::Public,
            schema: Some(schema.clone()),
            rows: Some(1),
            files: vec![DatasetFile {
                name: format!("{digest}.parquet"),
                digest,
                bytes: 1,
            }],
            commitment: None,
            ..(**dataset).clone()
        };
        entry(&statement.sign(&stage.agent.key), stage.agent.key.public())
    }));
    stage.show_sealed(&lie);
    stage.advance().unwrap();
    assert_eq!(stage.replica.log().size(), lie.len() as u64);
    stage.replica.log().audit().unwrap();
    assert_eq!(stage.versions("d599"), Some(1));
    assert_eq!(stage.replica.alarms(), []);
}

/// A disk that is too full for alarms, and for nothing else.
struct NoAlarms;

impl Faults for NoAlarms {
    fn before(&self, _: Operation, path: &Path) -> io::Result<()> {
        match path.iter().any(|part| part == "alarms") {
            true => Err(full()),
            false => Ok(()),
        }
    }
}

/// That the log holds an entry which the rules reject is found once, when it is folded in. What
/// comes between that and the alarm on the disk must not lose it.
#[test]
fn an_alarm_that_could_not_be_stored_is_raised_later() {
    let mut stage = Stage::fresh();
    let stranger = Agent::new(&stage.federation.registry, "zz", 9);
    let mut lie = stage.honest.clone();
    lie.push(entry(&stranger.dataset("four"), stranger.key.public()));
    let dir = stage.empty_dir();
    let files = stage.forger.write(&dir, &lie);
    stage.liar.show(files);
    let replica = stage.second_replica(Disk::with_faults(Arc::new(NoAlarms)));
    advance(&replica, &stage.liar).unwrap();
    assert_eq!(replica.index().size().unwrap(), SIZE + 1);
    assert_eq!(replica.alarms(), []);
    drop(replica);
    // As after a crash: the index is past the entry, and the alarm was never stored.
    let replica = stage.second_replica(Disk::new());
    let alarms = replica.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    let root = &stage.federation.registry.fingerprint;
    let proof = alarms[0].proof.as_ref().expect("a proof");
    confirm(proof, root, &["entry 7 is one that the rules reject"]);
    // A person has looked into it: it stays so, also after the next start.
    std::fs::remove_dir_all(alarms[0].file.parent().unwrap()).unwrap();
    drop(replica);
    let replica = stage.second_replica(Disk::new());
    advance(&replica, &stage.liar).unwrap();
    assert_eq!(replica.alarms(), []);
}

/// What is old is not false, so it is taken in, and nothing is proved by it.
#[test]
fn a_checkpoint_that_is_not_dated_anew_is_an_alarm_that_proves_nothing() {
    let stage = Stage::new();
    let dated = stage.replica.standing().borrow().log_time.unwrap();
    let after = |seconds: i64| Time::from_seconds(dated.seconds() + seconds).unwrap();
    let day = 24 * 3600;
    let look = |now| advance_at(&stage.replica, &stage.liar, now).unwrap();
    look(after(3 * day));
    assert_eq!(stage.replica.alarms(), []);
    // A registry that was down for so long is given the time to date its log anew.
    look(after(3 * day + 60));
    look(after(3 * day + 900));
    assert_eq!(stage.replica.alarms(), []);
    let honest_log = Files::of(&stage.federation.registry.dir.join("log"));
    let anew = Forger::new(&stage.federation.registry.dir).dated_after(3 * day + 900);
    let dir = stage.federation.dir.path().join("anew");
    stage.liar.show(anew.write(&dir, &stage.honest));
    look(after(3 * day + 1_000));
    stage.liar.show(honest_log);
    look(after(3 * day + 1_100));
    assert_eq!(stage.replica.alarms(), []);
    look(after(3 * day + 1_100 + 900));
    stage.unproved("stale-checkpoint");
    assert_eq!(stage.versions("three"), Some(2));
    assert_eq!(stage.replica.standing().borrow().size, SIZE);
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
