//! Records as they were read, while the index stands where it does: every entry asks for the root
//! and its signer, and every submission for its signer again.

use std::any::Any;
use std::collections::HashMap;

use jingwei_proto::state::Record;

/// Records that are kept: more than the agencies that are busy at once.
const MOST: usize = 1_024;
/// Bytes of the largest that is kept. A manifest with a schema, or a territory of thousands of codes,
/// may be far larger, and what is kept takes a few times its length.
const LARGEST: usize = 4 << 10;

/// Records of one state of the index, by key.
#[derive(Default)]
pub(super) struct Kept {
    writes: u64,
    records: HashMap<String, Box<dyn Any + Send>>,
}

impl Kept {
    /// Forgets what is of an earlier state, and everything when it has become too much.
    pub fn keep_to(&mut self, writes: u64) {
        if self.writes != writes || self.records.len() >= MOST {
            self.records.clear();
            self.writes = writes;
        }
    }

    /// The record under `key`, if it is kept.
    pub fn find<T: Record>(&self, key: &str) -> Option<T> {
        self.records.get(key)?.downcast_ref().cloned()
    }

    /// Keeps a record of so many bytes, unless it is a large one.
    pub fn add<T: Record>(&mut self, key: &str, bytes: usize, record: &T) {
        if bytes <= LARGEST {
            self.records
                .insert(key.to_owned(), Box::new(record.clone()));
        }
    }
}
