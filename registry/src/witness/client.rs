//! The log's side: asking one witness to co-sign, over a connection that stays open.
//!
//! The log keeps no account of what each witness has signed. It begins from the size that it
//! heard of last, and a witness that remembers another answers with it (409); the next request
//! carries the proof from there, however far behind the witness was.
//!
//! A witness may also remember what this log does not hold: then the log is an old copy, or there
//! are two of it. That is believed only where the witness shows a checkpoint that this log's own
//! key has signed, so that a witness cannot stop a log by a lie.

use std::time::Duration;

use futures::StreamExt as _;
use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::note::{Note, NoteError, NoteKey, NoteSignature};
use jingwei_proto::time::Time;
use jingwei_proto::witness::{AddCheckpoint, read_cosignature, read_size};
use reqwest::{Client, StatusCode, Url};

use crate::log::{LogError, LogReader};
use crate::setting::Setting;
use jingwei_proto::words::entries;

/// For one request and its answer; in two fsyncs and a round trip around the earth it is done.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Servers commonly end a quiet connection after 30 s or more.
const IDLE: Duration = Duration::from_secs(20);
/// The largest answer accepted, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Requests for one cosignature: one to hear of the witness's size, one from there, and two more
/// for a witness that others ask too.
const TRIES: usize = 4;

/// Where a witness is reached, written `NAME URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessAddress {
    /// Its name, as the root document has it.
    pub name: String,
    /// Its submission prefix.
    pub url: Url,
}

impl Setting for WitnessAddress {
    const EXPECTED: &'static str =
        "a witness's name and address like ‘w1.example http://w1.example:7200’";

    fn parse(text: &str) -> Option<WitnessAddress> {
        let (name, url) = text.split_once(' ')?;
        Some(WitnessAddress {
            name: name.to_owned(),
            url: parse_url(url.trim())?,
        })
    }
}

/// A submission prefix, such as `http://w1.example:7200`.
pub fn parse_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    let ok = url.scheme() == "http" && url.host_str().is_some() && url.query().is_none();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    ok.then_some(url)
}

/// Why a witness has not co-signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached, or broke off.
    #[error("{0}")]
    Unreachable(String),
    /// It answered, but not with a cosignature.
    #[error("it answered {status}: {words}")]
    Answer {
        /// HTTP's status.
        status: u16,
        /// The beginning of what it said.
        words: String,
    },
    /// Its cosignature does not verify.
    #[error("its cosignature does not count: {0}")]
    Signature(#[from] NoteError),
    /// It says, without proof, that it has co-signed a larger log.
    #[error(
        "it says that it has co-signed {} of this log, and the log here has {held}",
        entries(.seen)
    )]
    Ahead {
        /// The size it says.
        seen: u64,
        /// The size committed here.
        held: u64,
    },
    /// It shows a checkpoint signed by this log's key that is not in this log's history.
    #[error(
        "it shows a checkpoint of {} that this log's key has signed and that is not of the log of {} here: this is an old copy of the log, or another one is running",
        entries(.seen),
        entries(.held)
    )]
    OtherHistory {
        /// The size of the checkpoint it shows.
        seen: u64,
        /// The size committed here.
        held: u64,
    },
    /// The log could not be read for the proof.
    #[error("the proof cannot be made: {0}")]
    Proof(String),
}

/// A checkpoint that is to be co-signed: durable, and signed by the log.
#[derive(Debug, Clone)]
pub struct Target {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The same as a note with the log's signature.
    pub note: Note,
}

/// A witness as the log sees it.
pub struct Remote {
    key: NoteKey,
    log_key: NoteKey,
    url: Url,
    client: Client,
    /// What it has co-signed, as far as is known.
    known: u64,
}

