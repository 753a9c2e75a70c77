//! The clock, which comes in from `main`, so that a test can choose its own time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jingwei_proto::time::Time;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The same clock, but it never tells an earlier time than `since`, nor than it has told before:
/// for who dates what must not seem to go back, on a machine whose clock is set back.
pub fn forward(clock: Clock, since: Option<Time>) -> Clock {
    let latest = Mutex::new(since);
    Arc::new(move || {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock();
        let told = latest.map_or(now, |latest| latest.max(now));
        *latest = Some(told);
        told
    })
}

/// The machine's clock, in whole seconds; a clock set before 1970 reads as 1970.
pub fn system() -> Clock {
    Arc::new(|| {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let epoch = i64::try_from(seconds).ok().and_then(Time::from_seconds);
        epoch.unwrap_or_else(|| Time::from_seconds(0).expect("the epoch is a time"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_never_goes_back() {
        let at = |seconds| Time::from_seconds(seconds).unwrap();
        let told = Mutex::new(vec![at(7), at(3), at(9), at(4)]);
        let clock: Clock = Arc::new(move || told.lock().unwrap().pop().unwrap());
        let clock = forward(clock, Some(at(5)));
        assert_eq!(
            [clock(), clock(), clock(), clock()],
            [at(5), at(9), at(9), at(9)]
        );
    }
}
