//! Proofs that rest on a snapshot.

use super::*;
use crate::snapshot::Tree;

impl Log {
    /// The snapshot that is true after all entries so far, `before` being the one before it.
    pub(super) fn snapshot(&self, before: Option<&Envelope>) -> Envelope {
        let number = 1 + u64::from(before.is_some());
        let mut head = statement(None, number, before.map(Envelope::payload_digest));
        head.time = at(number as i64);
        let statement = Statement {
            head,
            predicate: Predicate::Snapshot(Snapshot {
                size: self.size(),
                state: state(&self.envelopes).iter().collect::<Tree>().root(),
            }),
        };
        statement.sign(&key(90))
    }

    /// As [`Log::rejected`], from the snapshot at `base` on, with what is asked for.
    pub(super) fn rejected_since(&self, base: u64, index: u64) -> Lie {
        let state = state(&self.envelopes[..base as usize]);
        let mut tree: Tree = state.iter().collect();
        let mut lie = self.rejected(index);
        if let Lie::RejectedEntry { since, before, .. } = &mut lie {
            before.drain(..base as usize);
            let mut edge = Edge::new();
            let leaves = self.entries[..base as usize].iter();
            leaves.for_each(|(leaf, _)| edge.push(leaf_hash(leaf)));
            *since = Some(Box::new(Since {
                size: base,
                peaks: edge.peaks().to_vec(),
                state: BTreeMap::new(),
            }));
        }
        loop {
            let proof = Misbehaviour::new(vec![root()], lie.clone(), &pinned());
            let Err(NotProved(reason)) = proof else {
                return lie;
            };
            let Some((_, asked)) = reason.split_once("nothing is shown of ‘") else {
                return lie;
            };
            let key = asked.trim_end_matches('’');
            let record = tree.prove(key, state.get(key).map(Vec::as_slice));
            shown(&mut lie).state.insert(key.to_owned(), record);
        }
    }
}

fn shown(lie: &mut Lie) -> &mut Since {
    match lie {
        Lie::RejectedEntry {
            since: Some(since), ..
        } => since,
        _ => panic!("it rests on no snapshot"),
    }
}

/// What honest entries lead to.
fn state(envelopes: &[Envelope]) -> BTreeMap<String, Vec<u8>> {
    let mut state = BTreeMap::new();
    for (index, envelope) in (0..).zip(envelopes) {
        let change = crate::state::apply(&state, index, envelope).unwrap();
        change.write_to(&mut state);
    }
    state
}

#[test]
fn a_snapshot_stands_for_what_came_before_it() {
    let honest = Log::honest();
    let log = honest.clone().with(honest.snapshot(None), 90);
    let third = version("three", 1, None, 10);
    let log = log.with(third.clone(), 10);
    let log = log.with(version("three", 2, Some(&third), 10), 10);
    for index in 6..log.size() {
        refused(log.rejected_since(5, index), "there is no lie");
    }
    refused(log.rejected_since(4, 6), "do not begin with the snapshot");
    let another = log.snapshot(Some(&honest.snapshot(None)));
    let with_another = log.clone().with(another, 90);
    let with_another = with_another.with(version("five", 1, None, 12), 12);
    refused(with_another.rejected_since(5, 9), "takes all statements");

    let unknown = log.with(version("five", 1, None, 12), 12);
    let lie = unknown.rejected_since(5, 8);
    proved(lie.clone());
    // Each record is needed, and none of another state will do.
    let other = state(&unknown.envelopes[..8]);
    let mut other: Tree = other.iter().collect();
    for key in shown(&mut lie.clone()).state.keys() {
        let mut less = lie.clone();
        shown(&mut less).state.remove(key);
        refused(less, "nothing is shown of");
        let mut changed = lie.clone();
        let of_now = other.prove(key, None);
        shown(&mut changed).state.insert(key.clone(), of_now);
        refused(changed, "in the snapshot");
    }
    let mut more = lie.clone();
    let state = state(&unknown.envelopes[..5]);
    let record = state.iter().collect::<Tree>().prove("agency/zz", None);
    shown(&mut more).state.insert("agency/zz".into(), record);
    refused(more, "nothing here rests on");
    let mut lie = lie;
    shown(&mut lie).peaks.swap(0, 1);
    assert!(Misbehaviour::new(vec![root()], lie, &pinned()).is_err());
}
