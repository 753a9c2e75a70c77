//! What the keepers of root keys are told of witnesses: that there are none, that a change waits for
//! their quorum, and what a new log key asks of them.

use jingwei_proto::policy::Policy;
use jingwei_tests::programs::eventually;
use jingwei_tests::{Federation, Witnessed};

use crate::keepers::{Keepers, root_sign};
use crate::membership::path;

/// Keepers are told, and it is so: what comes after a new log key waits for the new policy.
#[test]
fn a_new_log_key_needs_a_new_policy_at_the_witnesses() {
    let mut all = Witnessed::found(1, 1, &[]);
    all.start();
    let keepers = Keepers(&all.registry);
    let file = all.dir.path().join("next.root");
    let needs = "witnesses   each needs the new policy first thing";
    let propose = ["root", "propose", "--new-registry-keys", "--out"];
    let proposed = keepers.run(&[&propose[..], &[path(&file)]].concat());
    proposed.ok().prints(&[needs]);
    let key = keepers.key(1);
    let signed = all.registry.run(&root_sign(&file, &key));
    signed.ok().prints(&[needs]);
    let submitted = keepers.signed(&["root", "submit", path(&file)], &[2]);
    submitted.ok().prints(&[needs, "entered"]);
    let policy = keepers.run(&["policy"]).ok();
    let policy = policy.prints(&["# root document 2"]).stdout;
    let suspend = || keepers.signed(&["agency", "suspend", "aa"], &[1, 2]);
    suspend().expect_code(1).complains(&["quorum"]);
    std::fs::write(&all.policy, &policy).unwrap();
    all.witnesses[0].kill9();
    all.witnesses[0].start(&all.policy);
    eventually("the log goes on", || suspend().code == 0);
    // The same policy is had from the directory while the registry is away, and that is said.
    all.registry.stop();
    let away = Keepers(&all.registry).run(&["policy"]).ok();
    let away = away
        .prints(&["# root document 2", "# the registry was not reached"])
        .complains(&["cannot be read", "root document 2, the newest in "]);
    let (_, rules) = policy.split_once('\n').unwrap();
    assert!(away.stdout.ends_with(rules), "{away}");
}

/// What is published is not what is so while a change of it is committed.
#[test]
fn nothing_is_said_to_be_done_while_a_change_waits_for_the_quorum() {
    let mut all = Witnessed::found(1, 1, &[]);
    all.start();
    let keepers = Keepers(&all.registry);
    let resume = ["agency", "resume", "aa"];
    keepers.run(&resume).ok().prints(&[": nothing to do"]);
    all.witnesses[0].kill9();
    let suspend = keepers.signed(&["agency", "suspend", "aa"], &[1, 2]);
    suspend.expect_code(1).complains(&["quorum"]);
    let waits = keepers.run(&resume).expect_code(1).complains(&[
        "1 entry is committed and waits for the quorum, and may change this",
        "jingwei-registry status",
    ]);
    assert!(!waits.stdout.contains("nothing to do"), "{waits}");
    all.witnesses[0].start(&all.policy);
    eventually("the change is published", || {
        keepers.signed(&resume, &[1, 2]).code == 0
    });
    keepers.run(&resume).ok().prints(&[": nothing to do"]);
}

/// What is committed is not called lost when it is submitted once more.
#[test]
fn a_change_that_waits_for_the_quorum_is_said_to_wait() {
    let mut all = Witnessed::found(1, 1, &[]);
    all.start();
    let keepers = Keepers(&all.registry);
    let file = all.dir.path().join("suspend.proposal");
    let propose = ["agency", "suspend", "aa", "--out", path(&file)];
    keepers.run(&propose).ok();
    let key = keepers.key(1);
    all.registry.run(&root_sign(&file, &key)).ok();
    all.witnesses[0].kill9();
    let submit = || keepers.signed(&["root", "submit", path(&file)], &[2]);
    let waits = "nothing more is to be signed or submitted";
    for says in ["the statement is entry 2", "this is log entry 2 already"] {
        let ran = submit().expect_code(1).complains(&[says, waits]);
        assert!(!ran.stderr.contains("nothing was entered"), "{ran}");
    }
    let another = ["agency", "update", "aa", "--name", "New"];
    keepers
        .signed(&another, &[1, 2])
        .expect_code(1)
        .complains(&["nothing was entered: another change of aa is log entry 2"]);
    all.witnesses[0].start(&all.policy);
    eventually("the change is published", || submit().code == 0);
    submit().ok().prints(&["entered     already, log entry 2"]);
}

#[test]
fn a_registry_without_witnesses_says_so() {
    let federation = Federation::start();
    let keepers = Keepers(&federation.registry);
    let status = keepers.run(&["status"]).ok();
    let status = status.prints(&[
        "1 entry",
        "by the registry itself",
        "witnesses   none is asked for",
    ]);
    assert!(!status.stdout.contains("co-signed"), "{status}");
    // Where it is may be typed as it says it itself.
    let address = federation.registry.address.to_string();
    let at = |place: &str| {
        let here = ["status", "--dir", path(&federation.registry.dir)];
        federation
            .registry
            .run(&[&here[..], &["--registry", place]].concat())
    };
    at(&federation.registry.url()).ok().prints(&["1 entry"]);
    at(&format!("https://{address}"))
        .expect_code(2)
        .complains(&[&format!("is not HOST:PORT: write {address}")]);
    let policy = keepers.run(&["policy"]).ok();
    let policy = policy.prints(&["# witnesses: none is asked for", "witness cosigner "]);
    assert!(!policy.stdout.contains("witness w1"), "{policy}");
    // It is a policy all the same, by which the log's checkpoints verify.
    let read = Policy::parse(policy.stdout.as_bytes()).unwrap();
    let checkpoint = federation.registry.checkpoint();
    assert!(read.verify(checkpoint.as_bytes()).unwrap().time.is_some());
}
