//! The registry is lost for good, and another one goes on from a node's replica.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::leaf::leaf;
use jingwei_proto::statement::Continues;
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Blame;
use jingwei_registry::found::sign_together;
use jingwei_registry::keyfile;
use jingwei_registry::log::{Entry, Log};
use jingwei_registry::registry::Paths;
use jingwei_registry::sequencer::LogKeys;
use jingwei_registry::submit::Submitter;
use jingwei_registry::take_over::Replica;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{command, copy_dir, eventually, free_address};
use jingwei_tests::reading::{LogFiles, parse_checkpoint};
use jingwei_tests::s3::S3;
use jingwei_tests::{Federation, Node, Ran, Registry, Witnessed};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::take_over_crash::proposed;

const STATEMENTS: usize = 600;
/// Statements on their way at once.
const CLIENTS: usize = 8;

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

/// `jingwei-registry take-over` from a node into `to`, with these options.
pub(crate) fn take_over(from: &Path, to: &Path, more: &[&str]) -> Command {
    let mut take_over = command("jingwei-registry");
    take_over.arg("take-over").arg("--from").arg(from);
    take_over.arg("--dir").arg(to).args(more).arg("--yes");
    take_over
}

/// `--root-key` for so many of the keys in a directory.
pub(crate) fn signed_by(safe: &Path, keys: usize) -> Vec<String> {
    (1..=keys)
        .flat_map(|n| {
            let key = safe.join(format!("{n}.pem"));
            ["--root-key".to_owned(), path(&key).to_owned()]
        })
        .collect()
}

