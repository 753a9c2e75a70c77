//! Who may enter what, and who may not.

use std::collections::BTreeMap;

use super::*;
use crate::digest::Digest;
use crate::key::{SecretKey, Signer};
use crate::statement::{DatasetFile, RegistryKeys, Sharing, Territory};
use crate::time::Time;

mod authority;
mod lifecycle;
mod root;

type State = BTreeMap<String, Vec<u8>>;

/// A federation in memory: three root keys of which two must sign, and a log of one state.
struct World {
    state: State,
    size: u64,
    roots: Vec<SecretKey>,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn agency(id: &str) -> AgencyId {
    id.parse().unwrap()
}

fn head(id: Option<&str>, chain: Option<Chain>) -> Head {
    Head {
        federation: "test-0123456789abcdef".parse().unwrap(),
        agency: id.map(agency),
        time: Time::from_seconds(1_700_000_000).unwrap(),
        sequence: chain.map_or(1, |chain| chain.sequence + 1),
        previous: chain.map(|chain| chain.payload),
    }
}

fn territory(chain: &[&str]) -> Territory {
    Territory {
        list: "insee".into(),
        edition: "2024".into(),
        chains: vec![chain.iter().map(|code| (*code).to_owned()).collect()],
    }
}

fn enrolment(id: &str, level: u64, chain: &[&str], seed: u8) -> Statement {
    Statement {
        head: head(Some(id), None),
        predicate: Predicate::Agency(
            Action::Enrol(Enrolment {
                name: id.to_owned(),
                level,
                territory: territory(chain),
                roles: vec![],
                key: key(seed).public().clone(),
            })
            .proposed(),
        ),
    }
}

fn dataset(id: &str, chain: Option<Chain>) -> Statement {
    let digest = Digest::of(b"file");
    Statement {
        head: head(Some(id), chain),
        predicate: Predicate::Dataset(Box::new(Dataset {
            name: "communes".parse().unwrap(),
            sharing: Sharing::Public,
            title: None,
            description: None,
            schema: Some("{}".into()),
            rows: Some(1),
            files: vec![DatasetFile {
                name: format!("{digest}.parquet"),
                digest,
                bytes: 4,
            }],
            source: None,
            commitment: None,
        })),
    }
}

fn node(id: &str, chain: Option<Chain>, tls: &[u8]) -> Statement {
    Statement {
        head: head(Some(id), chain),
        predicate: Predicate::Node(Node {
            address: "127.0.0.1:7001".into(),
            tls: tls.iter().map(|seed| key(*seed).public().id()).collect(),
            journal: key(80).public().clone(),
            witness: key(81).public().clone(),
        }),
    }
}

fn grant_standards(statement: &mut Statement) {
    if let Predicate::Agency(agency) = &mut statement.predicate
        && let Action::Enrol(enrolment) = &mut agency.action
    {
        enrolment.roles = vec![Role::Standards];
    }
}

/// `proposal` with the consents of `consents`, signed by `signer`.
fn signed(proposal: &Statement, consents: &[&SecretKey], signer: &SecretKey) -> Envelope {
    let consents = consents.iter().map(|key| proposal.sign(*key)).collect();
    proposal.with_consents(consents).sign(signer)
}

impl World {
    fn new() -> World {
        let roots: Vec<SecretKey> = (1..=3).map(key).collect();
        let proposal = Statement {
            head: head(None, None),
            predicate: Predicate::Root(Root {
                version: 1,
                keys: roots.iter().map(|key| key.public().clone()).collect(),
                threshold: 2,
                registry: RegistryKeys {
                    origin: "jingwei/test-0123456789abcdef/registry/1".into(),
                    log: key(90).public().clone(),
                    cosigner: key(91).public().clone(),
                    tls: key(92).public().id(),
                },
                witnesses: vec![],
                quorum: 0,
                rules: 1,
                recovery_delay: 600,
                continues: None,
                consents: vec![],
            }),
        };
        let mut world = World {
            state: State::new(),
            size: 0,
            roots,
        };
        world.admit(&signed(&proposal, &[&key(2)], &key(1)));
        world
    }

