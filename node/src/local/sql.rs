//! `Sql` on the socket: runs one question, streams its table, and builds its evidence.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt as _;
use jingwei_proto::digest::Hasher;
use jingwei_proto::statement::{AnswerDigest, EvidenceExport};
use jingwei_proto::wire::node::{
    Exchange, Export, SqlDone, SqlRequest, SqlResponse, SqlStart, sql_request, sql_response,
};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::RequestId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Replies;
use crate::catalogue::Tables;
use crate::evidence::{self, Answer};
use crate::exchange::ask::{Exchanged, Question, TempFile};
use crate::node::Node;
use crate::query::error::QueryError;
use crate::query::limits::Limits;
use crate::query::session::Session;

/// Bytes of evidence in one message.
const CHUNK: usize = 256 * 1024;

type Sender = mpsc::Sender<Result<SqlResponse, Status>>;

/// Serves one call.
pub(super) fn serve(node: Arc<Node>, requests: Streaming<SqlRequest>) -> Replies<SqlResponse> {
    let (sender, receiver) = mpsc::channel(2);
    let id = RequestId::current().unwrap_or_else(RequestId::random);
    let working = async move {
        let result = tokio::select! {
            // The user has gone. Dropping the plan drops its exchanges, here and at providers.
            () = sender.closed() => return,
            result = run(&node, requests, &sender) => result,
        };
        if let Err(fault) = result {
            let _ = sender.send(Err(fault.into())).await;
        }
    };
    tokio::spawn(id.scope(working));
    ReceiverStream::new(receiver).boxed()
}

async fn run(
    node: &Arc<Node>,
    mut requests: Streaming<SqlRequest>,
    sender: &Sender,
) -> Result<(), Fault> {
    let start = match next(&mut requests).await? {
        Some(sql_request::Part::Start(start)) => start,
        _ => {
            return Err(Fault::new(
                Blame::WrongUse,
                "a question begins with its SQL",
            ));
        }
    };
    let began = Instant::now();
    let agency = node.hosted_agency(&start.agency)?;
    node.enrolled(agency.id())?;
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let limits = limits(node, &start);
    let seat = node.seats.ask().await;
    let seat = seat.map_err(|busy| query_fault(busy.into()))?;
    // The user's limit on rows is for the table, which may be made of many more.
    let each = Limits {
        time: limits.time,
        ..node.config.query.clone()
    };
    let question = Question::new(
        node,
        &agency,
        text(&start.purpose),
        text(&start.legal_basis),
        start.save,
        each,
    );
    let _stops_all = question.cancelled.clone().drop_guard();
    let session = Session::new(Arc::new(Tables(question.clone())), limits);
    let (schema, rows) = session.run(&start.sql, seat).await.map_err(query_fault)?;
    let table = stream_table(node, &start, schema, rows, sender).await?;
    let exchanges = question.take_exchanged().await.map_err(query_fault)?;
    let done = SqlDone {
        rows: table.digest.rows,
        micros: micros(began.elapsed()),
        exchanges: exchanges.iter().map(exchange).collect(),
    };
    send(sender, sql_response::Part::Done(done)).await;
    if let Some(file) = table.file {
        let exports = exports(&mut requests).await?;
        let answer = Answer {
            sql: &start.sql,
            table: &file,
            digest: table.digest,
            exchanges: &exchanges,
            exports,
        };
        send_evidence(&evidence::build(&question, &answer)?, sender).await?;
    }
    Ok(())
}

/// The files that the user wrote the table to.
async fn exports(requests: &mut Streaming<SqlRequest>) -> Result<Vec<EvidenceExport>, Fault> {
    match next(requests).await? {
        Some(sql_request::Part::Exports(exports)) => exports.files.iter().map(export).collect(),
        _ => Ok(Vec::new()),
    }
}

async fn next(requests: &mut Streaming<SqlRequest>) -> Result<Option<sql_request::Part>, Fault> {
    let request = requests
        .message()
        .await
        .map_err(|status| Fault::from_status(&status))?;
    Ok(request.and_then(|request| request.part))
}

/// The node's limits, or tighter ones that the user asks for.
fn limits(node: &Node, start: &SqlStart) -> Limits {
    let mut limits = node.config.query.clone();
    if start.timeout_seconds > 0 {
        limits.time = limits.time.min(Duration::from_secs(start.timeout_seconds));
    }
    if start.max_rows > 0 {
        limits.rows = limits.rows.min(start.max_rows);
    }
    limits
}

