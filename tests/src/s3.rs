//! An S3 server in this process that can be made to fail as object stores do.
//!
//! The store itself is `s3s-fs`, written by others, which checks signatures and conditions; its
//! objects are plain files. In front of it stands a gate that loses, denies and delays.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, IF_MATCH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jingwei_registry::log::{Bucket, Objects, Patience};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::local::runtime;

/// In place of an object's name: the bucket itself, which lists objects (GET) and removes them (POST).
pub const THE_BUCKET: &str = "?";

const BUCKET: &str = "federation";
const ACCESS_KEY: &str = "a-registry";
const SECRET_KEY: &str = "known to the test and the store";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is not done, and answered with this status.
    Denied(u16),
    /// It is done, and answered with this status.
    Disowned(u16),
    /// It is done, and the connection ends without an answer.
    Lost,
    /// It is done, and never answered.
    Silent,
    /// It is never answered, and done when [`S3::release`] is called.
    Late,
}

/// Which calls fail: those of one method on objects whose name begins so, as often as said.
#[derive(Debug, Clone)]
pub struct Failing {
    /// `PUT`, `GET`, …
    pub method: Method,
    /// The beginning of the name, after the prefix of the log; or [`THE_BUCKET`].
    pub name: &'static str,
    /// How.
    pub trouble: Trouble,
    /// How often.
    pub times: u32,
}

/// A running server with one bucket.
pub struct S3 {
    address: SocketAddr,
    dir: TempDir,
    gate: Arc<Gate>,
    shutdown: CancellationToken,
}

struct Gate {
    service: S3Service,
    /// The store compares and writes in two steps.
    puts: tokio::sync::Mutex<()>,
    plan: Mutex<Plan>,
    released: watch::Sender<u64>,
}

#[derive(Default)]
struct Plan {
    failing: Option<Failing>,
    /// One of so many calls fails, each time in another way.
    unreliable: Option<u64>,
    careless: bool,
    calls: u64,
}

impl S3 {
    /// Starts one on a free port.
    pub fn start() -> S3 {
        S3::with(false)
    }

    /// Starts one that passes over the conditions of puts, as some do.
    pub fn careless() -> S3 {
        S3::with(true)
    }

    fn with(careless: bool) -> S3 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join(BUCKET)).expect("a bucket is a directory");
        let files = FileSystem::new(dir.path()).expect("the directory is there");
        let mut builder = S3ServiceBuilder::new(files);
        if !careless {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let gate = Arc::new(Gate {
            service: builder.build(),
            puts: tokio::sync::Mutex::default(),
            plan: Mutex::new(Plan {
                careless,
                ..Plan::default()
            }),
            released: watch::Sender::new(0),
        });
        let shutdown = CancellationToken::new();
        let listening = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = runtime().block_on(listening).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime().spawn(
            shutdown
                .clone()
                .run_until_cancelled_owned(serve(listener, gate.clone())),
        );
        S3 {
            address,
            dir,
            gate,
            shutdown,
        }
    }

    /// The setting that names the place `prefix` of its bucket.
    pub fn url(prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// What a program has to find in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        [
            ("JINGWEI_REGISTRY_S3_ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The storage of a log in this process.
    pub fn objects(&self, prefix: &str, patience: Patience) -> Objects {
        let bucket = Bucket {
            url: S3::url(prefix).parse().expect("a bucket's URL"),
            endpoint: Some(format!("http://{}", self.address)),
            region: None,
        };
        let builder = bucket.builder();
        let builder = builder
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY);
        Objects::reached_by(&bucket.url, builder, patience).expect("a well-formed address")
    }

    /// The directory in which the objects of a log are files.
    pub fn files(&self, prefix: &str) -> PathBuf {
        self.dir.path().join(BUCKET).join(prefix)
    }

    /// Lets calls fail from now on.
    pub fn fail(&self, failing: Failing) {
        self.gate.plan().failing = Some(failing);
    }

    /// How many of them are still to come.
    pub fn failures_left(&self) -> u32 {
        let plan = self.gate.plan();
        plan.failing.as_ref().map_or(0, |failing| failing.times)
    }

    /// One of `n` calls fails from now on, each time in another way.
    pub fn unreliable(&self, n: Option<u64>) {
        self.gate.plan().unreliable = n;
    }

    /// Does what is [`Trouble::Late`], and returns when it is done.
    pub fn release(&self) {
        self.gate.released.send_modify(|releases| *releases += 1);
        runtime().block_on(self.gate.released.closed());
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn serve(listener: TcpListener, gate: Arc<Gate>) {
    while let Ok((stream, _)) = listener.accept().await {
        let gate = gate.clone();
        let service = service_fn(move |request| gate.clone().answer(request));
        tokio::spawn(async move {
            // Connections that break are what this is for.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Gate {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        self: Arc<Gate>,
        request: Request<Incoming>,
    ) -> Result<Response<s3s::Body>, Error> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (trouble, careless) = self.plan().judge(&head.method, head.uri.path());
        if careless {
            // They are signed, and signatures are not looked at either.
            head.headers.remove(IF_NONE_MATCH);
            head.headers.remove(IF_MATCH);
            head.headers.remove(AUTHORIZATION);
        }
        let request = Request::from_parts(head, body);
        let status = |code| -> Result<Response<s3s::Body>, Error> {
            let mut answer = Response::new(s3s::Body::empty());
            *answer.status_mut() = StatusCode::from_u16(code)?;
            Ok(answer)
        };
        match trouble {
            None => self.perform(request).await,
            Some(Trouble::Denied(code)) => status(code),
            Some(Trouble::Disowned(code)) => {
                self.perform(request).await?;
                status(code)
            }
            Some(Trouble::Lost) => {
                self.perform(request).await?;
                Err("the answer is lost".into())
            }
            Some(Trouble::Silent) => {
                self.perform(request).await?;
                std::future::pending().await
            }
            Some(Trouble::Late) => {
                let mut released = self.released.subscribe();
                // Not a part of the connection, which its client will give up.
                tokio::spawn(async move {
                    if released.changed().await.is_ok() {
                        let _ = self.perform(request).await;
                    }
                });
                std::future::pending().await
            }
        }
    }

    async fn perform(&self, request: Request<Bytes>) -> Result<Response<s3s::Body>, Error> {
        let put = request.method() == Method::PUT;
        let _alone = if put {
            Some(self.puts.lock().await)
        } else {
            None
        };
        let request = request.map(s3s::Body::from);
        let answer = self.service.call(request).await;
        answer.map_err(|error| format!("{error:?}").into())
    }
}

impl Plan {
    fn judge(&mut self, method: &Method, path: &str) -> (Option<Trouble>, bool) {
        self.calls += 1;
        // `/BUCKET/PREFIX/NAME`
        let name = path.splitn(4, '/').nth(3).unwrap_or(THE_BUCKET);
        let chosen = self.failing.as_mut().filter(|failing| {
            failing.times > 0 && failing.method == method && name.starts_with(failing.name)
        });
        let trouble = match chosen {
            Some(failing) => {
                failing.times -= 1;
                Some(failing.trouble)
            }
            None => self.at_random(),
        };
        (trouble, self.careless)
    }

    fn at_random(&self) -> Option<Trouble> {
        let every = self.unreliable?;
        let ways = [
            Trouble::Denied(503),
            Trouble::Disowned(500),
            Trouble::Denied(409),
            Trouble::Lost,
            Trouble::Disowned(409),
        ];
        let turn = (self.calls / every) as usize;
        self.calls
            .is_multiple_of(every)
            .then(|| ways[turn % ways.len()])
    }
}
