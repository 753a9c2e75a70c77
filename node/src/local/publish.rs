//! `Publish` on the socket: takes an upload in, reports progress, and says what became of it.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use jingwei_proto::wire::node::{
    PublishProgress, PublishRequest, PublishResponse, PublishStart, Published, RejectedCell,
    RowsRejected, publish_request, publish_response,
};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::request_id::RequestId;
use jingwei_schemas::TableSchema;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Replies;
use crate::ingest::{IngestError, Invalid, Spool, SpoolError, Spooled};
use crate::node::Node;
use crate::publish::{Publication, PublishError};

/// Bytes of the rejects file in one message.
const CHUNK: usize = 256 * 1024;

type Sender = mpsc::Sender<Result<PublishResponse, Status>>;

/// Serves one call.
pub(super) fn serve(
    node: Arc<Node>,
    requests: Streaming<PublishRequest>,
) -> Replies<PublishResponse> {
    let (sender, receiver) = mpsc::channel(16);
    let cancelled = Arc::new(AtomicBool::new(false));
    let working = async move {
        let result = tokio::select! {
            () = sender.closed() => {
                // The publisher has gone: what runs on other threads stops by itself.
                cancelled.store(true, Ordering::Relaxed);
                return;
            }
            result = run(&node, requests, &sender, cancelled.clone()) => result,
        };
        if let Err(fault) = result {
            let _ = sender.send(Err(fault.into())).await;
        }
    };
    match RequestId::current() {
        Some(id) => tokio::spawn(id.scope(working)),
        None => tokio::spawn(working),
    };
    ReceiverStream::new(receiver).boxed()
}

async fn run(
    node: &Arc<Node>,
    mut requests: Streaming<PublishRequest>,
    sender: &Sender,
    cancelled: Arc<AtomicBool>,
) -> Result<(), Fault> {
    let start = match next(&mut requests).await? {
        Some(publish_request::Part::Start(start)) => start,
        _ => {
            return Err(Fault::new(
                Blame::WrongUse,
                "a publication begins with what it is",
            ));
        }
    };
    let rejects = Rejects::new(node);
    let publication = publication(node, start, rejects.0.clone(), cancelled)?;
    let upload = upload(node, &mut requests).await?;
    let progress = sender.clone();
    let published = node
        .publish(publication, upload, move |progress_now| {
            let part = publish_response::Part::Progress(PublishProgress {
                rows: progress_now.rows,
                bytes_read: progress_now.bytes_read,
                bytes_total: progress_now.bytes_total,
            });
            // Progress that nobody reads in time is passed over.
            let _ = progress.try_send(Ok(PublishResponse { part: Some(part) }));
        })
        .await;
    match published {
        Ok(published) => {
            let record = published.record;
            let part = publish_response::Part::Published(Published {
                dataset: published.version.dataset.to_string(),
                version: published.version.version,
                rows: record.rows,
                digest: record.file.to_string(),
                bytes: record.bytes,
                index: record.index,
                existed: published.existed,
                alarms: node
                    .replica
                    .alarms()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            });
            let _ = sender.send(Ok(PublishResponse { part: Some(part) })).await;
            Ok(())
        }
        Err(PublishError::Ingest(IngestError::Invalid(invalid))) => {
            send_rejects(&invalid, sender).await
        }
        Err(PublishError::Ingest(error)) => Err(ingest_fault(&error)),
        Err(PublishError::Fault(fault)) => Err(fault),
    }
}

async fn next(
    requests: &mut Streaming<PublishRequest>,
) -> Result<Option<publish_request::Part>, Fault> {
    let request = requests
        .message()
        .await
        .map_err(|status| Fault::from_status(&status))?;
    Ok(request.and_then(|request| request.part))
}

fn publication(
    node: &Node,
    start: PublishStart,
    rejects: PathBuf,
    cancelled: Arc<AtomicBool>,
) -> Result<Publication, Fault> {
    let wrong = |reason: String| Fault::new(Blame::WrongUse, reason);
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let schema = if start.schema.trim_ascii_start().starts_with(b"{") {
        TableSchema::parse(&start.schema)
            .map_err(|error| Fault::new(Blame::Malformed, format!("the schema: {error}")))?
    } else {
        node.schema_by_name(String::from_utf8_lossy(&start.schema).trim())?
    };
    Ok(Publication {
        agency: node.hosted_agency(&start.agency)?,
        name: start
            .name
            .parse()
            .map_err(|error| wrong(format!("{error}")))?,
        sharing: start.sharing.parse().map_err(wrong)?,
        title: text(start.title).or_else(|| schema.title().map(str::to_owned)),
        description: text(start.description).or_else(|| schema.description().map(str::to_owned)),
        schema,
        file: start.file,
        rejects,
        cancelled,
    })
}

