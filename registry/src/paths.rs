//! Where a registry keeps its things: its keys, configuration and index in a directory, its log
//! there too or in a bucket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::log::{Bucket, Local, Log, LogError, LogReader, Objects, Patience, Storage};

/// Where a registry keeps its things.
#[derive(Debug, Clone)]
pub struct Paths {
    dir: PathBuf,
    bucket: Option<Bucket>,
}

impl From<&Path> for Paths {
    fn from(dir: &Path) -> Paths {
        Paths::new(dir)
    }
}

impl From<&PathBuf> for Paths {
    fn from(dir: &PathBuf) -> Paths {
        Paths::new(dir)
    }
}

impl Paths {
    /// Of the registry in `dir`, whose log is there too.
    pub fn new(dir: &Path) -> Paths {
        Paths {
            dir: dir.to_owned(),
            bucket: None,
        }
    }

    /// The same, with the log in a bucket if one is given.
    pub fn with_storage(self, bucket: Option<Bucket>) -> Paths {
        Paths { bucket, ..self }
    }

    /// The registry's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The log, for reading.
    pub fn log_storage(&self) -> Result<Arc<dyn Storage>, LogError> {
        Ok(match &self.bucket {
            None => Arc::new(Local::reader(&self.log())),
            Some(bucket) => Arc::new(open(bucket)?),
        })
    }

    /// Whether a log has been begun here.
    pub fn has_log(&self) -> Result<bool, LogError> {
        if self.bucket.is_none() {
            return Ok(self.log().exists());
        }
        match LogReader::first_envelope(&self.log_storage()?) {
            Ok(_) => Ok(true),
            Err(LogError::Empty { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The log, for its one writer: what it shows is remembered beside its key.
    pub fn open_log(&self, disk: Disk, origin: &str) -> Result<Log, LogError> {
        let mut log = match &self.bucket {
            None => Log::open(&self.log(), disk.clone(), origin)?,
            Some(bucket) => {
                let objects = open(bucket)?;
                objects.probe().map_err(|error| failed(bucket, error))?;
                Log::open_in(Arc::new(objects), origin)?
            }
        };
        log.remember(&self.shown(), disk)?;
        Ok(log)
    }

    /// The configuration.
    pub fn settings(&self) -> PathBuf {
        self.dir.join("registry.toml")
    }

    /// The root keys.
    pub fn root_keys(&self) -> PathBuf {
        self.dir.join("root-keys")
    }

    /// The registry's own keys.
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The key that signs checkpoints.
    pub fn log_key(&self) -> PathBuf {
        self.keys().join("log.pem")
    }

    /// The key that dates them.
    pub fn cosigner_key(&self) -> PathBuf {
        self.keys().join("cosigner.pem")
    }

    /// What readers of the log were shown.
    pub fn shown(&self) -> PathBuf {
        self.keys().join("shown")
    }

    /// The log: a directory, or for people the URL of a bucket.
    pub fn log(&self) -> PathBuf {
        match &self.bucket {
            None => self.dir.join("log"),
            Some(bucket) => bucket.url.to_string().into(),
        }
    }

    /// The index.
    pub fn index(&self) -> PathBuf {
        self.dir.join("index")
    }
}

fn open(bucket: &Bucket) -> Result<Objects, LogError> {
    Objects::new(bucket, Patience::default()).map_err(|error| failed(bucket, error))
}

fn failed(bucket: &Bucket, source: io::Error) -> LogError {
    let path = bucket.url.to_string().into();
    LogError::Io { path, source }
}