pub(crate) fn texts(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

fn verify(evidence: &Path, registry: &Registry) -> Ran {
    let mut verify = command("jingwei-verify");
    verify.arg(evidence).args(["--root", &registry.fingerprint]);
    Ran::run(&mut verify)
}

/// Statements that were signed beforehand, and their submitters.
struct Load {
    statements: Vec<Envelope>,
    waiting: Mutex<Vec<usize>>,
    acknowledged: Mutex<HashSet<usize>>,
    count: watch::Sender<usize>,
}

impl Load {
    fn new(statements: Vec<Envelope>) -> Arc<Load> {
        Arc::new(Load {
            waiting: Mutex::new((0..statements.len()).rev().collect()),
            statements,
            acknowledged: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    /// Submits statement after statement until the registry is gone or none is left.
    async fn submit(self: Arc<Self>, submitter: Submitter) {
        loop {
            let Some(next) = self.waiting.lock().unwrap().pop() else {
                return;
            };
            match submitter.submit(&self.statements[next]).await {
                Ok(_) => {
                    self.acknowledged.lock().unwrap().insert(next);
                    self.count.send_modify(|count| *count += 1);
                }
                Err(fault) => {
                    let gone = [Blame::Unavailable, Blame::Cancelled, Blame::Internal];
                    assert!(gone.contains(&fault.blame), "{fault:?}");
                    self.waiting.lock().unwrap().push(next);
                    return;
                }
            }
        }
    }

    fn clients(self: &Arc<Self>, registry: &Registry) -> Vec<JoinHandle<()>> {
        (0..CLIENTS)
            .map(|_| runtime().spawn(self.clone().submit(registry.submitter())))
            .collect()
    }

    /// Waits until so many more are acknowledged.
    fn more(&self, number: usize) {
        let mut count = self.count.subscribe();
        let enough = *count.borrow() + number;
        let so = runtime().block_on(count.wait_for(|count| *count >= enough));
        assert!(so.is_ok());
    }

    /// Everything that a log does not hold is to be submitted again.
    fn keep_what_is_not_in(&self, log: &LogFiles) {
        let held: HashSet<&Vec<u8>> = log.envelopes.iter().collect();
        let missing = |n: &usize| !held.contains(&self.statements[*n].to_bytes());
        *self.waiting.lock().unwrap() = (0..self.statements.len()).filter(missing).collect();
    }
}

fn ended(clients: Vec<JoinHandle<()>>) {
    for client in clients {
        runtime().block_on(client).unwrap();
    }
}

/// A federation with two witnesses, of which both must sign, and two nodes.
struct Drill {
    all: Witnessed,
    asker: Node,
    provider: Node,
    safe: PathBuf,
    load: Arc<Load>,
}

const ASK: &str = "SELECT count(*) FROM cc.places";

impl Drill {
    fn start() -> Drill {
        let mut all = Witnessed::found(2, 2, &[]);
        all.start();
        let node = |name: &str, agency: &str| {
            let mut node = Node::new(all.dir.path(), name);
            node.init(agency, 1, "test@1:A", &[]).ok();
            let registry = &all.registry;
            let join = ["join", &registry.url(), "--root", &registry.fingerprint];
            node.run(&join).ok();
            registry.enrol(&node.proposal(agency)).ok();
            node.start();
            node.until_announced();
            node
        };
        let (asker, provider) = (node("asker", "bb"), node("provider", "cc"));
        provider.publish_places("cc", "places", "unconditional", PLACES);
        let size = LogFiles::read(&all.registry.dir.join("log")).size();
        asker.until_entry(size - 1);
        asker.sql(ASK, &["--save", "before.evidence"]).ok();
        // As the founding's words ask for.
        let safe = all.dir.path().join("safe");
        std::fs::rename(all.registry.dir.join("root-keys"), &safe).unwrap();
        let statements = (0..STATEMENTS).map(|n| all.agent.dataset(&format!("d{n}")));
        let load = Load::new(statements.collect());
        Drill {
            all,
            asker,
            provider,
            safe,
            load,
        }
    }

    /// The registry is lost under load, some time after both nodes: the asker's replica is the
    /// longer one, and the registry has acknowledged more than either holds.
    fn lose(&mut self) {
        let clients = self.load.clients(&self.all.registry);
        self.load.more(40);
        self.provider.kill9();
        let seen = self.asker.status().unwrap().log_size;
        self.load.more(40);
        self.asker.until_entry(seen + 20);
        self.asker.kill9();
        self.load.more(40);
        self.all.registry.kill9();
        std::fs::remove_dir_all(&self.all.registry.dir).unwrap();
        ended(clients);
    }

    fn options(&self, keys: usize) -> Vec<String> {
        let mut options = signed_by(&self.safe, keys);
        for witness in &self.all.witnesses {
            options.extend(["--witness".into(), witness.key.to_string(), witness.url()]);
        }
        options
    }
}

/// What a refusal says to give up.
fn given_up(refusal: &Ran) -> String {
    let words = refusal.stderr.split("--give-up ").nth(1);
    let digits = words.expect("it says how to go on").chars();
    digits.take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_registry_that_is_lost_under_load_is_taken_over_and_no_acknowledged_entry_is_lost() {
    let mut drill = Drill::start();
    let backup = drill.all.dir.path().join("backup");
    copy_dir(&drill.all.registry.dir, &backup);
    drill.lose();
    let new = drill.all.dir.path().join("new");
    let (asker, provider) = (drill.asker.dir.clone(), drill.provider.dir.clone());
    // Those who have seen more say so, whichever replica is taken.
    let options = drill.options(2);
    let short = Ran::run(&mut take_over(&provider, &new, &texts(&options)))
        .expect_code(4)
        .complains(&["entries more", "longer replica"]);
    let long = Ran::run(&mut take_over(&asker, &new, &texts(&options))).expect_code(4);
    let number = |ran: &Ran| given_up(ran).parse::<u64>().unwrap();
    assert!(number(&long) > 0 && number(&short) > number(&long));
    // Where the witnesses are not asked, nobody knows.
    let unasked = signed_by(&drill.safe, 2);
    Ran::run(&mut take_over(&asker, &new, &texts(&unasked)))
        .expect_code(4)
        .complains(&["w1.example", "--without-witnesses"]);
    // The wrong number is no decision, and one key is not two.
    let with = |keys: usize, missing: &str| {
        let mut options = drill.options(keys);
        options.extend(["--give-up".to_owned(), missing.to_owned()]);
        Ran::run(&mut take_over(&asker, &new, &texts(&options)))
    };
    let missing = given_up(&long);
    with(2, "1000000").expect_code(4);
    with(1, &missing).expect_code(4).complains(&["root keys"]);
    let registry = drill.all.registry.successor(&new);
    registry
        .refuses_to_start()
        .complains(&["take-over", "--proposal"]);
    let origin = origin_of(&asker).replace("/registry/1", "/registry/2");
    with(2, &missing)
        .ok()
        .prints(&["continues", &origin, "given up"]);
    with(2, &missing).expect_code(2).complains(&["complete"]);
    drill.go_on(registry, &origin);
    drill.check(&new);
    drill.old_one_comes_back(&backup, &new);
}

fn origin_of(node: &Path) -> String {
    let note = std::fs::read_to_string(node.join("replica/log/checkpoint")).unwrap();
    parse_checkpoint(&note).0
}

impl Drill {
    /// Witnesses and nodes go over to the new registry, each in its way, and the load goes on.
    fn go_on(&mut self, mut registry: Registry, origin: &str) {
        let policy = registry.policy();
        assert!(policy.contains(origin), "{policy}");
        std::fs::write(&self.all.policy, policy).unwrap();
        self.all.witnesses[0].told(origin);
        self.all.witnesses[1].kill9();
        self.all.witnesses[1].start(&self.all.policy);
        registry.start();
        self.asker.start();
        self.asker
            .until("without a registry", |status| !status.problem.is_empty());
        let doctor = self.asker.run(&["doctor"]).expect_code(1);
        doctor.prints(&["jingwei follow http://HOST:PORT"]);
        // What one's officer publishes while nobody is there is kept, and submitted afterwards.
        let (file, schema) = self.asker.places("meanwhile", PLACES);
        let waiting = self
            .asker
            .publish(&file, "bb", "meanwhile", &schema, "unconditional");
        waiting
            .expect_code(1)
            .complains(&["the checked data are kept here"]);
        for node in [&self.asker, &self.provider] {
            node.run(&["follow", &registry.url()])
                .ok()
                .prints(&[origin]);
        }
        self.provider.start();
        let replica = LogFiles::read(&self.asker.dir.join("replica/log"));
        self.load.keep_what_is_not_in(&replica);
        while !self.load.waiting.lock().unwrap().is_empty() {
            ended(self.load.clients(&registry));
        }
        self.all.registry = registry;
    }

    /// Every statement stands in the new log once, and its beginning is the replica's.
    fn check(&mut self, new: &Path) {
        self.asker.until("with its dataset", |_| {
            self.provider
                .sql("SELECT count(*) FROM bb.meanwhile", &[])
                .code
                == 0
        });
        let log = LogFiles::read(&new.join("log"));
        assert!(!log.repeats());
        let all = self.load.acknowledged.lock().unwrap();
        assert_eq!(all.len(), STATEMENTS);
        for statement in all.iter().map(|n| self.load.statements[*n].to_bytes()) {
            assert_eq!(
                log.envelopes
                    .iter()
                    .filter(|held| **held == statement)
                    .count(),
                1
            );
        }
        for node in [&self.asker, &self.provider] {
            node.until_entry(log.size() - 1);
            node.run(&["doctor", "--wait", "60"]).ok();
            let replica = LogFiles::read(&node.dir.join("replica/log"));
            assert!(replica.size() >= log.size());
            assert_eq!(replica.root_at(log.size()), log.root_at(log.size()));
        }
        self.newcomer(&log);
        assert_eq!(self.asker.rows(ASK), ["3"]);
        self.asker.sql(ASK, &["--save", "after.evidence"]).ok();
        for evidence in ["before.evidence", "after.evidence"] {
            verify(&self.asker.work.join(evidence), &self.all.registry).ok();
        }
        // And for tools that know nothing of Jingwei.
        let mut export = command("jingwei");
        export.current_dir(&self.asker.work);
        export.args([
            "evidence",
            "export",
            "after.evidence",
            "--sigstore",
            "bundles",
        ]);
        export.args(["--root", &self.all.registry.fingerprint]);
        Ran::run(&mut export).ok().prints(&["trusted-root.json"]);
    }

    /// Who joins now reads the whole log, the take-over in the middle of it.
    fn newcomer(&self, log: &LogFiles) {
        let newcomer = Node::new(self.all.dir.path(), "newcomer");
        newcomer.init("nn", 1, "test@1:A", &[]).ok();
        let registry = &self.all.registry;
        let join = ["join", &registry.url(), "--root", &registry.fingerprint];
        newcomer.run(&join).ok();
        let replica = LogFiles::read(&newcomer.dir.join("replica/log"));
        assert!(log.size() > 512 && replica.size() >= log.size());
        assert_eq!(replica.root_at(log.size()), log.root_at(log.size()));
    }

    /// The lost registry is brought back from a backup: nobody co-signs it or follows it.
    fn old_one_comes_back(&mut self, backup: &Path, new: &Path) {
        let mut old = self.all.registry.successor(backup);
        old.start();
        let statement = self.all.agent.dataset("afterwards");
        let refused = runtime().block_on(old.submitter().submit_once(&statement));
        let fault = refused.unwrap_err();
        assert_eq!(fault.blame, Blame::Unavailable, "{fault:?}");
        assert!(fault.message.contains("no quorum"), "{fault:?}");
        let size = self.asker.status().unwrap().log_size;
        self.asker
            .run(&["follow", &old.url()])
            .expect_code(3)
            .complains(&["taken over", "counts no more"]);
        let status = self.asker.status().unwrap();
        assert!(
            status.log_size >= size && status.alarms.is_empty(),
            "{status:?}"
        );
        assert_eq!(status.registry, self.all.registry.url());
        let log = LogFiles::read(&new.join("log"));
        assert!(!log.envelopes.contains(&statement.to_bytes()));
    }
}

/// Two nodes of a federation without witnesses, of which `a` has seen more than `b`, and no registry.
pub(crate) struct Unequal {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) safe: PathBuf,
    pub(crate) federation: Federation,
}

impl Unequal {
    pub(crate) fn new() -> Unequal {
        let mut federation = Federation::start();
        let (a, mut b) = (federation.node("a", &["aa"]), federation.node("b", &["bb"]));
        a.publish_places("aa", "places", "unconditional", PLACES);
        federation.settle(&[&a, &b]);
        b.stop();
        a.publish_places("aa", "more", "unconditional", PLACES);
        federation.settle(&[&a]);
        let safe = federation.dir.path().join("safe");
        std::fs::rename(federation.registry.dir.join("root-keys"), &safe).unwrap();
        federation.registry.kill9();
        std::fs::remove_dir_all(&federation.registry.dir).unwrap();
        Unequal {
            a,
            b,
            safe,
            federation,
        }
    }

    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.federation.dir.path().join(name)
    }

    /// A registry that has taken over from a node's replica, and runs.
    pub(crate) fn taken_over(&self, from: &Node, name: &str) -> Registry {
        let dir = self.place(name);
        let keys = signed_by(&self.safe, 2);
        Ran::run(&mut take_over(&from.dir, &dir, &texts(&keys))).ok();
        let mut registry = self.federation.registry.successor(&dir);
        registry.start();
        registry
    }
}

#[test]
fn a_take_over_that_leaves_entries_out_is_refused_by_who_has_them() {
    let mut unequal = Unequal::new();
    // Whoever shows the longer one's checkpoint stops it.
    let highest = unequal.a.dir.join("replica/highest");
    let mut options = signed_by(&unequal.safe, 2);
    options.extend(["--checkpoint".to_owned(), path(&highest).to_owned()]);
    let dir = unequal.place("refused");
    Ran::run(&mut take_over(&unequal.b.dir, &dir, &texts(&options)))
        .expect_code(4)
        .complains(&["1 entry more"]);
    // Where nobody did, it is found out by the one who has more.
    let short = unequal.taken_over(&unequal.b, "short");
    let before = unequal.a.status().unwrap().log_size;
    let refused = unequal.a.run(&["follow", &short.url()]).expect_code(3);
    refused.complains(&["leaves out 1 entry (1 of aa)", "take over again"]);
    let status = unequal.a.until("alarmed", |status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("short-take-over"))
    });
    assert_eq!(status.log_size, before);
    assert_ne!(status.registry, short.url());
    unequal
        .a
        .run(&["doctor"])
        .expect_code(3)
        .complains(&["leaves entries out"]);
    assert_eq!(unequal.a.rows("SELECT count(*) FROM aa.more"), ["3"]);
    // The other one follows, and hears of it when they meet.
    unequal.b.run(&["follow", &short.url()]).ok();
    unequal.b.start();
    unequal.b.run(&["doctor"]);
    let publish = |node: &Node| node.publish_places("bb", "own", "unconditional", PLACES);
    publish(&unequal.b);
    unequal.b.until("alarmed", |status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("short-take-over"))
    });
    // The keepers take over again. Who has followed the short one begins its replica anew.
    let long = unequal.taken_over(&unequal.a, "long");
    unequal.a.run(&["follow", &long.url()]).ok();
    unequal.b.run(&["follow", &long.url()]).expect_code(3);
    unequal.b.stop();
    std::fs::remove_dir_all(unequal.b.dir.join("replica")).unwrap();
    unequal.b.run(&["follow", &long.url()]).ok();
    unequal.b.start();
    assert_eq!(unequal.b.rows("SELECT count(*) FROM aa.more"), ["3"]);
    // What it had entered in the short one it repeats.
    publish(&unequal.b);
    std::fs::remove_dir_all(unequal.a.dir.join("replica/alarms")).unwrap();
    unequal.a.run(&["doctor", "--wait", "60"]).ok();
    unequal.b.run(&["doctor", "--wait", "60"]).ok();
    let size = unequal.b.status().unwrap().log_size;
    unequal.a.until_entry(size - 1);
    assert_eq!(unequal.a.rows("SELECT count(*) FROM bb.own"), ["3"]);
}

