//! `jingwei-registry enrol`

use jingwei_registry::say;
use std::path::PathBuf;

use jingwei_proto::key::{SecretKey, Signer};
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::connect::Patience;
use jingwei_registry::enrolment::Proposal;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::found::sign_together;
use jingwei_registry::keyfile;
use jingwei_registry::registry::Paths;
use jingwei_registry::setting::HostPort;
use jingwei_registry::submit::Submitter;
use jingwei_registry::view::View;

use super::Place;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry enrol --dir registry fr.enrolment
  jingwei-registry enrol --dir registry fr.enrolment --root-key /media/safe-a/1.pem --root-key /media/safe-b/2.pem

The registry must be running: the enrolment is submitted to it like any other statement.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The file that ‘jingwei join’ wrote at the agency
    proposal: PathBuf,
    /// A root key; by default those in the registry's directory
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
    /// Where the registry listens; by default as registry.toml says
    #[arg(long, value_name = "HOST:PORT")]
    registry: Option<HostPort>,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let (paths, config) = arguments.place.read()?;
    let bytes = std::fs::read(&arguments.proposal)
        .map_err(|error| wrong_use(format!("{}: {error}", arguments.proposal.display())))?;
    let proposal = Proposal::parse(&bytes)?;
    if proposal.id.superior().is_some() {
        let superior = proposal
            .id
            .superior()
            .map_or_else(String::new, |id| id.to_string());
        return Err(Fault::new(
            Blame::Unauthorised,
            format!(
                "{} is enrolled by its superior {superior}, not by the root",
                proposal.id
            ),
        )
        .advise(format!(
            "give the file to {superior}, which runs ‘jingwei enrol’"
        )));
    }
    let address = arguments
        .registry
        .as_ref()
        .map_or_else(|| config.listen.to_string(), ToString::to_string);
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    let view = runtime.block_on(View::of_registry(&paths, &address))?;
    let root = view.root()?;
    let keys = root_keys(arguments, &paths)?;
    let signers: Vec<&dyn Signer> = keys
        .iter()
        .filter(|key| root.keys.contains(key.public()))
        .map(|key| key as &dyn Signer)
        .collect();
    if (signers.len() as u64) < root.threshold {
        return Err(wrong_use(format!(
            "{} root keys must sign, and {} of the federation's were given",
            root.threshold,
            signers.len()
        ))
        .advise("name more with --root-key"));
    }
    let envelope = sign_together(&proposal.statement(), &signers, root.threshold);
    let accepted = runtime.block_on(async {
        Submitter::new(&address, root.registry.tls, None, Patience::default())?
            .submit(&envelope)
            .await
    })?;
    say!("enrolled    {} ({})", proposal.id, proposal.agency.name);
    say!("level       {}", proposal.agency.level);
    say!("territory   {}", proposal.agency.territory);
    say!("key         {}", proposal.agency.key.id());
    say!("log entry   {}", accepted.index);
    Ok(())
}

fn root_keys(arguments: &Arguments, paths: &Paths) -> Result<Vec<SecretKey>, Fault> {
    let mut files = arguments.root_key.clone();
    if files.is_empty() {
        let listed = std::fs::read_dir(paths.root_keys()).map_err(|error| {
            failed(format!(
                "{}: {error}; name the root keys with --root-key",
                paths.root_keys().display()
            ))
        })?;
        files = listed
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
    }
    files
        .iter()
        .map(|file| keyfile::load(file).map_err(failed))
        .collect()
}
