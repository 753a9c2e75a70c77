//! The way into the log: a statement is paid for and waits in a fair queue for the one writer,
//! and its submitter is answered when it is durable and covered by a published checkpoint.
//!
//! ```text
//! submit ─► who pays? ─► queue (bounded, in fair turns) ─► admit by `apply` ─► append to the log ─► answer
//!                                                                                               └► index
//! ```
//!
//! What waits in the queue when the writer comes back goes into the next batch, so that the cost
//! of a commit is shared by those that arrived during the one before. A batch of a tile's width or
//! more ends with a full tile; what is over goes into the one after.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::state::Rejection;
use jingwei_proto::statement::{Predicate, RegistryKeys, Root, Statement};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant as Deadline;

use crate::clock::Clock;
use crate::fault::{Blame, Fault};
use crate::index::{Behind, Index, IndexError};
use crate::log::{Log, LogError};
pub use crate::publishing::LogKeys;
use crate::publishing::{Coverage, PATIENCE, Publishing};
use crate::queue::{self, Full};
use crate::quota::{self, Payer, Quotas, Signer, SubmitLimits};
use crate::visitors::Network;
use crate::witness::client::WitnessAddress;
use crate::witness::rounds::Gate;

/// What a waiting statement takes in memory beside its payload.
const OVERHEAD: usize = 1_024;

/// What every root document contains.
const ROOT: &str = "urn:jingwei:root:v1";

mod committer;
mod writer;

use committer::Committer;
use writer::Writer;

/// Where a registry finds the keys that a new root names.
pub trait KeyRing: Send {
    /// The keys for `root`; the error says which are missing.
    fn keys_of(&self, root: &RegistryKeys) -> Result<LogKeys, String>;

    /// A root that names these keys is in force now.
    fn in_force(&self, root: &RegistryKeys);
}

/// A statement that is in the log.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its index.
    pub index: u64,
    /// A signed checkpoint that covers it.
    pub checkpoint: Arc<str>,
}

/// What goes into the log.
enum Work {
    Statement(Arc<Envelope>),
    /// A statement that the writer itself makes, of the state that it then stands at.
    Snapshot,
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Statement(envelope) => envelope.payload().len(),
            Work::Snapshot => 0,
        }
    }
}

/// What waits for the writer.
struct Waiting {
    answer: oneshot::Receiver<Result<Place, Fault>>,
    /// When its submitter is told that no quorum has signed.
    deadline: Deadline,
}

/// A statement that came in, and who has signed it, as far as the log knows.
struct Submitted {
    envelope: Arc<Envelope>,
    signer: Option<Signer>,
}

/// How far a submission has come.
enum Begun {
    /// It is in the log already, at this place.
    Entered { index: u64, deadline: Deadline },
    /// It is in the queue, and paid for.
    Waits {
        submitted: Box<Submitted>,
        waiting: Waiting,
        payer: Payer,
    },
}

impl Submitted {
    fn length(&self) -> u64 {
        self.envelope.payload().len() as u64
    }
}

type Reply = oneshot::Sender<Result<Place, Fault>>;

/// Where the writer has put a statement.
#[derive(Clone, Copy)]
struct Place {
    index: u64,
    /// It was there before.
    again: bool,
}

struct Submission {
    work: Work,
    reply: Reply,
}

/// The way to the writer: who pays is found out here, side by side, before anything waits.
#[derive(Clone)]
pub struct Sequencer {
    queue: queue::Sender<Payer, Submission>,
    quotas: Arc<Quotas>,
    index: Index,
    coverage: Coverage,
}

