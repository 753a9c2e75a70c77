//! `proof`: evidence of one answer, built by the command line and checked by the verifier's own
//! code.

use std::time::{Duration, Instant};

use jingwei_proto::digest::Digest;
use jingwei_proto::evidence;

use crate::Failure;
use crate::figure::{Figure, median};
use crate::world::{self, PROVIDER, World};

/// How long to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Questions with evidence and without, which take turns
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Seconds of checking
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let world = World::found()?;
    let _asker = world::serve(&world.asker)?;
    world.asker.until_announced();
    world.federation.settle(&[&world.asker, &world.provider]);
    let sql = format!("SELECT * FROM {PROVIDER}.places LIMIT 100");
    let (mut saved, mut plain) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        plain.push(ask(&world, &sql, &[]));
        saved.push(ask(&world, &sql, &["--save", &name(round)]));
    }
    let figure = |figure, value, unit, against, baseline| {
        Figure {
            bench: "proof",
            figure,
            value,
            unit,
            against,
            baseline,
        }
        .print();
    };
    // The first of each warms up.
    let (saved, plain) = (median(saved.split_off(1)), median(plain.split_off(1)));
    let without = "the same command without evidence";
    figure("a question with evidence", saved, "ms", plain, without);
    let file = std::fs::read(world.asker.work.join(name(0)))?;
    let root = world.federation.registry.root();
    let time = Duration::from_secs_f64(arguments.seconds);
    let checked = each(time, || {
        std::hint::black_box(evidence::verify(&file[..], &root)?);
        Ok(())
    })?;
    let hashed = each(time, || {
        std::hint::black_box(Digest::of(&file));
        Ok(())
    })?;
    let hashing = "the SHA-256 of the file's bytes";
    figure("checking the evidence", checked, "ms", hashed, hashing);
    Ok(())
}

/// The evidence file of a round.
fn name(round: usize) -> String {
    format!("{round}.evidence")
}

/// Milliseconds of one question on the command line.
fn ask(world: &World, sql: &str, more: &[&str]) -> f64 {
    let began = Instant::now();
    world.asker.sql(sql, more).ok();
    began.elapsed().as_secs_f64() * 1_000.0
}

/// Milliseconds of doing something once, from doing it for a while.
fn each(time: Duration, mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let (began, mut count) = (Instant::now(), 0u32);
    while began.elapsed() < time {
        work()?;
        count += 1;
    }
    Ok(began.elapsed().as_secs_f64() * 1_000.0 / f64::from(count))
}
