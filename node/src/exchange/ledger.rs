//! What each requester has under way here, so that none can take more than its share.
//!
//! An answer counts from its first row until it is acknowledged, also one that was broken off:
//! whoever always breaks off after the last row must not read for nothing. The ledger itself is
//! not kept. After a restart it follows from the receipts in the journals, so that a late
//! acknowledgement is still taken and nobody gets a fresh allowance by waiting for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::{AnswerDigest, Outcome, Predicate, Receipt, Statement};
use jingwei_proto::time::Time;
use jingwei_proto::words::counted;
use jingwei_registry::fault::{Blame, Fault};

use crate::config::ExchangeLimits;
use crate::journal::{Record, WAIT};

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

/// An answer that waits for its acknowledgement. It is forgotten after [`WAIT`] seconds: the
/// journal keeps it, and a requester must not be locked out for ever by one lost connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The receipt's digest, which the acknowledgement names.
    pub receipt: Digest,
    /// What was sent.
    pub answer: AnswerDigest,
    /// When.
    pub since: Time,
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
    /// Takes up the receipts in the journal of `agency`; those that it received from others are
    /// passed over.
    pub fn resume(&self, agency: &AgencyId, receipts: &[Record]) {
        for record in receipts {
            if let Some((requester, waiting)) = sent_by(agency, record) {
                self.sent(&requester, &record.nonce, waiting);
            }
        }
    }

    /// Lets one more answer to `requester` begin, or says why not.
    pub fn begin(
        self: &Arc<Ledger>,
        requester: &AgencyId,
        limits: &ExchangeLimits,
        now: Time,
    ) -> Result<Place, Fault> {
        let overloaded = |reason: String| Fault::new(Blame::Overloaded, reason);
        let answers = |number: usize| {
            let (one, more) = (
                format!("answer to {requester} is"),
                format!("answers to {requester} are"),
            );
            counted(number as u64, &one, &more)
        };
        let mut requesters = self.lock();
        let account = requesters.entry(requester.clone()).or_default();
        account.forget(now);
        let waiting = account.waiting.len();
        if waiting >= limits.unacknowledged {
            return Err(
                overloaded(format!("{} not acknowledged", answers(waiting)))
                    .advise("acknowledge them first; those that were broken off are forgotten after ten minutes")
                    .retry_after(Duration::from_secs(10)),
            );
        }
        let running = account.running;
        if running >= limits.concurrent {
            return Err(overloaded(format!("{} under way", answers(running)))
                .retry_after(Duration::from_secs(1)));
        }
        if !account.take_token(limits.rate) {
            let rate = limits.rate;
            return Err(
                overloaded(format!("{requester} asks more than {rate} times a second"))
                    .retry_after(Duration::from_secs(1)),
            );
        }
        account.running += 1;
        Ok(Place {
            ledger: self.clone(),
            requester: requester.clone(),
        })
    }

    /// Notes an answer that was sent, until it is acknowledged.
    pub fn sent(&self, requester: &AgencyId, nonce: &str, waiting: Waiting) {
        let mut requesters = self.lock();
        let account = requesters.entry(requester.clone()).or_default();
        account.waiting.insert(nonce.to_owned(), waiting);
    }

    /// The answer that waits for an acknowledgement.
    pub fn expected(&self, requester: &AgencyId, nonce: &str) -> Option<Waiting> {
        let requesters = self.lock();
        requesters.get(requester)?.waiting.get(nonce).cloned()
    }

    /// Strikes off an answer that has been acknowledged. Of several who do so at once only one
    /// gets it, who gives it back by [`Ledger::sent`] if the acknowledgement does not become
    /// durable.
    pub fn acknowledged(&self, requester: &AgencyId, nonce: &str) -> Option<Waiting> {
        self.lock().get_mut(requester)?.waiting.remove(nonce)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgencyId, Account>> {
        // Counters are right after every single step, whoever panicked between two.
        self.requesters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// To whom the agency sent this receipt and what it is for; `None` if it was sent by another.
fn sent_by(agency: &AgencyId, record: &Record) -> Option<(AgencyId, Waiting)> {
    let envelope = Envelope::parse(&record.body).ok()?;
    let statement = Statement::parse(envelope.payload()).ok()?;
    let Predicate::Receipt(receipt) = statement.predicate else {
        return None;
    };
    if statement.head.agency.as_ref() != Some(agency) || !counts(&receipt) {
        return None;
    }
    let waiting = Waiting {
        receipt: envelope.payload_digest(),
        answer: receipt.answer,
        since: record.time,
    };
    Some((receipt.audience, waiting))
}

/// Whether an answer is to be acknowledged: a whole one, and of one that was broken off any rows.
pub fn counts(receipt: &Receipt) -> bool {
    receipt.outcome == Outcome::Complete || receipt.answer.rows > 0
}

impl Account {
    fn forget(&mut self, now: Time) {
        let horizon = now.seconds() - WAIT;
        self.waiting
            .retain(|_, waiting| waiting.since.seconds() >= horizon);
    }

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
    use jingwei_proto::id::FederationId;
    use jingwei_proto::key::SecretKey;
    use jingwei_proto::statement::Head;

    use super::*;
    use crate::journal::Kind;

    fn agency() -> AgencyId {
        "fr.bre".parse().unwrap()
    }

    fn now() -> Time {
        "2024-06-01T12:00:00Z".parse().unwrap()
    }

    fn limits(unacknowledged: usize) -> ExchangeLimits {
        ExchangeLimits {
            concurrent: 2,
            unacknowledged,
            rate: 1_000,
        }
    }

    fn waiting(rows: u64) -> Waiting {
        let answer = AnswerDigest {
            digest: Digest::of(b""),
            rows,
            bytes: 0,
        };
        Waiting {
            receipt: Digest::of(b"receipt"),
            answer,
            since: now(),
        }
    }

    #[test]
    fn shares_are_limited_and_given_back() {
        let ledger = Arc::new(Ledger::default());
        let begin = |at| ledger.begin(&agency(), &limits(1), at);
        let first = begin(now()).unwrap();
        let _second = begin(now()).unwrap();
        assert_eq!(begin(now()).err().unwrap().blame, Blame::Overloaded);
        drop(first);
        assert!(begin(now()).is_ok());
        ledger.sent(&agency(), "n", waiting(1));
        assert!(begin(now()).is_err());
        assert_eq!(ledger.expected(&agency(), "n"), Some(waiting(1)));
        assert_eq!(ledger.acknowledged(&agency(), "n"), Some(waiting(1)));
        assert_eq!(ledger.acknowledged(&agency(), "n"), None, "once");
        assert!(begin(now()).is_ok());
        // Nobody is locked out for ever.
        ledger.sent(&agency(), "m", waiting(1));
        assert!(begin(now().plus(WAIT)).is_err());
        assert!(begin(now().plus(WAIT + 1)).is_ok());
    }

    #[test]
    fn it_follows_from_the_receipts_that_were_sent() {
        let (own, key) = ("cn.stats".parse().unwrap(), SecretKey::from_seed(&[7; 32]));
        let receipt = |from: &AgencyId, nonce: &str, rows, outcome| {
            let receipt = Receipt {
                nonce: nonce.to_owned(),
                audience: agency(),
                outcome,
                answer: waiting(rows).answer,
            };
            let head = Head {
                federation: FederationId::new("test", [0; 8]).unwrap(),
                agency: Some(from.clone()),
                time: now(),
                sequence: 3,
                previous: Some(Digest::of(b"acceptance")),
            };
            let statement = Statement {
                head,
                predicate: Predicate::Receipt(receipt),
            };
            Record {
                time: now(),
                kind: Kind::Receipt,
                nonce: nonce.to_owned(),
                body: statement.sign(&key).to_bytes().into(),
            }
        };
        let (a, b, c, d) = (
            "a".repeat(32),
            "b".repeat(32),
            "c".repeat(32),
            "d".repeat(32),
        );
        let records = [
            receipt(&own, &a, 1, Outcome::Complete),
            receipt(&own, &b, 1, Outcome::Aborted),
            receipt(&own, &c, 0, Outcome::Aborted),
            receipt(&agency(), &d, 1, Outcome::Complete),
        ];
        let digest = Envelope::parse(&records[0].body).unwrap().payload_digest();
        let ledger = Ledger::default();
        ledger.resume(&own, &records);
        let found = |nonce: &str| ledger.expected(&agency(), nonce);
        assert_eq!(found(&a).unwrap().receipt, digest);
        assert!(found(&b).is_some(), "a broken off answer counts");
        assert!(found(&c).is_none(), "one without rows does not");
        assert!(found(&d).is_none(), "nor does what was received");
        let ledger = Arc::new(ledger);
        assert!(ledger.begin(&agency(), &limits(2), now()).is_err());
        assert!(ledger.begin(&agency(), &limits(3), now()).is_ok());
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
            .filter(|_| ledger.begin(&agency(), &limits, now()).is_ok())
            .count();
        assert_eq!(begun, 3);
    }
}