impl Sequencer {
    /// Starts the writer's thread, which ends when the last `Sequencer` is dropped. `ring` has
    /// the keys that a later root may name, and `witnesses` says where those are that it names.
    pub fn start(
        log: Log,
        index: Index,
        keys: LogKeys,
        ring: Box<dyn KeyRing>,
        clock: Clock,
        witnesses: Vec<WitnessAddress>,
    ) -> Result<(Sequencer, JoinHandle<()>), StartError> {
        let limits = SubmitLimits::default();
        let (queue, submissions) = queue::queue(limits.queue);
        let reading = index.clone();
        let root = index.root()?.ok_or(StartError::NoRoot)?;
        let (log, coverage) = Publishing::start(log, root, keys, clock.clone(), witnesses)?;
        let writer = Writer::new(Committer {
            log,
            behind: Behind::start(index.clone())?,
            index,
            ring,
            clock,
        })?;
        let thread = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || writer.run(submissions))?;
        let sequencer = Sequencer {
            queue,
            quotas: Arc::new(Quotas::new(&limits)),
            index: reading,
            coverage,
        };
        Ok((sequencer, thread))
    }

    /// Sets other limits than the defaults, for what comes from now on.
    pub fn limit(&self, limits: &SubmitLimits) {
        self.queue.limit(limits.queue);
        self.quotas.limit(limits);
    }

    /// Enters a statement of the registry's keepers and waits until it is durable.
    pub async fn submit(&self, envelope: Envelope) -> Result<Accepted, Fault> {
        let begun = self.begin(None, envelope, deadline()).await?;
        self.finish(begun).await
    }

    /// Enters a statement that came from `network` and waits until it is durable. Its signer pays, or
    /// whoever is there if that is nobody the log knows. What is in the log already costs no share of
    /// the day, if whoever asks waits for the answer.
    pub async fn submit_from(
        &self,
        network: Network,
        envelope: Envelope,
    ) -> Result<Accepted, Fault> {
        let begun = self.begin(Some(network), envelope, deadline()).await?;
        self.finish(begun).await
    }

    /// Enters statements that came together, each as [`Sequencer::submit_from`] does; of what could
    /// not be read it returns the fault, in its place.
    ///
    /// The checkpoint of the last one that was entered covers all of them.
    pub async fn submit_all_from(
        &self,
        network: Network,
        envelopes: Vec<Result<Envelope, Fault>>,
    ) -> Vec<Result<Accepted, Fault>> {
        let deadline = deadline();
        let readable = envelopes.iter().flatten();
        if let Err(error) = quota::verify_together(&self.index, readable) {
            let fault = unreadable(error);
            return envelopes
                .into_iter()
                .map(|envelope| Err(envelope.err().unwrap_or(fault.clone())))
                .collect();
        }
        // All of them are in the queue before the first is waited for.
        let mut begun = Vec::new();
        for envelope in envelopes {
            begun.push(match envelope {
                Ok(envelope) => self.begin(Some(network), envelope, deadline).await,
                Err(fault) => Err(fault),
            });
            // Others want a turn.
            tokio::task::consume_budget().await;
        }
        let mut accepted = Vec::with_capacity(begun.len());
        for begun in begun {
            accepted.push(match begun {
                Ok(begun) => self.finish(begun).await,
                Err(fault) => Err(fault),
            });
        }
        accepted
    }

    /// Enters a snapshot of the registry's own; returns its index.
    pub async fn snapshot(&self) -> Result<u64, Fault> {
        let waiting = self.queue(&Payer::Keepers, Work::Snapshot, deadline());
        let Waiting { answer, deadline } = waiting.await?;
        let Place { index, .. } = answer.await.unwrap_or_else(|_| Err(stopped()))?;
        Ok(self.covered(index, deadline).await?.index)
    }

    /// Puts a statement, which came from a network or else from the keepers, into the queue.
    ///
    /// Most are new. Whether one is in the log already is looked up where something is in its way;
    /// where nothing is, the writer finds out, because the rules reject it.
    async fn begin(
        &self,
        from: Option<Network>,
        envelope: Envelope,
        deadline: Deadline,
    ) -> Result<Begun, Fault> {
        let submitted = Box::new(Submitted {
            signer: quota::signer(&self.index, &envelope).map_err(unreadable)?,
            envelope: Arc::new(envelope),
        });
        if !self.coverage.is_open()
            && let Some(index) = self.entered(&submitted)?
        {
            return Ok(Begun::Entered { index, deadline });
        }
        let payer = match (from, &submitted.signer) {
            (None, _) => Payer::Keepers,
            (Some(_), Some(signer)) => Payer::Agency(signer.agency.clone()),
            (Some(network), None) => Payer::Stranger(network),
        };
        match self.pay(&payer, &submitted, deadline).await {
            Ok(waiting) => Ok(Begun::Waits {
                submitted,
                waiting,
                payer,
            }),
            Err(fault) => {
                let index = self.hindered(&submitted, fault)?;
                Ok(Begun::Entered { index, deadline })
            }
        }
    }

    /// Lets `payer` pay for a statement that then waits in the queue.
    async fn pay(
        &self,
        payer: &Payer,
        submitted: &Submitted,
        deadline: Deadline,
    ) -> Result<Waiting, Fault> {
        let length = submitted.length();
        self.quotas.charge(payer, length, Instant::now())?;
        let work = Work::Statement(submitted.envelope.clone());
        let queued = self.queue(payer, work, deadline).await;
        if queued.is_err() {
            self.quotas.give_back(payer, length);
        }
        queued
    }

    async fn finish(&self, begun: Begun) -> Result<Accepted, Fault> {
        let (submitted, Waiting { answer, deadline }, payer) = match begun {
            Begun::Entered { index, deadline } => return self.covered(index, deadline).await,
            Begun::Waits {
                submitted,
                waiting,
                payer,
            } => (submitted, waiting, payer),
        };
        let placed = answer.await.unwrap_or_else(|_| Err(stopped()));
        if !matches!(placed, Ok(Place { again: false, .. })) {
            self.quotas.give_back(&payer, submitted.length());
        }
        let index = match placed {
            Ok(Place { index, .. }) => index,
            Err(fault) => self.hindered(&submitted, fault)?,
        };
        self.covered(index, deadline).await
    }

    /// Whether a statement that something is in the way of is in the log already: then that is its
    /// place, and nothing stands in its way.
    fn hindered(&self, submitted: &Submitted, fault: Fault) -> Result<u64, Fault> {
        self.entered(submitted)?.ok_or(fault)
    }

    /// Puts work into the queue, when the log takes any.
    async fn queue(&self, payer: &Payer, work: Work, deadline: Deadline) -> Result<Waiting, Fault> {
        // A new root may be what brings the quorum back.
        let root = match &work {
            Work::Statement(envelope) => root_in(envelope).is_some(),
            Work::Snapshot => false,
        };
        if !root {
            self.coverage.open(deadline).await?;
        }
        let (reply, answer) = oneshot::channel();
        self.queue
            .push(payer, work.bytes() + OVERHEAD, Submission { work, reply })
            .map_err(|full| match full {
                Full::For(pause) => {
                    metrics::counter!("jingwei_registry_overloaded_total", "reason" => "queue")
                        .increment(1);
                    Fault::new(
                        Blame::Overloaded,
                        "too many statements wait at the registry",
                    )
                    .retry_after(pause)
                }
                Full::Closed => stopped(),
            })?;
        Ok(Waiting { answer, deadline })
    }

    /// What was entered at `index`, once a published checkpoint covers it.
    async fn covered(&self, index: u64, deadline: Deadline) -> Result<Accepted, Fault> {
        let checkpoint = self.coverage.covered(index, deadline).await?;
        Ok(Accepted { index, checkpoint })
    }

    /// The place of a statement that is in the log already.
    fn entered(&self, submitted: &Submitted) -> Result<Option<u64>, Fault> {
        let Some(Signer { key, .. }) = &submitted.signer else {
            return Ok(None);
        };
        let place = self.index.place(&submitted.envelope, key);
        place.map_err(unreadable)
    }

    /// The published size of the log, and its changes.
    pub fn size(&self) -> watch::Receiver<u64> {
        self.coverage.size()
    }

    /// Whether the log takes in statements, and the changes of that.
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.coverage.gate()
    }
}

