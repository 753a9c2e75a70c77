//! What happens to an agency after its enrolment, and to the root: with real processes.

use std::path::PathBuf;

use jingwei_proto::key::SecretKey;
use jingwei_proto::statement::{Predicate, RECOVERY_DELAY};
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::fault::Blame;
use jingwei_registry::keyfile;
use jingwei_registry::lifecycle::RecoveryProposal;
use jingwei_registry::view::View;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Forger, entry};
use jingwei_tests::node::PLACES;
use jingwei_tests::snapshots::set_log_time;
use jingwei_tests::{Federation, Node, Ran};

/// `aa` at one node; below it `aa.x`, which has published `places`, at another.
pub struct Family {
    pub top: Node,
    pub child: Node,
    pub federation: Federation,
}

pub const ASK: &str = "SELECT count(*) FROM \"aa.x\".places";
/// Behind the date of every checkpoint, as log time is.
pub const BEGIN: i64 = 1_750_000_000;

impl Family {
    pub fn new() -> Family {
        let federation = Federation::start();
        let top = federation.node("top", &["aa"]);
        let mut child = federation.joined_below("child", "aa.x");
        top.run(&["enrol", path(&child.proposal("aa.x")), "--yes"])
            .ok();
        child.start();
        child.until_announced();
        child.publish_places("aa.x", "places", "unconditional", PLACES);
        federation.settle(&[&top, &child]);
        Family {
            top,
            child,
            federation,
        }
    }

    pub fn settle(&self) {
        self.federation.settle(&[&self.top, &self.child]);
    }

    pub fn publish(&self, name: &str) -> Ran {
        let (file, schema) = self.child.places(name, PLACES);
        self.child
            .publish(&file, "aa.x", name, &schema, "unconditional")
    }

    /// The proposal of a new key for `aa.x`, made by whoever holds that key.
    fn recovery(&self, name: &str, key: &SecretKey) -> PathBuf {
        let registry = &self.federation.registry;
        let origin = format!("jingwei/{}/registry/1", registry.federation);
        let view = runtime()
            .block_on(View::open(&registry.url(), &origin, registry.root()))
            .expect("the registry runs");
        let record = view.index().agency(&"aa.x".parse().unwrap());
        let record = record.unwrap().expect("it is enrolled");
        let federation = registry.federation.parse().unwrap();
        let now = jingwei_tests::keyring::noon();
        let proposal = RecoveryProposal::make(&federation, &record, key, now).to_bytes();
        self.top.write(name, proposal)
    }

    fn key(&self) -> String {
        let key = keyfile::load(&self.child.dir.join("agencies/aa.x/signing.pem"));
        use jingwei_proto::key::Signer as _;
        key.expect("the agency's key").public().id().to_string()
    }
}

/// A path of the test's directory, which is text.
pub fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("a path of letters")
}

#[test]
fn a_key_is_rotated_by_its_agency() {
    let family = Family::new();
    let before = family.key();
    let saved = family.top.work.join("before.tar");
    family.top.sql(ASK, &["--save", path(&saved)]).ok();
    // Where nobody can be asked, nothing is done without --yes.
    family
        .child
        .run(&["rotate"])
        .expect_code(2)
        .prints(&["rotate", &before, "new key"])
        .complains(&["--yes"]);
    assert_eq!(family.key(), before);
    family
        .child
        .run(&["rotate", "--yes"])
        .ok()
        .prints(&["entered"]);
    assert_ne!(family.key(), before);
    assert!(
        !family
            .child
            .dir
            .join("agencies/aa.x/signing.next.pem")
            .exists()
    );
    family.settle();
    // It signs with the new key, and its older data are answered with it.
    family.publish("later").ok();
    family.settle();
    assert_eq!(family.top.rows(ASK), ["3"]);
    // Evidence from before and from after both verify.
    let after = family.top.work.join("after.tar");
    family.top.sql(ASK, &["--save", path(&after)]).ok();
    for evidence in [&saved, &after] {
        verify(&family, evidence).ok();
    }
    // Another one in the same process, and after a restart.
    family.child.run(&["rotate", "--yes"]).ok();
    let mut family = family;
    family.child.stop();
    family.child.start();
    family.child.run(&["rotate", "--yes"]).ok();
    family.publish("last").ok();
}

pub fn verify(family: &Family, evidence: &std::path::Path) -> Ran {
    let fingerprint = &family.federation.registry.fingerprint;
    let mut verify = jingwei_tests::programs::command("jingwei-verify");
    Ran::run(verify.arg(evidence).args(["--root", fingerprint]))
}

