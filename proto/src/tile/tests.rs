//! Tests of tiles against a naive model of the tree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::merkle::{self, Edge, HashReader as _, leaf_hash};

/// Sizes around those where a tile fills up or a level begins.
const SIZES: [u64; 12] = [
    0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000,
];

fn hash_tile(level: u8, index: u64, width: u16) -> TilePath {
    TilePath {
        kind: TileKind::Hash { level },
        index,
        width,
    }
}

/// All tiles of a log of `size` entries, straight from the sentence of the specification:
/// a tile at level l has `floor(s / 256^l)` hashes, 256 a tile.
fn naive_tiles(size: u64) -> Vec<TilePath> {
    let mut tiles = Vec::new();
    let (mut level, mut count) = (0, size);
    while count > 0 {
        for index in 0..=(count - 1) / 256 {
            tiles.push(hash_tile(level, index, 256.min(count - index * 256) as u16));
        }
        count /= 256;
        level += 1;
    }
    tiles
}

/// The tree's hashes at the levels that tiles hold, as a writer would collect them.
fn levels(size: u64) -> (Vec<Vec<Digest>>, Edge) {
    let mut levels = vec![Vec::new(); 8];
    let mut edge = Edge::new();
    for i in 0..size {
        edge.push_each(leaf_hash(&i.to_be_bytes()), |level, _, hash| {
            if level % HEIGHT == 0 {
                levels[usize::from(level / HEIGHT)].push(*hash);
            }
        });
    }
    (levels, edge)
}

fn stored(size: u64, levels: &[Vec<Digest>]) -> BTreeMap<TilePath, Vec<u8>> {
    naive_tiles(size)
        .into_iter()
        .map(|path| {
            let TileKind::Hash { level } = path.kind else {
                unreachable!()
            };
            let start = path.index as usize * 256;
            let hashes = &levels[usize::from(level)][start..start + usize::from(path.width)];
            (path, encode_hashes(hashes))
        })
        .collect()
}

#[test]
fn paths_of_the_specification() {
    let with_index = |index| hash_tile(0, index, 256).to_string();
    assert_eq!(with_index(0), "tile/0/000");
    assert_eq!(with_index(999), "tile/0/999");
    assert_eq!(with_index(1000), "tile/0/x001/000");
    // The example of C2SP tlog-tiles.
    assert_eq!(with_index(1_234_067), "tile/0/x001/x234/067");
    assert_eq!(
        with_index(u64::MAX),
        "tile/0/x018/x446/x744/x073/x709/x551/615"
    );
    assert_eq!(hash_tile(3, 1234, 7).to_string(), "tile/3/x001/234.p/7");
    let entries = TilePath {
        kind: TileKind::Entries,
        index: 5,
        width: 255,
    };
    assert_eq!(entries.to_string(), "tile/entries/005.p/255");
    let envelopes = TilePath {
        kind: TileKind::Envelopes,
        index: 5,
        width: 256,
    };
    assert_eq!(envelopes.to_string(), "tile/envelopes/005");
    assert_eq!(entries.full().to_string(), "tile/entries/005");
    assert_eq!("tile/63/000".parse(), Ok(hash_tile(63, 0, 256)));
}

#[test]
fn other_spellings_are_refused() {
    for text in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/0",
        "tile/0/1000",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/x001",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/+01",
        "tile/0/000/",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/+1",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/1/",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/data/000",
        "tile/Entries/000",
        "tile/0/../0/000",
        // From here on what fuzzing took for new, and its like.
        "tile//000",
        "tile/6\r/000",
        "tile/0\0/000",
        "tile/256/000",
        "tile/0/00/",
        "tile/0/x/x7",
        "tile/0/x001x234",
        "tile/0/18446744073709551615",
        "tile/0/\u{660}\u{660}\u{660}",
        "tile/0/.p/7",
        "tile/0/000.p/65537",
    ] {
        assert_eq!(text.parse::<TilePath>(), Err(TileError::Path), "{text:?}");
    }
}

/// Inputs that fuzzing took for new, and their like: paths in their one spelling, of tiles that no log has.
#[test]
fn paths_beyond_the_largest_log_are_read() {
    let in_the_largest = |text: &str| {
        let path: TilePath = text.parse().unwrap();
        assert_eq!(path.to_string(), text);
        TilePath::in_log(path.kind, path.index, u64::MAX) == Some(path)
    };
    for text in [
        "tile/7/000.p/255",
        "tile/entries/x072/x057/x594/x037/x927/935.p/255",
    ] {
        assert!(in_the_largest(text), "{text}");
    }
    for text in [
        "tile/7/000",
        "tile/8/000.p/1",
        "tile/63/x018/x446/x744/x073/x709/x551/615",
        "tile/0/x072/x057/x594/x037/x927/935",
        "tile/entries/x072/x057/x594/x037/x927/936.p/1",
    ] {
        assert!(!in_the_largest(text), "{text}");
    }
}

