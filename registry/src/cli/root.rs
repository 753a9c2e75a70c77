//! `jingwei-registry root`: the root document, shown and changed by its keepers.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::note::{Algorithm, NoteKey};
use jingwei_proto::state::{RULES, RootRecord};
use jingwei_proto::statement::{
    Agency, Head, Predicate, RegistryKeys, Root, Statement, Witness, fingerprint,
};
use jingwei_proto::words::{entries, root_keys};
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::clock;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::confirm::confirm;
use jingwei_registry::fault::Fault;
use jingwei_registry::keyfile::{self, TlsIdentity};
use jingwei_registry::registry::Paths;
use jingwei_registry::{lifecycle, say};

use super::keepers::{Asking, Running, Signing, load, read, say_next, some_of, write};
use super::{changes, recovery_delay};

const PROPOSE: &str = "\
Examples:
  jingwei-registry root propose --dir registry --new-registry-keys --out next.root
  jingwei-registry root propose --dir registry --remove 4f2a… --add new.pem --out next.root
  jingwei-registry root propose --dir registry --witness \"$(cat w1/vkey)\" --quorum 1 --out next.root";

#[derive(clap::Args)]
#[command(after_help = "\
Example: another root key in place of a lost one, signed by keepers at their own machines
  jingwei-registry root propose --dir registry --remove 4f2a… --add new.pem --out next.root
  jingwei-registry root sign    next.root --root-key /media/safe-a/1.pem
  jingwei-registry root sign    next.root --root-key new.pem
  jingwei-registry root submit  next.root --dir registry --root-key /media/safe-b/2.pem

k keys of the root in force and k of the proposed one must sign.")]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show the root in force
    #[command(after_help = "Example:\n  jingwei-registry root show --dir registry")]
    Show(Show),
    /// Propose the next version: what is not named stays as it is
    #[command(after_help = PROPOSE)]
    Propose(Box<Propose>),
    /// Sign a proposal, offline
    #[command(
        after_help = "Example:\n  jingwei-registry root sign next.root --root-key /media/safe-a/1.pem"
    )]
    Sign(Sign),
    /// Sign a proposal as the last keeper and enter it
    #[command(
        after_help = "Example:\n  jingwei-registry root submit next.root --dir registry --root-key /media/safe-b/2.pem"
    )]
    Submit(Submit),
}

#[derive(clap::Args)]
struct Show {
    #[command(flatten)]
    running: Running,
}

#[derive(clap::Args)]
struct Propose {
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    signing: Signing,
    /// Add a root key: a key file, or a public key as ‘root show’ prints it
    #[arg(long, value_name = "FILE|KEY")]
    add: Vec<String>,
    /// Remove a root key: the beginning of its id as ‘root show’ prints it, or as with --add
    #[arg(long, value_name = "ID|FILE|KEY")]
    remove: Vec<String>,
    /// How many root keys must sign from now on
    #[arg(long, value_name = "K")]
    threshold: Option<u64>,
    /// Make a new log key, cosigner key and TLS key for the registry
    #[arg(long)]
    new_registry_keys: bool,
    /// Replace the witnesses: a key as ‘witness init’ prints it, or a name and a public key. Where
    /// they are stands in registry.toml
    #[arg(long, value_name = "VKEY|NAME=KEY", value_parser = witness)]
    witness: Vec<Witness>,
    /// How many witnesses must co-sign
    #[arg(long, value_name = "N")]
    quorum: Option<u64>,
    /// The rules from now on
    #[arg(long, value_name = "N", value_parser = known_rules)]
    rules: Option<u64>,
    /// Seconds before a superior's recovery of an agency's key takes effect
    #[arg(long, value_name = "SECONDS", value_parser = recovery_delay)]
    recovery_delay: Option<u64>,
}

#[derive(clap::Args)]
struct Sign {
    /// The proposal; the signature is added to it
    #[arg(value_name = "FILE")]
    proposal: PathBuf,
    /// The root key to sign with
    #[arg(long, value_name = "FILE")]
    root_key: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(clap::Args)]
