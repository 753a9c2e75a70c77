//! `jingwei enrol`

use jingwei_registry::say;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use jingwei_proto::wire::node::EnrolRequest;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::enrolment::Proposal;
use jingwei_registry::fault::Fault;

use super::Place;
use super::client::{received, with_node};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei enrol --dir fr bre/fr.bre.enrolment
  jingwei enrol --dir fr bre/fr.bre.enrolment --yes

The node that hosts the superior must be running. An id is given once and never again.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The file that ‘jingwei join’ wrote at the agency
    proposal: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let bytes = std::fs::read(&arguments.proposal).map_err(|error| {
        wrong_use(format!(
            "cannot read {}: {error}",
            arguments.proposal.display()
        ))
    })?;
    let proposal = Proposal::parse(&bytes)?;
    let superior = proposal
        .id
        .superior()
        .map_or("the root".to_owned(), |id| id.to_string());
    say!("agency      {} ({})", proposal.id, proposal.agency.name);
    say!("level       {}", proposal.agency.level);
    say!("territory   {}", proposal.agency.territory);
    say!("key         {}", proposal.agency.key.id());
    say!("superior    {superior}");
    if !arguments.yes && !confirmed()? {
        return Err(wrong_use("not enrolled"));
    }
    let enrolled = with_node(&arguments.place, |mut node| async move {
        received(node.enrol(EnrolRequest { proposal: bytes }).await)
    })?;
    say!(
        "enrolled    {} by {}, log entry {}",
        enrolled.agency,
        enrolled.superior,
        enrolled.index
    );
    Ok(())
}

fn confirmed() -> Result<bool, Fault> {
    if !std::io::stdin().is_terminal() {
        return Err(wrong_use("this enters the agency for good")
            .advise("add --yes to do it without being asked"));
    }
    print!("Enrol it for good? [y/N] ");
    std::io::stdout().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
