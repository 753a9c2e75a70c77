//! A witness signs what grew from what it signed, and nothing else.

use super::*;
use crate::checkpoint::cosign;
use crate::key::{SecretKey, Signer as _};
use crate::merkle::{Edge, leaf_hash};
use crate::note::Algorithm;

const ORIGIN: &str = "example.com/log";

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn key(seed: u8) -> NoteKey {
    NoteKey::new(ORIGIN, Algorithm::Ed25519, secret(seed).public().clone()).unwrap()
}

/// The tree of so many leaves, each of them `word`.
fn tree(word: &[u8], size: u64) -> Seen {
    let mut edge = Edge::new();
    (0..size).for_each(|_| edge.push(leaf_hash(word)));
    Seen {
        size,
        root: edge.root(),
    }
}

fn request(old: u64, proof: Vec<Digest>, tree: &Seen) -> AddCheckpoint {
    let note = Checkpoint::new(ORIGIN, tree.size, tree.root)
        .sign(&secret(1))
        .unwrap();
    AddCheckpoint { old, proof, note }
}

#[test]
fn what_grew_from_the_last_tree_is_co_signed() {
    let (one, two) = (tree(b"a", 1), tree(b"a", 2));
    let keys = [key(1)];
    let judge = |request: AddCheckpoint, seen: &Seen| request.judge(&keys, seen);
    assert_eq!(judge(request(0, vec![], &one), &Seen::nothing()), Ok(one));
    assert_eq!(
        judge(request(1, vec![leaf_hash(b"a")], &two), &one),
        Ok(two)
    );
    // The same once more, as a log does that lost the answer.
    assert_eq!(judge(request(2, vec![], &two), &two), Ok(two));
    // An empty log has one root only.
    let empty = Seen::nothing();
    assert_eq!(judge(request(0, vec![], &empty), &empty), Ok(empty));
}

#[test]
fn every_other_request_is_refused_with_its_status() {
    let (one, two, other) = (tree(b"a", 1), tree(b"a", 2), tree(b"b", 2));
    let hash = leaf_hash(b"a");
    let nothing = Seen::nothing();
    let false_empty = Seen { size: 0, ..one };
    let status = |request: &AddCheckpoint, keys: &[NoteKey], seen: &Seen| {
        request.judge(keys, seen).unwrap_err().status()
    };
    let known = [key(1)];
    let good = request(1, vec![hash], &two);
    assert_eq!(status(&good, &[], &one), 404);
    assert_eq!(status(&good, &[key(2)], &one), 403);
    let mut forged = good.clone();
    forged.note.signatures[0].signature[0] ^= 1;
    assert_eq!(status(&forged, &known, &one), 403);
    // One of two trusted keys has signed, the other is named falsely.
    let mut half = good.clone();
    let mut line = forged.note.signatures[0].clone();
    line.key_hash = key(2).hash();
    half.note.signatures.push(line);
    assert_eq!(half.judge(&known, &one), Ok(two));
    assert_eq!(status(&half, &[key(1), key(2)], &one), 403);

    assert_eq!(status(&request(3, vec![], &two), &known, &one), 400);
    assert_eq!(
        good.judge(&known, &two).unwrap_err(),
        Refusal::Conflict(2),
        "the old size is not the one of the witness"
    );
    assert_eq!(Refusal::Conflict(2).status(), 409);
    assert_eq!(Refusal::Conflict(2).body(), "2\n");

    assert_eq!(status(&request(1, vec![hash], &other), &known, &one), 422);
    assert_eq!(status(&request(1, vec![], &two), &known, &one), 422);
    assert_eq!(status(&request(2, vec![], &other), &known, &two), 422);
    assert_eq!(status(&request(2, vec![hash], &two), &known, &two), 422);
    assert_eq!(status(&request(0, vec![hash], &two), &known, &nothing), 422);
    assert_eq!(
        status(&request(0, vec![], &false_empty), &known, &nothing),
        422
    );
}

