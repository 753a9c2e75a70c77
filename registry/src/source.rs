//! Where a replica reads a log from: any HTTP server with the layout of C2SP tlog-tiles.

use std::error::Error;
use std::time::Duration;

use futures::StreamExt as _;
use jingwei_proto::tile::{TileKind, TilePath};
use reqwest::{Client, StatusCode, Url};

/// The largest checkpoint note accepted, in bytes.
const MAX_NOTE: usize = 64 * 1024;
/// The largest bundle accepted: 256 envelopes of 256 KiB and their lengths.
pub const MAX_BUNDLE: usize = 256 * (256 * 1024 + 4);
/// The largest tile, or bundle of log entries.
const MAX_TILE: usize = 4 * 1024 * 1024;
/// No single read takes longer, besides the wait that was asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log's address.
#[derive(Debug, Clone)]
pub struct Source {
    base: Url,
    client: Client,
}

/// A read from a log's address failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text is not an address of a registry.
    #[error("‘{0}’ is not a registry's address; it looks like http://HOST:PORT")]
    Address(String),
    /// The server cannot be reached, or broke off.
    #[error("the registry at {base} cannot be read: {reason}")]
    Unreachable {
        /// The registry's address.
        base: String,
        /// What happened.
        reason: String,
    },
    /// Something else than an HTTP server listens there.
    #[error("what answers at {base} is no registry: it does not speak HTTP")]
    NotHttp {
        /// The address.
        base: String,
    },
    /// The server answers, but not with the file.
    #[error("the registry at {base} answered {status} for {path}")]
    Answer {
        /// The registry's address.
        base: String,
        /// The file.
        path: String,
        /// HTTP's status.
        status: StatusCode,
    },
    /// The file is larger than any valid one.
    #[error("the registry at {base} sent more than {most} bytes for {path}")]
    TooLarge {
        /// The registry's address.
        base: String,
        /// The file.
        path: String,
        /// The limit, in bytes.
        most: usize,
    },
}

impl SourceError {
    /// What its user can do next.
    pub fn advice(&self) -> &'static str {
        match self {
            SourceError::Answer { path, status, .. }
                if *status == StatusCode::SERVICE_UNAVAILABLE && path.starts_with("checkpoint") =>
            {
                "it runs, and its log waits for the first quorum of witnesses: start them; ‘witnesses’ in registry.toml says where they are, and the registry's own log which of them do not answer"
            }
            _ => {
                "see that the registry runs (‘jingwei-registry serve’) and that this is its address"
            }
        }
    }
}

impl Source {
    /// The log at `address`, such as `http://registry.example:7000`.
    pub fn new(address: &str) -> Result<Source, SourceError> {
        let bad = || SourceError::Address(address.to_owned());
        let mut base = Url::parse(address).map_err(|_| bad())?;
        if base.scheme() != "http" || base.host_str().is_none() || base.query().is_some() {
            return Err(bad());
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("jingwei/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SourceError::Unreachable {
                base: address.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Source { base, client })
    }

    /// `host:port`, where statements are submitted over TLS.
    pub fn submit_address(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        format!("{host}:{}", self.base.port_or_known_default().unwrap_or(80))
    }

    /// The newest checkpoint. Waits up to `wait` for one with more than `after` entries, if the
    /// server can wait.
    pub async fn checkpoint(&self, after: u64, wait: Duration) -> Result<String, SourceError> {
        let path = format!("checkpoint?after={after}&wait={}", wait.as_secs());
        let bytes = self.read(&path, MAX_NOTE, PATIENCE + wait).await?;
        String::from_utf8(bytes).map_err(|_| self.unreachable("the checkpoint is not text"))
    }

    /// A tile or bundle, and how many items it holds: where a partial one has been completed
    /// meanwhile and is gone, the full one comes instead.
    pub async fn tile(&self, path: &TilePath) -> Result<(Vec<u8>, u16), SourceError> {
        self.tile_within(path, MAX_BUNDLE).await
    }

    /// As [`Source::tile`], but of no more than `most` bytes.
    pub async fn tile_within(
        &self,
        path: &TilePath,
        most: usize,
    ) -> Result<(Vec<u8>, u16), SourceError> {
        let most = match path.kind {
            TileKind::Envelopes => most,
            _ => most.min(MAX_TILE),
        };
        match self.read(&path.to_string(), most, PATIENCE).await {
            Err(SourceError::Answer {
                status: StatusCode::NOT_FOUND,
                ..
            }) if !path.is_full() => {
                let full = path.full();
                Ok((
                    self.read(&full.to_string(), most, PATIENCE).await?,
                    full.width,
                ))
            }
            result => Ok((result?, path.width)),
        }
    }

    async fn read(
        &self,
        path: &str,
        most: usize,
        patience: Duration,
    ) -> Result<Vec<u8>, SourceError> {
        let url = self
            .base
            .join(path)
            .map_err(|_| SourceError::Address(path.to_owned()))?;
        let read = async {
            let response = self
                .client
                .get(url)
                .send()
                .await
                .map_err(|error| self.not_sent(&error))?;
            if response.status() != StatusCode::OK {
                return Err(SourceError::Answer {
                    base: self.base.to_string(),
                    path: path.to_owned(),
                    status: response.status(),
                });
            }
            let mut bytes = Vec::new();
            let mut chunks = response.bytes_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|error| self.unreachable(&root_cause(&error)))?;
                if bytes.len() + chunk.len() > most {
                    return Err(SourceError::TooLarge {
                        base: self.base.to_string(),
                        path: path.to_owned(),
                        most,
                    });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        match tokio::time::timeout(patience, read).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(&format!("no answer within {patience:?}"))),
        }
    }

    fn not_sent(&self, error: &reqwest::Error) -> SourceError {
        let mut causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |cause| {
            (*cause).source()
        });
        let parse = |cause: &(dyn Error + 'static)| {
            let http = cause.downcast_ref::<hyper::Error>();
            http.is_some_and(hyper::Error::is_parse)
        };
        if causes.any(parse) {
            return SourceError::NotHttp {
                base: self.to_string(),
            };
        }
        self.unreachable(&root_cause(error))
    }

    fn unreachable(&self, reason: &str) -> SourceError {
        SourceError::Unreachable {
            base: self.base.to_string(),
            reason: reason.to_owned(),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

/// The innermost reason: ‘connection refused’ rather than ‘error sending request’.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
