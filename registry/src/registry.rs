//! A registry in its directory: opened, served on one port, closed.
//!
//! ```text
//! DIR/registry.toml        configuration
//! DIR/root-keys/N.pem      the root keys, to be moved elsewhere
//! DIR/keys/                log.pem, cosigner.pem and the TLS identity of the first root
//! DIR/keys/N/              those that root N brought in anew
//! DIR/keys/shown           what readers were shown: an old copy of the log is found out by it
//! DIR/log/                 the log: durable truth; or in a bucket (see [`Paths`])
//! DIR/index/               sled: rebuilt when it is missing
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::{Envelope, EnvelopeError};
use jingwei_proto::leaf::{Leaf, leaf};
use jingwei_proto::state::{self, RootRecord};
use jingwei_proto::statement::{Predicate, Statement};
use jingwei_proto::time::Time;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::disk::{DirLock, Disk, LockError};
use crate::index::{Index, IndexError};
use crate::keyfile::{self, KeyFileError};
use crate::keyring::Ring;
use crate::log::{Entry, Log, LogError, LogReader, Stored};
pub use crate::paths::Paths;
use crate::quota::SubmitLimits;
use crate::sequencer::{LogKeys, Sequencer, may_be_root};
use crate::serve::{self, ServeLimits, TlsMode};
use crate::telemetry::Metrics;
use crate::tls::{self, ClientKeys, Identity};
use crate::witness::client::WitnessAddress;
use crate::witness::rounds::Gate;
use crate::{http, service};

/// A registry cannot be opened or begun.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("{0} holds no registry: begin one with ‘jingwei-registry init --dir {0} --name NAME’")]
    Missing(PathBuf),
    /// Another process uses the directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// A key is missing or not private.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The log is damaged or cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log could not be written.
    #[error("the log cannot be written: {0}")]
    Append(String),
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The first entry is not a root document.
    #[error("the log does not begin with a root document: {0}")]
    Root(String),
    /// The root in force names another log.
    #[error(
        "{dir} holds the log {log}, and the root in force is about {named}: finish the take-over with ‘jingwei-registry take-over --dir {dir} --proposal FILE’"
    )]
    Unfinished {
        /// The registry's directory.
        dir: String,
        /// The log there.
        log: String,
        /// The log that the root names.
        named: String,
    },
    /// A key that the root names is not in the directory.
    #[error("{0}; a registry signs with the keys that the root document names, and with no others")]
    OtherKey(String),
    /// TLS or the sequencer's thread could not be set up.
    #[error("cannot start: {0}")]
    Start(String),
}

/// A witness has shown that this log is not the newest copy, or not the only one.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the registry has stopped, since it must not sign: {0}; bring back the newest copy of the log directory, or let a replica take over"
)]
pub struct Halted(String);

impl Halted {
    fn by(gate: &Gate) -> Result<(), Halted> {
        match gate {
            Gate::Halted(reason) => Err(Halted(reason.clone())),
            _ => Ok(()),
        }
    }
}

/// An open registry.
pub struct Registry {
    root: Digest,
    record: RootRecord,
    reader: LogReader,
    index: Index,
    sequencer: Sequencer,
    writer: JoinHandle<()>,
    tls: Arc<rustls::ServerConfig>,
    _lock: DirLock,
}

impl Registry {
    /// Begins the log of a new federation with its root document.
    pub fn begin(paths: &Paths, root: Envelope, now: Time, disk: Disk) -> Result<(), OpenError> {
        let _lock = DirLock::acquire(paths.dir())?;
        let statement =
            Statement::parse(root.payload()).map_err(|error| OpenError::Root(error.to_string()))?;
        let Predicate::Root(body) = &statement.predicate else {
            return Err(OpenError::Root("it is another statement".into()));
        };
        let empty = std::collections::BTreeMap::new();
        let change =
            state::apply(&empty, 0, &root).map_err(|error| OpenError::Root(error.to_string()))?;
        let keys = log_keys(paths, body.registry.origin.clone())?;
        let mut log = paths.open_log(disk, &body.registry.origin)?;
        let entry = Entry {
            leaf: leaf(&root, &change.signer),
            envelope: Some(root.to_bytes()),
        };
        let clock: Clock = Arc::new(move || now);
        log.append(&[entry], |checkpoint| {
            keys.sign(checkpoint, body.quorum, &clock)
        })
        .map_err(|error| OpenError::Append(error.to_string()))?;
        if body.quorum == 0 {
            // Otherwise it is published when the registry is served and a quorum has signed.
            log.publish_sealed()?;
        }
        Ok(())
    }