impl Remote {
    /// The witness with this key at this address, for the log with that key.
    pub fn new(key: NoteKey, log_key: NoteKey, url: Url) -> Result<Remote, AskError> {
        let client = Client::builder()
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("jingwei/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| unreachable(&error))?;
        Ok(Remote {
            key,
            log_key,
            url,
            client,
            known: 0,
        })
    }

    /// Asks for a cosignature over `target`, whose entries `log` holds.
    pub async fn ask(
        &mut self,
        target: &Target,
        log: &LogReader,
    ) -> Result<(NoteSignature, Time), AskError> {
        let size = target.checkpoint.size;
        let mut last = None;
        for _ in 0..TRIES {
            let request = AddCheckpoint {
                old: self.known,
                proof: self.proof(size, log).await?,
                note: target.note.clone(),
            };
            let (status, words) = self.post(request.to_string()).await?;
            match (status, read_size(&words)) {
                (StatusCode::OK, _) => {
                    self.known = size;
                    return Ok(read_cosignature(&words, &target.note.text, &self.key)?);
                }
                (StatusCode::CONFLICT, Some(seen)) if seen <= size => self.known = seen,
                (StatusCode::CONFLICT, Some(seen)) => {
                    self.check_history(log).await?;
                    let held = log.size();
                    return Err(AskError::Ahead { seen, held });
                }
                // Older witnesses say 409, without a size, of two roots of one size.
                (StatusCode::UNPROCESSABLE_ENTITY, _) | (StatusCode::CONFLICT, None) => {
                    self.check_history(log).await?;
                    return Err(answered(status, &words));
                }
                _ => return Err(answered(status, &words)),
            }
            last = Some(answered(status, &words));
        }
        Err(last.unwrap_or_else(|| AskError::Unreachable("it was not asked".into())))
    }

    /// The proof from the size that the witness knows.
    async fn proof(&self, size: u64, log: &LogReader) -> Result<Vec<Digest>, AskError> {
        let (known, log) = (self.known, log.clone());
        if known == 0 {
            return Ok(Vec::new());
        }
        let made = tokio::task::spawn_blocking(move || log.consistency_proof(known, size)).await;
        match made {
            Ok(made) => made.map_err(|error: LogError| AskError::Proof(error.to_string())),
            Err(error) => Err(AskError::Proof(error.to_string())),
        }
    }

    /// Looks at the checkpoint that the witness remembers. Only one that this log's key has signed
    /// speaks against the log.
    async fn check_history(&self, log: &LogReader) -> Result<(), AskError> {
        let origin = Digest::of(self.log_key.name().as_bytes());
        let Ok(url) = self.url.join(&format!("{origin}/checkpoint")) else {
            return Ok(());
        };
        let answer = self.read(self.client.get(url)).await;
        let Ok((StatusCode::OK, note)) = answer else {
            return Ok(());
        };
        let Ok((shown, _)) = Checkpoint::open(note.as_bytes(), &self.log_key) else {
            return Ok(());
        };
        let (held, reader, seen) = (log.size(), log.clone(), shown.size);
        let same = seen <= held && {
            let root = tokio::task::spawn_blocking(move || reader.root_at(seen)).await;
            matches!(root, Ok(Ok(root)) if root == shown.root)
        };
        match same {
            true => Ok(()),
            false => Err(AskError::OtherHistory { seen, held }),
        }
    }

    async fn post(&self, body: String) -> Result<(StatusCode, String), AskError> {
        let url = self.url.join("add-checkpoint");
        let url = url.map_err(|error| AskError::Unreachable(error.to_string()))?;
        self.read(self.client.post(url).body(body)).await
    }

    async fn read(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, String), AskError> {
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| unreachable(&error))?);
            if bytes.len() > MAX_ANSWER {
                let reason = format!("its answer has more than {MAX_ANSWER} bytes");
                return Err(AskError::Unreachable(reason));
            }
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| AskError::Unreachable("its answer is not text".into()))?;
        Ok((status, text))
    }
}

fn answered(status: StatusCode, words: &str) -> AskError {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let words: String = words.trim().chars().take(200).map(plain).collect();
    AskError::Answer {
        status: status.as_u16(),
        words,
    }
}

/// The innermost reason: ‘connection refused’ rather than ‘error sending request’.
fn unreachable(error: &reqwest::Error) -> AskError {
    if error.is_timeout() {
        return AskError::Unreachable(format!("no answer within {PATIENCE:?}"));
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    AskError::Unreachable(cause.to_string())
}
