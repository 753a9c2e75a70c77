//! A registry that is down, slow, or shows a shorter log, seen from running nodes; and two
//! processes in one directory.

use std::net::TcpListener;

use jingwei_proto::key::Signer as _;
use jingwei_registry::keyfile;
use jingwei_tests::accusing::{confirm, proof_of};
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Files, Forger, LyingRegistry, entries, entry};
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::free_address;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::{Federation, Node};

use crate::pair::Pair;

const SQL: &str = "SELECT count(*) FROM aa.places";

#[test]
fn a_registry_that_is_down() {
    let mut federation = Federation::start();
    let node = Node::new(federation.dir.path(), "late");
    node.init("aa", 1, "test@1:A", &[]).ok();
    // Before it has joined, a node says what to do first.
    node.run(&["serve"])
        .expect_code(2)
        .complains(&["jingwei join"]);
    federation.registry.stop();
    federation
        .join(&node)
        .expect_code(1)
        .complains(&["registry"]);
    node.run(&[
        "join",
        "https://nowhere",
        "--root",
        &federation.registry.fingerprint,
    ])
    .expect_code(2)
    .complains(&["http://HOST:PORT"]);
    federation.registry.start();
    let wrong = "A".repeat(52);
    node.run(&["join", &federation.registry.url(), "--root", &wrong])
        .expect_code(3)
        .complains(&["fingerprint"]);
    node.run(&["join", &federation.registry.url(), "--root", "short"])
        .expect_code(2);
    federation.join(&node).ok();
    federation.registry.stop();
    federation
        .registry
        .enrol(&node.proposal("aa"))
        .expect_code(1);
}

#[test]
fn a_registry_that_never_answers() {
    let mut pair = Pair::with_places();
    pair.federation.registry.stop();
    let liar = LyingRegistry::start(
        pair.federation.registry.address,
        Files::of(&pair.federation.registry.dir.join("log")),
    );
    liar.fall_silent();
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.rows(SQL), ["3"]);
    }
    pair.b.stop();
    pair.b.start();
    assert_eq!(
        pair.b.rows(SQL),
        ["3"],
        "a node starts while the registry is silent"
    );
    let mut newcomer = Node::new(pair.federation.dir.path(), "newcomer");
    newcomer.init("cc", 1, "test@1:A", &[]).ok();
    pair.federation
        .join(&newcomer)
        .expect_code(1)
        .complains(&["registry", "no answer"]);
    newcomer.stop();
}

/// It answers readers by the byte, and submitters not at all.
#[test]
fn a_registry_that_is_slow() {
    let mut pair = Pair::with_places();
    pair.federation.registry.stop();
    let registry = &pair.federation.registry;
    let log = registry.dir.join("log");
    let before = LogFiles::read(&log).size();
    let slow = LyingRegistry::start_as(&registry.dir, registry.address, Files::of(&log));
    let (file, schema) = pair.a.places("late", PLACES);
    let publish = || pair.a.publish(&file, "aa", "late", &schema, "public");
    std::thread::scope(|scope| {
        // The readers' part is honest and quick until it is known that the submission has come.
        let publishing = scope.spawn(publish);
        slow.until_submitted();
        slow.dribble();
        let newcomer = Node::new(pair.federation.dir.path(), "newcomer");
        newcomer.init("cc", 1, "test@1:A", &[]).ok();
        let joined = pair.federation.join(&newcomer).expect_code(1);
        joined.complains(&["registry", "no answer"]);
        assert_eq!(pair.b.rows(SQL), ["3"], "what is verified is answered");
        let published = publishing.join().unwrap().expect_code(1);
        published.complains(&["has not said within 30 s", "the checked data are kept here"]);
    });
    drop(slow);
    pair.federation.registry.start();
    pair.a.until_log("a publication was finished");
    let ran = pair.a.publish(&file, "aa", "late", &schema, "public").ok();
    ran.prints(&["unchanged", "aa/late@1"]);
    let after = LogFiles::read(&log);
    assert_eq!(after.size(), before + 1);
    assert!(!after.repeats());
}

#[test]
fn a_silent_registry_does_not_hold_up_its_keepers() {
    let mut federation = Federation::start();
    let node = federation.joined("node", &["aa"]);
    federation.registry.stop();
    let registry = &federation.registry;
    let files = Files::of(&registry.dir.join("log"));
    let silent = LyingRegistry::start_as(&registry.dir, registry.address, files);
    let enrolled = registry.enrol(&node.proposal("aa")).expect_code(1);
    enrolled.complains(&["has not said within 30 s", "never entered twice"]);
    drop(silent);
    federation.registry.start();
    federation.registry.enrol(&node.proposal("aa")).ok();
}

