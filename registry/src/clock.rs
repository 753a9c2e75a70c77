//! The clock, which comes in from `main`, so that a test can choose its own time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jingwei_proto::time::Time;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

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
