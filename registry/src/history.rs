//! What entries of a log say, read again from the log: the index holds what they led to.

use std::fmt;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::evidence::command::printable;
use jingwei_proto::state::{AgencyRecord, Status};
use jingwei_proto::statement::{Action, Predicate, Statement};

use crate::fault::{Blame, Fault};
use crate::index::{Index, IndexError};
use crate::log::{LogReader, Stored};

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

/// The place of a statement of the root keys that is in the log, whoever signed it last; `None` if it
/// is not there. `proposed` is in its proposed form.
///
/// # Errors
/// If the index or the log cannot be read.
pub fn entered(index: &Index, log: &LogReader, proposed: &Statement) -> Result<Option<u64>, Fault> {
    let internal = |error: IndexError| Fault::new(Blame::Internal, error.to_string());
    let sequence = proposed.head.sequence;
    let places: Vec<u64> = match &proposed.head.agency {
        None => {
            let root = index.root_version(sequence).map_err(internal)?;
            root.into_iter().map(|root| root.chain.index).collect()
        }
        Some(id) => match index.agency(id).map_err(internal)? {
            // Not before the change of this number, since snapshots are changes too.
            Some(record) => {
                let before = usize::try_from(sequence - 1).unwrap_or(usize::MAX);
                let changes = index.changes_of(&record).map_err(internal)?;
                changes.into_iter().skip(before).collect()
            }
            None => Vec::new(),
        },
    };
    for place in places {
        if statement(log, place)?.proposal() == *proposed {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Of what is committed to a log beyond what was `published`, the newest statement of the same root
/// or agency, or this very one: its place, and whether it is that.
pub fn committed_after(log: &Stored, published: u64, proposed: &Statement) -> Option<(u64, bool)> {
    let committed = log.checkpoint().size;
    if committed <= published {
        return None;
    }
    let entries = log.entries(published..committed).ok()?;
    let found = entries
        .iter()
        .zip(published..)
        .filter_map(|(entry, place)| {
            let envelope = Envelope::parse(entry.envelope.as_deref()?).ok()?;
            let statement = Statement::parse(envelope.payload()).ok()?;
            let same = statement.chain() == proposed.chain();
            same.then(|| (place, statement.proposal() == *proposed))
        });
    found.max_by_key(|(place, itself)| (*itself, *place))
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
/// active, or described in these words. `None` where there is something to do, or the rules have
/// something against it.
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
        (Action::Update(new), Status::Active | Status::Suspended) => {
            let same = new.name == record.name
                && new.level == record.level
                && new.territory == record.territory
                && new.roles == record.roles;
            same.then(|| "described so already".to_owned())
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
