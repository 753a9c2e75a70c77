//! The registry's program: founds a federation, serves its log, enrols national agencies.

use std::process::ExitCode;

use clap::Parser;

mod cli;

fn main() -> ExitCode {
    cli::run(cli::Command::parse())
}