    /// A world with `fr` (national), `fr.bre` (regional) and `fr.bre.35` (prefectural).
    fn with_france() -> World {
        let mut world = World::new();
        world.admit(&signed(
            &enrolment("fr", 1, &["FR"], 10),
            &[&key(10), &key(2)],
            &key(1),
        ));
        world.admit(&signed(
            &enrolment("fr.bre", 2, &["53", "FR"], 11),
            &[&key(11)],
            &key(10),
        ));
        world.admit(&signed(
            &enrolment("fr.bre.35", 3, &["35", "53"], 12),
            &[&key(12)],
            &key(11),
        ));
        world
    }

    fn try_apply(&self, envelope: &Envelope) -> Result<Change, Rejection> {
        match apply(&self.state, self.size, envelope) {
            Ok(change) => Ok(change),
            Err(ApplyError::Rejected(rejection)) => Err(rejection),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn admit(&mut self, envelope: &Envelope) {
        self.try_apply(envelope).unwrap().write_to(&mut self.state);
        self.size += 1;
    }

    fn blame(&self, envelope: &Envelope) -> Blame {
        self.try_apply(envelope).unwrap_err().blame
    }

    fn chain(&self, key: &str) -> Option<Chain> {
        record(self.state.get(key)?)
    }
}

#[test]
fn a_federation_grows() {
    let mut world = World::with_france();
    world.admit(&dataset("fr.bre.35", None).sign(&key(12)));
    let chain = world.chain("dataset/fr.bre.35/communes");
    world.admit(&dataset("fr.bre.35", chain).sign(&key(12)));
    assert_eq!(
        world.chain("dataset/fr.bre.35/communes").unwrap().sequence,
        2
    );
    assert!(world.state.contains_key("version/fr.bre.35/communes@1"));
    assert!(world.state.contains_key("version/fr.bre.35/communes@2"));
}

#[test]
fn who_may_enrol() {
    let world = World::with_france();
    let child = enrolment("fr.bre.29", 3, &["29", "53"], 20);
    let own = key(20);
    // The superior and the agency together.
    assert!(world.try_apply(&signed(&child, &[&own], &key(11))).is_ok());
    // The superior's superior, a stranger, the agency itself, a sibling.
    for signer in [10, 99, 20, 12] {
        assert_eq!(
            world.blame(&signed(&child, &[&own], &key(signer))),
            Blame::Unauthorised
        );
    }
    // Without proof of possession, or with a consent to something else.
    assert_eq!(
        world.blame(&signed(&child, &[], &key(11))),
        Blame::Unauthorised
    );
    let other = enrolment("fr.bre.29", 2, &["29", "53"], 20).sign(&own);
    assert_eq!(
        world.blame(&child.with_consents(vec![other]).sign(&key(11))),
        Blame::Inconsistent
    );
    // Below a superior that is not there.
    let orphan = enrolment("cn.stats", 2, &["1"], 21);
    assert_eq!(
        world.blame(&signed(&orphan, &[&key(21)], &key(10))),
        Blame::Unauthorised
    );
}

#[test]
fn a_national_agency_needs_the_threshold_of_root_keys() {
    let world = World::new();
    let fr = enrolment("fr", 1, &["FR"], 10);
    assert!(
        world
            .try_apply(&signed(&fr, &[&key(10), &world.roots[2]], &key(2)))
            .is_ok()
    );
    assert_eq!(
        world.blame(&signed(&fr, &[&key(10)], &key(1))),
        Blame::Unauthorised
    );
    assert_eq!(
        world.blame(&signed(&fr, &[&key(10), &key(1)], &key(1))),
        Blame::Unauthorised
    );
    assert_eq!(
        world.blame(&signed(&fr, &[&key(1), &key(2)], &key(10))),
        Blame::Unauthorised
    );
}

#[test]
fn a_child_stays_within_its_superior() {
    let world = World::with_france();
    let enrol = |statement: Statement| signed(&statement, &[&key(20)], &key(11));
    let blame = |statement| world.blame(&enrol(statement));
    assert_eq!(
        blame(enrolment("fr.bre.29", 1, &["29", "53"], 20)),
        Blame::Unauthorised
    );
    assert_eq!(
        blame(enrolment("fr.bre.44", 3, &["44", "52"], 20)),
        Blame::Unauthorised
    );
    let mut with_role = enrolment("fr.bre.29", 3, &["29", "53"], 20);
    grant_standards(&mut with_role);
    assert_eq!(blame(with_role), Blame::Unauthorised);
}

#[test]
fn ids_and_keys_are_given_once() {
    let world = World::with_france();
    let again = enrolment("fr.bre", 2, &["53", "FR"], 30);
    assert_eq!(
        world.blame(&signed(&again, &[&key(30)], &key(10))),
        Blame::Inconsistent
    );
    let shared_key = enrolment("fr.nor", 2, &["28", "FR"], 11);
    assert_eq!(
        world.blame(&signed(&shared_key, &[&key(11)], &key(10))),
        Blame::Inconsistent
    );
    let root_key = enrolment("fr.nor", 2, &["28", "FR"], 1);
    assert_eq!(
        world.blame(&signed(&root_key, &[&key(1)], &key(10))),
        Blame::Inconsistent
    );
}

#[test]
fn only_the_agency_publishes_and_in_order() {
    let mut world = World::with_france();
    let first = dataset("fr.bre.35", None);
    assert_eq!(world.blame(&first.sign(&key(11))), Blame::Unauthorised);
    assert_eq!(
        world.blame(&dataset("fr.nor", None).sign(&key(12))),
        Blame::Unauthorised
    );
    let wrong_chain = Chain {
        sequence: 1,
        payload: Digest::of(b"?"),
        index: 0,
    };
    assert_eq!(
        world.blame(&dataset("fr.bre.35", Some(wrong_chain)).sign(&key(12))),
        Blame::Stale
    );
    world.admit(&first.sign(&key(12)));
    // A replay, and a second first version.
    assert_eq!(world.blame(&first.sign(&key(12))), Blame::Stale);
}

#[test]
fn a_broken_signature_is_a_forgery() {
    let world = World::with_france();
    let bytes = dataset("fr.bre.35", None).sign(&key(12)).to_bytes();
    let stranger = dataset("fr.bre.35", None).sign(&key(13));
    // The right key id over the wrong key's signature.
    let text = String::from_utf8(stranger.to_bytes()).unwrap();
    let forged = text.replace(
        &stranger.key().to_string(),
        &key(12).public().id().to_string(),
    );
    assert_ne!(forged.as_bytes(), bytes);
    assert_eq!(
        world.blame(&Envelope::parse(forged.as_bytes()).unwrap()),
        Blame::Forged
    );
}

#[test]
fn schemas_need_the_standards_role() {
    let mut world = World::with_france();
    let schema = |id: &str| Statement {
        head: head(Some(id), None),
        predicate: Predicate::Schema(Schema {
            name: "weather_day".parse().unwrap(),
            schema: "{}".into(),
        }),
    };
    assert_eq!(
        world.blame(&schema("fr").sign(&key(10))),
        Blame::Unauthorised
    );
    let mut std_body = enrolment("un", 1, &["FR"], 40);
    grant_standards(&mut std_body);
    world.admit(&signed(&std_body, &[&key(40), &key(2)], &key(1)));
    world.admit(&schema("un").sign(&key(40)));
}

#[test]
fn tls_keys_follow_the_node() {
    let mut world = World::with_france();
    world.admit(&node("fr", None, &[50, 51]).sign(&key(10)));
    world.admit(&node("fr.bre", None, &[50]).sign(&key(11)));
    let users = |world: &World, seed| -> Option<Vec<AgencyId>> {
        record(world.state.get(&keys::tls(key(seed).public().id()))?)
    };
    assert_eq!(
        users(&world, 50),
        Some(vec![agency("fr"), agency("fr.bre")])
    );
    let chain = record::<NodeRecord>(&world.state["node/fr"]).unwrap().chain;
    world.admit(&node("fr", Some(chain), &[52]).sign(&key(10)));
    assert_eq!(users(&world, 50), Some(vec![agency("fr.bre")]));
    assert_eq!(users(&world, 51), None);
    assert_eq!(users(&world, 52), Some(vec![agency("fr")]));
}

#[test]
fn other_federations_and_other_statements_have_no_place() {
    let world = World::with_france();
    let mut foreign = dataset("fr", None);
    foreign.head.federation = "other-0123456789abcdef".parse().unwrap();
    assert_eq!(world.blame(&foreign.sign(&key(10))), Blame::Inconsistent);
    let empty = World {
        state: State::new(),
        size: 0,
        roots: vec![],
    };
    assert_eq!(
        empty.blame(&dataset("fr", None).sign(&key(10))),
        Blame::Inconsistent
    );
    assert_eq!(
        world.blame(&Envelope::sign(b"{}".to_vec(), &key(10))),
        Blame::Malformed
    );
}
