//! A registry that has taken over from the one that was followed, and one that was taken over from.
//!
//! Another registry goes on under another name, as k of n root keys have signed: after so many
//! entries, with this root. It counts here if it leaves out nothing that was verified here. One that
//! goes on from a shorter log is refused, whoever has signed it: what is missing there was
//! acknowledged. And what was taken over from is over: its later checkpoints count no more.

use std::collections::BTreeMap;

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::note::Note;
use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::{Continues, Predicate, Statement};

use super::{Misbehaviour, Replica, ReplicaError, fetch, newer_root};
use crate::index::Batch;
use crate::source::Source;
use jingwei_proto::words::entries;

/// Entries that are looked at to say whose they are.
const MOST_NAMED: u64 = 4_096;

/// A log that another has taken over from.
pub(super) struct Former {
    /// The last root that was about it.
    pub root: RootRecord,
    /// How many of its entries the next log has.
    pub ended: u64,
}

impl Replica {
    /// The log that a checkpoint is about, if it is one that was taken over from.
    pub(super) fn former(&self, note: &str) -> Option<Former> {
        let origin = &shown(note)?.origin;
        let newest = self.index.root().ok()??;
        let record = |version| self.index.root_version(version).ok().flatten();
        let mut next = newest;
        while next.chain.sequence > 1 {
            let before = record(next.chain.sequence - 1)?;
            if before.registry.origin != next.registry.origin && before.registry.origin == *origin {
                return Some(Former {
                    ended: next.chain.index,
                    root: before,
                });
            }
            next = before;
        }
        None
    }

    /// A former log's checkpoint that a quorum has signed, beyond what the next log has of it: there
    /// are acknowledged entries that the take-over has left out.
    pub(super) fn left_out(&self, former: &Former, note: &str) -> Option<Misbehaviour> {
        let (shown, _) = CheckpointKeys::of_root(&former.root).verify(note).ok()?;
        (shown.size > former.ended).then(|| Misbehaviour::ShortTakeOver {
            after: former.ended,
            verified: shown.size,
            left_out: self.whose(former.ended, shown.size),
        })
    }

    /// Take-overs on the way to a checkpoint must leave out nothing that is here.
    pub(super) fn not_short(&self, taken_over: &[Continues]) -> Result<(), Misbehaviour> {
        let here = self.committed.checkpoint();
        let mut from_here = taken_over.iter().filter(|log| log.origin == here.origin);
        match from_here.find(|log| log.size < here.size) {
            None => Ok(()),
            Some(log) => Err(self.accuse(self.short(log.size, here.size), None)),
        }
    }

    /// Whether the highest checkpoint is of entries that the root's keepers have given up: the log
    /// before was lost when they had been signed, and before they were here.
    pub(super) fn given_up(&self, taken_over: &[Continues]) -> bool {
        self.highest().is_some_and(|(highest, _)| {
            let mut logs = taken_over.iter();
            logs.any(|log| log.origin == highest.origin && log.size < highest.size)
        })
    }

    fn short(&self, after: u64, verified: u64) -> Misbehaviour {
        Misbehaviour::ShortTakeOver {
            after,
            verified,
            left_out: self.whose(after, verified),
        }
    }

    /// A checkpoint by nobody that is known here may be of a registry that has taken over from a
    /// shorter log than this: then the root that says so stands where the two logs part.
    pub(super) async fn taken_over_too_early(
        &self,
        source: &Source,
        note: &str,
    ) -> Result<Option<Misbehaviour>, ReplicaError> {
        let (Some(shown), Some(root)) = (shown(note), self.index.root()?) else {
            return Ok(None);
        };
        if shown.origin == root.registry.origin {
            return Ok(None);
        }
        let held = self.committed.size();
        let (mut same, mut other) = (0, held.min(shown.size) + 1);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            match fetch::history(source, middle, &shown).await? {
                Some((root, _)) if root == self.committed.root_at(middle)? => same = middle,
                Some(_) => other = middle,
                None => return Ok(None),
            }
        }
        if same == 0 || same >= held.min(shown.size) {
            return Ok(None);
        }
        let envelopes = fetch::envelopes(source, same..same + 1, shown.size).await?;
        let envelope = envelopes
            .first()
            .and_then(|bytes| newer_root::root_envelope(bytes));
        let Some((envelope, _)) = envelope else {
            return Ok(None);
        };
        // As if nothing had come after: k of n keys have signed that the log goes on from here.
        let admitted = Batch::new(&self.index).admit(same, &envelope, None);
        Ok(admitted.is_ok().then(|| self.short(same, held)))
    }

    /// Whose entries these are, as far as they are here.
    fn whose(&self, from: u64, to: u64) -> String {
        let end = to.min(self.committed.size()).min(from + MOST_NAMED);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for envelope in (from..end).filter_map(|at| self.committed.envelope(at).ok()) {
            let envelope = jingwei_proto::dsse::Envelope::parse(&envelope).ok();
            let statement = envelope.and_then(|own| Statement::parse(own.payload()).ok());
            let agency = statement.and_then(|statement| statement.head.agency);
            let name = agency.map_or_else(|| "the registry".to_owned(), |id| id.to_string());
            *counts.entry(name).or_default() += 1;
        }
        let named: Vec<String> = counts
            .iter()
            .take(8)
            .map(|(name, count)| format!("{count} of {name}"))
            .collect();
        let all = to.saturating_sub(from);
        match named.is_empty() {
            true => entries(all),
            false => format!("{} ({})", entries(all), named.join(", ")),
        }
    }
}

/// What a note is about, whoever has signed it.
fn shown(note: &str) -> Option<Checkpoint> {
    Note::parse(note.as_bytes()).ok()?.text.parse().ok()
}

/// What a root document goes on from.
pub(super) fn continues(statement: &Statement) -> Option<&Continues> {
    match &statement.predicate {
        Predicate::Root(root) => root.continues.as_ref(),
        _ => None,
    }
}
