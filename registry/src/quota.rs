//! Who pays for a statement, and what each may enter: outside the rules of the log, which know
//! no clock, and so each registry's own business.
//!
//! A statement is its signer's once its signature has been verified with the key that the log
//! lists, so nobody spends another's. Whoever cannot be told so pays as a stranger, by address.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::AgencyId;
use jingwei_proto::key::PublicKey;
use jingwei_proto::state::{KeyRecord, Purpose};

use crate::fault::{Blame, Fault};
use crate::index::{Index, IndexError};
use crate::meter::{Meter, Rate};
use crate::queue::QueueLimits;
use crate::settings::{ByteSize, Settings};
use crate::visitors::Network;

/// Seconds of statements that may come at once.
const BURST: u32 = 5;

/// Parties that are remembered; each is forgotten when its meters are at rest.
const MOST: usize = 65_536;

/// Between two searches for parties that can be forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// The smallest queue in which the largest statement finds room.
const LEAST_QUEUE: usize = 2 << 20;

/// What may be submitted to a registry.
#[derive(Debug, Clone)]
pub struct SubmitLimits {
    /// What may wait for the writer.
    pub queue: QueueLimits,
    /// Statements a second of one agency.
    pub rate: u32,
    /// Statements a second that no agency has verifiably signed, from one address.
    pub strangers: u32,
    /// Statements a day of one agency.
    pub statements_a_day: Option<u64>,
    /// Bytes of statements a day of one agency.
    pub bytes_a_day: Option<u64>,
}

impl Default for SubmitLimits {
    /// More than a small machine can enter: what keeps agencies apart is the fair queue, and the
    /// rates are for those who want them lower.
    fn default() -> SubmitLimits {
        SubmitLimits {
            queue: QueueLimits {
                statements: 16_384,
                bytes: 64 << 20,
            },
            rate: 20_000,
            strangers: 200,
            statements_a_day: None,
            bytes_a_day: None,
        }
    }
}

impl SubmitLimits {
    /// Reads the settings `submit.…`.
    pub fn read(settings: &mut Settings) -> SubmitLimits {
        let default = SubmitLimits::default();
        let bytes = settings.get("submit.queue_bytes", ByteSize(default.queue.bytes as u64));
        let limits = SubmitLimits {
            queue: QueueLimits {
                statements: settings.get("submit.queue", default.queue.statements),
                bytes: usize::try_from(bytes.0).unwrap_or(usize::MAX),
            },
            rate: settings.get("submit.rate", default.rate),
            strangers: settings.get("submit.strangers", default.strangers),
            statements_a_day: settings.optional("submit.statements_a_day"),
            bytes_a_day: settings
                .optional("submit.bytes_a_day")
                .map(|ByteSize(bytes)| bytes),
        };
        if limits.queue.bytes < LEAST_QUEUE {
            settings.refuse("submit.queue_bytes", "2MiB or more");
        }
        for (key, value, least) in [
            ("submit.queue", limits.queue.statements as u64, 2),
            ("submit.rate", limits.rate.into(), 1),
            ("submit.strangers", limits.strangers.into(), 1),
            (
                "submit.statements_a_day",
                limits.statements_a_day.unwrap_or(1),
                1,
            ),
            ("submit.bytes_a_day", limits.bytes_a_day.unwrap_or(1), 1),
        ] {
            if value < least {
                settings.refuse(key, format!("a whole number from {least}"));
            }
        }
        limits
    }
}

/// Who pays for a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payer {
    /// The registry's keepers: it came from within the process.
    Keepers,
    /// The agency whose signature it bears.
    Agency(AgencyId),
    /// Whoever connects from there.
    Stranger(Network),
}

/// The agency whose key in force has signed an envelope.
pub struct Signer {
    /// The agency.
    pub agency: AgencyId,
    /// Its key.
    pub key: PublicKey,
}

/// The signer of an envelope, verified; `None` if the index lists no such key, or a former one,
/// or the signature is not by it. What is to be said of such an envelope is the rules' to say.
pub fn signer(index: &Index, envelope: &Envelope) -> Result<Option<Signer>, IndexError> {
    let Some(KeyRecord {
        key,
        purpose: Purpose::Agency(agency),
    }) = index.key(envelope.key())?
    else {
        return Ok(None);
    };
    let record = index.agency(&agency)?;
    let in_force = record.is_some_and(|record| record.key == key);
    Ok((in_force && envelope.verify(&key).is_ok()).then_some(Signer { agency, key }))
}