    /// Opens the registry at `paths`. A normal start and recovery after a crash are the same.
    pub fn open(paths: impl Into<Paths>, clock: Clock, disk: Disk) -> Result<Registry, OpenError> {
        Registry::open_with(paths, clock, disk, Vec::new())
    }

    /// As [`Registry::open`], where witnesses co-sign the log; `witnesses` says where they are.
    pub fn open_with(
        paths: impl Into<Paths>,
        clock: Clock,
        disk: Disk,
        witnesses: Vec<WitnessAddress>,
    ) -> Result<Registry, OpenError> {
        let paths = paths.into();
        if let Err(error) = std::fs::metadata(paths.keys()) {
            return Err(match error.kind() {
                std::io::ErrorKind::NotFound => OpenError::Missing(paths.dir().to_owned()),
                _ => OpenError::Start(format!("{}: {error}", paths.keys().display())),
            });
        }
        let lock = DirLock::acquire(paths.dir())?;
        let root = read_root(&paths)?;
        let log = paths.open_log(disk, &root.origin)?;
        audit(&log.committed())?;
        let reader = log.reader();
        let index = Index::open(&paths.index(), &log.committed())?;
        for entry in index.rejected() {
            tracing::error!(index = entry.index, reason = %entry.reason, "the log holds an entry that the rules reject");
        }
        let record = index
            .root()?
            .ok_or_else(|| OpenError::Root("the index has none".into()))?;
        if record.registry.origin != root.origin {
            return Err(OpenError::Unfinished {
                dir: paths.dir().display().to_string(),
                log: root.origin,
                named: record.registry.origin,
            });
        }
        let ring = Ring::new(&paths);
        let keys = ring.find(&record.registry).map_err(OpenError::OtherKey)?;
        let starting = |error: &dyn std::fmt::Display| OpenError::Start(error.to_string());
        let identity = Identity::new(
            &ring
                .identity(record.registry.tls)
                .map_err(OpenError::OtherKey)?,
        )
        .map_err(|error| starting(&error))?;
        let members = ClientKeys::Optional(Arc::new(index.clone()));
        let tls =
            tls::server_config_with(identity.clone(), members).map_err(|error| starting(&error))?;
        let ring = Box::new(ring.presenting(identity));
        let (sequencer, writer) =
            Sequencer::start(log, index.clone(), keys, ring, clock, witnesses)
                .map_err(|error| starting(&error))?;
        Ok(Registry {
            root: root.digest,
            record,
            reader,
            index,
            sequencer,
            writer,
            tls,
            _lock: lock,
        })
    }

    /// Sets other limits for submissions than the defaults.
    pub fn limit(&self, limits: &SubmitLimits) {
        self.sequencer.limit(limits);
    }

    /// The digest of the first root document.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The root in force when the registry was opened.
    pub fn record(&self) -> &RootRecord {
        &self.record
    }

    /// The log, for reading.
    pub fn log(&self) -> &LogReader {
        &self.reader
    }

    /// The index of the log.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The way to enter statements from within this process.
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// Waits until the witnesses have confirmed what is committed, up to `patience`. The log can be
    /// read without that, but takes nothing in.
    pub async fn confirmed(&self, patience: Duration) -> Result<(), Halted> {
        let mut gate = self.sequencer.gate();
        let confirmed = gate.wait_for(|gate| matches!(gate, Gate::Open | Gate::Halted(_)));
        match tokio::time::timeout(patience, confirmed).await {
            Ok(Ok(gate)) => Halted::by(&gate),
            _ => Ok(()),
        }
    }

    /// Serves reads over HTTP and submissions over TLS on one port until `shutdown`, or until a
    /// witness shows that this log must not go on; everything that was acknowledged is durable
    /// then.
    pub async fn serve(
        self,
        listener: TcpListener,
        metrics: Option<&'static Metrics>,
        limits: ServeLimits,
        shutdown: CancellationToken,
    ) -> Result<(), Halted> {
        let gate = self.sequencer.gate();
        let halting = tokio::spawn(stop_when_halted(gate.clone(), shutdown.clone()));
        let router = http::router(
            self.reader.clone(),
            self.sequencer.size(),
            metrics,
            shutdown.clone(),
        )
        .merge(service::router(self.sequencer.clone()).await);
        let router = crate::request_id::with_request_ids(router);
        serve::serve(
            listener,
            router,
            TlsMode::PlainAndTls(self.tls.clone()),
            limits,
            shutdown,
        )
        .await;
        drop(self.sequencer);
        let writer = self.writer;
        // Joining blocks, and the writer ends as soon as its last batch is committed.
        let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        halting.abort();
        let last = gate.borrow().clone();
        Halted::by(&last)
    }
}

