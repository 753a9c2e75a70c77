//! How much of something flows in a time: a bucket of tokens that needs no thread to refill it.
//!
//! A [`Meter`] is one moment: when all that was taken will have flowed back. Taking moves it
//! forward; a moment in the past is a full bucket, so a meter at rest may be forgotten. (This is
//! the generic cell rate algorithm of ITU-T I.371.) Time comes in as an argument.

use std::time::{Duration, Instant};

/// A flow and what may be taken of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    units: u64,
    period: Duration,
    burst: u64,
}

/// No pause is longer: it keeps sums of moments within what the clock can hold.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

impl Rate {
    /// So many units a second, and those of `seconds` at once.
    pub fn per_second(units: u32, seconds: u32) -> Rate {
        Rate {
            units: u64::from(units.max(1)),
            period: Duration::from_secs(1),
            burst: u64::from(units.max(1)) * u64::from(seconds.max(1)),
        }
    }

    /// So many units a day, which may be taken at once and flow back evenly.
    pub fn per_day(units: u64) -> Rate {
        Rate {
            units: units.max(1),
            period: Duration::from_secs(86_400),
            burst: units.max(1),
        }
    }

    /// How long so many units take to flow back.
    fn time(&self, units: u64) -> Duration {
        let seconds = units as f64 / self.units as f64 * self.period.as_secs_f64();
        Duration::try_from_secs_f64(seconds).map_or(LONGEST, |time| time.min(LONGEST))
    }
}

/// What one party has taken of its flow.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    rests: Instant,
}

impl Meter {
    /// Nothing was taken.
    pub fn new(now: Instant) -> Meter {
        Meter { rests: now }
    }

    /// How long until so many units can be taken; zero if they can be now. More units than ever
    /// flow at once can be taken from a meter at rest.
    pub fn wait(&self, rate: &Rate, units: u64, now: Instant) -> Duration {
        let owed = self.rests.saturating_duration_since(now);
        let over = (owed + rate.time(units)).saturating_sub(rate.time(rate.burst));
        over.min(owed)
    }

    /// Takes so many units, or says how long until they can be taken.
    pub fn take(&mut self, rate: &Rate, units: u64, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(rate, units, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.rests = self.rests.max(now) + rate.time(units);
        Ok(())
    }

    /// Gives back what was taken for nothing.
    pub fn give_back(&mut self, rate: &Rate, units: u64) {
        if let Some(rests) = self.rests.checked_sub(rate.time(units)) {
            self.rests = rests;
        }
    }

    /// Whether it is as good as new.
    pub fn is_at_rest(&self, now: Instant) -> bool {
        self.rests <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_then_the_rate_and_an_honest_wait() {
        let (rate, start) = (Rate::per_second(10, 2), Instant::now());
        let mut meter = Meter::new(start);
        for _ in 0..20 {
            meter.take(&rate, 1, start).unwrap();
        }
        let wait = meter.take(&rate, 1, start).unwrap_err();
        assert_eq!(wait, 100 * MS);
        assert!(meter.take(&rate, 1, start + 99 * MS).is_err());
        meter.take(&rate, 1, start + wait).unwrap();
        let wait = meter.take(&rate, 5, start + wait).unwrap_err();
        assert_eq!(wait, 500 * MS);
    }

    #[test]
    fn no_more_than_burst_and_rate_in_any_time() {
        let (rate, start) = (Rate::per_second(50, 1), Instant::now());
        let mut meter = Meter::new(start);
        let taken = (0..10_000)
            .filter(|step| meter.take(&rate, 1, start + *step * MS).is_ok())
            .count();
        // Ten seconds at 50, and the bucket that was full.
        assert!((549..=550).contains(&taken), "{taken}");
    }

    #[test]
    fn rest_refunds_and_things_larger_than_the_bucket() {
        let (rate, start) = (Rate::per_day(100), Instant::now());
        let mut meter = Meter::new(start);
        meter.take(&rate, 100, start).unwrap();
        assert!(!meter.is_at_rest(start));
        assert!(meter.take(&rate, 1, start).is_err());
        meter.give_back(&rate, 40);
        meter.take(&rate, 40, start).unwrap();
        let day = Duration::from_secs(86_400);
        assert!(meter.is_at_rest(start + day));
        // Never would it fit, so it goes when nothing else is owed, and is paid for.
        let later = start + day;
        meter.take(&rate, 200, later).unwrap();
        let wait = meter.take(&rate, 1, later).unwrap_err();
        assert!(wait > day && wait < 2 * day, "{wait:?}");
        meter.give_back(&rate, u64::MAX);
    }
}
