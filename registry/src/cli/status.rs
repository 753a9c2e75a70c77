//! `jingwei-registry status`

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_registry::command::failed;
use jingwei_registry::fault::Fault;
use jingwei_registry::say;

use super::keepers::Running;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei-registry status --dir registry

Reads and verifies the log of the running registry, as a node does.")]
pub struct Arguments {
    #[command(flatten)]
    running: Running,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let view = arguments.running.view()?;
    let (root, note) = (view.root()?, view.checkpoint()?);
    let keys = CheckpointKeys::of_root(&root);
    let log_key = keys.log_key().map_err(failed)?;
    let (checkpoint, signed) = Checkpoint::open(note.as_bytes(), &log_key).map_err(failed)?;
    say!("log         {}", checkpoint.origin);
    say!("published   {} entries", checkpoint.size);
    for (key, time) in keys.cosigners(&signed).map_err(failed)? {
        match time {
            Some(time) => say!("co-signed   {} at {time}", key.name()),
            None => say!("not signed  {}", key.name()),
        }
    }
    let (_, time) = keys.verify(&note).map_err(failed)?;
    let witnesses = root.witnesses.len();
    say!("quorum      {} of {witnesses}, at {time}", root.quorum);
    Ok(())
}