#[test]
fn a_registry_that_takes_over_at_the_same_address_is_followed_at_once() {
    let unequal = Unequal::new();
    let dir = unequal.place("new");
    let keys = signed_by(&unequal.safe, 2);
    Ran::run(&mut take_over(&unequal.a.dir, &dir, &texts(&keys))).ok();
    let mut registry = unequal.federation.registry.successor(&dir);
    registry.address = unequal.federation.registry.address;
    registry.start();
    let size = LogFiles::read(&dir.join("log")).size();
    unequal.a.until_entry(size - 1);
    unequal
        .a
        .publish_places("aa", "third", "unconditional", PLACES);
    unequal.a.run(&["doctor", "--wait", "60"]).ok();
    assert!(origin_of(&unequal.a.dir).ends_with("/registry/2"));
    // `join` again changes nothing, and says what does.
    let elsewhere = "http://127.0.0.1:9";
    let join = ["join", elsewhere, "--root", &registry.fingerprint];
    unequal
        .b
        .run(&join)
        .ok()
        .prints(&["jingwei follow http://127.0.0.1:9"]);
}

#[test]
fn the_new_log_may_be_in_a_bucket() {
    let unequal = Unequal::new();
    let (s3, dir) = (S3::start(), unequal.place("new"));
    let mut environment = s3.environment();
    environment.push(("JINGWEI_REGISTRY_STORAGE".into(), S3::url("log")));
    let keys = signed_by(&unequal.safe, 2);
    let mut command = take_over(&unequal.a.dir, &dir, &texts(&keys));
    Ran::run(command.envs(environment.iter().cloned())).ok();
    let mut registry = unequal.federation.registry.successor(&dir);
    registry.environment = environment;
    registry.start();
    unequal.a.run(&["follow", &registry.url()]).ok();
    unequal
        .a
        .publish_places("aa", "third", "unconditional", PLACES);
    assert!(!dir.join("log").exists());
    let log = LogFiles::read(&s3.files("log"));
    assert_eq!(
        log.size(),
        LogFiles::read(&unequal.a.dir.join("replica/log")).size()
    );
}

