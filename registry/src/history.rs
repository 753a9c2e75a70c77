//! What entries of a log say, read again from the log: the index holds what they led to.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::state::AgencyRecord;
use jingwei_proto::statement::{Action, Agency, Predicate, Statement};

use crate::fault::{Blame, Fault};
use crate::index::Index;
use crate::log::LogReader;

/// Changes of one agency that are looked through for a reason: it is worth no more reading.
const MOST: usize = 64;

/// The envelope of an entry.
///
/// # Errors
/// If the log has no such entry, or it cannot be read.
pub fn envelope(log: &LogReader, index: u64) -> Result<Envelope, Fault> {
    let internal = |error: &dyn std::fmt::Display| {
        Fault::new(
            Blame::Internal,
            format!("entry {index} of the log cannot be read: {error}"),
        )
    };
    let bytes = log.envelope(index).map_err(|error| internal(&error))?;
    Envelope::parse(&bytes).map_err(|error| internal(&error))
}

/// What an entry says.
///
/// # Errors
/// As [`envelope`].
pub fn statement(log: &LogReader, index: u64) -> Result<Statement, Fault> {
    let envelope = envelope(log, index)?;
    Statement::parse(envelope.payload())
        .map_err(|error| Fault::new(Blame::Internal, error.to_string()))
}

/// Why an agency that takes no part was stopped or ended, if whoever did it has said so.
pub fn reason(index: &Index, log: &LogReader, record: &AgencyRecord) -> Option<String> {
    if record.is_active() {
        return None;
    }
    let changes = index.changes_of(record).ok()?;
    let mut newest = changes.into_iter().rev().take(MOST);
    newest
        .find_map(|at| stopped(log, at))
        .flatten()
        .filter(|reason| !reason.is_empty())
}

/// The reason that an entry gives, if it is one that stops or ends an agency.
fn stopped(log: &LogReader, at: u64) -> Option<Option<String>> {
    match statement(log, at).ok()?.predicate {
        Predicate::Agency(Agency { action, .. }) => match action {
            Action::Suspend(why) | Action::Revoke(why) => Some(why.reason),
            Action::Successor(named) => Some(named.reason),
            _ => None,
        },
        // A snapshot, with which a recovery took effect.
        _ => None,
    }
}
