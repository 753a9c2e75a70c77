//! `jingwei-registry init`

use jingwei_proto::note::{NoteKey, NoteKeyError};
use jingwei_proto::statement::{RECOVERY_DELAY, fingerprint};
use jingwei_proto::words::root_keys;
use jingwei_registry::clock;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Fault;
use jingwei_registry::found::{FoundError, Plan, found};
use jingwei_registry::witness::client::parse_url;
use jingwei_registry::{say, shell};

use super::{Place, recovery_delay};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei-registry init --dir registry --name my-land
  jingwei-registry init --dir registry --name my-land --quorum 2 \\
      --witness \"$(cat w1/vkey)\" http://127.0.0.1:7201 \\
      --witness \"$(cat w2/vkey)\" http://127.0.0.1:7202

A witness co-signs each checkpoint of the log; begin one with ‘jingwei-registry witness init’.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The federation's name: 1 to 32 of a-z, 0-9 and inner dashes
    #[arg(long)]
    name: String,
    /// How many root keys to make
    #[arg(long, default_value_t = 3, value_name = "N")]
    root_keys: u64,
    /// How many of them must sign
    #[arg(long, default_value_t = 2, value_name = "K")]
    threshold: u64,
    /// Seconds before a superior's recovery of an agency's key takes effect
    #[arg(long, default_value_t = RECOVERY_DELAY, value_name = "SECONDS", value_parser = recovery_delay)]
    recovery_delay: u64,
    /// A witness's key, as ‘witness init’ prints it, and where checkpoints are submitted to it;
    /// once for each witness
    #[arg(long, num_args = 2, value_names = ["VKEY", "URL"], action = clap::ArgAction::Append)]
    witness: Vec<String>,
    /// How many witnesses must co-sign a checkpoint; by default more than half of them
    #[arg(long, value_name = "K")]
    quorum: Option<u64>,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let dir = &arguments.place.dir;
    let (paths, _) = arguments.place.read()?;
    let founded = found(paths, &plan(arguments)?, clock::system()(), Disk::new()).map_err(
        |error| match error {
            FoundError::Exists(_)
            | FoundError::Name(_)
            | FoundError::Threshold { .. }
            | FoundError::Quorum { .. }
            | FoundError::Witness(_) => wrong_use(error),
            other => failed(other),
        },
    )?;
    say!("federation  {}", founded.federation);
    say!("root        {}", fingerprint(&founded.root));
    say!("");
    say!("Give the root's fingerprint to everybody who joins, on paper if it can be.");
    say!(
        "National agencies are enrolled by {} of {}. Move them to different people's safes:",
        arguments.threshold,
        root_keys(arguments.root_keys)
    );
    for path in &founded.root_keys {
        say!("  {}", path.display());
    }
    say!("");
    if !arguments.witness.is_empty() {
        say!("Tell the witnesses which log to co-sign: give each of them the policy that");
        say!("  jingwei-registry policy --dir {}", shell::path(dir));
        say!("prints, to be named with --policy.");
        say!("");
    }
    say!("Next: jingwei-registry serve --dir {}", shell::path(dir));
    Ok(())
}

/// What `--witness VKEY URL` names.
pub fn witnesses(pairs: &[String]) -> Result<Vec<(NoteKey, reqwest::Url)>, Fault> {
    let mut witnesses = Vec::new();
    for pair in pairs.chunks(2) {
        let [key, url] = pair else { continue };
        let key: NoteKey = key
            .parse()
            .map_err(|error: NoteKeyError| wrong_use(format!("--witness {key}: {error}")))?;
        let url = parse_url(url).ok_or_else(|| {
            wrong_use(format!(
                "‘{url}’ is not a witness's address; it looks like http://HOST:PORT"
            ))
        })?;
        witnesses.push((key, url));
    }
    Ok(witnesses)
}

fn plan(arguments: &Arguments) -> Result<Plan, Fault> {
    let witnesses = witnesses(&arguments.witness)?;
    let majority = match witnesses.len() as u64 {
        0 => 0,
        witnesses => witnesses / 2 + 1,
    };
    Ok(Plan {
        name: arguments.name.clone(),
        keys: arguments.root_keys,
        threshold: arguments.threshold,
        recovery_delay: arguments.recovery_delay,
        quorum: arguments.quorum.unwrap_or(majority),
        witnesses,
    })
}
