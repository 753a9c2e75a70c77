//! What a restart takes up from the newest records: the nonces in use, the answers that are not
//! acknowledged, and the acknowledgements that may not have arrived.

use std::collections::{HashMap, HashSet};

use jingwei_proto::time::Time;

use super::nonces::{LONGEST_LIFE, Nonces};
use super::record::{Kind, Record, Stored};

/// How long an answer waits for its acknowledgement, in seconds. After that it is forgotten here
/// and at a restart alike; the journal keeps it.
pub const WAIT: i64 = 600;

/// Acknowledgements that are taken up. Those that have not arrived are among the newest, since
/// a provider stops answering who does not acknowledge.
const MOST: usize = 2_048;

/// Messages of exchanges that a restart goes on with.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// The receipts of the last [`WAIT`] seconds that no acknowledgement follows.
    pub receipts: Vec<Record>,
    /// The newest acknowledgements of the last [`WAIT`] seconds, in their order.
    pub acknowledgements: Vec<Record>,
}

/// What the records tell, which are handed over from the newest to the oldest.
pub(super) struct Recent<'a> {
    nonces: &'a mut Nonces,
    now: Time,
    receipts: HashMap<String, Record>,
    /// Exchanges whose receipt is still to come. Since it comes soon, there are only ever few.
    acknowledged: HashSet<String>,
    /// From the newest on.
    acknowledgements: Vec<Record>,
}

impl<'a> Recent<'a> {
    /// Nothing but `nonces` yet.
    pub fn new(nonces: &'a mut Nonces, now: Time) -> Recent<'a> {
        Recent {
            nonces,
            now,
            receipts: HashMap::new(),
            acknowledged: HashSet::new(),
            acknowledgements: Vec::new(),
        }
    }

    /// Takes in the records of one segment. Whether older ones can matter, too.
    pub fn take(&mut self, records: Vec<Stored>) -> bool {
        let horizon = self.now.seconds() - LONGEST_LIFE;
        let mut older = records.is_empty();
        for stored in records.into_iter().rev() {
            older |= stored.record.time.seconds() >= horizon;
            if let Some(until) = stored.until {
                self.nonces.take(&stored.record.nonce, until);
            }
            match stored.record.kind {
                Kind::Receipt => self.receipt(stored.record),
                Kind::Acknowledgement => self.acknowledgement(stored.record),
                _ => {}
            }
        }
        older
    }

    fn receipt(&mut self, record: Record) {
        if !self.acknowledged.remove(&record.nonce) && self.waits(&record) {
            self.receipts.insert(record.nonce.clone(), record);
        }
    }

    /// Only at the turn of the year, whose halves are read one by one, is its receipt there yet.
    fn acknowledgement(&mut self, record: Record) {
        if self.receipts.remove(&record.nonce).is_none() {
            self.acknowledged.insert(record.nonce.clone());
        }
        if self.acknowledgements.len() < MOST && self.waits(&record) {
            self.acknowledgements.push(record);
        }
    }

    fn waits(&self, record: &Record) -> bool {
        record.time.seconds() >= self.now.seconds() - WAIT
    }

    /// What is unfinished, all records having been read.
    pub fn finish(mut self) -> Unfinished {
        self.nonces.forget(self.now);
        self.acknowledgements.reverse();
        Unfinished {
            receipts: self.receipts.into_values().collect(),
            acknowledgements: self.acknowledgements,
        }
    }
}
