//! A registry that lies: it holds the registry's real keys and shows whatever it is told to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use futures::stream;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::json;
use jingwei_proto::key::{KeyId, PublicKey};
use jingwei_proto::leaf::leaf;
use jingwei_proto::time::Time;
use jingwei_registry::clock::{self, Clock};
use jingwei_registry::disk::Disk;
use jingwei_registry::keyfile::{self, TlsIdentity};
use jingwei_registry::log::{Entry, Log, MAX_BATCH};
use jingwei_registry::registry::{Paths, first_root};
use jingwei_registry::sequencer::LogKeys;
use jingwei_registry::serve::{ServeLimits, TlsMode, serve};
use jingwei_registry::tls::{ClientKeys, server_config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::keyring::noon;
use crate::local::runtime;
use crate::reading::LogFiles;

/// Files that a lying registry shows.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// A log's directory.
    pub dir: PathBuf,
    /// Files that are shown otherwise than they stand there.
    pub instead: HashMap<String, Vec<u8>>,
}

impl Files {
    /// A log's directory as it stands.
    pub fn of(dir: &Path) -> Files {
        Files {
            dir: dir.to_owned(),
            instead: HashMap::new(),
        }
    }
}

/// A server of log files without any conscience.
pub struct LyingRegistry {
    /// Where it listens.
    pub address: SocketAddr,
    shown: Arc<Shown>,
    shutdown: CancellationToken,
}

struct Shown {
    files: Mutex<Files>,
    changes: watch::Sender<u64>,
    mute: AtomicBool,
    slow: AtomicBool,
    submitted: watch::Sender<bool>,
}

impl LyingRegistry {
    /// Serves `files` at `address`, whose port may be 0.
    pub fn start(address: SocketAddr, files: Files) -> LyingRegistry {
        LyingRegistry::begin(address, files, TlsMode::Plain)
    }

    /// The same over the TLS key of the registry in `dir`, too, where it takes statements in and
    /// never says what became of them.
    pub fn start_as(dir: &Path, address: SocketAddr, files: Files) -> LyingRegistry {
        let identity = TlsIdentity::load(&dir.join("keys")).expect("init makes the keys");
        let anyone = ClientKeys::Optional(Arc::new(|_: &KeyId| true));
        let config = server_config(&identity, anyone).expect("a key and its certificate");
        LyingRegistry::begin(address, files, TlsMode::PlainAndTls(config))
    }

    fn begin(address: SocketAddr, files: Files, tls: TlsMode) -> LyingRegistry {
        let shown = Arc::new(Shown {
            files: Mutex::new(files),
            changes: watch::Sender::new(0),
            mute: false.into(),
            slow: false.into(),
            submitted: watch::Sender::new(false),
        });
        let router = Router::new().fallback(answer).with_state(shown.clone());
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        let address = runtime().block_on(async move {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            let address = listener.local_addr().expect("it is bound");
            // What is under way when it ends is broken off: it may never come to an end.
            let limits = ServeLimits {
                drain: Duration::ZERO,
                ..ServeLimits::default()
            };
            tokio::spawn(serve(listener, router, tls, limits, ending));
            address
        });
        LyingRegistry {
            address,
            shown,
            shutdown,
        }
    }

    /// Shows other files from now on, and wakes whoever waits for a checkpoint.
    pub fn show(&self, files: Files) {
        *self
            .shown
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = files;
        self.shown.changes.send_modify(|changes| *changes += 1);
    }

    /// Accepts connections from now on and answers nothing.
    pub fn fall_silent(&self) {
        self.shown.mute.store(true, Ordering::SeqCst);
        self.shown.changes.send_modify(|changes| *changes += 1);
    }

    /// Answers from now on as slowly as can be: a byte each second.
    pub fn dribble(&self) {
        self.shown.slow.store(true, Ordering::SeqCst);
    }

