//! The asker's side of an exchange.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, Ticket};
use datafusion::common::DataFusionError;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jingwei_proto::border::Query;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, VersionId};
use jingwei_proto::statement::{Acceptance, AnswerDigest, Outcome};
use jingwei_registry::connect::Link;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::RequestId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use super::ACKNOWLEDGE;
use super::messages::{self, Message};
use crate::agency::HostedAgency;
use crate::journals::Kind;
use crate::node::Node;
use crate::query::answer::AnswerWriter;
use crate::query::error::QueryError;
use crate::query::frames::{Decoder, Frame};
use crate::query::remote::Asker;

/// A frame is about a mebibyte, unless a single row has more; no row has more than this.
const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Batches that may wait for the plan above; the network waits with them.
const AHEAD: usize = 2;
/// The longest silence between two frames. A provider's own limit ends a query sooner.
const SILENCE: Duration = Duration::from_secs(90);

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
    /// The id under which all nodes log this question.
    pub request_id: RequestId,
    /// Cancelled when the user has gone: everything that still runs for the question stops.
    pub cancelled: CancellationToken,
    running: TaskTracker,
    done: Mutex<Vec<Exchanged>>,
}

/// An exchange that was completed.
#[derive(Debug)]
pub struct Exchanged {
    /// The version that answered.
    pub version: VersionId,
    /// What was asked.
    pub query: String,
    /// Request, acceptance, receipt, acknowledgement.
    pub messages: [Envelope; 4],
    /// The manifest's place in the registry's log.
    pub index: u64,
    /// What came.
    pub answer: AnswerDigest,
    /// The answer's bytes, if they are kept.
    pub file: Option<TempFile>,
    /// From the request to the receipt.
    pub elapsed: Duration,
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
    /// A question of a hosted agency.
    pub fn new(
        node: &Arc<Node>,
        agency: &Arc<HostedAgency>,
        purpose: Option<String>,
        legal_basis: Option<String>,
        keep: bool,
    ) -> Arc<Question> {
        Arc::new(Question {
            node: node.clone(),
            agency: agency.clone(),
            purpose,
            legal_basis,
            keep,
            request_id: RequestId::current().unwrap_or_else(RequestId::random),
            cancelled: CancellationToken::new(),
            running: TaskTracker::new(),
            done: Mutex::default(),
        })
    }

