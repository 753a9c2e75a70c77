//! A witness and what it remembers: one file for each log, replaced before a signature leaves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jingwei_proto::checkpoint::{self, Checkpoint, CheckpointError};
use jingwei_proto::digest::Digest;
use jingwei_proto::key::Signer;
use jingwei_proto::note::{Algorithm, Note, NoteError, NoteKey};
use jingwei_proto::time::Time;
use jingwei_proto::witness::{AddCheckpoint, Refusal, Seen};

use crate::clock::Clock;
use crate::disk::{DirLock, Disk, LockError};

/// A witness cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Another process uses the directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// Its name or a log's is not one that signatures can carry.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A log of the witness's own agency: its signature would say nothing.
    #[error("{witness} cannot be a witness of {origin}, which is a log of its own agency")]
    Own {
        /// The witness's name.
        witness: String,
        /// The log's origin.
        origin: String,
    },
    /// The disk refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not what this witness wrote. To go on without it would be to forget what was
    /// signed.
    #[error(
        "{} is not what the witness {witness} wrote: {reason}; a witness that has forgotten what it signed must not sign: restore the file, or begin a new witness with a key of its own",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The witness's name.
        witness: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a checkpoint was not co-signed.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be stored, so the signature was dropped.
    #[error("the checkpoint cannot be stored: {0}")]
    Storage(io::Error),
}

/// A witness of any number of logs.
pub struct Witness {
    key: NoteKey,
    signer: Arc<dyn Signer>,
    clock: Clock,
    disk: Disk,
    dir: PathBuf,
    logs: RwLock<BTreeMap<String, Arc<Mutex<Log>>>>,
    _lock: DirLock,
}

/// One log and its newest checkpoint with the witness's own cosignature.
struct Log {
    keys: Vec<NoteKey>,
    path: PathBuf,
    seen: Seen,
    time: Option<Time>,
    note: Option<String>,
}

impl Witness {
    /// Opens the witness whose memory is the directory `dir`, and that signs as `name`.
    pub fn open(
        dir: &Path,
        name: &str,
        signer: Arc<dyn Signer>,
        clock: Clock,
        disk: Disk,
    ) -> Result<Witness, WitnessError> {
        let failed = |source| WitnessError::Io {
            path: dir.to_owned(),
            source,
        };
        let key = NoteKey::new(name, Algorithm::CosignatureV1, signer.public().clone())?;
        disk.create_dir_all(dir).map_err(failed)?;
        let lock = DirLock::acquire(dir)?;
        disk.clean(dir).map_err(failed)?;
        // A file renamed just before a crash may not be durable yet, and is about to count.
        disk.sync_directory(dir).map_err(failed)?;
        Ok(Witness {
            key,
            signer,
            clock,
            disk,
            dir: dir.to_owned(),
            logs: RwLock::default(),
            _lock: lock,
        })
    }

