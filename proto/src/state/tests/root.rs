//! Who may change the root, and into what.

use super::*;
use crate::statement::{Continues, Witness};

fn next(world: &World, change: impl FnOnce(&mut Root)) -> Statement {
    let current: RootRecord = record(&world.state["root"]).unwrap();
    let mut root = Root {
        version: 2,
        keys: vec![key(3).public().clone(), key(4).public().clone()],
        threshold: 2,
        registry: current.registry,
        witnesses: vec![],
        quorum: 0,
        rules: 1,
        recovery_delay: 600,
        continues: None,
        consents: vec![],
    };
    change(&mut root);
    Statement {
        head: head(None, Some(current.chain)),
        predicate: Predicate::Root(root),
    }
}

/// `statement` with these signers; the last one signs the envelope.
fn by(statement: &Statement, seeds: &[u8]) -> Envelope {
    let keys: Vec<SecretKey> = seeds.iter().map(|seed| key(*seed)).collect();
    let (outer, others) = keys.split_last().unwrap();
    signed(statement, &others.iter().collect::<Vec<_>>(), outer)
}

#[test]
fn the_root_changes_by_old_and_new_keys() {
    // Two of the old keys 1, 2, 3 and both of the new keys 3, 4, whoever signs last.
    let world = World::new();
    let proposal = next(&world, |_| {});
    for (signers, fine) in [
        (&[1, 3, 4][..], true),
        (&[3, 4, 1], true),
        (&[1, 4, 3], true),
        (&[1, 2, 3, 4], true),
        (&[1, 2, 4, 3], true),
        (&[1, 3], false),    // one of the new
        (&[3, 4], false),    // one of the old
        (&[1, 2], false),    // none of the new
        (&[1, 2, 4], false), // one of the new
        (&[1, 4, 4], false), // one key twice
        (&[3, 4, 1, 99], false),
    ] {
        match world.try_apply(&by(&proposal, signers)) {
            Ok(_) => assert!(fine, "{signers:?}"),
            Err(rejection) => {
                assert!(!fine, "{signers:?}: {rejection}");
                assert_eq!(rejection.blame, Blame::Unauthorised, "{signers:?}");
            }
        }
    }
}

#[test]
fn what_a_new_root_may_change() {
    let world = World::with_france();
    type Change = fn(&mut Root);
    let fine: [(&str, Change); 5] = [
        ("log key", |root| {
            root.registry.log = key(70).public().clone()
        }),
        ("TLS key", |root| root.registry.tls = key(71).public().id()),
        ("delay", |root| root.recovery_delay = 60),
        ("witness", |root| {
            root.quorum = 1;
            root.witnesses = vec![Witness {
                name: "w".into(),
                key: key(72).public().clone(),
            }];
        }),
        ("another log that goes on from this one", |root| {
            root.continues = Some(Continues {
                origin: root.registry.origin.clone(),
                size: 4,
                root: Digest::of(b"root"),
            });
            root.registry.origin = "jingwei/test-0123456789abcdef/registry/2".into();
        }),
    ];
    for (what, change) in fine {
        let result = world.try_apply(&by(&next(&world, change), &[1, 4, 3]));
        assert!(result.is_ok(), "{what}: {result:?}");
    }
    let wrong: [(&str, Blame, Change); 8] = [
        (
            "an agency's key as the log's",
            Blame::Inconsistent,
            |root| {
                root.registry.log = key(10).public().clone();
            },
        ),
        (
            "an agency's key as a root key",
            Blame::Inconsistent,
            |root| {
                root.keys.push(key(11).public().clone());
            },
        ),
        (
            "an agency's key as a witness's",
            Blame::Inconsistent,
            |root| {
                root.witnesses = vec![Witness {
                    name: "w".into(),
                    key: key(12).public().clone(),
                }];
            },
        ),
        (
            "a former root key as the cosigner's",
            Blame::Inconsistent,
            |root| {
                root.registry.cosigner = key(1).public().clone();
            },
        ),
        ("another log without a word", Blame::Inconsistent, |root| {
            root.registry.origin = "jingwei/test-0123456789abcdef/registry/2".into();
        }),
        (
            "a log that drops the last entry",
            Blame::Inconsistent,
            |root| {
                root.continues = Some(Continues {
                    origin: root.registry.origin.clone(),
                    size: 3,
                    root: Digest::of(b"root"),
                });
                root.registry.origin = "jingwei/test-0123456789abcdef/registry/2".into();
            },
        ),
        (
            "a log that goes on from a third",
            Blame::Inconsistent,
            |root| {
                root.continues = Some(Continues {
                    origin: "elsewhere".into(),
                    size: 4,
                    root: Digest::of(b"root"),
                });
            },
        ),
        ("older rules", Blame::Inconsistent, |root| root.rules = 0),
    ];
    for (what, blame, change) in wrong {
        let envelope = by(&next(&world, change), &[1, 4, 3]);
        assert_eq!(world.blame(&envelope), blame, "{what}");
    }
}

#[test]
fn only_a_root_that_counts_asks_for_newer_rules() {
    let mut world = World::new();
    let future = next(&world, |root| root.rules = 99);
    assert_eq!(world.blame(&by(&future, &[1, 3])), Blame::Unauthorised);
    assert_eq!(world.blame(&by(&future, &[4, 3])), Blame::Unauthorised);
    let result = apply(&world.state, 1, &by(&future, &[1, 4, 3]));
    assert!(
        matches!(result, Err(ApplyError::RulesTooNew(99))),
        "{result:?}"
    );
    // An agency cannot ask for anything, and the state stays as it was.
    world.admit(&by(&next(&world, |_| {}), &[1, 4, 3]));
    assert!(world.state.contains_key("root/1") && world.state.contains_key("root/2"));
}

#[test]
fn a_former_root_key_has_no_say() {
    let mut world = World::new();
    world.admit(&by(&next(&world, |_| {}), &[1, 4, 3]));
    let fr = enrolment("fr", 1, &["FR"], 10);
    let consented = |signers: &[u8]| {
        let mut all = vec![10];
        all.extend(signers);
        by(&fr, &all)
    };
    assert_eq!(world.blame(&consented(&[1, 2])), Blame::Unauthorised);
    assert_eq!(world.blame(&consented(&[1, 3])), Blame::Unauthorised);
    assert!(world.try_apply(&consented(&[3, 4])).is_ok());
    // Nor can it become an agency's.
    let again = enrolment("fr", 1, &["FR"], 1);
    let envelope = signed(&again, &[&key(1), &key(3)], &key(4));
    assert_eq!(world.blame(&envelope), Blame::Inconsistent);
}
