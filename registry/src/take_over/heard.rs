//! How long the lost log was, as far as anybody has seen.
//!
//! What is acknowledged is covered by a checkpoint that a quorum of witnesses has signed, and each
//! of these has signed that or a later one since. So the size that the q-th of them has reached is
//! one beyond which nothing was acknowledged. What a witness has reached only it can say: one that
//! does not answer might have signed anything, whatever others show that it has signed before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::digest::Digest;
use jingwei_proto::state::RootRecord;
use reqwest::{Client, Url};

use super::internal;
use crate::fault::{Blame, Fault};
use crate::log::LogReader;
use jingwei_proto::words::entries;

/// The largest note, in bytes.
const MAX_NOTE: usize = 64 * 1024;
/// How long one of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has been heard of the lost log.
pub struct Heard<'a> {
    root: &'a RootRecord,
    log: &'a LogReader,
    /// The newest size that each cosigner has signed, by its name.
    sizes: BTreeMap<String, u64>,
    /// The witnesses that have said so themselves.
    answered: BTreeSet<String>,
}

impl<'a> Heard<'a> {
    /// Nothing yet, of the log that `log` is a replica of.
    pub fn new(root: &'a RootRecord, log: &'a LogReader) -> Heard<'a> {
        Heard {
            root,
            log,
            sizes: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    /// Takes a checkpoint of the lost log that somebody shows; `who` it is, for messages.
    pub fn take(&mut self, who: &str, note: &str) -> Result<(), Fault> {
        let keys = CheckpointKeys::of_root(self.root);
        let wrong = |reason: String| {
            Fault::new(Blame::Unverified, format!("{who}: {reason}"))
                .advise("is it of this federation, and of its last registry?")
        };
        let key = keys.log_key().map_err(internal)?;
        let (shown, note) = Checkpoint::open(note.as_bytes(), &key)
            .map_err(|error| wrong(format!("not a checkpoint of the lost log: {error}")))?;
        if shown.size <= self.log.size()
            && self.log.root_at(shown.size).map_err(internal)? != shown.root
        {
            return Err(wrong(format!(
                "it has seen another history: the {} there are not those of the replica",
                entries(shown.size)
            )));
        }
        let signed = keys
            .cosigners(&note)
            .map_err(|error| wrong(format!("a cosignature of the checkpoint is false: {error}")))?;
        for (key, _) in signed.iter().filter(|(_, time)| time.is_some()) {
            let newest = self.sizes.entry(key.name().to_owned()).or_default();
            *newest = shown.size.max(*newest);
        }
        Ok(())
    }

    /// Takes what the witness of this name has answered.
    pub fn answer(&mut self, witness: &str, note: &str) -> Result<(), Fault> {
        self.take(witness, note)?;
        self.answered.insert(witness.to_owned());
        Ok(())
    }

    /// The witnesses that have not answered.
    pub fn silent(&self) -> Vec<&'a str> {
        let witnesses = self.root.witnesses.iter().map(|witness| &*witness.name);
        let silent = witnesses.filter(|name| !self.answered.contains(*name));
        match self.root.quorum {
            0 => Vec::new(),
            _ => silent.collect(),
        }
    }

    /// Whether so many witnesses are silent that they may have been a quorum.
    pub fn is_unsure(&self) -> bool {
        self.root.quorum > 0 && self.silent().len() as u64 >= self.root.quorum
    }

    /// A size that the lost log may have acknowledged, and none larger, unless [`Heard::is_unsure`].
    pub fn acknowledged(&self) -> u64 {
        let quorum = usize::try_from(self.root.quorum.max(1)).unwrap_or(usize::MAX);
        let signed = reached_by(quorum, self.sizes.values());
        let answered = self
            .sizes
            .iter()
            .filter(|(name, _)| self.answered.contains(*name));
        let with_silent = quorum.saturating_sub(self.silent().len());
        signed.max(reached_by(with_silent, answered.map(|(_, size)| size)))
    }
}

/// The size that the `n`-th of these has reached.
fn reached_by<'a>(n: usize, sizes: impl Iterator<Item = &'a u64>) -> u64 {
    let mut sizes: Vec<u64> = sizes.copied().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let last = n.checked_sub(1).and_then(|n| sizes.get(n));
    last.copied().unwrap_or(0)
}

/// What the witness at `url` has signed of the log `origin` last.
pub async fn of_witness(url: &Url, origin: &str) -> Result<String, String> {
    let path = format!("{}/checkpoint", Digest::of(origin.as_bytes()));
    read(url.join(&path).map_err(|error| error.to_string())?).await
}

/// The note at `url`.
pub async fn read(url: Url) -> Result<String, String> {
    let client = Client::builder()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let text = |error: reqwest::Error| format!("{url}: {error}");
    let answer = client.map_err(text)?.get(url.clone()).send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let mut chunks = answer.map_err(text)?.bytes_stream();
    let mut note = Vec::new();
    while let Some(chunk) = chunks.next().await {
        note.extend_from_slice(&chunk.map_err(text)?);
        if note.len() > MAX_NOTE {
            return Err(format!("{url}: more than {MAX_NOTE} bytes"));
        }
    }
    String::from_utf8(note).map_err(|_| format!("{url}: it is not text"))
}

#[cfg(test)]
mod tests {
    use jingwei_proto::checkpoint::cosign;
    use jingwei_proto::key::{SecretKey, Signer as _};
    use jingwei_proto::state::Chain;
    use jingwei_proto::statement::{RegistryKeys, Witness};
    use jingwei_proto::time::Time;