struct Submit {
    #[command(flatten)]
    running: Running,
    /// The proposal that the other keepers have signed
    #[arg(value_name = "FILE")]
    proposal: PathBuf,
    /// The last root key
    #[arg(long, value_name = "FILE")]
    root_key: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    match &arguments.what {
        What::Show(arguments) => show(arguments),
        What::Propose(arguments) => propose(arguments),
        What::Sign(arguments) => sign(arguments),
        What::Submit(arguments) => submit(arguments),
    }
}

fn witness(text: &str) -> Result<Witness, String> {
    if let Ok(key) = text.parse::<NoteKey>()
        && key.algorithm() == Algorithm::CosignatureV1
    {
        return Ok(Witness {
            name: key.name().to_owned(),
            key: key.public().clone(),
        });
    }
    let (name, key) = text
        .split_once('=')
        .ok_or("a witness is NAME+HASH+KEY or NAME=KEY")?;
    Ok(Witness {
        name: name.to_owned(),
        key: key.parse().map_err(|error| format!("{error}"))?,
    })
}

/// Rules that this program can follow: by others it could not tell what it proposes.
fn known_rules(text: &str) -> Result<u64, String> {
    let rules: Option<u64> = text.parse().ok();
    let rules = rules.filter(|rules| (1..=RULES).contains(rules));
    rules.ok_or_else(|| {
        format!(
            "this program knows rules up to {RULES}: a newer jingwei-registry proposes newer ones"
        )
    })
}

fn show(arguments: &Show) -> Result<(), Fault> {
    let view = arguments.running.view()?;
    let root = view.root()?;
    say!("federation  {}", root.federation);
    say!(
        "version     {}, log entry {}",
        root.chain.sequence,
        root.chain.index
    );
    let first = view.index().root_version(1).map_err(failed)?;
    let first = first.as_ref().unwrap_or(&root);
    say!(
        "fingerprint {}, of version 1: by it nodes join and evidence is verified, also after this",
        fingerprint(&first.chain.payload)
    );
    print(&in_force(&root));
    Ok(())
}

/// The root in force as the body of its next version begins.
pub fn body(root: &RootRecord) -> Root {
    Root {
        version: root.chain.sequence + 1,
        keys: root.keys.clone(),
        threshold: root.threshold,
        registry: root.registry.clone(),
        witnesses: root.witnesses.clone(),
        quorum: root.quorum,
        rules: root.rules,
        recovery_delay: root.recovery_delay,
        continues: None,
        consents: Vec::new(),
    }
}

/// The root in force as its own document says it.
pub fn in_force(root: &RootRecord) -> Root {
    Root {
        version: root.chain.sequence,
        ..body(root)
    }
}

fn print(root: &Root) {
    for line in lines(root) {
        say!("{line}");
    }
}

/// What a root says, for whoever is about to sign it.
pub fn lines(root: &Root) -> Vec<String> {
    let mut lines = vec![format!(
        "threshold   {} of {}",
        root.threshold,
        root_keys(root.keys.len() as u64)
    )];
    let keys = root.keys.iter();
    lines.extend(keys.map(|key| format!("root key    {} {key}", key.id())));
    lines.push(format!("log         {}", root.registry.origin));
    lines.push(format!("log key     {}", root.registry.log));
    lines.push(format!("cosigner    {}", root.registry.cosigner));
    lines.push(format!("TLS key     {}", root.registry.tls));
    let witnesses = root.witnesses.iter();
    lines.extend(witnesses.map(|witness| format!("witness     {} {}", witness.name, witness.key)));
    lines.push(match root.quorum {
        0 => "quorum      0: no witness is asked for".to_owned(),
        quorum => format!("quorum      {quorum}"),
    });
    lines.push(format!("rules       {}", root.rules));
    lines.push(format!(
        "recovery    effective after {} s",
        root.recovery_delay
    ));
    if let Some(before) = &root.continues {
        lines.push(format!(
            "continues   {} of {}, {}",
            before.origin,
            entries(before.size),
            before.root
        ));
    }
    lines
}

