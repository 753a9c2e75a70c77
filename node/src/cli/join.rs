//! `jingwei join`

use jingwei_registry::say;
use std::sync::Arc;

use jingwei_proto::digest::Digest;
use jingwei_proto::key::Signer;
use jingwei_proto::state::{Authority, authority};
use jingwei_proto::statement::parse_fingerprint;
use jingwei_proto::words::entries;
use jingwei_registry::clock;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::disk::{DirLock, Disk};
use jingwei_registry::enrolment::{Profile, check_territory, propose};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::replica::{Misbehaviour, Replica, ReplicaError};
use jingwei_registry::shell;
use jingwei_registry::source::{Source, SourceError};
use jingwei_registry::standing;

use super::{Place, runtime};
use crate::agency::HostedAgency;
use crate::home::Home;
use crate::membership::{Candidate, Membership, MembershipError};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei join --dir fr http://127.0.0.1:7000 --root 4QWV-3GZ6-…

Compare the fingerprint with one that did not come over the same line: on paper, by telephone.
Where an agency's territory cannot lie within its superior's, nothing is written.
It can be run again, for instance after ‘jingwei init’ has added an agency.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The registry's address
    #[arg(value_name = "http://HOST:PORT")]
    registry: String,
    /// The fingerprint of the federation's root: 52 letters and digits, with or without the dashes
    #[arg(long, value_name = "FINGERPRINT", value_parser = root_digest)]
    root: Digest,
}

fn root_digest(text: &str) -> Result<Digest, String> {
    parse_fingerprint(text).ok_or_else(|| {
        "a fingerprint has 52 letters A-Z and digits 2-7, with or without dashes between them"
            .to_owned()
    })
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let dir = &arguments.place.dir;
    let home = Home::new(dir);
    let agencies = HostedAgency::load_all(&home).map_err(failed)?;
    if agencies.is_empty() {
        return Err(
            wrong_use(format!("the node in {} hosts no agency yet", dir.display())).advise(
                format!(
                    "begin with: jingwei init --dir {} --agency ID …",
                    shell::path(dir)
                ),
            ),
        );
    }
    let _lock = DirLock::acquire(dir).map_err(failed)?;
    let clock = clock::system();
    let disk = Disk::new().private();
    let candidate = runtime()?
        .block_on(Candidate::read(
            &home,
            &arguments.registry,
            arguments.root,
            &clock,
            &disk,
        ))
        .map_err(join_fault)?;
    let fitting = agencies
        .iter()
        .try_for_each(|agency| check_profile(candidate.replica(), &agency.profile));
    if let Err(fault) = fitting {
        candidate.give_up(&home);
        return Err(fault);
    }
    let (membership, replica) = candidate.join(&home, &disk).map_err(join_fault)?;
    say!("joined      {}", membership.federation);
    if Source::new(&arguments.registry).is_ok_and(|named| named.to_string() != membership.registry)
    {
        say!("registry    {}, as before", membership.registry);
        say!(
            "            to follow another one: jingwei follow {} --dir {}",
            arguments.registry,
            shell::path(dir)
        );
    }
    say!("log         {}, verified", entries(replica.log().size()));
    for agency in &agencies {
        propose_enrolment(&home, &membership, &replica, agency, clock())?;
    }
    say!("");
    say!("Next: jingwei serve --dir {}", shell::path(dir));
    Ok(())
}

/// Refuses a territory that whoever enrols the agency could not grant: a request for it would only
/// be refused later, by others. Where the log does not show a superior yet, nothing can be told.
pub(super) fn check_profile(replica: &Replica, profile: &Profile) -> Result<(), Fault> {
    let (id, index) = (&profile.id, replica.index());
    if index.agency(id).map_err(failed)?.is_some() {
        return Ok(());
    }
    let Ok(Authority::Agency(superior)) = authority(index, id) else {
        return Ok(());
    };
    check_territory(id, &profile.territory, &superior).map_err(|fault| Fault {
        blame: Blame::WrongUse,
        message: format!("{}; nothing was written", fault.message),
        ..fault
    })
}

/// Writes the request to be enrolled, unless the agency is enrolled; says what stands in its way.
pub(super) fn propose_enrolment(
    home: &Home,
    membership: &Membership,
    replica: &Arc<Replica>,
    agency: &HostedAgency,
    now: jingwei_proto::time::Time,
) -> Result<(), Fault> {
    let id = agency.id();
    if let Some(record) = replica.index().agency(id).map_err(failed)? {
        say!("enrolled    {id}");
        if record.key != *agency.signing.public() {
            say!(
                "problem     with the key {}, which this node has not: bring its keys here, or bring in a new one with ‘jingwei recover --agency {id}’ and by word of {}; if {id} is not yours, choose another id",
                record.key.id(),
                standing::above(replica.index(), id)
            );
        }
        return Ok(());
    }
    if let Some(superior) = id.superior()
        && replica.index().agency(&superior).map_err(failed)?.is_none()
    {
        say!("problem     {superior} is not enrolled yet, and must be before {id}");
    }
    let path = home.enrolment(id);
    let mut bytes = propose(
        &agency.profile,
        &membership.federation,
        &agency.signing,
        now,
    )
    .to_bytes();
    bytes.push(b'\n');
    std::fs::write(&path, bytes).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    say!("proposal    {}", path.display());
    say!("key         {}", agency.signing.public().id());
    match id.superior() {
        Some(superior) => say!(
            "            give it to {superior}, who runs: jingwei enrol --dir DIR {}",
            shell::path(&path)
        ),
        None => say!(
            "            give it to the registry's keepers, who run: jingwei-registry enrol --dir DIR {}",
            shell::path(&path)
        ),
    }
    Ok(())
}

fn join_fault(error: MembershipError) -> Fault {
    let blame = match &error {
        MembershipError::NotJoined(_)
        | MembershipError::Other { .. }
        | MembershipError::Source(SourceError::Address(_)) => Blame::WrongUse,
        MembershipError::Replica(ReplicaError::Misbehaviour(_)) => Blame::Unverified,
        MembershipError::Source(_) | MembershipError::Replica(ReplicaError::Source(_)) => {
            Blame::Unavailable
        }
        MembershipError::Replica(_) | MembershipError::File { .. } => Blame::Internal,
    };
    let fault = Fault::new(blame, error.to_string());
    match error {
        MembershipError::Source(SourceError::Address(_)) => fault,
        MembershipError::Replica(ReplicaError::Misbehaviour(Misbehaviour::OtherRoot(_))) => fault
            .advise(
                "do not join: ask the registry's keepers for the fingerprint, over another line",
            ),
        MembershipError::Source(SourceError::NotHttp { .. }) => {
            fault.advise("is it a node's port? join names the registry's, which its keepers know")
        }
        MembershipError::Source(error) | MembershipError::Replica(ReplicaError::Source(error)) => {
            fault.advise(error.advice())
        }
        _ => fault,
    }
}
