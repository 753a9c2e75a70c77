//! The command `verify`: the same in `jingwei-verify` and in `jingwei`. A file says by its first
//! member whether it is evidence or a proof of misbehaviour.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Report, verify};
use crate::digest::Digest;
use crate::misbehaviour::{CLAIM, Misbehaviour, Verdict};
use crate::statement::{fingerprint, parse_fingerprint};
use crate::words::{counted, entries, rows};

/// Examples and exit codes, for `--help`.
pub const HELP: &str = "\
Examples:
  jingwei-verify answer.evidence --root 4QWV-3GZ6-…        (as the root's keepers gave it)
  jingwei-verify answer.evidence --root 4QWV-3GZ6-… --export answer.csv
  jingwei-verify two-histories.misbehaviour --root 4QWV-3GZ6-…   (a registry that lied)

The file is a plain tar archive: ‘tar tf answer.evidence’ lists it, and every Arrow reader opens
the .arrows files in it. Its bytes count: unpacked and packed again, it is no longer evidence.
Nothing is fetched from anywhere.

Exit codes: 0 valid, or misbehaviour proved; 1 the verdict cannot be printed, 2 wrong use, such as a
file that is not there, 3 invalid, or nothing proved.";

const INVALID: u8 = 3;
const WRONG_USE: u8 = 2;
const FAILED: u8 = 1;

/// What to verify, and against what.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The evidence file, or the proof of misbehaviour
    pub file: PathBuf,
    /// The fingerprint of the federation's root: 52 letters and digits, with or without the dashes
    #[arg(long, value_name = "FINGERPRINT", value_parser = root_digest)]
    pub root: Digest,
    /// A file that the answer was exported to; it must be one that the evidence names
    #[arg(long, value_name = "FILE")]
    pub export: Vec<PathBuf>,
    /// Print the verdict only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Reads the fingerprint that a person typed.
pub fn root_digest(text: &str) -> Result<Digest, String> {
    parse_fingerprint(text).ok_or_else(|| {
        "a fingerprint has 52 letters A-Z and digits 2-7, with or without dashes between them, as the root's keepers gave it".to_owned()
    })
}

/// Verifies, prints the verdict to `out`, and says with which code to exit.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> ExitCode {
    let file = match File::open(&arguments.file) {
        Ok(file) => file,
        Err(error) => return unreadable(&arguments.file, &error),
    };
    let mut file = BufReader::new(file);
    let accuses = match file.fill_buf() {
        Ok(start) => start
            .strip_prefix(CLAIM.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0)),
        Err(error) => return unreadable(&arguments.file, &error),
    };
    if accuses {
        return confirm(file, arguments, out).unwrap_or(ExitCode::from(FAILED));
    }
    let mut exports = Vec::new();
    for path in &arguments.export {
        match File::open(path).and_then(Digest::of_reader) {
            Ok(digest) => exports.push((path, digest)),
            Err(error) => return unreadable(path, &error),
        }
    }
    let verdict = verify(file, &arguments.root)
        .map_err(|invalid| invalid.to_string())
        .and_then(|report| check_exports(&exports, &report).map(|()| report));
    let printed = match &verdict {
        Ok(report) if arguments.quiet => print_valid(report, out).map(|()| ExitCode::SUCCESS),
        Ok(report) => print_valid(report, out)
            .and_then(|()| print_report(report, &arguments.root, out))
            .map(|()| ExitCode::SUCCESS),
        Err(reason) => {
            writeln!(out, "INVALID: {}", printable(reason)).map(|()| ExitCode::from(INVALID))
        }
    };
    // Who closes the pipe early has seen the verdict or does not want it.
    printed.unwrap_or(ExitCode::from(FAILED))
}

/// A file that was named and cannot be read: nothing is said about what it holds.
fn unreadable(path: &Path, error: &std::io::Error) -> ExitCode {
    eprintln!("error: cannot read {}: {error}", path.display());
    ExitCode::from(WRONG_USE)
}

