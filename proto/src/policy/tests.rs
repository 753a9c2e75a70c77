//! A policy is read and printed, and accepts what its definition accepts.

use super::*;
use crate::checkpoint::cosign;
use crate::key::{SecretKey, Signer as _};
use crate::merkle::empty_root;

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn vkey(name: &str, algorithm: Algorithm, seed: u8) -> String {
    NoteKey::new(name, algorithm, secret(seed).public().clone())
        .unwrap()
        .to_string()
}

fn log() -> String {
    format!("log {}\n", vkey("example.com/log", Algorithm::Ed25519, 1))
}

fn witness(name: &str, seed: u8) -> String {
    let key = vkey(&format!("{name}.example"), Algorithm::CosignatureV1, seed);
    format!("witness {name} {key}\n")
}

/// The example of the specification with keys filled in: X1 to X3 are 11 to 13, Y1 to Y3 21 to 23.
fn example() -> String {
    let mut text = log() + "\n";
    for (group, tens, rule) in [("X", 10, "2"), ("Y", 20, "any")] {
        for i in 1..=3 {
            text += &witness(&format!("{group}{i}"), tens + i);
        }
        text += &format!("group {group}-witnesses {rule} {group}1 {group}2 {group}3\n\n");
    }
    text + "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
}

fn parse(text: impl AsRef<[u8]>) -> Policy {
    Policy::parse(text.as_ref()).unwrap()
}

/// A checkpoint that the named witnesses have co-signed, each at a time of its own.
fn note(witnesses: &[(&str, u8, i64)]) -> Vec<u8> {
    let mut note = Checkpoint::new("example.com/log", 0, empty_root())
        .sign(&secret(1))
        .unwrap();
    for (name, seed, seconds) in witnesses {
        let time = Time::from_seconds(*seconds).unwrap();
        let name = format!("{name}.example");
        let line = cosign(&note.text, &name, &secret(*seed), time).unwrap();
        note.signatures.push(line);
    }
    note.to_string().into_bytes()
}

fn time(policy: &Policy, witnesses: &[(&str, u8, i64)]) -> Option<i64> {
    let accepted = policy.verify(&note(witnesses)).ok()?;
    Some(accepted.time?.seconds())
}

#[test]
fn nested_groups_are_satisfied_from_the_inside() {
    let policy = parse(example());
    let (x1, x2, x3) = (("X1", 11, 10), ("X2", 12, 20), ("X3", 13, 30));
    let (y1, y2) = (("Y1", 21, 15), ("Y2", 22, 40));
    assert_eq!(time(&policy, &[x1, x2]), None);
    assert_eq!(time(&policy, &[x1, y1, y2]), None);
    // The quorum had seen it when the last one needed had: of the latest combination.
    assert_eq!(time(&policy, &[x1, x2, y1]), Some(10));
    assert_eq!(time(&policy, &[x1, x2, x3, y1]), Some(15));
    assert_eq!(time(&policy, &[x1, x2, x3, y1, y2]), Some(20));
    // A witness under another's name or another's key is a stranger.
    assert_eq!(time(&policy, &[x1, ("X2", 13, 20), y1]), None);
    let few = policy.verify(&note(&[x1])).unwrap_err();
    assert_eq!(
        few.to_string(),
        "the 1 witnesses that have co-signed do not make up the quorum ‘X-and-Y’"
    );
}

#[test]
fn a_single_witness_or_none_may_be_the_quorum() {
    let one = parse(log() + &witness("W", 11) + "quorum W\n");
    assert_eq!(time(&one, &[("W", 11, 7)]), Some(7));
    assert_eq!(time(&one, &[]), None);
    let none = parse(log() + "quorum none\n");
    let accepted = none.verify(&note(&[])).unwrap();
    assert_eq!((accepted.checkpoint.size, accepted.time), (0, None));
}

#[test]
fn only_the_listed_logs_count_and_a_false_signature_spoils_the_note() {
    let other = vkey("example.com/log", Algorithm::Ed25519, 2);
    let rotated = parse(format!("{}log {other}\nquorum none\n", log()));
    assert!(rotated.verify(&note(&[])).is_ok());
    let unsigned = parse(format!("log {other}\nquorum none\n"));
    assert!(matches!(
        unsigned.verify(&note(&[])),
        Err(CheckpointError::Note(NoteError::Unsigned(_)))
    ));
    let elsewhere = vkey("example.com/other", Algorithm::Ed25519, 1);
    let elsewhere = parse(format!("log {elsewhere}\nquorum none\n"));
    assert!(matches!(
        elsewhere.verify(&note(&[])),
        Err(CheckpointError::UnknownLog(_))
    ));
    let policy = parse(log() + &witness("W", 11) + &witness("V", 12) + "quorum W\n");
    let mut forged = Note::parse(&note(&[("W", 11, 7), ("V", 12, 7)])).unwrap();
    forged.signatures[2].signature[20] ^= 1;
    assert!(matches!(
        policy.verify(forged.to_string().as_bytes()),
        Err(CheckpointError::Note(NoteError::Forged(_)))
    ));
}

