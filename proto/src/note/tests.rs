//! Tests of signed notes; published notes are read in `tests/vectors_note.rs`.

use proptest::prelude::*;

use super::*;
use crate::key::SecretKey;

const TEXT: &str = "first line\n\nthird line\n";

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn key(name: &str, seed: u8) -> NoteKey {
    NoteKey::new(name, Algorithm::Ed25519, secret(seed).public().clone()).unwrap()
}

fn signed(names: &[(&str, u8)]) -> Note {
    let mut note = Note::new(TEXT).unwrap();
    for (name, seed) in names {
        note.signatures
            .push(sign(TEXT, name, &secret(*seed)).unwrap());
    }
    note
}

#[test]
fn signed_notes_round_trip() {
    let note = signed(&[("a.example", 1), ("b.example/ü", 2)]);
    let read = Note::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!(read, note);
    assert_eq!(read.text, TEXT);
    assert_eq!(read.verify(&key("a.example", 1)), Ok(()));
    assert_eq!(read.verify(&key("b.example/ü", 2)), Ok(()));
}

#[test]
fn unknown_keys_are_ignored_and_false_signatures_are_not() {
    let note = signed(&[("a.example", 1), ("b.example", 2)]);
    for other in [
        key("a.example", 2),
        key("b.example", 1),
        key("c.example", 1),
    ] {
        assert_eq!(
            note.verify(&other),
            Err(NoteError::Unsigned(other.to_string()))
        );
    }
    // A second signature that claims to be by the same key has to match as well.
    let a = key("a.example", 1);
    let mut forged = note.clone();
    forged.signatures.push(note.signatures[0].clone());
    assert_eq!(forged.verify(&a), Ok(()));
    forged.signatures[2].signature[7] ^= 1;
    assert_eq!(forged.verify(&a), Err(NoteError::Forged(a.to_string())));
    let mut changed = note.clone();
    changed.text = changed.text.replace("third", "fourth");
    assert_eq!(changed.verify(&a), Err(NoteError::Forged(a.to_string())));
    let mut short = note;
    short.signatures[0].signature.pop();
    assert_eq!(short.verify(&a), Err(NoteError::Forged(a.to_string())));
}

#[test]
fn kinds_of_keys_are_not_confused() {
    let public = secret(1).public().clone();
    let cosigner = NoteKey::new("a.example", Algorithm::CosignatureV1, public).unwrap();
    assert_ne!(cosigner.hash(), key("a.example", 1).hash());
    let note = signed(&[("a.example", 1)]);
    assert_eq!(
        note.verify(&cosigner),
        Err(NoteError::Algorithm(cosigner.to_string()))
    );
}

#[test]
fn keys_round_trip_and_other_texts_are_refused() {
    for algorithm in [Algorithm::Ed25519, Algorithm::CosignatureV1] {
        let key = NoteKey::new("a.example/b", algorithm, secret(5).public().clone()).unwrap();
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key.clone()));
        for end in 0..text.len() {
            assert_eq!(text[..end].parse::<NoteKey>(), Err(NoteKeyError));
        }
        for (i, c) in text.char_indices() {
            let next = char::from(c as u8 + 1).to_string();
            let other = format!("{}{next}{}", &text[..i], &text[i + 1..]);
            assert!(other.parse::<NoteKey>().is_err(), "{other}");
        }
        let upper = text.replace(&to_hex(&key.hash()), &to_hex(&key.hash()).to_uppercase());
        assert!(upper == text || upper.parse::<NoteKey>().is_err());
        // From here on what fuzzing took for new, and its like.
        for other in [
            "+\0\0+".to_owned(),
            format!("x+00000000+AQ{}", "A".repeat(42)),
            text.replacen("a.example/b", "", 1),
            text.replacen('+', "++", 1),
            text.replacen('+', "+\u{320}", 1),
            format!("{text}="),
            format!("{text}AAAA"),
        ] {
            assert_eq!(other.parse::<NoteKey>(), Err(NoteKeyError), "{other:?}");
        }
    }
    for name in ["", "a b", "a+b", "a\u{2003}b", "a\nb", "a\u{a0}b"] {
        let key = NoteKey::new(name, Algorithm::Ed25519, secret(5).public().clone());
        assert!(key.is_err(), "{name:?}");
    }
}

