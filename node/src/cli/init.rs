//! `jingwei init`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jingwei_proto::id::AgencyId;
use jingwei_proto::key::Signer;
use jingwei_proto::statement::{Role, Territory};
use jingwei_registry::command::{environment, failed, listen_address, wrong_use};
use jingwei_registry::disk::{DirLock, Disk};
use jingwei_registry::enrolment::{Profile, parse_territory};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::keyfile::{self, TlsIdentity};
use jingwei_registry::replica::Replica;
use jingwei_registry::source::Source;
use jingwei_registry::{clock, say, shell};

use super::join::{check_profile, propose_enrolment};
use super::{Place, runtime};
use crate::agency::HostedAgency;
use crate::config::Config;
use crate::home::Home;
use crate::membership::{Membership, MembershipError};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei init --dir fr  --agency fr        --name France   --level 1 --territory insee@2024:FR
  jingwei init --dir bre --agency fr.bre    --name Bretagne --level 2 --territory 'insee@2024:53<FR' --listen 127.0.0.1:7102
  jingwei init --dir bre --agency fr.bre.35 --name 'Ille-et-Vilaine' --level 3 --territory 'insee@2024:35<53'

The last one adds a second agency to the same node. Run again with other values, it corrects name,
level and territory of an agency that is not enrolled yet; its keys are kept.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The agency's id: its superior's id and one label more, such as fr.bre.35
    #[arg(long, value_name = "ID")]
    agency: AgencyId,
    /// Its name for people
    #[arg(long, value_parser = agency_name)]
    name: String,
    /// 1 national, 2 regional, 3 prefectural, 4 county, 5 township
    #[arg(long, value_parser = level)]
    level: u64,
    /// What it answers for: LIST@EDITION:CODE<ANCESTOR, several joined by commas
    #[arg(long, value_parser = parse_territory)]
    territory: Territory,
    /// Ask for the standards role, which only the root grants
    #[arg(long)]
    standards: bool,
    /// Where the node shall listen for other nodes (written to a new node.toml)
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: Arguments) -> Result<(), Fault> {
    let home = Home::new(&arguments.place.dir);
    check_listen(&home, arguments.listen)?;
    keyfile::create_private_dir(home.dir()).map_err(failed)?;
    keyfile::create_private_dir(&home.keys()).map_err(failed)?;
    TlsIdentity::load_or_create(&home.keys()).map_err(failed)?;
    let profile = Profile {
        id: arguments.agency,
        name: arguments.name,
        level: arguments.level,
        territory: arguments.territory,
        roles: match arguments.standards {
            true => vec![Role::Standards],
            false => Vec::new(),
        },
    };
    match HostedAgency::find(&home, &profile.id).map_err(failed)? {
        Some(hosted) => correct(&home, hosted, profile)?,
        None => begin(&home, profile)?,
    }
    write_settings(&home, arguments.listen)
}

/// Makes a new agency's keys.
fn begin(home: &Home, profile: Profile) -> Result<(), Fault> {
    let agency = HostedAgency::create(home, profile).map_err(failed)?;
    say!("agency      {} ({})", agency.id(), agency.profile.name);
    say!("key         {}", agency.signing.public().id());
    say!("keys        {}", home.agency(agency.id()).display());
    tell_ancestors(&agency.profile);
    say!("");
    say!(
        "Next: jingwei join --dir {} http://HOST:PORT --root FINGERPRINT",
        shell::path(home.dir())
    );
    say!("Address and fingerprint come from whoever runs the registry.");
    Ok(())
}

/// Corrects what an agency says of itself, as long as the federation has not been told. Its keys
/// stay.
fn correct(home: &Home, mut agency: HostedAgency, profile: Profile) -> Result<(), Fault> {
    let changes = changes(&agency.profile, &profile);
    if changes.is_empty() {
        say!("unchanged   {} ({})", profile.id, profile.name);
        return Ok(());
    }
    let _lock = DirLock::acquire(home.dir()).map_err(failed)?;
    let joined = match Membership::load(home) {
        Ok(membership) => Some(unenrolled(home, membership, &agency)?),
        Err(MembershipError::NotJoined(_)) => None,
        Err(error) => return Err(failed(error)),
    };
    if let Some((_, replica)) = &joined {
        check_profile(replica, &profile)?;
    }
    agency.correct(home, profile).map_err(failed)?;
    say!("corrected   {}; its keys are kept", agency.id());
    for (what, old, new) in changes {
        say!("{what:<11} {new} (was {old})");
    }
    tell_ancestors(&agency.profile);
    if let Some((membership, replica)) = joined {
        say!("");
        say!("The request to be enrolled is made anew. One that was handed out before is wrong:");
        propose_enrolment(home, &membership, &replica, &agency, clock::system()())?;
    }
    Ok(())
}

