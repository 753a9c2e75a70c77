//! The asker's side of exchanges: what one user's question asks of others, and what it takes for
//! an answer.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::common::DataFusionError;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jingwei_proto::border::Query;
use jingwei_proto::id::{AgencyId, VersionId};
use jingwei_proto::statement::AnswerDigest;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::RequestId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as Deadline, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asking::Asking;
use crate::agency::HostedAgency;
use crate::node::Node;
use crate::query::error::QueryError;
use crate::query::limits::{Exceeded, Limits};
use crate::query::remote::Asker;

/// Batches that may wait for the plan above; the network waits with them.
const AHEAD: usize = 2;
/// How long a question waits for a provider to confirm an acknowledgement. It is durable here
/// already, and delivering it goes on without the question.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// An exchange ends a little before its question does, so that the user is told which agency was
/// waited for.
const BEFORE_THE_END: Duration = Duration::from_millis(250);

/// What one user's question needs while it runs: who asks, why, and what was exchanged so far.
#[derive(Debug)]
pub struct Question {
    /// The node that asks.
    pub node: Arc<Node>,
    /// The agency that asks.
    pub agency: Arc<HostedAgency>,
    /// What the answer is for.
    pub purpose: Option<String>,
    /// The rule that allows asking.
    pub legal_basis: Option<String>,
    /// Whether the answers are kept for evidence.
    pub keep: bool,
    /// What one provider may send, and the time for everything.
    pub limits: Limits,
    /// When its exchanges must be over.
    pub deadline: Deadline,
    /// The id under which all nodes log this question.
    pub request_id: RequestId,
    /// Cancelled when the user has gone: everything that still runs for the question stops.
    pub cancelled: CancellationToken,
    running: TaskTracker,
    done: Mutex<Vec<Exchanged>>,
    failed: Mutex<Option<QueryError>>,
}

/// An exchange that was completed: all its messages stand in the asker's journal.
#[derive(Debug)]
pub struct Exchanged {
    /// The version that answered.
    pub version: VersionId,
    /// What was asked.
    pub query: String,
    /// The envelopes of request, acceptance, receipt, acknowledgement.
    pub messages: [Bytes; 4],
    /// The manifest's place in the registry's log.
    pub index: u64,
    /// What came.
    pub answer: AnswerDigest,
    /// The answer's bytes, if they are kept.
    pub file: Option<TempFile>,
    /// From the request to the acknowledgement.
    pub elapsed: Duration,
    /// Whether the provider has confirmed that the acknowledgement is durable there.
    pub confirmed: bool,
}

/// A file in the staging directory that goes when it is dropped.
#[derive(Debug)]
pub struct TempFile(PathBuf);

impl TempFile {
    /// A new file in the node's staging directory.
    pub fn create(node: &Node) -> std::io::Result<(TempFile, File)> {
        let name = format!(
            "answer-{}",
            jingwei_proto::digest::to_hex(&rand::random::<[u8; 8]>())
        );
        let path = node.home.staging().join(name);
        let file = File::create_new(&path)?;
        Ok((TempFile(path), file))
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // What stays behind is removed at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Question {
    /// A question of a hosted agency, whose time begins now.
    pub fn new(
        node: &Arc<Node>,
        agency: &Arc<HostedAgency>,
        purpose: Option<String>,
        legal_basis: Option<String>,
        keep: bool,
        limits: Limits,
    ) -> Arc<Question> {
        let before = BEFORE_THE_END.min(limits.time / 10);
        Arc::new(Question {
            node: node.clone(),
            agency: agency.clone(),
            purpose,
            legal_basis,
            keep,
            deadline: limits.deadline() - before,
            limits,
            request_id: RequestId::current().unwrap_or_else(RequestId::random),
            cancelled: CancellationToken::new(),
            running: TaskTracker::new(),
            done: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    /// The completed exchanges, once those under way have ended, which they do by the deadline;
    /// they are handed out once.
    ///
    /// # Errors
    /// If one that was to be completed failed, even after the plan above had rows enough: rows
    /// that do not verify are not used.
    pub async fn take_exchanged(&self) -> Result<Vec<Exchanged>, QueryError> {
        self.running.close();
        self.running.wait().await;
        match locked(&self.failed).take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut *locked(&self.done))),
        }
    }

    /// Asks one border query. The batches end only when the receipt has been verified and the
    /// acknowledgement is durable here.
    pub fn ask(
        self: &Arc<Self>,
        query: Query,
        schema: SchemaRef,
    ) -> BoxStream<'static, Result<RecordBatch, QueryError>> {
        let question = self.clone();
        stream::once(async move {
            let (sender, receiver) = mpsc::channel(AHEAD);
            let id = question.request_id.clone();
            let running = question.running.clone();
            running.spawn(id.scope(question.answer(query, schema, sender)));
            ReceiverStream::new(receiver)
        })
        .flatten()
        .boxed()
    }