#[test]
fn a_node_that_is_a_witness_co_signs_the_new_log() {
    let unequal = Unequal::new();
    let (dir, listen) = (unequal.place("new"), free_address());
    let mut node = unequal.a;
    node.stop();
    let set = |node: &mut Node, name: &str, value: &str| {
        node.settings
            .push((format!("JINGWEI_NODE_WITNESS_{name}"), value.to_owned()));
    };
    set(&mut node, "LISTEN", &listen.to_string());
    node.start();
    let key = node.status().unwrap().witness;
    let mut options = signed_by(&unequal.safe, 2);
    options.extend(["--witness".into(), key, format!("http://{listen}")]);
    options.extend(["--quorum".into(), "1".into()]);
    Ran::run(&mut take_over(&node.dir, &dir, &texts(&options))).ok();
    let mut registry = unequal.federation.registry.successor(&dir);
    let policy = registry.policy();
    let log = policy.lines().find_map(|line| line.strip_prefix("log "));
    // Until it can follow, it has to be told.
    node.stop();
    set(&mut node, "LOGS", log.expect("a policy names the log"));
    node.start();
    registry.start();
    eventually("the node has co-signed", || {
        node.run(&["follow", &registry.url()]).code == 0
    });
    // From then on it knows by itself.
    node.stop();
    node.settings.pop();
    node.start();
    node.publish_places("aa", "third", "unconditional", PLACES);
    node.run(&["doctor", "--wait", "60"])
        .ok()
        .prints(&["co-signed"]);
}

