//! The command line: one file for each command; this one only delegates.

mod agency;
mod changes;
mod enrol;
mod follows;
mod init;
mod keepers;
mod policy;
mod root;
mod serve;
mod status;
mod take_over;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jingwei_proto::statement::{LONGEST_DELAY, RECOVERY_DELAY};
use jingwei_registry::command::{environment, wrong_use};
use jingwei_registry::config::Config;
use jingwei_registry::fault::Fault;
use jingwei_registry::registry::Paths;

const HELP: &str = "\
Examples:
  jingwei-registry init  --dir registry --name my-land
  jingwei-registry serve --dir registry --listen 127.0.0.1:7000
  jingwei-registry enrol --dir registry fr.enrolment

Exit codes: 0 done, 1 failed, 2 wrong use, 3 verification failed, 4 refused by the federation's rules.";

/// Runs the shared registry of a Jingwei federation.
#[derive(Parser)]
#[command(name = "jingwei-registry", version, about, after_help = HELP, term_width = 0)]
pub struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Found a federation: make its root keys and begin its log
    Init(init::Arguments),
    /// Serve the log: reads over HTTP and submissions over TLS, on one port
    Serve(serve::Arguments),
    /// Enrol a national agency with the root keys
    Enrol(enrol::Arguments),
    /// Change, suspend or end a national agency with the root keys
    Agency(agency::Arguments),
    /// Show the root document, or change it with the root keys
    Root(root::Arguments),
    /// Let another registry go on from a replica, with the root keys, when this one is lost
    TakeOver(Box<take_over::Arguments>),
    /// Print by which signatures the log's checkpoints are verified, as a C2SP tlog-policy
    Policy(policy::Arguments),
    /// Show the published checkpoint, who has co-signed it and when, and what waits for the quorum
    Status(status::Arguments),
    /// Run a witness, which co-signs logs that it need not trust
    Witness(witness::Arguments),
}

/// Where the registry lives, for every command.
#[derive(clap::Args)]
pub struct Place {
    /// The registry's directory
    #[arg(long, env = "JINGWEI_DIR", value_name = "DIR")]
    dir: PathBuf,
}

impl Place {
    /// What is configured there, and where things are accordingly.
    fn read(&self) -> Result<(Paths, Config), Fault> {
        let paths = Paths::new(&self.dir);
        let config = Config::read(&paths.settings(), environment()).map_err(wrong_use)?;
        Ok((paths.with_storage(config.storage.clone()), config))
    }
}

/// Seconds before a superior's recovery of an agency's key takes effect.
fn recovery_delay(text: &str) -> Result<u64, String> {
    let seconds: Option<u64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| *seconds <= LONGEST_DELAY);
    seconds.ok_or_else(|| {
        format!(
            "expected a whole number of seconds, such as {RECOVERY_DELAY} for a week; {LONGEST_DELAY}, a year, is the most"
        )
    })
}

/// Runs a command and says with which code to exit.
pub fn run(command: Command) -> ExitCode {
    jingwei_registry::command::end(match command.what {
        What::Init(arguments) => init::run(&arguments),
        What::Serve(arguments) => serve::run(&arguments),
        What::Enrol(arguments) => enrol::run(&arguments),
        What::Agency(arguments) => agency::run(&arguments),
        What::Root(arguments) => root::run(&arguments),
        What::TakeOver(arguments) => take_over::run(&arguments),
        What::Policy(arguments) => policy::run(&arguments),
        What::Status(arguments) => status::run(&arguments),
        What::Witness(arguments) => witness::run(&arguments),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_a_number_of_seconds() {
        assert_eq!(recovery_delay("0"), Ok(0));
        assert_eq!(recovery_delay("31622400"), Ok(LONGEST_DELAY));
        for bad in ["31622401", "7d", "-1", "1.5", ""] {
            let error = recovery_delay(bad).unwrap_err();
            assert!(error.contains("seconds, such as 604800"), "{bad}: {error}");
        }
    }
}
