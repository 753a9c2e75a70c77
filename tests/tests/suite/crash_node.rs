//! `kill -9` of provider and asker at random moments under load: every exchange that somebody was
//! told of stands in both journals, and every publication in the log.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jingwei_tests::child::PATIENCE;
use jingwei_tests::local::{Local, runtime};
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::eventually;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::seeded::Seeded;
use jingwei_tests::{Node, journal};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::pair::Pair;

/// Pairs of nodes that are killed side by side: much of a round is waiting for starts and disks.
const PAIRS: u64 = 4;
/// Rounds of each pair, in which one of its nodes is killed or both.
const ROUNDS: u64 = 13;
/// Questions under way at once.
const CLIENTS: usize = 8;
/// Answered in a round before the publication begins that is cut off too, on average.
const ENOUGH: usize = 15;

#[derive(Default)]
struct Load {
    next: AtomicU64,
    answered: Mutex<HashSet<u64>>,
    answer: Notify,
    over: AtomicBool,
}

impl Load {
    fn answers(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    /// Asks question after question, each with a number of its own, until the node is gone.
    async fn ask(self: Arc<Self>, node: Local) {
        while !self.over.load(Ordering::SeqCst) {
            let number = 1_000_000 + self.next.fetch_add(1, Ordering::SeqCst);
            let sql = format!("SELECT code FROM aa.places WHERE people < {number}");
            match node.sql(&sql, false).await {
                Ok(answer) => {
                    assert_eq!(answer.done.exchanges.len(), 1, "{sql}");
                    self.answered.lock().unwrap().insert(number);
                    self.answer.notify_one();
                }
                // The provider may be the one that is gone: then the asker says so each time.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

#[test]
fn what_was_answered_or_published_survives_kill_9() {
    let answered: usize = std::thread::scope(|scope| {
        let pairs = (0..PAIRS).map(|seed| scope.spawn(move || killed(seed)));
        let pairs: Vec<_> = pairs.collect();
        pairs.into_iter().map(|pair| pair.join().unwrap()).sum()
    });
    println!("{answered} answers over {} rounds of kills", PAIRS * ROUNDS);
}

/// All rounds of one pair; returns how many questions were answered.
fn killed(seed: u64) -> usize {
    let mut pair = Pair::with_places();
    let load = Arc::new(Load::default());
    let mut random = Seeded::new(0xc0_ffee + seed);
    let mut published = vec![1];
    for round in 0..ROUNDS {
        one_round(&mut pair, &load, round, &mut random, &mut published);
    }
    let answered = load.answered.lock().unwrap();
    // A question is answered before the provider has confirmed its acknowledgement; the asker
    // delivers it all the same, whichever of the two was killed.
    eventually("every acknowledgement has arrived", || {
        whole(&pair.a, "aa").is_superset(&answered)
    });
    pair.a.stop();
    pair.b.stop();
    for (node, agency) in [(&pair.a, "aa"), (&pair.b, "bb")] {
        check_journal(node, agency, &answered);
    }
    check_publications(&pair, &published);
    answered.len()
}

fn one_round(
    pair: &mut Pair,
    load: &Arc<Load>,
    round: u64,
    random: &mut Seeded,
    published: &mut Vec<u64>,
) {
    load.over.store(false, Ordering::SeqCst);
    let clients: Vec<_> = {
        let local = pair.b.local();
        (0..CLIENTS)
            .map(|_| runtime().spawn(load.clone().ask(local.clone())))
            .collect()
    };
    let enough = load.answers() + random.below(2 * ENOUGH);
    while load.answers() <= enough {
        let answered = async { timeout(PATIENCE, load.answer.notified()).await };
        let answered = runtime().block_on(answered);
        answered.expect("a question is answered in time");
    }
    // A publication under way, each of another file.
    let csv = format!("{PLACES}{:05},Round,{round}\n", 40_000 + round);
    let (file, schema) = pair.a.places("places", &csv);
    let (file, schema) = (file.display().to_string(), schema.display().to_string());
    let publish = [
        "publish",
        &file,
        "--as",
        "places",
        "--schema",
        &schema,
        "--sharing",
        "unconditional",
    ];
    let mut publishing = pair
        .a
        .command(&publish)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(random.millis(400));
    // The provider, the asker, or both.
    let (kill_a, kill_b) = [(true, false), (false, true), (true, true)][(round % 3) as usize];
    if kill_a {
        pair.a.kill9();
    }
    if kill_b {
        pair.b.kill9();
    }
    load.over.store(true, Ordering::SeqCst);
    for client in clients {
        runtime().block_on(client).unwrap();
    }
    let told = publishing.wait().unwrap().success();
    if kill_a {
        pair.a.start();
    }
    if kill_b {
        pair.b.start();
    }
    // Whatever became of it: the same command makes it one version, and says which.
    let ran = pair.a.run(&publish).ok();
    let word = if ran.stdout.starts_with("unchanged") {
        "unchanged"
    } else {
        "published"
    };
    assert!(
        !told || word == "unchanged",
        "what was published was published again:\n{ran}"
    );
    let version = ran.field(word);
    published.push(version.rsplit_once('@').unwrap().1.parse().unwrap());
    pair.federation.settle(&[&pair.a, &pair.b]);
}

/// Each answered question's four messages stand in the journal, once, and the journal's log fits.
fn check_journal(node: &Node, agency: &str, answered: &HashSet<u64>) {
    let records = journal::read(&node.dir, agency);
    assert_eq!(
        journal::check_log(&node.dir, agency),
        records.len() as u64,
        "every record of {agency} is in its log"
    );
    let whole = whole(node, agency);
    for number in answered {
        assert!(
            whole.contains(number),
            "question {number} was answered, and is not whole in the journal of {agency}"
        );
    }
}

/// The questions whose exchange stands in the journal with all its messages, each of them once.
fn whole(node: &Node, agency: &str) -> HashSet<u64> {
    let mut whole = HashSet::new();
    for (nonce, (query, counts)) in journal::exchanges(&node.dir, agency) {
        assert!(
            counts.iter().all(|count| *count <= 1),
            "exchange {nonce} of {agency}: {counts:?}"
        );
        let number: Option<u64> = query
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .find(|n| *n >= 1_000_000);
        if let (Some(number), [1, 1, 1, 1]) = (number, counts) {
            assert!(
                whole.insert(number),
                "question {number} was exchanged twice"
            );
        }
    }
    whole
}

/// One version for each file, in order, each with its data.
fn check_publications(pair: &Pair, published: &[u64]) {
    let expected: Vec<u64> = (1..=published.len() as u64).collect();
    assert_eq!(published, expected);
    let log = LogFiles::read(&pair.federation.registry.dir.join("log"));
    assert!(!log.repeats());
    let mut versions = Vec::new();
    for bytes in &log.envelopes {
        let envelope = jingwei_proto::dsse::Envelope::parse(bytes).unwrap();
        let statement = jingwei_proto::statement::Statement::parse(envelope.payload()).unwrap();
        let sequence = statement.head.sequence;
        if let jingwei_proto::statement::Predicate::Dataset(dataset) = statement.predicate {
            versions.push(sequence);
            for file in &dataset.files {
                let data = std::fs::read(pair.a.dir.join("data").join(&file.name)).unwrap();
                assert_eq!(jingwei_proto::digest::Digest::of(&data), file.digest);
            }
        }
    }
    assert_eq!(versions, expected);
}
