//! A file that leaves out what happened to its agencies.

use super::*;
use crate::snapshot::Tree;
use crate::state;

/// The state that a log of these statements leads to.
fn fold(statements: &[(Statement, u8)]) -> BTreeMap<String, Vec<u8>> {
    let mut state = BTreeMap::new();
    for (index, (statement, seed)) in (0..).zip(statements) {
        let envelope = statement.sign(&key(*seed));
        let change = state::apply(&state, index, &envelope).unwrap();
        change.write_to(&mut state);
    }
    state
}

/// Goes on with the log: a snapshot, with proofs of what it has under these keys.
fn with_snapshot(draft: Draft, asked: &[&str]) -> Draft {
    let state = fold(&draft.statements);
    with_snapshot_of(draft, &state, asked)
}

/// As [`with_snapshot`], of a state that need not be the log's.
fn with_snapshot_of(mut draft: Draft, state: &BTreeMap<String, Vec<u8>>, asked: &[&str]) -> Draft {
    let mut tree: Tree = state.iter().collect();
    let snapshot = Statement {
        head: head(None, at(40), None),
        predicate: Predicate::Snapshot(Snapshot {
            size: draft.statements.len() as u64,
            state: tree.root(),
        }),
    };
    draft.statements.push((snapshot, 90));
    let proofs = asked.iter().map(|key| {
        let record = state.get(*key).map(Vec::as_slice);
        ((*key).to_owned(), tree.prove(key, record))
    });
    draft.proofs = Some(proofs.collect());
    draft
}

/// The last of each that the honest file shows, and the next.
const ASKED: [&str; 6] = [
    "root/1",
    "root/2",
    "change/aa/1",
    "change/aa/2",
    "change/bb/1",
    "change/bb/2",
];

/// `bb` is suspended after it published, which the file does not show.
fn suspended() -> Draft {
    let mut draft = Draft::honest();
    let (enrolment, seed) = enrolment("bb", 20);
    let enrolled = enrolment.sign(&key(seed));
    let suspension = Statement {
        head: head(Some("bb"), at(30), Some((&enrolment.head, &enrolled))),
        predicate: Predicate::Agency(Action::Suspend(Reason::default()).proposed()),
    };
    draft.hidden = vec![draft.statements.len() as u64];
    draft.statements.push((suspension, 1));
    draft
}

#[test]
fn a_snapshot_shows_that_nothing_is_left_out() {
    let report = with_snapshot(Draft::honest(), &ASKED).verify().unwrap();
    let settled = report.settled.unwrap();
    assert_eq!((settled.index, settled.time), (4, at(40)));
    // Without one the file is as valid, and shows less.
    assert_eq!(Draft::honest().verify().unwrap().settled, None);
}

#[test]
fn a_suspension_cannot_be_left_out() {
    let draft = with_snapshot(suspended(), &ASKED);
    draft.refused("leaves out what happened before entry 5: change/bb/2");
    // Nor may the asker ask the snapshot for something else, or for less.
    let mut other = ASKED;
    other[5] = "change/bb/3";
    with_snapshot(suspended(), &other).refused("not about the root and the agencies");
    with_snapshot(suspended(), &ASKED[..5]).refused("not about the root and the agencies");
    with_snapshot(suspended(), &ASKED[1..]).refused("not about the root and the agencies");
    // The proof of another key, or of another state, is none.
    let mut swapped = with_snapshot(suspended(), &other);
    let proofs = swapped.proofs.as_mut().unwrap();
    let proof = proofs.remove("change/bb/3").unwrap();
    proofs.insert("change/bb/2".to_owned(), proof);
    swapped.refused("is not in the snapshot");
    let mut earlier = with_snapshot(suspended(), &ASKED);
    earlier.proofs = with_snapshot(Draft::honest(), &ASKED).proofs;
    earlier.refused("is not in the snapshot");
}

#[test]
fn proofs_belong_to_a_snapshot_that_the_file_shows() {
    let mut draft = with_snapshot(Draft::honest(), &ASKED);
    draft.hidden = vec![4];
    draft.refused("belongs to no snapshot");
    let mut draft = with_snapshot(Draft::honest(), &ASKED);
    draft.statements[4].1 = 20;
    draft.refused("must sign it");
}

#[test]
fn what_the_file_shows_is_what_the_snapshot_knows() {
    // A registry whose state says that another entry has enrolled `bb`.
    let draft = Draft::honest();
    let mut state = fold(&draft.statements);
    state.insert("change/bb/1".to_owned(), b"1".to_vec());
    with_snapshot_of(draft, &state, &ASKED).refused("knows another change/bb/1");
    // One that has lost the enrolment.
    let draft = Draft::honest();
    let mut state = fold(&draft.statements);
    state.remove("change/bb/1");
    with_snapshot_of(draft, &state, &ASKED).refused("knows another change/bb/1");
}
