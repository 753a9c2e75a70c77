//! `kill -9` of the registry at random moments under load: what was acknowledged is there.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jingwei_proto::dsse::Envelope;
use jingwei_registry::fault::Blame;
use jingwei_registry::sequencer::Accepted;
use jingwei_registry::submit::Submitter;
use jingwei_tests::Federation;
use jingwei_tests::child::PATIENCE;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{copy_dir, eventually};
use jingwei_tests::reading::LogFiles;
use jingwei_tests::seeded::Seeded;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Registries that are killed side by side. Each start reads the whole log, so that several short
/// logs take less time than a long one.
const REGISTRIES: u64 = 4;
/// Kills of each, amid its work.
const ROUNDS: usize = 50;
/// Statements on their way at once.
const CLIENTS: usize = 24;
/// Acknowledged in a round before it is killed, on average.
const ENOUGH: usize = 28;
/// Acknowledged before the last kills, at the least: the rounds are worth something only under load.
const LOAD: usize = 5_000;

/// What was signed, what of it is still to be submitted, and what the registry has acknowledged.
#[derive(Default)]
struct Books {
    statements: Vec<Envelope>,
    waiting: Vec<usize>,
    acknowledged: HashMap<usize, (u64, Arc<str>)>,
}

struct Load {
    agents: Vec<Agent>,
    books: Mutex<Books>,
    acknowledgement: Notify,
    over: AtomicBool,
}

impl Load {
    fn acknowledged(&self) -> usize {
        self.books.lock().unwrap().acknowledged.len()
    }

    /// What is to be submitted again, or else a new statement: they never run out, however fast
    /// the disk is.
    fn next(&self) -> (usize, Envelope) {
        let mut books = self.books.lock().unwrap();
        let number = books.waiting.pop().unwrap_or(books.statements.len());
        if number == books.statements.len() {
            let agent = &self.agents[number % self.agents.len()];
            books.statements.push(agent.dataset(&format!("d{number}")));
        }
        (number, books.statements[number].clone())
    }

    /// Waits for one more acknowledgement.
    fn wait(&self) {
        let waited = async { timeout(PATIENCE, self.acknowledgement.notified()).await };
        let waited = runtime().block_on(waited);
        waited.expect("the registry acknowledges something in time");
    }

    /// Submits statement after statement until the registry is gone.
    async fn submit(self: Arc<Self>, submitter: Submitter) {
        while !self.over.load(Ordering::SeqCst) {
            let (next, statement) = self.next();
            match submitter.submit(&statement).await {
                Ok(accepted) => {
                    let before = self
                        .books
                        .lock()
                        .unwrap()
                        .acknowledged
                        .insert(next, (accepted.index, accepted.checkpoint));
                    assert!(before.is_none());
                    self.acknowledgement.notify_one();
                }
                Err(fault) => {
                    assert!(
                        matches!(
                            fault.blame,
                            Blame::Unavailable
                                | Blame::Cancelled
                                | Blame::Internal
                                | Blame::Overloaded
                        ),
                        "a good statement was refused: {fault:?}"
                    );
                    // Whether it was entered is not known; it is submitted again.
                    self.books.lock().unwrap().waiting.push(next);
                    return;
                }
            }
        }
    }
}

#[test]
fn what_the_registry_acknowledged_survives_kill_9() {
    let acknowledged: usize = std::thread::scope(|scope| {
        let registries = (0..REGISTRIES).map(|seed| scope.spawn(move || killed(seed)));
        let registries: Vec<_> = registries.collect();
        let counts = registries.into_iter().map(|one| one.join().unwrap());
        counts.sum()
    });
    let kills = REGISTRIES as usize * ROUNDS;
    println!("{acknowledged} acknowledgements before the last of {kills} kills");
    assert!(acknowledged >= LOAD, "only {acknowledged} acknowledgements");
}