async fn stop_when_halted(mut gate: watch::Receiver<Gate>, shutdown: CancellationToken) {
    let halted = gate.wait_for(|gate| matches!(gate, Gate::Halted(_))).await;
    if halted.is_ok() {
        shutdown.cancel();
    }
}

fn log_keys(paths: &Paths, origin: String) -> Result<LogKeys, OpenError> {
    Ok(LogKeys {
        origin,
        log: keyfile::load(&paths.log_key())?,
        cosigner: keyfile::load(&paths.cosigner_key())?,
    })
}

struct FirstRoot {
    digest: Digest,
    origin: String,
    record: RootRecord,
}

/// Reads the whole log before anything more is signed over it: a disk does not say when it has
/// lost a bit.
pub(crate) fn audit(log: &LogReader) -> Result<(), LogError> {
    log.audit()?;
    log.audit_envelopes(|entry, envelope| {
        let envelope = Envelope::parse(envelope).ok();
        envelope.is_some_and(|own| Leaf::parse(entry).is_some_and(|leaf| leaf.is_of(&own)))
    })
}

/// The digest of the first root of the registry in a directory that another process may be
/// serving, and the name of its log.
pub fn first_root(paths: &Paths) -> Result<(Digest, String), OpenError> {
    let root = read_root(paths)?;
    Ok((root.digest, root.origin))
}

/// Entries that are looked through at once for a root document: a bundle.
const AT_ONCE: u64 = 256;

/// The root document in force as far as the log's own bytes tell without an index: the newest one
/// that is committed and about this log.
pub fn newest_record(paths: &Paths) -> Result<RootRecord, OpenError> {
    let root = read_root(paths)?;
    let log = Stored::open(paths.log_storage()?)?;
    let mut end = log.as_ref().map_or(0, |log| log.checkpoint().size);
    while let Some(log) = &log
        && end > 0
    {
        let from = (end - 1) / AT_ONCE * AT_ONCE;
        let entries = log.entries(from..end)?;
        for (n, entry) in entries.iter().enumerate().rev() {
            let envelope = entry.envelope.as_deref();
            let record = envelope.and_then(|envelope| root_record(from + n as u64, envelope));
            if let Some(record) = record.filter(|record| record.registry.origin == root.origin) {
                return Ok(record);
            }
        }
        end = from;
    }
    Err(OpenError::Unfinished {
        dir: paths.dir().display().to_string(),
        log: root.origin,
        named: root.record.registry.origin,
    })
}

/// What an entry of one's own log says, if it is a root document.
fn root_record(index: u64, envelope: &[u8]) -> Option<RootRecord> {
    let envelope = Envelope::parse(envelope).ok()?;
    if !may_be_root(&envelope) {
        return None;
    }
    let statement = Statement::parse(envelope.payload()).ok()?;
    match &statement.predicate {
        Predicate::Root(body) => Some(RootRecord::of(
            &statement.head,
            body,
            state::Chain {
                sequence: statement.head.sequence,
                payload: envelope.payload_digest(),
                index,
            },
        )),
        _ => None,
    }
}

/// The first root document, read from the log's stored bytes.
fn read_root(paths: &Paths) -> Result<FirstRoot, OpenError> {
    if !paths.log_key().exists() && !paths.log().exists() {
        return Err(OpenError::Missing(paths.dir().to_owned()));
    }
    let bytes = LogReader::first_envelope(&paths.log_storage()?)?;
    let envelope = Envelope::parse(&bytes)
        .map_err(|error: EnvelopeError| OpenError::Root(error.to_string()))?;
    let mut memory = std::collections::BTreeMap::new();
    let change =
        state::apply(&memory, 0, &envelope).map_err(|error| OpenError::Root(error.to_string()))?;
    change.write_to(&mut memory);
    let record: RootRecord = memory
        .get(state::keys::ROOT)
        .and_then(|bytes| state::record(bytes))
        .ok_or_else(|| OpenError::Root("it is another statement".into()))?;
    let origin = Log::origin_of(&paths.log_storage()?)?;
    Ok(FirstRoot {
        digest: envelope.payload_digest(),
        origin: origin.unwrap_or_else(|| record.registry.origin.clone()),
        record,
    })
}

#[cfg(test)]
pub(crate) mod tests;
