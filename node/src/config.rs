//! A node's configuration: `node.toml` in its directory, overridden by the environment.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jingwei_proto::id::AgencyId;
use jingwei_registry::serve::ServeLimits;
use jingwei_registry::setting::HostPort;
use jingwei_registry::settings::{ByteSize, Settings, SettingsErrors};
use jingwei_registry::telemetry::LogSettings;
use jingwei_registry::witness::home::Watched;
use tokio::sync::Semaphore;

use crate::query::limits::Limits;
use crate::query::seats::SeatLimits;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen for other nodes.
    pub listen: SocketAddr,
    /// `host:port` where others reach this node; by default as it listens.
    pub address: Option<HostPort>,
    /// Where `/metrics` is served over plain HTTP; nowhere by default.
    pub metrics: Option<SocketAddr>,
    /// Whether and what the node co-signs as a witness.
    pub witness: WitnessSettings,
    /// Limits of one query, asked here or answered here.
    pub query: Limits,
    /// What all queries may use together.
    pub seats: SeatLimits,
    /// What other nodes, and strangers at the port, may do.
    pub clients: ServeLimits,
    /// Limits of what one agency may have under way here.
    pub exchange: ExchangeLimits,
    /// The largest file that may be published, in bytes.
    pub upload: u64,
    /// How to log.
    pub log: LogSettings,
}

/// The node as a witness of logs.
#[derive(Debug, Clone, Default)]
pub struct WitnessSettings {
    /// Where checkpoints are submitted to it, over plain HTTP; nowhere by default.
    pub listen: Option<SocketAddr>,
    /// The hosted agency whose witness key co-signs; by default the only one.
    pub agency: Option<AgencyId>,
    /// Logs beside the federation's own.
    pub logs: Vec<Watched>,
}

/// What one agency may have under way at a provider.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeLimits {
    /// Answers at once.
    pub concurrent: usize,
    /// Answers not acknowledged yet.
    pub unacknowledged: usize,
    /// Requests a second, over a short while.
    pub rate: u32,
}

impl Default for ExchangeLimits {
    /// An analyst's busy page asks a few dozen at once; a thousand a second is a machine's rate.
    fn default() -> ExchangeLimits {
        ExchangeLimits {
            concurrent: 64,
            unacknowledged: 256,
            rate: 2_000,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 7100)),
            address: None,
            metrics: None,
            witness: WitnessSettings::default(),
            query: Limits::default(),
            seats: SeatLimits::default(),
            clients: ServeLimits::default(),
            exchange: ExchangeLimits::default(),
            upload: crate::ingest::Spool::LIMIT,
            log: LogSettings::default(),
        }
    }
}

impl Config {
    /// Reads the file, if it is there, and the variables `JINGWEI_NODE_…`; all errors at once.
    pub fn read(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, SettingsErrors> {
        let mut settings =
            Settings::read(path.exists().then_some(path), "JINGWEI_NODE_", environment);
        let default = Config::default();
        let (query, seats, exchange) = (default.query, default.seats, default.exchange);
        let seconds = query.time.as_secs();
        let config = Config {
            listen: settings.get("listen", default.listen),
            address: settings.optional("address"),
            metrics: settings.optional("metrics"),
            witness: WitnessSettings {
                listen: settings.optional("witness.listen"),
                agency: settings.optional("witness.agency"),
                logs: settings.list("witness.logs"),
            },
            query: Limits {
                memory: bytes(&mut settings, "query.memory", query.memory),
                time: Duration::from_secs(settings.get("query.seconds", seconds)),
                rows: settings.get("query.rows", query.rows),
                bytes: settings.get("query.bytes", ByteSize(query.bytes)).0,
            },
            seats: SeatLimits {
                memory: bytes(&mut settings, "query.memory_of_all", seats.memory),
                asked: settings.get("query.asked", seats.asked),
                answered: settings.get("query.answered", seats.answered),
                wait: settings.get("query.wait", seats.wait),
            },
            clients: ServeLimits::read(&mut settings),
            exchange: ExchangeLimits {
                concurrent: settings.get("exchange.concurrent", exchange.concurrent),
                unacknowledged: settings.get("exchange.unacknowledged", exchange.unacknowledged),
                rate: settings.get("exchange.rate", exchange.rate),
            },
            upload: settings.get("publish.bytes", ByteSize(default.upload)).0,
            log: LogSettings::read(&mut settings),
        };
        let nothing = [
            ("query.seconds", config.query.time.is_zero()),
            ("query.rows", config.query.rows == 0),
            ("query.bytes", config.query.bytes == 0),
            ("exchange.concurrent", config.exchange.concurrent == 0),
            (
                "exchange.unacknowledged",
                config.exchange.unacknowledged == 0,
            ),
            ("exchange.rate", config.exchange.rate == 0),
        ];
        for (key, _) in nothing.iter().filter(|(_, nothing)| *nothing) {
            settings.refuse(key, "more than 0, which would allow nothing");
        }
        for (key, seats) in [
            ("query.asked", config.seats.asked),
            ("query.answered", config.seats.answered),
        ] {
            if seats == 0 || seats > Semaphore::MAX_PERMITS {
                settings.refuse(key, "a whole number from 1");
            }
        }
        settings.finish()?;
        Ok(config)
    }
}

fn bytes(settings: &mut Settings, key: &str, default: usize) -> usize {
    let size = settings.get(key, ByteSize(default as u64));
    usize::try_from(size.0).unwrap_or(usize::MAX)
}
