//! What is needed of a snapshot to judge the entries after it: the records that the rules ask for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use jingwei_proto::dsse::Envelope;
use jingwei_proto::json;
use jingwei_proto::leaf::Leaf;
use jingwei_proto::misbehaviour::{MAX_BEFORE, Since};
use jingwei_proto::state::{self, Lookup};
use jingwei_proto::statement::Snapshot;

use super::Replica;
use super::accuse::SignedHead;
use crate::index::{Index, Proofs};
use crate::log::LogError;

/// The state as it was at the newest snapshot, with what has been asked of it.
struct Asked<'a> {
    index: &'a Index,
    /// The entries before the snapshot.
    size: u64,
    proofs: RefCell<Proofs>,
    /// Records that the entries after it have written.
    written: BTreeMap<String, Option<Vec<u8>>>,
}

/// The state does not say what stood under a key: the index cannot be read, or has a newer snapshot.
struct Unknown;

impl Lookup for Asked<'_> {
    type Error = Unknown;

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Unknown> {
        if let Some(record) = self.written.get(key) {
            return Ok(record.clone());
        }
        let mut proofs = self.proofs.borrow_mut();
        if !proofs.contains_key(key) {
            let wanted = BTreeSet::from([key.to_owned()]);
            let proved = self.index.prove(|_| wanted).ok().flatten();
            let proved = proved.filter(|(size, _)| *size == self.size);
            let (_, proved) = proved.ok_or(Unknown)?;
            proofs.extend(proved);
        }
        let proof = proofs.get(key);
        Ok(proof.and_then(|proof| proof.record.clone().map(String::into_bytes)))
    }
}

impl Replica {
    /// The proof that needs what came before the entry since the newest snapshot; `None` where that
    /// is no older than the entry, or it takes too much.
    pub(super) fn with_all_since(
        &self,
        index: u64,
        head: &SignedHead,
    ) -> Result<Option<Vec<u8>>, LogError> {
        let newest = self.index.prove(|_| BTreeSet::new());
        let Some((size, _)) = newest.ok().flatten().filter(|(size, _)| *size < index) else {
            return Ok(None);
        };
        let mut asked = Asked {
            index: &self.index,
            size,
            proofs: RefCell::default(),
            written: BTreeMap::new(),
        };
        let mut before = Vec::new();
        let mut bytes = 0;
        for (at, envelope) in (size..).zip(self.committed.envelopes(size..index)?) {
            let envelope = envelope?;
            bytes += envelope.len() + 4;
            let change = Envelope::parse(&envelope).map(|read| state::apply(&asked, at, &read));
            match change {
                Ok(Ok(change)) if bytes <= MAX_BEFORE => asked.written.extend(change.writes),
                _ => return Ok(None),
            }
            before.push(envelope);
        }
        let entry = self.logged(index, head)?;
        let Some(read) = Leaf::parse(&entry.leaf) else {
            return Ok(None);
        };
        let accused = read.envelope(entry.payload.clone());
        // That its state is false is not to be seen in what it touches.
        if Snapshot::of(&accused).is_some() {
            return Ok(None);
        }
        // For what it asks for: what comes of it is found when the proof is made.
        let _ = state::apply(&asked, index, &accused);
        let state = asked.proofs.into_inner();
        if bytes + json::canonical(&state).len() > MAX_BEFORE {
            return Ok(None);
        }
        let peaks = self.committed.edge_at(size)?.peaks().to_vec();
        let since = Box::new(Since { size, peaks, state });
        self.rejected(entry, head, Some(since), before)
    }
}
