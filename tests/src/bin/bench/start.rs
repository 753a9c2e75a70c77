//! `start`: from the start of a node's process to its first verified answer from another level,
//! and the memory of an idle node.
//!
//! A round starts `jingwei serve` in a directory that has been used before, and asks through its
//! socket as soon as that opens: the answer has been verified and acknowledged when it is there.
//! The baseline is a process that does no more than connect with the same TLS and ask the same
//! query over plain Flight; for memory, the idle process that serves it.

use std::process::Command;
use std::time::{Duration, Instant};

use jingwei_tests::local::{Answer, Local, runtime};

use crate::Failure;
use crate::figure::{Figure, median};
use crate::plain;
use crate::world::{ANSWER, Server, World, question, serve};

/// How a node comes to rest after its start.
const REST: Duration = Duration::from_secs(2);

/// Answers between the two looks at the memory.
const ANSWERS: u64 = 100;

/// How often to start.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds of each way, which take turns
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let world = World::found()?;
    let first = serve(&world.asker)?;
    world.asker.until_announced();
    world.federation.settle(&[&world.asker, &world.provider]);
    first.stop()?;
    let (plain_server, address) = world.serve_plain()?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        let took = [first_answer(&world)?, plain_answer(&world, address)?];
        if round > 0 {
            ours.push(took[0]);
            plain.push(took[1]);
        }
    }
    Figure {
        bench: "start",
        figure: "from process start to the first verified cross-level answer",
        value: median(ours),
        unit: "s",
        against: median(plain),
        baseline: "a process that asks the same over plain Flight with the same mTLS",
    }
    .print();
    drop(plain_server);
    memory(&world)
}

/// Of the asker's node and of the baseline's server, before anybody has asked anything, and
/// after some answers to each.
fn memory(world: &World) -> Result<(), Failure> {
    let node = serve(&world.asker)?;
    let (plain, address) = world.serve_plain()?;
    std::thread::sleep(REST);
    let idle = [node.memory()?, plain.memory()?];
    let _runtime = runtime().enter();
    let local = runtime().block_on(Local::connect(&world.asker.dir))?;
    let link = plain::link(address, &world.provider.dir, &world.asker.dir)?;
    for number in 0..ANSWERS {
        check(&runtime().block_on(local.sql(&question(number), false))?)?;
        runtime().block_on(plain::ask(link.clone(), question(number)))?;
    }
    std::thread::sleep(REST);
    let figures = [
        ("memory of an idle node", idle),
        (
            "memory of an idle node after 100 answers",
            [node.memory()?, plain.memory()?],
        ),
    ];
    for (figure, [value, against]) in figures {
        Figure {
            bench: "start",
            figure,
            value: value / 1e6,
            unit: "MB",
            against: against / 1e6,
            baseline: "an idle process that serves plain Flight with the same mTLS",
        }
        .print();
    }
    node.stop()
}

/// Starts the asker's node, asks, and stops it.
fn first_answer(world: &World) -> Result<f64, Failure> {
    let began = Instant::now();
    let node = serve(&world.asker)?;
    let answer = runtime().block_on(async {
        let local = loop {
            match Local::connect(&world.asker.dir).await {
                Ok(local) => break local,
                Err(fault) if began.elapsed() > Duration::from_secs(60) => return Err(fault),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        local.sql(&question(0), false).await
    })?;
    let took = began.elapsed().as_secs_f64();
    check(&answer)?;
    node.stop()?;
    Ok(took)
}

fn check(answer: &Answer) -> Result<(), Failure> {
    match answer.done.exchanges.as_slice() {
        [exchange] if exchange.rows == ANSWER as u64 => Ok(()),
        other => Err(format!("the answer came by {other:?}").into()),
    }
}

fn plain_answer(world: &World, address: std::net::SocketAddr) -> Result<f64, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("plain-ask");
    command.args(["--address", &address.to_string()]);
    command.arg("--provider").arg(&world.provider.dir);
    command.arg("--asker").arg(&world.asker.dir);
    let began = Instant::now();
    let client = Server::start(&mut command, &world.log("plain-ask"), "rows ")?;
    let took = began.elapsed().as_secs_f64();
    if client.said != ANSWER.to_string() {
        return Err(format!("{} rows came instead of {ANSWER}", client.said).into());
    }
    Ok(took)
}
