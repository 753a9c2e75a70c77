//! Proofs of presence and of absence say what the state says, and nothing else.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type State = BTreeMap<String, Vec<u8>>;

fn tree<'a>(state: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Tree {
    state.into_iter().collect()
}

fn prove(state: &State, key: &str) -> Proof {
    tree(state).prove(key, state.get(key).map(Vec::as_slice))
}

fn some_state(records: u64) -> State {
    (0..records)
        .map(|n| {
            (
                format!("agency/a{n}"),
                format!("{{\"n\":{n}}}").into_bytes(),
            )
        })
        .collect()
}

/// The root as the module's text says it, from the state alone.
fn by_the_book(state: &State) -> Digest {
    let mut rows: Vec<Row> = state
        .iter()
        .map(|(key, record)| Row::of(key, record))
        .collect();
    rows.sort();
    let mut bytes: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    for row in &rows {
        let hash = row.key.as_bytes();
        let own = bytes
            .entry(u16::from_be_bytes([hash[0], hash[1]]))
            .or_default();
        own.extend([*hash, *row.record.as_bytes()].concat());
    }
    let mut edge = merkle::Edge::new();
    for number in 0..=u16::MAX {
        edge.push(leaf_hash(bytes.get(&number).map_or(&[][..], Vec::as_slice)));
    }
    edge.root()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever happened to the state, each key has a proof that says what the map says.
    #[test]
    fn proofs_say_what_the_map_says(
        changes in prop::collection::vec(("[a-f]{1,2}", prop::option::of("[0-9]{0,2}")), 0..60),
        asked in "[a-g]{1,2}",
    ) {
        let (mut state, mut tree) = (State::new(), Tree::default());
        for (key, record) in changes {
            tree.set(&key, record.as_deref().map(str::as_bytes));
            match record {
                Some(record) => drop(state.insert(key, record.into_bytes())),
                None => drop(state.remove(&key)),
            }
        }
        let root = tree.root();
        prop_assert_eq!(root, by_the_book(&state));
        for key in state.keys().chain([&asked]) {
            let proof = tree.prove(key, state.get(key).map(Vec::as_slice));
            prop_assert_eq!(proof.verify(key, &root), Ok(state.get(key).map(Vec::as_slice)));
        }
    }
}

#[test]
fn the_root_follows_from_the_state_alone() {
    let state = some_state(3_000);
    let root = tree(&state).root();
    assert_eq!(root, by_the_book(&state));
    assert_eq!(tree(state.iter().rev()).root(), root);
    let mut other = tree(&state);
    other.set("agency/a7", None);
    assert_ne!(other.root(), root);
    other.set("agency/a7", Some(b"{\"n\":7}"));
    assert_eq!(other.root(), root);
}

#[test]
fn no_change_to_a_proof_is_accepted() {
    let state = some_state(3_000);
    let root = tree(&state).root();
    let mut whole = tree(&state);
    // A key that shares its bucket with another.
    let numbers = state.keys().map(|key| bucket(&Digest::of(key.as_bytes())));
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    let shared = numbers.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0];
    let mut keys = state.keys();
    let key = keys.find(|key| bucket(&Digest::of(key.as_bytes())) == shared);
    let key = key.unwrap().clone();
    let present = whole.prove(&key, state.get(&key).map(Vec::as_slice));
    assert!(present.rows.len() > 1);
    let with = |change: &dyn Fn(&mut Proof)| {
        let mut changed = present.clone();
        change(&mut changed);
        changed.verify(&key, &root).map(|_| ())
    };
    let record = Err(ProofError::Record(key.clone()));
    assert_eq!(with(&|_| ()), Ok(()));
    assert_eq!(
        with(&|proof| proof.record = Some("{\"n\":-1}".to_owned())),
        record
    );
    assert_eq!(with(&|proof| proof.record = None), record);
    for place in 0..present.rows.len() {
        let gone = with(&|proof| _ = proof.rows.remove(place));
        assert!(matches!(gone, Err(ProofError::Bucket { .. })));
    }
    assert!(with(&|proof| proof.rows.reverse()).is_err());
    assert!(with(&|proof| proof.hashes.swap(3, 4)).is_err());
    assert!(with(&|proof| proof.hashes.truncate(15)).is_err());
    // It is a proof for its own key only.
    assert!(present.verify("agency/none", &root).is_err());
    let mut absent = prove(&state, "agency/none");
    assert_eq!(absent.verify("agency/none", &root), Ok(None));
    absent.record = Some("{}".to_owned());
    assert!(absent.verify("agency/none", &root).is_err());
}

#[test]
fn an_empty_state_has_nothing() {
    let state = State::new();
    let root = tree(&state).root();
    assert_eq!(root, by_the_book(&state));
    assert_eq!(prove(&state, "root").verify("root", &root), Ok(None));
}
