//! Witnesses as processes: what they answer, what they survive, and what a log makes of them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::{Digest, from_hex};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{PublicKey, SecretKey, Signer as _};
use jingwei_proto::merkle::{self, Edge, HashReader, leaf_hash};
use jingwei_proto::note::{Algorithm, Note, NoteKey};
use jingwei_proto::policy::Policy;
use jingwei_proto::witness::{AddCheckpoint, read_cosignature, read_size};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::sequencer::Accepted;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::programs::free_address;
use jingwei_tests::seeded::Seeded;
use jingwei_tests::{Federation, Registry, Witness};
use reqwest::StatusCode;
use tempfile::TempDir;

const ORIGIN: &str = "example.com/log";

fn secret() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn log_key() -> NoteKey {
    NoteKey::new(ORIGIN, Algorithm::Ed25519, secret().public().clone()).unwrap()
}

/// A log in memory that signs whatever it is told to.
#[derive(Clone, Default)]
struct Tree(Vec<Digest>);

impl HashReader for Tree {
    type Error = std::convert::Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Self::Error> {
        let width = 1 << level;
        let mut edge = Edge::new();
        let leaves = &self.0[index as usize * width..][..width];
        leaves.iter().for_each(|leaf| edge.push(*leaf));
        Ok(edge.root())
    }
}

impl Tree {
    fn of(words: &[&str]) -> Tree {
        Tree(words.iter().map(|w| leaf_hash(w.as_bytes())).collect())
    }

    fn root(&self, size: u64) -> Digest {
        let Ok(root) = merkle::root(self, size);
        root
    }

    fn request(&self, old: u64, size: u64) -> AddCheckpoint {
        let proof = match old {
            old if old == 0 || old > size => Vec::new(),
            old => {
                let Ok(proof) = merkle::consistency_proof(self, old, size);
                proof
            }
        };
        let checkpoint = Checkpoint::new(ORIGIN, size, self.root(size));
        let note = checkpoint.sign(&secret()).unwrap();
        AddCheckpoint { old, proof, note }
    }
}

/// The answer: status, media type, body.
async fn post(url: &str, body: String) -> Result<(StatusCode, String, String), reqwest::Error> {
    let client = reqwest::Client::new();
    let request = client.post(format!("{url}/add-checkpoint")).body(body);
    let response = request.send().await?;
    let status = response.status();
    let kind = response.headers().get("content-type");
    let kind = kind.map_or_else(String::new, |kind| kind.to_str().unwrap().to_owned());
    Ok((status, kind, response.text().await?))
}

fn ask(witness: &Witness, body: impl ToString) -> (u16, String, String) {
    let answer = runtime().block_on(post(&witness.url(), body.to_string()));
    let (status, kind, body) = answer.unwrap();
    (status.as_u16(), kind, body)
}

