//! Serving HTTP/1.1 and HTTP/2 over our own TLS: accept, hand over to a router, drain.
//!
//! ```text
//! accept ─► first byte ─► TLS handshake ─► first bytes ─► HTTP/2 or HTTP/1.1 ─► router
//!           (plain HTTP    10 s at most     10 s at most
//!            if allowed)
//! ```
//!
//! tonic's server knows only certificate authorities, so the loop is ours. The caller owns the
//! listener and the ending. Each request carries [`PeerKey`], [`Secure`] and [`PeerAddress`] as
//! extensions, by which a service decides whom it talks to.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jingwei_proto::key::KeyId;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::fault::{Blame, Fault};
use crate::opening::{Opened, Rewound, open};
use crate::tls::{self, Members};

/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a refused client may take to read why: a round trip around the earth, twice.
const LINGER: Duration = Duration::from_secs(1);

/// How a port speaks.
#[derive(Clone)]
pub enum TlsMode {
    /// TLS only; who may come in is in the configuration.
    Required(Arc<ServerConfig>),
    /// TLS, or plain HTTP for whoever speaks that: one port for both, told apart by the first
    /// byte. Services that need more than static files ask for [`Secure`].
    PlainAndTls(Arc<ServerConfig>),
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

/// Limits that keep one bad client, or many, from taking a server down.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Connections at once; further ones wait in the kernel's queue until one ends.
    pub connections: usize,
    /// For the TLS handshake, and again for the first bytes of HTTP.
    pub handshake: Duration,
    /// For the head of each HTTP/1.1 request, also the longest pause between two.
    pub header: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How often a quiet HTTP/2 connection is asked whether it still lives.
    pub keep_alive: Duration,
    /// How long requests in flight may take to end after shutdown.
    pub drain: Duration,
}

