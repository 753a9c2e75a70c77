//! A gate before a truthful witness: what passes through it may be lost on the way, as in any
//! network.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::local::runtime;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What becomes of a request to co-sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It does not arrive, and the connection ends.
    Dropped,
    /// The witness signs and remembers, and the connection ends without its answer.
    AnswerLost,
    /// Half of the line that the witness has signed arrives.
    HalfALine,
}

/// A server that passes requests on to a witness.
pub struct WitnessGate {
    address: SocketAddr,
    passage: Arc<Passage>,
    shutdown: CancellationToken,
}

struct Passage {
    witness: String,
    client: reqwest::Client,
    failing: Mutex<(Trouble, u32)>,
}

impl WitnessGate {
    /// Before the witness at `http://HOST:PORT`; so many requests fail in this way.
    pub fn start(witness: String, trouble: Trouble, times: u32) -> WitnessGate {
        let passage = Arc::new(Passage {
            witness,
            client: reqwest::Client::new(),
            failing: Mutex::new((trouble, times)),
        });
        let listening = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = runtime().block_on(listening).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shutdown = CancellationToken::new();
        let serving = serve(listener, passage.clone());
        runtime().spawn(shutdown.clone().run_until_cancelled_owned(serving));
        WitnessGate {
            address,
            passage,
            shutdown,
        }
    }

    /// Where the log reaches the witness.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many failures are still to come.
    pub fn failures_left(&self) -> u32 {
        self.passage.failing().1
    }
}

impl Drop for WitnessGate {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn serve(listener: TcpListener, passage: Arc<Passage>) {
    while let Ok((stream, _)) = listener.accept().await {
        let passage = passage.clone();
        let service = service_fn(move |request| passage.clone().answer(request));
        tokio::spawn(async move {
            // Connections that break are what this is for.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Passage {
    fn failing(&self) -> MutexGuard<'_, (Trouble, u32)> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next trouble, if there is one left.
    fn trouble(&self) -> Option<Trouble> {
        let mut failing = self.failing();
        let (trouble, left) = *failing;
        failing.1 = left.saturating_sub(1);
        (left > 0).then_some(trouble)
    }

    async fn answer(
        self: Arc<Passage>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Error> {
        let trouble = self.trouble();
        if trouble == Some(Trouble::Dropped) {
            return Err("the request is lost".into());
        }
        let url = format!("{}{}", self.witness, request.uri());
        let (head, body) = request.into_parts();
        let passed = self.client.request(head.method, url);
        let answer = passed.body(body.collect().await?.to_bytes()).send().await?;
        let status = answer.status();
        let kind = answer.headers().get("content-type").cloned();
        let mut bytes = answer.bytes().await?;
        match trouble {
            Some(Trouble::AnswerLost) => return Err("the answer is lost".into()),
            Some(Trouble::HalfALine) => bytes.truncate(bytes.len() / 2),
            _ => {}
        }
        let mut response = Response::new(Full::new(bytes));
        *response.status_mut() = status;
        if let Some(kind) = kind {
            response.headers_mut().insert("content-type", kind);
        }
        Ok(response)
    }
}
