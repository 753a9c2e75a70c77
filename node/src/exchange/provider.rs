//! The provider's side of an exchange, as a Flight service.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt as _, stream};
use jingwei_proto::border::Query;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::{Acceptance, AnswerDigest, Outcome, Request as Asked, Seen, Used};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::RequestId;
use jingwei_registry::serve::PeerKey;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::ACKNOWLEDGE;
use super::ledger::Place;
use super::messages::{self, Message, Unverified};
use crate::agency::HostedAgency;
use crate::journals::Kind;
use crate::node::Node;
use crate::query::answer::{AnswerHasher, AnswerWriter};
use crate::query::frames::{Encoder, closing_frame};
use crate::query::guard::GuardedTable;
use crate::query::limits::{BUSY, Exceeded};
use crate::query::permit::{Denial, Permit};
use crate::query::provide::{ProvideError, provide};

/// Frames that may wait for the network; the plan below waits with them.
const AHEAD: usize = 2;

/// Answers other agencies' requests.
pub struct Provider(pub Arc<Node>);

/// An answer that has been accepted: everything that the first row must wait for is done.
struct Accepted {
    node: Arc<Node>,
    provider: Arc<HostedAgency>,
    requester: AgencyId,
    acceptance: Message<Acceptance>,
    rows: SendableRecordBatchStream,
    place: Place,
}

impl Provider {
    async fn accept(&self, peer: PeerKey, ticket: &[u8]) -> Result<Accepted, Fault> {
        let node = &self.0;
        let message = Unverified::read(ticket)?;
        let requester = message.sender()?.clone();
        let member = node.member(&requester)?;
        connected_as(node, &requester, peer)?;
        let request = messages::verify_request(
            message,
            &node.membership.federation,
            &requester,
            &member.key,
            (node.clock)(),
        )?;
        let provider = node
            .agencies
            .get(&request.body.audience)
            .cloned()
            .ok_or_else(|| {
                Fault::new(
                    Blame::NotFound,
                    format!("this node does not host {}", request.body.audience),
                )
            })?;
        same_history(node, &request.body.seen, &requester)?;
        let query = parse(&request)?;
        let record = node.version(&query.from)?;
        let permit = Permit::of_class(requester.clone(), provider.id(), record.dataset.sharing);
        permit
            .check()
            .map_err(|denial| refusal(denial, &query, &provider))?;
        let place = node.ledger.begin(&requester, &node.config.exchange)?;
        let table = GuardedTable::new(
            query.from.clone(),
            node.data_files(&record.dataset).await?,
            permit,
        )
        .map_err(|error| provide_fault(&error, &provider))?;
        let seat = node.seats.answer().await;
        let seat = seat.map_err(|busy| provide_fault(&busy.into(), &provider))?;
        let rows = provide(&query, table, &node.config.query, seat)
            .await
            .map_err(|error| provide_fault(&error, &provider))?;
        let used = Used {
            version: query.from,
            sharing: record.dataset.sharing,
            manifest: record.chain.payload,
            index: record.chain.index,
        };
        let acceptance = node.party(&provider).acceptance(
            (node.clock)(),
            &request,
            &requester,
            used,
            node.seen(),
        );
        // The request must be new before anything is answered; both are durable together.
        let nonce = &request.body.nonce;
        tokio::try_join!(
            node.journals.enter_new(
                provider.id(),
                nonce,
                request.body.expires,
                &request.envelope
            ),
            node.journals
                .enter(provider.id(), Kind::Acceptance, nonce, &acceptance.envelope),
        )?;
        Ok(Accepted {
            node: node.clone(),
            provider,
            requester,
            acceptance,
            rows,
            place,
        })
    }

    async fn acknowledge(&self, peer: PeerKey, body: &[u8]) -> Result<(), Fault> {
        let node = &self.0;
        let message = Unverified::read(body)?;
        let requester = message.sender()?.clone();
        let member = node.member(&requester)?;
        connected_as(node, &requester, peer)?;
        let audience = message.audience()?;
        let provider = node.agencies.get(audience).ok_or_else(|| {
            Fault::new(
                Blame::NotFound,
                format!("this node does not host {audience}"),
            )
        })?;
        let acknowledgement = messages::verify_acknowledgement(
            message,
            &node.membership.federation,
            provider.id(),
            &requester,
            &member.key,
            |nonce| node.ledger.expected(&requester, nonce),
        )?;
        let nonce = &acknowledgement.body.nonce;
        node.journals
            .enter(
                provider.id(),
                Kind::Acknowledgement,
                nonce,
                &acknowledgement.envelope,
            )
            .await?;
        node.ledger.acknowledged(&requester, nonce);
        Ok(())
    }
}

