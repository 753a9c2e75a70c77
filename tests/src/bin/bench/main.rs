//! Benchmarks. Each prints one JSON object for each figure, beside a baseline of the same run:
//!
//! ```text
//! cargo run --release -p jingwei-tests --bin bench -- exchange
//! cargo run --release -p jingwei-tests --bin bench -- publish --flights flights.csv
//! cargo run --release -p jingwei-tests --bin bench -- start
//! cargo run --release -p jingwei-tests --bin bench -- registry
//! cargo run --release -p jingwei-tests --bin bench -- replica --statements 1000000
//! cargo run --release -p jingwei-tests --bin bench -- proof
//! cargo run --release -p jingwei-tests --bin bench -- size
//! ```
//!
//! Two ways of doing the same work take turns, round by round, and the medians are compared: on
//! a machine that does other things meanwhile only the ratio lasts. Servers are the programs
//! that people run, as processes of their own, in a directory under `TMPDIR`, which should lie
//! on a real disk: what makes an exchange durable costs nothing in memory.

mod exchange;
mod figure;
mod load;
mod plain;
mod plain_flight;
mod proof;
mod publish;
mod registry;
mod replica;
mod size;
mod start;
mod strict;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As in the programs that are measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a benchmark could not be run, for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(
    name = "bench",
    about = "Measures the product against plain ways of doing the same"
)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Small signed queries a second between two nodes, against plain Flight
    Exchange(exchange::Arguments),
    /// Rows a second from a CSV file into the registry, against a plain conversion to Parquet
    Publish(publish::Arguments),
    /// From process start to the first verified answer, and the memory of an idle node
    Start(start::Arguments),
    /// Durable statements a second, against verifying their signatures and appending their bytes
    Registry(registry::Arguments),
    /// A new member's replica of a long log, against verifying its signatures and copying its files
    Replica(replica::Arguments),
    /// Evidence of one answer: built, against asking without it, and checked, against its hash
    Proof(proof::Arguments),
    /// Bytes of the three programs
    Size,
    /// A process with a replica
    #[command(hide = true)]
    ReplicaChild(replica::ChildArguments),
    /// The baseline's server
    #[command(hide = true)]
    PlainServe(plain::ServeArguments),
    /// The baseline's client
    #[command(hide = true)]
    PlainAsk(plain::AskArguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::Exchange(arguments) => exchange::run(&arguments),
        Bench::Publish(arguments) => publish::run(&arguments),
        Bench::Start(arguments) => start::run(&arguments),
        Bench::Registry(arguments) => registry::run(&arguments),
        Bench::Replica(arguments) => replica::run(&arguments),
        Bench::Proof(arguments) => proof::run(&arguments),
        Bench::Size => size::run(),
        Bench::ReplicaChild(arguments) => replica::run_child(&arguments),
        Bench::PlainServe(arguments) => plain::serve(&arguments),
        Bench::PlainAsk(arguments) => plain::ask_once(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
