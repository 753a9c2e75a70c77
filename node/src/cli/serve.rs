//! `jingwei serve`

use jingwei_registry::say;
use std::net::SocketAddr;

use jingwei_registry::clock;
use jingwei_registry::command::{asked_to_stop, environment, failed, listen_address, wrong_use};
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::telemetry;
use tokio::net::TcpListener;

use super::{Place, runtime};
use crate::config::Config;
use crate::home::Home;
use crate::node::{Node, OpenError};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei serve --dir fr
  jingwei serve --dir fr --listen 0.0.0.0:7100

The node announces its address and keys by itself, once its agencies are enrolled.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Where to listen for other nodes; overrides node.toml
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address)]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let home = Home::new(&arguments.place.dir);
    let mut config = Config::read(&home.settings(), environment()).map_err(wrong_use)?;
    config.listen = arguments.listen.unwrap_or(config.listen);
    telemetry::init(&config.log).map_err(failed)?;
    if config.metrics.is_some() {
        // Before the node is opened: alarms that stand from before are counted then.
        telemetry::metrics();
    }
    runtime()?.block_on(serve(home, config))
}

async fn serve(home: Home, config: Config) -> Result<(), Fault> {
    let listen = config.listen;
    let node =
        Node::open(home, config, clock::system(), Disk::new().private()).map_err(open_fault)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        failed(format!("cannot listen on {listen}: {error}"))
            .advise("choose another with --listen, or in node.toml")
    })?;
    let socket = node.bind_socket().await?;
    let asked = asked_to_stop()?;
    let agencies: Vec<String> = node.hosted().map(ToString::to_string).collect();
    say!(
        "node of {} at https://{}",
        agencies.join(", "),
        listener.local_addr().map_err(failed)?
    );
    let stopping = node.clone();
    tokio::spawn(async move {
        asked.await;
        tracing::info!("stopping");
        stopping.stop();
    });
    node.serve_on(listener, socket).await
}

/// Why a node does not open, by blame.
pub fn open_fault(error: OpenError) -> Fault {
    let blame = match &error {
        OpenError::NoAgency(_) | OpenError::Membership(_) | OpenError::Source(_) => Blame::WrongUse,
        _ => Blame::Internal,
    };
    Fault::new(blame, error.to_string())
}