    /// The completed exchanges, once those under way have ended; they are handed out once.
    pub async fn take_exchanged(&self) -> Vec<Exchanged> {
        self.running.close();
        self.running.wait().await;
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
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
        let result = tokio::select! {
            () = self.cancelled.cancelled() => return,
            () = sender.closed(), if !to_the_end => return,
            result = run(&self, &query, schema, &sender) => result,
        };
        if let Err(error) = result {
            let _ = sender.send(Err(error)).await;
        }
    }
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

type Rows = mpsc::Sender<Result<RecordBatch, QueryError>>;

async fn run(
    question: &Question,
    query: &Query,
    schema: SchemaRef,
    rows: &Rows,
) -> Result<(), QueryError> {
    let provider = &query.from.dataset.agency;
    let exchanged = exchange(question, query, schema, rows)
        .await
        .map_err(|fault| query_error(fault, provider))?;
    metrics::counter!("jingwei_exchanges_asked_total").increment(1);
    tracing::info!(provider = %provider, dataset = %exchanged.version, rows = exchanged.answer.rows, "answered");
    question
        .done
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(exchanged);
    Ok(())
}

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

async fn exchange(
    question: &Question,
    query: &Query,
    schema: SchemaRef,
    rows: &Rows,
) -> Result<Exchanged, Fault> {
    let began = Instant::now();
    let node = &question.node;
    let provider = &query.from.dataset.agency;
    let key = node.member(provider)?.key.clone();
    let text = query.to_string();
    let request = node.party(&question.agency).request(
        (node.clock)(),
        provider,
        text.clone(),
        node.seen(),
        question.purpose.clone(),
        question.legal_basis.clone(),
    );
    node.journals
        .enter_new(
            question.agency.id(),
            &request.body.nonce,
            request.body.expires,
            &request.envelope,
        )
        .await?;
    let mut client =
        FlightServiceClient::new(node.link(provider)?).max_decoding_message_size(MAX_FRAME);
    let mut frames = client
        .do_get(Ticket {
            ticket: request.envelope.to_bytes().into(),
        })
        .await
        .map_err(|status| Fault::from_status(&status))?
        .into_inner();
    let mut answer = Incoming::new(node, question.keep).map_err(own_disk)?;
    let first = next(&mut frames, provider).await?;
    let acceptance =
        messages::verify_acceptance(&first.app_metadata, &request, question.agency.id(), &key)?;
    same_history(node, &acceptance, provider)?;
    check_manifest(node, query, &acceptance)?;
    answer.schema(&first, &schema, provider)?;
    let receipt = loop {
        let frame = next(&mut frames, provider).await?;
        match answer.rows(&frame, &schema, provider)? {
            // A plan that has rows enough takes no more; see `Question::answer`.
            Some(batch) => drop(rows.send(Ok(batch)).await),
            None => {
                break messages::verify_receipt(&frame.app_metadata, &acceptance, provider, &key)?;
            }
        }
    };
    let (digest, file) = answer.finish(provider)?;
    if receipt.body.outcome != Outcome::Complete || receipt.body.answer != digest {
        return Err(Fault::new(
            Blame::Unverified,
            "the receipt is not for the rows that came",
        )
        .at(provider)
        .advise("the answer is not used"));
    }
    let acknowledgement =
        node.party(&question.agency)
            .acknowledgement((node.clock)(), &receipt, provider);
    let own = question.agency.id();
    let nonce = &request.body.nonce;
    tokio::try_join!(
        node.journals
            .enter(own, Kind::Acceptance, nonce, &acceptance.envelope),
        node.journals
            .enter(own, Kind::Receipt, nonce, &receipt.envelope),
        node.journals
            .enter(own, Kind::Acknowledgement, nonce, &acknowledgement.envelope),
    )?;
    acknowledge(&mut client, &acknowledgement.envelope, provider).await?;
    Ok(Exchanged {
        version: query.from.clone(),
        query: text,
        index: acceptance.body.dataset.index,
        messages: [
            request.envelope,
            acceptance.envelope,
            receipt.envelope,
            acknowledgement.envelope,
        ],
        answer: digest,
        file,
        elapsed: began.elapsed(),
    })
}

async fn acknowledge(
    client: &mut FlightServiceClient<Link>,
    envelope: &Envelope,
    provider: &AgencyId,
) -> Result<(), Fault> {
    let action = Action {
        r#type: ACKNOWLEDGE.to_owned(),
        body: envelope.to_bytes().into(),
    };
    let mut results = client
        .do_action(action)
        .await
        .map_err(|status| Fault::from_status(&status))?
        .into_inner();
    // The stream ends when the acknowledgement is durable at the provider.
    while results
        .message()
        .await
        .map_err(|status| Fault::from_status(&status).at(provider))?
        .is_some()
    {}
    Ok(())
}

async fn next(
    frames: &mut Streaming<FlightData>,
    provider: &AgencyId,
) -> Result<FlightData, Fault> {
    let broken = |message: &str| Fault::new(Blame::Unavailable, message.to_owned()).at(provider);
    match tokio::time::timeout(SILENCE, frames.message()).await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => {
            Err(Fault::new(Blame::Unverified, "the answer ended without a receipt").at(provider))
        }
        Ok(Err(status)) => Err(Fault::from_status(&status)),
        Err(_) => Err(broken("it fell silent in the middle of its answer")),
    }
}

/// The provider must answer from the version that was asked for, as the log knows it.
fn check_manifest(
    node: &Node,
    query: &Query,
    acceptance: &Message<Acceptance>,
) -> Result<(), Fault> {
    let used = &acceptance.body.dataset;
    let known = node.version(&query.from)?;
    let same = used.version == query.from
        && used.manifest == known.chain.payload
        && used.index == known.chain.index
        && used.sharing == known.dataset.sharing;
    if !same {
        return Err(Fault::new(
            Blame::Unverified,
            format!(
                "it answered from {} and was asked for {}",
                used.version, query.from
            ),
        )
        .at(&query.from.dataset.agency));
    }
    Ok(())
}

