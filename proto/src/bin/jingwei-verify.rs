//! The auditor's program: verifies one file, evidence or a proof of misbehaviour, offline, against
//! a root's fingerprint.

use std::process::ExitCode;

use clap::Parser;
use jingwei_proto::evidence::command::{Arguments, run};

#[derive(Parser)]
#[command(
    name = "jingwei-verify",
    version,
    term_width = 0,
    about = "Verifies a file offline: evidence (who asked, what, which versions answered, and that nothing was altered since), or the proof that a registry lied.",
    after_help = jingwei_proto::evidence::command::HELP
)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    run(&Command::parse().arguments, &mut std::io::stdout())
}
