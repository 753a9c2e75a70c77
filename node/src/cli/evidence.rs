//! `jingwei evidence`

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;
use jingwei_proto::evidence::command::root_digest;
use jingwei_proto::evidence::{sigstore, verify};
use jingwei_registry::command::wrong_use;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::say;

const EXPORT_HELP: &str = "\
Example:
  jingwei evidence export answer.evidence --root 4QWV-3GZ6-… --sigstore sigstore
  jingwei evidence export answer.evidence --root 4QWV-3GZ6-… --sigstore manifest --statement 19

The evidence is verified first. The directory, which must be new or empty, then holds:
  <index>.sigstore.json   the statement at that index of the log, as a Sigstore bundle v0.3
  trusted-root.json       the log's name and key
  keys/<hint>.pem         the signers' keys, by the hints that the bundles name them by

Every verifier of Sigstore bundles that takes keys and a trusted root of one's own checks them;
there are no certificates and no timestamps in them. ‘tar tf answer.evidence’ lists the statements.";

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  jingwei evidence export answer.evidence --root 4QWV-3GZ6-… --sigstore sigstore"
)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Write statements of an evidence file in a form that other tools verify
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
}

#[derive(clap::Args)]
struct Export {
    /// The evidence file
    file: PathBuf,
    /// The fingerprint of the federation's root: 52 letters and digits, with or without the dashes
    #[arg(long, value_name = "FINGERPRINT", value_parser = root_digest)]
    root: Digest,
    /// As Sigstore bundles, into this directory
    #[arg(long, value_name = "DIR")]
    sigstore: PathBuf,
    /// The statement at this index of the log; by default all that the answer rests on
    #[arg(long, value_name = "INDEX")]
    statement: Vec<u64>,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    match &arguments.what {
        What::Export(arguments) => export(arguments),
    }
}

fn export(arguments: &Export) -> Result<(), Fault> {
    let path = arguments.file.display();
    let file = File::open(&arguments.file)
        .map_err(|error| wrong_use(format!("cannot read {path}: {error}")))?;
    let report = verify(BufReader::new(file), &arguments.root).map_err(|invalid| {
        Fault::new(Blame::Unverified, format!("{path} is INVALID: {invalid}"))
    })?;
    let files = sigstore::export(&report, &arguments.statement).map_err(|index| {
        let held: Vec<String> = report
            .logged
            .iter()
            .map(|logged| logged.index.to_string())
            .collect();
        wrong_use(format!("{path} holds no statement {index}"))
            .advise(format!("it holds {}", held.join(", ")))
    })?;
    claim(&arguments.sigstore)?;
    for (name, bytes) in &files {
        let path = arguments.sigstore.join(name);
        write(&path, bytes)
            .map_err(|error| Fault::new(Blame::Internal, format!("{}: {error}", path.display())))?;
        say!("{}", path.display());
    }
    Ok(())
}

/// A directory of our own: nothing that is there is written over or taken for ours.
fn claim(dir: &Path) -> Result<(), Fault> {
    let broken = |error| wrong_use(format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(broken)?;
    if fs::read_dir(dir).map_err(broken)?.next().is_some() {
        return Err(wrong_use(format!("{} is not empty", dir.display()))
            .advise("choose a new directory, or empty this one"));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create_new(path)?.write_all(bytes)
}