fn propose(arguments: &Propose) -> Result<(), Fault> {
    let view = arguments.running.view_to_enter()?;
    let current = view.root()?;
    let mut next = body(&current);
    change_keys(&mut next, arguments)?;
    if arguments.new_registry_keys {
        let dir = Paths::new(&arguments.running.place.dir).keys();
        next.registry = registry_keys(&dir.join(next.version.to_string()), &current.registry)?;
    }
    if !arguments.witness.is_empty() {
        next.witnesses = arguments.witness.clone();
    }
    next.quorum = arguments.quorum.unwrap_or(next.quorum);
    next.rules = arguments.rules.unwrap_or(next.rules);
    next.recovery_delay = arguments.recovery_delay.unwrap_or(next.recovery_delay);
    if next == body(&current) {
        return Err(wrong_use("the next root would be the same as this one")
            .advise("say what becomes different: ‘jingwei-registry root propose --help’"));
    }
    let statement = statement(&current, &next)?;
    let mut explanation = vec![format!(
        "root        version {} of {}",
        next.version, current.federation
    )];
    explanation.extend(lines(&next));
    explanation.extend(changes::lines(&in_force(&current), &next));
    explanation.push(format!(
        "signed by   {} of the {} in force, and {} of the {} proposed",
        current.threshold,
        root_keys(current.keys.len() as u64),
        next.threshold,
        next.keys.len()
    ));
    explanation.push("from when   the log entry on".into());
    let (running, signing) = (&arguments.running, &arguments.signing);
    running.decide(Proposal::new(&statement), &explanation, signing, &view)
}

/// The statement that brings in the next version.
pub fn statement(current: &RootRecord, next: &Root) -> Result<Statement, Fault> {
    let statement = Statement {
        head: Head {
            federation: current.federation.clone(),
            agency: None,
            time: clock::system()(),
            sequence: next.version,
            previous: Some(current.chain.payload),
        },
        predicate: Predicate::Root(next.clone()),
    };
    Statement::parse(&statement.payload()).map_err(wrong_use)?;
    Ok(statement)
}

fn change_keys(next: &mut Root, arguments: &Propose) -> Result<(), Fault> {
    for named in &arguments.remove {
        let (before, id) = (next.keys.len(), id(named, &next.keys)?);
        next.keys
            .retain(|key| !key.id().to_string().starts_with(&id));
        if next.keys.len() + 1 != before {
            return Err(wrong_use(format!(
                "{} begin with ‘{id}’, and one is to be removed",
                root_keys((before - next.keys.len()) as u64)
            ))
            .advise(
                "‘jingwei-registry root show’ lists them: write more of one's id, or name its file",
            ));
        }
    }
    for key in &arguments.add {
        next.keys.push(public(key)?);
    }
    next.threshold = arguments.threshold.unwrap_or(next.threshold);
    Ok(())
}

/// The id of a root key, or how it begins: as it is written, or of the key that is named.
fn id(named: &str, keys: &[PublicKey]) -> Result<String, Fault> {
    let begins = |key: &PublicKey| key.id().to_string().starts_with(named);
    let is_key = named.parse::<PublicKey>().is_ok() || Path::new(named).is_file();
    match is_key && !keys.iter().any(begins) {
        true => Ok(public(named)?.id().to_string()),
        false => Ok(named.to_owned()),
    }
}

/// A public key, written out or that of a key file.
fn public(text: &str) -> Result<PublicKey, Fault> {
    match text.parse() {
        Ok(key) => Ok(key),
        Err(_) => load(Path::new(text)).map(|key| key.public().clone()),
    }
}

