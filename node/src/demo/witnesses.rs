//! The demo's two witnesses: each with a key, a memory and a port of its own. The registry
//! publishes only what both have signed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use jingwei_proto::note::NoteKey;
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Fault;
use jingwei_registry::serve::{TlsMode, serve};
use jingwei_registry::witness::client::{WitnessAddress, parse_url};
use jingwei_registry::witness::home::{Watched, WitnessConfig, WitnessHome, limits};
use jingwei_registry::witness::service;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::registry::{blocking, failed};

/// Who they are: nobody who runs the registry, or publishes in it. The names are also those of their
/// directories.
pub const WITNESSES: [&str; 2] = ["audit-office", "university"];

/// A witness that has a key and a port.
pub struct Witness {
    dir: PathBuf,
    listener: TcpListener,
    /// The key that verifies its cosignatures.
    pub key: NoteKey,
    /// Where checkpoints are submitted to it.
    pub address: WitnessAddress,
}

impl Witness {
    /// Begins the witness `name` in `dir`, on a free port.
    pub async fn begin(dir: PathBuf, name: &'static str) -> Result<Witness, Fault> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let listen = listener.local_addr().map_err(failed)?;
        let home = WitnessHome::new(&dir);
        let key = blocking(move || home.begin(name, &Disk::new())).await?;
        let url = parse_url(&format!("http://{listen}"))
            .ok_or_else(|| failed("the witness's address is none"))?;
        let address = WitnessAddress {
            name: name.to_owned(),
            url,
        };
        Ok(Witness {
            dir,
            listener,
            key,
            address,
        })
    }

    /// Serves it for the log with the key `log`.
    pub async fn serve(self, log: NoteKey) -> Result<Running, Fault> {
        let home = WitnessHome::new(&self.dir);
        keep_settings(&home, &self.listener, &log)?;
        let config = WitnessConfig::read(&home.settings(), std::iter::empty()).map_err(failed)?;
        let none: &[Watched] = &[];
        let witness =
            blocking(move || home.open(&config, none, clock::system(), Disk::new())).await?;
        let (shutdown, router) = (CancellationToken::new(), service::router(witness.into()));
        let plain = TlsMode::Plain;
        let serving = serve(self.listener, router, plain, limits(), shutdown.clone());
        Ok(Running {
            address: self.address,
            shutdown,
            task: tokio::spawn(serving),
        })
    }
}

/// So that `jingwei-registry witness` serves it again as it was, if the directory is kept.
fn keep_settings(home: &WitnessHome, listener: &TcpListener, log: &NoteKey) -> Result<(), Fault> {
    let listen = listener.local_addr().map_err(failed)?;
    let more = format!("# As the demo served it.\nlisten = \"{listen}\"\nlogs = [\"{log}\"]\n");
    append(&home.settings(), &more)
}

/// Adds lines to a configuration.
pub fn append(settings: &Path, lines: &str) -> Result<(), Fault> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(settings)
        .map_err(failed)?;
    file.write_all(lines.as_bytes()).map_err(failed)
}

/// A witness that is served.
pub struct Running {
    /// Where.
    pub address: WitnessAddress,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Stops it.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.task.await;
    }
}
