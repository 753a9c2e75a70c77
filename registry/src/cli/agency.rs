//! `jingwei-registry agency`: changes of national agencies, whose superior is the root.

use std::path::PathBuf;

use clap::Subcommand;
use jingwei_proto::id::AgencyId;
use jingwei_proto::state::{AgencyRecord, Authority, authority};
use jingwei_proto::statement::{
    Action, Agency, Attributes, Predicate, Reason, Role, Statement, Successor, Territory,
};
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::clock;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::enrolment::parse_territory;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::history::{self, Stopped};
use jingwei_registry::lifecycle::{self, RecoveryProposal};
use jingwei_registry::say;
use jingwei_registry::standing;
use jingwei_registry::view::View;

use super::keepers::{Running, Signing, signed_by};
use super::status;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry agency suspend land --dir registry --reason 'its key is lost'
  jingwei-registry agency recover land.recovery --dir registry")]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Stop an agency for a time
    #[command(
        after_help = "Example:\n  jingwei-registry agency suspend land --dir registry --reason 'its key is lost'"
    )]
    Suspend(Change),
    /// Let a suspended agency go on
    #[command(after_help = "Example:\n  jingwei-registry agency resume land --dir registry")]
    Resume(Change),
    /// End an agency for ever
    #[command(after_help = "Example:\n  jingwei-registry agency revoke land --dir registry")]
    Revoke(Change),
    /// End an agency and name who has its tasks
    #[command(
        after_help = "Example:\n  jingwei-registry agency successor land country --dir registry"
    )]
    Successor(Heir),
    /// Change an agency's name, territory or roles
    #[command(
        after_help = "Example:\n  jingwei-registry agency update land --dir registry --name 'The Land'"
    )]
    Update(Update),
    /// Give an agency that has lost its key the new one that it proposes
    #[command(
        after_help = "Example:\n  jingwei-registry agency recover land.recovery --dir registry"
    )]
    Recover(Recover),
}

#[derive(clap::Args)]
struct Change {
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    signing: Signing,
    /// The agency that it is about
    #[arg(value_name = "AGENCY")]
    agency: AgencyId,
    /// Why, for everybody to read
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args)]
struct Heir {
    #[command(flatten)]
    change: Change,
    /// The agency that takes over
    #[arg(value_name = "SUCCESSOR")]
    successor: AgencyId,
}

#[derive(clap::Args)]
struct Update {
    #[command(flatten)]
    change: Change,
    /// Its name from now on
    #[arg(long)]
    name: Option<String>,
    /// Its territory from now on: LIST@EDITION:CODE<ANCESTOR, several joined by commas
    #[arg(long, value_parser = parse_territory)]
    territory: Option<Territory>,
    /// Whether it may enter schemas that others conform to
    #[arg(long, value_name = "true|false")]
    standards: Option<bool>,
}

#[derive(clap::Args)]
struct Recover {
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    signing: Signing,
    /// The file that ‘jingwei recover --agency’ wrote at the agency
    #[arg(value_name = "FILE")]
    proposal: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    match &arguments.what {
        What::Suspend(change) => simple(change, |_| Action::Suspend(reason(change))),
        What::Resume(change) => simple(change, |_| Action::Resume(reason(change))),
        What::Revoke(change) => simple(change, |_| Action::Revoke(reason(change))),
        What::Successor(heir) => {
            let successor = Successor {
                successor: heir.successor.clone(),
                reason: heir.change.reason.clone(),
            };
            let view = heir.change.running.view_to_enter()?;
            let record = member(&view, &heir.change.agency)?;
            propose(&heir.change, &view, &record, Action::Successor(successor))
        }
        What::Update(update) => {
            changes(update)?;
            simple(&update.change, |record| {
                Action::Update(updated(update, record))
            })
        }
        What::Recover(arguments) => recover(arguments),
    }
}

fn reason(change: &Change) -> Reason {
    Reason {
        reason: change.reason.clone(),
    }
}

fn updated(update: &Update, record: &AgencyRecord) -> Attributes {
    let roles = match update.standards {
        Some(true) => vec![Role::Standards],
        Some(false) => Vec::new(),
        None => record.roles.clone(),
    };
    Attributes {
        name: update.name.clone().unwrap_or_else(|| record.name.clone()),
        level: record.level,
        territory: update
            .territory
            .clone()
            .unwrap_or_else(|| record.territory.clone()),
        roles,
    }
}

