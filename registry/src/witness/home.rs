//! A witness of its own in a directory: its configuration, its key, and what it remembers.
//!
//! ```text
//! DIR/witness.toml        name, address, and the logs that it co-signs
//! DIR/vkey                the key that verifies its cosignatures, for root documents
//! DIR/keys/witness.pem    the key that signs them
//! DIR/logs/<SHA-256>      the newest checkpoint of each log, by the SHA-256 of its origin
//! DIR/logs/<SHA-256>.fork two checkpoints of one size that the log has signed, if it ever shows two
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jingwei_proto::key::Signer as _;
use jingwei_proto::note::{Algorithm, NoteKey};
use jingwei_proto::policy::Policy;

use super::{Witness, WitnessError};
use crate::clock::Clock;
use crate::disk::{Created, Disk};
use crate::keyfile::{self, KeyFileError};
use crate::serve::ServeLimits;
use crate::setting::Setting;
use crate::settings::{Settings, SettingsErrors};
use crate::telemetry::LogSettings;

/// The layout of a witness's directory.
#[derive(Debug, Clone)]
pub struct WitnessHome(PathBuf);

/// A log that a witness co-signs, written as its verifier key, after which its origin follows if
/// it is not the key's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The log's origin.
    pub origin: String,
    /// The key that signs its checkpoints.
    pub key: NoteKey,
}

/// What can be set.
#[derive(Debug, Clone)]
pub struct WitnessConfig {
    /// Its name in cosignature lines.
    pub name: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Logs to co-sign.
    pub logs: Vec<Watched>,
    /// A tlog-policy file, whose logs are co-signed too.
    pub policy: Option<PathBuf>,
    /// Where to serve `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// How to log.
    pub log: LogSettings,
}

/// A witness could not be begun, or does not know which logs to co-sign.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// There is one.
    #[error("{0} holds a witness already; choose another --dir")]
    Exists(PathBuf),
    /// There is none.
    #[error(
        "{0} holds no witness: begin one with ‘jingwei-registry witness init --dir {0} --name NAME’"
    )]
    Missing(PathBuf),
    /// Its key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Its memory cannot be used.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// A file cannot be read or written, or is not what it should be.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to do.
    #[error("no log to co-sign: name one with --log VKEY, --policy FILE, or in {}", .0.display())]
    NoLog(PathBuf),
}

impl Setting for Watched {
    const EXPECTED: &'static str =
        "a log's key as NAME+HASH+KEY, after which its origin may follow if that is not NAME";

    fn parse(text: &str) -> Option<Watched> {
        let (key, origin) = match text.split_once(' ') {
            Some((key, origin)) => (key, Some(origin)),
            None => (text, None),
        };
        let key: NoteKey = key.parse().ok()?;
        let origin = origin.unwrap_or(key.name()).to_owned();
        let ok = key.algorithm() == Algorithm::Ed25519 && !origin.is_empty();
        ok.then_some(Watched { origin, key })
    }
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Watched, String> {
        Watched::parse(text).ok_or_else(|| format!("expected {}", Watched::EXPECTED))
    }
}

impl WitnessHome {
    /// Of the witness in `dir`.
    pub fn new(dir: &Path) -> WitnessHome {
        WitnessHome(dir.to_owned())
    }

    /// The configuration.
    pub fn settings(&self) -> PathBuf {
        self.0.join("witness.toml")
    }

    /// The key that verifies its cosignatures, as text.
    pub fn vkey(&self) -> PathBuf {
        self.0.join("vkey")
    }

    fn key(&self) -> PathBuf {
        self.0.join("keys").join("witness.pem")
    }

    /// Begins a witness with a key of its own, and returns what verifies its cosignatures.
    pub fn begin(&self, name: &str, disk: &Disk) -> Result<NoteKey, HomeError> {
        if self.settings().exists() {
            return Err(HomeError::Exists(self.0.clone()));
        }
        keyfile::create_private_dir(&self.0)?;
        keyfile::create_private_dir(&self.0.join("keys"))?;
        let secret = keyfile::load_or_create(&self.key())?;
        let key = NoteKey::new(name, Algorithm::CosignatureV1, secret.public().clone())
            .map_err(WitnessError::from)?;
        let file = |path: PathBuf, text: String| {
            let failed = |reason: String| HomeError::File {
                path: path.clone(),
                reason,
            };
            match disk.create_if_absent(&path, text.as_bytes()) {
                Ok(Created::New) => Ok(()),
                Ok(Created::Existed) => Err(HomeError::Exists(self.0.clone())),
                Err(error) => Err(failed(error.to_string())),
            }
        };
        // The configuration comes last: a witness that has one is complete.
        if !self.vkey().exists() {
            file(self.vkey(), format!("{key}\n"))?;
        }
        let name = toml::Value::from(name);
        file(self.settings(), format!("name = {name}\n"))?;
        Ok(key)
    }

    /// Opens the witness for the logs of its configuration and for `more`.
    pub fn open(
        &self,
        config: &WitnessConfig,
        more: &[Watched],
        clock: Clock,
        disk: Disk,
    ) -> Result<Witness, HomeError> {
        let signer = Arc::new(keyfile::load(&self.key())?);
        let witness = Witness::open(&self.0.join("logs"), &config.name, signer, clock, disk)?;
        self.tell(&witness, config, more)?;
        Ok(witness)
    }

    /// Tells an open witness which logs to co-sign from now on, and no others: those of its
    /// configuration and `more`.
    pub fn tell(
        &self,
        witness: &Witness,
        config: &WitnessConfig,
        more: &[Watched],
    ) -> Result<(), HomeError> {
        let mut logs = config.logs.clone();
        logs.extend_from_slice(more);
        if let Some(path) = &config.policy {
            logs.extend(logs_of(&self.0.join(path))?);
        }
        if logs.is_empty() {
            return Err(HomeError::NoLog(self.settings()));
        }
        for log in &logs {
            let same = logs.iter().filter(|other| other.origin == log.origin);
            let keys = same.map(|other| other.key.clone()).collect();
            witness.watch(&log.origin, keys)?;
        }
        for origin in witness.origins() {
            if !logs.iter().any(|log| log.origin == origin) {
                witness.leave(&origin);
            }
        }
        Ok(())
    }
}

/// The logs of a tlog-policy file.
pub fn logs_of(path: &Path) -> Result<Vec<Watched>, HomeError> {
    let failed = |reason: String| HomeError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let policy = Policy::parse(&text).map_err(|error| failed(error.to_string()))?;
    let logs = policy.logs.into_iter().map(|log| Watched {
        origin: log.key.name().to_owned(),
        key: log.key,
    });
    Ok(logs.collect())
}

impl WitnessConfig {
    /// Reads the file and the variables `JINGWEI_WITNESS_…`; all errors at once.
    pub fn read(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<WitnessConfig, SettingsErrors> {
        let mut settings = Settings::read(Some(path), "JINGWEI_WITNESS_", environment);
        let config = WitnessConfig {
            name: settings.required("name", String::new()),
            listen: settings.get("listen", SocketAddr::from(([127, 0, 0, 1], 7200))),
            logs: settings.list("logs"),
            policy: settings.optional("policy"),
            metrics: settings.optional("metrics"),
            log: LogSettings::read(&mut settings),
        };
        settings.finish()?;
        Ok(config)
    }
}

/// How much strangers may ask of a witness: a log asks a few times a second.
pub fn limits() -> ServeLimits {
    ServeLimits {
        connections: 256,
        ..ServeLimits::default()
    }
}