#[test]
fn a_registry_that_shows_a_shorter_log() {
    let mut pair = Pair::with_places();
    pair.b.run(&["doctor"]).ok();
    pair.federation.registry.stop();
    let dir = &pair.federation.registry.dir;
    let all = entries(&dir.join("log"));
    let files = Forger::new(dir).dated_after(60).write(
        &pair.federation.dir.path().join("short"),
        &all[..all.len() - 1],
    );
    let liar = LyingRegistry::start(pair.federation.registry.address, files);
    for node in [&pair.a, &pair.b] {
        node.until("alarmed", |status| {
            status
                .alarms
                .iter()
                .any(|alarm| alarm.contains("hides entries"))
        });
        let logged = node.until_log("the registry misbehaves");
        assert!(logged.contains("hides entries"), "{logged}");
        let proof = proof_of(&node.dir, "shrunk-log");
        node.run(&["doctor"]).expect_code(3).prints(&[
            "alarm       shrunk-log",
            "hides entries",
            &proof.display().to_string(),
        ]);
        let root = &pair.federation.registry.fingerprint;
        confirm(&proof, root, &["dated a log of"]);
        // What was verified before still answers.
        assert_eq!(node.rows(SQL), ["3"]);
    }
    // It is known after a restart, too, also when the registry no longer answers.
    drop(liar);
    pair.b.kill9();
    let metrics = free_address();
    let setting = format!("metrics = \"{metrics}\"\n");
    std::fs::write(pair.b.dir.join("node.toml"), setting).unwrap();
    pair.b.start();
    pair.b.until("alarmed", |status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("hides entries"))
    });
    assert_eq!(pair.b.rows(SQL), ["3"]);
    let figures = read(&format!("http://{metrics}/metrics"));
    let alarms = "jingwei_alarms_total{kind=\"shrunk-log\"} 1";
    assert!(figures.lines().any(|line| line == alarms), "{figures}");
    // It stands until a person has looked into it.
    pair.b.run(&["doctor"]).expect_code(3);
    let alarm = proof_of(&pair.b.dir, "shrunk-log").with_extension("alarm");
    std::fs::rename(&alarm, pair.b.work.join("seen.alarm")).unwrap();
    pair.federation.registry.start();
    pair.b.until("at peace", |status| status.alarms.is_empty());
    pair.b.run(&["doctor"]).ok();
}

/// What is at an address of a running process.
pub fn read(url: &str) -> String {
    runtime().block_on(async {
        let answer = reqwest::get(url).await.unwrap();
        answer.text().await.unwrap()
    })
}

#[test]
fn a_registry_that_alters_an_entry() {
    let mut pair = Pair::with_places();
    pair.federation.registry.stop();
    let dir = &pair.federation.registry.dir;
    let mut lie = entries(&dir.join("log"));
    let last = lie.len() - 1;
    lie[last] = jingwei_tests::lying_registry::altered(&lie[last], |text| {
        text.replace("\"rows\":3", "\"rows\":4")
    });
    let files = Forger::new(dir).write(&pair.federation.dir.path().join("altered"), &lie);
    let _liar = LyingRegistry::start(pair.federation.registry.address, files);
    pair.b.until("alarmed", |status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("another history"))
    });
    pair.b
        .run(&["doctor"])
        .expect_code(3)
        .prints(&["another history"]);
    let root = &pair.federation.registry.fingerprint;
    let proof = proof_of(&pair.b.dir, "two-histories");
    confirm(&proof, root, &["two different logs"]);
    assert_eq!(pair.b.rows(SQL), ["3"]);
}

/// Two members are shown logs that differ in their last entry. Each is consistent in itself; it
/// comes out when the two talk.
#[test]
fn a_registry_that_shows_two_members_different_histories() {
    let mut pair = Pair::with_places();
    pair.federation.registry.stop();
    let registry = &pair.federation.registry;
    let forger = Forger::new(&registry.dir).dated_after(60);
    let history = |id: &str, more: bool| {
        let mut log = entries(&registry.dir.join("log"));
        let agent = Agent::new(registry, id, 7);
        let root_key = keyfile::load(&registry.dir.join("root-keys/1.pem")).unwrap();
        log.push(entry(&agent.enrolment(registry), root_key.public()));
        if more {
            log.push(entry(&agent.dataset("more"), agent.key.public()));
        }
        forger.write(&pair.federation.dir.path().join(id), &log)
    };
    let to_a = LyingRegistry::start(registry.address, history("yy", true));
    let to_b = LyingRegistry::start(([127, 0, 0, 1], 0).into(), history("zz", false));
    // What `b` calls the registry's address is under the control of whoever lies to it.
    pair.b.stop();
    let federation = pair.b.dir.join("federation.json");
    let text = std::fs::read_to_string(&federation).unwrap();
    std::fs::write(&federation, text.replace(&registry.url(), &to_b.url())).unwrap();
    pair.b.start();
    let size = entries(&registry.dir.join("log")).len() as u64;
    pair.a.until_entry(size + 1);
    pair.b.until_entry(size);
    pair.b.sql(SQL, &[]).expect_code(3);
    let root = &registry.fingerprint;
    for node in [&pair.a, &pair.b] {
        node.until("alarmed", |status| {
            let alarmed = |alarm: &String| alarm.contains("two-histories");
            status.alarms.iter().any(alarmed)
        });
        let proof = proof_of(&node.dir, "two-histories");
        confirm(&proof, root, &["that does not continue it"]);
        node.run(&["doctor"])
            .expect_code(3)
            .prints(&["alarm       two-histories", &proof.display().to_string()]);
    }
    // Its own tables a node still answers from.
    assert_eq!(pair.a.rows(SQL), ["3"]);
    drop(to_a);
}

