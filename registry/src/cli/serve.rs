//! `jingwei-registry serve`

use jingwei_registry::say;
use std::net::SocketAddr;
use std::time::Duration;

use jingwei_proto::statement::fingerprint;
use jingwei_registry::clock;
use jingwei_registry::command::{failed, listen_address, stopping, wrong_use};
use jingwei_registry::config::Config;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Fault;
use jingwei_registry::registry::{OpenError, Paths, Registry};
use jingwei_registry::snapshots;
use jingwei_registry::telemetry;
use tokio::net::TcpListener;

use super::Place;

/// How long a start waits for the witnesses before it serves what they confirmed earlier.
const CONFIRMED: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry serve --dir registry
  jingwei-registry serve --dir registry --listen 0.0.0.0:7000
  jingwei-registry status --dir registry --wait 20     # from another terminal")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Where to listen; overrides registry.toml
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let (paths, config) = arguments.place.read()?;
    telemetry::init(&config.log).map_err(failed)?;
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    runtime.block_on(serve(arguments, paths, config))
}

async fn serve(arguments: &Arguments, paths: Paths, config: Config) -> Result<(), Fault> {
    // First of all, since what is counted before is lost.
    let metrics = config.metrics.then(telemetry::metrics).flatten();
    // Opening reads and computes, and waits for the storage.
    let opening =
        move || Registry::open_with(paths, clock::system(), Disk::new(), config.witnesses);
    let opened = tokio::task::spawn_blocking(opening).await.map_err(failed)?;
    let registry = opened.map_err(|error| match error {
        OpenError::Missing(_) => wrong_use(error),
        other => failed(other),
    })?;
    registry.limit(&config.submit);
    // An old copy is not even shown.
    registry.confirmed(CONFIRMED).await.map_err(failed)?;
    let listen = arguments.listen.unwrap_or(config.listen);
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        failed(format!("cannot listen on {listen}: {error}"))
            .advise("choose another with --listen, or in registry.toml")
    })?;
    let address = listener.local_addr().map_err(failed)?;
    let shutdown = stopping()?;
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
