//! Statements as they are read and written, and what is refused.

use serde_json::json;

use super::*;
use crate::key::SecretKey;

mod round_trip;

fn head(sequence: u64) -> Head {
    Head {
        federation: "test-0123456789abcdef".parse().unwrap(),
        agency: Some("fr.bre".parse().unwrap()),
        time: Time::from_seconds(1_700_000_000).unwrap(),
        sequence,
        previous: (sequence > 1).then(|| Digest::of(b"before")),
    }
}

fn enrolment() -> Statement {
    Statement {
        head: head(1),
        predicate: Predicate::Agency(
            Action::Enrol(Enrolment {
                name: "Bretagne".into(),
                level: 2,
                territory: Territory {
                    list: "insee".into(),
                    edition: "2024".into(),
                    chains: vec![vec!["53".into(), "FR".into()]],
                },
                roles: vec![],
                key: SecretKey::from_seed(&[4; 32]).public().clone(),
            })
            .proposed(),
        ),
    }
}

fn acknowledgement() -> Statement {
    Statement {
        head: head(4),
        predicate: Predicate::Acknowledgement(Acknowledgement {
            nonce: "0123456789abcdef0123456789abcdef".into(),
            audience: "fr".parse().unwrap(),
            answer: AnswerDigest {
                digest: Digest::of(b"answer"),
                rows: 1,
                bytes: 6,
            },
        }),
    }
}

#[test]
fn round_trips() {
    for statement in [enrolment(), acknowledgement()] {
        let payload = statement.payload();
        let read = Statement::parse(&payload).unwrap();
        assert_eq!(read, statement);
        assert_eq!(read.payload(), payload);
    }
    assert_eq!(enrolment().chain(), "agency/fr.bre");
}

/// One of each kind of action.
fn actions() -> Vec<Action> {
    let Predicate::Agency(Agency {
        action: Action::Enrol(enrolment),
        ..
    }) = enrolment().predicate
    else {
        unreachable!("it is an enrolment")
    };
    let new = NewKey {
        key: SecretKey::from_seed(&[5; 32]).public().clone(),
    };
    let why = Reason {
        reason: Some("reform of 2026".into()),
    };
    let successor = Successor {
        successor: "fr.nor".parse().unwrap(),
        reason: None,
    };
    vec![
        Action::Update(enrolment.attributes()),
        Action::Enrol(enrolment),
        Action::Rotate(new.clone()),
        Action::Recover(new),
        Action::Contest(Reason::default()),
        Action::Suspend(why.clone()),
        Action::Resume(why.clone()),
        Action::Revoke(why),
        Action::Successor(successor),
    ]
}

#[test]
fn every_action_is_written_under_its_name_and_has_no_other_members() {
    for action in actions() {
        let name = action.name();
        let statement = Statement {
            head: head(2),
            predicate: Predicate::Agency(action.proposed()),
        };
        let text = String::from_utf8(statement.payload()).unwrap();
        assert!(text.contains(&format!("\"action\":\"{name}\"")), "{text}");
        assert_eq!(Statement::parse(text.as_bytes()).unwrap(), statement);
        let predicate = strict::parse(&statement.predicate_bytes()).unwrap();
        let Value::Object(mut members) = predicate else {
            unreachable!("a predicate is an object")
        };
        members.insert("more".into(), 1.into());
        let changed = text.replacen("\"action\":", "\"aaa\":1,\"action\":", 1);
        assert!(Statement::parse(changed.as_bytes()).is_err(), "{name}");
        let read = Predicate::parse(
            statement.predicate.kind(),
            Value::Object(
                members
                    .into_iter()
                    .filter(|(member, _)| !HEAD.contains(&member.as_str()))
                    .collect(),
            ),
        );
        assert!(read.is_err(), "{name} with a member too many");
    }
}

#[test]
fn both_ways_of_reading_agree() {
    let agencies = actions().into_iter().map(|action| Statement {
        head: head(2),
        predicate: Predicate::Agency(action.proposed()),
    });
    for statement in agencies.chain([enrolment(), acknowledgement()]) {
        let payload = statement.payload();
        assert_eq!(spelt::read(&payload).as_ref(), Some(&statement));
        assert!(statement.is_spelt(&payload));
        assert_eq!(Statement::parse_strictly(&payload).unwrap(), statement);
        // Whatever one byte is changed to, the quick way takes nothing that the strict one refuses.
        for at in 0..payload.len() {
            for byte in *b"\0 \"0,}]\\a" {
                let mut changed = payload.clone();
                changed[at] = byte;
                if let Ok(quick) = Statement::parse(&changed) {
                    assert_eq!(Statement::parse_strictly(&changed).unwrap(), quick);
                }
            }
        }
    }
    // An integer that others would round is spelt as it should be, and refused both ways.
    let mut late = acknowledgement();
    late.head.sequence = (1 << 53) + 1;
    assert!(!late.is_spelt(&late.payload()));
    assert!(Statement::parse(&late.payload()).is_err());
}

#[test]
fn consents_leave_the_subject_as_it_is() {
    let proposal = enrolment();
    let consent = proposal.sign(&SecretKey::from_seed(&[4; 32]));
    let statement = proposal.with_consents(vec![consent.clone()]);
    let read = Statement::parse(&statement.payload()).unwrap();
    assert_eq!(read.consents(), std::slice::from_ref(&consent));
    assert_eq!(read.proposal().payload(), consent.payload());
}

