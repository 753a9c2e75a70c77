//! The cosignature's row of the fault matrix: what a witness is asked or answers is lost, once and
//! twice in a row, where a tile fills. The log ends up as if nothing had been lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::note::Note;
use jingwei_tests::local::runtime;
use jingwei_tests::programs::copy_dir;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::witness_gate::{Trouble, WitnessGate};
use jingwei_tests::{Witness, Witnessed};

/// What readers see of a log. When a signature was made is not compared.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    tiles: BTreeMap<PathBuf, Vec<u8>>,
    checkpoint: String,
    signers: BTreeSet<String>,
}

impl Shown {
    fn read(log: &Path) -> Shown {
        let mut tiles = BTreeMap::new();
        let mut left = vec![log.join("tile")];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).unwrap();
                left.extend(entries.map(|entry| entry.unwrap().path()));
            } else {
                let name = path.strip_prefix(log).unwrap().to_owned();
                tiles.insert(name, std::fs::read(&path).unwrap());
            }
        }
        let note = std::fs::read(log.join("checkpoint")).unwrap();
        let note = Note::parse(&note).unwrap();
        let signers = note.signatures.into_iter().map(|line| line.name);
        Shown {
            tiles,
            checkpoint: note.text,
            signers: signers.collect(),
        }
    }
}

/// A log of 255 entries whose registry and witnesses have stopped, and what it is to be given.
struct Base {
    all: Witnessed,
    next: [Envelope; 2],
}

impl Base {
    fn new() -> Base {
        let mut all = Witnessed::found(2, 2, &[]);
        all.start();
        let submitter = all.registry.submitter();
        let statements = (0..253).map(|n| all.agent.dataset(&format!("d{n}")));
        let entered = futures::stream::iter(statements)
            .map(|statement| {
                let submitter = submitter.clone();
                async move { submitter.submit(&statement).await.unwrap() }
            })
            .buffer_unordered(64);
        runtime().block_on(entered.collect::<Vec<_>>());
        all.registry.stop();
        all.witnesses.iter_mut().for_each(Witness::kill9);
        assert_eq!(LogFiles::read(&all.registry.dir.join("log")).size(), 255);
        let next = ["256", "257"].map(|name| all.agent.dataset(&format!("d{name}")));
        Base { all, next }
    }

    /// A copy of it grows by two statements, one after the other, while so many requests to the
    /// second witness fail.
    fn grow(&self, name: &str, trouble: Trouble, times: u32) -> Shown {
        let dir = self.all.dir.path().join(name);
        let mut witnesses: Vec<Witness> = (1..)
            .zip(&self.all.witnesses)
            .map(|(n, witness)| witness.copied(&dir.join(format!("w{n}"))))
            .collect();
        for witness in &mut witnesses {
            witness.start(&self.all.policy);
        }
        let gate = WitnessGate::start(witnesses[1].url(), trouble, times);
        let place = dir.join("registry");
        copy_dir(&self.all.registry.dir, &place);
        let mut settings = std::fs::read_to_string(place.join("registry.toml")).unwrap();
        let urls = [witnesses[0].url(), gate.url()];
        for (before, now) in self.all.witnesses.iter().zip(urls) {
            assert!(settings.contains(&before.url()), "{settings}");
            settings = settings.replace(&before.url(), &now);
        }
        std::fs::write(place.join("registry.toml"), settings).unwrap();
        let mut registry = self.all.registry.successor(&place);
        registry.start();
        for (index, statement) in (255..).zip(&self.next) {
            let entered = runtime().block_on(registry.submitter().submit(statement));
            assert_eq!(entered.unwrap().index, index, "{trouble:?}, {times}");
        }
        registry.stop();
        assert_eq!(gate.failures_left(), 0, "{trouble:?}, {times}");
        Shown::read(&place.join("log"))
    }
}

#[test]
fn a_cosignature_is_lost_in_every_way() {
    let base = Base::new();
    let clean = base.grow("clean", Trouble::Dropped, 0);
    assert!(clean.tiles.contains_key(Path::new("tile/0/000")));
    assert_eq!(clean.signers.len(), 3, "{clean:?}");
    for trouble in [Trouble::Dropped, Trouble::AnswerLost, Trouble::HalfALine] {
        for times in [1, 2] {
            let name = format!("{trouble:?}-{times}");
            let shown = base.grow(&name, trouble, times);
            assert!(
                shown == clean,
                "{name}: {:?} instead of {:?}",
                shown.checkpoint,
                clean.checkpoint
            );
        }
    }
}