/// Nobody has asked anybody anything: a person's look is enough.
#[test]
fn doctor_compares_histories() {
    let mut pair = Pair::with_places();
    pair.b
        .run(&["doctor"])
        .ok()
        .prints(&["1 of 1 other node has been shown the same log"]);
    pair.a.stop();
    pair.b
        .run(&["doctor"])
        .ok()
        .prints(&["0 of 1 other node has been shown the same log"]);
}

#[test]
fn two_processes_in_one_directory() {
    let pair = Pair::shared();
    let ran = pair.a.run(&["serve", "--listen", "127.0.0.1:0"]);
    ran.expect_code(1).complains(&["in use"]);
    let registry = &pair.federation.registry;
    let dir = registry.dir.display().to_string();
    let ran = registry.run(&["serve", "--dir", &dir, "--listen", "127.0.0.1:0"]);
    ran.expect_code(1).complains(&["in use"]);
    registry
        .run(&["init", "--dir", &dir, "--name", "again"])
        .complains(&["registry already"]);
    assert_eq!(pair.b.rows("SELECT 1"), ["1"]);
}

#[test]
fn a_port_in_use_and_wrong_settings() {
    let federation = Federation::start();
    let node = federation.joined("node", &["aa"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    node.run(&["serve", "--listen", &address])
        .expect_code(1)
        .complains(&[&address]);
    std::fs::write(
        node.dir.join("node.toml"),
        "lisen = \"127.0.0.1:7100\"\n[query]\nseconds = \"soon\"\n",
    )
    .unwrap();
    // All errors at once, before the port was asked for.
    let ran = node
        .run(&["serve", "--listen", &address])
        .expect_code(2)
        .complains(&["lisen", "listen", "query.seconds"]);
    assert!(!ran.stderr.contains("in use"), "{ran}");
    let registry = &federation.registry;
    let dir = federation.dir.path().join("second");
    let dir = dir.display().to_string();
    registry
        .run(&["init", "--dir", &dir, "--name", "second"])
        .ok();
    let serve = ["serve", "--dir", &dir, "--listen", &address];
    registry
        .run(&serve)
        .expect_code(1)
        .complains(&[&address, "in use"]);
    std::fs::write(
        std::path::Path::new(&dir).join("registry.toml"),
        "lisen = \"127.0.0.1:7000\"\nmetrics = \"soon\"\n",
    )
    .unwrap();
    let ran = registry
        .run(&serve)
        .expect_code(2)
        .complains(&["lisen", "listen", "metrics"]);
    assert!(!ran.stderr.contains("in use"), "{ran}");
}

#[test]
fn keys_that_others_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let federation = Federation::start();
    let node = federation.joined("node", &["aa"]);
    let key = node.dir.join("agencies/aa/signing.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = node
        .run(&["serve", "--listen", "127.0.0.1:0"])
        .complains(&["signing.pem", "chmod 600"]);
    assert_ne!(ran.code, 0);
}

#[test]
fn a_command_without_a_node_says_how_to_start_it() {
    let federation = Federation::start();
    let node = federation.joined("node", &["aa"]);
    let (file, schema) = node.places("places", PLACES);
    for ran in [
        node.run(&["find"]),
        node.sql("SELECT 1", &[]),
        node.run(&["doctor"]),
        node.publish(&file, "aa", "places", &schema, "public"),
    ] {
        ran.expect_code(1).complains(&["jingwei serve"]);
    }
    // A socket that a killed node left behind is no node either.
    let mut node = node;
    federation.registry.enrol(&node.proposal("aa")).ok();
    node.start();
    node.until_announced();
    node.kill9();
    node.sql("SELECT 1", &[])
        .expect_code(1)
        .complains(&["jingwei serve"]);
    node.start();
    assert_eq!(node.rows("SELECT 1"), ["1"]);
}
