//! A provider that lies: it stands before a real node with that node's TLS key, passes
//! everything on, and changes what it is told to in the answers.
//!
//! ```text
//! asker ──mTLS──► lying peer ──mTLS, with the asker's key──► provider
//!           ◄─ changed ─┘                           ◄─ true ─┘
//! ```
//!
//! So every byte but the lie is the product's own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_flight::FlightData;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{self, StreamExt as _};
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jingwei_proto::key::KeyId;
use jingwei_registry::connect::{Link, Patience, Target};
use jingwei_registry::keyfile::TlsIdentity;
use jingwei_registry::serve::{ServeLimits, TlsMode, serve};
use jingwei_registry::tls::{self, ClientKeys};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::local::runtime;

/// What a lying peer does to the frames of an answer.
pub type Lie = Arc<dyn Fn(&mut Vec<FlightData>) + Send + Sync>;

/// The proxy; it stops when dropped.
pub struct LyingPeer {
    part: Arc<Part>,
    shutdown: CancellationToken,
}

struct Part {
    link: Link,
    lie: Mutex<Lie>,
    ending: Mutex<Ending>,
    acknowledgements: watch::Sender<bool>,
}

/// How an answer ends, after the frames that are left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Proper,
    /// Never: nothing more is said.
    Silence,
    /// Never: its last frame is said again and again.
    Repetition,
}

impl LyingPeer {
    /// Listens at `address` as the node in `provider`, which itself listens at `behind`, and
    /// speaks to it as the node in `asker`.
    pub fn start(
        address: SocketAddr,
        provider: &Path,
        behind: SocketAddr,
        asker: &Path,
    ) -> LyingPeer {
        let own = identity(provider);
        LyingPeer::start_as(address, &own, provider, behind, asker)
    }

    /// The same with a TLS identity of its own choosing.
    pub fn start_as(
        address: SocketAddr,
        own: &TlsIdentity,
        provider: &Path,
        behind: SocketAddr,
        asker: &Path,
    ) -> LyingPeer {
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        let everyone = ClientKeys::Required(Arc::new(|_: &KeyId| true));
        let config = tls::server_config(own, everyone).expect("an identity that TLS can use");
        let target = Target::new(
            &behind.to_string(),
            [identity(provider).id],
            Some(&identity(asker)),
            Patience::default(),
        );
        let target = target.expect("an address");
        let part = runtime().block_on(async move {
            let link = target.connect_lazy().expect("TLS can be set up");
            let part = Arc::new(Part {
                link,
                lie: Mutex::new(Arc::new(|_: &mut Vec<FlightData>| {})),
                ending: Mutex::new(Ending::Proper),
                acknowledgements: watch::Sender::new(true),
            });
            let router = Router::new().fallback(pass_on).with_state(part.clone());
            let listener = TcpListener::bind(address).await.expect("the port is free");
            tokio::spawn(serve(
                listener,
                router,
                TlsMode::Required(config),
                ServeLimits::default(),
                ending,
            ));
            part
        });
        LyingPeer { part, shutdown }
    }

    /// Lies like this from now on.
    pub fn lie(&self, lie: impl Fn(&mut Vec<FlightData>) + Send + Sync + 'static) {
        *self.part.lie.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(lie);
    }

    /// Ends answers like this from now on.
    pub fn end(&self, ending: Ending) {
        *self
            .part
            .ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = ending;
    }

    /// Whether acknowledgements are passed on, or held without a word until they are.
    pub fn pass_acknowledgements(&self, pass: bool) {
        self.part.acknowledgements.send_replace(pass);
    }
}

impl Drop for LyingPeer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The TLS identity of the node in a directory.
pub fn identity(dir: &Path) -> TlsIdentity {
    TlsIdentity::load(&dir.join("keys")).expect("a node's keys")
}

async fn pass_on(State(part): State<Arc<Part>>, request: Request) -> Response {
    let answers = request.uri().path().ends_with("/DoGet");
    if request.uri().path().ends_with("/DoAction") {
        let mut passed = part.acknowledgements.subscribe();
        // The sender lives as long as `part` does.
        let _ = passed.wait_for(|pass| *pass).await;
    }
    let mut link = part.link.clone();
    let sent = async {
        std::future::poll_fn(|context| link.poll_ready(context)).await?;
        link.call(request.map(tonic::body::Body::new)).await
    };
    match sent.await {
        Ok(response) if answers => changed(response, &part).await,
        Ok(response) => response.map(Body::new),
        Err(error) => tonic::Status::unavailable(error.to_string()).into_http(),
    }
}

/// Reads the whole answer, lies, and sends what is left of it.
async fn changed(response: http::Response<tonic::body::Body>, part: &Part) -> Response {
    let (head, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return tonic::Status::unavailable("the provider broke off").into_http();
    };
    let trailers = collected.trailers().cloned();
    let mut frames = decode(collected.to_bytes());
    let lie = part
        .lie
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if !frames.is_empty() {
        lie(&mut frames);
    }
    let mut out: Vec<Result<Frame<Bytes>, Infallible>> = frames
        .iter()
        .map(|frame| Ok(Frame::data(encode(frame))))
        .collect();
    let ending = *part.ending.lock().unwrap_or_else(PoisonError::into_inner);
    let last = frames.last().map(encode).unwrap_or_default();
    let more = match ending {
        Ending::Proper => {
            out.extend(trailers.map(|trailers: HeaderMap| Ok(Frame::trailers(trailers))));
            stream::empty().boxed()
        }
        Ending::Silence => stream::pending().boxed(),
        Ending::Repetition => stream::repeat_with(move || Ok(Frame::data(last.clone()))).boxed(),
    };
    let frames = stream::iter(out).chain(more);
    Response::from_parts(head, Body::new(StreamBody::new(frames)))
}

/// gRPC's length-prefixed messages, uncompressed.
fn decode(mut bytes: Bytes) -> Vec<FlightData> {
    let mut frames = Vec::new();
    while bytes.len() >= 5 {
        assert_eq!(bytes[0], 0, "answers are not compressed");
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        let _ = bytes.split_to(5);
        frames.push(FlightData::decode(bytes.split_to(length)).expect("a Flight frame"));
    }
    frames
}

fn encode(frame: &FlightData) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(frame.encoded_len() as u32);
    frame.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}
