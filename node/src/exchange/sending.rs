//! The provider sends an answer that it has accepted to give, and then its receipt.
//!
//! A short answer, which most are, is computed before anything is sent, so that its acceptance and
//! its receipt become durable in one step. Of a longer one the acceptance does first, and the rows
//! follow as the requester takes them.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::FlightData;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt as _, stream};
use jingwei_proto::digest::Digest;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::{Acceptance, AnswerDigest, Outcome, Receipt, Request};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::RequestId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::SHORT;
use super::ledger::{self, Place, Waiting};
use super::messages::Message;
use super::provider::provide_fault;
use crate::agency::HostedAgency;
use crate::journals::Kind;
use crate::node::Node;
use crate::query::answer::AnswerHasher;
use crate::query::frames::{Encoder, closing_frame};
use crate::query::limits::Exceeded;
use crate::query::provide::ProvideError;

/// Frames that may wait for the network; the plan below waits with them.
const AHEAD: usize = 2;

/// What goes to the requester.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

type Sender = mpsc::Sender<Result<FlightData, Status>>;

/// What the receipt of an answer follows from, besides its rows.
pub(super) struct Answer {
    pub node: Arc<Node>,
    pub provider: Arc<HostedAgency>,
    pub requester: AgencyId,
    pub request: Message<Request>,
    pub acceptance: Message<Acceptance>,
}

/// An answer whose rows are being computed.
pub(super) struct Sending {
    answer: Answer,
    rows: SendableRecordBatchStream,
    encoder: Encoder,
    hasher: AnswerHasher,
    place: Place,
}

impl Sending {
    /// Nothing has been computed yet, and nothing is durable.
    pub fn new(
        answer: Answer,
        rows: SendableRecordBatchStream,
        place: Place,
    ) -> Result<Sending, Fault> {
        let encoder = Encoder::new(rows.schema()).map_err(|error| unencodable(&error))?;
        Ok(Sending {
            answer,
            rows,
            encoder,
            hasher: AnswerHasher::hasher(),
            place,
        })
    }

    /// Lets the request count, and the acceptance; only then there are frames to send.
    ///
    /// # Errors
    /// If the request has been made before, or the journal cannot be written. A plan that fails
    /// before it has many rows is an answer that was cut off at its beginning.
    pub async fn begin(mut self) -> Result<Frames, Fault> {
        let mut frames = Vec::new();
        match self.short(&mut frames).await {
            Ok(true) => {
                frames.iter().try_for_each(|frame| self.digest(frame))?;
                frames.push(self.complete().await?);
                Ok(stream::iter(frames.into_iter().map(Ok)).boxed())
            }
            Ok(false) => {
                self.answer.open(None).await?;
                let (sender, receiver) = mpsc::channel(AHEAD);
                go_on(self.send(frames, sender));
                Ok(ReceiverStream::new(receiver).boxed())
            }
            Err(fault) => {
                let receipt = self.answer.aborted(self.hasher);
                match self.answer.open(Some(&receipt)).await {
                    // What took so long says more than that it did.
                    Err(late) if late.blame != Blame::Stale => return Err(late),
                    _ => self.answer.cut_off(&receipt),
                }
                Err(fault)
            }
        }
    }

    /// Computes the answer's first frames; whether they are all of it.
    async fn short(&mut self, frames: &mut Vec<FlightData>) -> Result<bool, Fault> {
        let mut schema = self.encoder.schema_frame();
        schema.app_metadata = self.answer.acceptance.bytes.clone();
        frames.push(schema);
        let mut bytes = 0;
        while bytes <= SHORT {
            let Some(more) = self.next().await? else {
                return Ok(true);
            };
            bytes += more
                .iter()
                .map(|frame| frame.data_body.len())
                .sum::<usize>();
            frames.extend(more);
        }
        Ok(false)
    }

    /// The frames of the next batch.
    async fn next(&mut self) -> Result<Option<Vec<FlightData>>, Fault> {
        let Some(batch) = self.rows.next().await else {
            return Ok(None);
        };
        let batch = batch.map_err(|error| {
            tracing::debug!(%error, "an answer ended with an error");
            provide_fault(&ProvideError::classify(&error), &self.answer.provider)
        })?;
        let frames = self.encoder.batch_frames(&batch);
        frames.map(Some).map_err(|error| unencodable(&error))
    }

    /// What is digested is said to have been sent.
    fn digest(&mut self, frame: &FlightData) -> Result<(), Fault> {
        let digested = self.hasher.frame(frame);
        digested.map_err(|error| unencodable(&error))
    }

    /// Makes a short answer durable as a whole; returns its closing frame. The requester may go away
    /// meanwhile: what stands in the journal counts among its answers all the same.
    async fn complete(self) -> Result<FlightData, Fault> {
        let Sending {
            answer,
            hasher,
            place,
            ..
        } = self;
        let receipt = answer.complete(hasher)?;
        let entering = go_on(async move {
            answer.open(Some(&receipt)).await?;
            answer.wait_for(&receipt);
            answer.completed(&receipt);
            drop(place);
            Ok(closing(&receipt))
        });
        let entered = entering.await;
        entered.unwrap_or_else(|error| Err(Fault::new(Blame::Internal, error.to_string())))
    }

