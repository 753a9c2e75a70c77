//! Serving HTTP/1.1 and HTTP/2 over our own TLS: accept, hand over to a router, drain.
//!
//! ```text
//! accept ─► room? ─► first byte ─► TLS handshake ─► first bytes ─► HTTP/2 or HTTP/1.1 ─► room? ─► router
//!           by        (plain HTTP    10 s at most     10 s at most                          by
//!           address    if allowed)                                                          address
//! ```
//!
//! tonic's server knows only certificate authorities, so the loop is ours. The caller owns the
//! listener and the ending. Each request carries [`PeerKey`], [`Secure`] and [`PeerAddress`] as
//! extensions, by which a service decides whom it talks to.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use jingwei_proto::key::KeyId;
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Origin, Part, turn_away};
use crate::fault::{Blame, Fault};
use crate::settings::{ByteSize, Settings};
use crate::tls::Members;
use crate::visitors::{Crowded, Visitors};

/// Connections that are being told at once that there is no room; further ones are dropped.
const TURNED_AWAY: usize = 64;

/// How a port speaks.
#[derive(Clone)]
pub enum TlsMode {
    /// TLS only; who may come in is in the configuration.
    Required(Arc<ServerConfig>),
    /// TLS, or plain HTTP for whoever speaks that: one port for both, told apart by the first
    /// byte. Services that need more than static files ask for [`Secure`].
    PlainAndTls(Arc<ServerConfig>),
    /// Plain HTTP only: for what is signed and asks nobody who he is.
    Plain,
}

/// The key of the client's certificate, verified; `None` if it showed none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKey(pub Option<KeyId>);

/// Whether the request came over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secure(pub bool);

/// Where the connection came from; absent on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Limits that keep one bad client, or many, from taking a server down. Those of connections,
/// requests and memory are shared by the rule of [`crate::visitors`]. On a Unix socket, whose
/// clients are one's own, only the time-outs of a connection's beginning count.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_each: usize,
    /// New connections a second from one address.
    pub arrivals_each: u32,
    /// For the TLS handshake, and again for the first bytes of HTTP.
    pub handshake: Duration,
    /// For the head of each HTTP/1.1 request, also the longest pause between two.
    pub header: Duration,
    /// A connection on which nothing is asked for so long is ended.
    pub idle: Duration,
    /// Requests under way at once.
    pub requests: usize,
    /// Requests a second from one address.
    pub requests_each: u32,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of a request's body.
    pub body: usize,
    /// For the body of a request to come.
    pub body_time: Duration,
    /// For an answer to be made and taken; a connection that has an older one is ended.
    pub answer: Duration,
    /// Bytes of requests' bodies, and of answers that are not streamed, in memory at once.
    pub memory: usize,
    /// How often a quiet HTTP/2 connection is asked whether it still lives.
    pub keep_alive: Duration,
    /// How long requests in flight may take to end after shutdown.
    pub drain: Duration,
}

impl Default for ServeLimits {
    /// For one small machine behind which there may be one more, a proxy or a whole ministry's
    /// gateway, with many clients at one address. 1,024 connections fit the usual limit of open
    /// files, and a client on a slow line ends a handshake in far less than 10 s.
    fn default() -> ServeLimits {
        ServeLimits {
            connections: 1_024,
            connections_each: 512,
            arrivals_each: 200,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            requests: 8_192,
            requests_each: 20_000,
            streams: 128,
            body: 512 * 1024,
            body_time: Duration::from_secs(20),
            answer: Duration::from_secs(600),
            memory: 256 << 20,
            keep_alive: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
    }
}

/// Two of the largest answers, a bundle of 256 envelopes of 256 KiB: one may have half.
const LEAST_MEMORY: usize = 128 << 20;

impl ServeLimits {
    /// Reads the settings `clients.…`.
    pub fn read(settings: &mut Settings) -> ServeLimits {
        let default = ServeLimits::default();
        let memory = settings.get("clients.memory", ByteSize(default.memory as u64));
        let limits = ServeLimits {
            connections: settings.get("clients.connections", default.connections),
            connections_each: settings.get("clients.connections_each", default.connections_each),
            arrivals_each: settings.get("clients.arrivals_each", default.arrivals_each),
            header: settings.get("clients.head", default.header),
            idle: settings.get("clients.idle", default.idle),
            requests: settings.get("clients.requests", default.requests),
            requests_each: settings.get("clients.requests_each", default.requests_each),
            body_time: settings.get("clients.body", default.body_time),
            answer: settings.get("clients.answer", default.answer),
            memory: usize::try_from(memory.0).unwrap_or(usize::MAX),
            ..default
        };
        // One may have no more than what is left: of one connection nobody could have any.
        for (key, value) in [
            ("clients.connections", limits.connections),
            ("clients.requests", limits.requests),
        ] {
            if value < 2 {
                settings.refuse(key, "a whole number from 2");
            }
        }
        for (key, value) in [
            ("clients.connections_each", limits.connections_each as u64),
            ("clients.arrivals_each", limits.arrivals_each.into()),
            ("clients.requests_each", limits.requests_each.into()),
        ] {
            if value == 0 {
                settings.refuse(key, "a whole number from 1");
            }
        }
        if limits.memory < LEAST_MEMORY {
            settings.refuse("clients.memory", "128MiB or more");
        }
        limits
    }
}

/// Serves a router on a listener until `shutdown`, then lets requests in flight end.
///
/// At shutdown the port refuses connections at once. Returns when the last connection has ended,
/// or after [`ServeLimits::drain`] at the latest.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: TlsMode,
    limits: ServeLimits,
    shutdown: CancellationToken,
) {
    let visitors = Visitors::new(&limits);
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    let server = Server::new(router, limits, shutdown);
    while let Some((stream, address)) = server.next(|| listener.accept()).await {
        match visitors.arrive(address.ip().into(), Instant::now()) {
            Ok(visit) => {
                let (tls, part) = (tls.clone(), server.part());
                server.spawn(async move {
                    if let Err(error) = part.network(stream, address, visit, tls).await {
                        tracing::debug!(%address, %error, "connection ended");
                    }
                });
            }
            Err(crowded) => {
                count_refusal(address, crowded);
                // Being polite must not cost more than what is refused.
                if let Ok(place) = turned_away.clone().try_acquire_owned() {
                    server.spawn(async move {
                        turn_away(stream, crowded).await;
                        drop(place);
                    });
                }
            }
        }
    }
    drop(listener);
    server.drain().await;
}

