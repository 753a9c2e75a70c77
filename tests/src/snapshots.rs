//! Log time as a test wants it: snapshots signed with the registry's own key.

use std::collections::BTreeMap;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::snapshot::Tree;
use jingwei_proto::state;
use jingwei_proto::statement::{Head, Predicate, Snapshot, Statement};
use jingwei_proto::time::Time;
use jingwei_registry::fault::Blame;
use jingwei_registry::keyfile;

use crate::local::runtime;
use crate::reading::LogFiles;
use crate::registry::Registry;

/// Enters a snapshot with the given time, which becomes log time; returns its index.
#[track_caller]
pub fn set_log_time(registry: &Registry, seconds: i64) -> u64 {
    loop {
        let log = LogFiles::read(&registry.dir.join("log"));
        let snapshot = snapshot(registry, seconds, state_of(&log));
        match runtime().block_on(registry.submitter().submit(&snapshot)) {
            Ok(accepted) => return accepted.index,
            // Somebody else's statement came in between, and another size is due.
            Err(fault) if fault.blame == Blame::Stale => {}
            Err(fault) => panic!("the snapshot was not entered: {fault}"),
        }
    }
}

/// The Merkle root over the state, from the log's files alone.
pub fn state_of(log: &LogFiles) -> Digest {
    let mut state = BTreeMap::new();
    for (index, bytes) in (0..).zip(&log.envelopes) {
        let envelope = Envelope::parse(bytes).expect("an envelope");
        let change = state::apply(&state, index, &envelope).expect("an admitted statement");
        change.write_to(&mut state);
    }
    state.iter().collect::<Tree>().root()
}

/// The next snapshot, which says that it is of `state`.
pub fn snapshot(registry: &Registry, seconds: i64, state: Digest) -> Envelope {
    let log = LogFiles::read(&registry.dir.join("log"));
    let envelopes = log
        .envelopes
        .iter()
        .map(|bytes| Envelope::parse(bytes).expect("an envelope"));
    let mut snapshots = envelopes.filter_map(|envelope| {
        let statement = Statement::parse(envelope.payload()).ok()?;
        let is_one = matches!(statement.predicate, Predicate::Snapshot(_));
        is_one.then(|| (statement.head.sequence, envelope.payload_digest()))
    });
    let last = snapshots.next_back();
    let statement = Statement {
        head: Head {
            federation: registry.federation.parse().expect("init prints an id"),
            agency: None,
            time: Time::from_seconds(seconds).expect("a time of this century"),
            sequence: last.map_or(1, |(sequence, _)| sequence + 1),
            previous: last.map(|(_, digest)| digest),
        },
        predicate: Predicate::Snapshot(Snapshot {
            size: log.envelopes.len() as u64,
            state,
        }),
    };
    let key = keyfile::load(&registry.dir.join("keys/log.pem")).expect("init makes the key");
    statement.sign(&key)
}
