//! From a committed checkpoint to a published one: all witnesses are asked at once, and what a
//! quorum has signed is published.
//!
//! ```text
//! commit 1 ─► round: w1 w2 w3 asked ─► w1, w3 have signed: quorum ─► publish 1
//! commit 2, 3, 4 …  meanwhile                                        └► round over 4 …
//! ```
//!
//! A *round* is about one checkpoint and lasts until a quorum has signed that one, so that the
//! cosignatures of a quorum always meet. The next round is about the newest commit by then: while
//! the witnesses are slow the batches of a round grow, and the log goes on. A witness that is
//! slower than the quorum passes over the rounds that it has missed.
//!
//! As long as a round has no quorum nothing new is admitted ([`Gate`]), so that what waits for
//! publication stays bounded. The first round after a start is about what is committed already:
//! before the log signs anything, a quorum has confirmed that it is not an old copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::note::{Note, NoteKey, NoteSignature};
use jingwei_proto::state::RootRecord;
use jingwei_proto::time::Time;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::client::{AskError, Remote, Target, WitnessAddress};
use crate::log::LogReader;

/// A round without a quorum after this time closes the gate.
const LATE: Duration = Duration::from_secs(2);
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between two attempts to publish, and between two accounts of who is missing.
const TICK: Duration = Duration::from_secs(1);
/// A quiet log is dated anew so often, since readers go by the age of the cosignatures.
const REFRESH: Duration = Duration::from_secs(300);
/// Answers that may wait to be looked at.
const ANSWERS: usize = 64;

/// Whether the log may take in more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// What is committed is not confirmed by a quorum yet.
    Starting,
    /// Commits are being published.
    Open,
    /// The quorum does not hold, and why.
    Waiting(String),
    /// A witness has shown that this log must not sign any more, and how.
    Halted(String),
}

/// A committed checkpoint.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The note with the log's signature, and with the cosigner's where no witness has to date it.
    pub note: String,
    /// The root by which readers verify it: the one in force with its newest entries.
    pub root: Arc<RootRecord>,
    /// Whether readers are shown it already: then no round is about it until it has to be dated
    /// anew.
    pub published: bool,
}

/// What the rounds do for the readers of the log.
pub trait Readers: Send {
    /// Shows them a committed checkpoint.
    fn publish(&self, checkpoint: &Checkpoint, note: &str) -> Result<(), String>;

    /// Signs and dates a checkpoint that no witness has to date; `None` once there is a larger
    /// one, which must not be dated before it.
    fn seal(&self, checkpoint: &Checkpoint) -> Result<Option<String>, String>;
}

/// What the rounds need of the log.
pub struct Publisher {
    /// Its readers.
    pub readers: Box<dyn Readers>,
    /// What is committed, for the proofs.
    pub log: LogReader,
    /// Where the witnesses are.
    pub addresses: Vec<WitnessAddress>,
}

/// The way to the thread that asks the witnesses.
pub struct Rounds {
    commits: Option<watch::Sender<Option<Arc<Committed>>>>,
    gate: watch::Receiver<Gate>,
    thread: Option<JoinHandle<()>>,
}

impl Rounds {
    /// Starts the thread; nothing is asked before the first commit is handed over. The gate is
    /// `open` from the beginning only where no witness has to confirm what is committed.
    pub fn start(publisher: Publisher, open: bool) -> std::io::Result<Rounds> {
        let (commits, committed) = watch::channel(None);
        let first = if open { Gate::Open } else { Gate::Starting };
        let (gate, state) = watch::channel(first);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut work = Work {
            publisher,
            committed,
            gate,
            target: watch::Sender::new(None),
            hired: BTreeMap::new(),
            done: None,
        };
        let thread = std::thread::Builder::new()
            .name("witnesses".into())
            .spawn(move || runtime.block_on(work.run()))?;
        Ok(Rounds {
            commits: Some(commits),
            gate: state,
            thread: Some(thread),
        })
    }

    /// Hands over the newest commit.
    pub fn committed(&self, commit: Committed) {
        if let Some(commits) = &self.commits {
            commits.send_replace(Some(Arc::new(commit)));
        }
    }

