//! Who may change, suspend and end an agency and replace its key, and who may not.
//!
//! `fr` holds key 10, `fr.bre` 11, `fr.bre.35` 12, `fr.nor` 13; two of the root keys 1, 2, 3
//! stand above `fr`. A deed names who signs: the last one the envelope, the others as consents.

use super::*;
use crate::statement::{Attributes, NewKey, Reason, Snapshot, Successor};

/// What is done, to whom, and by whose keys.
#[derive(Clone)]
pub(super) struct Deed {
    action: Action,
    id: &'static str,
    by: Vec<u8>,
}

pub(super) fn deed(action: Action, id: &'static str, by: &[u8]) -> Deed {
    Deed {
        action,
        id,
        by: by.to_vec(),
    }
}

fn rotate(seed: u8) -> Action {
    Action::Rotate(new_key(seed))
}

fn recover(seed: u8) -> Action {
    Action::Recover(new_key(seed))
}

fn new_key(seed: u8) -> NewKey {
    NewKey {
        key: key(seed).public().clone(),
    }
}

fn contest() -> Action {
    Action::Contest(Reason::default())
}

fn suspend() -> Action {
    Action::Suspend(Reason::default())
}

fn resume() -> Action {
    Action::Resume(Reason::default())
}

fn revoke() -> Action {
    Action::Revoke(Reason::default())
}

fn successor(id: &str) -> Action {
    Action::Successor(Successor {
        successor: agency(id),
        reason: None,
    })
}

pub(super) fn update(level: u64, chain: &[&str]) -> Action {
    Action::Update(Attributes {
        name: "renamed".into(),
        level,
        territory: territory(chain),
        roles: vec![],
    })
}

fn standards(level: u64, chain: &[&str]) -> Action {
    match update(level, chain) {
        Action::Update(attributes) => Action::Update(Attributes {
            roles: vec![Role::Standards],
            ..attributes
        }),
        other => other,
    }
}

impl World {
    pub(super) fn with_normandy() -> World {
        let mut world = World::with_france();
        let nor = enrolment("fr.nor", 2, &["28", "FR"], 13);
        world.admit(&signed(&nor, &[&key(13)], &key(10)));
        world
    }

    fn agency(&self, id: &str) -> AgencyRecord {
        record(&self.state[&keys::agency(&agency(id))]).unwrap()
    }

    pub(super) fn envelope(&self, deed: &Deed) -> Envelope {
        let record = self.state.get(&keys::agency(&agency(deed.id)));
        let chain = record
            .and_then(|bytes| record_of(bytes))
            .map(|known| known.chain);
        let statement = Statement {
            head: head(Some(deed.id), chain),
            predicate: Predicate::Agency(deed.action.clone().proposed()),
        };
        let keys: Vec<SecretKey> = deed.by.iter().map(|seed| key(*seed)).collect();
        let (outer, others) = keys.split_last().unwrap();
        signed(&statement, &others.iter().collect::<Vec<_>>(), outer)
    }

    pub(super) fn does(&mut self, deed: &Deed) {
        let envelope = self.envelope(deed);
        self.admit(&envelope);
    }

    /// A snapshot `seconds` after the statements of these tests.
    fn snapshot(&self, seconds: i64) -> Envelope {
        let last: Option<TimeRecord> = self.state.get(keys::TIME).and_then(|bytes| record(bytes));
        let mut head = head(None, last.map(|last| last.chain));
        head.time = head.time.plus(seconds);
        Statement {
            head,
            predicate: Predicate::Snapshot(Snapshot {
                size: self.size,
                state: Digest::of(b"state"),
            }),
        }
        .sign(&key(90))
    }

    fn time_goes_on(&mut self, seconds: i64) {
        let snapshot = self.snapshot(seconds);
        self.admit(&snapshot);
    }
}

fn record_of(bytes: &[u8]) -> Option<AgencyRecord> {
    record(bytes)
}