/// The table as it was sent, and kept if evidence is wanted.
struct SentTable {
    digest: AnswerDigest,
    file: Option<TempFile>,
}

/// Where the bytes of the table go besides the user: a hash, and a file if they are kept.
struct Copy {
    hasher: Hasher,
    bytes: u64,
    file: Option<(TempFile, BufWriter<File>)>,
}

impl Copy {
    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.file {
            Some((_, file)) => file.write_all(bytes),
            None => Ok(()),
        }
    }
}

async fn stream_table(
    node: &Node,
    start: &SqlStart,
    schema: SchemaRef,
    mut rows: SendableRecordBatchStream,
    sender: &Sender,
) -> Result<SentTable, Fault> {
    let own = |error: &dyn std::fmt::Display| {
        Fault::new(
            Blame::Internal,
            format!("the table cannot be written: {error}"),
        )
    };
    let file = match start.save {
        true => {
            let (temp, file) = TempFile::create(node).map_err(|error| own(&error))?;
            Some((temp, BufWriter::new(file)))
        }
        false => None,
    };
    let mut copy = Copy {
        hasher: Hasher::new(),
        bytes: 0,
        file,
    };
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(|error| own(&error))?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch: RecordBatch = batch.map_err(|error| query_fault(QueryError::from(error)))?;
        count += batch.num_rows() as u64;
        writer.write(&batch).map_err(|error| own(&error))?;
        let bytes = std::mem::take(writer.get_mut());
        copy.take(&bytes).map_err(|error| own(&error))?;
        send(sender, sql_response::Part::Table(bytes)).await;
    }
    let bytes = writer.into_inner().map_err(|error| own(&error))?;
    copy.take(&bytes).map_err(|error| own(&error))?;
    send(sender, sql_response::Part::Table(bytes)).await;
    let file = match copy.file {
        Some((temp, mut file)) => {
            file.flush().map_err(|error| own(&error))?;
            Some(temp)
        }
        None => None,
    };
    let digest = AnswerDigest {
        digest: copy.hasher.finish(),
        rows: count,
        bytes: copy.bytes,
    };
    Ok(SentTable { digest, file })
}

async fn send(sender: &Sender, part: sql_response::Part) {
    // A user who has gone is noticed by the caller's select.
    let _ = sender.send(Ok(SqlResponse { part: Some(part) })).await;
}

async fn send_evidence(file: &TempFile, sender: &Sender) -> Result<(), Fault> {
    let broken = |error: std::io::Error| {
        Fault::new(
            Blame::Internal,
            format!("the evidence cannot be read: {error}"),
        )
    };
    let mut file = File::open(file.path()).map_err(broken)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)
            .map_err(broken)?;
        if chunk.is_empty() {
            return Ok(());
        }
        send(sender, sql_response::Part::Evidence(chunk)).await;
    }
}

fn exchange(exchanged: &Exchanged) -> Exchange {
    Exchange {
        version: exchanged.version.to_string(),
        query: exchanged.query.clone(),
        rows: exchanged.answer.rows,
        bytes: exchanged.answer.bytes,
        micros: micros(exchanged.elapsed),
    }
}

fn export(export: &Export) -> Result<EvidenceExport, Fault> {
    Ok(EvidenceExport {
        format: export.format.clone(),
        digest: export
            .digest
            .parse()
            .map_err(|error| Fault::new(Blame::Malformed, format!("{error}")))?,
        bytes: export.bytes,
    })
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// A query's error as it reaches the user.
pub(crate) fn query_fault(error: QueryError) -> Fault {
    let blame = match &error {
        QueryError::WrongSql { .. }
        | QueryError::ReadOnly { .. }
        | QueryError::Recursive
        | QueryError::UnknownTable { .. }
        | QueryError::UnknownVersion { .. }
        | QueryError::UnknownColumn { .. } => Blame::WrongUse,
        QueryError::Limit(_) => Blame::LimitExceeded,
        QueryError::Overloaded(_) => Blame::Overloaded,
        QueryError::Refused { .. } => Blame::Refused,
        QueryError::Incomplete { .. } => Blame::Incomplete,
        QueryError::Unverified { .. } => Blame::Unverified,
        QueryError::Uncomputable(_) => Blame::Malformed,
        QueryError::Internal(_) => Blame::Internal,
    };
    let advice = error.advice();
    Fault {
        advice,
        ..Fault::new(blame, error.to_string())
    }
}
