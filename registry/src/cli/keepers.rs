//! What the keepers of root keys share: where the registry is, their key files, and what becomes
//! of a proposal.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::FederationId;
use jingwei_proto::key::{PublicKey, SecretKey, Signer as _};
use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::{Predicate, Statement};
use jingwei_proto::words::root_keys;
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::confirm::confirm;
use jingwei_registry::connect::Patience;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::keyfile::{self, KeyFileError};
use jingwei_registry::log::{Log, Stored};
use jingwei_registry::registry::Paths;
use jingwei_registry::setting::HostPort;
use jingwei_registry::submit::Submitter;
use jingwei_registry::view::View;
use jingwei_registry::{history, rehearsal, say, shell};

use super::Place;
use super::follows::nothing_left;

/// The running registry, by its directory.
#[derive(clap::Args)]
pub struct Running {
    #[command(flatten)]
    pub place: Place,
    /// Where the registry listens; by default as registry.toml says
    #[arg(long, value_name = "HOST:PORT", value_parser = listens)]
    registry: Option<HostPort>,
}

/// Whether and with which keys a proposal is signed and entered at once.
#[derive(clap::Args)]
pub struct Signing {
    /// A root key; by default those in the registry's directory
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
    /// Write a proposal for the keepers of the root keys instead, to a new file: ‘root sign’, ‘root
    /// submit’
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What is said and asked before a proposal is entered.
pub struct Asking<'a> {
    /// The question.
    pub question: &'a str,
    /// Whether it has been answered already.
    pub yes: bool,
    /// What to do where too few have signed.
    pub too_few: &'a str,
}

impl Running {
    /// `host:port` of the registry.
    fn address(&self) -> Result<String, Fault> {
        if let Some(address) = &self.registry {
            return Ok(address.to_string());
        }
        let (_, config) = self.place.read()?;
        Ok(config.listen.to_string())
    }

    /// How many entries are committed to its log, as far as the directory says it.
    pub fn committed(&self) -> Result<u64, Fault> {
        let (paths, _) = self.place.read()?;
        let storage = paths.log_storage().map_err(failed)?;
        Log::committed_in(&storage).map_err(failed)
    }

    /// What its log says, verified.
    pub fn view(&self) -> Result<View, Fault> {
        let (paths, _) = self.place.read()?;
        let address = self.address()?;
        let view = runtime()?.block_on(View::of_registry(&paths, &address));
        view.map_err(|mut fault| {
            if let (Blame::Unavailable, Some(advice), None) =
                (fault.blame, &mut fault.advice, &self.registry)
            {
                advice.push_str("; --registry HOST:PORT names another");
            }
            fault
        })
    }

    /// The same, before something is entered.
    pub fn view_to_enter(&self) -> Result<View, Fault> {
        self.view().map_err(|mut fault| {
            if let (Blame::Unavailable, Some(advice)) = (fault.blame, &mut fault.advice) {
                advice.push_str("; nothing was entered: do the same again then");
            }
            fault
        })
    }

    /// Refuses a proposal of another federation than `here`, the registry's: nothing that it says can
    /// be compared with what is in force here.
    pub fn check_federation(&self, proposal: &Proposal, here: &FederationId) -> Result<(), Fault> {
        let federation = &proposal.statement().head.federation;
        if federation == here {
            return Ok(());
        }
        let dir = self.place.dir.display();
        Err(wrong_use(format!(
            "this proposal is of the federation {federation}, and the registry in {dir} keeps {here}"
        ))
        .advise("name the directory of its own federation's registry with --dir"))
    }