async fn upload(node: &Node, requests: &mut Streaming<PublishRequest>) -> Result<Spooled, Fault> {
    let failed = |error: SpoolError| {
        let blame = match error {
            SpoolError::TooLarge(_) => Blame::LimitExceeded,
            SpoolError::Write(_) => Blame::Internal,
        };
        Fault::new(blame, error.to_string())
    };
    let mut spool =
        Spool::begin(&node.disk, &node.home.staging(), node.config.upload).map_err(failed)?;
    let mut bytes = 0;
    loop {
        match next(requests).await? {
            Some(publish_request::Part::Chunk(chunk)) => {
                bytes += chunk.len() as u64;
                spool.push(&chunk).map_err(failed)?;
            }
            Some(publish_request::Part::End(end)) if end.bytes == bytes => {
                return spool.finish().map_err(failed);
            }
            Some(publish_request::Part::End(_)) => {
                return Err(
                    Fault::new(Blame::Malformed, "the file changed while it was read")
                        .advise("publish it again when nothing writes to it"),
                );
            }
            _ => {
                return Err(Fault::new(
                    Blame::Cancelled,
                    "the upload was broken off; nothing was published",
                ));
            }
        }
    }
}

fn ingest_fault(error: &IngestError) -> Fault {
    let blame = match error {
        IngestError::Source { .. } | IngestError::Invalid(_) => Blame::Malformed,
        IngestError::Cancelled => Blame::Cancelled,
        IngestError::Read { .. } | IngestError::Write(_) | IngestError::Defect(_) => {
            Blame::Internal
        }
    };
    Fault::new(blame, error.to_string())
}

/// The rejects file on its way to the publisher; gone when dropped.
struct Rejects(PathBuf);

impl Rejects {
    fn new(node: &Node) -> Rejects {
        let name = format!(
            "rejects-{}.csv",
            jingwei_proto::digest::to_hex(&rand::random::<[u8; 8]>())
        );
        Rejects(node.home.staging().join(name))
    }
}

impl Drop for Rejects {
    fn drop(&mut self) {
        // Most publications have none.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn send_rejects(invalid: &Invalid, sender: &Sender) -> Result<(), Fault> {
    let first = invalid
        .first
        .iter()
        .map(|reject| RejectedCell {
            line: reject.place.number(),
            column: reject.violation.column.clone().unwrap_or_default(),
            value: reject.violation.value.clone(),
            rule: reject.violation.rule.clone(),
            message: reject.violation.message.clone(),
        })
        .collect();
    let mut message = RowsRejected {
        count: invalid.rows,
        first,
        rejects: Vec::new(),
        violations: invalid.count,
        listed: invalid.listed,
        fault: invalid
            .fault
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
    };
    let unreadable = |error: std::io::Error| {
        Fault::new(
            Blame::Internal,
            format!("the rejects cannot be read: {error}"),
        )
    };
    let file = invalid.rejects_file.as_ref().map(std::fs::File::open);
    let mut file = file.transpose().map_err(unreadable)?;
    loop {
        let mut chunk = Vec::new();
        if let Some(file) = &mut file {
            file.take(CHUNK as u64)
                .read_to_end(&mut chunk)
                .map_err(unreadable)?;
        }
        let last = chunk.is_empty();
        message.rejects = chunk;
        let part = publish_response::Part::Rejected(std::mem::take(&mut message));
        if sender
            .send(Ok(PublishResponse { part: Some(part) }))
            .await
            .is_err()
            || last
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(invalid: &Invalid) -> Vec<RowsRejected> {
        let (sender, mut receiver) = mpsc::channel(16);
        send_rejects(invalid, &sender).await.unwrap();
        drop(sender);
        let mut messages = Vec::new();
        while let Some(message) = receiver.recv().await {
            match message.unwrap().part {
                Some(publish_response::Part::Rejected(part)) => messages.push(part),
                other => panic!("{other:?}"),
            }
        }
        messages
    }

    #[tokio::test]
    async fn the_publisher_is_told_how_much_the_list_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejects.csv");
        std::fs::write(&path, "line,column\n").unwrap();
        let invalid = |rejects_file, listed| Invalid {
            file: "a.csv".into(),
            count: 7,
            rows: 5,
            first: Vec::new(),
            rejects_file,
            listed,
            fault: None,
        };
        let capped = sent(&invalid(Some(path), 3)).await;
        assert_eq!(
            (capped[0].count, capped[0].violations, capped[0].listed),
            (5, 7, 3)
        );
        assert_eq!(capped[0].rejects, b"line,column\n");
        let refused = sent(&invalid(None, 0)).await;
        assert_eq!(refused.len(), 1);
        assert_eq!(
            (refused[0].count, refused[0].violations, refused[0].listed),
            (5, 7, 0)
        );
        assert_eq!(refused[0].rejects, b"");
    }
}
