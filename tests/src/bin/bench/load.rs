//! A closed loop: so many askers at once, each of which asks again when it has its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, try_join_all};

use crate::Failure;

/// Asks the question with this number once.
pub type Ask = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<Answered, Failure>> + Send + Sync>;

/// A question that has its answer.
pub struct Answered {
    /// How many rows came.
    pub rows: usize,
    /// What the asker does not wait for, and the round does before it is over.
    pub rest: Option<BoxFuture<'static, Result<(), Failure>>>,
}

/// What one round gave.
pub struct Round {
    /// Answers a second.
    pub rate: f64,
    /// From question to answer, in milliseconds, in no order.
    pub latencies: Vec<f64>,
    /// Time of processors for one answer, in milliseconds, of the processes that took part.
    pub processor: f64,
}

/// Keeps `concurrency` questions under way for `time`; every answer must have `rows` rows.
pub async fn run(
    ask: &Ask,
    concurrency: usize,
    time: Duration,
    rows: usize,
    processes: &[u32],
) -> Result<Round, Failure> {
    let counter = Arc::new(AtomicU64::new(0));
    let before = processor_time(processes)?;
    let began = Instant::now();
    let askers = (0..concurrency).map(|_| {
        let (ask, counter) = (ask.clone(), counter.clone());
        let asking = tokio::spawn(async move {
            let (mut latencies, mut unfinished) = (Vec::new(), Vec::new());
            while began.elapsed() < time {
                let asked = Instant::now();
                let Answered { rows: came, rest } =
                    ask(counter.fetch_add(1, Ordering::Relaxed)).await?;
                if came != rows {
                    return Err(format!("{came} rows came instead of {rows}").into());
                }
                latencies.push(asked.elapsed().as_secs_f64() * 1_000.0);
                unfinished.extend(rest.map(tokio::spawn));
            }
            for rest in unfinished {
                rest.await??;
            }
            Ok::<_, Failure>(latencies)
        });
        async move { asking.await? }
    });
    let latencies = try_join_all(askers).await?.concat();
    let elapsed = began.elapsed().as_secs_f64();
    let answers = latencies.len().max(1) as f64;
    Ok(Round {
        rate: latencies.len() as f64 / elapsed,
        latencies,
        processor: (processor_time(processes)? - before) * 1_000.0 / answers,
    })
}

/// The value below which this share of the values lies.
pub fn percentile(latencies: &mut [f64], share: f64) -> f64 {
    latencies.sort_by(f64::total_cmp);
    let place = (latencies.len() as f64 * share) as usize;
    latencies
        .get(place.min(latencies.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The time that processors have spent on these processes so far, in seconds.
fn processor_time(processes: &[u32]) -> Result<f64, Failure> {
    processes.iter().try_fold(0.0, |sum, process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // proc(5): after the name, which stands in brackets, utime and stime are the 12th and
        // the 13th value, in hundredths of a second on every Linux.
        let values = stat.rsplit_once(')').map_or("", |(_, values)| values);
        let ticks: f64 = values
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        Ok(sum + ticks / 100.0)
    })
}
