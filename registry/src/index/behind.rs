//! The index follows the log by one batch: while it takes one in, the next is committed, and the one
//! after that is admitted on top of both.
//!
//! ```text
//! batch k    admitted ─► committed ─► handed over ─► in the index
//! batch k+1              admitted ──► committed ───► handed over, once k is in ─► …
//! batch k+2                           admitted ────► committed ─► …
//! ```

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::batch::{Batch, Layer};
use super::{Index, IndexError};

/// A thread that brings an index to what has been committed.
pub struct Behind {
    index: Index,
    batches: Option<SyncSender<(Batch, u64)>>,
    done: Receiver<Result<(), IndexError>>,
    /// What it is taking in, and the size that the index then has.
    under_way: Option<(Arc<Layer>, u64)>,
    thread: Option<JoinHandle<()>>,
}

impl Behind {
    /// Starts the thread, which ends with this, after what it has been handed.
    pub fn start(index: Index) -> io::Result<Behind> {
        let (batches, handed) = sync_channel::<(Batch, u64)>(1);
        let (told, done) = sync_channel(1);
        let work = move || {
            for (batch, size) in handed {
                if told.send(batch.write(size)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("index".into());
        Ok(Behind {
            index,
            batches: Some(batches),
            done,
            under_way: None,
            thread: Some(thread.spawn(work)?),
        })
    }

    /// An empty batch on top of all that has been handed over.
    pub fn batch(&mut self) -> Result<Batch, IndexError> {
        let base = self.size()?;
        let below = self.under_way.iter().map(|(layer, _)| layer.clone());
        Ok(Batch {
            below: below.collect(),
            base,
            ..Batch::new(&self.index)
        })
    }

    /// The entries that the index has or is taking in.
    pub fn size(&mut self) -> Result<u64, IndexError> {
        if let Ok(written) = self.done.try_recv() {
            self.under_way = None;
            if let Err(error) = written {
                tracing::error!(%error, "the index could not be written");
            }
        }
        match &self.under_way {
            Some((_, size)) => Ok(*size),
            None => self.index.size(),
        }
    }

    /// Hands over a batch of [`Behind::batch`], or one on top of the batch handed over last, with which the index is to stand at `size`.
    ///
    /// # Errors
    /// If the batch before it could not be written: then this one is not, either.
    pub fn hand_over(&mut self, batch: Batch, size: u64) -> Result<(), IndexError> {
        self.settle()?;
        // What it was admitted on has to be there, or there would be a hole that nobody sees.
        if self.index.size()? != batch.base {
            return Err(self.index.stopped());
        }
        let layer = batch.layer.clone();
        let handed = self.batches.as_ref();
        if handed.is_none_or(|batches| batches.send((batch, size)).is_err()) {
            return Err(self.index.stopped());
        }
        self.under_way = Some((layer, size));
        Ok(())
    }

    /// Waits until the index has all that was handed over.
    pub fn settle(&mut self) -> Result<(), IndexError> {
        match self.under_way.take() {
            Some(_) => self
                .done
                .recv()
                .unwrap_or_else(|_| Err(self.index.stopped())),
            None => Ok(()),
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            tracing::error!(%error, "the index could not be written; the next start brings it up");
        }
        self.batches = None;
        // Whoever opens the index next finds it let go of.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