#[test]
fn a_rotation_survives_kill_9() {
    let mut family = Family::new();
    for round in 0..12u64 {
        let mut rotate = family.child.command(&["rotate", "--yes"]);
        rotate.stdout(std::process::Stdio::null());
        rotate.stderr(std::process::Stdio::null());
        let mut running = rotate.spawn().expect("the command starts");
        // Different moments of the rotation; what matters is that each of them is survived.
        std::thread::sleep(std::time::Duration::from_millis(round * 15));
        family.child.kill9();
        running.wait().expect("the command ends");
        family.child.start();
        family.settle();
        family.child.until("at one with the registry", |status| {
            status.alarms.is_empty()
        });
        family.publish(&format!("round_{round}")).ok();
    }
    assert_eq!(family.top.rows(ASK), ["3"]);
}

#[test]
fn a_lost_key_is_recovered_by_the_superior_after_the_delay() {
    let mut family = Family::new();
    set_log_time(&family.federation.registry, BEGIN);
    family.child.stop();
    std::fs::remove_file(family.child.dir.join("agencies/aa.x/signing.pem")).unwrap();
    family
        .child
        .run(&["recover", "--agency", "aa.x"])
        .ok()
        .prints(&[
            "new key",
            "its superior aa, who runs: jingwei recover --dir DIR ",
        ]);
    let proposal: PathBuf = family.child.dir.join("aa.x.recovery");
    family
        .top
        .run(&["recover", path(&proposal)])
        .expect_code(2)
        .prints(&["7 days"]);
    let again = || family.top.run(&["recover", path(&proposal), "--yes"]);
    again().ok();
    again().expect_code(1).complains(&["is entered already"]);
    // Neither before the delay has begun nor before it has passed.
    family.child.start();
    family
        .child
        .until("waiting", |status| !status.alarms.is_empty());
    assert_ne!(family.publish("early").code, 0);
    set_log_time(&family.federation.registry, BEGIN + 10);
    assert_ne!(family.publish("early").code, 0);
    let delay = i64::try_from(RECOVERY_DELAY).unwrap();
    set_log_time(&family.federation.registry, BEGIN + 10 + delay);
    family.settle();
    family
        .child
        .until("recovered", |status| status.alarms.is_empty());
    again().expect_code(1).complains(&["has this key already"]);
    family.publish("recovered").ok();
    family.settle();
    assert_eq!(
        family.top.rows("SELECT count(*) FROM \"aa.x\".recovered"),
        ["3"]
    );
    let evidence = family.top.work.join("recovered.tar");
    family.top.sql(ASK, &["--save", path(&evidence)]).ok();
    verify(&family, &evidence).ok();
    family.child.stop();
    family.child.start();
    family.publish("after_restart").ok();
}

#[test]
fn a_recovery_that_the_agency_did_not_ask_for_is_contested() {
    let family = Family::new();
    let registry = &family.federation.registry;
    // The superior makes a key of its own for the agency below it.
    let taken = SecretKey::from_seed(&[77; 32]);
    let file = family.recovery("taken.recovery", &taken);
    family.top.run(&["recover", path(&file), "--yes"]).ok();
    set_log_time(registry, BEGIN);
    family.settle();
    let warned = family
        .child
        .until("warned", |status| !status.alarms.is_empty());
    assert!(warned.alarms[0].contains("jingwei contest"), "{warned:?}");
    family
        .child
        .run(&["contest"])
        .expect_code(2)
        .prints(&["cancels"]);
    family.child.run(&["contest", "--yes"]).ok();
    let delay = i64::try_from(RECOVERY_DELAY).unwrap();
    set_log_time(registry, BEGIN + delay + 1);
    family.settle();
    family
        .child
        .until("at peace", |status| status.alarms.is_empty());
    family.publish("still_mine").ok();
}

/// Where there is nothing to contest, or it is too late, what is said fits.
#[test]
fn a_contest_that_comes_to_nothing_says_why() {
    let family = Family::new();
    let registry = &family.federation.registry;
    let nothing = family.child.run(&["contest", "--yes"]).expect_code(1);
    nothing.complains(&[
        "no recovery of the key of aa.x is under way",
        "stays as it is",
    ]);
    let taken = SecretKey::from_seed(&[78; 32]);
    let file = family.recovery("taken.recovery", &taken);
    family.top.run(&["recover", path(&file), "--yes"]).ok();
    let delay = i64::try_from(RECOVERY_DELAY).unwrap();
    for seconds in [BEGIN, BEGIN + delay] {
        set_log_time(registry, seconds);
    }
    family.settle();
    let late = family.child.run(&["contest", "--yes"]).expect_code(4);
    late.complains(&[
        "the delay of a recovery is over",
        "suspend aa.x",
        "jingwei recover",
    ]);
}