    /// Dropping the call tells the provider to stop: when the user has gone, or when the plan
    /// above has rows enough. In the second case an exchange is still brought to its receipt if
    /// evidence needs it, or if the provider had to send no more than was asked for.
    async fn answer(self: Arc<Self>, query: Query, schema: SchemaRef, sender: Rows) {
        let to_the_end = self.keep || query.limit.is_some();
        let provider = &query.from.dataset.agency;
        let exchange = async {
            Asking::begin(&self, &query)
                .await?
                .run(schema, &sender)
                .await
        };
        let result = tokio::select! {
            () = self.cancelled.cancelled() => return,
            () = sender.closed(), if !to_the_end => return,
            result = timeout_at(self.deadline, exchange) => result.unwrap_or_else(|_| Err(self.late())),
        };
        match result {
            Ok((exchanged, confirmed)) => {
                // The rows end here; what the provider confirms concerns the exchange alone.
                drop(sender);
                self.complete(provider, exchanged, confirmed).await;
            }
            Err(fault) => {
                let error = query_error(fault, provider);
                if to_the_end {
                    locked(&self.failed).get_or_insert_with(|| error.clone());
                }
                tokio::select! {
                    () = self.cancelled.cancelled() => {}
                    _ = sender.send(Err(error)) => {}
                }
            }
        }
    }

    async fn complete(
        &self,
        provider: &AgencyId,
        exchanged: Exchanged,
        confirmed: oneshot::Receiver<()>,
    ) {
        metrics::counter!("jingwei_exchanges_asked_total").increment(1);
        tracing::info!(provider = %provider, dataset = %exchanged.version, rows = exchanged.answer.rows, "answered");
        let patience = self.deadline.min(Deadline::now() + CONFIRMED_WITHIN);
        let confirmed = tokio::select! {
            () = self.cancelled.cancelled() => false,
            result = timeout_at(patience, confirmed) => matches!(result, Ok(Ok(()))),
        };
        locked(&self.done).push(Exchanged {
            confirmed,
            ..exchanged
        });
    }

    fn late(&self) -> Fault {
        let late = Exceeded::Time(self.limits.time);
        Fault::new(Blame::LimitExceeded, late.to_string())
    }
}

/// What is behind these locks is whole after every step, whoever panicked between two.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`Question`] as what a remote table asks through.
#[derive(Debug, Clone)]
pub struct ThroughExchange(pub Arc<Question>);

impl Asker for ThroughExchange {
    fn ask(
        &self,
        query: Query,
        schema: SchemaRef,
    ) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
        self.0.ask(query, schema).map(|batch| Ok(batch?)).boxed()
    }
}

/// Where an exchange hands its rows on.
pub(super) type Rows = mpsc::Sender<Result<RecordBatch, QueryError>>;

/// A failed exchange as the failure of the whole question.
fn query_error(fault: Fault, provider: &AgencyId) -> QueryError {
    let agency = provider.to_string();
    let reason = match &fault.advice {
        Some(advice) => format!("{}; {advice}", fault.message),
        None => fault.message.clone(),
    };
    match fault.blame {
        Blame::Refused | Blame::NeedsGrant | Blame::Unauthorised => {
            QueryError::Refused { agency, reason }
        }
        Blame::Forged | Blame::Unverified | Blame::Inconsistent => {
            QueryError::Unverified { agency, reason }
        }
        Blame::LimitExceeded => QueryError::Limit(format!("at {agency}: {reason}")),
        Blame::Malformed => QueryError::Uncomputable(format!("{agency}: {reason}")),
        _ => QueryError::Incomplete { agency, reason },
    }
}
