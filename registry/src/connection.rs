//! One connection: TLS or not, HTTP/1.1 or HTTP/2, and its requests within their limits.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::activity::{Activity, Overdue};
use crate::bodies::{BodyLimits, Limited, Memory, until_sent};
use crate::fault::{Blame, Fault};
use crate::opening::{Opened, Rewound, open};
use crate::serve::{PeerAddress, PeerKey, Secure, ServeLimits, TlsMode};
use crate::tls;
use crate::visitors::{Crowded, Visit};

/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A fatal alert ‘user_canceled’: the handshake is cancelled ‘for some reason unrelated to a
/// protocol failure’ (RFC 8446 §6.1). It costs no handshake, and [`crate::connect`] knows it.
const NO_ROOM: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 90];

/// How long a refused client may take to read why: a round trip around the earth, twice.
const LINGER: Duration = Duration::from_secs(1);

/// Unread bytes of one HTTP/2 connection, and of one of its streams, that the other side may
/// send ahead.
const WINDOWS: (u32, u32) = (256 * 1024, 128 * 1024);

/// Bytes of the head of a request.
const HEAD: u32 = 16 * 1024;

/// Streams of one connection that were reset and that nobody has looked at yet (CVE-2023-44487).
const RESETS: usize = 20;

/// What a connection needs of its server.
#[derive(Clone)]
pub struct Part {
    /// Answers.
    pub router: Router,
    /// What a client may do.
    pub limits: Arc<ServeLimits>,
    /// Ends when the server is to stop.
    pub shutdown: CancellationToken,
}

/// Where a connection comes from.
#[derive(Clone)]
pub struct Origin {
    key: PeerKey,
    secure: Secure,
    address: Option<PeerAddress>,
    /// What a stranger is counted by.
    visit: Option<(Arc<Visit>, Arc<Activity>)>,
}

impl Origin {
    /// From this machine, over a Unix socket.
    pub fn local() -> Origin {
        Origin {
            key: PeerKey(None),
            secure: Secure(false),
            address: None,
            visit: None,
        }
    }
}

impl Part {
    /// Serves a connection from the network.
    pub async fn network(
        self,
        stream: TcpStream,
        address: SocketAddr,
        visit: Visit,
        tls: TlsMode,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let activity = Activity::new(self.limits.idle, self.limits.answer);
        let mut origin = Origin {
            address: Some(PeerAddress(address)),
            visit: Some((Arc::new(visit), activity)),
            ..Origin::local()
        };
        let accepted = self.early(async {
            let config = match tls {
                TlsMode::Plain => return Ok(Err(stream)),
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

    /// Serves a connection whose first bytes tell what it speaks.
    pub async fn http<S>(self, stream: S, origin: Origin) -> io::Result<()>
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
        let mut builder = http2::Builder::new(TokioExecutor::new());
        if origin.visit.is_some() {
            builder
                .initial_connection_window_size(WINDOWS.0)
                .initial_stream_window_size(WINDOWS.1);
        }
        let connection = builder
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD)
            .max_pending_accept_reset_streams(RESETS)
            .max_concurrent_streams(self.limits.streams)
            .keep_alive_interval(self.limits.keep_alive)
            .keep_alive_timeout(self.limits.handshake)
            .serve_connection(TokioIo::new(stream), self.answering(&origin));
        self.drive(connection, &origin, http2::Connection::graceful_shutdown)
            .await
    }

    async fn http1<S>(self, stream: Rewound<S>, origin: Origin) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(HEAD as usize)
            .serve_connection(TokioIo::new(stream), self.answering(&origin));
        self.drive(connection, &origin, http1::Connection::graceful_shutdown)
            .await
    }

    fn answering(
        &self,
        origin: &Origin,
    ) -> impl hyper::service::HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send>
    + use<> {
        let (part, origin) = (self.clone(), origin.clone());
        service_fn(move |request| part.clone().answer(origin.clone(), request))
    }

    async fn drive<C>(
        &self,
        connection: C,
        origin: &Origin,
        end: impl FnOnce(Pin<&mut C>),
    ) -> io::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let overdue = async {
            match &origin.visit {
                Some((_, activity)) => activity.overdue().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = connection.as_mut() => return done.map_err(io::Error::other),
            () = self.shutdown.cancelled() => {}
            why = overdue => if why == Overdue::Answer {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "an answer was not taken"));
            }
        }
        end(connection.as_mut());
        match timeout(self.limits.answer, connection).await {
            Ok(done) => done.map_err(io::Error::other),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn answer(
        self,
        origin: Origin,
        mut request: hyper::Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let extensions = request.extensions_mut();
        extensions.insert(origin.key);
        extensions.insert(origin.secure);
        if let Some(address) = origin.address {
            extensions.insert(address);
        }
        let Some((visit, activity)) = origin.visit else {
            return self.router.oneshot(request).await;
        };
        let asking = match visit.ask(Instant::now()) {
            Ok(asking) => asking,
            Err(crowded) => return Ok(overloaded(&request, crowded)),
        };
        if request.body().size_hint().lower() > self.limits.body as u64 {
            return Ok(too_large(&request, self.limits.body));
        }
        let going = activity.begin();
        // Held until the answer begins: what was read is in memory until then.
        let memory = Memory::new(visit.clone());
        request.extensions_mut().insert(visit);
        let limits = BodyLimits {
            size: self.limits.body,
            time: self.limits.body_time,
        };
        let request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(Limited::new(body, limits, memory.clone())),
        });
        let response = self.router.oneshot(request).await?;
        Ok(response.map(|body| until_sent(body, asking, going)))
    }
}