/// All rounds of one registry; returns what it has acknowledged before the last kill.
fn killed(seed: u64) -> usize {
    let mut federation = Federation::start();
    let agents: Vec<Agent> = (0..4u8)
        .map(|n| Agent::new(&federation.registry, &format!("a{n}"), n + 1))
        .collect();
    for agent in &agents {
        let enrolment = agent.enrolment(&federation.registry);
        runtime()
            .block_on(federation.registry.submitter().submit(&enrolment))
            .unwrap();
    }
    let mut random = Seeded::new(0x0de5_1a7e + seed);
    let load = Arc::new(Load {
        agents,
        books: Mutex::default(),
        acknowledgement: Notify::new(),
        over: AtomicBool::new(false),
    });
    federation.registry.kill9();
    for round in 0..ROUNDS {
        if round % 5 == 4 {
            // While it starts, or finishes what the last crash cut off.
            federation.registry.spawn();
            std::thread::sleep(random.millis(60));
            federation.registry.kill9();
        }
        one_round(&mut federation, &load, &mut random);
    }
    let counted = load.acknowledged();
    finish(&mut federation, &load);
    counted
}

fn one_round(federation: &mut Federation, load: &Arc<Load>, random: &mut Seeded) {
    federation.registry.start();
    load.over.store(false, Ordering::SeqCst);
    let submitter = federation.registry.submitter();
    let enough = load.acknowledged() + random.below(2 * ENOUGH);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| runtime().spawn(load.clone().submit(submitter.clone())))
        .collect();
    // Somewhere in the work for some statement or other; the pause makes it any moment of it.
    while load.acknowledged() <= enough {
        load.wait();
    }
    std::thread::sleep(random.millis(8));
    federation.registry.kill9();
    load.over.store(true, Ordering::SeqCst);
    for client in clients {
        runtime().block_on(client).unwrap();
    }
}

fn finish(federation: &mut Federation, load: &Arc<Load>) {
    federation.registry.start();
    let submitter = federation.registry.submitter();
    let mut books = load.books.lock().unwrap();
    for next in std::mem::take(&mut books.waiting) {
        let accepted = runtime().block_on(submitter.submit(&books.statements[next]));
        let Accepted { index, checkpoint } = accepted.unwrap();
        books.acknowledged.insert(next, (index, checkpoint));
    }
    federation.registry.stop();
    assert_eq!(books.acknowledged.len(), books.statements.len());

    let log = LogFiles::read(&federation.registry.dir.join("log"));
    // The root, four agencies, and each statement once.
    assert_eq!(log.size(), 5 + books.statements.len() as u64);
    assert!(!log.repeats());
    let mut notes: Vec<&Arc<str>> = Vec::new();
    for (statement, (index, note)) in &books.acknowledged {
        assert_eq!(
            log.envelopes[*index as usize],
            books.statements[*statement].to_bytes(),
            "entry {index}"
        );
        notes.push(note);
    }
    notes.sort();
    notes.dedup();
    for note in notes {
        assert!(
            log.holds(note),
            "a checkpoint that was handed out is not of this history:\n{note}"
        );
    }
}

/// The registry is killed while an officer publishes: the node finishes what it has signed as soon
/// as the registry is back, each publication once.
#[test]
fn a_publication_goes_on_when_the_registry_is_back() {
    const PUBLICATIONS: usize = 8;
    let mut federation = Federation::start();
    let mut node = federation.node("a", &["aa"]);
    let log = federation.registry.dir.join("log");
    let before = LogFiles::read(&log).size();
    let mut random = Seeded::new(0xab1e);
    let mut cut_off = 0;
    for round in 0..PUBLICATIONS {
        let csv = format!("{PLACES}{:05},Round,{round}\n", 40_000 + round);
        let (file, schema) = node.places("places", &csv);
        let (file, schema) = (file.display().to_string(), schema.display().to_string());
        let mut publish = vec!["publish", &file, "--as", "places", "--schema", &schema];
        publish.extend(["--sharing", "unconditional"]);
        let mut publishing = node
            .command(&publish)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(random.millis(150));
        federation.registry.kill9();
        cut_off += usize::from(!publishing.wait().unwrap().success());
        federation.registry.start();
        eventually("the node has finished the publication", || {
            LogFiles::read(&log).size() == before + round as u64 + 1
        });
        let version = format!("aa/places@{}", round + 1);
        node.run(&publish).ok().prints(&["unchanged", &version]);
    }
    assert!(cut_off > 0, "no publication was ever cut off");
    node.stop();
    federation.registry.stop();
    let files = LogFiles::read(&log);
    assert_eq!(files.size(), before + PUBLICATIONS as u64);
    assert!(!files.repeats());
}

