//! `registry`: acknowledged durable statements a second, against what the machine can do at all:
//! strict verifications of the same signatures, and plain appends of the same bytes with an fsync
//! for each of the same batches.
//!
//! ```text
//! this process: statements signed beforehand ═══ TLS ═══ jingwei-registry serve ─── 0 or 2 witnesses
//! ```
//!
//! A statement counts once its acknowledgement has come, and so is durable and covered by a
//! published checkpoint. The load generator, the registry and the witnesses share the processors.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::try_join_all;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::Signer as _;
use jingwei_registry::submit::Submitter;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::registry::Registry;
use jingwei_tests::witnessed::Witnessed;

use crate::Failure;
use crate::figure::Figure;
use crate::load::percentile;
use crate::strict;

/// Agencies that submit; each has a line of its own at the registry.
const AGENCIES: u8 = 8;
/// Connections of the load generator: what may be under way on one is limited.
const CONNECTIONS: usize = 16;

/// How much load.
#[derive(clap::Args)]
pub struct Arguments {
    /// Statements of each run
    #[arg(long, default_value_t = 60_000)]
    statements: usize,
    /// Statements under way at once
    #[arg(long, default_value_t = 2_048)]
    concurrency: usize,
}

/// What one run gave.
struct Run {
    rate: f64,
    /// From submission to acknowledgement, in milliseconds.
    latencies: Vec<f64>,
    batches: usize,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut measured = Vec::new();
    for witnesses in [0, 2] {
        let mut federation = Witnessed::found(witnesses, witnesses as u64, &[]);
        federation.start();
        let registry = &federation.registry;
        let agents: Vec<Agent> = (0..AGENCIES)
            .map(|n| Agent::new(registry, &format!("a{n}"), n + 10))
            .collect();
        for agent in &agents {
            let enrolment = agent.enrolment(registry);
            runtime().block_on(registry.submitter().submit(&enrolment))?;
        }
        let signed = sign(&agents, arguments.statements);
        let verified = verifications(&agents, &signed)?;
        let before = commits(registry)?;
        let run = submit(registry, &signed, arguments.concurrency)?;
        let batches = commits(registry)? - before;
        // What the machine can do changes from one second to the next.
        let verified = (verified + verifications(&agents, &signed)?) / 2.0;
        let appended = appends(federation.dir.path(), &signed, batches.max(1))?;
        report(witnesses, Run { batches, ..run }, verified, appended);
        // Some file systems are slow for a while after many files were removed.
        measured.push(federation.dir);
    }
    Ok(())
}

/// First versions of datasets, signed on all cores before anything is measured.
fn sign(agents: &[Agent], statements: usize) -> Vec<(usize, Envelope)> {
    let cores = cores();
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    let numbers = (core..statements).step_by(cores);
                    let signed = numbers.map(|number| {
                        let agent = number % agents.len();
                        (agent, agents[agent].dataset(&format!("d{number}")))
                    });
                    signed.collect::<Vec<_>>()
                })
            })
            .collect();
        let signed = shares.into_iter().map(|share| share.join());
        signed.flat_map(|share| share.unwrap_or_default()).collect()
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn verifications(agents: &[Agent], signed: &[(usize, Envelope)]) -> Result<f64, Failure> {
    let signed = signed.iter();
    strict::verifications(signed.map(|(agent, envelope)| (agents[*agent].key.public(), envelope)))
}

/// Submits all of them, so many at once, and waits for every acknowledgement.
fn submit(
    registry: &Registry,
    signed: &[(usize, Envelope)],
    concurrency: usize,
) -> Result<Run, Failure> {
    let left: VecDeque<Envelope> = signed
        .iter()
        .map(|(_, envelope)| envelope.clone())
        .collect();
    let left = Arc::new(Mutex::new(left));
    let submitters: Vec<Submitter> = (0..CONNECTIONS).map(|_| registry.submitter()).collect();
    runtime().block_on(async {
        let began = Instant::now();
        let submitting = (0..concurrency).map(|number| {
            let submitter = submitters[number % CONNECTIONS].clone();
            let left = left.clone();
            let task = tokio::spawn(async move {
                let next = || {
                    left.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front()
                };
                let mut latencies = Vec::new();
                while let Some(envelope) = next() {
                    let submitted = Instant::now();
                    submitter.submit(&envelope).await?;
                    latencies.push(submitted.elapsed().as_secs_f64() * 1_000.0);
                }
                Ok::<_, Failure>(latencies)
            });
            async move { task.await? }
        });
        let latencies = try_join_all(submitting).await?.concat();
        let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
        Ok(Run {
            rate,
            latencies,
            batches: 0,
        })
    })
}

/// Batches that the registry has committed so far: its commit records are numbered.
fn commits(registry: &Registry) -> Result<usize, Failure> {
    let records = std::fs::read_dir(registry.dir.join("log/commit"))?;
    let mut newest = 0;
    for record in records {
        let name = record?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(newest)
}

/// Statements a second if the same bytes are only appended to a file, in so many batches, each
/// with an fsync.
fn appends(dir: &Path, signed: &[(usize, Envelope)], batches: usize) -> Result<f64, Failure> {
    let bytes: Vec<Vec<u8>> = signed
        .iter()
        .map(|(_, envelope)| envelope.to_bytes())
        .collect();
    let path = dir.join("appended");
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(path)?;
    let began = Instant::now();
    for batch in bytes.chunks(bytes.len().div_ceil(batches)) {
        file.write_all(&batch.concat())?;
        file.sync_data()?;
    }
    Ok(bytes.len() as f64 / began.elapsed().as_secs_f64())
}

fn report(witnesses: usize, mut run: Run, verified: f64, appended: f64) {
    let statements = run.latencies.len() as f64;
    let figure = |figure: &str, value, unit, against, baseline| {
        Figure {
            bench: "registry",
            figure: &format!("{figure}, {witnesses} witnesses"),
            value,
            unit,
            against,
            baseline,
        }
        .print();
    };
    let rate = "durable statements a second";
    let verifying = strict::BASELINE;
    let appending = "the same bytes appended to a file, with an fsync for each of the same batches";
    figure(rate, run.rate, "1/s", verified, verifying);
    figure(rate, run.rate, "1/s", appended, appending);
    let mut limit = |share: f64| percentile(&mut run.latencies, share);
    let even = 1_000.0 / run.rate;
    let each = "one statement's share of the time, at the rate of this run";
    figure("p50 of the acknowledgement", limit(0.5), "ms", even, each);
    figure("p99 of the acknowledgement", limit(0.99), "ms", even, each);
    figure(
        "statements in a batch",
        statements / run.batches.max(1) as f64,
        "statements",
        1.0,
        "one statement a batch",
    );
}
