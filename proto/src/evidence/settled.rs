//! That the file leaves nothing out: before a snapshot of the log, nothing happened to the root and
//! the agencies but what the statements show.
//!
//! Each change of an agency stands in the state under a number, and each root under its version.
//! So for each of them one absence is enough: that of the number after the last one shown.

use std::collections::{BTreeMap, BTreeSet};

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

/// The keys to be absent from the state at entry `snapshot`: `roots` are the places of all
/// versions of the root, and `changes` those of the changes of each agency.
pub fn wanted<'a>(
    snapshot: u64,
    roots: &[u64],
    changes: impl IntoIterator<Item = (&'a AgencyId, Vec<u64>)>,
) -> BTreeSet<String> {
    let before = |places: &[u64]| places.iter().filter(|place| **place < snapshot).count() as u64;
    let agencies = changes
        .into_iter()
        .map(|(id, places)| keys::change(id, before(&places) + 1));
    std::iter::once(keys::root_version(before(roots) + 1))
        .chain(agencies)
        .collect()
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
    if !proofs.keys().eq(&wanted) {
        return invalid(format!(
            "{SNAPSHOT} is not about the root and the agencies that the file shows"
        ));
    }
    for (key, proof) in &proofs {
        match proof.verify(key, &state) {
            Ok(None) => {}
            Ok(Some(_)) => {
                return invalid(format!(
                    "the file leaves out what happened before entry {index}: {key}"
                ));
            }
            Err(error) => return invalid(format!("{SNAPSHOT}: {error}")),
        }
    }
    Ok(Settled { index, time })
}

/// What must be absent, going by the statements in the file.
fn shown(members: &Members, snapshot: u64) -> Result<BTreeSet<String>, Invalid> {
    let newest = members.root()?.chain.sequence;
    let roots = (1..=newest).filter_map(|n| members.record(&keys::root_version(n)));
    let roots: Vec<u64> = roots.map(|root: RootRecord| root.chain.index).collect();
    let agencies: Vec<_> = members.agencies().collect();
    let changes = agencies.iter().map(|agency| {
        let places = (1..=agency.changes).map(|n| members.record(&keys::change(&agency.id, n)));
        (&agency.id, places.flatten().collect())
    });
    Ok(wanted(snapshot, &roots, changes))
}
