//! `jingwei enrol`

use jingwei_registry::say;
use std::path::PathBuf;

use jingwei_proto::evidence::command::printable;
use jingwei_proto::wire::node::{EnrolRequest, EnrolResponse};
use jingwei_registry::command::wrong_use;
use jingwei_registry::confirm::confirm;
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
    say!(
        "agency      {} ({})",
        proposal.id,
        printable(&proposal.agency.name)
    );
    say!("level       {}", proposal.agency.level);
    say!("territory   {}", proposal.agency.territory);
    say!("key         {}", proposal.agency.key.id());
    say!("superior    {superior}");
    let checked = call(arguments, &bytes, true)?;
    if checked.already {
        say!(
            "{} is enrolled already (entry {})",
            checked.agency,
            checked.index
        );
        return Ok(());
    }
    confirm("Enrol it for good?", arguments.yes)?;
    let enrolled = call(arguments, &bytes, false)?;
    say!(
        "enrolled    {} by {}, log entry {}",
        enrolled.agency,
        enrolled.superior,
        enrolled.index
    );
    Ok(())
}

fn call(arguments: &Arguments, proposal: &[u8], only_check: bool) -> Result<EnrolResponse, Fault> {
    let request = EnrolRequest {
        proposal: proposal.to_vec(),
        only_check,
    };
    with_node(&arguments.place, |mut node| async move {
        received(node.enrol(request).await)
    })
}
