//! What the keepers of root keys share: where the registry is, their key files, and what becomes
//! of a proposal.

use std::path::{Path, PathBuf};

use jingwei_proto::key::{SecretKey, Signer};
use jingwei_registry::ceremony::Proposal;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::confirm::confirm;
use jingwei_registry::connect::Patience;
use jingwei_registry::fault::Fault;
use jingwei_registry::keyfile;
use jingwei_registry::registry::Paths;
use jingwei_registry::say;
use jingwei_registry::setting::HostPort;
use jingwei_registry::submit::Submitter;
use jingwei_registry::view::View;

use super::Place;

/// The running registry, by its directory.
#[derive(clap::Args)]
pub struct Running {
    #[command(flatten)]
    pub place: Place,
    /// Where the registry listens; by default as registry.toml says
    #[arg(long, value_name = "HOST:PORT")]
    registry: Option<HostPort>,
}

/// Whether and with which keys a proposal is signed and entered at once.
#[derive(clap::Args)]
pub struct Signing {
    /// A root key; by default those in the registry's directory
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
    /// Write a proposal for the keepers of the root keys instead: ‘root sign’, ‘root submit’
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
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

    /// What its log says, verified.
    pub fn view(&self) -> Result<View, Fault> {
        let (paths, _) = self.place.read()?;
        let address = self.address()?;
        runtime()?.block_on(View::of_registry(&paths, &address))
    }

    /// Enters what `keys` and those before them have signed.
    pub fn submit(
        &self,
        proposal: &Proposal,
        last: &dyn Signer,
        view: &View,
    ) -> Result<u64, Fault> {
        let envelope = proposal.finish(last);
        let (address, tls) = (self.address()?, view.root()?.registry.tls);
        let accepted = runtime()?.block_on(async {
            Submitter::new(&address, tls, None, Patience::default())?
                .submit(&envelope)
                .await
        })?;
        Ok(accepted.index)
    }

    /// Explains the proposal, asks, and either writes it to a file or signs and enters it.
    pub fn decide(
        &self,
        mut proposal: Proposal,
        explanation: &[String],
        signing: &Signing,
        view: &View,
    ) -> Result<(), Fault> {
        for line in explanation {
            say!("{line}");
        }
        if let Some(path) = &signing.out {
            return write(path, &proposal);
        }
        let keys = self.keys(signing, view)?;
        let Some((last, others)) = keys.split_last() else {
            return Err(wrong_use("no root key was found")
                .advise("name them with --root-key, or write a proposal with --out"));
        };
        confirm("Sign and enter it for good?", signing.yes)?;
        for key in others {
            proposal.sign(key);
        }
        let index = self.submit(&proposal, last, view)?;
        say!("entered     log entry {index}");
        Ok(())
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

/// A root key.
pub fn load(file: &Path) -> Result<SecretKey, Fault> {
    keyfile::load(file).map_err(failed)
}

/// Reads a proposal's file.
pub fn read(path: &Path) -> Result<Proposal, Fault> {
    let bytes =
        std::fs::read(path).map_err(|error| wrong_use(format!("{}: {error}", path.display())))?;
    Proposal::parse(&bytes)
}

/// Writes a proposal's file.
pub fn write(path: &Path, proposal: &Proposal) -> Result<(), Fault> {
    std::fs::write(path, proposal.to_bytes())
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    say!("proposal    {}", path.display());
    say!("signatures  {}", proposal.signers().count());
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Runtime::new().map_err(failed)
}