/// A registry in `dir` that `take-over` would not have made: the first entries of the replica, then
/// `more`, and a root that says to continue what `claim` makes of the truth.
fn forged(
    unequal: &Unequal,
    from: &Node,
    dir: &Path,
    more: &[Envelope],
    claim: impl Fn(&mut Continues),
) -> Registry {
    let paths = Paths::new(dir);
    let replica = Replica::open(&from.dir).unwrap();
    let mut copied = replica.copy_to(&paths, Disk::new()).unwrap();
    let keys: Vec<SecretKey> = (1..=2)
        .map(|n| keyfile::load(&unequal.safe.join(format!("{n}.pem"))).unwrap())
        .collect();
    let mut log = paths
        .open_log(Disk::new(), &copied.registry.origin)
        .unwrap();
    let own = |name: &str| keyfile::load(&dir.join("keys").join(name)).unwrap();
    let sealing = LogKeys {
        origin: copied.registry.origin.clone(),
        log: own("log.pem"),
        cosigner: own("cosigner.pem"),
    };
    let enter = |log: &mut Log, envelope: &Envelope, signer: &SecretKey| {
        let entry = Entry {
            leaf: leaf(envelope, signer.public()),
            envelope: Some(envelope.to_bytes()),
        };
        log.append(&[entry], |own| sealing.sign(own, 0, &clock::system()))
            .unwrap();
    };
    for envelope in more {
        enter(&mut log, envelope, &keys[0]);
    }
    copied.continues.size = log.size();
    copied.continues.root = log.checkpoint().root;
    claim(&mut copied.continues);
    let signers: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
    let envelope = sign_together(&proposed(&copied), &signers, 2);
    enter(&mut log, &envelope, &keys[0]);
    log.publish_sealed().unwrap();
    drop(log);
    let mut registry = unequal.federation.registry.successor(dir);
    registry.start();
    registry
}

