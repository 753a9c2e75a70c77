//! A log that needs witnesses: what it publishes, whom it waits for, and what it survives.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::note::{Algorithm, Note, NoteKey};
use jingwei_proto::policy::Policy;
use jingwei_registry::fault::Blame;
use jingwei_registry::keyfile;
use jingwei_registry::log::LogReader;
use jingwei_registry::registry::{Paths, newest_record};
use jingwei_registry::witness::client::{AskError, PATIENCE, Remote, Target, parse_url};
use jingwei_tests::local::runtime;
use jingwei_tests::lying_witness::{LIES, Lie, LyingWitness};
use jingwei_tests::programs::{copy_dir, free_address};
use jingwei_tests::{Registry, Witness, Witnessed};

#[test]
fn a_log_goes_on_while_a_quorum_of_its_witnesses_signs() {
    let mut all = Witnessed::found(3, 2, &[]);
    all.start();
    let first = all.submit(&all.agent.dataset("one")).unwrap();
    assert!(all.cosigners(&first.checkpoint).len() >= 2);

    all.witnesses[0].kill9();
    let second = all.submit(&all.agent.dataset("two")).unwrap();
    assert_eq!(all.cosigners(&second.checkpoint), [2, 3]);

    all.witnesses[1].kill9();
    let third = all.agent.dataset("three");
    let fault = all.submit(&third).unwrap_err();
    assert_eq!(fault.blame, Blame::Unavailable, "{fault:?}");
    assert!(fault.message.contains("1 of 2 needed witnesses"), "{fault}");
    assert!(fault.message.contains("w1.example"), "{fault}");
    // The log is closed for further statements, and readers see what a quorum has signed.
    let fourth = all.agent.dataset("four");
    assert_eq!(all.submit(&fourth).unwrap_err().blame, Blame::Unavailable);
    let shown = all.registry.checkpoint();
    assert_eq!(shown, *second.checkpoint);
    // It looks as before, but for what waits.
    let dir = all.registry.dir.display().to_string();
    let address = all.registry.address.to_string();
    let status = ["status", "--dir", &dir, "--registry", &address];
    let waits = "waiting     1 entry is committed and waits for the quorum";
    let ran = all.registry.run(&status).ok();
    ran.prints(&["quorum      2 of 3", waits]);

    all.witnesses[0].start(&all.policy);
    let third = all.submit(&third).unwrap();
    assert_eq!(
        third.index,
        second.index + 1,
        "it was committed the first time"
    );
    assert_eq!(all.cosigners(&third.checkpoint), [1, 3]);
    assert_eq!(all.submit(&fourth).unwrap().index, third.index + 1);
    let ran = all.registry.run(&status).ok();
    assert!(!ran.stdout.contains("waiting"), "{ran}");
}

#[test]
fn what_was_committed_without_a_quorum_is_published_after_a_restart() {
    let mut all = Witnessed::found(2, 2, &[]);
    all.start();
    let before = all.submit(&all.agent.dataset("one")).unwrap();
    all.witnesses[1].kill9();
    let statement = all.agent.dataset("two");
    assert_eq!(
        all.submit(&statement).unwrap_err().blame,
        Blame::Unavailable
    );
    all.registry.kill9();
    all.registry.start();
    let shown = all.registry.checkpoint();
    assert_eq!(shown, *before.checkpoint);
    all.witnesses[1].start(&all.policy);
    let after = all.submit(&statement).unwrap();
    assert_eq!(after.index, before.index + 1);
    assert_eq!(all.cosigners(&after.checkpoint), [1, 2]);
}

/// A quorum that is lost for good is replaced by the keepers of the root keys.
#[test]
fn a_new_root_brings_a_lost_quorum_back() {
    let mut all = Witnessed::found(2, 2, &[]);
    all.start();
    all.submit(&all.agent.dataset("one")).unwrap();
    all.witnesses[1].kill9();
    let statement = all.agent.dataset("two");
    assert_eq!(
        all.submit(&statement).unwrap_err().blame,
        Blame::Unavailable
    );
    let (dir, address) = (
        all.registry.dir.display().to_string(),
        all.registry.address.to_string(),
    );
    let running = ["--dir", &dir, "--registry", &address];
    let change = ["root", "propose", "--quorum", "1", "--yes"];
    all.registry.run(&[&change[..], &running].concat()).ok();
    let accepted = all.submit(&statement).unwrap();
    assert!(
        accepted.checkpoint.contains("\n— w1.example "),
        "{}",
        accepted.checkpoint
    );
    assert!(!accepted.checkpoint.contains("\n— w2.example "));
    let status = all.registry.run(&[&["status"], &running[..]].concat()).ok();
    status.prints(&[
        "co-signed   w1.example at",
        "not signed  w2.example",
        "quorum      1 of 2",
    ]);
    let policy = all.registry.run(&[&["policy"], &running[..]].concat()).ok();
    let policy = Policy::parse(policy.stdout.as_bytes()).unwrap();
    assert!(policy.verify(accepted.checkpoint.as_bytes()).is_ok());
}