#[test]
fn malformed_notes_are_refused() {
    let line = signed(&[("a.example", 1)]).signatures[0].to_string();
    let good = format!("text\n\n{line}\n");
    assert!(Note::parse(good.as_bytes()).is_ok());
    let base64 = line.rsplit(' ').next().unwrap();
    for bad in [
        String::new(),
        "text\n".into(),
        "text\n\n".into(),
        "text\n\n\n".into(),
        format!("text\n{line}\n"),
        format!("text\n\n{line}"),
        format!("text\r\n\n{line}\n"),
        format!("te\txt\n\n{line}\n"),
        format!("text\n\n{line}\n\n"),
        format!("text\n\n{line}\nmore\n"),
        format!("text\n\n {line}\n"),
        format!("text\n\n{line} \n"),
        format!("text\n\n- a.example {base64}\n"),
        format!("text\n\n— a.example  {base64}\n"),
        format!("text\n\n— a example {base64}\n"),
        format!("text\n\n— a+example {base64}\n"),
        format!("text\n\n—  {base64}\n"),
        "text\n\n— a.example AAAA\n".into(),
        "text\n\n— a.example AAAAAA==\n".into(),
        "text\n\n— a.example AAAAAAB=\n".into(),
        "text\n\n— a.example AAAAAAA\n".into(),
        "text\n\n— a.example\n".into(),
        "text\n\n— a.example \n".into(),
        // From here on what fuzzing took for new, and its like.
        "\n\n".into(),
        format!("\n{line}\n"),
        format!("text\n\x0e{line}\n"),
        format!("text\n\n{line}\n\0"),
        format!("text\n\n{line}\n— \n"),
        format!("text\n\n— a.example\u{7f} {base64}\n"),
        format!("text\n\n—\u{a0}a.example {base64}\n"),
        "text\n\n— x— x=\n".into(),
        "text\n\n— a.example AAA=AAA=\n".into(),
        "text\n\n— a.example ____AAA=\n".into(),
    ] {
        assert!(
            matches!(Note::parse(bad.as_bytes()), Err(NoteError::Malformed(_))),
            "{bad:?}"
        );
    }
    assert!(Note::parse(b"te\xffxt\n\n").is_err());
    assert!(Note::new("no newline").is_err());
    assert!(Note::new("tab\t\n").is_err());
    assert!(sign("no newline", "a.example", &secret(1)).is_err());
    assert!(sign("text\n", "a example", &secret(1)).is_err());
}

/// Inputs that fuzzing took for new, and their like, which look like no note and are one: the last empty line
/// counts, and a text or a name may have any characters that are not forbidden to it.
#[test]
fn odd_notes_print_as_they_were_read() {
    for (note, text, signatures) in [
        ("\n\n— x AAAAAAA=\n", "\n", 1),
        ("a\n\n\n\n— x AAAAAAA=\n— x AAAAAAA=\n", "a\n\n\n", 2),
        ("a\n\nb\n\n— x AAAAAAx6\n", "a\n\nb\n", 1),
        ("— x AAAAAAA=\n\n— x AAAAAAA=\n", "— x AAAAAAA=\n", 1),
        ("a\n\n— —— AAAAAAA=\n", "a\n", 1),
        ("\u{202e}\n\n— \u{202e} AAAAAAA=\n", "\u{202e}\n", 1),
    ] {
        let read = Note::parse(note.as_bytes()).unwrap();
        assert_eq!((&*read.text, read.signatures.len()), (text, signatures));
        assert_eq!(read.to_string(), note);
    }
}

#[test]
fn limits_hold() {
    let line = signed(&[("a.example", 1)]).signatures[0].to_string() + "\n";
    let with = |n: usize| format!("text\n\n{}", line.repeat(n));
    assert_eq!(
        Note::parse(with(100).as_bytes()).unwrap().signatures.len(),
        100
    );
    assert!(Note::parse(with(101).as_bytes()).is_err());
    let long = |n: usize| "a".repeat(n) + "\n\n" + &line;
    let most = MAX_NOTE - long(0).len();
    assert!(Note::parse(long(most).as_bytes()).is_ok());
    assert!(Note::parse(long(most + 1).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn what_is_read_prints_the_same(text in "[ -~é\n]{0,40}", end in "(— [a-z +]{1,3} [A-Za-z0-9+/=]{4,12}\n){0,3}") {
        let bytes = format!("{text}\n\n{end}");
        if let Ok(note) = Note::parse(bytes.as_bytes()) {
            prop_assert_eq!(note.to_string(), bytes);
        }
    }

    #[test]
    fn any_changed_byte_of_a_note_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let good = signed(&[("a.example", 1)]).to_string().into_bytes();
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= 1 << bit;
        let verdict = Note::parse(&bad).and_then(|note| note.verify(&key("a.example", 1)));
        prop_assert!(verdict.is_err());
    }
}