impl Default for ServeLimits {
    /// For one small machine: 1,024 connections fit the usual limit of open files, and a client
    /// on a slow line ends a handshake in far less than 10 s.
    fn default() -> ServeLimits {
        ServeLimits {
            connections: 1024,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            streams: 128,
            keep_alive: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
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
    let server = Server::new(router, limits, shutdown);
    while let Some((permit, accepted)) = server.next(|| listener.accept()).await {
        let (tls, server_part) = (tls.clone(), server.part());
        let (stream, address) = accepted;
        server.spawn(permit, async move {
            if let Err(error) = server_part.network(stream, address, tls).await {
                tracing::debug!(%address, %error, "connection ended");
            }
        });
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
    let server = Server::new(router, limits, shutdown);
    while let Some((permit, (stream, _))) = server.next(|| listener.accept()).await {
        let part = server.part();
        let origin = Origin {
            key: PeerKey(None),
            secure: Secure(false),
            address: None,
        };
        server.spawn(permit, async move {
            if let Err(error) = part.http(stream, origin).await {
                tracing::debug!(%error, "local connection ended");
            }
        });
    }
    drop(listener);
    server.drain().await;
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
    .advise("list the key in a node statement of your agency, or ask your superior about your enrolment");
    tonic::Status::from(fault).into_http()
}

struct Server {
    part: Part,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Ends connections that outlive the drain, or this server.
    kill: CancellationToken,
}

/// What a connection needs of its server.
#[derive(Clone)]
struct Part {
    router: Router,
    limits: Arc<ServeLimits>,
    shutdown: CancellationToken,
}

#[derive(Clone, Copy)]
struct Origin {
    key: PeerKey,
    secure: Secure,
    address: Option<PeerAddress>,
}

impl Server {
    fn new(router: Router, limits: ServeLimits, shutdown: CancellationToken) -> Server {
        Server {
            slots: Arc::new(Semaphore::new(limits.connections)),
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

    /// The next connection and its slot; `None` at shutdown.
    async fn next<T, F>(&self, accept: impl Fn() -> F) -> Option<(OwnedSemaphorePermit, T)>
    where
        F: Future<Output = io::Result<T>>,
    {
        let accepted = async {
            let slot = self.slots.clone().acquire_owned().await.ok()?;
            loop {
                match accept().await {
                    Ok(connection) => return Some((slot, connection)),
                    Err(error) => pause(error).await,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.part.shutdown.cancelled() => None,
            next = accepted => next,
        }
    }

    fn spawn(&self, slot: OwnedSemaphorePermit, work: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        metrics::counter!("jingwei_connections_total").increment(1);
        self.tasks.spawn(async move {
            kill.run_until_cancelled(work).await;
            drop(slot);
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

impl Part {
    async fn network(self, stream: TcpStream, address: SocketAddr, tls: TlsMode) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut origin = Origin {
            key: PeerKey(None),
            secure: Secure(false),
            address: Some(PeerAddress(address)),
        };
        let accepted = self.early(async {
            let config = match tls {
                TlsMode::PlainAndTls(_) if !begins_tls(&stream).await? => return Ok(Err(stream)),
                TlsMode::Required(config) | TlsMode::PlainAndTls(config) => config,
            };
            handshake(config, stream).await.map(Ok)
        });
        match accepted.await? {
            Err(plain) => self.http(plain, origin).await,
            Ok(stream) => {
                origin.secure = Secure(true);
                origin.key = peer_key(&stream)?;
                self.http(stream, origin).await
            }
        }
    }

    /// What comes before the first request: within its time, and dropped at shutdown.
    async fn early<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let timed = timeout(self.limits.handshake, work);
        match self.shutdown.run_until_cancelled(timed).await {
            None => Err(io::Error::other("shutting down")),
            Some(Err(_)) => Err(io::ErrorKind::TimedOut.into()),
            Some(Ok(done)) => done,
        }
    }

    async fn http<S>(self, stream: S, origin: Origin) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.early(open(stream)).await? {
            Opened::Http2(stream) => self.http2(stream, origin).await,
            Opened::Http1(stream) => self.http1(stream, origin).await,
            Opened::Closed => Ok(()),
        }
    }

    async fn http2<S>(self, stream: Rewound<S>, origin: Origin) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .keep_alive_interval(self.limits.keep_alive)
            .keep_alive_timeout(self.limits.handshake)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| answer(router.clone(), origin, request)),
            );
        self.drive(connection, http2::Connection::graceful_shutdown)
            .await
    }

    async fn http1<S>(self, stream: Rewound<S>, origin: Origin) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| answer(router.clone(), origin, request)),
            );
        self.drive(connection, http1::Connection::graceful_shutdown)
            .await
    }

    async fn drive<C>(&self, connection: C, end: impl FnOnce(Pin<&mut C>)) -> io::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let done = tokio::select! {
            done = connection.as_mut() => done,
            () = self.shutdown.cancelled() => {
                end(connection.as_mut());
                connection.await
            }
        };
        done.map_err(io::Error::other)
    }
}

async fn begins_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let length = stream.peek(&mut first).await?;
    Ok(length == 1 && first[0] == TLS_HANDSHAKE)
}

async fn handshake(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let accept = TlsAcceptor::from(config).accept(stream).into_fallible();
    let (error, mut stream) = match accept.await {
        Ok(stream) => return Ok(stream),
        Err(failed) => failed,
    };
    // A close with unread bytes is a reset, which may overtake the alert that tells the client
    // why. So a little of what it still sends is read first.
    stream.shutdown().await.ok();
    let mut rest = stream.take(64 * 1024);
    timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink()))
        .await
        .ok();
    Err(error)
}

fn peer_key(stream: &TlsStream<TcpStream>) -> io::Result<PeerKey> {
    match stream.get_ref().1.peer_certificates() {
        Some([certificate, ..]) => {
            let key = tls::key_of(certificate).map_err(io::Error::other)?;
            Ok(PeerKey(Some(key)))
        }
        _ => Ok(PeerKey(None)),
    }
}

async fn answer(
    router: Router,
    origin: Origin,
    mut request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let extensions = request.extensions_mut();
    extensions.insert(origin.key);
    extensions.insert(origin.secure);
    if let Some(address) = origin.address {
        extensions.insert(address);
    }
    router.oneshot(request).await
}
