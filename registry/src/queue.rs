//! Statements that wait for the writer: bounded by count and by bytes, and taken in fair turns.
//!
//! Each party has a line of its own. The writer goes round the lines and takes from each as many
//! bytes as from the others (deficit round robin, Shreedhar and Varghese 1995), so that one
//! party's flood delays nobody but itself. Room is shared by the rule of [`crate::visitors`]:
//! nobody may have more of it than what is left for the others.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::visitors::leaves_room;

/// Bytes that a line may send in its turn.
const TURN: usize = 64 * 1024;

/// Between two looks at how fast the writer takes.
const LOOK: Duration = Duration::from_millis(200);

/// What may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Statements.
    pub statements: usize,
    /// Their bytes in memory.
    pub bytes: usize,
}

/// Why something may not wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Full {
    /// There is no room; there will be some after about this time.
    For(Duration),
    /// Nobody takes any more.
    Closed,
}

/// Begins an empty queue.
pub fn queue<K: Party, T>(limits: QueueLimits) -> (Sender<K, T>, Receiver<K, T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            limits,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            statements: 0,
            bytes: 0,
            closed: false,
            pace: Pace::default(),
        }),
        news: Condvar::new(),
    });
    let sender = Sender(Arc::new(SenderEnd(shared.clone())));
    (sender, Receiver(shared))
}

/// Who can have a line.
pub trait Party: Clone + Eq + Hash {}

impl<K: Clone + Eq + Hash> Party for K {}

struct Shared<K, T> {
    state: Mutex<State<K, T>>,
    news: Condvar,
}

struct State<K, T> {
    limits: QueueLimits,
    lines: HashMap<K, Line<T>>,
    /// The parties whose lines are not empty, next one first.
    turns: VecDeque<K>,
    statements: usize,
    bytes: usize,
    closed: bool,
    pace: Pace,
}

struct Line<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
    /// What may still be taken in this turn.
    credit: usize,
}

/// How fast the writer takes, for an honest word on when to come back.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    taken: usize,
    per_second: f64,
}

impl Pace {
    fn take(&mut self, bytes: usize, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.taken += bytes;
        let passed = now.saturating_duration_since(since);
        if passed >= LOOK {
            let pace = self.taken as f64 / passed.as_secs_f64();
            let before = self.per_second;
            self.per_second = if before == 0.0 {
                pace
            } else {
                (before + pace) / 2.0
            };
            (self.since, self.taken) = (Some(now), 0);
        }
    }

    /// About how long the writer takes for so many bytes.
    fn time(&self, bytes: usize) -> Duration {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(30));
        match Duration::try_from_secs_f64(bytes as f64 / self.per_second) {
            Ok(time) => time.clamp(least, most),
            Err(_) => Duration::from_secs(1),
        }
    }
}

impl<K, T> Shared<K, T> {
    fn state(&self) -> MutexGuard<'_, State<K, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().closed = true;
        self.news.notify_all();
    }
}

/// The end at which statements come in; the queue closes when the last clone is dropped.
pub struct Sender<K, T>(Arc<SenderEnd<K, T>>);

struct SenderEnd<K, T>(Arc<Shared<K, T>>);

impl<K, T> Drop for SenderEnd<K, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<K, T> Clone for Sender<K, T> {
    fn clone(&self) -> Sender<K, T> {
        Sender(self.0.clone())
    }
}

impl<K: Party, T> Sender<K, T> {
    /// Puts a statement that takes `bytes` in memory at the end of its party's line.
    pub fn push(&self, party: &K, bytes: usize, statement: T) -> Result<(), Full> {
        let shared = &self.0.0;
        let mut state = shared.state();
        if state.closed {
            return Err(Full::Closed);
        }
        let limits = state.limits;
        let (count, own) = state
            .lines
            .get(party)
            .map_or((0, 0), |line| (line.waiting.len(), line.bytes));
        if !leaves_room(count, 1, state.statements, limits.statements)
            || !leaves_room(own, bytes, state.bytes, limits.bytes)
        {
            // Half of what waits before it is gone when it comes back, or half of its own line.
            return Err(Full::For(state.pace.time(state.bytes / 2)));
        }
        let line = state.lines.entry(party.clone()).or_insert_with(|| Line {
            waiting: VecDeque::new(),
            bytes: 0,
            credit: TURN,
        });
        line.waiting.push_back((statement, bytes));
        line.bytes += bytes;
        if line.waiting.len() == 1 {
            state.turns.push_back(party.clone());
        }
        state.statements += 1;
        state.bytes += bytes;
        drop(state);
        shared.news.notify_one();
        Ok(())
    }

    /// Sets other limits, for what comes from now on.
    pub fn limit(&self, limits: QueueLimits) {
        self.0.0.state().limits = limits;
    }
}