    /// Sends what is there, the rest of the answer and its receipt. If the requester goes away, or
    /// the plan fails, the receipt says after how many rows, and stands in the journal alone.
    async fn send(mut self, frames: Vec<FlightData>, sender: Sender) {
        // A requester that stops reading holds a seat no longer than one that reads.
        let time = self.answer.node.config.query.time;
        let result = tokio::select! {
            () = sender.closed() => Err(None),
            () = tokio::time::sleep(time) => Err(Some(
                provide_fault(&Exceeded::Time(time).into(), &self.answer.provider)
            )),
            result = self.send_rows(frames, &sender) => result,
        };
        let Sending {
            answer,
            rows,
            hasher,
            place,
            ..
        } = self;
        drop(rows);
        let last = match result {
            Ok(()) => answer.finish(hasher).await.map_err(Some),
            Err(fault) => {
                answer.abort(hasher).await;
                Err(fault)
            }
        };
        drop(place);
        let last = match last {
            Ok(frame) => Ok(frame),
            Err(Some(fault)) => Err(fault.into()),
            Err(None) => return,
        };
        // Whether it arrives shows in the acknowledgement.
        let _ = sender.send(last).await;
    }

    /// An error without a fault means that nobody listens any more.
    async fn send_rows(
        &mut self,
        frames: Vec<FlightData>,
        sender: &Sender,
    ) -> Result<(), Option<Fault>> {
        let mut frames = Some(frames);
        while let Some(more) = frames {
            for frame in more {
                self.digest(&frame)?;
                sender.send(Ok(frame)).await.map_err(|_| None)?;
            }
            frames = self.next().await?;
        }
        Ok(())
    }
}

/// Work for the request that goes on when its call is cancelled.
fn go_on<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    match RequestId::current() {
        Some(id) => tokio::spawn(id.scope(work)),
        None => tokio::spawn(work),
    }
}

fn unencodable(error: &dyn std::fmt::Display) -> Fault {
    tracing::error!(%error, "an answer cannot be encoded");
    Fault::new(Blame::Internal, "the provider cannot encode its answer")
}

fn closing(receipt: &Message<Receipt>) -> FlightData {
    closing_frame(receipt.bytes.clone())
}

impl Answer {
    /// Makes request and acceptance durable, and in the same step the receipt of an answer that is
    /// at its end already. The request must be new before anything is answered.
    async fn open(&self, receipt: Option<&Message<Receipt>>) -> Result<(), Fault> {
        let nonce = self.request.body.nonce.as_str();
        let mut messages = vec![
            (Kind::Request, nonce, &self.request.bytes),
            (Kind::Acceptance, nonce, &self.acceptance.bytes),
        ];
        messages.extend(receipt.map(|receipt| (Kind::Receipt, nonce, &receipt.bytes)));
        let journals = &self.node.journals;
        let expires = self.request.body.expires;
        journals
            .enter_new(self.provider.id(), expires, &messages)
            .await
    }

    async fn finish(&self, hasher: AnswerHasher) -> Result<FlightData, Fault> {
        let receipt = self.complete(hasher)?;
        // The rows are there already; the acknowledgement comes after the closing frame.
        self.wait_for(&receipt);
        self.enter(&receipt).await?;
        self.completed(&receipt);
        Ok(closing(&receipt))
    }

    async fn abort(&self, hasher: AnswerHasher) {
        let receipt = self.aborted(hasher);
        self.cut_off(&receipt);
        if ledger::counts(&receipt.body) {
            self.wait_for(&receipt);
        }
        if let Err(fault) = self.enter(&receipt).await {
            tracing::error!(%fault, "the receipt of a cut-off answer is not in the journal");
        }
    }

    /// Makes a receipt durable.
    async fn enter(&self, receipt: &Message<Receipt>) -> Result<(), Fault> {
        let nonce = self.acceptance.body.nonce.as_str();
        let entry = (Kind::Receipt, nonce, &receipt.bytes);
        let journals = &self.node.journals;
        journals.enter(self.provider.id(), &[entry]).await
    }

    fn completed(&self, receipt: &Message<Receipt>) {
        metrics::counter!("jingwei_exchanges_answered_total").increment(1);
        let rows = receipt.body.answer.rows;
        tracing::info!(requester = %self.requester, dataset = %self.acceptance.body.dataset.version, rows, "answered");
    }

    fn cut_off(&self, receipt: &Message<Receipt>) {
        metrics::counter!("jingwei_exchanges_aborted_total").increment(1);
        let rows = receipt.body.answer.rows;
        tracing::info!(requester = %self.requester, rows, "the answer was cut off");
    }

    /// The answer waits for an acknowledgement from now on.
    fn wait_for(&self, receipt: &Message<Receipt>) {
        let waiting = Waiting {
            receipt: receipt.digest,
            answer: receipt.body.answer.clone(),
            since: receipt.head.time,
        };
        let nonce = self.acceptance.body.nonce.as_str();
        self.node.ledger.sent(&self.requester, nonce, waiting);
    }

    fn complete(&self, hasher: AnswerHasher) -> Result<Message<Receipt>, Fault> {
        let (answer, _) = hasher.finish().map_err(|error| unencodable(&error))?;
        Ok(self.receipt(Outcome::Complete, answer))
    }

    fn aborted(&self, hasher: AnswerHasher) -> Message<Receipt> {
        let (rows, bytes) = hasher.counted();
        let digest = hasher
            .finish()
            .map_or_else(|_| Digest::of(b""), |(answer, _)| answer.digest);
        let answer = AnswerDigest {
            digest,
            rows,
            bytes,
        };
        self.receipt(Outcome::Aborted, answer)
    }

    fn receipt(&self, outcome: Outcome, answer: AnswerDigest) -> Message<Receipt> {
        self.node.party(&self.provider).receipt(
            (self.node.clock)(),
            &self.acceptance,
            outcome,
            answer,
        )
    }
}