/// A provider that was shown another history of the registry is not believed.
fn same_history(
    node: &Node,
    acceptance: &Message<Acceptance>,
    provider: &AgencyId,
) -> Result<(), Fault> {
    let seen = &acceptance.body.seen;
    let log = node.replica.log();
    // Most often both have seen the same, and no file need be read for an older root.
    if seen.size == 0
        || seen.size > log.size()
        || *seen == node.seen()
        || log.root_at(seen.size).is_ok_and(|root| root == seen.root)
    {
        return Ok(());
    }
    tracing::error!(%provider, size = seen.size, "a provider has seen another history of the registry");
    Err(Fault::new(
        Blame::Inconsistent,
        "the two nodes have been shown different histories of the registry",
    )
    .at(provider)
    .advise("compare both nodes with ‘jingwei doctor’: the registry, or one of the two, is lying"))
}

fn own_disk(error: std::io::Error) -> Fault {
    Fault::new(
        Blame::Internal,
        format!("this node cannot keep the answer for evidence: {error}"),
    )
}

/// The answer as it comes in: hashed, kept if wanted, decoded.
struct Incoming {
    writer: AnswerWriter<Box<dyn Write + Send>>,
    decoder: Decoder,
    file: Option<TempFile>,
}

impl Incoming {
    fn new(node: &Node, keep: bool) -> std::io::Result<Incoming> {
        let (file, out): (_, Box<dyn Write + Send>) = if keep {
            let (temp, file) = TempFile::create(node)?;
            (Some(temp), Box::new(BufWriter::new(file)))
        } else {
            (None, Box::new(std::io::sink()))
        };
        Ok(Incoming {
            writer: AnswerWriter::new(out),
            decoder: Decoder::new(),
            file,
        })
    }

    fn schema(
        &mut self,
        frame: &FlightData,
        expected: &SchemaRef,
        provider: &AgencyId,
    ) -> Result<(), Fault> {
        let wrong = |what: String| Fault::new(Blame::Unverified, what).at(provider);
        self.writer
            .frame(frame)
            .map_err(|error| wrong(error.to_string()))?;
        match self
            .decoder
            .frame(frame)
            .map_err(|error| wrong(error.to_string()))?
        {
            Frame::Schema(schema) if same_types(&schema, expected) => Ok(()),
            _ => Err(wrong(
                "the answer has not the columns that were asked for".into(),
            )),
        }
    }

    /// The frame's rows, or `None` for the closing frame.
    fn rows(
        &mut self,
        frame: &FlightData,
        schema: &SchemaRef,
        provider: &AgencyId,
    ) -> Result<Option<RecordBatch>, Fault> {
        let wrong = |what: String| Fault::new(Blame::Unverified, what).at(provider);
        let decoded = self
            .decoder
            .frame(frame)
            .map_err(|error| wrong(error.to_string()))?;
        self.writer
            .frame(frame)
            .map_err(|error| wrong(error.to_string()))?;
        match decoded {
            Frame::Batch(batch) => RecordBatch::try_new(schema.clone(), batch.columns().to_vec())
                .map(Some)
                .map_err(|_| wrong("a batch does not fit the columns that were asked for".into())),
            Frame::Closing => Ok(None),
            Frame::Schema(_) => Err(wrong("a second schema in one answer".into())),
        }
    }

    fn finish(self, provider: &AgencyId) -> Result<(AnswerDigest, Option<TempFile>), Fault> {
        let (digest, _) = self
            .writer
            .finish()
            .map_err(|error| Fault::new(Blame::Unverified, error.to_string()).at(provider))?;
        Ok((digest, self.file))
    }
}

fn same_types(found: &SchemaRef, expected: &SchemaRef) -> bool {
    found.fields().len() == expected.fields().len()
        && found
            .fields()
            .iter()
            .zip(expected.fields())
            .all(|(found, expected)| found.data_type() == expected.data_type())
}
