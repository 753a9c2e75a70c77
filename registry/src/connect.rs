//! Connections to nodes and registries: gRPC over our own TLS, and over a node's Unix socket.
//!
//! A [`Link`] is a tonic channel that connects again when it has lost its connection, and that
//! does two things more. It puts the id of the current request into what it sends. And it looks
//! at `grpc-status-details-bin` before tonic does: tonic 0.14 panics where that header is not
//! base64, so that a hostile server could end a program built with `panic = "abort"`.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use jingwei_proto::key::KeyId;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, service_fn};

use crate::fault::{Blame, Fault};
use crate::keyfile::TlsIdentity;
use crate::request_id::{self, RequestId};
use crate::setting::HostPort;
use crate::tls::{self, PeerError};
use crate::unix_socket;

const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// When to try again a server that has turned a connection away.
const NO_ROOM: Duration = Duration::from_secs(1);

/// How long to wait for the other side, and how often to ask whether it lives.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For the name look-up, the TCP connection and the TLS handshake together.
    pub connect: Duration,
    /// Between two signs of life on a connection; a lost one is noticed after that and
    /// [`Patience::answer`].
    pub keep_alive: Duration,
    /// For the answer to a sign of life.
    pub answer: Duration,
}

impl Default for Patience {
    /// 5 s to connect is long for a living host on any continent; 30 s keeps the usual NAT open.
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(5),
            keep_alive: Duration::from_secs(30),
            answer: Duration::from_secs(10),
        }
    }
}

/// A server to connect to: where it is, which TLS keys it may have, and as whom.
#[derive(Clone)]
pub struct Target {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    patience: Patience,
}

impl Target {
    /// The server at `address` (`host:port`, `[v6]:port`) that has one of the `expected` keys,
    /// to which `identity` is shown if it asks.
    pub fn new(
        address: &str,
        expected: impl IntoIterator<Item = KeyId>,
        identity: Option<&TlsIdentity>,
        patience: Patience,
    ) -> Result<Target, Fault> {
        let bad = |reason: String| Fault::new(Blame::Malformed, reason);
        let place: HostPort = address.parse().map_err(bad)?;
        Ok(Target {
            address: address.to_owned(),
            name: ServerName::try_from(place.host().to_owned())
                .map_err(|_| bad(format!("‘{}’ is no host", place.host())))?,
            config: tls::client_config(identity, expected).map_err(|error| {
                Fault::new(Blame::Internal, format!("cannot set TLS up: {error}"))
            })?,
            patience,
        })
    }

    /// Connects now, so that a server that is down or is another one is found out now.
    pub async fn connect(&self) -> Result<Link, Fault> {
        let connected = self
            .endpoint()?
            .connect_with_connector(self.connector())
            .await;
        connected
            .map(Link)
            .map_err(|error| Fault::from_transport(&error))
    }

    /// Connects with the first request.
    pub fn connect_lazy(&self) -> Result<Link, Fault> {
        let connector = self.connector();
        Ok(Link(
            self.endpoint()?.connect_with_connector_lazy(connector),
        ))
    }

    fn endpoint(&self) -> Result<Endpoint, Fault> {
        let uri = format!("https://{}", self.address);
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| Fault::new(Blame::Malformed, format!("{}: {error}", self.address)))?;
        Ok(endpoint
            .http2_keep_alive_interval(self.patience.keep_alive)
            .keep_alive_timeout(self.patience.answer)
            .keep_alive_while_idle(true))
    }

    fn connector(
        &self,
    ) -> impl Service<
        Uri,
        Response = TokioIo<TlsStream<TcpStream>>,
        Error = Fault,
        Future = impl Future<Output = Result<TokioIo<TlsStream<TcpStream>>, Fault>> + Send + 'static,
    > + Send
    + 'static {
        let target = self.clone();
        service_fn(move |_: Uri| {
            let target = target.clone();
            async move { target.dial().await.map(TokioIo::new) }
        })
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, Fault> {
        let dialling = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(self.config.clone())
                .connect(self.name.clone(), stream)
                .await
        };
        match timeout(self.patience.connect, dialling).await {
            Ok(connected) => connected.map_err(|error| self.refused(&error)),
            Err(_) => Err(Fault::new(
                Blame::Unavailable,
                format!(
                    "{} did not answer within {:?}",
                    self.address, self.patience.connect
                ),
            )),
        }
    }

    fn refused(&self, error: &io::Error) -> Fault {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let address = &self.address;
        match inner {
            None => Fault::new(
                Blame::Unavailable,
                format!("cannot connect to {address}: {error}"),
            ),
            Some(rustls::Error::AlertReceived(AlertDescription::UserCanceled)) => Fault::new(
                Blame::Overloaded,
                format!("{address} has no room for a connection now"),
            )
            .retry_after(NO_ROOM),
            Some(rustls::Error::AlertReceived(alert)) => {
                refused_by_alert(address, &format!("{alert:?}"))
            }
            Some(tls) => match wrong_server(tls) {
                Some(wrong) => Fault::new(Blame::Unverified, format!("{address}: {wrong}"))
                    .advise("if it has a new key, its agency must enter it in the log first"),
                None => Fault::new(
                    Blame::Unverified,
                    format!("TLS with {address} failed: {tls}"),
                ),
            },
        }
    }
}

