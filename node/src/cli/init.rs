//! `jingwei init`

use jingwei_registry::say;
use std::net::SocketAddr;

use jingwei_proto::id::AgencyId;
use jingwei_proto::key::Signer;
use jingwei_proto::statement::{Role, Territory};
use jingwei_registry::enrolment::{Profile, parse_territory};
use jingwei_registry::keyfile::{self, TlsIdentity};

use super::{Place, failed, shell, wrong_use};
use crate::agency::{AgencyError, HostedAgency};
use crate::home::Home;
use jingwei_registry::fault::Fault;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei init --dir fr  --agency fr        --name France   --level 1 --territory insee@2024:FR
  jingwei init --dir bre --agency fr.bre    --name Bretagne --level 2 --territory 'insee@2024:53<FR' --listen 127.0.0.1:7102
  jingwei init --dir bre --agency fr.bre.35 --name 'Ille-et-Vilaine' --level 3 --territory 'insee@2024:35<53'

The last one adds a second agency to the same node.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The agency's id: its superior's id and one label more, such as fr.bre.35
    #[arg(long, value_name = "ID")]
    agency: AgencyId,
    /// Its name for people
    #[arg(long)]
    name: String,
    /// 1 national, 2 regional, 3 prefectural, 4 county, 5 township
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    level: u64,
    /// What it answers for: LIST@EDITION:CODE<ANCESTOR, several joined by commas
    #[arg(long, value_parser = parse_territory)]
    territory: Territory,
    /// Ask for the standards role, which only the root grants
    #[arg(long)]
    standards: bool,
    /// Where the node shall listen for other nodes (written to a new node.toml)
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: Arguments) -> Result<(), Fault> {
    let dir = arguments.place.dir;
    let home = Home::new(&dir);
    if arguments.listen.is_some() && home.settings().exists() {
        return Err(
            wrong_use(format!("{} exists already", home.settings().display()))
                .advise("change ‘listen’ there, and leave --listen out"),
        );
    }
    keyfile::create_private_dir(&dir).map_err(failed)?;
    keyfile::create_private_dir(&home.keys()).map_err(failed)?;
    TlsIdentity::load_or_create(&home.keys()).map_err(failed)?;
    let roles = if arguments.standards {
        vec![Role::Standards]
    } else {
        Vec::new()
    };
    let profile = Profile {
        id: arguments.agency,
        name: arguments.name,
        level: arguments.level,
        territory: arguments.territory,
        roles,
    };
    let agency = HostedAgency::create(&home, profile).map_err(|error| match error {
        AgencyError::Exists(..) => wrong_use(error),
        other => failed(other),
    })?;
    write_settings(&home, arguments.listen)?;
    say!("agency      {} ({})", agency.id(), agency.profile.name);
    say!("key         {}", agency.signing.public().id());
    say!("keys        {}", home.agency(agency.id()).display());
    say!("");
    say!(
        "Next: jingwei join --dir {} http://HOST:PORT --root FINGERPRINT",
        shell::path(&dir)
    );
    say!("Address and fingerprint come from whoever runs the registry.");
    Ok(())
}

/// A configuration to begin with, unless there is one.
fn write_settings(home: &Home, listen: Option<SocketAddr>) -> Result<(), Fault> {
    let path = home.settings();
    if path.exists() {
        return Ok(());
    }
    let listen = listen.map_or("# listen = \"127.0.0.1:7100\"".to_owned(), |listen| {
        format!("listen = \"{listen}\"")
    });
    let text = format!(
        "# Where other nodes reach this one.\n{listen}\n# address = \"node.example.org:7100\"   # if others reach it by another name\n"
    );
    std::fs::write(&path, text).map_err(|error| failed(format!("{}: {error}", path.display())))
}