#[test]
fn the_text_is_read_back_as_it_was_printed() {
    let text = example().replace("log ", "  # a comment\n\t log \t") + "  \n";
    let text = text.replace("witness X1", "witness  X1");
    let policy = parse(&text);
    assert_eq!(policy, parse(example()));
    let printed = policy.to_bytes();
    assert_eq!(parse(&printed), policy);
    assert_eq!(parse(&printed).to_bytes(), printed);
    // Names, URLs and comments are bytes; other bytes are another name.
    let mut bytes = b"# \xff\xfe\n".to_vec();
    bytes.extend(witness("K", 11).bytes());
    bytes.extend(witness("\u{212a}", 12).trim_end().bytes());
    bytes.extend(b" http://\xffx/\ngroup \xfe all K \xe2\x84\xaa\nquorum \xfe\n");
    let policy = parse(&bytes);
    assert_eq!(
        policy.witnesses[1].url.as_deref(),
        Some(&b"http://\xffx/"[..])
    );
    assert_eq!(policy.groups[0].threshold, 2);
    assert_eq!(parse(policy.to_bytes()), policy);
}

#[test]
fn what_breaks_a_rule_is_refused_with_its_line() {
    let base = log() + &witness("A", 11) + &witness("B", 12);
    let log_key = vkey("example.com/log", Algorithm::Ed25519, 1);
    let cosign_key = vkey("c.example", Algorithm::CosignatureV1, 13);
    for bad in [
        "quorum C\n".to_owned(),
        "quorum\n".into(),
        "quorum A B\n".into(),
        "quorum A\nquorum A\n".into(),
        "quorum none\nquorum none\n".into(),
        "group G any\nquorum G\n".into(),
        "group G 0 A\nquorum G\n".into(),
        "group G 3 A B\nquorum G\n".into(),
        "group G 01 A\nquorum G\n".into(),
        "group G +1 A\nquorum G\n".into(),
        "group G two A B\nquorum G\n".into(),
        "group G any A none\nquorum G\n".into(),
        "group G any G\nquorum G\n".into(),
        "group G any A A\nquorum G\n".into(),
        "group A any B\nquorum A\n".into(),
        "group none any B\nquorum none\n".into(),
        "group G any A\ngroup H any A\nquorum G\n".into(),
        "quorum G\ngroup G any A\n".into(),
        "Quorum A\n".into(),
        "quorum a\n".into(),
        format!("log {log_key}\nquorum none\n"),
        format!("log {cosign_key}\nquorum none\n"),
        format!("witness C {log_key}\nquorum none\n"),
        format!("witness C {}\nquorum none\n", &cosign_key[..20]),
        format!("witness A {cosign_key}\nquorum none\n"),
        format!("witness none {cosign_key}\nquorum none\n"),
        witness("C", 11) + "quorum none\n",
        "log\nquorum none\n".into(),
    ] {
        let error = Policy::parse((base.clone() + &bad).as_bytes()).unwrap_err();
        assert!(
            matches!(error, PolicyError::Line { line: 4.., .. }),
            "{bad}: {error}"
        );
    }
    for bad in [
        "",
        "quorum A",
        "quorum\x0b A\n",
        "quorum A\r\n",
        "quorum\u{7f}A\n",
    ] {
        let error = Policy::parse((base.clone() + bad).as_bytes()).unwrap_err();
        assert!(matches!(error, PolicyError::Text(_)), "{bad:?}: {error}");
    }
    assert!(Policy::parse(&vec![b'\n'; MAX_POLICY + 1]).is_err());
}

/// Inputs that fuzzing took for new: bytes that are no text, where a word is expected.
#[test]
fn bytes_that_are_no_text_are_names_and_nothing_else() {
    let base = log() + &witness("A", 11);
    let parse = |more: &[u8]| Policy::parse(&[base.as_bytes(), more].concat());
    let pair = |a: &[u8], b: &[u8]| {
        let groups = [
            b"group X".as_slice(),
            a,
            b" any A\ngroup X",
            b,
            b" any X",
            a,
        ];
        [&groups.concat(), b"\nquorum X".as_slice(), b, b"\n"].concat()
    };
    // They look the same when they are shown, and are two names.
    let two = parse(&pair(b"\xfe", b"\xff")).unwrap();
    assert_eq!(
        two.groups[0].name.to_string(),
        two.groups[1].name.to_string()
    );
    assert_eq!(time(&two, &[("A", 11, 7)]), Some(7));
    assert!(parse(&pair(b"\xfe", b"\xfe")).is_err());
    for bad in [
        &b"group G \xff A\nquorum G\n"[..],
        b"group G 1\xff A\nquorum G\n",
        b"group G any A\xff\nquorum G\n",
        b"quorum \xff\n",
        b"\xffquorum A\n",
        b"log \xff\nquorum A\n",
        b"witness W\xbf \xff\nquorum A\n",
        b"quorum A\nh\n",
        b"quorum A #\n",
        b"group G 18446744073709551616 A\nquorum G\n",
    ] {
        let error = parse(bad).unwrap_err();
        assert!(matches!(error, PolicyError::Line { .. }), "{error}");
        assert!(!error.to_string().contains(char::is_control));
    }
    for bad in [
        &b"\t\t\t\n"[..],
        b"# \xff\n",
        b"   #\n",
        b"quorum A\n\xff",
        b"\0",
    ] {
        assert!(matches!(parse(bad), Err(PolicyError::Text(_))));
    }
}

#[test]
fn deep_and_wide_policies_up_to_the_limits() {
    let mut deep = log() + &witness("W", 11) + "group g0 any W\n";
    for i in 1..MAX_ITEMS {
        deep += &format!("group g{i} all g{}\n", i - 1);
    }
    let policy = parse(format!("{deep}quorum g{}\n", MAX_ITEMS - 1));
    assert_eq!(time(&policy, &[("W", 11, 7)]), Some(7));
    assert_eq!(time(&policy, &[]), None);
    let over = format!("{deep}group g any g{}\nquorum g\n", MAX_ITEMS - 1);
    assert!(Policy::parse(over.as_bytes()).is_err());
}
