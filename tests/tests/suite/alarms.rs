//! Whatever a registry lies about, whoever watches a node learns of it: from its log, from its
//! metrics, from `doctor`, and where the registry's signature shows the lie, from a proof. Meanwhile
//! the node answers from what it had verified.

use std::path::{Path, PathBuf};

use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_registry::log::Entry;
use jingwei_tests::accusing::confirm;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Files, Forger, LyingRegistry, altered, entries, entry};
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{copy_dir, free_address};
use jingwei_tests::{Federation, Node};

use crate::bad_registry::read;

/// What a node is shown, and what has to come of it.
struct Lie {
    name: &'static str,
    /// Whether the node has seen the true log before.
    seen: bool,
    log: Vec<Entry>,
    kind: &'static str,
    /// What the proof says.
    proved: &'static str,
}

/// A true log, whose last three entries are two versions of one dataset and one of another.
struct Stage {
    agent: Agent,
    stranger: Agent,
    log: Vec<Entry>,
}

impl Stage {
    fn submit(federation: &Federation) -> Stage {
        let agent = Agent::new(&federation.registry, "zz", 7);
        let (first, one) = agent.version("one", None);
        let (_, one_again) =
            agent.version("one", Some((first.head.sequence, one.payload_digest())));
        let two = agent.dataset("two");
        for envelope in [agent.enrolment(&federation.registry), one, one_again, two] {
            let submitter = federation.registry.submitter();
            runtime().block_on(submitter.submit(&envelope)).unwrap();
        }
        Stage {
            agent,
            stranger: Agent::new(&federation.registry, "yy", 9),
            log: entries(&federation.registry.dir.join("log")),
        }
    }

    fn by(&self, agent: &Agent, name: &str) -> Entry {
        entry(&agent.dataset(name), agent.key.public())
    }

    fn with(&self, change: impl Fn(&mut Vec<Entry>, usize)) -> Vec<Entry> {
        let mut log = self.log.clone();
        let last = log.len() - 1;
        change(&mut log, last);
        log
    }

    fn lies(&self) -> [Lie; 9] {
        let lie = |name, seen, log, kind, proved| Lie {
            name,
            seen,
            log,
            kind,
            proved,
        };
        let other_key = SecretKey::from_seed(&[8; 32]);
        let three_and_four = ["three", "four"].map(|name| self.by(&self.agent, name));
        [
            lie(
                "altered",
                false,
                self.with(|log, last| log[last] = altered(&log[last], |t| t.replace("two", "owt"))),
                "rejected-entry",
                "is not signed by the key",
            ),
            lie(
                "wrong-key",
                true,
                self.with(|log, _| {
                    log.push(entry(&self.agent.dataset("three"), other_key.public()));
                }),
                "bad-entry",
                "is not signed by the key",
            ),
            lie(
                "dropped",
                true,
                self.with(|log, last| {
                    log.remove(last - 1);
                    log.extend(three_and_four.clone());
                }),
                "two-histories",
                "that does not continue it",
            ),
            lie(
                "reordered",
                true,
                self.with(|log, last| log.swap(last - 1, last)),
                "two-histories",
                "two different logs",
            ),
            lie(
                "repeated",
                true,
                self.with(|log, last| log.push(log[last].clone())),
                "rejected-entry",
                "repeats entry",
            ),
            lie(
                "rejected",
                true,
                self.with(|log, _| log.push(self.by(&self.stranger, "three"))),
                "rejected-entry",
                "is one that the rules reject",
            ),
            lie(
                "split-view",
                true,
                self.with(|log, last| {
                    log.truncate(last);
                    log.extend(three_and_four.clone());
                }),
                "two-histories",
                "that does not continue it",
            ),
            lie(
                "same-size",
                true,
                self.with(|log, last| log[last] = self.by(&self.agent, "three")),
                "two-histories",
                "two different logs",
            ),
            lie(
                "shrunk",
                true,
                self.with(|log, last| log.truncate(last)),
                "shrunk-log",
                "dated a log of",
            ),
        ]
    }
}

