//! The node's program: see `jingwei --help`.

use std::process::ExitCode;

use clap::Parser;
use jingwei::cli;

fn main() -> ExitCode {
    cli::run(cli::Command::parse())
}