#[test]
fn root_keys_cannot_rewrite_what_nodes_have_verified() {
    let unequal = Unequal::new();
    // Another last entry than the one that `a` has: an agency of the keepers' own.
    let agent = Agent::new(&unequal.federation.registry, "zz", 9);
    let enrolment = agent.enrolment_by(&unequal.safe);
    let other = unequal.place("other");
    let registry = forged(&unequal, &unequal.b, &other, &[enrolment], |_| {});
    let before = unequal.a.status().unwrap();
    unequal
        .a
        .run(&["follow", &registry.url()])
        .expect_code(3)
        .complains(&["another history"]);
    unequal.a.until("alarmed", |status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("two-histories"))
    });
    // The true entries under a false hash: for one who has them all, and for one who has not.
    for (node, place) in [(&unequal.a, "false-a"), (&unequal.b, "false-b")] {
        let lie = |before: &mut Continues| before.root = Digest::of(b"something else");
        let registry = forged(&unequal, &unequal.a, &unequal.place(place), &[], lie);
        node.run(&["follow", &registry.url()]).expect_code(3);
        let newcomer = Node::new(unequal.federation.dir.path(), &format!("to-{place}"));
        newcomer.init("nn", 1, "test@1:A", &[]).ok();
        let join = ["join", &registry.url(), "--root", &registry.fingerprint];
        newcomer.run(&join).expect_code(3);
    }
    let after = unequal.a.status().unwrap();
    assert_eq!(
        (after.log_size, after.registry),
        (before.log_size, before.registry)
    );
    assert!(origin_of(&unequal.a.dir).ends_with("/registry/1"));
    assert!(origin_of(&unequal.b.dir).ends_with("/registry/1"));
    // The honest one is followed by both.
    let honest = unequal.taken_over(&unequal.a, "honest");
    for node in [&unequal.a, &unequal.b] {
        node.run(&["follow", &honest.url()]).ok();
    }
}

