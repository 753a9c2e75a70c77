//! `jingwei-registry policy`

use std::io::Write as _;

use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::policy::Policy;
use jingwei_proto::state::RootRecord;
use jingwei_registry::command::failed;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::registry::first_record;

use super::keepers::Running;
use super::status::NO_WITNESS;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei-registry policy --dir registry > policy

The text is a C2SP tlog-policy: it names the log's key, its witnesses' keys and the quorum. Witnesses
read from it which log to co-sign, and any tool that knows the format verifies the log's checkpoints
by it. Where no witness is asked for, the registry's own cosigner stands in its place. It is made from
the root in force; while the registry is not running, from the first one, and says so.")]
pub struct Arguments {
    #[command(flatten)]
    running: Running,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let (root, reached) = root(&arguments.running)?;
    let policy = Policy::of_log(&CheckpointKeys::of_root(&root)).map_err(failed)?;
    let mut head = format!("# root document {}\n", root.chain.sequence);
    if !reached {
        head += "# the registry was not reached: this is the first root, perhaps not the one in force\n";
    }
    if root.quorum == 0 {
        head += &format!("# witnesses: {NO_WITNESS}\n");
        head += "# cosigner: the registry's own key, which dates its checkpoints\n";
    }
    // Whoever has closed the other end has seen enough.
    let _ = std::io::stdout().write_all(&[head.as_bytes(), &policy.to_bytes()].concat());
    Ok(())
}

/// The root in force, and true; before its witnesses co-sign it for the first time, a log cannot
/// be read over the network, and it is the first root, and false.
fn root(running: &Running) -> Result<(RootRecord, bool), Fault> {
    match running.view() {
        Ok(view) => Ok((view.root()?, true)),
        Err(fault) if fault.blame == Blame::Unavailable => {
            let (paths, _) = running.place.read()?;
            Ok((first_record(&paths).map_err(failed)?, false))
        }
        Err(fault) => Err(fault),
    }
}
