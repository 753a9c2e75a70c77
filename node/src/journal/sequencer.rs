//! Puts the leaves of durable records into the journal's log, in their order, within a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jingwei_proto::checkpoint::{Checkpoint, CheckpointError};
use jingwei_proto::digest::Digest;
use jingwei_proto::key::Signer;
use jingwei_registry::log::{AppendError, Entry, Log, MAX_BATCH};
use tokio::sync::oneshot;

use super::JournalError;

/// How long a leaf waits for company: a commit costs some seven fsyncs, whatever its size.
const DELAY: Duration = Duration::from_secs(1);

/// What the sequencer is told.
pub(super) enum Order {
    /// Leaves of records that have become durable, the next in order.
    Leaves(Vec<Digest>),
    /// Sequence what is there now, and say how it went.
    Now(oneshot::Sender<Result<(), JournalError>>),
}

/// The writer of one year's log.
pub(super) struct Sequencer {
    pub log: Log,
    pub signer: Arc<dyn Signer>,
    /// Index of the first leaf that waits.
    pub next: u64,
    /// Leaves of durable records that the log may not have yet.
    pub waiting: VecDeque<Digest>,
}

impl Sequencer {
    /// Works until the writer of records is gone and nothing waits.
    pub fn run(mut self, orders: Receiver<Order>) {
        let mut due = Instant::now();
        let mut failed = false;
        loop {
            let order = if self.waiting.is_empty() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(due.saturating_duration_since(Instant::now()))
            };
            match order {
                Ok(Order::Leaves(leaves)) => {
                    if self.waiting.is_empty() {
                        due = Instant::now() + DELAY;
                    }
                    self.waiting.extend(leaves);
                    // Under load there is always an order, never a time-out: look at the clock.
                    let full = self.waiting.len() >= MAX_BATCH && !failed;
                    if !full && Instant::now() < due {
                        continue;
                    }
                    failed = !self.sequence_or_warn();
                }
                Ok(Order::Now(reply)) => {
                    let result = self.sequence();
                    failed = result.is_err();
                    let _ = reply.send(result);
                }
                Err(RecvTimeoutError::Timeout) => failed = !self.sequence_or_warn(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.sequence_or_warn();
                    return;
                }
            }
            due = Instant::now() + DELAY;
        }
    }

    /// Whether it went well.
    fn sequence_or_warn(&mut self) -> bool {
        let result = self.sequence();
        if let Err(error) = &result {
            tracing::warn!(%error, waiting = self.waiting.len(), "the journal's records are safe, but not yet in its log");
        }
        result.is_ok()
    }

    /// Appends all that waits. Where the log got a batch in although it reported a failure, its
    /// size says so, and [`Sequencer::align`] passes over those leaves.
    pub fn sequence(&mut self) -> Result<(), JournalError> {
        self.log.complete()?;
        self.log.publish_sealed()?;
        self.align();
        while !self.waiting.is_empty() {
            let batch: Vec<Entry> = self
                .waiting
                .iter()
                .take(MAX_BATCH)
                .map(|leaf| Entry {
                    leaf: leaf.0.to_vec(),
                    envelope: None,
                })
                .collect();
            let signer = &*self.signer;
            match self
                .log
                .append_and_publish(&batch, |checkpoint| seal(checkpoint, signer))
            {
                Ok(_) | Err(AppendError::Grown { .. }) => self.align(),
                Err(
                    AppendError::Storage(error)
                    | AppendError::Unfinished(error)
                    | AppendError::Fenced(error),
                ) => {
                    return Err(error.into());
                }
                Err(other) => return Err(JournalError::Unsequenced(other.to_string())),
            }
        }
        Ok(())
    }

    fn align(&mut self) {
        let size = self.log.size();
        while self.next < size && self.waiting.pop_front().is_some() {
            self.next += 1;
        }
    }
}

fn seal(checkpoint: &Checkpoint, signer: &dyn Signer) -> Result<String, CheckpointError> {
    Ok(checkpoint.sign(signer)?.to_string())
}
