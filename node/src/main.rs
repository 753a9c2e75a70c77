//! The node's program: see `jingwei --help`.

use std::process::ExitCode;

use clap::Parser;
use jingwei::cli;

/// Small pieces of memory come and go by the thousand with every request; the system's own
/// allocator took a fifth of the processor's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(cli::Command::parse())
}
