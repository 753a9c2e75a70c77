//! `jingwei rotate`, `recover`, `contest`, `suspend`, `resume`, `revoke`, `successor`, `update`:
//! each says what it will do, and asks.

use std::path::PathBuf;

use jingwei_proto::id::AgencyId;
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::state::{Authority, authority};
use jingwei_proto::wire::node::{ChangeAgencyRequest, ChangeAgencyResponse};
use jingwei_registry::clock;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::confirm::confirm;
use jingwei_registry::disk::{DirLock, Disk};
use jingwei_registry::enrolment::parse_territory;
use jingwei_registry::fault::Fault;
use jingwei_registry::lifecycle::RecoveryProposal;
use jingwei_registry::replica::Replica;
use jingwei_registry::{say, shell};

use super::Place;
use super::client::{received, with_node};
use crate::home::Home;
use crate::membership::Membership;
use crate::signing::SigningKey;

/// A change by the agency itself.
#[derive(clap::Args)]
pub struct Own {
    #[command(flatten)]
    place: Place,
    /// The agency, if the node hosts several
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    agency: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A change of an agency by its superior, which this node hosts.
#[derive(clap::Args)]
pub struct Below {
    #[command(flatten)]
    place: Place,
    /// The agency that it is about
    #[arg(value_name = "AGENCY")]
    agency: AgencyId,
    /// Why, for everybody to read
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A merger: who has an agency's tasks from now on.
#[derive(clap::Args)]
pub struct Heir {
    #[command(flatten)]
    below: Below,
    /// The agency that takes over
    #[arg(value_name = "SUCCESSOR")]
    successor: AgencyId,
}

/// What becomes different; the rest stays.
#[derive(clap::Args)]
pub struct Update {
    #[command(flatten)]
    below: Below,
    /// Its name from now on
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Its level from now on
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    level: Option<u64>,
    /// Its territory from now on: LIST@EDITION:CODE<ANCESTOR, several joined by commas
    #[arg(long, value_name = "TERRITORY", value_parser = checked_territory)]
    territory: Option<String>,
}

fn checked_territory(text: &str) -> Result<String, String> {
    parse_territory(text).map(|_| text.to_owned())
}

/// A new key for an agency whose key is lost.
#[derive(clap::Args)]
#[command(after_help = "\
Example, at the agency whose key is lost, its node stopped:
  jingwei recover --dir bre --agency fr.bre

and at its superior, with the file that this wrote:
  jingwei recover --dir fr bre/fr.bre.recovery

The file of a national agency is for the keepers of the root keys:
  jingwei-registry agency recover fr/fr.recovery --dir registry")]
pub struct Recover {
    #[command(flatten)]
    place: Place,
    /// The file that the agency wrote: its superior enters the new key
    #[arg(value_name = "FILE", required_unless_present = "agency")]
    proposal: Option<PathBuf>,
    /// The agency whose key is lost: makes a new key, and the file for its superior or the root's
    /// keepers
    #[arg(long, value_name = "ID", conflicts_with = "proposal")]
    agency: Option<AgencyId>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn own(action: &str, arguments: &Own) -> Result<(), Fault> {
    let request = ChangeAgencyRequest {
        agency: arguments.agency.clone(),
        action: action.to_owned(),
        ..ChangeAgencyRequest::default()
    };
    change(&arguments.place, request, arguments.yes)
}

pub fn below(action: &str, arguments: &Below) -> Result<(), Fault> {
    change(&arguments.place, request(action, arguments), arguments.yes)
}

pub fn successor(arguments: &Heir) -> Result<(), Fault> {
    let request = ChangeAgencyRequest {
        successor: arguments.successor.to_string(),
        ..request("successor", &arguments.below)
    };
    change(&arguments.below.place, request, arguments.below.yes)
}

pub fn update(arguments: &Update) -> Result<(), Fault> {
    let changes =
        !arguments.name.is_empty() || arguments.level.is_some() || arguments.territory.is_some();
    if !changes {
        return Err(wrong_use("nothing would become different")
            .advise("name what does: --name, --level, --territory"));
    }
    let request = ChangeAgencyRequest {
        name: arguments.name.clone(),
        level: arguments.level.unwrap_or(0),
        territory: arguments.territory.clone().unwrap_or_default(),
        ..request("update", &arguments.below)
    };
    change(&arguments.below.place, request, arguments.below.yes)
}

pub fn recover(arguments: &Recover) -> Result<(), Fault> {
    if let Some(agency) = &arguments.agency {
        return propose(&arguments.place, agency);
    }
    let path = arguments.proposal.clone().unwrap_or_default();
    let proposal = std::fs::read(&path)
        .map_err(|error| wrong_use(format!("cannot read {}: {error}", path.display())))?;
    RecoveryProposal::parse(&proposal)?;
    let request = ChangeAgencyRequest {
        action: "recover".to_owned(),
        proposal,
        ..ChangeAgencyRequest::default()
    };
    change(&arguments.place, request, arguments.yes)
}

fn request(action: &str, arguments: &Below) -> ChangeAgencyRequest {
    ChangeAgencyRequest {
        agency: arguments.agency.to_string(),
        action: action.to_owned(),
        reason: arguments.reason.clone(),
        ..ChangeAgencyRequest::default()
    }
}

/// Lets the node explain the change, asks, and lets it make it.
fn change(place: &Place, request: ChangeAgencyRequest, yes: bool) -> Result<(), Fault> {
    let planned = call(place, request.clone())?;
    if nothing_to_do(&planned) {
        return Ok(());
    }
    for line in &planned.explanation {
        say!("{line}");
    }
    let lasting = match request.action.as_str() {
        "revoke" | "successor" => " for good",
        _ => "",
    };
    let question = format!("{} {}{lasting}?", request.action, planned.agency);
    confirm(&question, yes)?;
    let done = call(
        place,
        ChangeAgencyRequest {
            enter: true,
            ..request
        },
    )?;
    if !nothing_to_do(&done) {
        say!("entered     log entry {}", done.index);
    }
    Ok(())
}

/// Says so where an agency is already what it is to be.
fn nothing_to_do(answer: &ChangeAgencyResponse) -> bool {
    let already = !answer.already.is_empty();
    if already {
        say!("{} is {}: nothing to do", answer.agency, answer.already);
    }
    already
}

fn call(place: &Place, request: ChangeAgencyRequest) -> Result<ChangeAgencyResponse, Fault> {
    with_node(place, |mut node| async move {
        received(node.change_agency(request).await)
    })
}

/// At the agency: a new key beside the lost one, and the file that its superior needs. The node
/// cannot do it, since it does not start without its key.
fn propose(place: &Place, agency: &AgencyId) -> Result<(), Fault> {
    let home = Home::new(&place.dir);
    let membership = Membership::load(&home).map_err(wrong_use)?;
    let _lock = DirLock::acquire(home.dir()).map_err(|error| {
        wrong_use(error)
            .advise("stop the node; if it has its key, ‘jingwei rotate’ needs nobody's help")
    })?;
    let disk = Disk::new().private();
    let replica = Replica::open(&home.replica(), &membership.origin, membership.root, disk)
        .map_err(failed)?;
    let record = replica.index().agency(agency).map_err(failed)?;
    let record = record.ok_or_else(|| wrong_use(format!("{agency} is not enrolled")))?;
    let used = |key: &PublicKey| {
        let known = replica.index().key(key.id());
        known.is_ok_and(|known| known.is_some())
    };
    let key = SigningKey::stage_in(&home.agency(agency), used).map_err(failed)?;
    let now = clock::system()();
    let mut bytes = RecoveryProposal::make(&membership.federation, &record, &key, now).to_bytes();
    bytes.push(b'\n');
    let path = home.dir().join(format!("{agency}.recovery"));
    std::fs::write(&path, bytes).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    say!("agency      {agency} ({})", record.name);
    say!("old key     {}", record.key.id());
    say!("new key     {}", key.public().id());
    say!("proposal    {}", path.display());
    let file = shell::path(&path);
    match authority(replica.index(), agency).map_err(failed)? {
        Authority::Root => say!(
            "            give it to the keepers of the root keys, who run: jingwei-registry agency recover {file} --dir DIR"
        ),
        Authority::Agency(superior) => say!(
            "            give it to its superior {}, who runs: jingwei recover --dir DIR {file}",
            superior.id
        ),
    }
    Ok(())
}