#[test]
fn entries_that_were_seen_signed_and_are_nowhere_are_given_up_by_decision() {
    let unequal = Unequal::new();
    let highest = |node: &Node| node.dir.join("replica/highest");
    std::fs::copy(highest(&unequal.a), highest(&unequal.b)).unwrap();
    let dir = unequal.place("new");
    let mut options = signed_by(&unequal.safe, 2);
    let from = &unequal.b.dir;
    let refused = Ran::run(&mut take_over(from, &dir, &texts(&options))).expect_code(4);
    assert_eq!(given_up(&refused), "1");
    options.extend(["--give-up".to_owned(), "1".to_owned()]);
    Ran::run(&mut take_over(from, &dir, &texts(&options))).ok();
    let mut registry = unequal.federation.registry.successor(&dir);
    registry.start();
    // Who has the entry keeps it, and who has only seen it signed goes on.
    unequal.a.run(&["follow", &registry.url()]).expect_code(3);
    let mut b = unequal.b;
    b.run(&["follow", &registry.url()]).ok();
    b.start();
    b.publish_places("bb", "places", "unconditional", PLACES);
    assert!(b.status().unwrap().alarms.is_empty());
}

#[test]
fn a_running_registry_does_not_enter_a_root_about_another_log() {
    let federation = Federation::start();
    let a = federation.node("a", &["aa"]);
    let (dir, file) = (
        federation.dir.path().join("new"),
        federation.dir.path().join("next.root"),
    );
    Ran::run(&mut take_over(&a.dir, &dir, &["--out", path(&file)])).ok();
    let keys = federation.registry.dir.join("root-keys");
    let run = |arguments: &[&str]| federation.registry.run(arguments);
    let key = |n: u32| path(&keys.join(format!("{n}.pem"))).to_owned();
    run(&["root", "sign", path(&file), "--root-key", &key(1), "--yes"]).ok();
    let registry = path(&federation.registry.dir).to_owned();
    let address = federation.registry.address.to_string();
    let submit = [
        "root",
        "submit",
        path(&file),
        "--dir",
        &registry,
        "--registry",
        &address,
    ];
    run(&[&submit[..], &["--root-key", &key(2), "--yes"]].concat())
        .expect_code(1)
        .complains(&["another log", "take-over"]);
    // It is entered in the new one, though the other still runs: that one is left behind.
    let finish = ["take-over", "--dir", path(&dir), "--proposal", path(&file)];
    run(&[&finish[..], &["--root-key", &key(2), "--yes"]].concat()).ok();
    let mut new = federation.registry.successor(&dir);
    new.start();
    a.run(&["follow", &new.url()]).ok();
    a.publish_places("aa", "places", "unconditional", PLACES);
    a.run(&["follow", &federation.registry.url()])
        .expect_code(3);
    a.run(&["doctor", "--wait", "60"]).ok();
}