/// Verifies envelopes together, as far as the index lists their keys: what [`signer`] and the rules
/// then ask of each, they find answered.
pub fn verify_together<'a>(
    index: &Index,
    envelopes: impl Iterator<Item = &'a Envelope>,
) -> Result<(), IndexError> {
    let mut signed = Vec::new();
    for envelope in envelopes {
        if let Some(KeyRecord { key, .. }) = index.key(envelope.key())? {
            signed.push((envelope, key));
        }
    }
    let pairs: Vec<_> = signed
        .iter()
        .map(|(envelope, key)| (*envelope, key))
        .collect();
    Envelope::verify_together(&pairs);
    Ok(())
}

/// What every payer has used.
pub struct Quotas {
    state: Mutex<State>,
}

struct State {
    rates: Rates,
    accounts: HashMap<Payer, Account>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Rates {
    agency: Rate,
    stranger: Rate,
    statements: Option<Rate>,
    bytes: Option<Rate>,
}

struct Account {
    rate: Meter,
    statements: Meter,
    bytes: Meter,
}

impl Quotas {
    /// Nobody has used anything.
    pub fn new(limits: &SubmitLimits) -> Quotas {
        Quotas {
            state: Mutex::new(State {
                rates: Rates::of(limits),
                accounts: HashMap::new(),
                swept: None,
            }),
        }
    }

    /// Sets other limits, for what comes from now on.
    pub fn limit(&self, limits: &SubmitLimits) {
        self.state().rates = Rates::of(limits);
    }

    /// Charges one statement, or says why not and when to come back.
    pub fn charge(&self, payer: &Payer, bytes: u64, now: Instant) -> Result<(), Fault> {
        if *payer == Payer::Keepers {
            return Ok(());
        }
        let mut state = self.state();
        state.sweep(now);
        let rates = state.rates;
        let full = state.accounts.len() >= MOST && !state.accounts.contains_key(payer);
        if full && matches!(payer, Payer::Stranger(_)) {
            return Err(overdrawn(payer, "statements", SWEEP));
        }
        let account = state.accounts.entry(payer.clone()).or_insert(Account {
            rate: Meter::new(now),
            statements: Meter::new(now),
            bytes: Meter::new(now),
        });
        account.charge(payer, &rates, bytes, now)
    }

