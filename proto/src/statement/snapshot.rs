//! Snapshots of the state, by the registry: they bind it to what the log means, and they are the
//! only clock that a fold has.

use serde::{Deserialize, Serialize};

use super::{Predicate, Statement, StatementError};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::state::{Blame, Rejection};

/// What every snapshot statement contains.
const KIND: &str = "urn:jingwei:snapshot:v1";

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
    /// The snapshot that an envelope holds, if it holds one.
    pub fn of(envelope: &Envelope) -> Option<Snapshot> {
        // Snapshots are rare, and to parse each statement twice would not be cheap.
        let text = std::str::from_utf8(envelope.payload()).ok()?;
        if !text.contains(KIND) {
            return None;
        }
        match Statement::parse(envelope.payload()).ok()?.predicate {
            Predicate::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        }
    }

    /// Checks it against the root over the state that the entries before it lead to
    /// ([`crate::snapshot`]). `apply` cannot: it sees what an entry touches, and not the whole.
    pub fn names(&self, root: &Digest) -> Result<(), Rejection> {
        if self.state == *root {
            return Ok(());
        }
        let reason = format!(
            "it names the state {}, and the entries before it lead to {root}",
            self.state
        );
        let blame = Blame::Inconsistent;
        Err(Rejection { blame, reason })
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        Ok(())
    }
}
