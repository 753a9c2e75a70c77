//! That the file leaves nothing out: before a snapshot of the log, nothing happened to the root and
//! the agencies but what the statements show.
//!
//! Each change of an agency stands in the state under a number, and each root under its version.
//! So two proofs for each of them are enough: the last one shown is there, just as it is shown, and
//! under the number after it there is nothing.

use std::collections::BTreeMap;

use super::SNAPSHOT;
use super::archive::Member;
use super::members::Members;
use super::verify::{Invalid, invalid};
use crate::id::AgencyId;
use crate::snapshot::Proof;
use crate::state::{RootRecord, keys};
use crate::time::Time;

/// Up to where the file is proved to show all that happened to its root and agencies: no key was
/// replaced, and nobody suspended or revoked, without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The entry before which that is so: the snapshot's.
    pub index: u64,
    /// The snapshot's time.
    pub time: Time,
}

/// The keys to be proved from the state at entry `snapshot`, and whether something stands there:
/// `roots` are the places of all versions of the root, and `changes` those of the changes of each
/// agency. Of each the last one before the snapshot is present, and the next one absent.
pub fn wanted<'a>(
    snapshot: u64,
    roots: &[u64],
    changes: impl IntoIterator<Item = (&'a AgencyId, Vec<u64>)>,
) -> BTreeMap<String, bool> {
    let before = |places: &[u64]| places.iter().filter(|place| **place < snapshot).count() as u64;
    let mut wanted = BTreeMap::new();
    let mut want = |last: u64, key: &dyn Fn(u64) -> String| {
        // They count from 1: an agency that came after the snapshot has none before it.
        if last > 0 {
            wanted.insert(key(last), true);
        }
        wanted.insert(key(last + 1), false);
    };
    want(before(roots), &keys::root_version);
    for (id, places) in changes {
        want(before(&places), &|n| keys::change(id, n));
    }
    wanted
}

/// Checks the member with the proofs.
pub(super) fn check(members: &Members, member: &Member) -> Result<Settled, Invalid> {
    let Some((index, time, state)) = members.snapshot else {
        return invalid(format!(
            "{SNAPSHOT} belongs to no snapshot among the statements"
        ));
    };
    let proofs: BTreeMap<String, Proof> = serde_json::from_slice(&member.bytes)
        .map_err(|error| Invalid(format!("{SNAPSHOT}: {error}")))?;
    let wanted = shown(members, index)?;
    if !proofs.keys().eq(wanted.keys()) {
        return invalid(format!(
            "{SNAPSHOT} is not about the root and the agencies that the file shows"
        ));
    }
    for ((key, proof), shown) in proofs.iter().zip(wanted.values()) {
        let stands = proof
            .verify(key, &state)
            .map_err(|error| Invalid(format!("{SNAPSHOT}: {error}")))?;
        match (stands, shown) {
            (Some(_), None) => {
                return invalid(format!(
                    "the file leaves out what happened before entry {index}: {key}"
                ));
            }
            (stands, shown) if stands == *shown => {}
            _ => {
                return invalid(format!(
                    "the snapshot at entry {index} knows another {key} than the file shows"
                ));
            }
        }
    }
    Ok(Settled { index, time })
}

/// What must stand in the snapshot under which key, going by the statements in the file.
fn shown(members: &Members, snapshot: u64) -> Result<BTreeMap<String, Option<&[u8]>>, Invalid> {
    let newest = members.root()?.chain.sequence;
    let roots = (1..=newest).filter_map(|n| members.record(&keys::root_version(n)));
    let roots: Vec<u64> = roots.map(|root: RootRecord| root.chain.index).collect();
    let agencies: Vec<_> = members.agencies().collect();
    let changes = agencies.iter().map(|agency| {
        let places = (1..=agency.changes).map(|n| members.record(&keys::change(&agency.id, n)));
        (&agency.id, places.flatten().collect())
    });
    let wanted = wanted(snapshot, &roots, changes).into_iter();
    let stands = |(key, there): (String, bool)| {
        let record = members.bytes(&key).filter(|_| there);
        (key, record)
    };
    Ok(wanted.map(stands).collect())
}