fn get(url: String) -> (u16, String) {
    runtime().block_on(async {
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}

fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("jingwei-")
        .tempdir()
        .unwrap()
}

#[test]
fn a_witness_answers_each_case_with_its_status() {
    let dir = directory();
    let mut witness = Witness::begin(&dir.path().join("w"), "w.example");
    witness.start_with(&["--log", &log_key().to_string()]);
    let newest = format!(
        "{}/{}/checkpoint",
        witness.url(),
        Digest::of(ORIGIN.as_bytes())
    );
    assert_eq!(get(newest.clone()).0, 404);

    let (tree, fork) = (Tree::of(&["a", "b", "c"]), Tree::of(&["a", "b", "x", "y"]));
    let good = tree.request(0, 2);
    let (status, _, lines) = ask(&witness, &good);
    assert_eq!(status, 200, "{lines}");
    read_cosignature(&lines, &good.note.text, &witness.key).unwrap();

    let status = |body: &dyn std::fmt::Display| ask(&witness, body.to_string()).0;
    assert_eq!(status(&"no request"), 400);
    assert_eq!(status(&tree.request(3, 2)), 400);
    let mut unsigned = tree.request(2, 3);
    unsigned.note.signatures[0].key_hash = [0; 4];
    assert_eq!(status(&unsigned), 403);
    let mut forged = tree.request(2, 3);
    forged.note.signatures[0].signature[5] ^= 1;
    assert_eq!(status(&forged), 403);
    assert_eq!(
        status(&good.to_string().replace(ORIGIN, "example.com/other")),
        404
    );
    assert_eq!(
        ask(&witness, tree.request(1, 3)),
        (409, "text/x.tlog.size".into(), "2\n".into())
    );
    assert_eq!(read_size("2\n"), Some(2));
    assert_eq!(
        status(&AddCheckpoint {
            old: 2,
            ..Tree::of(&["x", "y"]).request(0, 2)
        }),
        422
    );
    assert_eq!(
        status(&AddCheckpoint {
            proof: vec![],
            ..tree.request(2, 3)
        }),
        422
    );
    assert_eq!(status(&"x".repeat(70_000)), 413);
    assert_eq!(get(format!("{}/add-checkpoint", witness.url())).0, 405);

    assert_eq!(status(&tree.request(2, 3)), 200);
    // A fork with a proof that holds from the size before, and one from this size.
    assert_eq!(status(&fork.request(2, 4)), 409);
    assert_eq!(status(&fork.request(3, 4)), 422);
    let (status, note) = get(newest);
    assert_eq!(status, 200);
    let (checkpoint, note) = Checkpoint::open(note.as_bytes(), &log_key()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (3, tree.root(3)));
    jingwei_proto::checkpoint::verify_cosignature(&note, &witness.key).unwrap();
}

/// The requests that `litewitness` is tested with, in their order. Where it answers otherwise says
/// `proto/tests/vectors/README.md`.
#[test]
fn a_witness_answers_the_requests_of_litewitness() {
    let vectors = include_str!("../../../proto/tests/vectors/litewitness.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let options: Vec<String> = vectors["logs"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|log| {
            let origin = text(&log["origin"]);
            let watched = match log["vkey"].as_str() {
                Some(vkey) => format!("{vkey} {origin}"),
                None => {
                    let raw = from_hex(&text(&log["publicKey"])).unwrap();
                    let public = PublicKey::from_raw(&raw.try_into().unwrap()).unwrap();
                    let key = NoteKey::new(&*origin, Algorithm::Ed25519, public);
                    key.unwrap().to_string()
                }
            };
            ["--log".to_owned(), watched]
        })
        .collect();
    let dir = directory();
    let mut witness = Witness::begin(&dir.path().join("w"), &text(&vectors["witness"]));
    witness.start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let requests = vectors["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 10);
    for request in requests {
        let body = text(&request["body"]);
        if body.contains("6gx=") {
            assert_eq!(ask(&witness, &body).0, 400, "base64 with bits left over");
        }
        let answer = ask(&witness, body.replace("6gx=", "6gw="));
        let expected = match (&request["status"], answer.2.starts_with("unknown log")) {
            (status, true) => (status == 403).then_some(404),
            (status, false) => status.as_u64(),
        };
        assert_eq!(Some(u64::from(answer.0)), expected, "{body}{}", answer.2);
        for (how, words) in request["answer"].as_object().unwrap() {
            match how.as_str() {
                "contains" => assert!(answer.2.contains(&text(words)), "{}", answer.2),
                _ => assert_eq!(answer.2, text(words)),
            }
        }
    }
}

/// What a witness has signed: of which size and which root, in the order in which it came back.
#[derive(Default)]
struct Signed(Vec<(u64, Digest)>);

impl Signed {
    fn add(&mut self, size: u64, root: Digest) {
        for (before, other) in &self.0 {
            assert!(
                *before <= size,
                "{size} entries were co-signed after {before}"
            );
            assert!(
                *before != size || *other == root,
                "two roots of {size} entries"
            );
        }
        self.0.push((size, root));
    }
}

/// Two histories with one key, which part anew at each request, both submitted at once.
#[test]
fn a_witness_that_is_killed_under_load_never_signs_both_histories() {
    const KILLS: usize = 30;
    let dir = directory();
    let mut witness = Witness::begin(&dir.path().join("w"), "w.example");
    let mut random = Seeded::new(0x5eed_0007);
    let mut signed = Signed::default();
    let mut tree = Tree::default();
    for round in 0..KILLS {
        witness.start_with(&["--log", &log_key().to_string()]);
        let url = witness.url();
        let pause = random.millis(150);
        let killing = std::thread::spawn(move || {
            std::thread::sleep(pause);
            witness.kill9();
            witness
        });
        let mut forks = vec![tree];
        while let Some(next) = fork(&url, round, &mut forks, &mut random, &mut signed) {
            forks = vec![next];
        }
        witness = killing.join().unwrap();
        tree = remembered(&mut witness, forks, &mut signed);
    }
    assert!(signed.0.len() > KILLS, "{} cosignatures", signed.0.len());
}

/// Submits two histories that grow from the first of `trees`, and adds them to these. Returns the
/// one that was signed; `None` once the witness is gone.
fn fork(
    url: &str,
    round: usize,
    trees: &mut Vec<Tree>,
    random: &mut Seeded,
    signed: &mut Signed,
) -> Option<Tree> {
    let old = trees[0].0.len() as u64;
    let size = old + 1 + random.below(3) as u64;
    let grown = ["left", "right"].map(|side| {
        let mut tree = trees[0].clone();
        let leaf = |n| leaf_hash(format!("{side} {round}/{n}").as_bytes());
        tree.0.extend((old..size).map(leaf));
        tree
    });
    let bodies = grown
        .clone()
        .map(|tree| tree.request(old, size).to_string());
    let (left, right) = runtime().block_on(async {
        let [left, right] = bodies.map(|body| post(url, body));
        tokio::join!(left, right)
    });
    trees.extend(grown.clone());
    let mut next = None;
    for (answer, tree) in [left, right].into_iter().zip(grown) {
        match answer {
            Ok((StatusCode::OK, _, _)) => {
                signed.add(size, tree.root(size));
                next = Some(tree);
            }
            Ok((StatusCode::CONFLICT, _, seen)) => assert_eq!(read_size(&seen), Some(size)),
            Ok((status, _, words)) => panic!("{status}: {words}"),
            Err(_) => {}
        }
    }
    next
}

/// After a kill: what the witness has stored is one of the histories that it was shown, and no
/// older than what it has signed.
fn remembered(witness: &mut Witness, trees: Vec<Tree>, signed: &mut Signed) -> Tree {
    witness.start_with(&["--log", &log_key().to_string()]);
    let newest = format!(
        "{}/{}/checkpoint",
        witness.url(),
        Digest::of(ORIGIN.as_bytes())
    );
    let (status, note) = get(newest);
    witness.kill9();
    if status == 404 {
        assert!(signed.0.is_empty(), "it has forgotten what it signed");
        return Tree::default();
    }
    let (Checkpoint { size, root, .. }, _) = Checkpoint::open(note.as_bytes(), &log_key()).unwrap();
    signed.add(size, root);
    let same = |tree: &Tree| tree.0.len() as u64 == size && tree.root(size) == root;
    trees
        .into_iter()
        .find(same)
        .expect("a history that it was shown")
}

/// A federation whose log needs witnesses.
struct Witnessed {
    registry: Registry,
    witnesses: Vec<Witness>,
    policy: PathBuf,
    agent: Agent,
    dir: TempDir,
}

impl Witnessed {
    /// With so many witnesses, of which `quorum` must sign; those in `absent` are addresses only.
    fn found(count: usize, quorum: u64, absent: &[&str]) -> Witnessed {
        let dir = directory();
        let mut options = vec!["--quorum".to_owned(), quorum.to_string()];
        let mut witnesses = Vec::new();
        for n in 1..=count + absent.len() {
            let name = format!("w{n}.example");
            let witness = Witness::begin(&dir.path().join(format!("w{n}")), &name);
            let url = match absent.get(n.wrapping_sub(count + 1)) {
                Some(address) => (*address).to_owned(),
                None => witness.url(),
            };
            options.extend(["--witness".into(), witness.key.to_string(), url]);
            if n <= count {
                witnesses.push(witness);
            }
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let registry = Registry::found_with(&dir.path().join("registry"), "test", &options);
        let place = registry.dir.display().to_string();
        let address = registry.address.to_string();
        let ran = registry.run(&["policy", "--dir", &place, "--registry", &address]);
        let policy = dir.path().join("policy");
        std::fs::write(&policy, ran.ok().stdout).unwrap();
        let agent = Agent::new(&registry, "aa", 3);
        let mut all = Witnessed {
            registry,
            witnesses,
            policy,
            agent,
            dir,
        };
        all.start_witnesses();
        all
    }

    fn start_witnesses(&mut self) {
        for witness in &mut self.witnesses {
            witness.start(&self.policy);
        }
    }

    fn start(&mut self) {
        self.registry.start();
        self.submit(&self.agent.enrolment(&self.registry)).unwrap();
    }

    fn submit(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        runtime().block_on(self.registry.submitter().submit(envelope))
    }

    /// Who has co-signed a checkpoint that the policy accepts.
    fn cosigners(&self, note: &str) -> Vec<usize> {
        let policy = Policy::parse(&std::fs::read(&self.policy).unwrap()).unwrap();
        policy.verify(note.as_bytes()).unwrap();
        let lines = |name: String| note.contains(&format!("\n— {name} "));
        (1..=3).filter(|n| lines(format!("w{n}.example"))).collect()
    }
}

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
    assert!(fault.message.contains("1 of 2 witnesses"), "{fault}");
    assert!(fault.message.contains("w1.example"), "{fault}");
    // The log is closed for further statements, and readers see what a quorum has signed.
    let fourth = all.agent.dataset("four");
    assert_eq!(all.submit(&fourth).unwrap_err().blame, Blame::Unavailable);
    let shown = get(format!("{}/checkpoint", all.registry.url())).1;
    assert_eq!(shown, *second.checkpoint);

    all.witnesses[0].start(&all.policy);
    let third = all.submit(&third).unwrap();
    assert_eq!(
        third.index,
        second.index + 1,
        "it was committed the first time"
    );
    assert_eq!(all.cosigners(&third.checkpoint), [1, 3]);
    assert_eq!(all.submit(&fourth).unwrap().index, third.index + 1);
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
    let shown = get(format!("{}/checkpoint", all.registry.url())).1;
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
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_registry_restored_from_an_old_copy_refuses_to_sign() {
    let mut all = Witnessed::found(2, 1, &[]);
    all.start();
    all.submit(&all.agent.dataset("one")).unwrap();
    all.registry.stop();
    let (dir, backup) = (all.registry.dir.clone(), all.dir.path().join("backup"));
    copy(&dir, &backup);
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

#[test]
fn any_node_is_a_witness_by_configuration() {
    let federation = Federation::start();
    let mut node = federation.joined("node", &["aa"]);
    federation.registry.enrol(&node.proposal("aa")).ok();
    let listen = free_address();
    node.settings
        .push(("JINGWEI_NODE_WITNESS_LISTEN".into(), listen.to_string()));
    node.start();
    node.until_announced();
    let key: NoteKey = node.run(&["doctor"]).ok().field("witness").parse().unwrap();
    let name = format!("jingwei/{}/witness/aa", federation.registry.federation);
    assert_eq!(key.name(), name);

    // The registry's own checkpoint, as a log would submit it that names this witness.
    let shown = get(format!("{}/checkpoint", federation.registry.url())).1;
    let note = Note::parse(shown.as_bytes()).unwrap();
    let text = note.text.clone();
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        note,
    };
    let url = format!("http://{listen}");
    let submit = |body: String| runtime().block_on(post(&url, body)).unwrap();
    let (status, _, lines) = submit(request.to_string());
    assert_eq!(status, StatusCode::OK, "{lines}");
    read_cosignature(&lines, &text, &key).unwrap();
    // What it has signed outlives the process.
    node.kill9();
    node.start();
    node.until_announced();
    let (status, _, size) = submit(request.to_string());
    assert_eq!(status, StatusCode::CONFLICT);
    let size = read_size(&size).unwrap();
    assert_eq!(text.lines().nth(1), Some(size.to_string().as_str()));
    assert_eq!(
        submit(Tree::of(&["a"]).request(0, 1).to_string()).0,
        StatusCode::NOT_FOUND
    );
}
