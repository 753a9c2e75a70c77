//! A Flight service that answers a border query's text, and does nothing else.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt as _};
use jingwei::query::file::DataFile;
use jingwei::query::frames::Encoder;
use jingwei::query::guard::GuardedTable;
use jingwei::query::limits::Limits;
use jingwei::query::permit::Permit;
use jingwei::query::provide::provide;
use jingwei::query::seats::Seat;
use jingwei_proto::border::Query;
use jingwei_proto::id::VersionId;
use jingwei_proto::statement::Sharing;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Frames that may wait for the network, as at a node.
const AHEAD: usize = 2;

/// Serves one file.
pub struct PlainFlight {
    /// What queries name it.
    pub version: VersionId,
    /// Its rows.
    pub file: Arc<DataFile>,
}

type Frames = mpsc::Sender<Result<FlightData, Status>>;

impl PlainFlight {
    async fn rows(&self, ticket: &[u8]) -> Result<SendableRecordBatchStream, Status> {
        let text = std::str::from_utf8(ticket).map_err(wrong)?;
        let query = Query::parse(text).map_err(wrong)?;
        let owner = &self.version.dataset.agency;
        let permit = Permit::of_class(owner.clone(), owner, Sharing::Public);
        let table = GuardedTable::new(self.version.clone(), vec![self.file.clone()], permit)
            .map_err(wrong)?;
        provide(&query, table, &Limits::default(), Seat::alone())
            .await
            .map_err(wrong)
    }
}

async fn send(mut rows: SendableRecordBatchStream, frames: Frames) -> Result<(), Status> {
    let encoder = Encoder::new(rows.schema()).map_err(wrong)?;
    // A client that has gone wants no more.
    let _ = frames.send(Ok(encoder.schema_frame())).await;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(wrong)?;
        for frame in encoder.batch_frames(&batch).map_err(wrong)? {
            let _ = frames.send(Ok(frame)).await;
        }
    }
    Ok(())
}

fn wrong(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("only DoGet is measured"))
}

#[tonic::async_trait]
impl FlightService for PlainFlight {
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
        let rows = self.rows(&request.into_inner().ticket).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            if let Err(status) = send(rows, sender.clone()).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
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

    async fn do_action(
        &self,
        _: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        not_here()
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        not_here()
    }
}