    use super::*;
    use crate::disk::Disk;
    use crate::log::{Entry, Log};

    const ORIGIN: &str = "jingwei/test-0123456789abcdef/registry/1";

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn root(witnesses: u8, quorum: u64) -> RootRecord {
        let witness = |n: u8| Witness {
            name: format!("w{n}"),
            key: key(n).public().clone(),
        };
        RootRecord {
            chain: Chain {
                sequence: 1,
                payload: Digest::of(b"root"),
                index: 0,
            },
            federation: "test-0123456789abcdef".parse().unwrap(),
            keys: vec![key(90).public().clone()],
            threshold: 1,
            registry: RegistryKeys {
                origin: ORIGIN.into(),
                log: key(91).public().clone(),
                cosigner: key(92).public().clone(),
                tls: key(93).public().id(),
            },
            witnesses: (1..=witnesses).map(witness).collect(),
            quorum,
            rules: 1,
            recovery_delay: 60,
        }
    }

    /// A replica of a log, of which others have seen up to ten entries.
    struct Lost {
        replica: LogReader,
        whole: LogReader,
        _dir: tempfile::TempDir,
    }

    impl Lost {
        fn new(held: usize) -> Lost {
            let dir = tempfile::tempdir().unwrap();
            let open = |name: &str, entries: usize| {
                let mut log = Log::open(&dir.path().join(name), Disk::new(), ORIGIN).unwrap();
                let entry = |n: usize| Entry {
                    leaf: vec![n as u8],
                    envelope: None,
                };
                let entries: Vec<Entry> = (0..entries).map(entry).collect();
                let seal = |own: &Checkpoint| own.sign(&key(91)).map(|note| note.to_string());
                log.append_and_publish(&entries, seal).unwrap();
                log.reader()
            };
            Lost {
                replica: open("replica", held),
                whole: open("whole", 10),
                _dir: dir,
            }
        }

        /// The checkpoint of so many entries, co-signed by these.
        fn note(&self, size: u64, cosigners: &[u8]) -> String {
            let checkpoint = Checkpoint::new(ORIGIN, size, self.whole.root_at(size).unwrap());
            let mut note = checkpoint.sign(&key(91)).unwrap();
            for n in cosigners {
                let name = match n {
                    92 => ORIGIN.to_owned(),
                    n => format!("w{n}"),
                };
                let time = Time::from_seconds(1_700_000_000).unwrap();
                let line = cosign(&note.text, &name, &key(*n), time).unwrap();
                note.signatures.push(line);
            }
            note.to_string()
        }
    }

    #[test]
    fn what_a_quorum_may_have_signed_may_have_been_acknowledged() {
        let lost = Lost::new(5);
        let root = root(3, 2);
        let mut heard = Heard::new(&root, &lost.replica);
        heard.take("the replica", &lost.note(5, &[1, 2])).unwrap();
        // What they have signed before says nothing about what they have signed since.
        assert!(heard.is_unsure());
        assert_eq!((heard.acknowledged(), heard.silent().len()), (5, 3));
        heard.answer("w1", &lost.note(8, &[1])).unwrap();
        assert!(heard.is_unsure());
        heard.answer("w2", &lost.note(6, &[2])).unwrap();
        // One of a quorum of two, and the other may be the one that is silent.
        assert_eq!((heard.acknowledged(), heard.is_unsure()), (8, false));
        heard.answer("w3", &lost.note(3, &[3])).unwrap();
        assert_eq!((heard.acknowledged(), heard.silent().len()), (6, 0));
        heard.answer("w3", &lost.note(7, &[3])).unwrap();
        assert_eq!(heard.acknowledged(), 7);
        // What was heard once is not taken back by something older.
        heard.take("w1", &lost.note(2, &[1])).unwrap();
        assert_eq!(heard.acknowledged(), 7);
        heard.take("another node", &lost.note(9, &[1, 2])).unwrap();
        assert_eq!(heard.acknowledged(), 9);
    }

    #[test]
    fn without_witnesses_the_newest_that_anybody_shows_counts() {
        let lost = Lost::new(5);
        let root = root(1, 0);
        let mut heard = Heard::new(&root, &lost.replica);
        heard.take("the replica", &lost.note(5, &[92])).unwrap();
        heard.take("another node", &lost.note(9, &[92])).unwrap();
        assert_eq!((heard.acknowledged(), heard.is_unsure()), (9, false));
        // A signature of the log alone says nothing about acknowledgements.
        heard.take("somebody", &lost.note(10, &[])).unwrap();
        assert_eq!(heard.acknowledged(), 9);
    }

    #[test]
    fn foreign_checkpoints_are_refused() {
        let lost = Lost::new(5);
        let root = root(2, 1);
        let mut heard = Heard::new(&root, &lost.replica);
        let mut refused = |note: &str, words: &str| {
            let fault = heard.take("somebody", note).unwrap_err();
            assert_eq!(fault.blame, Blame::Unverified);
            assert!(fault.message.contains(words), "{fault}");
        };
        refused("nothing", "not a checkpoint");
        let other = Checkpoint::new(ORIGIN, 4, Digest::of(b"other")).sign(&key(91));
        refused(&other.unwrap().to_string(), "another history");
        let stranger = Checkpoint::new(ORIGIN, 4, Digest::of(b"other")).sign(&key(1));
        refused(&stranger.unwrap().to_string(), "not a checkpoint");
        let renamed = lost.note(6, &[1]).replace("— w1 ", "— w2 ");
        heard.take("somebody", &renamed).unwrap();
        assert_eq!(heard.acknowledged(), 0);
    }
}
