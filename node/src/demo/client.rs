//! The tour's way to a node: the service on the socket in its directory, as for the command line.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamDecoder;
use futures::StreamExt as _;
use jingwei_proto::wire::node::{
    EnrolRequest, Exports, PublishEnd, PublishProgress, PublishRequest, PublishStart, Published,
    SqlDone, SqlRequest, SqlStart, publish_request, publish_response, sql_request, sql_response,
};
use jingwei_registry::connect::{self, Link};
use jingwei_registry::fault::{Blame, Fault};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cli::client::{fault, received};
use crate::home::Home;
use crate::serve::stubs::local_client::LocalClient;

/// The largest message from a node: a batch of a table.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// A connection to one node.
#[derive(Clone)]
pub struct Client(LocalClient<Link>);

/// What came back for one question.
pub struct Answer {
    /// The table.
    pub table: RecordBatch,
    /// Who answered, and how long it took.
    pub done: SqlDone,
    /// The evidence file, if it was asked for.
    pub evidence: Vec<u8>,
}

impl Client {
    /// Connects to the node in `dir`, which must be served.
    pub async fn connect(dir: &Path) -> Result<Client, Fault> {
        let link = connect::uds(&Home::new(dir).socket()).await?;
        Ok(Client(
            LocalClient::new(link).max_decoding_message_size(MAX_MESSAGE),
        ))
    }

    /// Has the node enrol an agency below one that it hosts.
    pub async fn enrol(&self, proposal: Vec<u8>) -> Result<(), Fault> {
        let request = EnrolRequest {
            proposal,
            only_check: false,
        };
        let answer = self.0.clone().enrol(request).await;
        received(answer).map(|_| ())
    }

    /// Publishes a file that is in memory.
    pub async fn publish(
        &self,
        start: PublishStart,
        bytes: &'static [u8],
        progress: impl Fn(&PublishProgress),
    ) -> Result<Published, Fault> {
        let end = PublishEnd {
            bytes: bytes.len() as u64,
        };
        let parts = [
            publish_request::Part::Start(start),
            publish_request::Part::Chunk(bytes.to_vec()),
            publish_request::Part::End(end),
        ];
        // It stays open after the last part: a publisher that hangs up has given up.
        let (sender, receiver) = tokio::sync::mpsc::channel(parts.len());
        for part in parts {
            // The channel has room for all of them.
            let _ = sender.send(PublishRequest { part: Some(part) }).await;
        }
        let mut replies = received(self.0.clone().publish(ReceiverStream::new(receiver)).await)?;
        let mut published = None;
        while let Some(reply) = replies.next().await {
            match reply.map_err(|status| fault(&status))?.part {
                Some(publish_response::Part::Progress(now)) => progress(&now),
                Some(publish_response::Part::Published(done)) => published = Some(done),
                Some(publish_response::Part::Rejected(rows)) if rows.count > 0 => {
                    let first = rows.first.first().map_or_else(String::new, |cell| {
                        format!(": line {}, {}", cell.line, cell.message)
                    });
                    return Err(Fault::new(
                        Blame::Malformed,
                        format!("rows that break the schema: {}{first}", rows.count),
                    ));
                }
                _ => {}
            }
        }
        drop(sender);
        published.ok_or_else(|| {
            Fault::new(
                Blame::Unavailable,
                "the node stopped before the publication was done",
            )
        })
    }

    /// Asks in SQL as `agency`; with `save` the evidence comes too.
    pub async fn ask(&self, agency: &str, sql: &str, save: bool) -> Result<Answer, Fault> {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let start = SqlStart {
            agency: agency.to_owned(),
            sql: sql.to_owned(),
            save,
            purpose: "the demo's tour".to_owned(),
            ..SqlStart::default()
        };
        let send = |part| sender.send(SqlRequest { part: Some(part) });
        // The channel has room for both.
        let _ = send(sql_request::Part::Start(start)).await;
        let _ = send(sql_request::Part::Exports(Exports { files: Vec::new() })).await;
        let replies = received(self.0.clone().sql(ReceiverStream::new(receiver)).await)?;
        let answer = receive(replies).await;
        drop(sender);
        answer
    }
}

async fn receive(
    mut replies: Streaming<jingwei_proto::wire::node::SqlResponse>,
) -> Result<Answer, Fault> {
    let (mut decoder, mut batches) = (StreamDecoder::new(), Vec::new());
    let (mut done, mut evidence) = (None, Vec::new());
    while let Some(reply) = replies.next().await {
        match reply.map_err(|status| fault(&status))?.part {
            Some(sql_response::Part::Table(bytes)) => {
                let mut buffer = Buffer::from_vec(bytes);
                while !buffer.is_empty() {
                    batches.extend(decoder.decode(&mut buffer).map_err(broken)?);
                }
            }
            Some(sql_response::Part::Done(end)) => done = Some(end),
            Some(sql_response::Part::Evidence(bytes)) => evidence.extend(bytes),
            None => {}
        }
    }
    let (Some(done), Some(schema)) = (done, decoder.schema()) else {
        return Err(Fault::new(
            Blame::Incomplete,
            "the node stopped before the answer was whole",
        ));
    };
    let table = concat_batches(&schema, &batches).map_err(broken)?;
    Ok(Answer {
        table,
        done,
        evidence,
    })
}

fn broken(error: arrow::error::ArrowError) -> Fault {
    Fault::new(
        Blame::Internal,
        format!("the table cannot be read: {error}"),
    )
}
