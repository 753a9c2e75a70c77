//! Tests of checkpoints and cosignatures.

use super::*;
use crate::key::SecretKey;
use crate::statement::Witness;

const ORIGIN: &str = "jingwei/test-0011223344556677/registry/1";

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn time(seconds: i64) -> Time {
    Time::from_seconds(seconds).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::new(ORIGIN, 42, Digest::of(b"root"))
}

fn log_key() -> NoteKey {
    NoteKey::new(ORIGIN, Algorithm::Ed25519, secret(1).public().clone()).unwrap()
}

fn witness_key(name: &str, seed: u8) -> NoteKey {
    NoteKey::new(
        name,
        Algorithm::CosignatureV1,
        secret(seed).public().clone(),
    )
    .unwrap()
}

#[test]
fn the_text_has_one_form() {
    let text = checkpoint().to_string();
    assert_eq!(text.parse(), Ok(checkpoint()));
    let [origin, size, root] = text.lines().collect::<Vec<_>>()[..] else {
        panic!()
    };
    let extended = format!("{text}extension one\n— two\n");
    let read: Checkpoint = extended.parse().unwrap();
    assert_eq!(read.extensions, ["extension one", "— two"]);
    assert_eq!(read.to_string(), extended);
    for bad in [
        String::new(),
        "\n".into(),
        format!("{origin}\n{size}\n"),
        format!("{origin}\n{size}\n{root}"),
        format!("\n{size}\n{root}\n"),
        format!("{origin}\n\n{root}\n"),
        format!("{origin}\n{size}\n\n"),
        format!("{origin}\n042\n{root}\n"),
        format!("{origin}\n+42\n{root}\n"),
        format!("{origin}\n-1\n{root}\n"),
        format!("{origin}\n 42\n{root}\n"),
        format!("{origin}\n0x2a\n{root}\n"),
        format!("{origin}\n00\n{root}\n"),
        format!("{origin}\n18446744073709551616\n{root}\n"),
        format!("{origin}\n{size}\n{root}=\n"),
        format!("{origin}\n{size}\n{}\n", root.trim_end_matches('=')),
        format!("{origin}\n{size}\nAAAA\n"),
        format!("{origin}\n{size}\n{}\n", Digest::of(b"root")),
        format!("{origin}\r\n{size}\r\n{root}\r\n"),
        format!("{text}\n"),
        format!("{text}extension\n\n"),
        format!("{text}\nextension\n"),
        // From here on what fuzzing took for new, and its like.
        format!("{origin}\0\n{size}\n{root}\n"),
        format!("{origin}\n{size}\n{size}\n{root}\n"),
        format!("{origin}\n{size}\n\n{root}\n"),
        format!("{origin}\n4\u{ff12}\n{root}\n"),
        format!("{origin}\n{size}\n{root}\u{7f}\n"),
        format!("{origin}\n{size}\n{root}{root}\n"),
        format!("{origin}\n{size}\n{}B=\n", "A".repeat(42)),
        format!("{origin}\n{size}\n{}8=\n", "_".repeat(42)),
        format!("{text}\x0b\n"),
    ] {
        assert!(bad.parse::<Checkpoint>().is_err(), "{bad:?}");
    }
    // What it took for new and is one: all that is asked of an origin or a further line is that
    // there is something in it.
    for odd in [
        format!("{origin}— i\n{size}\n{root}\n"),
        format!(" \n{size}\n{root}\n"),
        format!("\u{7f}\u{202e}\n{size}\n{root}\n"),
        format!("{origin}\n18446744073709551615\n{root}\n"),
        format!("{text}{text}"),
    ] {
        assert_eq!(odd.parse::<Checkpoint>().unwrap().to_string(), odd);
    }
    let zero = format!("{origin}\n0\n{root}\n");
    assert_eq!(zero.parse::<Checkpoint>().unwrap().size, 0);
}

#[test]
fn signed_by_its_log_only() {
    let note = checkpoint().sign(&secret(1)).unwrap().to_string();
    let (read, _) = Checkpoint::open(note.as_bytes(), &log_key()).unwrap();
    assert_eq!(read, checkpoint());

    // Another log's key under its own name cannot vouch for this origin.
    let other = NoteKey::new("other", Algorithm::Ed25519, secret(2).public().clone()).unwrap();
    let mut note = Note::new(checkpoint().to_string()).unwrap();
    note.signatures
        .push(note::sign(&note.text, "other", &secret(2)).unwrap());
    assert!(matches!(
        Checkpoint::open(note.to_string().as_bytes(), &other),
        Err(CheckpointError::Origin { .. })
    ));
    assert!(matches!(
        Checkpoint::open(note.to_string().as_bytes(), &log_key()),
        Err(CheckpointError::Note(NoteError::Unsigned(_)))
    ));
}

#[test]
fn what_would_not_read_back_is_not_signed() {
    let bad = [
        Checkpoint {
            origin: "two\nlines".into(),
            ..checkpoint()
        },
        Checkpoint {
            origin: String::new(),
            ..checkpoint()
        },
        Checkpoint {
            extensions: vec![String::new()],
            ..checkpoint()
        },
        Checkpoint {
            extensions: vec!["a\nb".into()],
            ..checkpoint()
        },
        Checkpoint {
            origin: "with space".into(),
            ..checkpoint()
        },
    ];
    for checkpoint in bad {
        assert!(checkpoint.sign(&secret(1)).is_err(), "{checkpoint}");
    }
    assert!(cosign("not a checkpoint\n", "w", &secret(2), time(1)).is_err());
}