fn deadline() -> Deadline {
    Deadline::now() + PATIENCE
}

/// The sequencer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log holds no root document.
    #[error("the log holds no root document")]
    NoRoot,
    /// The log cannot be published.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The thread cannot be started.
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

fn unreadable(error: impl std::fmt::Display) -> Fault {
    tracing::error!(%error, "the log or its index cannot be read");
    Fault::new(Blame::Unavailable, "the registry cannot read its index")
}

pub(crate) fn too_old(rules: u64) -> Fault {
    Fault::new(
        Blame::Unavailable,
        format!(
            "the root asks for rules {rules}, and this registry knows rules up to {}",
            jingwei_proto::state::RULES
        ),
    )
    .advise("its engineer installs a newer jingwei-registry; until then it enters nothing")
}

fn stopped() -> Fault {
    Fault::new(Blame::Unavailable, "the registry is stopping")
        .advise("submit again when it is back; the same statement is never entered twice")
}

/// Whether an envelope may hold a root document, at first sight.
pub(crate) fn may_be_root(envelope: &Envelope) -> bool {
    std::str::from_utf8(envelope.payload()).is_ok_and(|text| text.contains(ROOT))
}

/// The root document that an envelope holds, if it holds one.
fn root_in(envelope: &Envelope) -> Option<Root> {
    // Roots are rare, and to parse each statement twice would not be cheap.
    if !may_be_root(envelope) {
        return None;
    }
    match Statement::parse(envelope.payload()).ok()?.predicate {
        Predicate::Root(root) => Some(root),
        _ => None,
    }
}

/// A rejection by the rules, as it crosses the wire.
pub fn from_rejection(rejection: Rejection) -> Fault {
    use jingwei_proto::state::Blame as Rule;
    let (blame, advice) = match rejection.blame {
        Rule::Malformed => (
            Blame::Malformed,
            "the statement itself is wrong; make it anew",
        ),
        Rule::Forged => (
            Blame::Forged,
            "the bytes were changed after signing, or signed with another key",
        ),
        Rule::Unauthorised => (
            Blame::Unauthorised,
            "ask whoever is above the agency, its superior or, for a national one, the keepers of the root keys; or sign with the right key",
        ),
        Rule::Inconsistent => (
            Blame::Inconsistent,
            "it contradicts what the registry holds already",
        ),
        Rule::Stale => (
            Blame::Stale,
            "follow the registry and make the statement anew",
        ),
    };
    Fault::new(blame, rejection.reason).advise(advice)
}
