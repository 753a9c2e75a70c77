//! What entries of a log say, read again from the log: the index holds what they led to.

use std::fmt;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::evidence::command::printable;
use jingwei_proto::state::{AgencyRecord, Status};
use jingwei_proto::statement::{Action, Predicate, Statement};

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

/// Why an agency takes no part: the statement that suspended or ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    status: Status,
    /// The statement's place in the log and the reason in it; `None` where it is not found.
    since: Option<(u64, Option<String>)>,
}

impl Stopped {
    /// The reason, if whoever did it has given one.
    pub fn reason(&self) -> Option<&str> {
        self.since.as_ref()?.1.as_deref()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        match &self.since {
            None => Ok(()),
            Some((index, None)) => write!(f, " since log entry {index}, without a reason"),
            Some((index, Some(reason))) => write!(f, " since log entry {index}: ‘{reason}’"),
        }
    }
}

/// Since when and why an agency takes no part; `None` if it does.
pub fn stopped(index: &Index, log: &LogReader, record: &AgencyRecord) -> Option<Stopped> {
    let last = || {
        let changes = index.changes_of(record).ok()?;
        let mut newest = changes.into_iter().rev().take(MOST);
        newest.find_map(|at| Some((at, stopping(log, at)?)))
    };
    (!record.is_active()).then(|| Stopped {
        status: record.status,
        since: last(),
    })
}

/// The reason that an entry gives, if it is one that stops or ends an agency.
fn stopping(log: &LogReader, at: u64) -> Option<Option<String>> {
    // Other changes, and a snapshot, with which a recovery took effect.
    let Predicate::Agency(agency) = statement(log, at).ok()?.predicate else {
        return None;
    };
    let reason = match agency.action {
        Action::Suspend(why) | Action::Revoke(why) => why.reason,
        Action::Successor(named) => named.reason,
        _ => return None,
    };
    let reason = reason.map(|reason| printable(&reason));
    Some(reason.filter(|reason| !reason.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_since_when_and_why() {
        let told = |status, since| Stopped { status, since }.to_string();
        let why = Some((7, Some("an audit".to_owned())));
        assert_eq!(
            told(Status::Suspended, why),
            "suspended since log entry 7: ‘an audit’"
        );
        assert_eq!(
            told(Status::Revoked, Some((7, None))),
            "revoked since log entry 7, without a reason"
        );
        assert_eq!(told(Status::Revoked, None), "revoked");
    }
}