/// What goes before, the deed, and what becomes of it.
type Case = (&'static str, Vec<Deed>, Deed, Result<(), Blame>);

fn check(cases: Vec<Case>) {
    for (what, before, deed, expected) in cases {
        let mut world = World::with_normandy();
        for earlier in &before {
            world.does(earlier);
        }
        let result = world.try_apply(&world.envelope(&deed)).map(|_| ());
        let blame = result.as_ref().map_err(|rejection| rejection.blame);
        assert_eq!(blame.copied(), expected, "{what}: {result:?}");
    }
}

const NO: Result<(), Blame> = Err(Blame::Unauthorised);
const WRONG: Result<(), Blame> = Err(Blame::Inconsistent);

#[test]
fn who_may_rotate_a_key() {
    let deed = |by: &[u8]| deed(rotate(20), "fr.bre", by);
    let suspended = vec![super::lifecycle::deed(suspend(), "fr.bre", &[10])];
    let revoked = vec![super::lifecycle::deed(revoke(), "fr.bre", &[10])];
    let rotated = vec![super::lifecycle::deed(rotate(21), "fr.bre", &[21, 11])];
    check(vec![
        (
            "the old key, with the new one's consent",
            vec![],
            deed(&[20, 11]),
            Ok(()),
        ),
        (
            "without proof that somebody holds the new key",
            vec![],
            deed(&[11]),
            NO,
        ),
        ("the new key alone", vec![], deed(&[20]), NO),
        (
            "the new key with the old one's consent",
            vec![],
            deed(&[11, 20]),
            NO,
        ),
        ("the superior", vec![], deed(&[20, 10]), NO),
        ("a subordinate", vec![], deed(&[20, 12]), NO),
        ("the root", vec![], deed(&[20, 1, 2]), NO),
        ("while suspended", suspended, deed(&[20, 11]), NO),
        ("after the end", revoked, deed(&[20, 11]), NO),
        ("a former key", rotated.clone(), deed(&[20, 11]), NO),
        (
            "the key in force after a rotation",
            rotated,
            deed(&[20, 21]),
            Ok(()),
        ),
    ]);
}

#[test]
fn a_key_is_used_once() {
    let taken = [
        ("its own", 11),
        ("another agency's", 12),
        ("a root key", 3),
        ("the log's", 90),
        ("the cosigner's", 91),
    ];
    for (what, seed) in taken {
        for action in [rotate(seed), recover(seed)] {
            let by = match action {
                Action::Rotate(_) => [seed, 11],
                _ => [seed, 10],
            };
            check(vec![(what, vec![], deed(action, "fr.bre", &by), WRONG)]);
        }
    }
    let rotated = deed(rotate(20), "fr.bre", &[20, 11]);
    let back = deed(rotate(11), "fr.bre", &[11, 20]);
    check(vec![(
        "back to a former key",
        vec![rotated.clone()],
        back,
        WRONG,
    )]);
    let of_another = deed(rotate(11), "fr.nor", &[11, 13]);
    check(vec![(
        "another's former key",
        vec![rotated],
        of_another,
        WRONG,
    )]);
    // A key that a recovery would have led to is used up as well.
    let recovery = deed(recover(20), "fr.bre", &[20, 10]);
    let contested = deed(contest(), "fr.bre", &[11]);
    let later = deed(rotate(20), "fr.nor", &[20, 13]);
    check(vec![(
        "a contested one",
        vec![recovery, contested],
        later,
        WRONG,
    )]);
}

#[test]
fn journal_and_witness_keys_are_nobodys_signing_key() {
    let world = World::with_normandy();
    for taken in [10, 11, 12, 1, 90, 91] {
        let mut statement = node("fr.bre", None, &[50]);
        if let Predicate::Node(node) = &mut statement.predicate {
            node.journal = key(taken).public().clone();
        }
        assert!(
            world.try_apply(&statement.sign(&key(11))).is_err(),
            "{taken}"
        );
    }
    assert!(
        world
            .try_apply(&node("fr.bre", None, &[50]).sign(&key(11)))
            .is_ok()
    );
}

#[test]
fn who_may_recover_a_key_and_who_may_contest_it() {
    let recovery = |by: &[u8]| deed(recover(20), "fr.bre", by);
    let contested = |by: &[u8]| deed(contest(), "fr.bre", by);
    let pending = vec![recovery(&[20, 10])];
    let suspended = vec![recovery(&[20, 10]), deed(suspend(), "fr.bre", &[10])];
    let revoked = vec![recovery(&[20, 10]), deed(revoke(), "fr.bre", &[10])];
    let rotated = vec![recovery(&[20, 10]), deed(rotate(21), "fr.bre", &[21, 11])];
    check(vec![
        (
            "the superior, with the new key's consent",
            vec![],
            recovery(&[20, 10]),
            Ok(()),
        ),
        (
            "without proof that somebody holds the new key",
            vec![],
            recovery(&[10]),
            NO,
        ),
        ("the agency itself", vec![], recovery(&[20, 11]), NO),
        (
            "the root, past the superior",
            vec![],
            recovery(&[20, 1, 2]),
            NO,
        ),
        ("a neighbour", vec![], recovery(&[20, 13]), NO),
        (
            "while suspended",
            vec![deed(suspend(), "fr.bre", &[10])],
            recovery(&[20, 10]),
            Ok(()),
        ),
        (
            "after the end",
            vec![deed(revoke(), "fr.bre", &[10])],
            recovery(&[20, 10]),
            WRONG,
        ),
        (
            "again, with another key",
            pending.clone(),
            deed(recover(22), "fr.bre", &[22, 10]),
            Ok(()),
        ),
        (
            "of a national agency by the root",
            vec![],
            deed(recover(20), "fr", &[20, 1, 2]),
            Ok(()),
        ),
        (
            "by one root key of two",
            vec![],
            deed(recover(20), "fr", &[20, 1]),
            NO,
        ),
        (
            "the old key contests",
            pending.clone(),
            contested(&[11]),
            Ok(()),
        ),
        (
            "the new key contests",
            pending.clone(),
            contested(&[20]),
            NO,
        ),
        (
            "the superior contests",
            pending.clone(),
            contested(&[10]),
            NO,
        ),
        (
            "the old key contests, suspended",
            suspended,
            contested(&[11]),
            Ok(()),
        ),
        ("nothing is pending", vec![], contested(&[11]), WRONG),
        ("the end has cancelled it", revoked, contested(&[11]), WRONG),
        (
            "a rotation has cancelled it",
            rotated,
            contested(&[21]),
            WRONG,
        ),
        (
            "the old key still signs meanwhile",
            pending,
            deed(rotate(22), "fr.bre", &[22, 11]),
            Ok(()),
        ),
    ]);
}

#[test]
fn a_recovery_takes_effect_after_the_delay() {
    let mut world = World::with_normandy();
    world.time_goes_on(10);
    world.does(&deed(recover(20), "fr.bre", &[20, 10]));
    let holds = |world: &World, seed| world.try_apply(&dataset("fr.bre", None).sign(&key(seed)));
    assert!(holds(&world, 11).is_ok() && holds(&world, 20).is_err());
    // The delay of 600 s begins with the first snapshot after the statement, however late.
    world.time_goes_on(5_000);
    let due = world.agency("fr.bre").recovery.unwrap().due.unwrap();
    assert_eq!(due.seconds(), 1_700_000_000 + 5_600);
    world.time_goes_on(5_599);
    assert!(holds(&world, 11).is_ok() && holds(&world, 20).is_err());
    world.time_goes_on(5_600);
    assert!(holds(&world, 11).is_err() && holds(&world, 20).is_ok());
    let record = world.agency("fr.bre");
    assert_eq!((record.recovery, record.changes), (None, 4));
    assert!(!world.state.contains_key(keys::RECOVERIES));
    // The old key objects too late.
    let late = world.envelope(&deed(contest(), "fr.bre", &[11]));
    assert_eq!(world.blame(&late), Blame::Unauthorised);
    // What the old key signed stays in the log; what it signs now does not come in.
    let changes: Vec<u64> = (1..=4)
        .map(|n| record_u64(&world.state[&keys::change(&agency("fr.bre"), n)]))
        .collect();
    assert_eq!(changes, [2, 6, 7, 9]);
}

fn record_u64(bytes: &[u8]) -> u64 {
    record(bytes).unwrap()
}

#[test]
fn a_contested_recovery_never_takes_effect() {
    for cancel in [
        deed(contest(), "fr.bre", &[11]),
        deed(rotate(21), "fr.bre", &[21, 11]),
    ] {
        let mut world = World::with_normandy();
        world.does(&deed(recover(20), "fr.bre", &[20, 10]));
        world.does(&deed(recover(22), "fr.nor", &[22, 10]));
        world.time_goes_on(1);
        world.does(&cancel);
        world.time_goes_on(10_000);
        assert_ne!(world.agency("fr.bre").key, *key(20).public());
        // The other one is not held up.
        assert_eq!(world.agency("fr.nor").key, *key(22).public());
    }
}

#[test]
fn only_the_registry_tells_the_time_and_only_forwards() {
    let mut world = World::with_normandy();
    world.time_goes_on(10);
    assert_eq!(world.blame(&world.snapshot(10)), Blame::Stale);
    assert_eq!(world.blame(&world.snapshot(9)), Blame::Stale);
    let statement = Statement::parse(world.snapshot(11).payload()).unwrap();
    for seed in [1, 10, 91] {
        assert_eq!(
            world.blame(&statement.sign(&key(seed))),
            Blame::Unauthorised
        );
    }
    assert!(world.try_apply(&statement.sign(&key(90))).is_ok());
    let mut elsewhere = statement.clone();
    if let Predicate::Snapshot(snapshot) = &mut elsewhere.predicate {
        snapshot.size -= 1;
    }
    assert_eq!(world.blame(&elsewhere.sign(&key(90))), Blame::Stale);
    let mut of_an_agency = statement;
    of_an_agency.head.agency = Some(agency("fr"));
    assert_eq!(world.blame(&of_an_agency.sign(&key(90))), Blame::Malformed);
}

#[test]
fn who_may_update_and_within_what() {
    let deed = |action: Action, by: &[u8]| super::lifecycle::deed(action, "fr.bre", by);
    check(vec![
        (
            "the superior",
            vec![],
            deed(update(2, &["53", "FR"]), &[10]),
            Ok(()),
        ),
        (
            "a lower level",
            vec![],
            deed(update(3, &["53", "FR"]), &[10]),
            Ok(()),
        ),
        (
            "the agency itself",
            vec![],
            deed(update(2, &["53", "FR"]), &[11]),
            NO,
        ),
        (
            "the root, past the superior",
            vec![],
            deed(update(2, &["53", "FR"]), &[1, 2]),
            NO,
        ),
        (
            "a neighbour",
            vec![],
            deed(update(2, &["53", "FR"]), &[13]),
            NO,
        ),
        (
            "land of another",
            vec![],
            deed(update(2, &["11", "DE"]), &[10]),
            NO,
        ),
        (
            "a role that only the root grants",
            vec![],
            deed(standards(2, &["53", "FR"]), &[10]),
            NO,
        ),
        (
            "the standards role, by the root",
            vec![],
            super::lifecycle::deed(standards(1, &["FR"]), "fr", &[1, 2]),
            Ok(()),
        ),
        (
            "a national agency below level 1",
            vec![],
            super::lifecycle::deed(update(2, &["FR"]), "fr", &[1, 2]),
            NO,
        ),
        (
            "one above its superior",
            vec![],
            super::lifecycle::deed(update(1, &["35", "53"]), "fr.bre.35", &[11]),
            NO,
        ),
        (
            "after the end",
            vec![deed(revoke(), &[10])],
            deed(update(2, &["53", "FR"]), &[10]),
            WRONG,
        ),
    ]);
    let mut world = World::with_normandy();
    let other_edition = match update(2, &["53", "FR"]) {
        Action::Update(mut attributes) => {
            attributes.territory.edition = "2025".into();
            Action::Update(attributes)
        }
        other => other,
    };
    let envelope = world.envelope(&deed(other_edition, &[10]));
    assert_eq!(world.blame(&envelope), Blame::Unauthorised);
    world.does(&deed(update(2, &["53", "FR"]), &[10]));
    assert_eq!(world.agency("fr.bre").name, "renamed");
}

#[test]
fn who_may_suspend_resume_revoke_and_name_a_successor() {
    let on = |action: Action, by: &[u8]| deed(action, "fr.bre", by);
    type Kind = fn() -> Action;
    let all: [(Kind, Vec<Deed>); 4] = [
        (suspend, vec![]),
        (resume, vec![on(suspend(), &[10])]),
        (revoke, vec![]),
        (|| successor("fr.nor"), vec![]),
    ];
    for (action, before) in all {
        check(vec![
            ("the superior", before.clone(), on(action(), &[10]), Ok(())),
            ("the agency itself", before.clone(), on(action(), &[11]), NO),
            ("a subordinate", before.clone(), on(action(), &[12]), NO),
            ("a neighbour", before.clone(), on(action(), &[13]), NO),
            (
                "the root, past the superior",
                before,
                on(action(), &[1, 2]),
                NO,
            ),
        ]);
    }
    let revoked = vec![on(revoke(), &[10])];
    let succeeded = vec![on(successor("fr.nor"), &[10])];
    check(vec![
        (
            "suspended twice",
            vec![on(suspend(), &[10])],
            on(suspend(), &[10]),
            WRONG,
        ),
        ("resumed without need", vec![], on(resume(), &[10]), WRONG),
        (
            "resumed after the end",
            revoked.clone(),
            on(resume(), &[10]),
            WRONG,
        ),
        ("revoked twice", revoked.clone(), on(revoke(), &[10]), WRONG),
        (
            "a successor named later",
            revoked.clone(),
            on(successor("fr.nor"), &[10]),
            Ok(()),
        ),
        (
            "two successors",
            succeeded.clone(),
            on(successor("fr"), &[10]),
            WRONG,
        ),
        (
            "itself as its successor",
            vec![],
            on(successor("fr.bre"), &[10]),
            WRONG,
        ),
        (
            "nobody as its successor",
            vec![],
            on(successor("fr.pdl"), &[10]),
            WRONG,
        ),
        (
            "an ended one as a successor",
            succeeded,
            deed(successor("fr.bre"), "fr.nor", &[10]),
            WRONG,
        ),
        (
            "a national one by the root",
            vec![],
            deed(suspend(), "fr", &[1, 2]),
            Ok(()),
        ),
        (
            "a national one by one root key",
            vec![],
            deed(suspend(), "fr", &[1]),
            NO,
        ),
        (
            "one that is not there",
            vec![],
            deed(suspend(), "fr.pdl", &[10]),
            NO,
        ),
    ]);
    // An id is given once, also after its end.
    let mut world = World::with_normandy();
    world.does(&revoked[0]);
    let again = enrolment("fr.bre", 2, &["53", "FR"], 30);
    let envelope = signed(&again, &[&key(30)], &key(10));
    assert_eq!(world.blame(&envelope), Blame::Inconsistent);
}

#[test]
fn who_cannot_act_enters_nothing_and_its_children_go_on() {
    for stop in [suspend(), revoke(), successor("fr.nor")] {
        let mut world = World::with_normandy();
        world.admit(&dataset("fr.bre", None).sign(&key(11)));
        let chain = world.chain("dataset/fr.bre/communes");
        world.does(&deed(stop, "fr.bre", &[10]));
        let statements = [dataset("fr.bre", chain), node("fr.bre", None, &[50])];
        for statement in &statements {
            assert_eq!(world.blame(&statement.sign(&key(11))), Blame::Unauthorised);
        }
        let child = enrolment("fr.bre.29", 3, &["29", "53"], 20);
        let envelope = signed(&child, &[&key(20)], &key(11));
        assert_eq!(world.blame(&envelope), Blame::Unauthorised);
        // The agency below it publishes as before.
        assert!(
            world
                .try_apply(&dataset("fr.bre.35", None).sign(&key(12)))
                .is_ok()
        );
    }
    let mut world = World::with_normandy();
    world.does(&deed(suspend(), "fr.bre", &[10]));
    world.does(&deed(resume(), "fr.bre", &[10]));
    assert!(
        world
            .try_apply(&dataset("fr.bre", None).sign(&key(11)))
            .is_ok()
    );
}

#[test]
fn who_stands_in_for_a_superior_that_cannot_act() {
    let child = |by: &[u8]| deed(suspend(), "fr.bre.35", by);
    let stopped = |action: Action| vec![deed(action, "fr.bre", &[10])];
    let no_france = vec![
        deed(suspend(), "fr.bre", &[10]),
        deed(suspend(), "fr", &[1, 2]),
    ];
    let heir_gone = vec![
        deed(successor("fr.nor"), "fr.bre", &[10]),
        deed(suspend(), "fr.nor", &[10]),
    ];
    let heir_of_heir = vec![
        deed(successor("fr.nor"), "fr.bre", &[10]),
        deed(successor("fr"), "fr.nor", &[10]),
    ];
    let own_child = vec![deed(successor("fr.bre.35"), "fr.bre", &[10])];
    check(vec![
        (
            "suspended: the one above",
            stopped(suspend()),
            child(&[10]),
            Ok(()),
        ),
        (
            "suspended: not itself",
            stopped(suspend()),
            child(&[11]),
            NO,
        ),
        (
            "ended: the one above",
            stopped(revoke()),
            child(&[10]),
            Ok(()),
        ),
        (
            "succeeded: the successor",
            stopped(successor("fr.nor")),
            child(&[13]),
            Ok(()),
        ),
        (
            "succeeded: not the one above",
            stopped(successor("fr.nor")),
            child(&[10]),
            NO,
        ),
        (
            "successor suspended: the one above",
            heir_gone,
            child(&[10]),
            Ok(()),
        ),
        (
            "successor of the successor",
            heir_of_heir,
            child(&[10]),
            Ok(()),
        ),
        ("none above: the root", no_france, child(&[1, 2]), Ok(())),
        (
            "nobody is its own authority",
            own_child.clone(),
            child(&[12]),
            NO,
        ),
        ("but the one above is", own_child, child(&[10]), Ok(())),
    ]);
}

#[test]
fn an_unreadable_record_is_no_absent_one() {
    let mut world = World::with_normandy();
    world.state.insert("agency/fr.bre".into(), b"{}".to_vec());
    let result = apply(
        &world.state,
        world.size,
        &dataset("fr.bre", None).sign(&key(11)),
    );
    assert!(matches!(result, Err(ApplyError::Unreadable(key)) if key == "agency/fr.bre"));
}
