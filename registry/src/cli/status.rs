//! `jingwei-registry status`

use std::time::{Duration, Instant};

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::words::entries;
use jingwei_registry::command::failed;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::say;
use jingwei_registry::view::View;

use super::keepers::Running;

/// What it means that the root asks for no witness.
pub const NO_WITNESS: &str =
    "none is asked for: only the registry itself says that it shows everybody the same log";
/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry status --dir registry
  jingwei-registry status --dir registry --wait 20     # until it shows its log, at most 20 s

Reads and verifies the log of the running registry, as a node does; and in its directory, what waits
for the quorum.")]
pub struct Arguments {
    #[command(flatten)]
    running: Running,
    /// Wait up to so many seconds until the registry shows its log
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true
    )]
    wait: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let (view, committed) = view(arguments)?;
    let (root, note) = (view.root()?, view.checkpoint()?);
    let keys = CheckpointKeys::of_root(&root);
    let log_key = keys.log_key().map_err(failed)?;
    let (checkpoint, signed) = Checkpoint::open(note.as_bytes(), &log_key).map_err(failed)?;
    say!("log         {}", checkpoint.origin);
    say!(
        "published   {}, {}",
        entries(checkpoint.size),
        checkpoint.root
    );
    let (_, time) = keys.verify(&note).map_err(failed)?;
    if root.quorum == 0 {
        say!("dated       {time}, by the registry itself");
        say!("witnesses   {NO_WITNESS}");
        return Ok(());
    }
    for (key, time) in keys.cosigners(&signed).map_err(failed)? {
        match time {
            Some(time) => say!("co-signed   {} at {time}", key.name()),
            None => say!("not signed  {}", key.name()),
        }
    }
    let witnesses = root.witnesses.len();
    say!("quorum      {} of {witnesses}, at {time}", root.quorum);
    match committed.map(|committed| waiting(committed, checkpoint.size)) {
        Ok(None) => {}
        Ok(Some(waiting)) => say!(
            "waiting     {waiting}, and readers are not shown it yet; if that lasts, the registry's own log says which witnesses do not answer"
        ),
        Err(fault) => say!("waiting     unknown: {fault}"),
    }
    Ok(())
}

/// What is committed to the log and not published.
pub fn waiting(committed: u64, published: u64) -> Option<String> {
    match committed.checked_sub(published)? {
        0 => None,
        1 => Some("1 entry is committed and waits for the quorum".to_owned()),
        more => Some(format!(
            "{} are committed and wait for the quorum",
            entries(more)
        )),
    }
}

/// What the log says, as soon as the registry shows it, and how many entries were committed to it
/// just before, if that can be read.
fn view(arguments: &Arguments) -> Result<(View, Result<u64, Fault>), Fault> {
    let deadline = Instant::now() + Duration::from_secs(arguments.wait);
    loop {
        let committed = arguments.running.committed();
        match arguments.running.view() {
            Err(fault) if fault.blame == Blame::Unavailable && Instant::now() < deadline => {
                // A registry that is starting has no port yet at which it could tell when it is ready.
                std::thread::sleep(LOOK);
            }
            Err(fault) => return Err(fault),
            Ok(view) => return Ok((view, committed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted() {
        for (committed, published) in [(5, 5), (4, 5), (0, 5)] {
            assert_eq!(waiting(committed, published), None);
        }
        let told = |committed| waiting(committed, 5).unwrap();
        assert_eq!(told(6), "1 entry is committed and waits for the quorum");
        assert_eq!(told(8), "3 entries are committed and wait for the quorum");
    }
}