#[test]
fn a_request_has_one_form() {
    let text = request(1, vec![leaf_hash(b"a")], &tree(b"a", 2)).to_string();
    let parsed = AddCheckpoint::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.to_string(), text);
    for (from, to) in [
        ("old 1", "old 01"),
        ("old 1", "old +1"),
        ("old 1", "old  1"),
        ("old 1", "old 1 "),
        ("old 1", "old -1"),
        ("old 1", "Old 1"),
        ("old 1", "old"),
        ("old 1\n", ""),
        ("old 1", "old 18446744073709551616"),
        ("old 1", "\nold 1"),
        ("old 1", "old 1\n?"),
        ("old 1", "old 1\nAAAA"),
        ("\n\n", "\n"),
        ("\n\n", "\n\n\n"),
        ("\n", "\r\n"),
        ("\n2\n", "\n02\n"),
        ("— ", "- "),
        // From here on what fuzzing took for new.
        ("old 1", "old \n1"),
        ("old 1", "old 1\0"),
        ("old 1", "old -"),
        ("old 1\n", "old 1\n\n"),
        ("=\n\nexample", "\n\nexample"),
        ("\n\nexample", "\n\n\0example"),
        ("\n\nexample", "\n\n\u{1b}[2Jexample"),
        ("\nexample.com/log\n", "\n"),
        ("=\n\n— ", "\n\n— "),
        ("=\n\n— ", "==\n\n— "),
        ("— example.com/log ", "— example.com/log"),
        ("— example.com/log ", "— example.com/log+1 "),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{from}");
        let refusal = AddCheckpoint::parse(bad.as_bytes()).unwrap_err();
        assert_eq!(refusal.status(), 400, "{bad}");
    }
    assert!(AddCheckpoint::parse(text.trim_end().as_bytes()).is_err());
    assert!(AddCheckpoint::parse(b"").is_err());
    assert!(AddCheckpoint::parse(&[text.as_bytes(), b"\xff"].concat()).is_err());
    let hashes = |n| request(1, vec![leaf_hash(b"a"); n], &tree(b"a", 2)).to_string();
    assert!(AddCheckpoint::parse(hashes(63).as_bytes()).is_ok());
    assert!(AddCheckpoint::parse(hashes(64).as_bytes()).is_err());
    let long = text.replace("old 1\n", &format!("old 1\n{}\n", "A".repeat(MAX_REQUEST)));
    assert!(AddCheckpoint::parse(long.as_bytes()).is_err());
}

#[test]
fn an_answer_counts_by_its_witness_s_key_alone() {
    let note = request(0, vec![], &tree(b"a", 1)).note;
    let witness = |seed: u8| {
        let public = secret(seed).public().clone();
        NoteKey::new("witness", Algorithm::CosignatureV1, public).unwrap()
    };
    let line = |seed: u8, seconds| {
        let time = Time::from_seconds(seconds).unwrap();
        cosign(&note.text, "witness", &secret(seed), time).unwrap()
    };
    let answer = format!("{}\n{}\n", line(4, 7), line(3, 5));
    let read = |answer: &str, key: &NoteKey| read_cosignature(answer, &note.text, key);
    assert_eq!(
        read(&answer, &witness(3)),
        Ok((line(3, 5), Time::from_seconds(5).unwrap()))
    );
    assert!(matches!(
        read(&answer, &witness(5)),
        Err(NoteError::Unsigned(_))
    ));
    let other = request(0, vec![], &tree(b"b", 1)).note;
    assert!(matches!(
        read_cosignature(&answer, &other.text, &witness(3)),
        Err(NoteError::Forged(_))
    ));
    assert!(read(&format!("{}\n", line(3, 0)), &witness(3)).is_err());
    assert!(read("", &witness(3)).is_err());
    assert!(read("no signature\n", &witness(3)).is_err());
    // Its own signature, but over a text that goes on: with an empty line, or with other lines.
    for more in ["\n".to_owned(), format!("\n{}\n", line(4, 7))] {
        let signed = format!("cosignature/v1\ntime 5\n{}{more}", note.text);
        let over_more = NoteSignature {
            signature: [&5_i64.to_be_bytes(), &secret(3).sign(signed.as_bytes())[..]].concat(),
            ..line(3, 5)
        };
        let answer = format!("{}\n{over_more}\n", &more[1..]);
        assert!(matches!(
            read(&answer, &witness(3)),
            Err(NoteError::Malformed(_))
        ));
    }
    // Two of one key: the latest counts.
    let twice = format!("{}\n{}\n", line(3, 5), line(3, 9));
    assert_eq!(read(&twice, &witness(3)).unwrap().0, line(3, 9));

    assert_eq!(read_size("0\n"), Some(0));
    assert_eq!(read_size("20852014\n"), Some(20_852_014));
    for bad in ["", "\n", "1", "01\n", "1\n\n", "-1\n", "1 \n"] {
        assert_eq!(read_size(bad), None, "{bad:?}");
    }
}