#[test]
fn one_publication_waits_for_the_registry_and_nothing_else_is_promised() {
    let mut federation = Federation::start();
    let node = federation.node("a", &["aa"]);
    federation.registry.stop();
    let (first, schema) = node.places("first", PLACES);
    let (second, _) = node.places("second", &format!("{PLACES}40000,Second,2\n"));
    let publish = |file: &Path| node.publish(file, "aa", "places", &schema, "public");
    publish(&first)
        .expect_code(1)
        .complains(&["the checked data are kept here"]);
    let second_too = publish(&second).expect_code(1).complains(&[
        "another publication of aa/places has to be entered first",
        "not looked at and is not kept",
    ]);
    assert!(!second_too.stderr.contains("kept here"), "{second_too}");
    let doctor = node.run(&["doctor"]).expect_code(1);
    let waits = "the publication of aa/places is not entered yet";
    assert!(doctor.to_string().contains(waits), "{doctor}");
    federation.registry.start();
    node.run(&["doctor", "--wait", "60"]).ok();
    publish(&first).ok().prints(&["unchanged", "aa/places@1"]);
    publish(&second).ok().prints(&["aa/places@2"]);
}

fn enter(federation: &Federation, statements: &[Envelope]) {
    let submitter = federation.registry.submitter();
    for statement in statements {
        runtime().block_on(submitter.submit(statement)).unwrap();
    }
}

/// The log is brought back from a backup. The registry remembers beside its keys that it has
/// shown more, also where nobody co-signs, and signs nothing over the old copy.
#[test]
fn a_log_brought_back_from_a_backup_is_refused() {
    let mut federation = Federation::start();
    let agent = Agent::new(&federation.registry, "aa", 7);
    enter(&federation, &[agent.enrolment(&federation.registry)]);
    federation.registry.stop();
    let dir = federation.registry.dir.clone();
    let (log, index) = (dir.join("log"), dir.join("index"));
    let [old_log, old_index, newest] =
        ["old-log", "old-index", "newest"].map(|name| federation.dir.path().join(name));
    copy_dir(&log, &old_log);
    copy_dir(&index, &old_index);
    federation.registry.start();
    enter(&federation, &[agent.dataset("one")]);
    federation.registry.stop();
    let shown = LogFiles::read(&log);
    copy_dir(&log, &newest);
    let put_back = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::remove_dir_all(to).unwrap();
        copy_dir(from, to);
    };
    put_back(&old_log, &log);
    for with_index in [false, true] {
        if with_index {
            put_back(&old_index, &index);
        }
        let refused = federation.registry.refuses_to_start();
        refused.complains(&["is an old copy", "3 that readers were shown"]);
        assert_eq!(LogFiles::read(&log).size(), 2);
    }
    put_back(&newest, &log);
    federation.registry.start();
    enter(&federation, &[agent.dataset("two")]);
    federation.registry.stop();
    let after = LogFiles::read(&log);
    assert_eq!(after.size(), 4);
    assert_eq!(after.root_at(3), shown.root_at(3));
}

/// One bit of any kind of file flips while the registry is down: it says which file, and signs
/// nothing over it.
#[test]
fn a_flipped_bit_is_found_before_anything_is_signed_over_it() {
    let mut federation = Federation::start();
    let agent = Agent::new(&federation.registry, "aa", 7);
    enter(&federation, &[agent.enrolment(&federation.registry)]);
    enter(&federation, &[agent.dataset("one"), agent.dataset("two")]);
    federation.registry.stop();
    let log = federation.registry.dir.join("log");
    for name in [
        "tile/0/000.p/4",
        "tile/entries/000.p/4",
        "tile/envelopes/000.p/4",
        "commit/000000000004",
    ] {
        let path = log.join(name);
        let sound = std::fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let refused = federation.registry.refuses_to_start();
        refused.complains(&[name, "is damaged"]);
        std::fs::write(&path, &sound).unwrap();
    }
    federation.registry.start();
    enter(&federation, &[agent.dataset("three")]);
    federation.registry.stop();
    assert_eq!(LogFiles::read(&log).size(), 5);
}
