//! A registry's configuration: `registry.toml` in its directory, overridden by the environment.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::log::Bucket;
use crate::quota::SubmitLimits;
use crate::serve::ServeLimits;
use crate::settings::{Settings, SettingsErrors};
use crate::snapshots;
use crate::telemetry::LogSettings;
use crate::witness::client::WitnessAddress;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen: reads over HTTP and submissions over TLS, on one port.
    pub listen: SocketAddr,
    /// Whether `/metrics` is served on the same port.
    pub metrics: bool,
    /// The bucket that the log is in, if it is not in the registry's directory.
    pub storage: Option<Bucket>,
    /// What clients may do.
    pub clients: ServeLimits,
    /// What may be submitted.
    pub submit: SubmitLimits,
    /// Where the witnesses are that the root document names.
    pub witnesses: Vec<WitnessAddress>,
    /// Between two snapshots.
    pub snapshots: Duration,
    /// How to log.
    pub log: LogSettings,
}

impl Config {
    /// Reads the file, if it is there, and the variables `JINGWEI_REGISTRY_…`; all errors at once.
    pub fn read(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, SettingsErrors> {
        let mut settings = Settings::read(
            path.exists().then_some(path),
            "JINGWEI_REGISTRY_",
            environment,
        );
        let config = Config {
            listen: settings.get("listen", SocketAddr::from(([127, 0, 0, 1], 7000))),
            metrics: settings.get("metrics", true),
            storage: Bucket::read(&mut settings),
            clients: ServeLimits::read(&mut settings),
            submit: SubmitLimits::read(&mut settings),
            witnesses: settings.list("witnesses"),
            snapshots: settings.get("snapshots", snapshots::INTERVAL),
            log: LogSettings::read(&mut settings),
        };
        settings.finish()?;
        Ok(config)
    }
}