fn refused_by_alert(address: &str, alert: &str) -> Fault {
    Fault::new(
        Blame::Unauthorised,
        format!("{address} refused our TLS certificate ({alert})"),
    )
    .advise("its replica of the log must list this node's TLS key; see `jingwei doctor`")
}

fn wrong_server(error: &rustls::Error) -> Option<&PeerError> {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref()
        }
        _ => None,
    }
}

/// A link to the server on a Unix socket, whose path may have any length.
pub async fn uds(path: &Path) -> Result<Link, Fault> {
    let owned: PathBuf = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = owned.clone();
        async move { unix_socket::connect(&path).await.map(TokioIo::new) }
    });
    // The address is for the `:authority` header only.
    let endpoint = Endpoint::from_static("http://local.invalid");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map(Link).map_err(|error| {
        let cause = Fault::from_transport(&error).message;
        Fault::new(
            Blame::Unavailable,
            format!("no node answers at {}: {cause}", path.display()),
        )
        .advise("start it with `jingwei serve`, or name its directory with --dir")
    })
}

/// A connection for the generated gRPC clients; cheap to clone, and clones share it.
#[derive(Clone, Debug)]
pub struct Link(Channel);

impl Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let (false, Some(id)) = (
            request.headers().contains_key(request_id::HEADER),
            RequestId::current(),
        ) {
            id.attach(request.headers_mut());
        }
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            drop_bad_details(response.headers_mut());
            Ok(response.map(|body| {
                Body::new(body.map_frame(|mut frame| {
                    frame.trailers_mut().map(drop_bad_details);
                    frame
                }))
            }))
        })
    }
}

/// Removes error details that tonic would panic over.
fn drop_bad_details(headers: &mut HeaderMap) {
    let Some(value) = headers.get(STATUS_DETAILS) else {
        return;
    };
    let mut alone = HeaderMap::new();
    alone.insert(STATUS_DETAILS, value.clone());
    let metadata = MetadataMap::from_headers(alone);
    let decodes = metadata
        .get_bin(STATUS_DETAILS)
        .is_some_and(|value| value.to_bytes().is_ok());
    if !decodes {
        headers.remove(STATUS_DETAILS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn details_that_are_no_base64_are_dropped_and_good_ones_kept() {
        for (value, kept) in [
            ("!!!", false),
            ("A", false),
            ("AB", false),
            ("AA==", true),
            ("AA", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", "3".parse().unwrap());
            headers.insert(STATUS_DETAILS, value.parse().unwrap());
            drop_bad_details(&mut headers);
            assert_eq!(headers.contains_key(STATUS_DETAILS), kept, "{value}");
            assert!(Status::from_header_map(&headers).is_some());
        }
    }

    #[test]
    fn addresses() {
        let target = |address| Target::new(address, [], None, Patience::default());
        for good in [
            "localhost:1",
            "127.0.0.1:65535",
            "[::1]:443",
            "node.example:443",
        ] {
            assert!(target(good).is_ok(), "{good}");
        }
        for bad in [
            "localhost",
            "localhost:x",
            "localhost:70000",
            ":1",
            "a b:1",
            "http://a:1",
        ] {
            let fault = target(bad).map(|_| ()).unwrap_err();
            assert_eq!(fault.blame, Blame::Malformed, "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let target = Target::new(&closed.to_string(), [], None, Patience::default()).unwrap();
        let fault = target.connect().await.unwrap_err();
        assert_eq!(fault.blame, Blame::Unavailable);
        assert!(fault.message.contains(&closed.to_string()), "{fault}");
        let dir = tempfile::tempdir().unwrap();
        let fault = uds(&dir.path().join("node.sock")).await.unwrap_err();
        assert_eq!(fault.blame, Blame::Unavailable);
        assert!(fault.to_string().contains("jingwei serve"), "{fault}");
    }

    #[tokio::test]
    async fn a_silent_server_times_out() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let patience = Patience {
            connect: Duration::from_millis(50),
            ..Patience::default()
        };
        let address = silent.local_addr().unwrap().to_string();
        let target = Target::new(&address, [], None, patience).unwrap();
        let fault = target.connect().await.unwrap_err();
        assert_eq!(fault.blame, Blame::Unavailable);
        assert!(fault.message.contains("within"), "{fault}");
    }
}