    /// Gives back the day's share of a statement that was not entered. The second's share stays
    /// spent: it was looked at.
    pub fn give_back(&self, payer: &Payer, bytes: u64) {
        let mut state = self.state();
        let rates = state.rates;
        let (Payer::Agency(_), Some(account)) = (payer, state.accounts.get_mut(payer)) else {
            return;
        };
        if let Some(rate) = &rates.statements {
            account.statements.give_back(rate, 1);
        }
        if let Some(rate) = &rates.bytes {
            account.bytes.give_back(rate, bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A charge is complete or not begun, whoever panicked between two.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rates {
    fn of(limits: &SubmitLimits) -> Rates {
        Rates {
            agency: Rate::per_second(limits.rate, BURST),
            stranger: Rate::per_second(limits.strangers, BURST),
            statements: limits.statements_a_day.map(Rate::per_day),
            bytes: limits.bytes_a_day.map(Rate::per_day),
        }
    }
}

impl State {
    fn sweep(&mut self, now: Instant) {
        let due = self.accounts.len() >= MOST / 2
            && self
                .swept
                .is_none_or(|then| now.saturating_duration_since(then) >= SWEEP);
        if due {
            self.swept = Some(now);
            self.accounts.retain(|_, account| {
                let meters = [&account.rate, &account.statements, &account.bytes];
                !meters.iter().all(|meter| meter.is_at_rest(now))
            });
        }
    }
}

impl Account {
    fn charge(
        &mut self,
        payer: &Payer,
        rates: &Rates,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Fault> {
        let agency = matches!(payer, Payer::Agency(_));
        let day = |rate: Option<Rate>| rate.filter(|_| agency);
        // First whether all can be paid, then all: what is refused costs nothing.
        if let Some(rate) = day(rates.statements) {
            let wait = self.statements.wait(&rate, 1, now);
            refuse(payer, "statements of this day", wait)?;
        }
        if let Some(rate) = day(rates.bytes) {
            let wait = self.bytes.wait(&rate, bytes, now);
            refuse(payer, "bytes of this day", wait)?;
        }
        let rate = if agency {
            &rates.agency
        } else {
            &rates.stranger
        };
        self.rate
            .take(rate, 1, now)
            .map_err(|wait| overdrawn(payer, "statements of this second", wait))?;
        for (meter, rate, units) in [
            (&mut self.statements, day(rates.statements), 1),
            (&mut self.bytes, day(rates.bytes), bytes),
        ] {
            if let Some(rate) = rate {
                // It was asked above whether it can be taken.
                let _ = meter.take(&rate, units, now);
            }
        }
        Ok(())
    }
}

fn refuse(payer: &Payer, what: &str, wait: Duration) -> Result<(), Fault> {
    match wait.is_zero() {
        true => Ok(()),
        false => Err(overdrawn(payer, what, wait)),
    }
}

fn overdrawn(payer: &Payer, what: &str, wait: Duration) -> Fault {
    let fault = match payer {
        Payer::Agency(agency) => Fault::new(
            Blame::Overloaded,
            format!("its {what} at this registry are used up"),
        )
        .at(agency),
        Payer::Stranger(_) | Payer::Keepers => Fault::new(
            Blame::Overloaded,
            format!("the {what} that come unsigned from this address are used up"),
        ),
    };
    metrics::counter!("jingwei_registry_overloaded_total", "reason" => "quota").increment(1);
    fault.retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agency(id: &str) -> Payer {
        Payer::Agency(id.parse().unwrap())
    }

    fn stranger() -> Payer {
        Payer::Stranger(std::net::IpAddr::from([192, 0, 2, 1]).into())
    }

    fn limits() -> SubmitLimits {
        SubmitLimits {
            rate: 2,
            strangers: 1,
            statements_a_day: Some(20),
            bytes_a_day: Some(1_000),
            ..SubmitLimits::default()
        }
    }

    fn charged(quotas: &Quotas, payer: &Payer, bytes: u64, now: Instant) -> usize {
        (0..1_000)
            .take_while(|_| quotas.charge(payer, bytes, now).is_ok())
            .count()
    }

    #[test]
    fn each_pays_for_itself() {
        let (quotas, now) = (Quotas::new(&limits()), Instant::now());
        assert_eq!(charged(&quotas, &agency("fr"), 1, now), 10);
        assert_eq!(charged(&quotas, &agency("cn"), 1, now), 10);
        assert_eq!(charged(&quotas, &stranger(), 1, now), 5);
        assert_eq!(charged(&quotas, &Payer::Keepers, 1, now), 1_000);
        let fault = quotas.charge(&agency("fr"), 1, now).unwrap_err();
        assert_eq!(fault.blame, Blame::Overloaded);
        let pause = fault.retry_after.unwrap();
        assert_eq!(pause, Duration::from_millis(500));
        quotas.charge(&agency("fr"), 1, now + pause).unwrap();
    }

    #[test]
    fn the_day_s_share_is_given_back_for_what_is_not_entered() {
        let (quotas, start) = (Quotas::new(&limits()), Instant::now());
        let (fr, later) = (agency("fr"), |s| start + Duration::from_secs(s));
        assert_eq!(charged(&quotas, &fr, 100, start), 10, "all of its bytes");
        let fault = quotas.charge(&fr, 100, later(60)).unwrap_err();
        assert!(fault.message.contains("bytes of this day"), "{fault}");
        assert!(fault.retry_after.unwrap() > Duration::from_secs(8_000));
        quotas.give_back(&fr, 100);
        quotas.charge(&fr, 100, later(60)).unwrap();
        assert!(quotas.charge(&fr, 100, later(120)).is_err());
        assert_eq!(
            charged(&quotas, &fr, 1, later(600)),
            6,
            "that much flowed back"
        );
        assert_eq!(
            charged(&quotas, &fr, 0, later(1_000)),
            4,
            "and all 20 statements"
        );
        let fault = quotas.charge(&fr, 0, later(1_000)).unwrap_err();
        assert!(fault.message.contains("statements of this day"), "{fault}");
    }

    #[test]
    fn who_is_at_rest_is_forgotten() {
        let (quotas, start) = (Quotas::new(&limits()), Instant::now());
        for host in 0..MOST as u32 + 10 {
            let address = std::net::Ipv4Addr::from_bits(host);
            let payer = Payer::Stranger(std::net::IpAddr::from(address).into());
            let charged = quotas.charge(&payer, 1, start);
            assert_eq!(charged.is_ok(), host < MOST as u32);
        }
        quotas.charge(&agency("fr"), 1, start).unwrap();
        let later = start + Duration::from_secs(10);
        quotas.charge(&stranger(), 1, later).unwrap();
        assert!(quotas.state().accounts.len() < 3);
    }
}
