//! What each requester has under way here, so that none can take more than its share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jingwei_proto::digest::Digest;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::AnswerDigest;
use jingwei_registry::fault::{Blame, Fault};

use crate::config::ExchangeLimits;

/// Answers that wait for their acknowledgement are forgotten after this time: the journal
/// keeps them, and a requester must not be locked out for ever by one lost connection.
const FORGET: Duration = Duration::from_secs(600);

/// Counts what is under way, for each requester.
#[derive(Default)]
pub struct Ledger {
    requesters: Mutex<HashMap<AgencyId, Account>>,
}

#[derive(Default)]
struct Account {
    running: usize,
    waiting: HashMap<String, Waiting>,
    tokens: f64,
    refilled: Option<Instant>,
}

struct Waiting {
    receipt: Digest,
    answer: AnswerDigest,
    since: Instant,
}

/// A place among a requester's running answers, given back when dropped.
pub struct Place {
    ledger: Arc<Ledger>,
    requester: AgencyId,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(account) = self.ledger.lock().get_mut(&self.requester) {
            account.running = account.running.saturating_sub(1);
        }
    }
}

impl Ledger {
    /// Lets one more answer to `requester` begin, or says why not.
    pub fn begin(
        self: &Arc<Ledger>,
        requester: &AgencyId,
        limits: &ExchangeLimits,
    ) -> Result<Place, Fault> {
        let mut requesters = self.lock();
        let account = requesters.entry(requester.clone()).or_default();
        account
            .waiting
            .retain(|_, waiting| waiting.since.elapsed() < FORGET);
        if account.waiting.len() >= limits.unacknowledged {
            return Err(Fault::new(
                Blame::Overloaded,
                format!(
                    "{} answers to {requester} are not acknowledged",
                    account.waiting.len()
                ),
            )
            .advise("acknowledge them first")
            .retry_after(Duration::from_secs(10)));
        }
        if account.running >= limits.concurrent {
            return Err(Fault::new(
                Blame::Overloaded,
                format!("{} answers to {requester} are under way", account.running),
            )
            .retry_after(Duration::from_secs(1)));
        }
        if !account.take_token(limits.rate) {
            return Err(Fault::new(
                Blame::Overloaded,
                format!("{requester} asks more than {} times a second", limits.rate),
            )
            .retry_after(Duration::from_secs(1)));
        }
        account.running += 1;
        Ok(Place {
            ledger: self.clone(),
            requester: requester.clone(),
        })
    }

    /// Notes an answer that was sent, until it is acknowledged.
    pub fn sent(&self, requester: &AgencyId, nonce: &str, receipt: Digest, answer: AnswerDigest) {
        let waiting = Waiting {
            receipt,
            answer,
            since: Instant::now(),
        };
        self.lock()
            .entry(requester.clone())
            .or_default()
            .waiting
            .insert(nonce.to_owned(), waiting);
    }

    /// The receipt's digest and the answer that wait for an acknowledgement.
    pub fn expected(&self, requester: &AgencyId, nonce: &str) -> Option<(Digest, AnswerDigest)> {
        let requesters = self.lock();
        let waiting = requesters.get(requester)?.waiting.get(nonce)?;
        Some((waiting.receipt, waiting.answer.clone()))
    }

    /// Strikes off an answer that has been acknowledged.
    pub fn acknowledged(&self, requester: &AgencyId, nonce: &str) {
        if let Some(account) = self.lock().get_mut(requester) {
            account.waiting.remove(nonce);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgencyId, Account>> {
        // Counters are right after every single step, whoever panicked between two.
        self.requesters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// A bucket that holds one second's worth of requests.
    fn take_token(&mut self, rate: u32) -> bool {
        let rate = f64::from(rate.max(1));
        let now = Instant::now();
        let gained = self
            .refilled
            .map_or(rate, |then| now.duration_since(then).as_secs_f64() * rate);
        self.tokens = (self.tokens + gained).min(rate);
        self.refilled = Some(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agency() -> AgencyId {
        "fr.bre".parse().unwrap()
    }

    #[test]
    fn shares_are_limited_and_given_back() {
        let ledger = Arc::new(Ledger::default());
        let limits = ExchangeLimits {
            concurrent: 2,
            unacknowledged: 1,
            rate: 1_000,
        };
        let first = ledger.begin(&agency(), &limits).unwrap();
        let _second = ledger.begin(&agency(), &limits).unwrap();
        assert_eq!(
            ledger.begin(&agency(), &limits).err().unwrap().blame,
            Blame::Overloaded
        );
        drop(first);
        assert!(ledger.begin(&agency(), &limits).is_ok());
        let answer = AnswerDigest {
            digest: Digest::of(b""),
            rows: 0,
            bytes: 0,
        };
        ledger.sent(&agency(), "n", Digest::of(b"receipt"), answer.clone());
        assert!(ledger.begin(&agency(), &limits).is_err());
        assert_eq!(
            ledger.expected(&agency(), "n"),
            Some((Digest::of(b"receipt"), answer))
        );
        ledger.acknowledged(&agency(), "n");
        assert!(ledger.begin(&agency(), &limits).is_ok());
    }

    #[test]
    fn a_burst_is_cut_off() {
        let ledger = Arc::new(Ledger::default());
        let limits = ExchangeLimits {
            concurrent: 100,
            unacknowledged: 100,
            rate: 3,
        };
        let begun = (0..10)
            .filter(|_| ledger.begin(&agency(), &limits).is_ok())
            .count();
        assert_eq!(begun, 3);
    }
}