#[test]
fn keepers_sign_a_take_over_at_their_own_machines_and_only_their_own_federation_s() {
    let unequal = Unequal::new();
    let (dir, file) = (unequal.place("new"), unequal.place("next.root"));
    let from = &unequal.a.dir;
    let proposed = Ran::run(&mut take_over(from, &dir, &["--out", path(&file)])).ok();
    let sign = format!("Next: jingwei-registry root sign {} ", path(&file));
    proposed.prints(&[&sign]);
    let key = |n: u32| path(&unequal.safe.join(format!("{n}.pem"))).to_owned();
    let run = |arguments: &[&str]| unequal.federation.registry.run(arguments);
    let last = |key: &str| {
        run(&[
            "take-over",
            "--dir",
            path(&dir),
            "--proposal",
            path(&file),
            "--root-key",
            key,
            "--yes",
        ])
    };
    last(&key(1)).expect_code(4).complains(&["root keys"]);
    run(&["root", "sign", path(&file), "--root-key", &key(3), "--yes"])
        .ok()
        .prints(&["continues", "registry/1", "registry/2"])
        .prints(&["Next: jingwei-registry take-over --dir DIR --proposal "]);
    // Keys of another federation do not count, and its replica is not this one's.
    let other = Federation::start();
    let foreign = other.registry.dir.join("root-keys/1.pem");
    last(path(&foreign)).expect_code(4);
    let elsewhere = unequal.place("elsewhere");
    let mut keys = signed_by(&unequal.safe, 2);
    let outsider = other.node("outsider", &["aa"]);
    Ran::run(&mut take_over(&outsider.dir, &elsewhere, &texts(&keys))).expect_code(4);
    keys.extend([
        "--checkpoint".into(),
        path(&outsider.dir.join("replica/highest")).into(),
    ]);
    Ran::run(&mut take_over(from, &unequal.place("third"), &texts(&keys)))
        .expect_code(3)
        .complains(&["of this federation"]);
    last(&key(1)).ok().prints(&["entered"]);
    last(&key(1)).ok();
    let mut registry = unequal.federation.registry.successor(&dir);
    registry.start();
    let strange = outsider.run(&["follow", &registry.url()]).expect_code(3);
    strange.complains(&["of this federation"]);
    unequal.a.run(&["follow", &registry.url()]).ok();
    unequal
        .a
        .publish_places("aa", "third", "unconditional", PLACES);
    // A stranger joins with the same fingerprint, and a second take-over follows the first.
    let newcomer = Node::new(unequal.federation.dir.path(), "newcomer");
    newcomer.init("nn", 1, "test@1:A", &[]).ok();
    let url = registry.url();
    newcomer
        .run(&["join", &url, "--root", &registry.fingerprint])
        .ok();
    // The keepers' other commands work there as they did before.
    let address = registry.address.to_string();
    let proposal = newcomer.proposal("nn");
    let enrol = [
        "enrol",
        "--yes",
        "--dir",
        path(&dir),
        "--registry",
        &address,
        path(&proposal),
    ];
    run(&[&enrol[..], &texts(&signed_by(&unequal.safe, 2))].concat()).ok();
    let there = ["--dir", path(&dir), "--registry", &address];
    let propose = ["root", "propose", "--new-registry-keys", "--yes"];
    run(&[&propose[..], &there, &texts(&signed_by(&unequal.safe, 2))].concat()).ok();
    run(&[&["status"][..], &there].concat())
        .ok()
        .prints(&["/registry/2"]);
    run(&[&["root", "show"][..], &there].concat())
        .ok()
        .prints(&["version     3"]);
    registry.stop();
    registry.start();
    let latest = Node::new(unequal.federation.dir.path(), "latest");
    latest.init("ll", 1, "test@1:A", &[]).ok();
    latest
        .run(&["join", &url, "--root", &registry.fingerprint])
        .ok();
    unequal.a.run(&["doctor", "--wait", "60"]).ok();
    registry.kill9();
    let again = unequal.taken_over(&latest, "again");
    for node in [&unequal.a, &newcomer, &latest, &unequal.b] {
        node.run(&["follow", &again.url()])
            .ok()
            .prints(&["registry/3"]);
    }
    assert_eq!(unequal.a.rows("SELECT count(*) FROM aa.third"), ["3"]);
}