/// New keys for the registry, in a directory of their own beside those in use.
fn registry_keys(dir: &Path, current: &RegistryKeys) -> Result<RegistryKeys, Fault> {
    keyfile::create_private_dir(dir).map_err(failed)?;
    let key = |name: &str| keyfile::load_or_create(&dir.join(name)).map_err(failed);
    Ok(RegistryKeys {
        origin: current.origin.clone(),
        log: key("log.pem")?.public().clone(),
        cosigner: key("cosigner.pem")?.public().clone(),
        tls: TlsIdentity::load_or_create(dir).map_err(failed)?.id,
    })
}

/// Shows what a keeper is about to sign, and what it changes: the file may have come a long way.
pub fn show_proposal(proposal: &Proposal, before: Option<&Root>) -> Result<(), Fault> {
    let statement = proposal.statement();
    say!(
        "statement   {} {}",
        statement.predicate.kind(),
        statement.chain()
    );
    say!("federation  {}", statement.head.federation);
    match &statement.predicate {
        Predicate::Root(root) => {
            say!("version     {}", root.version);
            print(root);
            show_changes(before, root);
        }
        Predicate::Agency(Agency { action, .. }) => {
            let by = before.map(|root| some_of(root.threshold, &root.keys));
            let by = by.unwrap_or_else(|| "the root keys in force".to_owned());
            let id = statement.agency().map_err(wrong_use)?;
            for line in lifecycle::explain_alone(id, action, &by) {
                say!("{line}");
            }
        }
        other => return Err(wrong_use(format!("root keys sign no {}", other.kind()))),
    }
    for signer in proposal.signers() {
        match proposal.is_own_key(signer) {
            true => say!("agreed by   {signer}, the agency's own key"),
            false => say!("signed by   {signer}"),
        }
    }
    Ok(())
}

fn show_changes(before: Option<&Root>, next: &Root) {
    let Some(before) = before else {
        say!(
            "against     unknown: the file does not hold the root that this follows; compare with ‘root show’"
        );
        return;
    };
    for line in changes::lines(before, next) {
        say!("{line}");
    }
}

fn sign(arguments: &Sign) -> Result<(), Fault> {
    let mut proposal = read(&arguments.proposal)?;
    let key = load(&arguments.root_key)?;
    let id = key.public().id();
    // Whose signature would count for nothing need not read what it would be under.
    if let Some(before) = proposal.before() {
        let accepted = proposal.accepts(key.public(), &before.keys);
        accepted.map_err(|fault| fault.advise(OTHER_ROOT))?;
    }
    show_proposal(&proposal, proposal.before())?;
    if proposal.signers().any(|signer| signer == id) {
        say!("{id} has signed it already");
        say_next(&arguments.proposal, &proposal);
        return Ok(());
    }
    confirm(&format!("Sign it with {id}?"), arguments.yes)?;
    proposal.sign(&key);
    write(&arguments.proposal, &proposal)
}

/// What to do where a key is none of the root that the file holds.
const OTHER_ROOT: &str = "the file lists the root keys of the time when it was proposed: sign with one of them, or propose it anew if the root has changed since";

/// What to do where the last keeper comes too early.
pub const TOO_FEW_SIGNED: &str = "let more keepers sign the file first, with ‘jingwei-registry root sign FILE --root-key KEY’; who comes last submits it";

fn submit(arguments: &Submit) -> Result<(), Fault> {
    let proposal = read(&arguments.proposal)?;
    let key = load(&arguments.root_key)?;
    let view = arguments.running.view_to_enter()?;
    let root = view.root()?;
    let running = &arguments.running;
    running.check_federation(&proposal, &root.federation)?;
    show_proposal(&proposal, Some(&in_force(&root)))?;
    let asking = Asking {
        question: &format!("Sign it with {} and enter it for good?", key.public().id()),
        yes: arguments.yes,
        too_few: TOO_FEW_SIGNED,
    };
    running.enter(proposal, &[key], &view, &asking)
}