/// The writer's end.
pub struct Receiver<K, T>(Arc<Shared<K, T>>);

impl<K, T> Drop for Receiver<K, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<K: Party, T> Receiver<K, T> {
    /// The next statement, when there is one; `None` when the queue is closed and empty.
    pub fn blocking_recv(&mut self) -> Option<T> {
        let mut state = self.0.state();
        loop {
            if let Some(next) = state.take(Instant::now()) {
                return Some(next);
            }
            if state.closed {
                return None;
            }
            // While nothing waits, no time counts for the writer's pace.
            state.pace.since = None;
            state.pace.taken = 0;
            state = self
                .0
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many statements wait.
    pub fn waiting(&self) -> usize {
        self.0.state().statements
    }

    /// The next statement, if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.state().take(Instant::now())
    }
}

impl<K: Party, T> State<K, T> {
    fn take(&mut self, now: Instant) -> Option<T> {
        loop {
            let party = self.turns.front()?.clone();
            let line = self.lines.get_mut(&party)?;
            let bytes = line.waiting.front()?.1;
            if bytes > line.credit {
                line.credit += TURN;
                self.turns.rotate_left(1);
                continue;
            }
            line.credit -= bytes;
            line.bytes -= bytes;
            let (statement, _) = line.waiting.pop_front()?;
            if line.waiting.is_empty() {
                self.lines.remove(&party);
                self.turns.pop_front();
            }
            self.statements -= 1;
            self.bytes -= bytes;
            self.pace.take(bytes, now);
            return Some(statement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(statements: usize, bytes: usize) -> QueueLimits {
        QueueLimits { statements, bytes }
    }

    #[test]
    fn a_flood_waits_behind_itself() {
        let (sender, mut receiver) = queue(limits(10_000, 100 << 20));
        for _ in 0..4_000 {
            sender.push(&"flood", 2_000, "flood").unwrap();
        }
        sender.push(&"other", 2_000, "other").unwrap();
        let place = std::iter::from_fn(|| receiver.try_recv())
            .position(|taken| taken == "other")
            .unwrap();
        assert!(place <= TURN / 2_000, "{place} before it");
    }

    #[test]
    fn turns_are_counted_in_bytes() {
        let (sender, mut receiver) = queue(limits(10_000, 100 << 20));
        for _ in 0..40 {
            sender.push(&"large", 200_000, 200_000).unwrap();
        }
        for _ in 0..2_000 {
            sender.push(&"small", 1_000, 1_000).unwrap();
        }
        let (mut small, mut large) = (0_usize, 0_usize);
        for _ in 0..1_000 {
            match receiver.try_recv() {
                Some(1_000) => small += 1_000,
                Some(bytes) => large += bytes,
                None => panic!("it is empty"),
            }
        }
        assert!(small.abs_diff(large) <= 200_000 + TURN, "{small} {large}");
    }

    #[test]
    fn room_is_bounded_by_count_and_by_bytes_and_left_for_others() {
        let (sender, mut receiver) = queue(limits(10, 1_000));
        let fill = |party: &'static str, bytes| {
            (0..100)
                .take_while(|_| sender.push(&party, bytes, ()).is_ok())
                .count()
        };
        assert_eq!(fill("a", 1), 5);
        assert_eq!(fill("b", 300), 1);
        assert_eq!(fill("b", 1), 1);
        assert_eq!(fill("c", 1), 1);
        assert!(matches!(sender.push(&"a", 1, ()), Err(Full::For(pause)) if !pause.is_zero()));
        assert_eq!(std::iter::from_fn(|| receiver.try_recv()).count(), 8);
        assert_eq!(fill("c", 400), 1);
    }

    #[test]
    fn it_closes_from_both_ends_and_loses_nothing() {
        let (sender, mut receiver) = queue(limits(10, 1_000));
        let other = sender.clone();
        drop(sender);
        other.push(&"a", 1, 1).unwrap();
        let waiting = std::thread::spawn(move || {
            let taken = receiver.blocking_recv();
            (taken, receiver.blocking_recv())
        });
        drop(other);
        assert_eq!(waiting.join().unwrap(), (Some(1), None));
        let (sender, receiver) = queue(limits(10, 1_000));
        drop(receiver);
        assert_eq!(sender.push(&"a", 1, ()), Err(Full::Closed));
    }

    #[test]
    fn the_pace_is_what_was_taken() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.time(1 << 30), Duration::from_secs(1));
        for step in 0..=10_u32 {
            pace.take(1_000, start + step * Duration::from_millis(100));
        }
        let time = pace.time(100_000);
        assert!((5..=10).contains(&time.as_secs()), "{time:?}");
        assert_eq!(pace.time(usize::MAX), Duration::from_secs(30));
    }
}
