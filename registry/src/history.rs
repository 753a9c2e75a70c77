//! What entries of a log say, read again from the log: the index holds what they led to.

use std::fmt;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::evidence::command::printable;
use jingwei_proto::state::{AgencyRecord, Status};
use jingwei_proto::statement::{Action, Predicate, Statement};

use crate::fault::{Blame, Fault};
use crate::index::Index;
use crate::log::LogReader;

/// Changes of one agency that are looked through for the one that is sought: it is worth no more
/// reading.
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
    (!record.is_active()).then(|| Stopped {
        status: record.status,
        since: newest(index, log, record, stopping),
    })
}

/// What an agency is, and since when, where it is already what `action` would make it: suspended,
/// or active. `None` where there is something to do, or the rules have something against it.
pub fn already(
    index: &Index,
    log: &LogReader,
    record: &AgencyRecord,
    action: &Action,
) -> Option<String> {
    match (action, record.status) {
        (Action::Suspend(_), Status::Suspended) => {
            stopped(index, log, record).map(|stopped| stopped.to_string())
        }
        (Action::Resume(_), Status::Active) => {
            let since = newest(index, log, record, starting);
            let since = since.map(|(at, ())| format!(" since log entry {at}"));
            Some(format!("{}{}", record.status, since.unwrap_or_default()))
        }
        _ => None,
    }
}

/// The newest change of an agency in which something is found: its place in the log, and that.
fn newest<T>(
    index: &Index,
    log: &LogReader,
    record: &AgencyRecord,
    found: impl Fn(Action) -> Option<T>,
) -> Option<(u64, T)> {
    let changes = index.changes_of(record).ok()?;
    let mut newest = changes.into_iter().rev().take(MOST);
    newest.find_map(|at| match statement(log, at).ok()?.predicate {
        Predicate::Agency(agency) => Some((at, found(agency.action)?)),
        // A snapshot, with which a recovery took effect.
        _ => None,
    })
}

/// Whether an action lets an agency take part.
fn starting(action: Action) -> Option<()> {
    matches!(action, Action::Enrol(_) | Action::Resume(_)).then_some(())
}

/// The reason that an action gives, if it is one that stops or ends an agency.
fn stopping(action: Action) -> Option<Option<String>> {
    let reason = match action {
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
