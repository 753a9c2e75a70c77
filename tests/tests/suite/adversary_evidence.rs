//! Evidence that somebody has changed: never valid, whatever the change.

use jingwei_proto::digest::Digest;
use jingwei_proto::evidence::{Writer, read_archive, verify};
use jingwei_tests::seeded::Seeded;

use crate::pair::Pair;

/// Evidence of an answer from two agencies, made by the program, and the root to verify it by.
fn sample() -> (Vec<u8>, Digest) {
    let pair = Pair::shared();
    // Of another name each time: tests run at once.
    let name = format!("flip-{:?}.evidence", std::thread::current().id()).replace(['(', ')'], "");
    let sql = "SELECT p.name, o.people FROM aa.places p LEFT JOIN bb.open o ON p.code = o.code";
    pair.b.sql(sql, &["--save", &name]).ok();
    let root = pair.federation.registry.root();
    let bytes = std::fs::read(pair.b.work.join(name)).unwrap();
    verify(&bytes[..], &root).unwrap();
    (bytes, root)
}

#[test]
fn one_flipped_bit_at_a_thousand_places_is_always_noticed() {
    let (bytes, root) = sample();
    let mut random = Seeded::new(20_251_001);
    for _ in 0..1_000 {
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        let mut changed = bytes.clone();
        changed[at] ^= 1 << bit;
        let verdict = verify(&changed[..], &root);
        assert!(
            verdict.is_err(),
            "bit {bit} of byte {at} of {} was flipped unnoticed",
            bytes.len()
        );
    }
}

#[test]
fn a_cut_or_longer_file_is_noticed() {
    let (bytes, root) = sample();
    let mut random = Seeded::new(7);
    for _ in 0..100 {
        let end = random.below(bytes.len());
        assert!(
            verify(&bytes[..end], &root).is_err(),
            "cut after {end} bytes"
        );
    }
    for more in [&[0][..], &[0; 512], &[1; 10_240]] {
        assert!(verify(&[&bytes[..], more].concat()[..], &root).is_err());
    }
    assert!(verify(&[][..], &root).is_err());
}

#[test]
fn members_dropped_swapped_or_repeated_are_noticed() {
    let (bytes, root) = sample();
    // Answers are not kept in memory by the reader, so that the archive is taken apart here.
    let members = parts(&bytes);
    assert_eq!(members.len(), read_archive(&bytes[..]).unwrap().len());
    let pack = |members: &[(String, Vec<u8>)]| {
        let mut writer = Writer::new(Vec::new());
        for (name, content) in members {
            writer
                .member(name, content.len() as u64, &content[..])
                .unwrap();
        }
        writer.finish().unwrap()
    };
    assert_eq!(pack(&members), bytes, "an archive has one form");
    for at in 0..members.len() {
        let mut dropped = members.clone();
        dropped.remove(at);
        assert!(
            verify(&pack(&dropped)[..], &root).is_err(),
            "without {}",
            members[at].0
        );
        let mut twice = members.clone();
        twice.insert(at, members[at].clone());
        assert!(
            verify(&pack(&twice)[..], &root).is_err(),
            "{} twice",
            members[at].0
        );
        if at > 0 {
            let mut swapped = members.clone();
            swapped.swap(at - 1, at);
            assert!(
                verify(&pack(&swapped)[..], &root).is_err(),
                "{} earlier",
                members[at].0
            );
        }
    }
}

/// Names and contents of a ustar archive.
fn parts(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parts = Vec::new();
    while bytes[0] != 0 {
        let name = String::from_utf8(
            bytes[..100]
                .iter()
                .copied()
                .take_while(|byte| *byte != 0)
                .collect(),
        )
        .unwrap();
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[124..135]).unwrap(), 8).unwrap();
        parts.push((name, bytes[512..512 + size].to_vec()));
        bytes = &bytes[512 + size.next_multiple_of(512)..];
    }
    parts
}
