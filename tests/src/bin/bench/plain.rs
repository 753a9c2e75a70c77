//! The baseline: the same query, planned and run as at a node, over the same TLS and Flight, with
//! nothing signed, journaled or looked up.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::FlightServiceServer;
use jingwei::home::Home;
use jingwei::query::file::DataFile;
use jingwei::query::frames::{Decoder, Frame};
use jingwei_proto::key::KeyId;
use jingwei_registry::connect::{Link, Patience, Target};
use jingwei_registry::keyfile::TlsIdentity;
use jingwei_registry::serve::{self, ServeLimits, TlsMode};
use jingwei_registry::tls::{self, ClientKeys, Members};
use jingwei_tests::local::runtime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::Failure;
use crate::plain_flight::PlainFlight;
use crate::world::{question, version};

/// A frame is about a mebibyte; the same bound as a node's.
const MAX_FRAME: usize = 64 * 1024 * 1024;

/// What the baseline's server needs.
#[derive(clap::Args)]
pub struct ServeArguments {
    /// The directory of the node whose data and TLS key it uses
    #[arg(long)]
    provider: PathBuf,
    /// The directory of the node that may ask
    #[arg(long)]
    asker: PathBuf,
}

/// What the baseline's client needs.
#[derive(clap::Args)]
pub struct AskArguments {
    /// Where the baseline's server listens
    #[arg(long)]
    address: SocketAddr,
    /// The directory of the node whose data and TLS key the server uses
    #[arg(long)]
    provider: PathBuf,
    /// The directory of the node whose TLS key the client shows
    #[arg(long)]
    asker: PathBuf,
}

/// Serves until the process is killed; prints `plain at ADDRESS` when it is ready.
pub fn serve(arguments: &ServeArguments) -> Result<(), Failure> {
    let own = identity(&arguments.provider)?;
    let asker = identity(&arguments.asker)?.id;
    let members: Arc<dyn Members> = Arc::new(move |key: &KeyId| *key == asker);
    let tls = tls::server_config(&own, ClientKeys::Required(members.clone()))?;
    let flight = PlainFlight {
        version: version()?,
        file: Arc::new(DataFile::open(&only_file(&arguments.provider)?)?),
    };
    let router = Routes::new(FlightServiceServer::new(flight)).into_axum_router();
    runtime().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("plain at {}", listener.local_addr()?);
        std::io::stdout().flush()?;
        serve::serve(
            listener,
            serve::members_only(router, members),
            TlsMode::Required(tls),
            ServeLimits::default(),
            CancellationToken::new(),
        )
        .await;
        Ok(())
    })
}

/// Connects, asks once, and prints `rows N`.
pub fn ask_once(arguments: &AskArguments) -> Result<(), Failure> {
    let rows = runtime().block_on(async {
        let link = link(arguments.address, &arguments.provider, &arguments.asker)?;
        ask(link, question(0)).await
    })?;
    println!("rows {rows}");
    Ok(())
}

/// A connection to the baseline's server, made with the first question.
pub fn link(address: SocketAddr, provider: &Path, asker: &Path) -> Result<Link, Failure> {
    let server = identity(provider)?.id;
    let target = Target::new(
        &address.to_string(),
        [server],
        Some(&identity(asker)?),
        Patience::default(),
    )?;
    Ok(target.connect_lazy()?)
}

/// Asks one border query, decodes the answer and counts its rows.
pub async fn ask(link: Link, query: String) -> Result<usize, Failure> {
    let mut client = FlightServiceClient::new(link).max_decoding_message_size(MAX_FRAME);
    let ticket = Ticket {
        ticket: query.into(),
    };
    let mut frames = client.do_get(ticket).await?.into_inner();
    let mut decoder = Decoder::new();
    let mut rows = 0;
    while let Some(frame) = frames.message().await? {
        if let Frame::Batch(batch) = decoder.frame(&frame)? {
            rows += batch.num_rows();
        }
    }
    Ok(rows)
}

fn identity(node: &Path) -> Result<TlsIdentity, Failure> {
    Ok(TlsIdentity::load(&Home::new(node).keys())?)
}

/// The one data file of a node that has published one dataset.
fn only_file(node: &Path) -> Result<PathBuf, Failure> {
    let mut files = std::fs::read_dir(Home::new(node).data())?;
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file?.path()),
        _ => Err(format!("{} must hold one data file", node.display()).into()),
    }
}
