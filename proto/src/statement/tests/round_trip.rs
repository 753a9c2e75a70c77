//! Reading undoes writing, for random statements of every predicate type.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::id::{DatasetName, VersionId};
use crate::key::{KeyId, PublicKey};

/// Integers that JSON readers everywhere keep, small ones often.
fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![0..9u64, 0..=1u64 << 53]
}

/// Free text of at most `most` bytes, empty often.
fn text(most: usize) -> impl Strategy<Value = String> {
    let any = prop_oneof![r#"[ a-zéß中\n"\\/<>&{}]{0,12}"#, any::<String>()];
    any.prop_map(move |text| {
        let allowed = text.chars().filter(|c| !c.is_control() || *c == '\n');
        let mut lengths = 0;
        allowed
            .take_while(|c| {
                lengths += c.len_utf8();
                lengths <= most
            })
            .collect()
    })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn secret() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_map(|seed| SecretKey::from_seed(&seed))
}

fn key() -> impl Strategy<Value = PublicKey> {
    secret().prop_map(|key| key.public().clone())
}

fn key_id() -> impl Strategy<Value = KeyId> {
    key().prop_map(|key| key.id())
}

/// Keys of which no two are the same, however a failure is made smaller.
fn distinct(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<PublicKey>> {
    (any::<[u8; 32]>(), count).prop_map(|(seed, count)| {
        let keyed = |n: usize| {
            let mut seed = seed;
            seed[0] = n as u8;
            SecretKey::from_seed(&seed).public().clone()
        };
        (0..count).map(keyed).collect()
    })
}

/// Others' envelopes; what they hold is for the rules to say.
fn consents() -> impl Strategy<Value = Vec<Envelope>> {
    let envelope = (secret(), vec(any::<u8>(), 0..40))
        .prop_map(|(key, payload)| Envelope::sign(payload, &key));
    vec(envelope, 0..3)
}

fn agency() -> impl Strategy<Value = AgencyId> {
    let id = "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]{1,5}){0,3}";
    id.prop_filter_map("a reserved id", |id| id.parse().ok())
}

fn name() -> impl Strategy<Value = DatasetName> {
    "[a-z][a-z0-9_]{0,62}".prop_map(|name| name.parse().unwrap())
}

fn time() -> impl Strategy<Value = Time> {
    (0..=253_402_300_799_i64).prop_map(|seconds| Time::from_seconds(seconds).unwrap())
}

fn sharing() -> impl Strategy<Value = Sharing> {
    select(&Sharing::ALL[..])
}

fn head() -> impl Strategy<Value = Head> {
    let federation = "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?-[0-9a-f]{16}";
    let place = prop_oneof![
        Just((1, None)),
        (2..=1u64 << 53, digest()).prop_map(|(sequence, previous)| (sequence, Some(previous))),
    ];
    (federation, agency(), time(), place).prop_map(|(federation, agency, time, place)| Head {
        federation: federation.parse().unwrap(),
        agency: Some(agency),
        time,
        sequence: place.0,
        previous: place.1,
    })
}

fn root() -> impl Strategy<Value = Root> {
    let keys = (distinct(4..=9), 1..=32u64, 0..=9u64, key_id());
    let log = (
        "[a-z/]{1,9}",
        option::of(("[A-Z]{1,9}", integer(), digest())),
    );
    let numbers = (integer(), integer(), 0..=366 * 24 * 3600_u64);
    let witness = text(40);
    (keys, log, numbers, witness, consents()).prop_map(|(keys, log, numbers, witness, consents)| {
        let (mut keys, threshold, quorum, tls) = keys;
        let (log_key, cosigner) = (keys.remove(0), keys.remove(0));
        let witnesses: Vec<Witness> = keys
            .split_off(1 + (keys.len() - 1) / 2)
            .into_iter()
            .map(|key| Witness {
                name: witness.clone(),
                key,
            })
            .collect();
        Root {
            version: numbers.0,
            threshold: 1 + threshold % keys.len() as u64,
            keys,
            registry: RegistryKeys {
                origin: log.0,
                log: log_key,
                cosigner,
                tls,
            },
            quorum: quorum % (witnesses.len() as u64 + 1),
            witnesses,
            rules: numbers.1,
            recovery_delay: numbers.2,
            continues: log
                .1
                .map(|(origin, size, root)| Continues { origin, size, root }),
            consents,
        }
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let code = || "[A-Z0-9中-]{1,8}";
    let territory = (code(), code(), vec(vec(code(), 1..=8), 1..4));
    let roles = select(vec![vec![], vec![Role::Standards]]);
    (text(200), 1..=5u64, territory, roles).prop_map(|(name, level, territory, roles)| Attributes {
        name,
        level,
        territory: Territory {
            list: territory.0,
            edition: territory.1,
            chains: territory.2,
        },
        roles,
    })
}

fn action() -> impl Strategy<Value = Action> {
    let reason = || option::of(text(1_000)).prop_map(|reason| Reason { reason });
    let new = || key().prop_map(|key| NewKey { key });
    prop_oneof![
        (attributes(), key()).prop_map(|(attributes, key)| {
            Action::Enrol(Enrolment {
                name: attributes.name,
                level: attributes.level,
                territory: attributes.territory,
                roles: attributes.roles,
                key,
            })
        }),
        attributes().prop_map(Action::Update),
        new().prop_map(Action::Rotate),
        new().prop_map(Action::Recover),
        reason().prop_map(Action::Contest),
        reason().prop_map(Action::Suspend),
        reason().prop_map(Action::Resume),
        reason().prop_map(Action::Revoke),
        (agency(), reason()).prop_map(|(successor, Reason { reason })| {
            Action::Successor(Successor { successor, reason })
        }),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let address = ("[a-z0-9.-]{1,20}|\\[::1\\]", 1..=u16::MAX);
    (address, vec(key_id(), 1..=4), distinct(2..=2)).prop_map(|(address, tls, mut keys)| Node {
        address: format!("{}:{}", address.0, address.1),
        tls,
        witness: keys.remove(1),
        journal: keys.remove(0),
    })
}

/// The text of a schema, with a number that is no integer and a member that needs its place.
fn schema() -> impl Strategy<Value = String> {
    (text(60), any::<i32>(), -9.0..9.0f64).prop_map(|(title, number, fraction)| {
        let schema = json!({
            "type": "object",
            "properties": {"b": {"minimum": fraction}, "a": {"maximum": number}, "é": {}},
            "title": title,
        });
        String::from_utf8(strict::canonical(&schema)).unwrap()
    })
}

fn dataset() -> impl Strategy<Value = Dataset> {
    let bare = |name, sharing| Dataset {
        name,
        sharing,
        title: None,
        description: None,
        schema: None,
        rows: None,
        files: Vec::new(),
        source: None,
        commitment: None,
    };
    let withheld = (name(), digest()).prop_map(move |(name, commitment)| Dataset {
        commitment: Some(commitment),
        ..bare(name, Sharing::Withheld)
    });
    let open = select(&Sharing::ALL[..3]);
    let about = (option::of(text(200)), option::of(text(4_000)), schema());
    let file = (digest(), integer()).prop_map(|(digest, bytes)| DatasetFile {
        name: format!("{digest}.parquet"),
        digest,
        bytes,
    });
    let source = (text(20), integer()).prop_map(|(format, bytes)| Source { format, bytes });
    let files = (integer(), vec(file, 1..4), option::of(source));
    let shown =
        (name(), open, about, files).prop_map(move |(name, sharing, about, files)| Dataset {
            title: about.0,
            description: about.1,
            schema: Some(about.2),
            rows: Some(files.0),
            files: files.1,
            source: files.2,
            ..bare(name, sharing)
        });
    prop_oneof![withheld, shown]
}

fn seen() -> impl Strategy<Value = Seen> {
    (integer(), digest()).prop_map(|(size, root)| Seen { size, root })
}

fn answer() -> impl Strategy<Value = AnswerDigest> {
    (digest(), integer(), integer()).prop_map(|(digest, rows, bytes)| AnswerDigest {
        digest,
        rows,
        bytes,
    })
}

fn used() -> impl Strategy<Value = Used> {
    let version = (agency(), name(), 1..=1u64 << 53)
        .prop_map(|(agency, name, number)| format!("{agency}/{name}@{number}"));
    (version, sharing(), digest(), integer()).prop_map(|(version, sharing, manifest, index)| Used {
        version: version.parse::<VersionId>().unwrap(),
        sharing,
        manifest,
        index,
    })
}

/// The four messages of an exchange.
fn message() -> impl Strategy<Value = Predicate> {
    let to = || ("[0-9a-f]{32}", agency());
    let why = || option::of(text(1_000));
    let asked = (time(), integer(), any::<String>());
    let request = (to(), asked, why(), why(), seen()).prop_map(
        |((nonce, audience), asked, purpose, legal_basis, seen)| Request {
            nonce,
            audience,
            expires: asked.0,
            grammar: asked.1,
            query: asked.2,
            purpose,
            legal_basis,
            seen,
        },
    );
    let acceptance =
        (to(), used(), seen()).prop_map(|((nonce, audience), dataset, seen)| Acceptance {
            nonce,
            audience,
            dataset,
            seen,
        });
    let outcome = select(vec![Outcome::Complete, Outcome::Aborted]);
    let receipt =
        (to(), outcome, answer()).prop_map(|((nonce, audience), outcome, answer)| Receipt {
            nonce,
            audience,
            outcome,
            answer,
        });
    let acknowledgement =
        (to(), answer()).prop_map(|((nonce, audience), answer)| Acknowledgement {
            nonce,
            audience,
            answer,
        });
    prop_oneof![
        request.prop_map(Predicate::Request),
        acceptance.prop_map(Predicate::Acceptance),
        receipt.prop_map(Predicate::Receipt),
        acknowledgement.prop_map(Predicate::Acknowledgement),
    ]
}

fn evidence() -> impl Strategy<Value = EvidenceIndex> {
    let member =
        (any::<String>(), digest(), integer()).prop_map(|(name, digest, bytes)| EvidenceMember {
            name,
            digest,
            bytes,
        });
    let export =
        (text(32), digest(), integer()).prop_map(|(format, digest, bytes)| EvidenceExport {
            format,
            digest,
            bytes,
        });
    let held = (vec(member, 0..4), vec(export, 0..3));
    (any::<String>(), answer(), 0..=1_000u64, held).prop_map(|(sql, answer, exchanges, held)| {
        EvidenceIndex {
            sql,
            answer,
            exchanges,
            members: held.0,
            exports: held.1,
        }
    })
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let schema = (name(), schema()).prop_map(|(name, schema)| Schema { name, schema });
    let snapshot = (integer(), digest()).prop_map(|(size, state)| Snapshot { size, state });
    let agency = (action(), consents()).prop_map(|(action, consents)| Agency { action, consents });
    prop_oneof![
        2 => root().prop_map(Predicate::Root),
        6 => agency.prop_map(Predicate::Agency),
        1 => node().prop_map(Predicate::Node),
        3 => dataset().prop_map(|dataset| Predicate::Dataset(Box::new(dataset))),
        1 => schema.prop_map(Predicate::Schema),
        1 => snapshot.prop_map(Predicate::Snapshot),
        4 => message(),
        2 => evidence().prop_map(Predicate::Evidence),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    (head(), predicate()).prop_map(|(mut head, predicate)| {
        if matches!(predicate, Predicate::Root(_) | Predicate::Snapshot(_)) {
            head.agency = None;
        }
        Statement { head, predicate }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn reading_undoes_writing(statement in statement()) {
        let payload = statement.payload();
        let read = Statement::parse(&payload);
        prop_assert!(read.is_ok(), "{:?}: {}", read, String::from_utf8_lossy(&payload));
        prop_assert_eq!(read.unwrap(), statement);
    }

    /// A byte more or less, or another one, is another statement or none.
    #[test]
    fn no_two_payloads_mean_the_same(
        statement in statement(),
        place in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let payload = statement.payload();
        let at = place.index(payload.len());
        let [mut other, mut more, mut less] = [payload.clone(), payload.clone(), payload.clone()];
        other[at] = byte;
        more.insert(at, byte);
        less.remove(at);
        for changed in [other, more, less] {
            if changed != payload && let Ok(read) = Statement::parse(&changed) {
                prop_assert_ne!(&read, &statement);
                prop_assert_eq!(read.payload(), changed);
            }
        }
    }
}

/// So that no predicate type is left out above.
#[test]
fn every_predicate_type_is_made() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let kinds: std::collections::BTreeSet<&str> = (0..500)
        .map(|_| predicate().new_tree(&mut runner).unwrap().current().kind())
        .collect();
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}
