//! The state that an accused entry met, as far as a file shows it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::{NotProved, Since, not_proved, text};
use crate::dsse::Envelope;
use crate::leaf::leaf;
use crate::merkle::{Edge, leaf_hash};
use crate::snapshot::Tree;
use crate::state::{self, ApplyError, Change, Lookup, Rejection, RootRecord, keys};
use crate::statement::Snapshot;

/// Records by key; what is not among them is not there, or is not known.
pub(super) struct Known {
    records: BTreeMap<String, Option<Vec<u8>>>,
    /// The entries before the snapshot that all rests on; `None` where it begins with the log.
    base: Option<u64>,
    /// Keys that a snapshot speaks of, and nobody has asked for yet.
    unasked: RefCell<BTreeSet<String>>,
    /// The tree of the entries so far.
    pub edge: Edge,
}

/// The file does not show the record under this key.
#[derive(Debug, thiserror::Error)]
#[error("nothing is shown of ‘{0}’")]
pub(super) struct Unshown(String);

impl Lookup for Known {
    type Error = Unshown;

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Unshown> {
        match self.records.get(key) {
            Some(record) => {
                self.unasked.borrow_mut().remove(key);
                Ok(record.clone())
            }
            None if self.base.is_none() => Ok(None),
            None => Err(Unshown(key.to_owned())),
        }
    }
}

impl Known {
    /// The state before the first entry of a log.
    pub fn nothing() -> Known {
        Known {
            records: BTreeMap::new(),
            base: None,
            unasked: RefCell::default(),
            edge: Edge::new(),
        }
    }

    /// What the snapshot with which `before` begins says of the state that it stands in. It need not
    /// be true: whether the log holds it is found with the tree.
    pub fn from(since: &Since, before: &[Vec<u8>]) -> Result<Known, NotProved> {
        let first = before.first().map(|bytes| Envelope::parse(bytes));
        let first = first.transpose().map_err(text)?;
        let snapshot = first.as_ref().and_then(Snapshot::of);
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.size == since.size) else {
            return not_proved("the statements do not begin with the snapshot that is spoken of");
        };
        let Some(edge) = Edge::from_peaks(since.size, since.peaks.clone()) else {
            return not_proved("the log before the snapshot has other peaks");
        };
        let mut records = BTreeMap::new();
        for (key, proof) in &since.state {
            let record = proof.verify(key, &snapshot.state).map_err(text)?;
            records.insert(key.clone(), record.map(<[u8]>::to_vec));
        }
        Ok(Known {
            unasked: RefCell::new(since.state.keys().cloned().collect()),
            records,
            base: Some(since.size),
            edge,
        })
    }

    /// What the rules make of the next entry: a change, or a rejection.
    pub fn judge(&self, envelope: &Envelope) -> Result<Result<Change, Rejection>, NotProved> {
        self.judge_at(self.edge.size(), envelope)
    }

    fn judge_at(
        &self,
        index: u64,
        envelope: &Envelope,
    ) -> Result<Result<Change, Rejection>, NotProved> {
        let change = match state::apply(self, index, envelope) {
            Ok(change) => change,
            Err(ApplyError::Rejected(rejection)) => return Ok(Err(rejection)),
            Err(ApplyError::RulesTooNew(rules)) => {
                return not_proved(format!(
                    "the federation uses rules {rules}, which this program is too old for"
                ));
            }
            Err(error @ (ApplyError::Storage(_) | ApplyError::Unreadable(_))) => {
                return not_proved(format!("entry {index} cannot be judged: {error}"));
            }
        };
        let Some(snapshot) = Snapshot::of(envelope) else {
            return Ok(Ok(change));
        };
        match self.base {
            None => {
                let records = self.records.iter();
                let there = records.filter_map(|(key, record)| Some((key, record.as_ref()?)));
                let mut tree = there.collect::<Tree>();
                Ok(snapshot.names(&tree.root()).map(|()| change))
            }
            Some(base) if base == index => Ok(Ok(change)),
            Some(_) => not_proved(format!(
                "to say whether the snapshot in entry {index} is true takes all statements before it"
            )),
        }
    }

    /// Takes up an entry that the rules admit, or have to.
    pub fn admit(&mut self, envelope: &Envelope) -> Result<(), NotProved> {
        let change = self.judge(envelope)?.map_err(text)?;
        self.edge.push(leaf_hash(&leaf(envelope, &change.signer)));
        self.records.extend(change.writes);
        Ok(())
    }

    /// Takes up one of the root documents, without what stands between them.
    pub fn admit_root(&mut self, index: u64, root: &Envelope) -> Result<RootRecord, NotProved> {
        let change = self.judge_at(index, root)?.map_err(text)?;
        self.records.extend(change.writes);
        let record = self.records.get(keys::ROOT).and_then(Option::as_deref);
        let record = record.and_then(state::record);
        record.ok_or_else(|| NotProved("there is no root document".into()))
    }

    /// Whether everything that was shown has been asked for: nothing else belongs in a file.
    pub fn is_used_up(&self) -> bool {
        self.unasked.borrow().is_empty()
    }
}
