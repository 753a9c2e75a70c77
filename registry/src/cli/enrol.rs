//! `jingwei-registry enrol`

use std::path::{Path, PathBuf};

use jingwei_registry::ceremony;
use jingwei_registry::command::wrong_use;
use jingwei_registry::enrolment::Proposal;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::say;

use super::keepers::{Running, Signing, signed_by};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry enrol --dir registry fr.enrolment
  jingwei-registry enrol --dir registry fr.enrolment --root-key /media/safe-a/1.pem --root-key /media/safe-b/2.pem
  jingwei-registry enrol --dir registry fr.enrolment --out fr.proposal   # for keepers elsewhere

The registry must be running: the enrolment is submitted to it like any other statement. An id is
given once and never again.")]
pub struct Arguments {
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    signing: Signing,
    /// The file that ‘jingwei join’ wrote at the agency
    #[arg(value_name = "FILE")]
    proposal: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let proposal = read(&arguments.proposal)?;
    is_national(&proposal)?;
    let view = arguments.running.view_to_enter()?;
    let root = view.root()?;
    proposal.check_federation(&root.federation)?;
    if let Some(entry) = proposal.entered(view.index(), view.log())? {
        say!("{} is enrolled already (entry {entry})", proposal.id);
        return Ok(());
    }
    arguments.running.decide(
        ceremony::Proposal::new(&proposal.statement()),
        &proposal.explain(&signed_by(&root)),
        &arguments.signing,
        &view,
    )
}

fn read(path: &Path) -> Result<Proposal, Fault> {
    let bytes =
        std::fs::read(path).map_err(|error| wrong_use(format!("{}: {error}", path.display())))?;
    Proposal::parse(&bytes)
}

fn is_national(proposal: &Proposal) -> Result<(), Fault> {
    let Some(superior) = proposal.id.superior() else {
        return Ok(());
    };
    let reason = format!(
        "{} is enrolled by its superior {superior}, not by the root",
        proposal.id
    );
    Err(Fault::new(Blame::Unauthorised, reason).advise(format!(
        "give the file to {superior}, which runs ‘jingwei enrol’"
    )))
}
