//! How long the lost log was, as far as anybody has seen.
//!
//! What is acknowledged is covered by a checkpoint that a quorum of witnesses has signed, and each
//! of these has signed that or a later one since. So the size that the q-th of them has reached is
//! one beyond which nothing was acknowledged. A witness that is not heard might have signed anything.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::digest::Digest;
use jingwei_proto::state::RootRecord;
use reqwest::{Client, Url};

use super::internal;
use crate::fault::{Blame, Fault};
use crate::log::LogReader;

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
}

impl<'a> Heard<'a> {
    /// Nothing yet, of the log that `log` is a replica of.
    pub fn new(root: &'a RootRecord, log: &'a LogReader) -> Heard<'a> {
        Heard {
            root,
            log,
            sizes: BTreeMap::new(),
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
                "it has seen another history: the {} entries there are not those of the replica",
                shown.size
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

    /// The witnesses of which nothing was heard.
    pub fn silent(&self) -> Vec<&'a str> {
        let witnesses = self.root.witnesses.iter().map(|witness| &*witness.name);
        let silent = witnesses.filter(|name| !self.sizes.contains_key(*name));
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
        let mut sizes: Vec<u64> = self.sizes.values().copied().collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let silent = self.silent().len();
        let quorum = usize::try_from(self.root.quorum).unwrap_or(usize::MAX);
        let heard = quorum.saturating_sub(silent).max(1);
        sizes.get(heard - 1).copied().unwrap_or(0)
    }
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