    /// Signs with `keys`, of which the last is the last keeper's, checks all that can be checked
    /// without the registry's word, asks, and enters.
    pub fn enter(
        &self,
        mut proposal: Proposal,
        keys: &[SecretKey],
        view: &View,
        asking: &Asking<'_>,
    ) -> Result<(), Fault> {
        let Some(last) = keys.last() else {
            return Err(wrong_use("no root key was found").advise(asking.too_few));
        };
        // In memory only: until somebody has agreed, no signature leaves this process.
        for key in keys {
            proposal.sign(key);
        }
        let envelope = proposal.finish(last);
        if let Some(said) = nothing_left(&proposal, view)? {
            say!("{said}");
            return Ok(());
        }
        self.not_waiting(proposal.statement(), view)?;
        let root = view.root()?;
        for key in keys {
            proposal.accepts(key.public(), &root.keys)?;
        }
        proposal
            .check_signatures(&root)
            .map_err(|fault| fault.advise(asking.too_few))?;
        rehearsal::judge(view.index(), &envelope)?;
        confirm(asking.question, asking.yes)?;
        let submitted = self.submit(&envelope, view);
        let index =
            submitted.map_err(|fault| self.unanswered(fault, proposal.statement(), view))?;
        say!("entered     log entry {index}");
        Ok(())
    }

    /// What is committed to the log and not shown to readers yet, of the same root or agency: its
    /// place, and whether it is this very statement. As far as the directory says it.
    fn waiting(&self, proposed: &Statement, view: &View) -> Option<(u64, bool)> {
        if view.root().ok()?.quorum == 0 {
            return None;
        }
        let (paths, _) = self.place.read().ok()?;
        let log = Stored::open(paths.log_storage().ok()?).ok()??;
        history::committed_after(&log, view.log().size(), proposed)
    }

    /// Refuses what is committed already, and what would have to follow something that readers are
    /// not shown yet.
    fn not_waiting(&self, proposed: &Statement, view: &View) -> Result<(), Fault> {
        let (reason, advice) = match self.waiting(proposed, view) {
            None => return Ok(()),
            Some((entry, true)) => (
                format!("this is log entry {entry} already, and waits for the quorum"),
                WAITS,
            ),
            Some((entry, false)) => (
                format!(
                    "nothing was entered: another change of {} is log entry {entry}, and waits for the quorum",
                    about(proposed)
                ),
                "do the same again when nothing waits: see ‘jingwei-registry status’",
            ),
        };
        Err(Fault::new(Blame::Unavailable, reason).advise(advice))
    }

    /// Where a statement was committed all the same, there is nothing left to do but to wait.
    fn unanswered(&self, fault: Fault, proposed: &Statement, view: &View) -> Fault {
        match self.waiting(proposed, view) {
            Some((_, true)) => Fault {
                advice: Some(WAITS.to_owned()),
                retry_after: None,
                ..fault
            },
            _ => fault,
        }
    }

    fn submit(&self, envelope: &Envelope, view: &View) -> Result<u64, Fault> {
        let (address, tls) = (self.address()?, view.root()?.registry.tls);
        let accepted = runtime()?.block_on(async {
            Submitter::new(&address, tls, None, Patience::default())?
                .submit(envelope)
                .await
        })?;
        Ok(accepted.index)
    }

    /// Explains the proposal, asks, and either writes it to a file or signs and enters it.
    pub fn decide(
        &self,
        proposal: Proposal,
        explanation: &[String],
        signing: &Signing,
        view: &View,
    ) -> Result<(), Fault> {
        for line in explanation {
            say!("{line}");
        }
        if let Some(path) = &signing.out {
            let before = history::envelope(view.log(), view.root()?.chain.index)?;
            return create(path, &proposal.after(&before)?);
        }
        let asking = Asking {
            question: "Sign and enter it for good?",
            yes: signing.yes,
            too_few: TOO_FEW_NAMED,
        };
        self.enter(proposal, &self.keys(signing, view)?, view, &asking)
    }

    /// The root keys in the given files; by default those in force in the registry's directory.
    fn keys(&self, signing: &Signing, view: &View) -> Result<Vec<SecretKey>, Fault> {
        if !signing.root_key.is_empty() {
            let files = signing.root_key.iter();
            return files.map(|file| load(file)).collect();
        }
        let root = view.root()?;
        let dir = Paths::new(&self.place.dir).root_keys();
        let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
            .map_err(|error| {
                failed(format!("{}: {error}", dir.display()))
                    .advise("name the root keys with --root-key")
            })?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        let mut keys = files
            .iter()
            .map(|file| load(file))
            .collect::<Result<Vec<_>, _>>()?;
        keys.retain(|key| root.keys.contains(key.public()));
        Ok(keys)
    }
}

