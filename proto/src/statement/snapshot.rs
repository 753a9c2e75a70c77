//! Snapshots of the state, by the registry: they bind it to what the log means, and they are the
//! only clock that a fold has.

use serde::{Deserialize, Serialize};

use super::StatementError;
use crate::digest::Digest;

/// The state that the entries before this one lead to. The statement's `time` is *log time*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// How many entries; equal to the index of the snapshot itself.
    pub size: u64,
    /// The Merkle root over the sorted state.
    pub state: Digest,
}

impl Snapshot {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        Ok(())
    }
}
