//! `jingwei demo`

use std::path::PathBuf;
use std::time::Duration;

use jingwei_registry::fault::Fault;

use super::runtime;
use crate::demo::{self, Directory, Options};

/// For threads that still wait for a disk when the demo ends.
const ENDING: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei demo
  jingwei demo --once               # the tour only; exit code 0 if all came out as it must
  jingwei demo --dir /tmp/demo      # keep everything there

It needs no network and nothing installed: all is on free ports of 127.0.0.1.")]
pub struct Arguments {
    /// Keep everything in this directory, which must be new or empty; by default a temporary
    /// one, which is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End after the tour instead of staying up
    #[arg(long)]
    once: bool,
    /// Plain lines without colours and progress bars
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Fault> {
    let directory = Directory::claim(arguments.dir.as_deref())?;
    let options = Options {
        once: arguments.once,
        quiet: arguments.quiet,
    };
    let runtime = runtime()?;
    let result = runtime.block_on(demo::run(&directory, options));
    // Everything that writes ends before a temporary directory is removed.
    runtime.shutdown_timeout(ENDING);
    result
}
