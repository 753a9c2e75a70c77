//! Changing an agency after its enrolment: the statement, and what it means in words.
//!
//! Whoever is about to sign reads the same sentences at a node and at a registry's keepers.

use std::fmt::Display;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::state::{AgencyRecord, RootRecord};
use jingwei_proto::statement::{
    Action, Agency, Attributes, Head, NewKey, Predicate, Reason, Role, Statement, Successor,
};
use jingwei_proto::time::Time;

use crate::enrolment;
use crate::fault::{Blame, Fault};
use jingwei_proto::evidence::command::printable;
use jingwei_proto::words::counted;

/// The statement that does `action` to an agency that is as `record` says.
pub fn statement(
    federation: &FederationId,
    record: &AgencyRecord,
    action: Action,
    now: Time,
) -> Statement {
    Statement {
        head: Head {
            federation: federation.clone(),
            agency: Some(record.id.clone()),
            time: now,
            sequence: record.chain.sequence + 1,
            previous: Some(record.chain.payload),
        },
        predicate: Predicate::Agency(action.proposed()),
    }
}

/// What the action is, from when it holds and what follows from it, line by line; `because`: why
/// the agency is as it is, where that is known.
pub fn explain(
    record: &AgencyRecord,
    action: &Action,
    by: &str,
    root: &RootRecord,
    because: Option<&str>,
) -> Vec<String> {
    let name = format!("{} ({}), {}", record.id, record.name, record.status);
    let because = because.map(|reason| ("because", reason.to_owned()));
    let told = told(&record.id, action, Some(record), Some(root.recovery_delay));
    [("agency", name)]
        .into_iter()
        .chain(because)
        .chain([signed(action, by)])
        .chain(told)
        .map(line)
        .collect()
}

/// The same of a change of the agency `id`, for whoever has the statement only: how the agency was
/// before, and when a recovery takes effect, is not known.
pub fn explain_alone(id: &AgencyId, action: &Action, by: &str) -> Vec<String> {
    if let Action::Enrol(enrolment) = action {
        return enrolment::explain(id, enrolment, by);
    }
    [("agency", id.to_string()), signed(action, by)]
        .into_iter()
        .chain(told(id, action, None, None))
        .map(line)
        .collect()
}

fn line((label, text): (&str, String)) -> String {
    format!("{label:<12}{}", printable(&text))
}

fn signed(action: &Action, by: &str) -> (&'static str, String) {
    ("action", format!("{}, signed by {by}", action.name()))
}

/// What an action says, beside what the agency was before where that is known.
fn told(
    id: &AgencyId,
    action: &Action,
    record: Option<&AgencyRecord>,
    recovery_delay: Option<u64>,
) -> Told {
    match action {
        Action::Enrol(_) => Vec::new(),
        Action::Update(new) => of_update(record, new),
        Action::Rotate(new) => of_rotation(record, &new.key),
        Action::Recover(new) => of_recovery(record, &new.key, recovery_delay),
        Action::Contest(_) => of_contest(record),
        Action::Suspend(why) => of_standing(
            why,
            ", until it is resumed",
            "it enters nothing, no node answers it or asks it; its data stay verifiable, agencies below it go on",
        ),
        Action::Resume(why) => of_standing(why, "", "it takes part again as before"),
        Action::Revoke(why) => of_standing(
            why,
            ", for ever",
            "its id and its keys are never used again; its data stay verifiable, agencies below it go on",
        ),
        Action::Successor(named) => of_succession(id, named),
    }
}

