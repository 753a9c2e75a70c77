//! Why an agency takes no part: the statement that suspended or ended it.

use std::fmt;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::evidence::command::printable;
use jingwei_proto::state::{AgencyRecord, Authority, Status, authority};
use jingwei_proto::statement::{Action, Predicate, Statement};

use crate::node::Node;

/// An agency that takes no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    status: Status,
    /// The statement's place in the log and the reason in it; `None` where the log cannot be read.
    since: Option<(u64, Option<String>)>,
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

impl Node {
    /// Since when and why an agency takes no part; `None` if it does.
    pub(crate) fn stopped(&self, record: &AgencyRecord) -> Option<Stopped> {
        (!record.is_active()).then(|| Stopped {
            status: record.status,
            since: self.last_stop(record),
        })
    }

    fn last_stop(&self, record: &AgencyRecord) -> Option<(u64, Option<String>)> {
        let changes = self.replica.index().changes_of(record).ok()?;
        changes.into_iter().rev().find_map(|index| {
            let envelope = self.replica.log().envelope(index).ok()?;
            let reason = stopping(&Envelope::parse(&envelope).ok()?)?;
            let reason = reason.map(|reason| printable(&reason));
            Some((index, reason.filter(|reason| !reason.is_empty())))
        })
    }

    /// The same as a sentence for the agency's own people: what they can do about it, too.
    pub(crate) fn stopped_alarm(&self, record: &AgencyRecord) -> Option<String> {
        let stopped = self.stopped(record)?;
        let id = &record.id;
        let advice = match (record.status, &record.successor) {
            (_, Some(successor)) => format!("its tasks are those of {successor} now"),
            (Status::Suspended, None) => match authority(self.replica.index(), id) {
                Ok(Authority::Agency(superior)) => format!(
                    "ask {}, which lets it go on with ‘jingwei resume {id}’",
                    superior.id
                ),
                _ => format!(
                    "ask the keepers of the root keys, who let it go on with ‘jingwei-registry agency resume {id}’"
                ),
            },
            _ => "that is for good: its superior says who has its tasks".to_owned(),
        };
        Some(format!(
            "{id} is {stopped}; it takes no part, and other nodes refuse it: {advice}"
        ))
    }
}

/// The reason in a statement that suspends or ends an agency.
fn stopping(envelope: &Envelope) -> Option<Option<String>> {
    let statement = Statement::parse(envelope.payload()).ok()?;
    let Predicate::Agency(agency) = statement.predicate else {
        return None;
    };
    match agency.action {
        Action::Suspend(why) | Action::Revoke(why) => Some(why.reason),
        Action::Successor(heir) => Some(heir.reason),
        _ => None,
    }
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
