//! The registry's snapshots: at a set interval it says what the log means so far, and the time.
//!
//! A fold of the log has no other clock, and evidence rests on the newest snapshot: until then it
//! is proved that nobody was suspended and no key replaced but what the evidence shows.

use std::time::Duration;

use jingwei_proto::time::Time;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::index::Index;
use crate::sequencer::Sequencer;

/// The interval where none is set.
pub const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Enters snapshots until `shutdown`. The first comes at once if the newest is older than the
/// interval, and a whole interval from now on if there is none.
pub async fn keep(
    sequencer: Sequencer,
    index: Index,
    interval: Duration,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let mut pause = match index.log_time() {
        Ok(Some(newest)) => until(newest.time, interval, clock()),
        _ => interval,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match sequencer.snapshot().await {
            Ok(index) => {
                metrics::counter!("jingwei_registry_snapshots_total").increment(1);
                tracing::info!(index, "a snapshot was entered");
            }
            Err(fault) => tracing::warn!(%fault, "no snapshot was entered"),
        }
        pause = interval;
    }
}

/// From `now` until `interval` after `newest`.
fn until(newest: Time, interval: Duration, now: Time) -> Duration {
    let passed = now.seconds().saturating_sub(newest.seconds()).max(0);
    interval.saturating_sub(Duration::from_secs(passed.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_snapshot_is_followed_at_once() {
        let at = |seconds| Time::from_seconds(seconds).unwrap();
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            until(at(1_000), hour, at(1_600)),
            Duration::from_secs(3_000)
        );
        assert_eq!(until(at(1_000), hour, at(4_600)), Duration::ZERO);
        assert_eq!(until(at(1_000), hour, at(9_999)), Duration::ZERO);
        // A clock that was set back waits no longer than an interval.
        assert_eq!(until(at(1_000), hour, at(1)), hour);
    }
}