    /// Whether the log may take in more.
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.clone()
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        drop(self.commits.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a witness's task tells.
enum Answer {
    Signed {
        witness: String,
        size: u64,
        line: NoteSignature,
    },
    Failed {
        witness: String,
        error: AskError,
    },
}

/// A witness at work: its task ends with this.
struct Hired {
    key: NoteKey,
    log_key: NoteKey,
    _task: AbortOnDropHandle<()>,
}

struct Work {
    publisher: Publisher,
    committed: watch::Receiver<Option<Arc<Committed>>>,
    gate: watch::Sender<Gate>,
    target: watch::Sender<Option<Arc<Target>>>,
    hired: BTreeMap<String, Hired>,
    /// The size that the last round was about.
    done: Option<u64>,
}

impl Work {
    /// Round after round, until the log is closed, or until a witness has halted it.
    async fn run(&mut self) {
        let (sender, mut answers) = mpsc::channel(ANSWERS);
        let closed = closed(self.committed.clone());
        let ended = tokio::select! {
            ended = self.rounds(&sender, &mut answers) => ended,
            () = closed => return,
        };
        if let Err(reason) = ended {
            tracing::error!(%reason, "nothing more is signed");
            self.gate.send_replace(Gate::Halted(reason));
        }
    }

    async fn rounds(
        &mut self,
        sender: &mpsc::Sender<Answer>,
        answers: &mut mpsc::Receiver<Answer>,
    ) -> Result<(), String> {
        while let Some(commit) = self.next(answers).await? {
            if let Err(reason) = self.hire(&commit.root, sender) {
                tracing::error!(%reason, "a witness cannot be asked");
            }
            if self.round(&commit, answers).await? {
                self.done = Some(commit.checkpoint.size);
                self.open();
            }
        }
        Ok(())
    }

    fn newest(&self) -> Option<Arc<Committed>> {
        self.committed.borrow().clone()
    }

    /// The newest commit, when there is one that no round was about, or when the last one is to
    /// be dated anew; `None` when the log is closed. Who answers late is listened to meanwhile.
    async fn next(
        &mut self,
        answers: &mut mpsc::Receiver<Answer>,
    ) -> Result<Option<Arc<Committed>>, String> {
        let mut stale = Instant::now() + REFRESH;
        loop {
            if let Some(commit) = self.newest().filter(|commit| !commit.published)
                && self.done.is_none_or(|done| done < commit.checkpoint.size)
            {
                return Ok(Some(commit));
            }
            tokio::select! {
                changed = self.committed.changed() => match changed {
                    Ok(()) => stale = Instant::now() + REFRESH,
                    Err(_) => return Ok(None),
                },
                () = sleep_until(stale) => match self.newest() {
                    Some(commit) => return Ok(Some(commit)),
                    None => stale = Instant::now() + REFRESH,
                },
                Some(answer) = answers.recv() => halts(&answer)?,
            }
        }
    }

    fn open(&self) {
        let reopened = self.gate.send_replace(Gate::Open);
        if let Gate::Waiting(_) = reopened {
            tracing::info!("a quorum of witnesses signs again");
        }
    }

    /// Collects cosignatures over one commit until readers will accept it, and publishes it; false
    /// if a new root was committed meanwhile, which may name other witnesses. The first time after
    /// a start all witnesses may speak: each may know that this is an old copy.
    async fn round(
        &mut self,
        commit: &Committed,
        answers: &mut mpsc::Receiver<Answer>,
    ) -> Result<bool, String> {
        let mut note = self.begin(commit)?;
        let keys = CheckpointKeys::of_root(&commit.root);
        let late = Instant::now() + LATE;
        let mut problems: BTreeMap<String, String> = BTreeMap::new();
        let mut heard: BTreeSet<String> = BTreeSet::new();
        loop {
            let text = note.to_string();
            let unheard = *self.gate.borrow() == Gate::Starting && heard.len() < self.hired.len();
            let missing = match keys.verify(&text) {
                Ok(_) if unheard && Instant::now() < late => String::new(),
                Ok(_) => match self.publisher.readers.publish(&commit.checkpoint, &text) {
                    Ok(()) => return Ok(true),
                    Err(error) => format!("it has signed, but the disk refuses: {error}"),
                },
                Err(error) => error.to_string(),
            };
            let tick = late.max(Instant::now() + TICK);
            let waited = tokio::select! {
                answer = answers.recv() => answer,
                () = sleep_until(if unheard { late } else { tick }) => None,
                Ok(()) = self.committed.changed() => None,
            };
            if self
                .newest()
                .is_some_and(|newest| newest.root.chain != commit.root.chain)
            {
                return Ok(false);
            }
            match waited {
                Some(Answer::Signed {
                    witness,
                    size,
                    line,
                }) => {
                    problems.remove(&witness);
                    if size == commit.checkpoint.size && !note.signatures.contains(&line) {
                        note.signatures.push(line);
                        heard.insert(witness);
                    }
                }
                Some(answer @ Answer::Failed { .. }) => {
                    halts(&answer)?;
                    heard.extend(note_failure(answer, &mut problems));
                }
                None => {}
            }
            if !missing.is_empty() && Instant::now() >= late {
                self.wait(missing, &problems, &commit.root);
            }
        }
    }

    /// The note as it stands before any witness has signed, which they are asked to sign now.
    fn begin(&mut self, commit: &Committed) -> Result<Note, String> {
        let malformed = |error: &dyn std::fmt::Display| format!("the log's own note: {error}");
        if commit.root.quorum == 0 {
            let sealed = self.publisher.readers.seal(&commit.checkpoint)?;
            let note = sealed.as_ref().unwrap_or(&commit.note);
            return Note::parse(note.as_bytes()).map_err(|error| malformed(&error));
        }
        let note = Note::parse(commit.note.as_bytes()).map_err(|error| malformed(&error))?;
        self.target.send_replace(Some(Arc::new(Target {
            checkpoint: commit.checkpoint.clone(),
            note: note.clone(),
        })));
        Ok(note)
    }

    /// Closes the gate, and says whose signature is missing.
    fn wait(&self, missing: String, problems: &BTreeMap<String, String>, root: &RootRecord) {
        let mut reason = missing;
        for (witness, problem) in problems {
            reason += &format!("; {witness}: {problem}");
        }
        for witness in &root.witnesses {
            if !self.hired.contains_key(&witness.name) {
                reason += &format!("; {}: its address is not set", witness.name);
            }
        }
        let before = self.gate.send_replace(Gate::Waiting(reason.clone()));
        if !matches!(before, Gate::Waiting(_)) {
            tracing::error!(%reason, "no quorum of witnesses");
        }
    }

    /// Starts a task for each witness of the root, and ends those of witnesses that are none.
    fn hire(&mut self, root: &RootRecord, answers: &mpsc::Sender<Answer>) -> Result<(), String> {
        let keys = CheckpointKeys::of_root(root);
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let due = keys.witness_keys().map_err(|error| failed(&error))?;
        let log_key = keys.log_key().map_err(|error| failed(&error))?;
        self.hired
            .retain(|_, hired| due.contains(&hired.key) && hired.log_key == log_key);
        for key in due {
            let address = self
                .publisher
                .addresses
                .iter()
                .find(|address| address.name == key.name());
            let (Some(address), false) = (address, self.hired.contains_key(key.name())) else {
                continue;
            };
            let remote = Remote::new(key.clone(), log_key.clone(), address.url.clone())
                .map_err(|error| failed(&error))?;
            let asking = asking(
                key.name().to_owned(),
                remote,
                self.publisher.log.clone(),
                self.target.subscribe(),
                answers.clone(),
            );
            let task = AbortOnDropHandle::new(tokio::spawn(asking));
            let name = key.name().to_owned();
            let log_key = log_key.clone();
            self.hired.insert(
                name,
                Hired {
                    key,
                    log_key,
                    _task: task,
                },
            );
        }
        Ok(())
    }
}

/// An error if a witness has shown that the log must not go on.
fn halts(answer: &Answer) -> Result<(), String> {
    match answer {
        Answer::Failed {
            witness,
            error: error @ AskError::OtherHistory { .. },
        } => Err(format!("the witness {witness} refuses: {error}")),
        _ => Ok(()),
    }
}

/// Keeps what a witness's problem is, says so if it is a new one, and returns who it was.
fn note_failure(answer: Answer, problems: &mut BTreeMap<String, String>) -> Option<String> {
    let Answer::Failed { witness, error } = answer else {
        return None;
    };
    let error = error.to_string();
    let known = problems.insert(witness.clone(), error.clone());
    if known.as_ref() != Some(&error) {
        tracing::warn!(%witness, %error, "a witness has not co-signed");
    }
    Some(witness)
}

/// Ends when nobody commits any more.
async fn closed(mut committed: watch::Receiver<Option<Arc<Committed>>>) {
    while committed.changed().await.is_ok() {}
}

/// Asks one witness about every target, or about the newest where it is slower than they come.
async fn asking(
    witness: String,
    mut remote: Remote,
    log: LogReader,
    mut targets: watch::Receiver<Option<Arc<Target>>>,
    answers: mpsc::Sender<Answer>,
) {
    let mut pause = PAUSES.0;
    loop {
        let target = targets.borrow_and_update().clone();
        let failed = match &target {
            None => false,
            Some(target) => {
                let asked = remote.ask(target, &log).await;
                let failed = asked.is_err();
                let answer = answer(&witness, target, asked);
                if answers.send(answer).await.is_err() {
                    return;
                }
                failed
            }
        };
        if failed {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            continue;
        }
        pause = PAUSES.0;
        if targets.changed().await.is_err() {
            return;
        }
    }
}

fn answer(
    witness: &str,
    target: &Target,
    asked: Result<(NoteSignature, Time), AskError>,
) -> Answer {
    let name = witness.to_owned();
    match asked {
        Ok((line, time)) => {
            let size = target.checkpoint.size;
            let gauge = |what: &'static str| metrics::gauge!(what, "witness" => name.clone());
            gauge("jingwei_registry_cosigned_entries").set(size as f64);
            gauge("jingwei_registry_cosigned_time_seconds").set(time.seconds() as f64);
            Answer::Signed {
                witness: name,
                size,
                line,
            }
        }
        Err(error) => {
            metrics::counter!("jingwei_registry_cosign_failures_total", "witness" => name.clone())
                .increment(1);
            Answer::Failed {
                witness: name,
                error,
            }
        }
    }
}
