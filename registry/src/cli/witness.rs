//! `jingwei-registry witness`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jingwei_registry::command::{
    Signal, asked_to_read_again, environment, failed, listen_address, stopping, wrong_use,
};
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Fault;
use jingwei_registry::serve::{TlsMode, serve};
use jingwei_registry::witness::home::{
    HomeError, Watched, WitnessConfig, WitnessHome, limits, logs_of,
};
use jingwei_registry::witness::{Witness, service};
use jingwei_registry::{clock, say, telemetry};
use tokio::net::TcpListener;

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  jingwei-registry witness init --dir w1 --name w1.example
  jingwei-registry witness --dir w1 --listen 127.0.0.1:7201 --policy policy
  jingwei-registry witness --dir w1 --log \"$VKEY\"

A witness co-signs only logs that it was told of, each with the key that it was told, and of each
only what grew from the checkpoint that it signed last. Its policies and witness.toml are read again
when it gets the signal HUP: what they no longer name is co-signed no longer. It speaks C2SP tlog-witness, so that any
such log can use it."
)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(clap::Subcommand)]
enum What {
    /// Begin a witness: make its key
    Init(InitArguments),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  jingwei-registry witness init --dir w1 --name w1.example")]
struct InitArguments {
    /// The witness's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Its name in cosignatures, such as the host name where it will be reached
    #[arg(long)]
    name: String,
}

#[derive(clap::Args)]
struct ServeArguments {
    /// The witness's directory
    #[arg(long, value_name = "DIR", required = true)]
    dir: Option<PathBuf>,
    /// Where to listen; overrides witness.toml
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// A C2SP tlog-policy, whose logs are co-signed
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// The key of a log to co-sign, NAME+HASH+KEY, with a space and the origin if that is not NAME
    #[arg(long, value_name = "VKEY")]
    log: Vec<Watched>,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    match &arguments.what {
        Some(What::Init(init)) => begin(init),
        None => run_witness(&arguments.serve),
    }
}

fn begin(arguments: &InitArguments) -> Result<(), Fault> {
    let home = WitnessHome::new(&arguments.dir);
    let key = home.begin(&arguments.name, &Disk::new()).map_err(refused)?;
    say!("witness     {key}");
    say!("");
    say!("Whoever founds the federation names this key in the root document; it stands in");
    say!("  {}", home.vkey().display());
    Ok(())
}

fn run_witness(arguments: &ServeArguments) -> Result<(), Fault> {
    let dir = arguments.dir.clone().unwrap_or_default();
    let home = WitnessHome::new(&dir);
    if !home.settings().exists() {
        return Err(refused(HomeError::Missing(dir)));
    }
    let config = WitnessConfig::read(&home.settings(), environment()).map_err(wrong_use)?;
    telemetry::init(&config.log).map_err(failed)?;
    let logs = named(arguments)?;
    let witness = home
        .open(&config, &logs, clock::system(), Disk::new())
        .map_err(refused)?;
    let listen = arguments.listen.unwrap_or(config.listen);
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    let witness = Arc::new(witness);
    runtime.block_on(async {
        let asked = asked_to_read_again()?;
        tokio::select! {
            ended = listen_on(listen, witness.clone(), config.metrics) => ended,
            () = keep_told(asked, &home, arguments, &witness) => Ok(()),
        }
    })
}

/// The logs that the command line names.
fn named(arguments: &ServeArguments) -> Result<Vec<Watched>, Fault> {
    let mut logs = arguments.log.clone();
    for path in &arguments.policy {
        logs.extend(logs_of(path).map_err(failed)?);
    }
    Ok(logs)
}

/// Reads again which logs to co-sign, each time that a person asks for it. What cannot be read
/// changes nothing.
async fn keep_told(
    mut asked: Signal,
    home: &WitnessHome,
    arguments: &ServeArguments,
    witness: &Witness,
) {
    while asked.recv().await.is_some() {
        let config = WitnessConfig::read(&home.settings(), environment()).map_err(wrong_use);
        let told = config.and_then(|config| {
            let logs = named(arguments)?;
            home.tell(witness, &config, &logs).map_err(refused)
        });
        match told {
            Ok(()) => print(witness),
            Err(fault) => tracing::error!(%fault, "what to co-sign stays as it was"),
        }
    }
    std::future::pending().await
}

fn print(witness: &Witness) {
    for origin in witness.origins() {
        say!("co-signs    {origin}");
    }
}

async fn listen_on(
    listen: SocketAddr,
    witness: Arc<Witness>,
    metrics: Option<SocketAddr>,
) -> Result<(), Fault> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        failed(format!("cannot listen on {listen}: {error}"))
            .advise("choose another with --listen, or in witness.toml")
    })?;
    let address = listener.local_addr().map_err(failed)?;
    let shutdown = stopping()?;
    say!("witness     {} at http://{address}", witness.key());
    print(&witness);
    if let (Some(address), Some(metrics)) = (metrics, telemetry::metrics()) {
        tokio::spawn(metrics.serve(address, shutdown.clone()));
    }
    let router = service::router(witness);
    serve(listener, router, TlsMode::Plain, limits(), shutdown).await;
    Ok(())
}

fn refused(error: HomeError) -> Fault {
    match error {
        HomeError::Exists(_) | HomeError::Missing(_) | HomeError::NoLog(_) => wrong_use(error),
        other => failed(other),
    }
}