#[test]
fn what_is_refused() {
    let text = String::from_utf8(enrolment().payload()).unwrap();
    assert!(Statement::parse(text.as_bytes()).is_ok());
    for (from, to) in [
        ("\"level\":2", "\"level\":2.0"),
        ("\"level\":2", "\"level\":2,\"level\":2"),
        ("\"level\":2", "\"level\":6"),
        ("\"level\":2", "\"level\":3"), // the subject's digest no longer matches
        ("\"level\":2", "\"level\":2,\"more\":1"),
        ("\"sequence\":1", "\"sequence\":0"),
        ("\"sequence\":1", "\"sequence\":2"),
        ("agency:v1", "agency:v2"),
        ("statement/v1", "statement/v0"),
        ("Statement/v1", "Statement/v0"),
        ("\"agency\":\"fr.bre\",", ""),
        ("agency/fr.bre", "agency/fr"),
        ("Bretagne", "Bre\\u0007tagne"),
    ] {
        let changed = text.replacen(from, to, 1);
        if changed != text {
            assert!(
                Statement::parse(changed.as_bytes()).is_err(),
                "{from} → {to}"
            );
        }
    }
}

#[test]
fn a_statement_has_one_spelling() {
    let payload = acknowledgement().payload();
    let text = String::from_utf8(payload.clone()).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let canonical = |value: &Value| strict::canonical(value);
    assert_eq!(canonical(&value), payload);
    for changed in [
        text.replacen(':', ": ", 1),
        format!("{text}\n"),
        text.replacen("exchange", "\\u0065xchange", 1),
    ] {
        assert_ne!(changed, text);
        assert!(Statement::parse(changed.as_bytes()).is_err(), "{changed}");
    }
    // Optional members are left out, not written as nothing.
    let text = String::from_utf8(enrolment().payload()).unwrap();
    value = serde_json::from_str(&text).unwrap();
    for (member, nothing) in [("consents", json!([])), ("previous", Value::Null)] {
        let mut changed = value.clone();
        changed["predicate"][member] = nothing;
        let error = Statement::parse(&canonical(&changed)).unwrap_err();
        assert!(
            error.to_string().contains("null or an empty list"),
            "{member}: {error}"
        );
    }
}

/// Inputs that fuzzing took for new, and their like, each with what the refusal says: none is refused merely
/// because the subject's digest no longer matches.
#[test]
fn what_is_refused_is_refused_for_its_own_reason() {
    let text = String::from_utf8(enrolment().payload()).unwrap();
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let agency = "not a urn:jingwei:agency:v1 statement";
    let no_json = "not acceptable JSON";
    let spelling = "RFC 8785";
    for (from, to, says) in [
        ("\"level\":2", "\"level\":-0", no_json),
        ("\"level\":2", "\"level\":9007199254740993", "2^53"),
        ("[[\"53\",\"FR\"]]", &*deep, "nested deeper"),
        ("}]}", "}]}\0", no_json),
        (
            "\"sequence\":1",
            "\"sequence\":1,\"sequence\":1",
            "stands twice",
        ),
        (
            "\"sequence\":1",
            "\"sequence\":1,\"\\u0073equence\":1",
            "stands twice",
        ),
        ("\"sha256\"", "\"sha799\"", "not a in-toto statement"),
        ("\"time\":\"2", "\"time\":\"+2", "not a head statement"),
        ("ed25519:", "ed25519:=", agency),
        (
            "\"sequence\":1",
            "\"predicateType\":\"\",\"sequence\":1",
            agency,
        ),
        ("agency:v1", "agency:v1\\u0000", "unknown predicate type"),
        ("\"fr.bre\"", "null", "agency is missing"),
        ("Bretagne", "Bre\\u007ftagne", "control character"),
        ("[\"53\",\"FR\"]", "[]", "1 to 8 codes"),
        ("\"sequence\":1", "\"\\u0073equence\":1", spelling),
        ("\"sequence\":1", "\"roles\":[],\"sequence\":1", spelling),
        // The values alone, in their order.
        (
            "{\"chains\":[[\"53\",\"FR\"]],\"edition\":\"2024\",\"list\":\"insee\"}",
            "[\"insee\",\"2024\",[[\"53\",\"FR\"]]]",
            spelling,
        ),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{from}");
        let error = Statement::parse(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{from} → {to}: {error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    // With the digest made right, a name may be empty, run from right to left, or have two lines.
    for name in ["", "\u{202e}engaterB", "Bre\ntagne"] {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value["predicate"]["name"] = name.into();
        let digest = Digest::of(&strict::canonical(&value["predicate"]));
        value["subject"][0]["digest"]["sha256"] = digest.to_string().into();
        let payload = strict::canonical(&value);
        assert_eq!(Statement::parse(&payload).unwrap().payload(), payload);
    }
}

#[test]
fn a_withheld_dataset_says_nothing() {
    let dataset = Dataset {
        name: "w_1".parse().unwrap(),
        sharing: Sharing::Withheld,
        title: None,
        description: None,
        schema: None,
        rows: None,
        files: vec![],
        source: None,
        commitment: Some(Digest::of(b"salted")),
    };
    let statement = |dataset: &Dataset| Statement {
        head: head(1),
        predicate: Predicate::Dataset(Box::new(dataset.clone())),
    };
    assert!(Statement::parse(&statement(&dataset).payload()).is_ok());
    let telling = Dataset {
        rows: Some(3),
        ..dataset.clone()
    };
    assert!(Statement::parse(&statement(&telling).payload()).is_err());
    let empty = Dataset {
        commitment: None,
        ..dataset
    };
    assert!(Statement::parse(&statement(&empty).payload()).is_err());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Statement::parse(&bytes);
        }
    }
}
