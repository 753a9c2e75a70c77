//! A witness that lies: it holds a witness's real key and answers whatever it is told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jingwei_proto::checkpoint::{Checkpoint, cosign};
use jingwei_proto::digest::Digest;
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::note::{Note, NoteSignature};
use jingwei_proto::time::Time;
use jingwei_proto::witness::{AddCheckpoint, SIZE_TYPE};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::local::runtime;

/// What it answers to a request to co-sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// 200 and nothing.
    Nothing,
    /// 200 and something that is no signature.
    Garbage,
    /// 200 and a signature in its name by another key.
    OtherKey,
    /// 200 and a signature over a larger log.
    OtherText,
    /// 200 and a signature over the checkpoint and an empty line, behind an empty line.
    LongerText,
    /// 200 and a signature without a time.
    NoTime,
    /// 200 and bytes without end.
    Endless,
    /// 409: it has signed more than there is.
    Ahead,
    /// 409: it has signed something else, now this, now that.
    Fickle,
    /// 409 without a size.
    NoSize,
    /// 422.
    Inconsistent,
    /// 500.
    Broken,
    /// 307, to itself.
    Elsewhere,
}

/// All of them.
pub const LIES: [Lie; 13] = [
    Lie::Nothing,
    Lie::Garbage,
    Lie::OtherKey,
    Lie::OtherText,
    Lie::LongerText,
    Lie::NoTime,
    Lie::Endless,
    Lie::Ahead,
    Lie::Fickle,
    Lie::NoSize,
    Lie::Inconsistent,
    Lie::Broken,
    Lie::Elsewhere,
];

/// A server that tells one lie after another. To whoever asks what it has signed last it shows a
/// larger log, signed by itself in the log's name.
pub struct LyingWitness {
    /// Where it listens.
    pub address: SocketAddr,
    speaker: Arc<Speaker>,
    shutdown: CancellationToken,
}

struct Speaker {
    name: String,
    key: SecretKey,
    lies: Vec<Lie>,
    told: AtomicUsize,
    last: Mutex<Option<Checkpoint>>,
}

impl LyingWitness {
    /// Serves as the witness `name` with `key`, and tells these lies in turn.
    pub fn start(address: SocketAddr, name: &str, key: SecretKey, lies: &[Lie]) -> LyingWitness {
        let speaker = Arc::new(Speaker {
            name: name.to_owned(),
            key,
            lies: lies.to_vec(),
            told: AtomicUsize::new(0),
            last: Mutex::new(None),
        });
        let router = Router::new().fallback(answer).with_state(speaker.clone());
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        let address = runtime().block_on(async move {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            let address = listener.local_addr().expect("it is bound");
            tokio::spawn(async move {
                let serving = std::future::IntoFuture::into_future(axum::serve(listener, router));
                tokio::select! {
                    () = ending.cancelled() => {}
                    _ = serving => {}
                }
            });
            address
        });
        LyingWitness {
            address,
            speaker,
            shutdown,
        }
    }

    /// How often it has lied.
    pub fn told(&self) -> usize {
        self.speaker.told.load(Ordering::SeqCst)
    }
}

impl Drop for LyingWitness {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn answer(State(speaker): State<Arc<Speaker>>, method: Method, body: Bytes) -> Response {
    if method == Method::GET {
        return speaker.newest().into_response();
    }
    let request = AddCheckpoint::parse(&body).expect("the log asks as it must");
    let checkpoint = request.checkpoint().expect("it was parsed");
    let mut last = speaker.last.lock().unwrap_or_else(PoisonError::into_inner);
    *last = Some(checkpoint);
    drop(last);
    let n = speaker.told.fetch_add(1, Ordering::SeqCst);
    speaker.lie(speaker.lies[n % speaker.lies.len()], &request, n)
}

impl Speaker {
    fn lie(&self, lie: Lie, request: &AddCheckpoint, n: usize) -> Response {
        let text = &request.note.text;
        let conflict = |size: String| {
            let kind = [(header::CONTENT_TYPE, SIZE_TYPE)];
            (StatusCode::CONFLICT, kind, size).into_response()
        };
        match lie {
            Lie::Nothing => StatusCode::OK.into_response(),
            Lie::Garbage => "— yes, of course\n".into_response(),
            Lie::OtherKey => self.line(text, &SecretKey::from_seed(&[77; 32]), 1_750_000_000),
            Lie::OtherText => {
                let larger = larger(&request.checkpoint().expect("it was parsed"));
                self.line(&larger.to_string(), &self.key, 1_750_000_000)
            }
            Lie::LongerText => {
                let time = 1_750_000_000_i64;
                let signed = format!("cosignature/v1\ntime {time}\n{text}\n");
                let signature = self.key.sign(signed.as_bytes());
                let own = time_of(time);
                let line = cosign(text, &self.name, &self.key, own).expect("a checkpoint");
                let over_more = NoteSignature {
                    signature: [&time.to_be_bytes(), &signature[..]].concat(),
                    ..line
                };
                format!("\n{over_more}\n").into_response()
            }
            Lie::NoTime => self.line(text, &self.key, 0),
            Lie::Endless => {
                let line = Bytes::from_static(&[b'x'; 4096]);
                let lines = futures::stream::repeat_with(move || Ok::<_, String>(line.clone()));
                Body::from_stream(lines).into_response()
            }
            Lie::Ahead => conflict(format!("{}\n", u64::MAX)),
            Lie::Fickle => conflict(format!("{}\n", n % 2)),
            Lie::NoSize => conflict("no\n".into()),
            Lie::Inconsistent => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
            Lie::Broken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Lie::Elsewhere => {
                let here = [(header::LOCATION, "/add-checkpoint")];
                (StatusCode::TEMPORARY_REDIRECT, here).into_response()
            }
        }
    }

    fn line(&self, text: &str, key: &SecretKey, seconds: i64) -> Response {
        let line = cosign(text, &self.name, key, time_of(seconds)).expect("a checkpoint");
        format!("{line}\n").into_response()
    }

    /// A larger log than it was asked about, in whose name it has signed itself.
    fn newest(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = last.as_ref().map(larger);
        let shown = shown.and_then(|checkpoint| checkpoint.sign(&self.key).ok());
        shown.map_or_else(String::new, |note: Note| note.to_string())
    }
}

fn time_of(seconds: i64) -> Time {
    Time::from_seconds(seconds).expect("a time")
}

fn larger(checkpoint: &Checkpoint) -> Checkpoint {
    let root = Digest::of(b"another history");
    Checkpoint::new(&*checkpoint.origin, checkpoint.size + 1, root)
}