#[test]
fn a_suspended_agency_takes_no_part_until_it_is_resumed() {
    let family = Family::new();
    let saved = family.top.work.join("before.tar");
    family.top.sql(ASK, &["--save", path(&saved)]).ok();
    // Only the superior can, and its node says so.
    family
        .child
        .run(&["suspend", "aa.x", "--yes"])
        .expect_code(4)
        .complains(&["aa"]);
    family
        .top
        .run(&["suspend", "aa.x"])
        .expect_code(2)
        .prints(&["aa.x", "verifiable"]);
    family
        .top
        .run(&["suspend", "aa.x", "--reason", "an audit", "--yes"])
        .ok();
    family.settle();
    family.top.run(&["suspend", "aa.x"]).ok().prints(&[
        "aa.x is suspended since log entry",
        "‘an audit’: nothing to do",
    ]);
    family.publish("meanwhile").expect_code(4).complains(&[
        "aa.x is suspended",
        "since log entry",
        "‘an audit’",
    ]);
    // Its own people are told first of all why nobody speaks to it.
    let doctor = family.child.run(&["doctor"]).expect_code(1);
    let problems = || {
        doctor
            .stdout
            .lines()
            .filter(|line| line.starts_with("problem"))
    };
    assert_eq!(problems().count(), 1, "{doctor}");
    let problem = problems().next().unwrap();
    for words in [
        "aa.x is suspended since log entry",
        "‘an audit’",
        "ask aa, which lets it go on with ‘jingwei resume aa.x’",
    ] {
        assert!(problem.contains(words), "{doctor}");
    }
    assert!(!doctor.stdout.contains("TLS"), "{doctor}");
    let asked = family.top.sql(ASK, &["--format", "csv"]).expect_code(4);
    asked.complains(&[
        "refused by this node: aa.x is suspended since log entry",
        "‘an audit’; it takes no part",
    ]);
    family
        .child
        .run(&["rotate"])
        .expect_code(4)
        .complains(&["aa.x is suspended", "an audit"]);
    // It is not answered either.
    family.top.publish_places("aa", "open", "public", PLACES);
    family.settle();
    let own = family
        .child
        .sql("SELECT count(*) FROM aa.open", &["--format", "csv"]);
    assert!(own.code != 0 && own.stdout.is_empty(), "{own}");
    // What it signed before stays what it was.
    verify(&family, &saved).ok();
    family
        .top
        .run(&["describe", "aa.x/places"])
        .ok()
        .prints(&["suspended since log entry", "‘an audit’"]);
    let found = family.top.run(&["find", "places"]).ok();
    found.prints(&["aa.x/places@1", "suspended since log entry", "‘an audit’"]);
    let resumed = family.top.run(&["resume", "aa.x", "--yes"]).ok();
    resumed.prints(&["suspended", "because     an audit"]);
    family.settle();
    assert_eq!(family.top.rows(ASK), ["3"]);
    assert_eq!(family.child.rows("SELECT count(*) FROM aa.open"), ["3"]);
    family.publish("again").ok();
}