#[test]
fn growing_writes_exactly_what_is_new() {
    for old in SIZES {
        for new in SIZES {
            let before = naive_tiles(old);
            let expected: Vec<_> = naive_tiles(new)
                .into_iter()
                .filter(|path| new > old && !before.contains(path))
                .collect();
            assert_eq!(
                hash_tiles(old, new).collect::<Vec<_>>(),
                expected,
                "{old} {new}"
            );
            for kind in [TileKind::Entries, TileKind::Envelopes] {
                let level_0 = expected
                    .iter()
                    .filter(|path| path.kind == TileKind::Hash { level: 0 })
                    .map(|path| TilePath { kind, ..*path });
                assert!(bundles(kind, old, new).eq(level_0), "{old} {new}");
            }
        }
    }
}

#[test]
fn the_specification_s_tree_of_70_000() {
    let tiles: Vec<_> = hash_tiles(0, 70_000).collect();
    let of = |level, full| {
        tiles
            .iter()
            .filter(|t| t.kind == TileKind::Hash { level } && t.is_full() == full)
            .map(|t| t.width)
            .collect::<Vec<_>>()
    };
    assert_eq!((of(0, true).len(), of(0, false)), (273, vec![112]));
    assert_eq!((of(1, true).len(), of(1, false)), (1, vec![17]));
    assert_eq!((of(2, true).len(), of(2, false)), (0, vec![1]));
    assert_eq!(tiles.len(), 273 + 1 + 1 + 1 + 1);
    // A huge size costs nothing until it is walked.
    assert_eq!(hash_tiles(0, u64::MAX).next(), Some(hash_tile(0, 0, 256)));
    assert_eq!(hash_tiles(u64::MAX - 1, u64::MAX).count(), 1);
}

#[test]
fn roots_and_proofs_from_tiles() {
    for size in SIZES {
        let (levels, edge) = levels(size);
        let tiles = stored(size, &levels);
        let reader = TileReader::new(size, |path| tiles.get(path).cloned().ok_or("missing"));
        assert_eq!(merkle::root(&reader, size), Ok(edge.root()));
        assert_eq!(Edge::from_reader(size, &reader).as_ref(), Ok(&edge));
        for index in [0, size / 3, size / 2, size.saturating_sub(1)] {
            if index >= size {
                continue;
            }
            let proof = merkle::inclusion_proof(&reader, index, size).unwrap();
            let leaf = leaf_hash(&index.to_be_bytes());
            merkle::verify_inclusion(&leaf, index, size, &proof, &edge.root()).unwrap();
            let proof = merkle::consistency_proof(&reader, index, size).unwrap();
            let old_root = merkle::root(&reader, index).unwrap();
            merkle::verify_consistency(index, size, &old_root, &edge.root(), &proof).unwrap();

            let wanted = WantedTiles::new(size);
            let Ok(_) = merkle::inclusion_proof(&wanted, index, size);
            assert!(wanted.paths().iter().all(|path| tiles.contains_key(path)));
            let some = |path: &TilePath| wanted.paths().contains(path).then(|| tiles[path].clone());
            let reader = TileReader::new(size, |path| some(path).ok_or("not wanted"));
            assert!(merkle::inclusion_proof(&reader, index, size).is_ok());
        }
    }
}

#[test]
fn bad_tiles_are_named() {
    let path = hash_tile(0, 0, 3);
    let short = TileReader::new(3, |_: &TilePath| Ok::<_, &str>(vec![0; 95]));
    let error = TileError::Width { expected: 3 };
    assert_eq!(
        short.hash(0, 0),
        Err(TileReadError::Malformed { path, error })
    );
    let none = TileReader::new(3, |_: &TilePath| Err("gone"));
    assert_eq!(
        none.hash(1, 0),
        Err(TileReadError::Fetch {
            path,
            error: "gone"
        })
    );
    assert_eq!(
        none.hash(1, 1),
        Err(TileReadError::Absent {
            level: 1,
            index: 1,
            size: 3
        })
    );
    assert!(none.hash(200, 0).is_err());
    assert_eq!(location(63, 1, u64::MAX), None);
    assert!(location(63, 0, u64::MAX).is_some());
    assert_eq!(location(0, u64::MAX, u64::MAX), None);
    assert!(parse_hashes(&[0; 97], 3).is_err());
    assert!(parse_hashes(&[0; 128], 3).is_err());
}