/// Serves a router on a Unix socket, whose file's owner and mode say who may connect.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(
        limits.connections.min(Semaphore::MAX_PERMITS),
    ));
    let server = Server::new(router, limits, shutdown);
    while let Some((slot, (stream, _))) = server.next_with(&slots, || listener.accept()).await {
        let part = server.part();
        server.spawn(async move {
            if let Err(error) = part.http(stream, Origin::local()).await {
                tracing::debug!(%error, "local connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    server.drain().await;
}

fn count_refusal(address: SocketAddr, crowded: Crowded) {
    let reason = if crowded.own { "address" } else { "all" };
    metrics::counter!("jingwei_connections_refused_total", "reason" => reason).increment(1);
    tracing::debug!(%address, reason, "no room for a connection");
}

/// A router that answers members only, and looks the key up again for each request, since it
/// may have been revoked after the connection began.
pub fn members_only(router: Router, members: Arc<dyn Members>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let members = members.clone();
        async move {
            match request.extensions().get() {
                Some(PeerKey(Some(key))) if members.knows(key) => next.run(request).await,
                _ => not_a_member(),
            }
        }
    }))
}

fn not_a_member() -> Response {
    let fault = Fault::new(
        Blame::Unauthorised,
        "the connection's TLS key belongs to no member of this federation",
    )
    .advise("list the key in a node statement of your agency, and see with ‘jingwei doctor’ that it is enrolled");
    tonic::Status::from(fault).into_http()
}

struct Server {
    part: Part,
    tasks: TaskTracker,
    /// Ends connections that outlive the drain, or this server.
    kill: CancellationToken,
}

impl Server {
    fn new(router: Router, limits: ServeLimits, shutdown: CancellationToken) -> Server {
        Server {
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
            part: Part {
                router,
                limits: Arc::new(limits),
                shutdown,
            },
        }
    }

    fn part(&self) -> Part {
        self.part.clone()
    }

    /// The next connection; `None` at shutdown.
    async fn next<T, F>(&self, accept: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = io::Result<T>>,
    {
        let accepted = async {
            loop {
                match accept().await {
                    Ok(connection) => return connection,
                    Err(error) => pause(error).await,
                }
            }
        };
        self.part.shutdown.run_until_cancelled(accepted).await
    }

    /// The next connection, when there is a slot for it; `None` at shutdown.
    async fn next_with<T, F>(
        &self,
        slots: &Arc<Semaphore>,
        accept: impl Fn() -> F,
    ) -> Option<(OwnedSemaphorePermit, T)>
    where
        F: Future<Output = io::Result<T>>,
    {
        let waiting = slots.clone().acquire_owned();
        let slot = self.part.shutdown.run_until_cancelled(waiting).await?;
        Some((slot.ok()?, self.next(accept).await?))
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        metrics::counter!("jingwei_connections_total").increment(1);
        self.tasks.spawn(async move {
            kill.run_until_cancelled(work).await;
        });
    }

    async fn drain(&self) {
        self.tasks.close();
        if timeout(self.part.limits.drain, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.tasks.len(),
                "cut off what did not end in time"
            );
            self.kill.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// After a failed accept: at once for a client that went away, slowly when files run out.
async fn pause(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    ) {
        tracing::error!(%error, "cannot accept connections; trying again in a second");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