fn is_grpc<B>(request: &http::Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn overloaded<B>(request: &http::Request<B>, crowded: Crowded) -> Response {
    let (reason, text) = reason(crowded);
    metrics::counter!("jingwei_requests_refused_total", "reason" => reason).increment(1);
    if is_grpc(request) {
        let fault = Fault::new(Blame::Overloaded, text).retry_after(crowded.pause);
        return tonic::Status::from(fault).into_http();
    }
    refusal(status(crowded), text, Some(crowded.pause))
}

fn too_large<B>(request: &http::Request<B>, most: usize) -> Response {
    let text = format!("a request of more than {most} bytes");
    match is_grpc(request) {
        true => tonic::Status::from(Fault::new(Blame::LimitExceeded, text)).into_http(),
        false => refusal(StatusCode::PAYLOAD_TOO_LARGE, &text, None),
    }
}

/// An answer over HTTP that is none, and when to try again.
pub fn refusal(status: StatusCode, text: &str, pause: Option<Duration>) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    if let Some(pause) = pause {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(pause)));
    }
    response
}

fn reason(crowded: Crowded) -> (&'static str, &'static str) {
    match crowded.own {
        true => ("address", "too much at once from this address"),
        false => ("all", "too much at once"),
    }
}

fn status(crowded: Crowded) -> StatusCode {
    match crowded.own {
        true => StatusCode::TOO_MANY_REQUESTS,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Rounded up: who comes back earlier is refused again.
fn whole_seconds(pause: Duration) -> u64 {
    pause
        .as_millis()
        .div_ceil(1_000)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// Tells a client that there is no room for its connection, in the language that it speaks, if
/// it says within a second which one that is.
pub async fn turn_away(mut stream: TcpStream, crowded: Crowded) {
    let telling = async {
        if begins_tls(&stream).await? {
            stream.write_all(&NO_ROOM).await?;
        } else {
            let (status, (_, text)) = (status(crowded), reason(crowded));
            let (pause, length) = (whole_seconds(crowded.pause), text.len() + 1);
            let answer = format!(
                "HTTP/1.1 {status}\r\nretry-after: {pause}\r\nconnection: close\r\n\
                 content-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}\n"
            );
            stream.write_all(answer.as_bytes()).await?;
        }
        linger(&mut stream).await;
        Ok::<_, io::Error>(())
    };
    // Whoever does not listen is not told.
    let _ = timeout(2 * LINGER, telling).await;
}

/// Ends a connection so that the other side can read why. A close with unread bytes is a reset,
/// which may overtake what was said last, so a little of what still comes is read first.
async fn linger(stream: &mut TcpStream) {
    stream.shutdown().await.ok();
    let mut rest = stream.take(64 * 1024);
    timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink()))
        .await
        .ok();
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
    linger(&mut stream).await;
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
