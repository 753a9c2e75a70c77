//! `jingwei-registry policy`

use std::io::Write as _;

use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::policy::Policy;
use jingwei_proto::state::RootRecord;
use jingwei_registry::command::failed;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::registry::newest_record;

use super::keepers::Running;
use super::status::NO_WITNESS;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei-registry policy --dir registry > policy

The text is a C2SP tlog-policy: it names the log's key, its witnesses' keys and the quorum. Witnesses
read from it which log to co-sign, and any tool that knows the format verifies the log's checkpoints
by it. Where no witness is asked for, the registry's own cosigner stands in its place. It is made from
the root in force; while the registry is not running, from the newest one in its directory, and says
so.")]
pub struct Arguments {
    #[command(flatten)]
    running: Running,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let (root, unreached) = root(&arguments.running)?;
    let policy = Policy::of_log(&CheckpointKeys::of_root(&root)).map_err(failed)?;
    let mut head = format!("# root document {}\n", root.chain.sequence);
    if let Some(fault) = unreached {
        head += "# the registry was not reached: this is the newest root in its directory\n";
        // Whoever writes the text to a file sees this too.
        eprintln!(
            "{}: this policy is of root document {}, the newest in {}",
            fault.message,
            root.chain.sequence,
            arguments.running.place.dir.display()
        );
    }
    if root.quorum == 0 {
        head += &format!("# witnesses: {NO_WITNESS}\n");
        head += "# cosigner: the registry's own key, which dates its checkpoints\n";
    }
    // Whoever has closed the other end has seen enough.
    let _ = std::io::stdout().write_all(&[head.as_bytes(), &policy.to_bytes()].concat());
    Ok(())
}

/// The root in force; where the registry cannot be read over the network, as before its witnesses
/// co-sign its log for the first time, the newest one in its directory, and why.
fn root(running: &Running) -> Result<(RootRecord, Option<Fault>), Fault> {
    match running.view() {
        Ok(view) => Ok((view.root()?, None)),
        Err(fault) if fault.blame == Blame::Unavailable => {
            let (paths, _) = running.place.read()?;
            Ok((newest_record(&paths).map_err(failed)?, Some(fault)))
        }
        Err(fault) => Err(fault),
    }
}
