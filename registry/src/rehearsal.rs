//! What the rules say of a statement before anybody is asked for a word on it.
//!
//! The registry admits by `apply`, and so does this: what would be refused there is refused here,
//! in the same words. The last word is the registry's, whose log may have grown meanwhile.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::state::{ApplyError, KeyRecord, Purpose};

use crate::fault::{Blame, Fault};
use crate::index::{Batch, Index, IndexError};
use crate::sequencer::{from_rejection, too_old};
use crate::standing;

fn internal(error: impl std::fmt::Display) -> Fault {
    Fault::new(Blame::Internal, error.to_string())
}

/// Whether the rules admit `envelope` as the next entry of the log that `index` is of. Nothing is
/// changed.
///
/// # Errors
/// If they do not.
pub fn judge(index: &Index, envelope: &Envelope) -> Result<(), Fault> {
    let next = index.size().map_err(internal)?;
    let judged = Batch::new(index).admit(next, envelope, None);
    judged.map(|_| ()).map_err(|error| {
        let fault = refused(error);
        match fault.blame {
            Blame::Unauthorised => fault.advise(advice(index, envelope)),
            _ => fault,
        }
    })
}

/// Whom to ask who may not do it: whoever is above an agency that has signed, and above root keys
/// nobody.
fn advice(index: &Index, envelope: &Envelope) -> String {
    match index.key(envelope.key()) {
        Ok(Some(KeyRecord {
            purpose: Purpose::Agency(agency),
            ..
        })) => format!(
            "ask {}, or sign with the right key",
            standing::above(index, &agency)
        ),
        _ => "let whoever proposed it correct that, or sign with the right key".to_owned(),
    }
}

/// What the rules refuse, as a fault.
pub(crate) fn refused(error: ApplyError<IndexError>) -> Fault {
    match error {
        ApplyError::Rejected(rejection) => from_rejection(rejection),
        ApplyError::RulesTooNew(rules) => too_old(rules),
        other => internal(other),
    }
}