/// Labels and what stands beside them.
type Told = Vec<(&'static str, String)>;

const AT_ONCE: &str = "the log entry on";

fn of_update(record: Option<&AgencyRecord>, new: &Attributes) -> Told {
    let name = becomes(record.map(|record| record.name.clone()), new.name.clone());
    let level = becomes(record.map(|record| record.level), new.level);
    let territory = becomes(record.map(|record| &record.territory), &new.territory);
    let roles = becomes(record.map(|record| roles(&record.roles)), roles(&new.roles));
    vec![
        ("name", name),
        ("level", level),
        ("territory", territory),
        ("roles", roles),
        ("from when", AT_ONCE.into()),
        ("follows", "agencies below it keep what they have".into()),
    ]
}

/// What something was, if that is known, and what it becomes.
fn becomes<T: Display>(before: Option<T>, next: T) -> String {
    match before {
        Some(before) => format!("{before} → {next}"),
        None => next.to_string(),
    }
}

fn roles(roles: &[Role]) -> String {
    let names = roles.iter().map(|role| match role {
        Role::Standards => "standards",
    });
    let names: Vec<&str> = names.collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// The key that goes, where it is known, and the one that comes.
fn keys(record: Option<&AgencyRecord>, new: &PublicKey) -> Told {
    let old = record.map(|record| ("old key", record.key.id().to_string()));
    let new = ("new key", new.id().to_string());
    old.into_iter().chain([new]).collect()
}

fn of_rotation(record: Option<&AgencyRecord>, key: &PublicKey) -> Told {
    let mut told = keys(record, key);
    told.extend([
        ("from when", AT_ONCE.to_owned()),
        ("follows", "the old key signs nothing any more, and is never used again; what it signed stays valid".into()),
    ]);
    told
}

fn of_recovery(record: Option<&AgencyRecord>, key: &PublicKey, delay: Option<u64>) -> Told {
    let delay = delay.map_or_else(|| "the delay of the root in force".to_owned(), duration);
    let when = format!("{delay} of log time after the next snapshot of the registry");
    let follows = "until then the old key signs as before, and may contest this";
    let mut told = keys(record, key);
    told.extend([("from when", when), ("follows", follows.into())]);
    told
}

fn of_contest(record: Option<&AgencyRecord>) -> Told {
    let cancels = record.map(|record| match &record.recovery {
        None => "nothing: no recovery is under way".to_owned(),
        Some(pending) => format!("the recovery to key {}", pending.key.id()),
    });
    let cancels = cancels.unwrap_or_else(|| "the recovery that is under way".to_owned());
    let follows = "the key stays as it is; a recovery may be begun again";
    vec![
        ("cancels", cancels),
        ("from when", AT_ONCE.into()),
        ("follows", follows.into()),
    ]
}

fn of_succession(id: &AgencyId, named: &Successor) -> Told {
    let successor = &named.successor;
    let follows = format!(
        "{id} is at its end; {successor} is the superior of the agencies below it; its data stay verifiable"
    );
    let mut told = vec![("successor", successor.to_string())];
    told.extend(given(named.reason.as_ref()));
    told.extend([
        ("from when", format!("{AT_ONCE}, for ever")),
        ("follows", follows),
    ]);
    told
}

/// The reason that everybody will read, if one is given.
fn given(reason: Option<&String>) -> Option<(&'static str, String)> {
    reason.map(|reason| ("reason", reason.clone()))
}

/// Whether it may act at all.
fn of_standing(why: &Reason, until: &str, follows: &str) -> Told {
    let mut told: Told = given(why.reason.as_ref()).into_iter().collect();
    told.extend([
        ("from when", format!("{AT_ONCE}{until}")),
        ("follows", follows.into()),
    ]);
    told
}

/// Seconds in the largest unit that says them exactly.
fn duration(seconds: u64) -> String {
    let units = [
        (86_400, "day", "days"),
        (3_600, "hour", "hours"),
        (60, "minute", "minutes"),
    ];
    for (unit, one, more) in units {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return counted(seconds / unit, one, more);
        }
    }
    counted(seconds, "second", "seconds")
}

/// A new key for an agency whose old one is lost: it proposes, its superior enters it.
#[derive(Debug, Clone)]
pub struct RecoveryProposal {
    envelope: Envelope,
    statement: Statement,
    /// The new key.
    pub new: NewKey,
}

impl RecoveryProposal {
    /// The proposal for an agency that is as `record` says, signed by its new key.
    pub fn make(
        federation: &FederationId,
        record: &AgencyRecord,
        key: &dyn Signer,
        now: Time,
    ) -> Envelope {
        let new = NewKey {
            key: key.public().clone(),
        };
        statement(federation, record, Action::Recover(new), now).sign(key)
    }

    /// Reads a proposal and checks that somebody holds the new key.
    pub fn parse(bytes: &[u8]) -> Result<RecoveryProposal, Fault> {
        let bad = |reason: String| {
            Fault::new(
                Blame::Malformed,
                format!("not a proposal of a new key: {reason}"),
            )
            .advise("ask the agency for the .recovery file that ‘jingwei recover --agency’ wrote")
        };
        let envelope =
            Envelope::parse(bytes.trim_ascii_end()).map_err(|error| bad(error.to_string()))?;
        let statement =
            Statement::parse(envelope.payload()).map_err(|error| bad(error.to_string()))?;
        let Predicate::Agency(Agency {
            action: Action::Recover(new),
            ..
        }) = &statement.predicate
        else {
            return Err(bad("it is another statement".into()));
        };
        envelope.verify(&new.key).map_err(|_| {
            Fault::new(
                Blame::Forged,
                "the proposal was changed after the new key signed it",
            )
        })?;
        Ok(RecoveryProposal {
            new: new.clone(),
            envelope,
            statement,
        })
    }

    /// The agency whose key it is.
    pub fn agency(&self) -> Result<&AgencyId, Fault> {
        let agency = self.statement.agency();
        agency.map_err(|error| Fault::new(Blame::Malformed, error.to_string()))
    }

    /// The statement as the superior signs it, if the agency has not changed since the proposal.
    pub fn statement(&self, record: &AgencyRecord) -> Result<Statement, Fault> {
        let (id, key) = (&record.id, &self.new.key);
        let stale = |what: String| Fault::new(Blame::Stale, what);
        if record.key == *key {
            return Err(stale(format!(
                "{id} has this key already: nothing is to be done"
            )));
        }
        if record
            .recovery
            .as_ref()
            .is_some_and(|under_way| under_way.key == *key)
        {
            return Err(stale(format!(
                "the recovery of {id} with this key is entered already, and waits for its time"
            )));
        }
        if self.statement.head.previous != Some(record.chain.payload) {
            return Err(
                stale(format!("{id} has changed since its new key was proposed"))
                    .advise("let it run ‘jingwei recover --agency’ again, and take the new file"),
            );
        }
        Ok(self.statement.with_consents(vec![self.envelope.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_alone_is_explained_too() {
        let id: AgencyId = "fr".parse().unwrap();
        let told = |action: Action| explain_alone(&id, &action, "2 of 3 root keys");
        let why = Reason {
            reason: Some("an\naudit".into()),
        };
        let suspended = told(Action::Suspend(why));
        let words = [
            "agency      fr",
            "action      suspend, signed by 2 of 3 root keys",
            "reason      an audit",
            "from when   the log entry on, until it is resumed",
        ];
        assert_eq!(suspended[..4], words);
        let updated = told(Action::Update(Attributes {
            name: "The Land".into(),
            level: 1,
            territory: enrolment::parse_territory("insee@2024:FR").unwrap(),
            roles: vec![Role::Standards],
        }));
        let words = [
            "name        The Land",
            "level       1",
            "territory   insee@2024:FR",
            "roles       standards",
        ];
        assert_eq!(updated[2..6], words);
    }

    #[test]
    fn durations() {
        assert_eq!(duration(604_800), "7 days");
        assert_eq!(duration(5_400), "90 minutes");
        assert_eq!(duration(3_600), "1 hour");
        assert_eq!(duration(61), "61 seconds");
        assert_eq!(duration(0), "0 seconds");
    }
}
