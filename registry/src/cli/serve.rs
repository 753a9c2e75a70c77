//! `jingwei-registry serve`

use jingwei_registry::say;
use std::net::SocketAddr;
use std::time::Duration;

use jingwei_proto::statement::fingerprint;
use jingwei_registry::clock;
use jingwei_registry::config::Config;
use jingwei_registry::disk::Disk;
use jingwei_registry::registry::{Paths, Registry};
use jingwei_registry::snapshots;
use jingwei_registry::telemetry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Failure, Place, failed};

/// How long a start waits for the witnesses before it serves what they confirmed earlier.
const CONFIRMED: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry serve --dir registry
  jingwei-registry serve --dir registry --listen 0.0.0.0:7000
  curl http://127.0.0.1:7000/checkpoint")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Where to listen; overrides registry.toml
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let dir = &arguments.place.dir;
    let config = Config::read(&Paths::new(dir).settings(), environment())
        .map_err(|errors| Failure::Usage(errors.to_string()))?;
    telemetry::init(&config.log).map_err(failed)?;
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    runtime.block_on(serve(arguments, config))
}

async fn serve(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    let paths = Paths::new(&arguments.place.dir);
    // First of all, since what is counted before is lost.
    let metrics = config.metrics.then(telemetry::metrics).flatten();
    // Opening reads and computes, and waits for the storage.
    let opening =
        move || Registry::open_with(paths, clock::system(), Disk::new(), config.witnesses);
    let opened = tokio::task::spawn_blocking(opening);
    let registry = opened.await.map_err(failed)?.map_err(failed)?;
    registry.limit(&config.submit);
    // An old copy is not even shown.
    registry.confirmed(CONFIRMED).await.map_err(failed)?;
    let listen = arguments.listen.unwrap_or(config.listen);
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| failed(format!("cannot listen on {listen}: {error}")))?;
    let address = listener.local_addr().map_err(failed)?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;
    say!(
        "registry of {} at http://{address}",
        registry.record().federation
    );
    say!("root        {}", fingerprint(&registry.root()));
    tokio::spawn(snapshots::keep(
        registry.sequencer().clone(),
        registry.index().clone(),
        config.snapshots,
        clock::system(),
        shutdown.clone(),
    ));
    registry
        .serve(listener, metrics, config.clients, shutdown)
        .await
        .map_err(failed)
}

/// Stops in order at SIGTERM and at ^C, from the moment that this returns.
pub fn stop_on_signal(shutdown: CancellationToken) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
    });
    Ok(())
}

/// The environment as text; variables that are not text cannot be ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