#[test]
fn every_lie_is_in_the_log_and_the_metrics_and_is_proved() {
    let mut federation = Federation::start();
    let mut node = federation.node("a", &["aa"]);
    node.publish_places("aa", "places", "unconditional", PLACES);
    let stage = Stage::submit(&federation);
    federation.settle(&[&node]);
    node.stop();
    federation.registry.stop();
    let registry = &federation.registry;
    let liar = LyingRegistry::start(registry.address, Files::of(&registry.dir.join("log")));
    let forger = Forger::new(&registry.dir).dated_after(60);
    for lie in stage.lies() {
        println!("{}", lie.name);
        let place = federation.dir.path().join(format!("lie-{}", lie.name));
        liar.show(forger.write(&place, &lie.log));
        let parent = federation.dir.path();
        let mut told = twin(&node, parent, &lie);
        told.start();
        let proof = noticed(&told, &lie);
        confirm(&proof, &registry.fingerprint, &[lie.proved]);
        assert_eq!(told.rows("SELECT count(*) FROM aa.places"), ["3"]);
        told.kill9();
    }
}

/// However the registry behaves now: its officer may not have looked into what it did before.
#[test]
fn who_publishes_is_told_of_an_alarm_that_stands() {
    let federation = Federation::start();
    let node = federation.node("a", &["aa"]);
    let alarms = node.dir.join("replica/alarms");
    std::fs::create_dir_all(&alarms).unwrap();
    let alarm = alarms.join("two-histories-1.alarm");
    std::fs::write(&alarm, "it showed two logs\n").unwrap();
    let told = ["two-histories: it showed two logs", "‘jingwei doctor’"];
    node.publish_places("aa", "places", "unconditional", PLACES)
        .prints(&told);
    std::fs::remove_file(&alarm).unwrap();
    let after = node.publish_places("aa", "more", "unconditional", PLACES);
    assert!(!after.stdout.contains("alarm"), "{after}");
}

/// The same node as it was when it stopped, with metrics. Where it has not seen the true log, it
/// has lost all that it had verified.
fn twin(node: &Node, parent: &Path, lie: &Lie) -> Node {
    let mut twin = Node::new(parent, lie.name);
    twin.listen = node.listen;
    copy_dir(&node.dir, &twin.dir);
    if !lie.seen {
        std::fs::remove_dir_all(twin.dir.join("replica")).unwrap();
    }
    show_metrics(&mut twin);
    twin
}

/// The node has metrics from its next start on.
pub fn show_metrics(node: &mut Node) {
    let metrics = (
        "JINGWEI_NODE_METRICS".to_owned(),
        free_address().to_string(),
    );
    node.settings.push(metrics);
}

/// Waits for an alarm in the node's log and finds it in its metrics, which were
/// [shown](show_metrics).
#[track_caller]
pub fn logged_and_counted(node: &Node, kind: &str) {
    let logged = node.until_log("the registry misbehaves");
    assert!(logged.contains(&format!("\"kind\":\"{kind}\"")), "{logged}");
    let (_, metrics) = node.settings.last().expect("it was set");
    let figures = read(&format!("http://{metrics}/metrics"));
    let counted = format!("jingwei_alarms_total{{kind=\"{kind}\"}} 1");
    assert!(figures.lines().any(|line| line == counted), "{figures}");
}

/// Waits for the alarm in the log, finds it in the metrics and at `doctor`, and returns the proof.
#[track_caller]
fn noticed(node: &Node, lie: &Lie) -> PathBuf {
    let kind = lie.kind;
    logged_and_counted(node, kind);
    // A proof may be found after the alarm was raised.
    let alarms = node.dir.join("replica/alarms");
    let found = || -> Option<PathBuf> {
        let files = std::fs::read_dir(&alarms).ok()?;
        let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
        paths.find(|path| path.extension().is_some_and(|end| end == "misbehaviour"))
    };
    jingwei_tests::programs::eventually("there is a proof", || found().is_some());
    let proof = found().expect("it was there");
    let name = proof.file_name().unwrap_or_default().to_string_lossy();
    assert!(name.starts_with(kind), "{name}");
    node.run(&["doctor"])
        .expect_code(3)
        .prints(&[&format!("alarm       {kind}: ")]);
    proof
}