fn changes(update: &Update) -> Result<(), Fault> {
    if update.name.is_none() && update.territory.is_none() && update.standards.is_none() {
        return Err(wrong_use("nothing would become different")
            .advise("name what does: --name, --territory, --standards"));
    }
    Ok(())
}

fn simple(change: &Change, action: impl FnOnce(&AgencyRecord) -> Action) -> Result<(), Fault> {
    // Before what is published, so that nothing counts as waiting that was published meanwhile.
    let committed = change.running.committed().ok();
    let view = change.running.view_to_enter()?;
    let record = member(&view, &change.agency)?;
    let action = action(&record);
    if let Some(already) = history::already(view.index(), view.log(), &record, &action) {
        nothing_waits(committed, view.log().size())?;
        say!("{} is {already}: nothing to do", record.id);
        return Ok(());
    }
    propose(change, &view, &record, action)
}

/// What is published is not the last word while more is committed: that may be about this agency.
fn nothing_waits(committed: Option<u64>, published: u64) -> Result<(), Fault> {
    match committed.and_then(|committed| status::waiting(committed, published)) {
        None => Ok(()),
        Some(waiting) => Err(Fault::new(
            Blame::Unavailable,
            format!("{waiting}, and may change this: see ‘jingwei-registry status’"),
        )
        .advise("nothing was entered: do the same again when nothing waits")),
    }
}

fn propose(
    change: &Change,
    view: &View,
    record: &AgencyRecord,
    action: Action,
) -> Result<(), Fault> {
    standing::changeable(view.index(), view.log(), record, &action)?;
    let federation = view.root()?.federation;
    let statement = lifecycle::statement(&federation, record, action, clock::system()());
    enter(&change.running, &change.signing, view, record, &statement)
}

fn recover(arguments: &Recover) -> Result<(), Fault> {
    let bytes = std::fs::read(&arguments.proposal)
        .map_err(|error| wrong_use(format!("{}: {error}", arguments.proposal.display())))?;
    let proposal = RecoveryProposal::parse(&bytes)?;
    let view = arguments.running.view_to_enter()?;
    let record = member(&view, proposal.agency()?)?;
    let action = Action::Recover(proposal.new.clone());
    standing::changeable(view.index(), view.log(), &record, &action)?;
    let statement = proposal.statement(&record)?;
    enter(
        &arguments.running,
        &arguments.signing,
        &view,
        &record,
        &statement,
    )
}

fn enter(
    running: &Running,
    signing: &Signing,
    view: &View,
    record: &AgencyRecord,
    statement: &Statement,
) -> Result<(), Fault> {
    let Predicate::Agency(Agency { action, .. }) = &statement.predicate else {
        return Err(failed("a change is about an agency"));
    };
    let root = view.root()?;
    let stopped = history::stopped(view.index(), view.log(), record);
    let because = stopped.as_ref().and_then(Stopped::reason);
    let explanation = lifecycle::explain(record, action, &signed_by(&root), &root, because);
    running.decide(Proposal::new(statement), &explanation, signing, view)
}

/// An agency over which the root has authority.
fn member(view: &View, id: &AgencyId) -> Result<AgencyRecord, Fault> {
    let record = view.index().agency(id).map_err(failed)?;
    let record = record.ok_or_else(|| standing::unknown(view.index(), id))?;
    match authority(view.index(), id).map_err(failed)? {
        Authority::Root => Ok(record),
        Authority::Agency(superior) => Err(Fault::new(
            Blame::Unauthorised,
            format!("{id} is changed by {}, not by the root", superior.id),
        )
        .advise("its node has the same commands: ‘jingwei --help’")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_may_change_what_is_so_already() {
        for committed in [None, Some(5)] {
            assert!(nothing_waits(committed, 5).is_ok());
        }
        let waits = nothing_waits(Some(7), 5).unwrap_err();
        assert_eq!(waits.exit_code(), 1);
        let words = "2 entries are committed and wait for the quorum, and may change this";
        assert!(waits.message.starts_with(words), "{waits}");
    }
}
