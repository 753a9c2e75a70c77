//! `jingwei-registry take-over`

use std::path::{Path, PathBuf};

use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::note::NoteKey;
use jingwei_proto::statement::{Root, Witness, fingerprint};
use jingwei_proto::words::{entries, root_keys};
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::clock;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::confirm::confirm;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::found;
use jingwei_registry::registry::Paths;
use jingwei_registry::take_over::{self, Copied, Replica, heard, heard::Heard};
use jingwei_registry::{history, say, shell};
use reqwest::Url;

use super::keepers::{TOO_FEW_NAMED, create, load, read};
use super::{Place, changes, init, root};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:

When the registry is lost for good, another one goes on from the replica of any node
  jingwei-registry take-over --from fr --dir new --root-key 1.pem --root-key 2.pem
  jingwei-registry serve --dir new

With witnesses: theirs are asked how long the lost log was, and co-sign the new one
  jingwei-registry take-over --from fr --dir new --root-key 1.pem --root-key 2.pem \\
      --witness \"$(cat w1/vkey)\" http://127.0.0.1:7201

Signed by keepers of root keys at their own machines
  jingwei-registry take-over --from fr --dir new --out next.root
  jingwei-registry root sign next.root --root-key /media/safe-a/1.pem
  jingwei-registry take-over --dir new --proposal next.root --root-key /media/safe-b/2.pem

Take the longest replica. Then every node runs ‘jingwei follow http://HOST:PORT’ and submits again by
itself what it has signed and does not find in the new log.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// A node's directory, its replica, or a copy of that
    #[arg(long, value_name = "DIR", required_unless_present = "proposal")]
    from: Option<PathBuf>,
    /// Enter this proposal, which the keepers of the other root keys have signed
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    proposal: Option<PathBuf>,
    /// A root key; once for each
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
    /// Write a proposal for the keepers of the root keys, to a new file, instead of signing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root_key", "proposal"])]
    out: Option<PathBuf>,
    /// A witness's key, as ‘witness init’ prints it, and its address; once for each witness from
    /// now on. By default they stay, and registry.toml says where they are
    #[arg(long, num_args = 2, value_names = ["VKEY", "URL"], action = clap::ArgAction::Append)]
    witness: Vec<String>,
    /// How many witnesses must co-sign from now on
    #[arg(long, value_name = "K")]
    quorum: Option<u64>,
    /// A checkpoint of the lost log that somebody holds, such as replica/highest of another node
    #[arg(long, value_name = "FILE|URL")]
    checkpoint: Vec<String>,
    /// Go on without so many entries of the lost log that no replica holds: their submitters enter
    /// them again
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    give_up: u64,
    /// Go on though so few witnesses are heard that nobody can say how many entries are missing
    #[arg(long)]
    without_witnesses: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    match (&arguments.proposal, &arguments.from) {
        (Some(file), _) => complete(arguments, file),
        (None, Some(from)) => begin(arguments, from),
        (None, None) => Err(wrong_use("--from is missing")),
    }
}

fn begin(arguments: &Arguments, from: &Path) -> Result<(), Fault> {
    let witnesses = init::witnesses(&arguments.witness)?;
    let replica = Replica::open(from)?;
    let (paths, config) = arguments.place.read()?;
    let copied = replica.copy_to(&paths, Disk::new())?;
    let acknowledged = acknowledged(arguments, &copied, &witnesses)?;
    let missing = acknowledged.saturating_sub(copied.continues.size);
    complete_or_given_up(arguments.give_up, missing)?;
    let next = next_root(arguments, &copied, &witnesses);
    if !witnesses.is_empty() && config.witnesses.is_empty() {
        let lines = found::witness_settings(&witnesses);
        found::write_settings(&paths.settings(), &lines, &Disk::new()).map_err(failed)?;
    }
    let mut proposal = Proposal::new(&root::statement(&copied.root, &next)?);
    proposal = proposal.after(&history::envelope(&copied.log, copied.root.chain.index)?)?;
    explain(&copied, &next, missing);
    if let Some(path) = &arguments.out {
        return create(path, &proposal);
    }
    let keys = keys(arguments)?;
    let Some(last) = keys.last() else {
        return Err(wrong_use("no root key was named").advise(TOO_FEW_NAMED));
    };
    // In memory only, as far as nobody has agreed.
    for key in &keys {
        proposal.sign(key);
        proposal.accepts(key.public(), &copied.root.keys)?;
    }
    let too_few = |fault: Fault| fault.advise(TOO_FEW_NAMED);
    proposal.check_signatures(&copied.root).map_err(too_few)?;
    let envelope = proposal.finish(last);
    take_over::rehearse(&paths, &envelope, Disk::new())?;
    confirm(
        "Sign it, and take the registry over for good?",
        arguments.yes,
    )?;
    enter(arguments, &paths, &envelope)
}

