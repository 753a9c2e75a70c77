//! `jingwei-registry init`

use jingwei_proto::statement::{RECOVERY_DELAY, fingerprint};
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::found::{FoundError, found};
use jingwei_registry::say;

use super::{Failure, Place, failed};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  jingwei-registry init --dir registry --name my-land")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The federation's name: a-z, 0-9 and inner dashes
    #[arg(long)]
    name: String,
    /// How many root keys to make
    #[arg(long, default_value_t = 3, value_name = "N")]
    root_keys: u64,
    /// How many of them must sign
    #[arg(long, default_value_t = 2, value_name = "K")]
    threshold: u64,
    /// Seconds before a superior's recovery of an agency's key takes effect
    #[arg(long, default_value_t = RECOVERY_DELAY, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=31_622_400))]
    recovery_delay: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let dir = &arguments.place.dir;
    let founded = found(
        dir,
        &arguments.name,
        arguments.root_keys,
        arguments.threshold,
        arguments.recovery_delay,
        clock::system()(),
        Disk::new(),
    )
    .map_err(|error| match error {
        FoundError::Name(_) | FoundError::Threshold { .. } => Failure::Usage(error.to_string()),
        other => failed(other),
    })?;
    say!("federation  {}", founded.federation);
    say!("root        {}", fingerprint(&founded.root));
    say!("");
    say!("Give the root's fingerprint to everybody who joins, on paper if it can be.");
    say!(
        "{} of these {} root keys enrol national agencies. Move them to different people's safes:",
        arguments.threshold,
        arguments.root_keys
    );
    for path in &founded.root_keys {
        say!("  {}", path.display());
    }
    say!("");
    say!("Next: jingwei-registry serve --dir {}", shell(dir));
    Ok(())
}

/// A path as it must be typed in a shell.
fn shell(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