#[test]
fn cosignatures_carry_their_time() {
    let mut note = checkpoint().sign(&secret(1)).unwrap();
    let key = witness_key("w.example/1", 2);
    assert_eq!(
        verify_cosignature(&note, &key),
        Err(NoteError::Unsigned(key.to_string()))
    );
    for seconds in [1_700_000_000, 1_600_000_000] {
        let line = cosign(&note.text, "w.example/1", &secret(2), time(seconds)).unwrap();
        assert_eq!(line.signature.len(), 72);
        note.signatures.push(line);
    }
    assert_eq!(verify_cosignature(&note, &key), Ok(time(1_700_000_000)));
    let forged = Err(NoteError::Forged(key.to_string()));
    for byte in 0..72 {
        let mut note = note.clone();
        note.signatures[1].signature[byte] ^= 1;
        assert_eq!(verify_cosignature(&note, &key), forged, "{byte}");
    }
    let mut negative = note.clone();
    negative.signatures[1].signature[..8].fill(0xff);
    assert_eq!(verify_cosignature(&negative, &key), forged);
    let wrong_kind = NoteKey::new("w.example/1", Algorithm::Ed25519, key.public().clone()).unwrap();
    assert!(matches!(
        verify_cosignature(&note, &wrong_kind),
        Err(NoteError::Algorithm(_))
    ));
}

/// A checkpoint with the log's signature and cosignatures by the given names, seeds and times.
fn cosigned_by(cosigners: &[(&str, u8, i64)]) -> String {
    let mut note = checkpoint().sign(&secret(1)).unwrap();
    for (name, seed, seconds) in cosigners {
        let line = cosign(&note.text, name, &secret(*seed), time(*seconds)).unwrap();
        note.signatures.push(line);
    }
    note.to_string()
}

#[test]
fn a_quorum_dates_the_checkpoint() {
    let (log, cosigner) = (secret(1), secret(9));
    let witness = |name: &str, seed| Witness {
        name: name.to_owned(),
        key: secret(seed).public().clone(),
    };
    let witnesses = [witness("w1", 2), witness("w2", 3), witness("w3", 4)];
    let keys = |quorum| CheckpointKeys {
        origin: ORIGIN,
        log: log.public(),
        cosigner: cosigner.public(),
        witnesses: &witnesses,
        quorum,
    };
    let all = cosigned_by(&[("w1", 2, 30), ("w2", 3, 10), ("w3", 4, 20), (ORIGIN, 9, 5)]);
    for (quorum, seconds) in [(0, 5), (1, 30), (2, 20), (3, 10)] {
        assert_eq!(keys(quorum).verify(&all), Ok((checkpoint(), time(seconds))));
    }
    let needed = 4;
    assert_eq!(
        keys(4).verify(&all),
        Err(CheckpointError::Quorum { found: 3, needed })
    );
    assert!(keys(u64::MAX).verify(&all).is_err());

    // The same witness twice, a stranger, and the log itself do not add up to two witnesses.
    let one = cosigned_by(&[("w1", 2, 30), ("w1", 2, 31), ("w9", 8, 32), (ORIGIN, 1, 33)]);
    let needed = 2;
    assert_eq!(
        keys(2).verify(&one),
        Err(CheckpointError::Quorum { found: 1, needed })
    );
    assert!(
        keys(0).verify(&one).is_err(),
        "no witness stands in for the cosigner"
    );
    let twice = [witness("w1", 2), witness("also-w1", 2)];
    let alias = CheckpointKeys {
        witnesses: &twice,
        ..keys(2)
    };
    let both = cosigned_by(&[("w1", 2, 30), ("also-w1", 2, 30)]);
    assert_eq!(
        alias.verify(&both),
        Err(CheckpointError::Quorum { found: 1, needed })
    );
}

#[test]
fn an_agency_s_witness_does_not_count_for_its_own_journal() {
    let (journal, log) = ("jingwei/x/journal/fr.bre/2026", secret(1));
    let witness = |name: &str, seed| Witness {
        name: name.to_owned(),
        key: secret(seed).public().clone(),
    };
    let witnesses = [
        witness("jingwei/x/witness/fr.bre", 2),
        witness("jingwei/x/witness/fr.bre.35", 3),
        witness("jingwei/y/witness/fr.bre", 4),
    ];
    let keys = CheckpointKeys {
        origin: journal,
        log: log.public(),
        cosigner: log.public(),
        witnesses: &witnesses,
        quorum: 2,
    };
    let checkpoint = Checkpoint::new(journal, 0, crate::merkle::empty_root());
    let signed = |own: &[(usize, u8)]| {
        let mut note = checkpoint.sign(&log).unwrap();
        for (at, seed) in own {
            let name = &witnesses[*at].name;
            let line = cosign(&note.text, name, &secret(*seed), time(10)).unwrap();
            note.signatures.push(line);
        }
        note.to_string()
    };
    assert!(keys.verify(&signed(&[(1, 3), (2, 4)])).is_ok());
    let own = keys.verify(&signed(&[(0, 2), (1, 3)]));
    let needed = 2;
    assert_eq!(own, Err(CheckpointError::Quorum { found: 1, needed }));
    // Of the registry's log it is a witness like any other.
    assert!(!is_own("jingwei/x/registry/1", &witnesses[0].name));
    for name in ["w.example", "jingwei/x", "jingwei/x/journal/fr.bre", ""] {
        assert!(!is_own(journal, name), "{name}");
        assert!(!is_own(name, name), "{name}");
    }
}