#[test]
fn an_ended_agency_is_ended_for_good_and_names_its_successor() {
    let family = Family::new();
    let saved = family.top.work.join("before.tar");
    family.top.sql(ASK, &["--save", path(&saved)]).ok();
    family.top.run(&["update", "aa.x", "--yes"]).expect_code(2);
    family
        .top
        .run(&["update", "aa.x", "--name", "The New Name", "--yes"])
        .ok();
    family.settle();
    let again = family
        .top
        .run(&["update", "aa.x", "--name", "The New Name"]);
    again
        .ok()
        .prints(&["aa.x is described so already: nothing to do"]);
    family
        .top
        .run(&["describe", "aa.x/places"])
        .ok()
        .prints(&["The New Name"]);
    let refused = |change: &[&str], code: i32, says: &[&str]| {
        let ran = family.top.run(change).expect_code(code).complains(says);
        // Before anybody is asked.
        assert!(!ran.stderr.contains("--yes"), "{ran}");
    };
    let near = ["there is no agency aa.y", "the nearest agencies: aa.x"];
    refused(&["successor", "aa.x", "aa.y"], 2, &near);
    refused(&["resume", "aa.y"], 2, &near);
    let own = "cannot be its own successor";
    refused(&["successor", "aa.x", "aa.x"], 4, &[own]);
    let beyond = ["does not lie within", "ask the keepers of the root keys"];
    let moved = ["update", "aa.x", "--territory", "test@1:Z"];
    refused(&moved, 4, &beyond);
    family
        .top
        .run(&["successor", "aa.x", "aa", "--yes"])
        .ok()
        .prints(&["successor"]);
    family.settle();
    let asked = family.top.sql(ASK, &["--format", "csv"]);
    assert!(
        asked.code != 0 && asked.stderr.contains("revoked"),
        "{asked}"
    );
    assert_ne!(family.publish("afterwards").code, 0);
    verify(&family, &saved).ok();
    let ended = [
        "aa.x was ended for good (revoked since log entry ",
        "and aa is its successor",
    ];
    for change in [
        &["resume", "aa.x"][..],
        &["suspend", "aa.x"],
        &["revoke", "aa.x"],
        &["update", "aa.x", "--name", "Another"],
        &["successor", "aa.x", "aa"],
    ] {
        refused(change, 4, &ended);
    }
}

#[test]
fn keepers_change_the_root_and_the_registrys_keys() {
    let mut family = Family::new();
    let registry = &family.federation.registry;
    let address = registry.address.to_string();
    let keys = registry.dir.join("root-keys");
    let dir = path(&registry.dir);
    let run = |arguments: &[&str]| registry.run(arguments);
    run(&["root", "show", "--dir", dir, "--registry", &address])
        .ok()
        .prints(&["version     1", "2 of 3", "rules       1"]);
    // A node that is away while the keys change.
    family.child.stop();
    let file = registry.dir.join("next.root");
    let new = registry.dir.join("new.pem");
    keyfile::create(&new).expect("a new root key");
    run(&[
        "root",
        "propose",
        "--dir",
        dir,
        "--registry",
        &address,
        "--new-registry-keys",
        "--add",
        path(&new),
        "--out",
        path(&file),
    ])
    .ok()
    .prints(&["version 2", "2 of the 3", "2 of the 4"]);
    let key = |n: u8| keys.join(format!("{n}.pem"));
    let submit = |key: &std::path::Path| {
        let arguments = [
            "root",
            "submit",
            path(&file),
            "--dir",
            dir,
            "--registry",
            &address,
        ];
        let mut arguments = arguments.to_vec();
        arguments.extend(["--root-key", path(key), "--yes"]);
        run(&arguments)
    };
    // One keeper is not enough.
    submit(&key(1)).expect_code(4);
    run(&["root", "sign", path(&file), "--root-key", path(&key(1))]).expect_code(2);
    run(&[
        "root",
        "sign",
        path(&file),
        "--root-key",
        path(&key(1)),
        "--yes",
    ])
    .ok();
    submit(&new).expect_code(4);
    submit(&key(3)).ok().prints(&["entered"]);
    // The registry goes on at once under its new keys, also after a restart.
    run(&["root", "show", "--dir", dir, "--registry", &address])
        .ok()
        .prints(&["version     2", "2 of 4"]);
    family.top.publish_places("aa", "after", "public", PLACES);
    family.child.start();
    family.child.until_announced();
    family.settle();
    assert_eq!(family.child.rows("SELECT count(*) FROM aa.after"), ["3"]);
    let evidence = family.top.work.join("after.tar");
    family.top.sql(ASK, &["--save", path(&evidence)]).ok();
    verify(&family, &evidence).ok();
    family.federation.registry.stop();
    family.federation.registry.start();
    family.publish("restarted").ok();
    // Who joins now begins with the first root and comes to the second.
    let other = family.federation.node("other", &["bb"]);
    family.federation.settle(&[&other]);
    assert!(other.status().unwrap().alarms.is_empty());
}