/// Confirms a proof of misbehaviour, or says why it is none.
fn confirm(
    file: impl Read,
    arguments: &Arguments,
    out: &mut dyn Write,
) -> std::io::Result<ExitCode> {
    let verdict = Misbehaviour::read(file).and_then(|proof| proof.verify(&arguments.root));
    match verdict {
        Ok(verdict) => {
            writeln!(out, "MISBEHAVIOUR PROVED: {}", printable(&verdict.lie))?;
            if !arguments.quiet {
                print_verdict(&verdict, &arguments.root, out)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            writeln!(out, "NOTHING PROVED: {}", printable(&reason.0))?;
            Ok(ExitCode::from(INVALID))
        }
    }
}

fn print_verdict(verdict: &Verdict, root: &Digest, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "  federation  {}", verdict.federation)?;
    writeln!(out, "  root        {}", fingerprint(root))?;
    writeln!(out, "  log         {}", printable(&verdict.origin))?;
    writeln!(out, "  who lied    {}", printable(&verdict.liar.role))?;
    writeln!(out, "              {}", verdict.liar.key)?;
    for (name, detail) in &verdict.details {
        writeln!(out, "  {name:<11} {}", printable(detail))?;
    }
    Ok(())
}

fn check_exports(exports: &[(&PathBuf, Digest)], report: &Report) -> Result<(), String> {
    for (path, digest) in exports {
        if !report.exports.iter().any(|(_, signed)| signed == digest) {
            return Err(format!(
                "{} (SHA-256 {digest}) is not a file that this evidence names",
                path.display()
            ));
        }
    }
    Ok(())
}

/// A stranger's text, which must not steer the reader's terminal or look like lines of ours.
pub fn printable(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default().to_string());
            escaped
                .unwrap_or_else(|| c.to_string())
                .chars()
                .collect::<Vec<_>>()
        })
        .collect()
}

fn print_valid(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "VALID: {} asked, {} from others, {}",
        report.asker,
        counted(report.exchanges.len() as u64, "answer", "answers"),
        rows(report.answer.rows)
    )
}

fn print_report(report: &Report, root: &Digest, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "  federation  {}", report.federation)?;
    writeln!(out, "  root        {}", fingerprint(root))?;
    writeln!(
        out,
        "  log         {}, head co-signed {}",
        entries(report.checkpoint.size),
        report.log_time
    )?;
    for (name, time) in &report.cosigners {
        writeln!(out, "  witness     {} at {time}", printable(name))?;
    }
    if report.cosigners.is_empty() {
        writeln!(
            out,
            "  witness     none: the registry's own word for its log"
        )?;
    }
    match &report.settled {
        Some(settled) => writeln!(
            out,
            "  members     nothing left out of what happened to them before entry {}, {}",
            settled.index, settled.time
        )?,
        None => writeln!(
            out,
            "  members     as the file shows them; no snapshot proves that this is all"
        )?,
    }
    writeln!(
        out,
        "  asked by    {}, saved at {}",
        report.asker, report.time
    )?;
    writeln!(out, "  question    {}", printable(&report.sql))?;
    writeln!(
        out,
        "  table       {}, SHA-256 {}",
        rows(report.answer.rows),
        report.answer.digest
    )?;
    for exchange in &report.exchanges {
        writeln!(
            out,
            "  {} ({}) answered at {}",
            exchange.version, exchange.sharing, exchange.time
        )?;
        writeln!(out, "    asked     {}", printable(&exchange.query))?;
        if let Some(purpose) = &exchange.purpose {
            writeln!(out, "    purpose   {}", printable(purpose))?;
        }
        if let Some(basis) = &exchange.legal_basis {
            writeln!(out, "    basis     {}", printable(basis))?;
        }
        writeln!(
            out,
            "    answer    {}, SHA-256 {}, acknowledged",
            rows(exchange.answer.rows),
            exchange.answer.digest
        )?;
    }
    for (format, digest) in &report.exports {
        writeln!(out, "  export      {}, SHA-256 {digest}", printable(format))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_texts_stay_on_their_line() {
        assert_eq!(printable("SELECT 1\nVALID: all"), "SELECT 1 VALID: all");
        assert_eq!(printable("\u{1b}[2Jx 中"), "\\u{1b}[2Jx 中");
    }
}
