//! A node in service: the port for other nodes, the socket for its own people, and what goes on
//! in the background.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::with_request_ids;
use jingwei_registry::serve::{self, ServeLimits, TlsMode};
use jingwei_registry::tls::{self, ClientKeys, Members};
use jingwei_registry::{telemetry, unix_socket};
use tokio::net::{TcpListener, UnixListener};
use tonic::service::Routes;

use crate::exchange::{self, provider::Provider};
use crate::local::LocalService;
use crate::node::Node;

/// Stubs of `jingwei.node.v1`.
pub mod stubs {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("jingwei.node.v1");
}

use stubs::local_server::LocalServer;
use stubs::peer_server::PeerServer;

/// The services' description, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/node.fds"));

/// That of Arrow Flight.
const FLIGHT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flight.fds"));

/// The largest message from another node: a request's envelope with room.
const MAX_MESSAGE: usize = 512 * 1024;

impl Node {
    /// As [`Node::serve_on`], on a socket bound now.
    pub async fn serve(self: Arc<Node>, listener: TcpListener) -> Result<(), Fault> {
        let socket = self.bind_socket().await?;
        self.serve_on(listener, socket).await
    }

    /// The socket for the command line: from now on commands wait until the node is served.
    pub async fn bind_socket(&self) -> Result<UnixListener, Fault> {
        let path = self.home.socket();
        unix_socket::bind(&path)
            .await
            .map_err(|error| Fault::new(Blame::Internal, format!("{}: {error}", path.display())))
    }

    /// Serves other nodes on `listener` and the command line on `socket`, follows the registry
    /// and keeps the node announced, until [`Node::stop`]. Returns when requests in flight have
    /// ended.
    pub async fn serve_on(
        self: Arc<Node>,
        listener: TcpListener,
        socket: UnixListener,
    ) -> Result<(), Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::new(Blame::Internal, error.to_string());
        let address = match &self.config.address {
            Some(address) => address.to_string(),
            None => listener
                .local_addr()
                .map_err(|error| failed(&error))?
                .to_string(),
        };
        // Set once: a node is served once.
        let _ = self.address.set(address);
        let members: Arc<dyn Members> = self.known.clone();
        let tls = tls::server_config(&self.identity, ClientKeys::Required(members.clone()))
            .map_err(|error| failed(&error))?;
        let peers = serve::members_only(self.peer_routes().await, members);
        let local = with_request_ids(self.local_routes());
        let witness = self.open_witness().await?;
        exchange::resume(&self);
        let shutdown = self.shutdown.clone();
        let limits = ServeLimits {
            // The query's own limit says first that it takes too long.
            answer: self.config.clients.answer.max(2 * self.config.query.time),
            body: MAX_MESSAGE + 1024,
            ..self.config.clients.clone()
        };
        let following = tokio::spawn(self.replica.clone().follow(
            self.source.subscribe(),
            self.clock.clone(),
            shutdown.clone(),
        ));
        let announcing = tokio::spawn(self.clone().keep_announced());
        let resuming = tokio::spawn(self.clone().keep_resuming());
        let greeting = tokio::spawn(self.clone().keep_greeting());
        tokio::join!(
            serve::serve(
                listener,
                with_request_ids(peers),
                TlsMode::Required(tls),
                limits.clone(),
                shutdown.clone()
            ),
            serve::serve_unix(socket, local, limits, shutdown.clone()),
            self.serve_metrics(),
            self.serve_witness(witness),
        );
        let _ = tokio::join!(following, announcing, resuming, greeting);
        let _ = std::fs::remove_file(self.home.socket());
        self.journals.sequence().await;
        Ok(())
    }

    /// Asks the node to stop: the ports refuse at once, requests in flight end.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Where others reach the node, once it is served.
    pub fn address(&self) -> Option<&str> {
        self.address.get().map(String::as_str)
    }

    async fn peer_routes(self: &Arc<Node>) -> Router {
        let flight =
            FlightServiceServer::new(Provider(self.clone())).max_decoding_message_size(MAX_MESSAGE);
        let peer =
            PeerServer::new(PeerService(self.clone())).max_decoding_message_size(MAX_MESSAGE);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<FlightServiceServer<Provider>>().await;
        health.set_serving::<PeerServer<PeerService>>().await;
        let mut routes = Routes::new(flight)
            .add_service(peer)
            .add_service(health_service);
        match tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR)
            .register_encoded_file_descriptor_set(FLIGHT)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
        {
            Ok(reflection) => routes = routes.add_service(reflection),
            Err(error) => tracing::error!(%error, "reflection is not served"),
        }
        routes.into_axum_router()
    }

    fn local_routes(self: &Arc<Node>) -> Router {
        let local =
            LocalServer::new(LocalService(self.clone())).max_decoding_message_size(4 * 1024 * 1024);
        Routes::new(local).into_axum_router()
    }

    async fn serve_metrics(&self) {
        if let (Some(address), Some(metrics)) = (self.config.metrics, telemetry::metrics()) {
            metrics.serve(address, self.shutdown.clone()).await;
        }
    }
}

/// Serves other nodes; what it answers is in `greet`.
pub(crate) struct PeerService(pub Arc<Node>);
