//! A node's local socket from inside the test: quicker than a command, and it can be awaited.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use futures::StreamExt as _;
use http::uri::PathAndQuery;
use jingwei_proto::wire::node::{
    SqlDone, SqlRequest, SqlResponse, SqlStart, StatusRequest, StatusResponse, sql_request,
    sql_response,
};
use jingwei_registry::connect::{self, Link};
use jingwei_registry::fault::Fault;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

/// One runtime for everything asynchronous in a test program.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

/// A connection to a node's socket.
#[derive(Clone)]
pub struct Local {
    link: Link,
}

/// What came back for an SQL question.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The table as an Arrow IPC stream.
    pub table: Vec<u8>,
    /// Rows, time, and who answered.
    pub done: SqlDone,
    /// The evidence file, if it was wanted.
    pub evidence: Vec<u8>,
}

impl Local {
    /// To the node in `dir`.
    pub async fn connect(dir: &Path) -> Result<Local, Fault> {
        let socket: PathBuf = dir.join("node.sock");
        Ok(Local {
            link: connect::uds(&socket).await?,
        })
    }

    /// What the node is, sees and waits for.
    pub async fn status(&self) -> Result<StatusResponse, Fault> {
        let mut grpc = Grpc::new(self.link.clone());
        grpc.ready()
            .await
            .map_err(|error| Fault::from_transport(&error))?;
        let path = PathAndQuery::from_static("/jingwei.node.v1.Local/Status");
        let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
        let response = grpc
            .unary(tonic::Request::new(StatusRequest {}), path, codec)
            .await;
        response
            .map(tonic::Response::into_inner)
            .map_err(|status| Fault::from_status(&status))
    }

    /// Asks in SQL, with evidence if `save`.
    pub async fn sql(&self, sql: &str, save: bool) -> Result<Answer, Fault> {
        let start = SqlStart {
            sql: sql.to_owned(),
            save,
            ..SqlStart::default()
        };
        let request = SqlRequest {
            part: Some(sql_request::Part::Start(start)),
        };
        let mut grpc = Grpc::new(self.link.clone());
        grpc.ready()
            .await
            .map_err(|error| Fault::from_transport(&error))?;
        let path = PathAndQuery::from_static("/jingwei.node.v1.Local/Sql");
        let codec = ProstCodec::<SqlRequest, SqlResponse>::default();
        let requests = tonic::Request::new(futures::stream::iter([request]));
        let response = grpc.streaming(requests, path, codec).await;
        let mut parts = response
            .map_err(|status| Fault::from_status(&status))?
            .into_inner();
        let mut answer = Answer::default();
        while let Some(part) = parts.next().await {
            match part.map_err(|status| Fault::from_status(&status))?.part {
                Some(sql_response::Part::Table(bytes)) => answer.table.extend(bytes),
                Some(sql_response::Part::Done(done)) => answer.done = done,
                Some(sql_response::Part::Evidence(bytes)) => answer.evidence.extend(bytes),
                None => {}
            }
        }
        Ok(answer)
    }
}
