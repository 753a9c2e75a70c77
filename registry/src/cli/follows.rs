//! Whether what is proposed still follows what is in force: the root or the agency may have changed
//! while a proposal went from keeper to keeper.

use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::{Action, Agency, Predicate, Root, Statement};
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::enrolment::enrolled_otherwise;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::view::View;
use jingwei_registry::{history, standing};

use super::root::in_force;

/// What to say where nothing is left to do: it was entered, or what it asks for is so. `None` where
/// it follows what is in force.
///
/// # Errors
/// If it follows what is in force no longer.
pub fn nothing_left(proposal: &Proposal, view: &View) -> Result<Option<String>, Fault> {
    let statement = proposal.statement();
    if let Some(entry) = history::entered(view.index(), view.log(), statement)? {
        return Ok(Some(format!("entered     already, log entry {entry}")));
    }
    match &statement.predicate {
        Predicate::Root(next) => of_root(statement, next, &view.root()?),
        Predicate::Agency(Agency { action, .. }) => of_agency(statement, action, view),
        _ => Ok(None),
    }
}

/// A next root document is about this registry's log, and follows the one in force.
fn of_root(statement: &Statement, next: &Root, now: &RootRecord) -> Result<Option<String>, Fault> {
    if next.registry.origin != now.registry.origin {
        let reason = "the root names another log than the one that this registry keeps";
        return Err(Fault::new(Blame::Inconsistent, reason).advise(
            "a registry is taken over with ‘jingwei-registry take-over --proposal FILE’, which enters the root in the new log",
        ));
    }
    if statement.head.previous == Some(now.chain.payload) {
        return Ok(None);
    }
    let version = now.chain.sequence;
    let same = Root {
        version: next.version,
        ..in_force(now)
    };
    if same == *next {
        return Ok(Some(format!(
            "version {version} of the root is in force, and says the same: nothing to do"
        )));
    }
    let reason =
        format!("the root has changed since this was proposed: version {version} is in force");
    Err(Fault::new(Blame::Stale, reason).advise(
        "propose it anew with ‘jingwei-registry root propose’, and let the keepers sign that",
    ))
}

/// A change of an agency follows the newest one.
fn of_agency(statement: &Statement, action: &Action, view: &View) -> Result<Option<String>, Fault> {
    let (index, log) = (view.index(), view.log());
    let id = statement.agency().map_err(wrong_use)?;
    let Some(record) = index.agency(id).map_err(failed)? else {
        return Ok(None);
    };
    if let Action::Enrol(_) = action {
        let changes = index.changes_of(&record).map_err(failed)?;
        let first = changes.first().copied().unwrap_or(record.chain.index);
        return Err(enrolled_otherwise(index, id, first));
    }
    standing::changeable(index, log, &record, action)?;
    if statement.head.previous == Some(record.chain.payload) {
        return Ok(None);
    }
    if let Some(already) = history::already(index, log, &record, action) {
        return Ok(Some(format!("{id} is {already}: nothing to do")));
    }
    let reason = format!(
        "{id} has changed since this was proposed, by log entry {}",
        record.chain.index
    );
    let advice = match action {
        Action::Recover(_) => format!(
            "let {id} run ‘jingwei recover --agency {id}’ again, and propose the new file with ‘jingwei-registry agency recover FILE --out PROPOSAL’"
        ),
        _ => format!(
            "if it is still wanted, propose it anew with ‘jingwei-registry agency {} {id} --out FILE’, and let the keepers sign that",
            action.name()
        ),
    };
    Err(Fault::new(Blame::Stale, reason).advise(advice))
}

#[cfg(test)]
mod tests {
    use jingwei_proto::digest::Digest;
    use jingwei_proto::id::FederationId;
    use jingwei_proto::state::Chain;
    use jingwei_proto::statement::Head;
    use jingwei_proto::time::Time;

    use super::super::changes::tests::root;
    use super::*;

    /// The second version of a root, proposed at a time.
    fn proposed(seconds: i64, threshold: u64) -> (Statement, Root) {
        let federation: FederationId = "test-0123456789abcdef".parse().unwrap();
        let next = Root {
            version: 2,
            threshold,
            ..root()
        };
        let head = Head {
            federation,
            agency: None,
            time: Time::from_seconds(seconds).unwrap(),
            sequence: 2,
            previous: Some(Digest::of(b"the first")),
        };
        let statement = Statement {
            head,
            predicate: Predicate::Root(next.clone()),
        };
        (statement, next)
    }

    #[test]
    fn a_root_that_is_in_force_in_other_words_is_not_proposed_anew() {
        let (entered, root) = proposed(1, 1);
        let chain = |sequence, payload| Chain {
            sequence,
            payload,
            index: sequence - 1,
        };
        let second = chain(2, Digest::of(&entered.payload()));
        let in_force = RootRecord::of(&entered.head, &root, second);
        let (again, same) = proposed(2, 1);
        let said = of_root(&again, &same, &in_force).unwrap().unwrap();
        assert!(said.contains("says the same: nothing to do"), "{said}");
        let (other, differs) = proposed(2, 2);
        let late = of_root(&other, &differs, &in_force).unwrap_err();
        assert_eq!(late.blame, Blame::Stale);
        let first = RootRecord {
            chain: chain(1, Digest::of(b"the first")),
            ..in_force
        };
        assert_eq!(of_root(&other, &differs, &first), Ok(None));
    }
}