#[test]
fn a_root_whose_keys_the_registry_has_not_is_refused() {
    let federation = Federation::start();
    let registry = &federation.registry;
    let (address, dir) = (registry.address.to_string(), path(&registry.dir));
    let propose = [
        "root",
        "propose",
        "--dir",
        dir,
        "--registry",
        &address,
        "--new-registry-keys",
        "--yes",
    ];
    let file = registry.dir.join("next.root");
    let mut out = propose.to_vec();
    out.extend(["--out", path(&file)]);
    registry.run(&out).ok();
    std::fs::rename(registry.dir.join("keys/2"), registry.dir.join("away")).unwrap();
    let key = |n: u8| registry.dir.join(format!("root-keys/{n}.pem"));
    registry
        .run(&[
            "root",
            "sign",
            path(&file),
            "--root-key",
            path(&key(1)),
            "--yes",
        ])
        .ok();
    let last = key(2);
    let submit = [
        "root",
        "submit",
        path(&file),
        "--dir",
        dir,
        "--registry",
        &address,
        "--root-key",
        path(&last),
        "--yes",
    ];
    let refused = registry.run(&submit);
    assert!(
        refused.code != 0 && refused.stderr.contains("keys"),
        "{refused}"
    );
    // Nothing has happened, and with the keys in their place it is entered.
    federation.node("a", &["aa"]);
    std::fs::rename(registry.dir.join("away"), registry.dir.join("keys/2")).unwrap();
    registry.run(&submit).ok();
}

#[test]
fn software_too_old_for_the_rules_stops_there_and_says_so() {
    let mut family = Family::new();
    let registry = &mut family.federation.registry;
    let (address, dir) = (registry.address.to_string(), registry.dir.clone());
    let file = dir.join("next.root");
    let propose = [
        "root",
        "propose",
        "--dir",
        path(&dir),
        "--registry",
        &address,
        "--threshold",
        "1",
        "--out",
        path(&file),
    ];
    registry.run(&propose).ok();
    let bytes = std::fs::read(&file).expect("a proposal");
    let proposed = Proposal::parse(&bytes).expect("a proposal");
    let mut statement = proposed.statement().clone();
    let Predicate::Root(next) = &mut statement.predicate else {
        panic!("a root is proposed");
    };
    // Only a newer program proposes them.
    (next.threshold, next.rules) = (2, 99);
    let mut proposal = Proposal::new(&statement);
    let keys = [1, 2].map(|n| keyfile::load(&dir.join(format!("root-keys/{n}.pem"))).unwrap());
    // This registry does not enter what it could not follow, whoever signed it.
    let submit = |envelope| runtime().block_on(registry.submitter().submit(&envelope));
    let alone = submit(proposal.finish(&keys[0])).unwrap_err();
    assert_eq!(alone.blame, Blame::Unauthorised, "{alone}");
    proposal.sign(&keys[0]);
    let envelope = proposal.finish(&keys[1]);
    let refused = submit(envelope.clone()).unwrap_err();
    assert!(refused.message.contains("rules 99"), "{refused}");
    family.top.publish_places("aa", "before", "public", PLACES);
    family.federation.settle(&[&family.top, &family.child]);
    // A newer one has entered it; then the old one is started again.
    let registry = &mut family.federation.registry;
    registry.stop();
    use jingwei_proto::key::Signer as _;
    Forger::new(&dir).append(&dir.join("log"), &[entry(&envelope, keys[1].public())]);
    registry.start();
    for node in [&family.top, &family.child] {
        node.until("stopped", |status| {
            status.alarms.iter().any(|alarm| alarm.contains("rules 99"))
        });
    }
    // It enters nothing. Nodes show what they have, and take part in nothing, after a restart too.
    for restarted in [false, true] {
        if restarted {
            family.child.stop();
            family.child.start();
        }
        let ran = family.publish("afterwards");
        assert!(ran.code != 0 && ran.stderr.contains("rules 99"), "{ran}");
        family
            .child
            .run(&["find"])
            .ok()
            .prints(&["aa.x/places@1", "aa/before@1"]);
        assert_eq!(family.child.rows(ASK), ["3"]);
        let asked = family
            .child
            .sql("SELECT count(*) FROM aa.before", &["--format", "csv"]);
        assert!(
            asked.code != 0 && asked.stderr.contains("rules 99"),
            "{asked}"
        );
        let doctor = family.child.run(&["doctor"]).expect_code(1);
        assert!(doctor.stdout.contains("install a newer one"), "{doctor}");
    }
    let registry = &family.federation.registry;
    let stranger = Agent::new(registry, "zz", 99).enrolment(registry);
    let refused = runtime()
        .block_on(registry.submitter().submit(&stranger))
        .unwrap_err();
    assert!(refused.message.contains("rules 99"), "{refused}");
}