fn complete(arguments: &Arguments, file: &Path) -> Result<(), Fault> {
    let mut proposal = read(file)?;
    root::show_proposal(&proposal, proposal.before())?;
    let keys = keys(arguments)?;
    let [key] = &keys[..] else {
        return Err(wrong_use("the last keeper signs with one --root-key"));
    };
    let (paths, _) = arguments.place.read()?;
    // In memory only, as far as nobody has agreed.
    proposal.sign(key);
    let envelope = proposal.finish(key);
    if let Some(in_force) = take_over::followed(&paths, &envelope, Disk::new())? {
        proposal.accepts(key.public(), &in_force.keys)?;
        let too_few = |fault: Fault| fault.advise(root::TOO_FEW_SIGNED);
        proposal.check_signatures(&in_force).map_err(too_few)?;
        take_over::rehearse(&paths, &envelope, Disk::new())?;
    }
    let question = format!(
        "Sign it with {}, and take the registry over for good?",
        key.public().id()
    );
    confirm(&question, arguments.yes)?;
    enter(arguments, &paths, &envelope)
}

fn enter(arguments: &Arguments, paths: &Paths, envelope: &Envelope) -> Result<(), Fault> {
    let index = take_over::finish(paths, envelope, &clock::system(), Disk::new())?;
    let dir = shell::path(&arguments.place.dir);
    say!("entered     log entry {index}");
    say!("");
    say!("Next, where witnesses co-sign: give each of them what this prints, and let it read that");
    say!("  jingwei-registry policy --dir {dir}");
    say!("Then serve it, and tell every node where it is:");
    say!("  jingwei-registry serve --dir {dir}");
    say!("  jingwei follow http://HOST:PORT --dir DIR");
    Ok(())
}

fn keys(arguments: &Arguments) -> Result<Vec<SecretKey>, Fault> {
    let files = arguments.root_key.iter();
    files.map(|file| load(file)).collect()
}

fn next_root(arguments: &Arguments, copied: &Copied, witnesses: &[(NoteKey, Url)]) -> Root {
    let mut next = root::body(&copied.root);
    next.registry = copied.registry.clone();
    next.continues = Some(copied.continues.clone());
    if !witnesses.is_empty() {
        let named = witnesses.iter().map(|(key, _)| Witness {
            name: key.name().to_owned(),
            key: key.public().clone(),
        });
        next.witnesses = named.collect();
    }
    next.quorum = arguments.quorum.unwrap_or(next.quorum);
    next
}

/// How many entries the lost log may have acknowledged, by what witnesses and nodes show of it.
fn acknowledged(
    arguments: &Arguments,
    copied: &Copied,
    witnesses: &[(NoteKey, Url)],
) -> Result<u64, Fault> {
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    let mut heard = Heard::new(&copied.root, &copied.log);
    for note in &copied.shown {
        heard.take("the replica", note)?;
    }
    for place in &arguments.checkpoint {
        let note = match Url::parse(place) {
            Ok(url) if url.scheme() == "http" => runtime.block_on(heard::read(url)),
            _ => std::fs::read_to_string(place).map_err(|error| format!("{place}: {error}")),
        };
        heard.take(place, &note.map_err(wrong_use)?)?;
    }
    let named = |key: &NoteKey| {
        let mut witnesses = copied.root.witnesses.iter();
        witnesses.any(|witness| witness.name == key.name())
    };
    for (key, url) in witnesses.iter().filter(|(key, _)| named(key)) {
        let origin = &copied.continues.origin;
        match runtime.block_on(heard::of_witness(url, origin)) {
            Ok(note) => heard.answer(key.name(), &note)?,
            Err(error) => say!("not heard   {}: {error}", key.name()),
        }
    }
    if heard.is_unsure() && !arguments.without_witnesses {
        let silent = heard.silent().join(", ");
        return Err(Fault::new(
            Blame::Refused,
            format!("nobody can say how long the lost log was, without {silent}"),
        )
        .advise("name them and their addresses with --witness, or what they hold with --checkpoint; if they are lost too, add --without-witnesses"));
    }
    Ok(heard.acknowledged())
}

/// What is missing must be known to those who decide.
fn complete_or_given_up(given_up: u64, missing: u64) -> Result<(), Fault> {
    if missing == given_up {
        return Ok(());
    }
    if missing == 0 {
        return Err(wrong_use(format!(
            "nothing is missing, and --give-up names {}",
            entries(given_up)
        )));
    }
    Err(Fault::new(
        Blame::Refused,
        format!(
            "the lost log had {} more, which may have been acknowledged",
            entries(missing)
        ),
    )
    .advise(format!(
        "take a longer replica: each node's ‘jingwei doctor’ says how many entries it has; if no node has more, add --give-up {missing}: whoever submitted what is missing enters it again"
    )))
}

fn explain(copied: &Copied, next: &Root, missing: u64) {
    let before = &copied.continues;
    say!("federation  {}", copied.root.federation);
    say!(
        "root now    version {}, {}",
        copied.root.chain.sequence,
        fingerprint(&copied.root.chain.payload)
    );
    say!(
        "replica     {} of {}, dated {}",
        entries(before.size),
        before.origin,
        copied.dated
    );
    if missing > 0 {
        say!(
            "given up    {} after that, to be entered again by those who submitted",
            entries(missing)
        );
    }
    say!("");
    say!("root        version {}", next.version);
    let changed = changes::lines(&root::in_force(&copied.root), next);
    for line in root::lines(next).into_iter().chain(changed) {
        say!("{line}");
    }
    say!(
        "signed by   {} of the {}",
        copied.root.threshold,
        root_keys(copied.root.keys.len() as u64)
    );
}
