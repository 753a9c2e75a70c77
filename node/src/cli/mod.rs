//! The command line: one file for each command; this one only delegates.

mod change;
pub(crate) mod client;
mod demo;
mod describe;
mod doctor;
mod enrol;
mod evidence;
mod find;
mod follow;
mod init;
mod join;
mod publish;
mod schema;
mod serve;
mod sql;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jingwei_proto::evidence::command as verify;
use jingwei_registry::command::{self, failed};
use jingwei_registry::fault::Fault;

const HELP: &str = "\
Begin with:
  jingwei demo                         a whole federation on this machine, with a tour

A node of your own:
  jingwei init  --dir fr --agency fr --name France --level 1 --territory insee@2024:FR
  jingwei join  --dir fr http://127.0.0.1:7000 --root FINGERPRINT
  jingwei serve --dir fr
  jingwei publish communes.csv --dir fr --as communes --schema communes --sharing public
  jingwei sql   --dir fr 'SELECT count(*) FROM fr.communes'

Exit codes: 0 done, 1 failed, 2 wrong use, 3 verification failed, 4 refused by policy, 5 answer incomplete.";

/// A federated data-sharing node for government: publish validated, signed datasets, and ask
/// other departments in SQL.
#[derive(Parser)]
#[command(name = "jingwei", version, about, after_help = HELP, term_width = 0)]
pub struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Take a tour through a federation of eleven agencies, on this machine
    Demo(demo::Arguments),
    /// Make the keys of an agency in a node's directory
    Init(init::Arguments),
    /// Join a federation: verify its log and pin its root
    Join(join::Arguments),
    /// Follow another registry, which has taken over from the one that was lost
    Follow(follow::Arguments),
    /// Enrol an agency below one that this node hosts
    Enrol(enrol::Arguments),
    /// Replace an agency's key by a new one, signing with the old one
    #[command(
        after_help = "Examples:\n  jingwei rotate --dir north --agency land.north\n  jingwei rotate --dir north --yes        (without asking)"
    )]
    Rotate(change::Own),
    /// Replace a lost key: the agency proposes, its superior enters, and a delay passes
    Recover(change::Recover),
    /// Cancel a recovery of an agency's key that the agency has not asked for
    #[command(after_help = "Examples:\n  jingwei contest --dir north --agency land.north")]
    Contest(change::Own),
    /// Stop an agency below one of this node for a time
    #[command(
        after_help = "Examples:\n  jingwei suspend land.north --dir national --reason 'its key is lost'"
    )]
    Suspend(change::Below),
    /// Let a suspended agency go on
    #[command(after_help = "Examples:\n  jingwei resume land.north --dir national")]
    Resume(change::Below),
    /// End an agency below one of this node for ever
    #[command(after_help = "Examples:\n  jingwei revoke land.north --dir national")]
    Revoke(change::Below),
    /// End an agency and name who has its tasks
    #[command(after_help = "Examples:\n  jingwei successor land.north land.centre --dir national")]
    Successor(change::Heir),
    /// Change an agency's name, level or territory
    #[command(
        after_help = "Examples:\n  jingwei update land.north --dir national --name 'Northern Land'"
    )]
    Update(change::Update),
    /// Serve the node: answer others, follow the registry
    Serve(serve::Arguments),
    /// Publish a file as a dataset, all or nothing
    Publish(publish::Arguments),
    /// Enter a schema that others may conform to
    Schema(schema::Arguments),
    /// Look datasets up in the catalogue
    Find(find::Arguments),
    /// Show everything that is known of a dataset
    Describe(describe::Arguments),
    /// Ask in SQL, across agencies
    Sql(sql::Arguments),
    /// Show evidence to tools that know nothing of Jingwei
    Evidence(evidence::Arguments),
    /// Check that everything is as it should be
    Doctor(doctor::Arguments),
    /// Verify an evidence file offline (the same as jingwei-verify)
    #[command(after_help = verify::HELP)]
    Verify(verify::Arguments),
}

/// Where the node lives, for every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The node's directory
    #[arg(long, env = "JINGWEI_DIR", value_name = "DIR")]
    pub dir: PathBuf,
}

/// Stack of the runtime's threads: a query at the border grammar's full depth needs more than
/// the usual 2 MiB while it is planned. Only what is used takes memory.
const STACK: usize = 16 * 1024 * 1024;

/// The runtime that commands run in.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
        .map_err(failed)
}

/// Runs a command and says with which code to exit.
pub fn run(command: Command) -> ExitCode {
    let result = match command.what {
        What::Verify(arguments) => return verify::run(&arguments, &mut std::io::stdout()),
        What::Demo(arguments) => demo::run(arguments),
        What::Init(arguments) => init::run(arguments),
        What::Join(arguments) => join::run(&arguments),
        What::Follow(arguments) => follow::run(&arguments),
        What::Enrol(arguments) => enrol::run(&arguments),
        What::Rotate(arguments) => change::own("rotate", &arguments),
        What::Recover(arguments) => change::recover(&arguments),
        What::Contest(arguments) => change::own("contest", &arguments),
        What::Suspend(arguments) => change::below("suspend", &arguments),
        What::Resume(arguments) => change::below("resume", &arguments),
        What::Revoke(arguments) => change::below("revoke", &arguments),
        What::Successor(arguments) => change::successor(&arguments),
        What::Update(arguments) => change::update(&arguments),
        What::Serve(arguments) => serve::run(&arguments),
        What::Publish(arguments) => publish::run(&arguments),
        What::Schema(arguments) => schema::run(&arguments),
        What::Find(arguments) => find::run(&arguments),
        What::Describe(arguments) => describe::run(&arguments),
        What::Sql(arguments) => sql::run(&arguments),
        What::Evidence(arguments) => evidence::run(&arguments),
        What::Doctor(arguments) => doctor::run(&arguments),
    };
    command::end(result)
}
