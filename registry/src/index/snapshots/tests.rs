//! The tree follows the state; proofs are of the newest snapshot, whatever came after it.

use std::path::PathBuf;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::SecretKey;
use jingwei_proto::state::{self, RootRecord, TimeRecord, keys, record};
use jingwei_proto::statement::{Head, Predicate, Statement};
use jingwei_proto::time::Time;

use super::*;
use crate::disk::Disk;
use crate::found::{Plan, found};
use crate::keyfile;
use crate::log::{Log, LogReader};
use crate::registry::Paths;

/// A federation of nothing but its root, and snapshots that its registry signs.
struct World {
    _dir: tempfile::TempDir,
    log: LogReader,
    path: PathBuf,
    key: SecretKey,
    federation: jingwei_proto::id::FederationId,
    /// The state by a fold of its own.
    state: BTreeMap<String, Vec<u8>>,
    last: Option<(u64, Digest)>,
    size: u64,
}

fn seconds(seconds: i64) -> Time {
    Time::from_seconds(seconds).unwrap()
}

impl World {
    fn found() -> World {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("registry");
        let founded = found(&place, &Plan::new("test", 1, 1), seconds(1), Disk::new()).unwrap();
        let paths = Paths::new(&place);
        let origin = founded.federation.registry_origin(1);
        let log = Log::open(&paths.log(), Disk::new(), &origin).unwrap();
        let root = log.reader().envelopes(0..1).unwrap().next().unwrap();
        let root = Envelope::parse(&root.unwrap()).unwrap();
        let mut state = BTreeMap::new();
        let change = state::apply(&state, 0, &root).unwrap();
        change.write_to(&mut state);
        World {
            log: log.reader(),
            path: paths.index(),
            key: keyfile::load(&paths.log_key()).unwrap(),
            federation: founded.federation,
            _dir: dir,
            state,
            last: None,
            size: 1,
        }
    }

    fn open(&self) -> Index {
        let index = Index::open_at(&self.path).unwrap();
        if index.size().unwrap() == 0 {
            index.catch_up(&self.log).unwrap();
        }
        index
    }

    /// The root over the state, without the index.
    fn root(&self) -> Digest {
        self.state.iter().collect::<Tree>().root()
    }

    fn snapshot(&self, state: Digest) -> Envelope {
        let statement = Statement {
            head: Head {
                federation: self.federation.clone(),
                agency: None,
                time: seconds(10 + self.size as i64),
                sequence: self.last.map_or(1, |(sequence, _)| sequence + 1),
                previous: self.last.map(|(_, digest)| digest),
            },
            predicate: Predicate::Snapshot(Snapshot {
                size: self.size,
                state,
            }),
        };
        statement.sign(&self.key)
    }

    /// A right snapshot, in the index and in the state here.
    fn take_snapshot(&mut self, index: &Index) -> Digest {
        let root = self.root();
        let envelope = self.snapshot(root);
        index
            .fold(self.size, std::slice::from_ref(&envelope))
            .unwrap();
        assert_eq!(index.rejected().next(), None);
        let change = state::apply(&self.state, self.size, &envelope).unwrap();
        change.write_to(&mut self.state);
        self.last = Some((
            self.last.map_or(1, |(sequence, _)| sequence + 1),
            envelope.payload_digest(),
        ));
        self.size += 1;
        root
    }
}

/// What the newest snapshot shows of one key, and its place.
fn shown<T: serde::de::DeserializeOwned>(
    index: &Index,
    key: &str,
    root: &Digest,
) -> (u64, Option<T>) {
    let (place, proofs) = index
        .prove(|_| BTreeSet::from([key.to_owned()]))
        .unwrap()
        .unwrap();
    let found = proofs[key].verify(key, root).unwrap();
    (place, found.map(|bytes| record(bytes).unwrap()))
}

fn time_at(index: &Index, root: &Digest) -> (u64, Option<Time>) {
    let (place, time) = shown::<TimeRecord>(index, keys::TIME, root);
    (place, time.map(|record| record.time))
}

#[test]
fn a_snapshot_must_name_the_state_that_the_entries_lead_to() {
    let mut world = World::found();
    let index = world.open();
    assert_eq!(index.state_root().unwrap(), world.root());
    let wrong = world.snapshot(Digest::of(b"another state"));
    index.fold(1, &[wrong]).unwrap();
    let rejected: Vec<_> = index.rejected().collect();
    assert_eq!(rejected.len(), 1);
    assert!(
        rejected[0].reason.contains("names the state"),
        "{rejected:?}"
    );
    index.settle(1).unwrap();
    // It takes its place in the log, and says nothing.
    assert_eq!(index.size().unwrap(), 2);
    assert!(index.log_time().unwrap().is_none());
    assert!(index.prove(|_| BTreeSet::new()).unwrap().is_none());
    world.size = 2;
    world.take_snapshot(&index);
    assert_eq!(index.log_time().unwrap().unwrap().time, seconds(12));
    assert_eq!(index.state_root().unwrap(), world.root());
}

#[test]
fn proofs_are_of_the_newest_snapshot_whatever_came_after_it() {
    let mut world = World::found();
    let index = world.open();
    let first = world.take_snapshot(&index);
    // The snapshot itself is what changed the time, and is not in its own state.
    assert_eq!(time_at(&index, &first), (1, None));
    let second = world.take_snapshot(&index);
    assert_eq!(time_at(&index, &second), (2, Some(seconds(11))));
    // To ask for the next root makes no snapshot.
    assert_eq!(index.state_root().unwrap(), world.root());
    assert_eq!(time_at(&index, &second), (2, Some(seconds(11))));
    drop(index);
    let index = world.open();
    assert_eq!(time_at(&index, &second), (2, Some(seconds(11))));
    assert_eq!(index.state_root().unwrap(), world.root());
    let third = world.take_snapshot(&index);
    assert_eq!(time_at(&index, &third), (3, Some(seconds(12))));
    let (_, root) = shown::<RootRecord>(&index, keys::ROOT, &third);
    let chain = |root: Option<RootRecord>| root.unwrap().chain;
    assert_eq!(chain(root), chain(index.root().unwrap()));
}

#[test]
fn an_index_built_at_once_is_one_built_entry_by_entry() {
    let mut world = World::found();
    let index = world.open();
    let mut envelopes = Vec::new();
    for _ in 0..5 {
        envelopes.push(world.snapshot(world.root()));
        world.take_snapshot(&index);
    }
    let other = tempfile::tempdir().unwrap();
    let anew = Index::open_at(other.path()).unwrap();
    anew.catch_up(&world.log).unwrap();
    anew.fold(1, &envelopes).unwrap();
    assert_eq!(anew.rejected().next(), None);
    assert_eq!(anew.state_root().unwrap(), index.state_root().unwrap());
    let root = by_snapshot(&envelopes[4]);
    assert_eq!(time_at(&anew, &root), time_at(&index, &root));
}

fn by_snapshot(envelope: &Envelope) -> Digest {
    Snapshot::of(envelope).unwrap().state
}