    /// The key that verifies its cosignatures.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The logs that it co-signs.
    pub fn origins(&self) -> Vec<String> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let watched = logs.iter().filter(|(_, log)| !lock(log).keys.is_empty());
        watched.map(|(origin, _)| origin.clone()).collect()
    }

    /// Co-signs a log no longer. What is known of it is kept, in case that it is told of it again.
    pub fn leave(&self, origin: &str) {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = logs.get(origin) {
            lock(log).keys.clear();
        }
    }

    /// Co-signs the log `origin` from now on, whose checkpoints one of `keys` signs; what was
    /// known of it before is kept.
    pub fn watch(&self, origin: &str, keys: Vec<NoteKey>) -> Result<(), WitnessError> {
        if checkpoint::is_own(origin, self.key.name()) {
            return Err(WitnessError::Own {
                witness: self.key.name().to_owned(),
                origin: origin.to_owned(),
            });
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = logs.get(origin) {
            lock(log).keys = keys;
            return Ok(());
        }
        let log = self.load(origin, keys)?;
        logs.insert(origin.to_owned(), Arc::new(Mutex::new(log)));
        Ok(())
    }

    /// Answers the body of an `add-checkpoint` request with signature lines. The check against
    /// what was signed last, and the storing of what is signed now, are one step: while it lasts
    /// no other request about the same log is looked at.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<String, Denied> {
        let request = AddCheckpoint::parse(body)?;
        let origin = request.checkpoint()?.origin;
        let log = self
            .log(&origin)
            .ok_or_else(|| Refusal::UnknownLog(origin.chars().take(80).collect()))?;
        let mut log = lock(&log);
        if log.keys.is_empty() {
            return Err(Refusal::UnknownLog(origin.chars().take(80).collect()).into());
        }
        let next = request.judge(&log.keys, &log.seen).inspect_err(|_| {
            self.keep_fork(&log, &request);
        })?;
        // A clock that was set back must not date this before what was signed already.
        let time = log
            .time
            .map_or((self.clock)(), |last| last.max((self.clock)()));
        let line = self.cosign(&request.note.text, time)?;
        let mut note = request.note;
        let by_log = log.keys.iter().flat_map(|key| note.by(key).cloned());
        note.signatures = by_log.chain([line.clone()]).collect();
        let note = note.to_string();
        // After an error the file holds the old checkpoint or the new; nobody was told of the
        // new one, and both are ones that the log has grown through.
        self.disk
            .replace(&log.path, note.as_bytes())
            .map_err(Denied::Storage)?;
        let gauge = |what: &'static str| metrics::gauge!(what, "log" => origin.clone());
        gauge("jingwei_witness_cosigned_entries").set(next.size as f64);
        gauge("jingwei_witness_cosigned_time_seconds").set(time.seconds() as f64);
        log.seen = next;
        log.time = Some(time);
        log.note = Some(note);
        Ok(format!("{line}\n"))
    }

    /// Keeps two checkpoints of one size and two roots that the log's own keys have signed: whoever
    /// reads them sees that it shows two histories. The first such pair says it all.
    fn keep_fork(&self, log: &Log, request: &AddCheckpoint) {
        let (Ok(shown), Some(note)) = (request.checkpoint(), &log.note) else {
            return;
        };
        let signed = log.keys.iter().any(|key| request.note.verify(key).is_ok());
        if !signed || shown.size != log.seen.size || shown.root == log.seen.root {
            return;
        }
        let path = log.path.with_extension("fork");
        let pair = format!("{note}\n{}", request.note);
        match self.disk.create_if_absent(&path, pair.as_bytes()) {
            Ok(_) => {
                let (origin, file) = (&shown.origin, path.display());
                tracing::error!(%origin, %file, "the log shows two histories, and this proves it");
            }
            Err(error) => tracing::error!(%error, "a proof that a log forks cannot be stored"),
        }
        metrics::counter!("jingwei_witness_forks_total", "log" => shown.origin).increment(1);
    }

    /// The newest checkpoint co-signed here of the log whose origin has this SHA-256.
    pub fn newest(&self, origin: &Digest) -> Option<String> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let found = logs
            .iter()
            .find(|(name, _)| Digest::of(name.as_bytes()) == *origin)
            .map(|(_, log)| log.clone());
        drop(logs);
        let log = found?;
        lock(&log).note.clone()
    }

    fn log(&self, origin: &str) -> Option<Arc<Mutex<Log>>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.get(origin).cloned()
    }

    fn cosign(
        &self,
        text: &str,
        time: Time,
    ) -> Result<jingwei_proto::note::NoteSignature, Refusal> {
        let signed = checkpoint::cosign(text, self.key.name(), &*self.signer, time);
        signed.map_err(|error: CheckpointError| Refusal::Malformed(error.to_string()))
    }

    /// What stands in the file of a log.
    fn load(&self, origin: &str, keys: Vec<NoteKey>) -> Result<Log, WitnessError> {
        let path = self.dir.join(Digest::of(origin.as_bytes()).to_string());
        let mut log = Log {
            keys,
            path,
            seen: Seen::nothing(),
            time: None,
            note: None,
        };
        let stored = match std::fs::read_to_string(&log.path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(log),
            Err(source) => {
                let path = log.path;
                return Err(WitnessError::Io { path, source });
            }
        };
        let (checkpoint, time) =
            self.own(origin, &stored)
                .map_err(|reason| WitnessError::Damaged {
                    path: log.path.clone(),
                    witness: self.key.name().to_owned(),
                    reason,
                })?;
        log.seen = Seen {
            size: checkpoint.size,
            root: checkpoint.root,
        };
        log.time = Some(time);
        log.note = Some(stored);
        Ok(log)
    }

    /// A stored checkpoint counts by this witness's own signature alone: the log's keys may have
    /// changed since.
    fn own(&self, origin: &str, stored: &str) -> Result<(Checkpoint, Time), String> {
        let note = Note::parse(stored.as_bytes()).map_err(|error| error.to_string())?;
        let time = checkpoint::verify_cosignature(&note, &self.key).map_err(|e| e.to_string())?;
        let checkpoint: Checkpoint = note
            .text
            .parse()
            .map_err(|error: CheckpointError| error.to_string())?;
        match checkpoint.origin == origin {
            true => Ok((checkpoint, time)),
            false => Err(format!("it is about the log {}", checkpoint.origin)),
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    // What it holds changes only after the file has, in assignments that cannot fail.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
