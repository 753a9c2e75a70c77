//! All that is committed to a log, read without locking or changing anything, also where its writer
//! was killed before the newest batch was in the tiles: then that is read from the staging.

use std::ops::Range;
use std::sync::Arc;

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;

use super::batch::Batch;
use super::commit::Commits;
use super::reader::Head;
use super::{Entry, LogError, LogReader, Storage, staged_batch};

/// A log up to its newest commit.
pub struct Stored {
    checkpoint: Checkpoint,
    /// What is in the tiles for certain.
    tiles: LogReader,
    /// The newest batch.
    batch: Option<Batch<'static>>,
}

impl Stored {
    /// The log in `storage`; `None` where nothing is committed.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Option<Stored>, LogError> {
        let Some(commit) = Commits::new(storage.clone()).newest()? else {
            return Ok(None);
        };
        let batch = staged_batch(&*storage, &commit)?;
        let checkpoint = commit.checkpoint();
        let size = batch.as_ref().map_or(checkpoint.size, |batch| batch.before);
        let head = Head {
            checkpoint: Checkpoint::new(checkpoint.origin.clone(), size, checkpoint.root),
            note: None,
        };
        Ok(Some(Stored {
            checkpoint,
            tiles: LogReader::new(storage, head),
            batch,
        }))
    }

    /// The newest committed checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The entries of a range.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Entry>, LogError> {
        let size = self.checkpoint.size;
        if range.end > size {
            return Err(LogError::Beyond {
                asked: range.end,
                size,
            });
        }
        let border = self.tiles.size().clamp(range.start, range.end);
        let leaves = self.tiles.leaves(range.start..border)?;
        let envelopes = self.tiles.envelopes(range.start..border)?;
        let in_tiles = leaves.zip(envelopes).map(|(leaf, envelope)| {
            let (leaf, envelope) = (leaf?, Some(envelope?));
            Ok(Entry { leaf, envelope })
        });
        let mut entries: Vec<Entry> = in_tiles.collect::<Result<_, LogError>>()?;
        if let Some(batch) = &self.batch {
            let staged = (batch.before..).zip(&*batch.entries);
            let wanted = staged.filter(|(at, _)| (border..range.end).contains(at));
            entries.extend(wanted.map(|(_, entry)| entry.clone()));
        }
        Ok(entries)
    }

    /// The root that the log had at a size; `None` beyond what is in the tiles for certain.
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        self.tiles.root_at(size).ok()
    }
}