/// The connection's TLS key must be one that the signer's node lists.
fn connected_as(node: &Node, signer: &AgencyId, PeerKey(key): PeerKey) -> Result<(), Fault> {
    let listed = &node.node_of(signer)?.node.tls;
    if key.is_some_and(|key| listed.contains(&key)) {
        return Ok(());
    }
    Err(Fault::new(
        Blame::Unauthorised,
        format!("this connection does not belong to the node of {signer}"),
    )
    .at(signer)
    .advise("an agency asks through the node that it has announced"))
}

/// A requester that was shown another history of the registry is not answered.
fn same_history(node: &Node, seen: &Seen, requester: &AgencyId) -> Result<(), Fault> {
    let log = node.replica.log();
    // Most often both have seen the same, and no file need be read for an older root.
    if seen.size == 0 || seen.size > log.size() || *seen == node.seen() {
        return Ok(());
    }
    match log.root_at(seen.size) {
        Ok(root) if root != seen.root => {
            tracing::error!(%requester, size = seen.size, "a requester has seen another history of the registry");
            Err(Fault::new(Blame::Inconsistent, "the two nodes have been shown different histories of the registry")
                .advise("compare both nodes with ‘jingwei doctor’: the registry, or one of the two, is lying"))
        }
        _ => Ok(()),
    }
}

fn parse(request: &Message<Asked>) -> Result<Query, Fault> {
    let query = Query::parse(&request.body.query).map_err(|error| {
        Fault::new(
            Blame::Malformed,
            format!("the query is not in the border grammar: {error}"),
        )
    })?;
    if query.from.dataset.agency != request.body.audience {
        return Err(Fault::new(
            Blame::Malformed,
            format!(
                "the query is over {}, which is not a dataset of {}",
                query.from, request.body.audience
            ),
        ));
    }
    Ok(query)
}

fn refusal(denial: Denial, query: &Query, provider: &HostedAgency) -> Fault {
    let blame = match denial {
        Denial::GrantNeeded => Blame::NeedsGrant,
        Denial::Undecided | Denial::Withheld => Blame::Refused,
    };
    tracing::info!(dataset = %query.from, %denial, "refused");
    metrics::counter!("jingwei_exchanges_refused_total").increment(1);
    Fault::new(blame, format!("{}: {denial}", query.from)).at(provider.id())
}

fn provide_fault(error: &ProvideError, provider: &HostedAgency) -> Fault {
    let blame = match error {
        ProvideError::Refused(Denial::GrantNeeded) => Blame::NeedsGrant,
        ProvideError::Refused(_) => Blame::Refused,
        ProvideError::Border(_)
        | ProvideError::OtherDataset
        | ProvideError::UnknownColumn { .. }
        | ProvideError::Unfit
        | ProvideError::Uncomputable => Blame::Malformed,
        ProvideError::Limit(limit) if limit.passes() => {
            return Fault::new(Blame::Overloaded, limit.to_string())
                .at(provider.id())
                .retry_after(BUSY);
        }
        ProvideError::Limit(_) => Blame::LimitExceeded,
        ProvideError::Damaged => Blame::Internal,
    };
    Fault::new(blame, error.to_string()).at(provider.id())
}

type Frames = mpsc::Sender<Result<FlightData, Status>>;

impl Accepted {
    /// Sends the whole answer and its receipt. If the requester goes away, or the plan fails,
    /// the receipt says after how many rows, and stands in the journal alone.
    async fn send(mut self, frames: Frames) {
        let mut hasher = AnswerWriter::<std::io::Sink>::hasher();
        // A requester that stops reading holds a seat no longer than one that reads.
        let time = self.node.config.query.time;
        let result = tokio::select! {
            () = frames.closed() => Err(None),
            () = tokio::time::sleep(time) => Err(Some(
                provide_fault(&Exceeded::Time(time).into(), &self.provider)
            )),
            result = send_rows(&mut self.rows, &self.acceptance, &mut hasher, &frames, &self.provider) => result,
        };
        match result {
            Ok(()) => {
                if let Err(fault) = self.finish(hasher, &frames).await {
                    let _ = frames.send(Err(fault.into())).await;
                }
            }
            Err(fault) => {
                self.abort(hasher).await;
                if let Some(fault) = fault {
                    let _ = frames.send(Err(fault.into())).await;
                }
            }
        }
    }

