//! What goes on on one connection, so that one on which nothing does, or on which an answer is
//! never taken, can be ended.
//!
//! A client that answers HTTP/2's signs of life may otherwise hold its connection, and an answer
//! that it does not read, for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What goes on on one connection.
pub struct Activity {
    idle: Duration,
    answer: Duration,
    state: Mutex<State>,
}

struct State {
    /// When each request under way began, by its number.
    going: BTreeMap<u64, Instant>,
    next: u64,
    /// The last begin or end of a request.
    last: Instant,
}

/// Why a connection is to be ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing was asked for a long time.
    Idle,
    /// An answer takes too long.
    Answer,
}

impl Activity {
    /// Of a connection that begins now, and that may be idle, or take an answer, for so long.
    pub fn new(idle: Duration, answer: Duration) -> Arc<Activity> {
        Arc::new(Activity {
            idle,
            answer,
            state: Mutex::new(State {
                going: BTreeMap::new(),
                next: 0,
                last: Instant::now(),
            }),
        })
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Going {
        let mut state = self.state();
        let (number, now) = (state.next, Instant::now());
        state.next += 1;
        state.last = now;
        state.going.insert(number, now);
        Going {
            activity: self.clone(),
            number,
        }
    }

    /// Ends when the connection is to be ended.
    pub async fn overdue(&self) -> Overdue {
        loop {
            let (due, why) = self.due();
            if due <= Instant::now() {
                return why;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// Requests begin in the order of their numbers, so the first is the oldest.
    fn due(&self) -> (Instant, Overdue) {
        let state = self.state();
        match state.going.first_key_value() {
            Some((_, began)) => (*began + self.answer, Overdue::Answer),
            None => (state.last + self.idle, Overdue::Idle),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way, until it is dropped.
pub struct Going {
    activity: Arc<Activity>,
    number: u64,
}

impl Drop for Going {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.going.remove(&self.number);
        state.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn idle_and_endless_connections_are_overdue() {
        let activity = Activity::new(20 * MS, 60 * MS);
        assert_eq!(activity.overdue().await, Overdue::Idle);
        let first = activity.begin();
        let began = Instant::now();
        let second = activity.begin();
        drop(first);
        assert_eq!(activity.overdue().await, Overdue::Answer);
        assert!(began.elapsed() >= 60 * MS);
        drop(second);
        let ended = Instant::now();
        assert_eq!(activity.overdue().await, Overdue::Idle);
        assert!(ended.elapsed() >= 20 * MS);
    }
}
