//! A registry that lies about the time: nodes say so, and go on with what is true.

use jingwei_registry::clock;
use jingwei_tests::accusing::proof_of;
use jingwei_tests::lying_registry::{Files, Forger, LyingRegistry, entries};
use jingwei_tests::node::PLACES;
use jingwei_tests::snapshots::set_log_time;
use jingwei_tests::{Federation, Node};

use crate::alarms::{logged_and_counted, show_metrics};

const SQL: &str = "SELECT count(*) FROM aa.places";
const MINUTE: i64 = 60;
const WEEK: i64 = 7 * 24 * 60 * MINUTE;

/// A federation with one node, which has published a table and shows metrics.
fn federation() -> (Federation, Node) {
    let federation = Federation::start();
    let mut node = federation.node("a", &["aa"]);
    node.publish_places("aa", "places", "unconditional", PLACES);
    federation.settle(&[&node]);
    node.stop();
    show_metrics(&mut node);
    node.start();
    (federation, node)
}

/// The node raises this alarm, for which there is no proof, in its log, in its metrics and at
/// `doctor`, and answers as before.
#[track_caller]
fn alarmed(node: &Node, kind: &str, words: &str) {
    node.until("alarmed", |status| !status.alarms.is_empty());
    logged_and_counted(node, kind);
    node.run(&["doctor"]).expect_code(3).prints(&[
        &format!("alarm       {kind}: "),
        words,
        "not proved",
    ]);
    assert!(!proof_of(&node.dir, kind).exists());
    assert_eq!(node.rows(SQL), ["3"]);
}

#[track_caller]
fn at_peace(node: &Node) {
    node.run(&["doctor"]).ok();
}

/// Two snapshots within a second, between which a week is said to have passed: with that a
/// recovery that should be contested within the week would be in force.
#[test]
fn log_time_that_is_put_ahead_is_an_alarm() {
    let (federation, node) = federation();
    let registry = &federation.registry;
    let now = clock::system()().seconds();
    // Clocks differ.
    for seconds in [now - WEEK, now, now + MINUTE] {
        set_log_time(registry, seconds);
    }
    federation.settle(&[&node]);
    at_peace(&node);
    let index = set_log_time(registry, now + WEEK);
    federation.settle(&[&node]);
    let words = format!("the snapshot in entry {index}");
    alarmed(&node, "log-time-ahead", &words);
}

#[test]
fn a_checkpoint_that_is_dated_ahead_is_an_alarm() {
    let (mut federation, node) = federation();
    federation.registry.stop();
    let registry = &federation.registry;
    let log = entries(&registry.dir.join("log"));
    let dated = |seconds: i64| -> Files {
        let dir = federation.dir.path().join(format!("dated-{seconds}"));
        let forger = Forger::new(&registry.dir).dated_after(seconds);
        forger.write(&dir, &log)
    };
    let liar = LyingRegistry::start(registry.address, dated(MINUTE));
    let before = clock::system()().seconds();
    node.until("shown the new date", |status| status.log_time > before);
    at_peace(&node);
    liar.show(dated(60 * MINUTE));
    alarmed(&node, "checkpoint-ahead", "and here it is");
}