    /// Waits until a statement has been submitted to it.
    pub fn until_submitted(&self) {
        let mut submitted = self.shown.submitted.subscribe();
        let come = async { submitted.wait_for(|come| *come).await.map(drop) };
        runtime()
            .block_on(async { tokio::time::timeout(Duration::from_secs(120), come).await })
            .expect("a statement is submitted in time")
            .expect("the registry is not dropped meanwhile");
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for LyingRegistry {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn answer(
    State(shown): State<Arc<Shown>>,
    Query(query): Query<HashMap<String, u64>>,
    method: Method,
    uri: Uri,
) -> Result<Response, StatusCode> {
    if method == Method::POST {
        shown.submitted.send_replace(true);
        std::future::pending::<()>().await;
    }
    let name = uri.path().trim_start_matches('/').to_owned();
    let read = || {
        shown
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(&name)
    };
    let mut changes = shown.changes.subscribe();
    let mut found = read();
    // Whoever waits for a longer log is let wait until there is something else to see.
    if let (Some(after), Some(wait), Some(note)) = (query.get("after"), query.get("wait"), &found)
        && size_of(note).is_some_and(|size| size <= *after)
    {
        let _ = tokio::time::timeout(Duration::from_secs(*wait), changes.changed()).await;
        found = read();
    }
    if shown.mute.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let found = found.ok_or(StatusCode::NOT_FOUND)?;
    Ok(match shown.slow.load(Ordering::SeqCst) {
        true => dribbled(found),
        false => found.into_response(),
    })
}

fn dribbled(bytes: Vec<u8>) -> Response {
    let drops = stream::iter(bytes).then(|byte| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, std::convert::Infallible>(vec![byte])
    });
    Response::new(Body::from_stream(drops))
}

fn size_of(note: &[u8]) -> Option<u64> {
    std::str::from_utf8(note).ok()?.lines().nth(1)?.parse().ok()
}

impl Files {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.instead
            .get(name)
            .cloned()
            .or_else(|| std::fs::read(self.dir.join(name)).ok())
    }
}

/// Makes logs of any content with the true keys of a registry.
pub struct Forger {
    keys: LogKeys,
    date: Time,
}

impl Forger {
    /// With the keys of the registry in `dir`.
    pub fn new(dir: &Path) -> Forger {
        let paths = Paths::new(dir);
        let load = |path| keyfile::load(path).expect("the registry's keys");
        let keys = LogKeys {
            origin: first_root(&paths).expect("a founded registry").1,
            log: load(&paths.log_key()),
            cosigner: load(&paths.cosigner_key()),
        };
        Forger { keys, date: noon() }
    }

    /// Dates what it seals so long after now: after everything that an honest registry has
    /// sealed so far.
    pub fn dated_after(mut self, seconds: i64) -> Forger {
        self.date = Time::from_seconds(clock::system()().seconds() + seconds).expect("a time");
        self
    }

    /// Another key signs from now on.
    pub fn with_log_key(mut self, key: jingwei_proto::key::SecretKey) -> Forger {
        self.keys.log = key;
        self
    }

    /// A sealed log of `entries` in `dir`, which must be empty.
    pub fn write(&self, dir: &Path, entries: &[Entry]) -> Files {
        self.append(dir, entries);
        Files::of(dir)
    }

    /// Appends `entries` to the log in `dir`, whatever the rules say of them.
    pub fn append(&self, dir: &Path, entries: &[Entry]) {
        let date = self.date;
        let clock: Clock = Arc::new(move || date);
        let mut log = Log::open(dir, Disk::new(), &self.keys.origin).expect("a log");
        for entries in entries.chunks(MAX_BATCH) {
            log.append_and_publish(entries, |checkpoint| self.keys.seal(checkpoint, &clock))
                .expect("entries that fit");
        }
    }
}

/// The entries of the log in `dir`.
pub fn entries(dir: &Path) -> Vec<Entry> {
    let log = LogFiles::read(dir);
    log.leaves
        .into_iter()
        .zip(log.envelopes)
        .map(|(leaf, envelope)| Entry {
            leaf,
            envelope: Some(envelope),
        })
        .collect()
}

/// An entry as an honest registry would write it.
pub fn entry(envelope: &Envelope, key: &PublicKey) -> Entry {
    Entry {
        leaf: leaf(envelope, key),
        envelope: Some(envelope.to_bytes()),
    }
}

/// The same entry over a changed payload, under the old signature, with a leaf that fits.
pub fn altered(entry: &Entry, change: impl Fn(&str) -> String) -> Entry {
    let bytes = entry.envelope.as_deref().expect("a log with envelopes");
    let mut value = json::parse(bytes).expect("an envelope");
    let payload = value["payload"].as_str().expect("a payload");
    use base64::Engine as _;
    let base64 = base64::prelude::BASE64_STANDARD;
    let text = String::from_utf8(base64.decode(payload).expect("base64")).expect("JSON");
    let changed = change(&text);
    assert_ne!(changed, text, "nothing was altered");
    value["payload"] = base64.encode(changed).into();
    let envelope = Envelope::parse(&json::canonical(&value)).expect("an envelope still");
    let leaf_text = json::parse(&entry.leaf).expect("a leaf");
    let key =
        leaf_text["spec"]["hashedRekordV002"]["signature"]["verifier"]["publicKey"]["rawBytes"]
            .clone();
    let key: PublicKey = format!("ed25519:{}", key.as_str().expect("a key"))
        .parse()
        .expect("a key");
    self::entry(&envelope, &key)
}
