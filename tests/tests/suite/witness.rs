//! Witnesses as processes: what they answer, and what they survive.

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::{Digest, from_hex};
use jingwei_proto::key::{PublicKey, SecretKey, Signer as _};
use jingwei_proto::merkle::{self, Edge, HashReader, leaf_hash};
use jingwei_proto::note::{Algorithm, Note, NoteKey};
use jingwei_proto::witness::{AddCheckpoint, read_cosignature, read_size};
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::programs::free_address;
use jingwei_tests::seeded::Seeded;
use jingwei_tests::{Federation, Witness};
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
    let metrics = free_address();
    let settings = witness.dir.join("witness.toml");
    let told = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{told}metrics = \"{metrics}\"\n")).unwrap();
    witness.start_with(&["--log", &log_key().to_string()]);
    let newest = format!(
        "{}/{}/checkpoint",
        witness.url(),
        Digest::of(ORIGIN.as_bytes())
    );
    assert_eq!(get(newest.clone()).0, 404);

    let (tree, fork) = (Tree::of(&["a", "b", "c"]), Tree::of(&["a", "b", "x", "y"]));
    let good = tree.request(0, 2);
    // An empty log has one root only.
    let false_root = Checkpoint::new(ORIGIN, 0, tree.root(2)).sign(&secret());
    let false_empty = AddCheckpoint {
        note: false_root.unwrap(),
        ..good.clone()
    };
    assert_eq!(ask(&witness, false_empty).0, 422);
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
    let split = AddCheckpoint {
        old: 2,
        ..Tree::of(&["x", "y"]).request(0, 2)
    };
    assert_eq!(status(&split), 422);
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
    // Of the one of the same size it keeps what the log has signed.
    let kept = format!("logs/{}.fork", Digest::of(ORIGIN.as_bytes()));
    let kept = std::fs::read_to_string(witness.dir.join(kept)).unwrap();
    assert!(kept.starts_with(&good.note.text), "{kept}");
    assert!(kept.ends_with(&format!("\n\n{}", split.note)), "{kept}");
    let (status, note) = get(newest);
    assert_eq!(status, 200);
    let (checkpoint, note) = Checkpoint::open(note.as_bytes(), &log_key()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (3, tree.root(3)));
    jingwei_proto::checkpoint::verify_cosignature(&note, &witness.key).unwrap();
    let counted = get(format!("http://{metrics}/metrics")).1;
    for line in [
        "jingwei_witness_requests_total{status=\"200\"} 2\n",
        "jingwei_witness_requests_total{status=\"409\"} 2\n",
        "jingwei_witness_cosigned_entries{log=\"example.com/log\"} 3\n",
    ] {
        assert!(counted.contains(line), "{counted}");
    }
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

#[test]
fn any_node_is_a_witness_by_configuration() {
    let mut federation = Federation::start();
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
    let shown = federation.registry.checkpoint();
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

    // The registry is told where it is, and the keepers of the root name it.
    let registry = &mut federation.registry;
    let settings = format!("witnesses = [\"{name} {url}\"]\n");
    std::fs::write(registry.dir.join("registry.toml"), settings).unwrap();
    registry.stop();
    registry.start();
    let (dir, address) = (
        registry.dir.display().to_string(),
        registry.address.to_string(),
    );
    let running = ["--dir", &dir, "--registry", &address];
    let key = key.to_string();
    let change = [
        "root",
        "propose",
        "--witness",
        &key,
        "--quorum",
        "1",
        "--yes",
    ];
    registry.run(&[&change[..], &running].concat()).ok();
    let status = registry.run(&[&["status"], &running[..]].concat()).ok();
    status.prints(&[&format!("co-signed   {name} at"), "quorum      1 of 1"]);
    let dataset = Agent::new(registry, "bb", 3).enrolment(registry);
    let accepted = runtime().block_on(registry.submitter().submit(&dataset));
    let accepted = accepted.unwrap();
    assert!(accepted.checkpoint.contains(&format!("\n— {name} ")));
    node.until_entry(accepted.index);
    let doctor = node.run(&["doctor"]).ok();
    doctor.prints(&[&format!("by {name}")]);
}
