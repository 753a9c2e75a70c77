//! The provider's side of an exchange, as a Flight service.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt as _, stream};
use jingwei_proto::border::Query;
use jingwei_proto::id::AgencyId;
use jingwei_proto::state::VersionRecord;
use jingwei_proto::statement::{Request as Asked, Used};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::serve::PeerKey;
use tonic::{Request, Response, Status, Streaming};

use super::messages::{self, Message, Unverified};
use super::sending::{Answer, Frames, Sending};
use super::{ACKNOWLEDGE, bundle, same_history};
use crate::agency::HostedAgency;
use crate::node::Node;
use crate::query::guard::GuardedTable;
use crate::query::limits::BUSY;
use crate::query::permit::{Denial, Permit};
use crate::query::provide::{ProvideError, provide};

/// Answers other agencies' requests.
pub struct Provider(pub Arc<Node>);

/// A request that may be answered: all that is to be known of it before a row is read.
struct Admitted {
    provider: Arc<HostedAgency>,
    requester: AgencyId,
    request: Message<Asked>,
    query: Query,
    record: Arc<VersionRecord>,
    permit: Permit,
}

impl Provider {
    /// Answers a request: nothing is read for one that is not admitted.
    async fn answer(&self, peer: PeerKey, ticket: Bytes) -> Result<Frames, Fault> {
        let node = &self.0;
        let admitted = self.admit(peer, ticket).await?;
        let now = (node.clock)();
        let place = node
            .ledger
            .begin(&admitted.requester, &node.config.exchange, now)?;
        let rows = plan(node, &admitted).await?;
        let Admitted {
            provider,
            requester,
            request,
            query,
            record,
            ..
        } = admitted;
        let used = Used {
            version: query.from,
            sharing: record.dataset.sharing,
            manifest: record.chain.payload,
            index: record.chain.index,
        };
        let party = node.party(&provider);
        let acceptance = party.acceptance((node.clock)(), &request, &requester, used, node.seen());
        let answer = Answer {
            node: node.clone(),
            provider,
            requester,
            request,
            acceptance,
        };
        Sending::new(answer, rows, place)?.begin().await
    }

    /// Checks who asks, over which connection, for what, and whether it may.
    async fn admit(&self, peer: PeerKey, ticket: Bytes) -> Result<Admitted, Fault> {
        let node = &self.0;
        let message = Unverified::read(ticket)?;
        let requester = message.sender()?.clone();
        let member = node.in_force(&requester)?;
        connected_as(node, &requester, peer)?;
        message.audience()?;
        let signed = (message.envelope().clone(), member.key.clone());
        node.verifier.verify(vec![signed]).await;
        let request = messages::verify_request(
            message,
            &node.membership.federation,
            &requester,
            &member.key,
            (node.clock)(),
        )?;
        let provider = self.hosted(&request.body.audience)?.clone();
        node.in_force(provider.id())?;
        same_history(node, &request.body.seen, &requester)?;
        let query = parse(&request)?;
        let record = node.version(&query.from)?;
        let permit = Permit::of_class(requester.clone(), provider.id(), record.dataset.sharing);
        permit
            .check()
            .map_err(|denial| refusal(denial, &query, &provider))?;
        Ok(Admitted {
            provider,
            requester,
            request,
            query,
            record,
            permit,
        })
    }

    pub(super) fn hosted(&self, agency: &AgencyId) -> Result<&Arc<HostedAgency>, Fault> {
        self.0
            .agencies
            .get(agency)
            .ok_or_else(|| Fault::new(Blame::NotFound, format!("this node does not host {agency}")))
    }
}

/// The rows of an answer, of which none is read before they are polled.
async fn plan(node: &Arc<Node>, admitted: &Admitted) -> Result<SendableRecordBatchStream, Fault> {
    let provider = &admitted.provider;
    let files = node.data_files(&admitted.record.dataset).await?;
    let table = GuardedTable::new(admitted.query.from.clone(), files, admitted.permit.clone())
        .map_err(|error| provide_fault(&error, provider))?;
    let seat = node.seats.answer().await;
    let seat = seat.map_err(|busy| provide_fault(&busy.into(), provider))?;
    provide(&admitted.query, table, &node.config.query, seat)
        .await
        .map_err(|error| provide_fault(&error, provider))
}

/// The connection's TLS key must be one that the signer's node lists.
pub(super) fn connected_as(
    node: &Node,
    signer: &AgencyId,
    PeerKey(key): PeerKey,
) -> Result<(), Fault> {
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

pub(super) fn provide_fault(error: &ProvideError, provider: &HostedAgency) -> Fault {
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
        let frames = self.answer(peer, request.into_inner().ticket).await?;
        Ok(Response::new(frames))
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
        let bodies = bundle::unpack(&action.body)?;
        let bodies = bodies.into_iter().map(|body| action.body.slice_ref(body));
        let outcomes = self.acknowledge(peer, bodies.collect()).await;
        // One by itself is answered by the call's own status.
        if action.body.first() != Some(&0) {
            outcomes.into_iter().collect::<Result<(), Fault>>()?;
            return Ok(Response::new(stream::empty().boxed()));
        }
        let results = outcomes.into_iter().map(|outcome| {
            let body = bundle::outcome(outcome).into();
            Ok(arrow_flight::Result { body })
        });
        Ok(Response::new(stream::iter(results).boxed()))
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let acknowledge = ActionType {
            r#type: ACKNOWLEDGE.to_owned(),
            description: "takes the requester's acknowledgement of an answer, or several"
                .to_owned(),
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
