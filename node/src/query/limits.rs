//! What one query may use, checked between batches.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use jingwei_proto::words::rows;
use tokio::time::{Instant, Sleep};

use super::seats::Seat;

/// The bounds of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that sorting, grouping and joining may hold at once.
    pub memory: usize,
    /// From the start of planning to the last row.
    pub time: Duration,
    /// Rows of the answer.
    pub rows: u64,
    /// Bytes of the answer's columns in memory.
    pub bytes: u64,
}

impl Default for Limits {
    /// Enough for a table of a whole country's communes or a year's flights, and too little to
    /// take down a small server.
    fn default() -> Limits {
        Limits {
            memory: 256 << 20,
            time: Duration::from_secs(60),
            rows: 10_000_000,
            bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// The moment at which a query that starts now must be done.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.time
    }
}

/// A bound that a query ran into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// More memory for sorting, grouping or joining than [`Limits::memory`].
    #[error(
        "it needs more memory than it may use; filter earlier, group by fewer keys, or raise the memory limit"
    )]
    Memory,
    /// Not done within [`Limits::time`].
    #[error("it was not done within {0:?}; ask for less, or raise the time limit")]
    Time(Duration),
    /// More rows than [`Limits::rows`].
    #[error(
        "the answer has more than {}; add a WHERE or a LIMIT, or raise the row limit",
        rows(*.0)
    )]
    Rows(u64),
    /// More bytes than [`Limits::bytes`].
    #[error("the answer has more than {0} bytes; ask for fewer columns or rows")]
    Bytes(u64),
    /// The other queries of this node leave too little memory.
    #[error("the other queries that run at this node leave too little memory for it")]
    Crowded,
    /// No seat became free in time.
    #[error("too many queries run at this node")]
    Seats,
}

impl Exceeded {
    /// Whether the node's load is at fault, and not the query: then it may go later.
    pub fn passes(&self) -> bool {
        matches!(self, Exceeded::Crowded | Exceeded::Seats)
    }
}

/// When to come back to a node that is busy.
pub const BUSY: Duration = Duration::from_secs(1);

/// `stream`, ended by an [`Exceeded`] once it runs past a limit or the deadline. Dropping it
/// drops the plan that runs below and gives the seat back.
pub fn bounded(
    stream: SendableRecordBatchStream,
    limits: &Limits,
    deadline: Instant,
    seat: Seat,
) -> SendableRecordBatchStream {
    Box::pin(Bounded {
        schema: stream.schema(),
        stream: Some((stream, seat)),
        deadline,
        timer: Box::pin(tokio::time::sleep_until(deadline)),
        limits: limits.clone(),
        rows: 0,
        bytes: 0,
    })
}

struct Bounded {
    schema: SchemaRef,
    /// `None` once ended, so that a broken query lets go of its memory at once.
    stream: Option<(SendableRecordBatchStream, Seat)>,
    deadline: Instant,
    /// Wakes a query that waits; the deadline itself is looked at before each batch.
    timer: Pin<Box<Sleep>>,
    limits: Limits,
    rows: u64,
    bytes: u64,
}

impl Bounded {
    fn admit(&mut self, batch: &RecordBatch) -> Result<(), Exceeded> {
        self.rows += batch.num_rows() as u64;
        self.bytes += size(batch);
        if self.rows > self.limits.rows {
            return Err(Exceeded::Rows(self.limits.rows));
        }
        if self.bytes > self.limits.bytes {
            return Err(Exceeded::Bytes(self.limits.bytes));
        }
        Ok(())
    }

    fn fail(&mut self, exceeded: Exceeded) -> Poll<Option<Result<RecordBatch>>> {
        self.stream = None;
        Poll::Ready(Some(Err(DataFusionError::External(Box::new(exceeded)))))
    }
}

impl Stream for Bounded {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.stream.is_none() {
            return Poll::Ready(None);
        }
        if Instant::now() >= self.deadline || self.timer.as_mut().poll(cx).is_ready() {
            let time = self.limits.time;
            return self.fail(Exceeded::Time(time));
        }
        let Some((stream, _)) = &mut self.stream else {
            return Poll::Ready(None);
        };
        match ready!(stream.poll_next_unpin(cx)) {
            Some(Ok(batch)) => match self.admit(&batch) {
                Ok(()) => Poll::Ready(Some(Ok(batch))),
                Err(exceeded) => self.fail(exceeded),
            },
            other => {
                self.stream = None;
                Poll::Ready(other)
            }
        }
    }
}

impl RecordBatchStream for Bounded {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The bytes of a batch's own rows, whatever buffers they share with other batches.
fn size(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter();
    sizes
        .map(|column| {
            column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or(usize::MAX) as u64
        })
        .fold(0, u64::saturating_add)
}