/// What differs: its name, what it was, what it becomes.
fn changes(old: &Profile, new: &Profile) -> Vec<(&'static str, String, String)> {
    let roles = |profile: &Profile| match profile.roles.is_empty() {
        true => "none".to_owned(),
        false => "standards".to_owned(),
    };
    let all = [
        ("name", old.name.clone(), new.name.clone()),
        ("level", old.level.to_string(), new.level.to_string()),
        (
            "territory",
            old.territory.to_string(),
            new.territory.to_string(),
        ),
        ("roles", roles(old), roles(new)),
    ];
    all.into_iter().filter(|(_, old, new)| old != new).collect()
}

/// The log as the registry shows it now, if the agency is not enrolled in it. Who has been
/// enrolled stays as enrolled; and where that cannot be known, nothing is changed either.
fn unenrolled(
    home: &Home,
    membership: Membership,
    agency: &HostedAgency,
) -> Result<(Membership, Arc<Replica>), Fault> {
    let id = agency.id();
    let disk = Disk::new().private();
    let replica = Replica::open(&home.replica(), &membership.origin, membership.root, disk)
        .map_err(failed)?;
    let source = Source::new(&membership.registry).map_err(failed)?;
    runtime()?
        .block_on(replica.advance(&source, Duration::ZERO, &clock::system()))
        .map_err(|error| {
            Fault::new(
                Blame::Unavailable,
                format!("cannot tell whether {id} is enrolled already: {error}"),
            )
            .advise("nothing was changed; try again when the registry can be reached")
        })?;
    match replica.index().agency(id).map_err(failed)? {
        None => Ok((membership, replica)),
        Some(record) => Err(wrong_use(format!(
            "{id} is enrolled already, as ‘{}’, level {}, {}",
            record.name, record.level, record.territory
        ))
        .advise(
            "nothing was changed: from now on its superior changes it, with ‘jingwei update’; the root, a national agency, with ‘jingwei-registry agency update’",
        )),
    }
}

/// Says how ancestors are written, where they may be missing: only the superior's enrolment
/// shows whether they are.
fn tell_ancestors(profile: &Profile) {
    let Some(superior) = profile.id.superior() else {
        return;
    };
    let alone = |chain: &&Vec<String>| chain.len() == 1;
    if let Some(code) = profile.territory.chains.iter().find(alone).map(|c| &c[0]) {
        let (list, edition) = (&profile.territory.list, &profile.territory.edition);
        say!(
            "note        {code} stands alone, which is right if {superior} answers for {code} itself;"
        );
        say!("            otherwise name its ancestor too: {list}@{edition}:{code}<ANCESTOR");
        say!("            (run ‘jingwei init’ again to correct it)");
    }
}

/// A new node.toml takes the address; one that is there must agree.
fn check_listen(home: &Home, listen: Option<SocketAddr>) -> Result<(), Fault> {
    let path = home.settings();
    let Some(listen) = listen.filter(|_| path.exists()) else {
        return Ok(());
    };
    let config = Config::read(&path, environment()).map_err(wrong_use)?;
    if config.listen == listen {
        return Ok(());
    }
    Err(wrong_use(format!(
        "{} exists already, and says: listen on {}",
        path.display(),
        config.listen
    ))
    .advise("change ‘listen’ there, and leave --listen out"))
}

fn level(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|level| (1..=5).contains(level));
    number.ok_or_else(|| {
        "a level is 1 national, 2 regional, 3 prefectural, 4 county or 5 township".to_owned()
    })
}

/// A name that people can read.
fn agency_name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= 200 && !text.contains(char::is_control);
    match fits {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 200 bytes of text on one line".to_owned()),
    }
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