#[test]
fn bundles_have_the_settled_bytes() {
    let entries: [&[u8]; 3] = [b"ab", b"", b"c"];
    let encoded = encode_bundle(TileKind::Entries, &entries).unwrap();
    assert_eq!(encoded, b"\0\x02ab\0\0\0\x01c");
    let encoded = encode_bundle(TileKind::Envelopes, &entries).unwrap();
    assert_eq!(encoded, b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
    let hash = TileKind::Hash { level: 0 };
    assert_eq!(encode_bundle(hash, &entries), Err(TileError::NotABundle));
    assert_eq!(decode_bundle(hash, b"", 1), Err(TileError::NotABundle));
    let too_long = TileError::EntryLength {
        length: 65_536,
        most: 65_535,
    };
    assert_eq!(
        encode_bundle(TileKind::Entries, &[vec![0; 65_536]]),
        Err(too_long)
    );
    let most = MAX_ENVELOPE;
    let too_long = TileError::EntryLength {
        length: most + 1,
        most,
    };
    assert_eq!(
        encode_bundle(TileKind::Envelopes, &[vec![0; most + 1]]),
        Err(too_long.clone())
    );
    assert_eq!(
        decode_bundle(TileKind::Envelopes, &[0, 4, 0, 1], 1),
        Err(too_long)
    );
}

/// Inputs that fuzzing took for new, and their like: lengths that are not what they seem.
#[test]
fn a_bundle_is_as_long_as_its_lengths_say() {
    type Read = (TileKind, u16, &'static [u8], &'static [&'static [u8]]);
    const EMPTY: &[u8] = b"";
    let (entries, envelopes) = (TileKind::Entries, TileKind::Envelopes);
    let read: [Read; 6] = [
        (entries, 0, b"", &[]),
        (entries, 1, b"\0\0", &[EMPTY]),
        (entries, 2, b"\0\0\0\0", &[EMPTY, EMPTY]),
        (entries, 1, b"\0\x02\0\x03", &[b"\0\x03"]),
        (entries, 256, &[0; 512], &[EMPTY; 256]),
        (envelopes, 1, b"\0\0\0\0", &[EMPTY]),
    ];
    for (kind, width, bytes, parts) in read {
        assert_eq!(decode_bundle(kind, bytes, width).as_deref(), Ok(parts));
        assert_eq!(encode_bundle(kind, parts).as_deref(), Ok(bytes));
    }
    let refused: [(TileKind, u16, &[u8]); 9] = [
        (entries, 0, b"\0"),
        (entries, 1, b"\0\0\0"),
        (entries, 2, b"\0\0\0"),
        (entries, 2, b"\0\x02\0\x03"),
        (entries, 1, b"\0\x03de"),
        (entries, 1, b"\xff\xff"),
        (entries, 256, &[0; 514]),
        (envelopes, 1, b"\0\x04\0\0"),
        (envelopes, 1, b"\0\0\0\0\xff\xff\xff\xff"),
    ];
    for (kind, width, bytes) in refused {
        let wrong = TileError::Width { expected: width };
        assert_eq!(decode_bundle(kind, bytes, width), Err(wrong), "{bytes:?}");
    }
    assert_eq!(
        decode_bundle(envelopes, b"\0\0\0\0\xff\xff\xff\xff", 2),
        Err(TileError::EntryLength {
            length: 0xffff_ffff,
            most: MAX_ENVELOPE,
        })
    );
    assert_eq!(parse_hashes(b"", 0), Ok(vec![]));
    assert_eq!(parse_hashes(&[0; 32], 1), Ok(vec![Digest([0; 32])]));
    for (bytes, width) in [(0, 1), (32, 0), (32, 256), (8224, 256)] {
        let wrong = TileError::Width { expected: width };
        assert_eq!(parse_hashes(&vec![0; bytes], width), Err(wrong));
    }
}

proptest! {
    #[test]
    fn paths_print_as_they_are_read(
        level in 0u8..64, index in any::<u64>(), shift in 0u32..64, width in 1u16..=256, kind in 0..3
    ) {
        let kind = match kind {
            0 => TileKind::Hash { level },
            1 => TileKind::Entries,
            _ => TileKind::Envelopes,
        };
        let path = TilePath { kind, index: index >> shift, width };
        prop_assert_eq!(path.to_string().parse(), Ok(path));
    }

    #[test]
    fn any_text_is_refused_or_prints_as_it_was_read(text in "tile/[0-9a-z]{1,9}/[x0-9/.p+]{0,12}") {
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn bundles_round_trip_and_cut_ones_are_refused(
        entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20)
    ) {
        let width = entries.len() as u16;
        for kind in [TileKind::Entries, TileKind::Envelopes] {
            let bytes = encode_bundle(kind, &entries).unwrap();
            prop_assert_eq!(decode_bundle(kind, &bytes, width).unwrap(), entries.clone());
            for cut in 0..bytes.len() {
                prop_assert!(decode_bundle(kind, &bytes[..cut], width).is_err());
            }
            prop_assert!(decode_bundle(kind, &bytes, width + 1).is_err());
            prop_assert!(decode_bundle(kind, &bytes, width - 1).is_err());
        }
    }
}
