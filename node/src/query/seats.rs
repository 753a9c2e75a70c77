//! What all queries of a node share: its memory, and seats for those that run at once.
//!
//! One query's memory is bounded by its own limit and by what the others leave of the node's.
//! Questions asked here and answers given to others have seats apart: a question holds its seat
//! while it waits for answers elsewhere, and two nodes that ask each other must not wait for
//! each other's questions to end.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Exceeded;

/// What a node's queries may use together.
#[derive(Debug, Clone)]
pub struct SeatLimits {
    /// Bytes that sorting, grouping and joining may hold at once.
    pub memory: usize,
    /// Questions asked here that run at once.
    pub asked: usize,
    /// Answers to other agencies that run at once.
    pub answered: usize,
    /// How long a query may wait for a seat.
    pub wait: Duration,
}

impl Default for SeatLimits {
    /// Twice what one query may take. An answer most often takes milliseconds, a question as
    /// long as the slowest of those it asks.
    fn default() -> SeatLimits {
        SeatLimits {
            memory: 512 << 20,
            asked: 64,
            answered: 128,
            wait: Duration::from_secs(5),
        }
    }
}

/// The seats of a node.
#[derive(Debug)]
pub struct Seats {
    pool: Arc<GreedyMemoryPool>,
    asked: Arc<Semaphore>,
    answered: Arc<Semaphore>,
    wait: Duration,
}

impl Seats {
    /// All of them free.
    pub fn new(limits: &SeatLimits) -> Seats {
        Seats {
            pool: Arc::new(GreedyMemoryPool::new(limits.memory)),
            asked: Arc::new(Semaphore::new(limits.asked)),
            answered: Arc::new(Semaphore::new(limits.answered)),
            wait: limits.wait,
        }
    }

    /// A seat for a question that is asked here.
    pub async fn ask(&self) -> Result<Seat, Exceeded> {
        self.take(&self.asked).await
    }

    /// A seat for an answer to another agency.
    pub async fn answer(&self) -> Result<Seat, Exceeded> {
        self.take(&self.answered).await
    }

    async fn take(&self, seats: &Arc<Semaphore>) -> Result<Seat, Exceeded> {
        let waiting = tokio::time::timeout(self.wait, seats.clone().acquire_owned());
        match waiting.await {
            Ok(Ok(permit)) => Ok(Seat {
                node: Some(self.pool.clone()),
                _permit: Some(permit),
            }),
            _ => {
                metrics::counter!("jingwei_queries_turned_away_total").increment(1);
                Err(Exceeded::Seats)
            }
        }
    }
}

/// A query's right to run, until it is dropped.
#[derive(Debug, Default)]
pub struct Seat {
    node: Option<Arc<GreedyMemoryPool>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seat {
    /// Of a query that shares with no other.
    pub fn alone() -> Seat {
        Seat::default()
    }

    /// What a query runs in, with at most so many bytes of memory. It never spills to disk: what
    /// others let one read must not come to lie in a temporary directory.
    pub fn runtime(&self, memory: usize) -> Arc<RuntimeEnv> {
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(Share {
                own: GreedyMemoryPool::new(memory),
                node: self.node.clone(),
            }),
            ..RUNTIME.clone()
        })
    }
}

/// Made once: a small query is answered faster than a runtime is made.
static RUNTIME: LazyLock<RuntimeEnv> = LazyLock::new(|| {
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    RuntimeEnvBuilder::new()
        .with_disk_manager_builder(no_disk)
        .build()
        .expect("a runtime without a disk needs nothing of the system")
});

/// One query's share of the node's memory.
#[derive(Debug)]
struct Share {
    own: GreedyMemoryPool,
    node: Option<Arc<GreedyMemoryPool>>,
}

impl MemoryPool for Share {
    fn name(&self) -> &str {
        "share"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        if let Some(node) = &self.node {
            node.grow(reservation, additional);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        if let Some(node) = &self.node {
            node.shrink(reservation, shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.own.try_grow(reservation, additional)?;
        let Some(node) = &self.node else {
            return Ok(());
        };
        node.try_grow(reservation, additional).map_err(|_| {
            self.own.shrink(reservation, additional);
            DataFusionError::External(Box::new(Exceeded::Crowded))
        })
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.own.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::MemoryConsumer;

    fn seats(memory: usize, asked: usize) -> Seats {
        Seats::new(&SeatLimits {
            memory,
            asked,
            wait: Duration::from_millis(20),
            ..SeatLimits::default()
        })
    }

    #[tokio::test]
    async fn seats_are_given_back_and_kinds_are_apart() {
        let seats = seats(1_000, 1);
        let first = seats.ask().await.unwrap();
        assert_eq!(seats.ask().await.unwrap_err(), Exceeded::Seats);
        seats.answer().await.unwrap();
        drop(first);
        seats.ask().await.unwrap();
    }

    #[tokio::test]
    async fn a_query_has_its_own_limit_and_a_share_of_the_node_s() {
        let seats = seats(1_000, 2);
        let (one, other) = (seats.ask().await.unwrap(), seats.ask().await.unwrap());
        let reserve = |seat: &Seat| {
            let runtime = seat.runtime(700);
            MemoryConsumer::new("test").register(&runtime.memory_pool)
        };
        let (a, b) = (reserve(&one), reserve(&other));
        a.try_grow(700).unwrap();
        let own = a.try_grow(1).unwrap_err();
        assert!(
            matches!(own, DataFusionError::ResourcesExhausted(_)),
            "{own}"
        );
        b.try_grow(300).unwrap();
        let shared = b.try_grow(1).unwrap_err();
        assert!(shared.to_string().contains("other queries"), "{shared}");
        drop(a);
        b.try_grow(400).unwrap();
        drop(b);
        assert_eq!(seats.pool.reserved(), 0);
        reserve(&Seat::alone()).try_grow(700).unwrap();
    }
}
