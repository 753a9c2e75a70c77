//! The auditor's program: verifies one evidence file, offline, against a root's fingerprint.

use std::process::ExitCode;

use clap::Parser;
use jingwei_proto::evidence::command::{Arguments, run};

#[derive(Parser)]
#[command(
    name = "jingwei-verify",
    version,
    term_width = 0,
    about = "Verifies an evidence file offline: who asked, what, which versions answered, and that nothing was altered since.",
    after_help = jingwei_proto::evidence::command::HELP
)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    run(&Command::parse().arguments, &mut std::io::stdout())
}