    async fn finish(self, hasher: AnswerHasher, frames: &Frames) -> Result<(), Fault> {
        let (answer, _) = hasher
            .finish()
            .map_err(|error| Fault::new(Blame::Internal, error.to_string()))?;
        let receipt = self.receipt(Outcome::Complete, answer.clone());
        let nonce = &self.acceptance.body.nonce;
        self.node
            .journals
            .enter(self.provider.id(), Kind::Receipt, nonce, &receipt.envelope)
            .await?;
        self.node.ledger.sent(
            &self.requester,
            nonce,
            receipt.envelope.payload_digest(),
            answer.clone(),
        );
        drop(self.place);
        metrics::counter!("jingwei_exchanges_answered_total").increment(1);
        tracing::info!(requester = %self.requester, dataset = %self.acceptance.body.dataset.version, rows = answer.rows, "answered");
        // Whether it arrives shows in the acknowledgement.
        let _ = frames
            .send(Ok(closing_frame(receipt.envelope.to_bytes().into())))
            .await;
        Ok(())
    }

    async fn abort(self, hasher: AnswerHasher) {
        let (rows, bytes) = hasher.counted();
        let digest = hasher.finish().map_or_else(
            |_| jingwei_proto::digest::Digest::of(b""),
            |(answer, _)| answer.digest,
        );
        let receipt = self.receipt(
            Outcome::Aborted,
            AnswerDigest {
                digest,
                rows,
                bytes,
            },
        );
        let nonce = &self.acceptance.body.nonce;
        metrics::counter!("jingwei_exchanges_aborted_total").increment(1);
        tracing::info!(requester = %self.requester, rows, "the answer was cut off");
        if let Err(fault) = self
            .node
            .journals
            .enter(self.provider.id(), Kind::Receipt, nonce, &receipt.envelope)
            .await
        {
            tracing::error!(%fault, "the receipt of a cut-off answer is not in the journal");
        }
    }

    fn receipt(
        &self,
        outcome: Outcome,
        answer: AnswerDigest,
    ) -> Message<jingwei_proto::statement::Receipt> {
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
    acceptance: &Message<Acceptance>,
    hasher: &mut AnswerHasher,
    frames: &Frames,
    provider: &HostedAgency,
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
    first.app_metadata = acceptance.envelope.to_bytes().into();
    frames.send(Ok(first)).await.map_err(|_| None)?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| {
            tracing::debug!(%error, "an answer ended with an error");
            Some(provide_fault(&ProvideError::classify(&error), provider))
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

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn peer<T>(request: &Request<T>) -> PeerKey {
    request.extensions().get().copied().unwrap_or(PeerKey(None))
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented(
        "a node answers DoGet with a request as its ticket, and DoAction(\"acknowledge\")",
    ))
}

#[tonic::async_trait]
impl FlightService for Provider {
    type HandshakeStream = Boxed<HandshakeResponse>;
    type ListFlightsStream = Boxed<FlightInfo>;
    type DoGetStream = Boxed<FlightData>;
    type DoPutStream = Boxed<PutResult>;
    type DoExchangeStream = Boxed<FlightData>;
    type DoActionStream = Boxed<arrow_flight::Result>;
    type ListActionsStream = Boxed<ActionType>;

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let peer = peer(&request);
        let accepted = self.accept(peer, &request.into_inner().ticket).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let sending = accepted.send(sender);
        match RequestId::current() {
            Some(id) => tokio::spawn(id.scope(sending)),
            None => tokio::spawn(sending),
        };
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let peer = peer(&request);
        let action = request.into_inner();
        if action.r#type != ACKNOWLEDGE {
            return not_here();
        }
        self.acknowledge(peer, &action.body).await?;
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let acknowledge = ActionType {
            r#type: ACKNOWLEDGE.to_owned(),
            description: "takes the requester's acknowledgement of an answer".to_owned(),
        };
        Ok(Response::new(stream::iter([Ok(acknowledge)]).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        not_here()
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        not_here()
    }

    async fn get_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        not_here()
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        not_here()
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        not_here()
    }

    async fn do_put(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        not_here()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        not_here()
    }
}
