//! Whether an agency can be changed, and by whom, in words for those who want to.
//!
//! The rules say no in their own words; here it is said before anybody signs, with what to do.

use jingwei_proto::id::AgencyId;
use jingwei_proto::state::{AgencyRecord, Authority, Status, authority};
use jingwei_proto::statement::Action;

use crate::fault::{Blame, Fault};
use crate::history;
use crate::index::{Index, IndexError};
use crate::log::LogReader;

/// Who may change an agency: at level 1 there is no superior but the keepers of the root keys.
pub fn above(index: &Index, id: &AgencyId) -> String {
    let superior = match authority(index, id) {
        Ok(Authority::Agency(superior)) => Some(superior.id.clone()),
        Ok(Authority::Root) => None,
        Err(_) => id.superior(),
    };
    superior.map_or_else(
        || "the keepers of the root keys".into(),
        |id| id.to_string(),
    )
}

/// That there is no such agency, and which may be meant.
pub fn unknown(index: &Index, id: &AgencyId) -> Fault {
    let ids: Vec<String> = index.agencies().map(|known| known.id.to_string()).collect();
    let near = jingwei_schemas::nearest(id.as_str(), ids.iter().map(String::as_str));
    let advice = match near.as_slice() {
        [] => "see how its id is written, and that it is enrolled".to_owned(),
        near => format!("the nearest agencies: {}", near.join(", ")),
    };
    let message = format!("there is no agency {id} in this federation");
    Fault::new(Blame::NotFound, message).advise(advice)
}

/// Refuses to change what was ended for good, and a successor that is none.
///
/// # Errors
/// If there is something against the change that signatures cannot mend.
pub fn changeable(
    index: &Index,
    log: &LogReader,
    record: &AgencyRecord,
    action: &Action,
) -> Result<(), Fault> {
    not_ended(index, log, record, action)?;
    match action {
        Action::Successor(named) => fits(index, log, record, &named.successor),
        _ => Ok(()),
    }
}

/// Of what was ended only the successor can still be named, once.
fn not_ended(
    index: &Index,
    log: &LogReader,
    record: &AgencyRecord,
    action: &Action,
) -> Result<(), Fault> {
    let names_successor = matches!(action, Action::Successor(_));
    if record.status != Status::Revoked || (names_successor && record.successor.is_none()) {
        return Ok(());
    }
    let id = &record.id;
    let stopped = history::stopped(index, log, record);
    let stopped = stopped.map_or_else(String::new, |stopped| format!(" ({stopped})"));
    let ended = format!("{id} was ended for good{stopped}");
    let refuse = |message: String| Fault::new(Blame::Refused, message);
    Err(match &record.successor {
        Some(successor) => refuse(format!("{ended}, and {successor} is its successor")).advise(
            format!("its tasks are those of {successor} now: change that one"),
        ),
        None => refuse(ended)
            .advise("only who has its tasks can still be entered, with the command ‘successor’"),
    })
}

/// A successor is another agency, and in force.
fn fits(
    index: &Index,
    log: &LogReader,
    record: &AgencyRecord,
    successor: &AgencyId,
) -> Result<(), Fault> {
    let refuse = |message: String| {
        Fault::new(Blame::Refused, message).advise("name another agency, which is in force")
    };
    if *successor == record.id {
        return Err(refuse(format!("{successor} cannot be its own successor")));
    }
    let internal = |error: IndexError| Fault::new(Blame::Internal, error.to_string());
    let heir = index.agency(successor).map_err(internal)?;
    let heir = heir.ok_or_else(|| unknown(index, successor))?;
    match history::stopped(index, log, &heir) {
        None => Ok(()),
        Some(stopped) => Err(refuse(format!(
            "{successor} is {stopped}, and cannot be a successor"
        ))),
    }
}
