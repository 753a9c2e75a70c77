//! The registry enters snapshots by itself, and evidence proves by them that nothing is left out.

use jingwei_proto::time::Time;
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::run_in;
use jingwei_tests::{Federation, Node, Ran};

const ASK: &str = "SELECT count(*) FROM bb.places";

/// A registry that enters snapshots every second, with two nodes.
fn found() -> (Federation, Node, Node) {
    let mut federation = Federation::start();
    federation.registry.stop();
    let settings = federation.registry.dir.join("registry.toml");
    let other = std::fs::read_to_string(&settings).unwrap_or_default();
    std::fs::write(&settings, format!("snapshots = \"1s\"\n{other}")).unwrap();
    federation.registry.start();
    let a = federation.node("a", &["aa"]);
    let b = federation.node("b", &["bb"]);
    b.publish_places("bb", "places", "unconditional", PLACES)
        .ok();
    federation.settle(&[&a, &b]);
    (federation, a, b)
}

fn verify(federation: &Federation, node: &Node, file: &str) -> Ran {
    let fingerprint = &federation.registry.fingerprint;
    let arguments = [file, "--root", fingerprint];
    run_in(&node.work, "jingwei-verify", arguments).ok()
}

/// The entry and the time up to which the verifier says that nothing is left out.
fn settled(verdict: &Ran) -> (u64, Time) {
    let words = "nothing left out of what happened to them before entry ";
    let line = verdict
        .stdout
        .lines()
        .find_map(|line| Some(line.split_once(words)?.1));
    let line = line.unwrap_or_else(|| panic!("{verdict}"));
    let (entry, time) = line.split_once(", ").unwrap();
    (entry.parse().unwrap(), time.parse().unwrap())
}

#[test]
fn evidence_proves_that_nothing_happened_before_the_newest_snapshot() {
    let (mut federation, mut a, mut b) = found();
    federation.registry.logged("a snapshot was entered");
    federation.settle(&[&a, &b]);
    a.sql(ASK, &["--save", "one.evidence"]).ok();
    let first = settled(&verify(&federation, &a, "one.evidence"));
    // The newest snapshot is known again after the node and the registry were killed.
    a.kill9();
    federation.registry.kill9();
    federation.registry.start();
    federation.registry.logged("a snapshot was entered");
    a.start();
    federation.settle(&[&a, &b]);
    a.sql(ASK, &["--save", "two.evidence"]).ok();
    let second = settled(&verify(&federation, &a, "two.evidence"));
    assert!(second > first, "{second:?} after {first:?}");
    // What has happened since is in the file, and proved to be all.
    b.run(&["rotate", "--yes"]).ok();
    federation.settle(&[&a, &b]);
    a.sql(ASK, &["--save", "three.evidence"]).ok();
    assert!(settled(&verify(&federation, &a, "three.evidence")) >= second);
    b.stop();
}

#[test]
fn without_a_snapshot_the_verifier_says_what_is_not_shown() {
    let federation = Federation::start();
    let a = federation.node("a", &["aa"]);
    let b = federation.node("b", &["bb"]);
    b.publish_places("bb", "places", "unconditional", PLACES)
        .ok();
    federation.settle(&[&a, &b]);
    a.sql(ASK, &["--save", "one.evidence"]).ok();
    verify(&federation, &a, "one.evidence").prints(&["no snapshot proves that this is all"]);
}