/// What to do about a statement that is committed and not shown to readers yet.
const WAITS: &str = "nothing more is to be signed or submitted: it holds when enough witnesses have signed; ‘jingwei-registry status’ says what waits, and the registry's own log which witnesses do not answer";

/// The root, or the agency that a statement is about.
fn about(statement: &Statement) -> String {
    let agency = statement.head.agency.as_ref();
    agency.map_or_else(|| "the root".to_owned(), ToString::to_string)
}

/// What to do where a command was given too few root keys.
pub const TOO_FEW_NAMED: &str = "name more of them with --root-key; or write a proposal with --out, and let each keeper sign it with ‘jingwei-registry root sign’";

/// By whom a change is signed that is the root's.
pub fn signed_by(root: &RootRecord) -> String {
    some_of(root.threshold, &root.keys)
}

/// So many of the root keys.
pub fn some_of(threshold: u64, keys: &[PublicKey]) -> String {
    format!("{threshold} of {}", root_keys(keys.len() as u64))
}

/// A root key.
pub fn load(file: &Path) -> Result<SecretKey, Fault> {
    keyfile::load(file).map_err(|error| match error {
        KeyFileError::Io { .. } => wrong_use(error),
        other => failed(other),
    })
}

/// Reads a proposal's file.
pub fn read(path: &Path) -> Result<Proposal, Fault> {
    let bytes =
        std::fs::read(path).map_err(|error| wrong_use(format!("{}: {error}", path.display())))?;
    Proposal::parse(&bytes)
}

/// Writes a new proposal's file, and says what comes next. A file that is there already stays as it
/// is: it may hold signatures.
pub fn create(path: &Path, proposal: &Proposal) -> Result<(), Fault> {
    let file = path.display();
    let created = File::create_new(path).and_then(|mut created| {
        created.write_all(&proposal.to_bytes()).inspect_err(|_| {
            // Half a proposal is none, and would be in the way of the next attempt.
            let _ = std::fs::remove_file(path);
        })
    });
    created.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            wrong_use(format!("{file} exists already: name another, or remove it"))
        }
        _ => failed(format!("{file}: {error}")),
    })?;
    say_written(path, proposal);
    Ok(())
}

/// Writes a proposal's file again, with one signature more, and says what comes next.
pub fn write(path: &Path, proposal: &Proposal) -> Result<(), Fault> {
    std::fs::write(path, proposal.to_bytes())
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    say_written(path, proposal);
    Ok(())
}

fn say_written(path: &Path, proposal: &Proposal) {
    say!("proposal    {}", path.display());
    say_next(path, proposal);
}

/// How many have signed the proposal in a file, and which command is the next.
pub fn say_next(path: &Path, proposal: &Proposal) {
    let missing = match proposal.before() {
        Some(root) => {
            for count in proposal.counts(&root.keys, root.threshold) {
                say!("signatures  {count}");
            }
            proposal.missing(&root.keys, root.threshold)
        }
        None => {
            say!(
                "signatures  unknown how many are missing: the file does not hold the root in force"
            );
            u64::MAX
        }
    };
    let file = shell::path(path);
    let program = "Next: jingwei-registry";
    if missing > 1 {
        say!(
            "{program} root sign {file} --root-key KEY   # by another keeper; the last one enters it"
        );
        return;
    }
    match &proposal.statement().predicate {
        Predicate::Root(root) if root.continues.is_some() => say!(
            "{program} take-over --dir DIR --proposal {file} --root-key KEY   # by the last keeper"
        ),
        _ => say!("{program} root submit {file} --dir DIR --root-key KEY   # by the last keeper"),
    }
}

/// Where a registry listens; also as it says so itself when it is served, `http://HOST:PORT`.
fn listens(text: &str) -> Result<HostPort, String> {
    let place = text.strip_prefix("http://").unwrap_or(text);
    place.strip_suffix('/').unwrap_or(place).parse()
}

fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Runtime::new().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_found_where_it_says_it_is() {
        for text in ["host:7000", "http://host:7000", "http://host:7000/"] {
            assert_eq!(listens(text).unwrap().to_string(), "host:7000", "{text}");
        }
        let error = listens("https://host:7000").unwrap_err();
        assert!(error.ends_with("write host:7000"), "{error}");
    }
}