#[test]
fn a_witness_that_stalls_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let mut all = Witnessed::found(2, 2, &[&address]);
    all.start();
    let began = Instant::now();
    for n in 0..20 {
        let accepted = all.submit(&all.agent.dataset(&format!("d{n}"))).unwrap();
        assert_eq!(all.cosigners(&accepted.checkpoint), [1, 2]);
    }
    // The silent one would have cost its whole time-out each time.
    let (took, waited) = (began.elapsed(), 20 * PATIENCE);
    assert!(took < waited / 4, "{took:?}");
}

#[test]
fn a_registry_restored_from_an_old_copy_refuses_to_sign() {
    let mut all = Witnessed::found(2, 1, &[]);
    all.start();
    all.submit(&all.agent.dataset("one")).unwrap();
    all.registry.stop();
    let (dir, backup) = (all.registry.dir.clone(), all.dir.path().join("backup"));
    copy_dir(&dir, &backup);
    all.registry.start();
    let newest = all.submit(&all.agent.dataset("two")).unwrap();
    all.registry.stop();

    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&backup, &dir).unwrap();
    all.registry.refuses_to_start().complains(&[
        ".example refuses",
        &format!("a checkpoint of {} entries", newest.index + 1),
        &format!("the log of {} entries here", newest.index),
        "old copy",
    ]);
    // Also where that witness comes back only later.
    all.witnesses.iter_mut().for_each(Witness::kill9);
    all.registry.start();
    let statement = all.agent.dataset("three");
    let registry = all.registry.submitter();
    let submitting = runtime().spawn(async move { registry.submit(&statement).await });
    all.start_witnesses();
    assert!(runtime().block_on(submitting).unwrap().is_err());
    let ended = all.registry.ended();
    assert!(
        ended.iter().any(|line| line.contains("must not sign")),
        "{ended:?}"
    );
}

/// Every lie for itself, told to the part of the registry that asks.
#[test]
fn no_lie_of_a_witness_passes_for_a_cosignature() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::found(&dir.path().join("registry"), "test");
    let paths = Paths::new(&registry.dir);
    let log = LogReader::open(&paths.log()).unwrap();
    let target = Target {
        checkpoint: log.checkpoint(),
        note: Note::parse(log.checkpoint_note().unwrap().as_bytes()).unwrap(),
    };
    let log_key = CheckpointKeys::of_root(&newest_record(&paths).unwrap())
        .log_key()
        .unwrap();
    let secret = || SecretKey::from_seed(&[5; 32]);
    let public = secret().public().clone();
    let key = NoteKey::new("w.example", Algorithm::CosignatureV1, public).unwrap();
    for lie in LIES {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let liar = LyingWitness::start(free, "w.example", secret(), &[lie]);
        let url = parse_url(&format!("http://{}", liar.address)).unwrap();
        let _runtime = runtime().enter();
        let mut remote = Remote::new(key.clone(), log_key.clone(), url).unwrap();
        let error = runtime().block_on(remote.ask(&target, &log)).unwrap_err();
        assert!(liar.told() > 0);
        let as_expected = match lie {
            Lie::Nothing
            | Lie::Garbage
            | Lie::OtherKey
            | Lie::OtherText
            | Lie::LongerText
            | Lie::NoTime => matches!(error, AskError::Signature(_)),
            Lie::Endless => matches!(error, AskError::Unreachable(_)),
            // It shows a larger log, but none that this log's key has signed.
            Lie::Ahead => matches!(error, AskError::Ahead { held: 1, .. }),
            Lie::Fickle | Lie::NoSize => matches!(error, AskError::Answer { status: 409, .. }),
            Lie::Inconsistent => matches!(error, AskError::Answer { status: 422, .. }),
            Lie::Broken => matches!(error, AskError::Answer { status: 500, .. }),
            Lie::Elsewhere => matches!(error, AskError::Answer { status: 307, .. }),
        };
        assert!(as_expected, "{lie:?}: {error}");
        assert!(liar.told() <= 4, "{lie:?} was believed too often");
    }
}

#[test]
fn a_witness_that_lies_stops_nobody() {
    let address = free_address();
    let mut all = Witnessed::found(2, 2, &[&format!("http://{address}")]);
    let key = keyfile::load(&all.dir.path().join("w3/keys/witness.pem")).unwrap();
    let liar = LyingWitness::start(address, "w3.example", key, &LIES);
    all.start();
    for n in 0.. {
        let accepted = all.submit(&all.agent.dataset(&format!("d{n}"))).unwrap();
        assert_eq!(all.cosigners(&accepted.checkpoint), [1, 2]);
        if liar.told() >= 5 {
            break;
        }
    }
    let log = all.registry.log();
    let named = |line: &String| line.contains("w3.example") && line.contains("not co-signed");
    assert!(log.iter().any(named), "{log:?}");

    // Where it is needed nothing is published, and it is said why.
    all.witnesses[1].kill9();
    let fault = all.submit(&all.agent.dataset("waits")).unwrap_err();
    assert_eq!(fault.blame, Blame::Unavailable);
    assert!(fault.message.contains("w3.example: it"), "{fault}");
    all.witnesses[1].start(&all.policy);
    all.submit(&all.agent.dataset("waits")).unwrap();
}
