//! The provider sends an answer that it has accepted to give, and then its receipt.

use std::sync::Arc;

use arrow_flight::FlightData;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt as _;
use jingwei_proto::digest::Digest;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::{Acceptance, AnswerDigest, Outcome, Receipt};
use jingwei_registry::fault::{Blame, Fault};
use tokio::sync::mpsc;
use tonic::Status;

use super::ledger::{self, Place, Waiting};
use super::messages::Message;
use super::provider::provide_fault;
use crate::agency::HostedAgency;
use crate::journals::Kind;
use crate::node::Node;
use crate::query::answer::{AnswerHasher, AnswerWriter};
use crate::query::frames::{Encoder, closing_frame};
use crate::query::limits::Exceeded;
use crate::query::provide::ProvideError;

/// An answer that has been accepted: everything that the first row must wait for is done.
pub(super) struct Accepted {
    pub answer: Answer,
    pub rows: SendableRecordBatchStream,
    pub place: Place,
}

/// What the receipt of an answer follows from, besides its rows.
pub(super) struct Answer {
    pub node: Arc<Node>,
    pub provider: Arc<HostedAgency>,
    pub requester: AgencyId,
    pub acceptance: Message<Acceptance>,
}

type Frames = mpsc::Sender<Result<FlightData, Status>>;

impl Accepted {
    /// Sends the whole answer and its receipt. If the requester goes away, or the plan fails,
    /// the receipt says after how many rows, and stands in the journal alone.
    pub async fn send(self, frames: Frames) {
        let Accepted {
            answer,
            mut rows,
            place,
        } = self;
        let mut hasher = AnswerWriter::<std::io::Sink>::hasher();
        // A requester that stops reading holds a seat no longer than one that reads.
        let time = answer.node.config.query.time;
        let result = tokio::select! {
            () = frames.closed() => Err(None),
            () = tokio::time::sleep(time) => Err(Some(
                provide_fault(&Exceeded::Time(time).into(), &answer.provider)
            )),
            result = send_rows(&mut rows, &answer, &mut hasher, &frames) => result,
        };
        drop(rows);
        let fault = match result {
            Ok(()) => answer.finish(hasher, place, &frames).await.err(),
            Err(fault) => {
                answer.abort(hasher).await;
                drop(place);
                fault
            }
        };
        if let Some(fault) = fault {
            let _ = frames.send(Err(fault.into())).await;
        }
    }
}

impl Answer {
    async fn finish(
        &self,
        hasher: AnswerHasher,
        place: Place,
        frames: &Frames,
    ) -> Result<(), Fault> {
        let (answer, _) = hasher
            .finish()
            .map_err(|error| Fault::new(Blame::Internal, error.to_string()))?;
        let rows = answer.rows;
        let receipt = self.receipt(Outcome::Complete, answer);
        self.enter(&receipt).await?;
        drop(place);
        metrics::counter!("jingwei_exchanges_answered_total").increment(1);
        tracing::info!(requester = %self.requester, dataset = %self.acceptance.body.dataset.version, rows, "answered");
        // Whether it arrives shows in the acknowledgement.
        let _ = frames
            .send(Ok(closing_frame(receipt.envelope.to_bytes().into())))
            .await;
        Ok(())
    }

    async fn abort(&self, hasher: AnswerHasher) {
        let (rows, bytes) = hasher.counted();
        let digest = hasher
            .finish()
            .map_or_else(|_| Digest::of(b""), |(answer, _)| answer.digest);
        let answer = AnswerDigest {
            digest,
            rows,
            bytes,
        };
        let receipt = self.receipt(Outcome::Aborted, answer);
        metrics::counter!("jingwei_exchanges_aborted_total").increment(1);
        tracing::info!(requester = %self.requester, rows, "the answer was cut off");
        if let Err(fault) = self.enter(&receipt).await {
            tracing::error!(%fault, "the receipt of a cut-off answer is not in the journal");
        }
    }

    /// Makes a receipt durable, and lets its answer wait for an acknowledgement.
    async fn enter(&self, receipt: &Message<Receipt>) -> Result<(), Fault> {
        let nonce = self.acceptance.body.nonce.as_str();
        if ledger::counts(&receipt.body) {
            let waiting = Waiting {
                receipt: receipt.envelope.payload_digest(),
                answer: receipt.body.answer.clone(),
                since: receipt.head.time,
            };
            self.node.ledger.sent(&self.requester, nonce, waiting);
        }
        let entry = (Kind::Receipt, nonce, &receipt.envelope);
        let journals = &self.node.journals;
        journals.enter(self.provider.id(), &[entry]).await
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

/// Sends schema and batches. An error without a fault means that nobody listens any more.
async fn send_rows(
    rows: &mut SendableRecordBatchStream,
    answer: &Answer,
    hasher: &mut AnswerHasher,
    frames: &Frames,
) -> Result<(), Option<Fault>> {
    let internal = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "an answer cannot be encoded");
        Some(Fault::new(
            Blame::Internal,
            "the provider cannot encode its answer",
        ))
    };
    let encoder = Encoder::new(rows.schema()).map_err(|error| internal(&error))?;
    let mut first = encoder.schema_frame();
    hasher.frame(&first).map_err(|error| internal(&error))?;
    first.app_metadata = answer.acceptance.envelope.to_bytes().into();
    frames.send(Ok(first)).await.map_err(|_| None)?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| {
            tracing::debug!(%error, "an answer ended with an error");
            Some(provide_fault(
                &ProvideError::classify(&error),
                &answer.provider,
            ))
        })?;
        for frame in encoder
            .batch_frames(&batch)
            .map_err(|error| internal(&error))?
        {
            hasher.frame(&frame).map_err(|error| internal(&error))?;
            frames.send(Ok(frame)).await.map_err(|_| None)?;
        }
    }
    Ok(())
}
