//! Fifth stop: the evidence of an answer is verified offline, and again with one byte changed.

use std::path::{Path, PathBuf};

use jingwei_proto::evidence::{self, command};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::shell;

use super::client::Answer;
use super::federation::Federation;
use super::registry::failed;
use super::screen::grouped;
use super::tour::Tour;
use super::witnesses::WITNESSES;

/// A name that stands in the providers' rows; the byte that is changed is its first.
const NAME: &[u8] = "Rennes Métropole".as_bytes();

/// Where the evidence is saved.
pub fn saved(federation: &Federation) -> PathBuf {
    federation.dir().join("answer.evidence")
}

/// Saves and verifies the evidence of an answer.
pub fn stop(tour: &mut Tour<'_>, answer: &Answer) -> Result<(), Fault> {
    tour.screen
        .title("5  Proof: anyone can verify the answer offline, from one file");
    tour.screen.gap();
    let path = saved(tour.federation);
    std::fs::write(&path, &answer.evidence).map_err(failed)?;
    tour.screen.say(&format!(
        "the evidence of the last answer: {}, {} bytes",
        path.display(),
        grouped(answer.evidence.len())
    ));
    let verdict = verify(tour, &path);
    tour.check("the evidence is valid", &verdict, &"VALID".to_owned());
    check_witnesses(tour, answer)?;
    tour.screen.gap();
    let (altered, place) = alter(&answer.evidence)?;
    let path = tour.federation.dir().join("altered.evidence");
    std::fs::write(&path, altered).map_err(failed)?;
    tour.screen.say(&format!(
        "one byte is changed, at {}: ‘Rennes’ becomes ‘Sennes’ in what a provider sent",
        grouped(place)
    ));
    let verdict = verify(tour, &path);
    tour.check(
        "the altered evidence is not",
        &verdict,
        &"INVALID".to_owned(),
    );
    Ok(())
}

/// The registry's word alone would not do: who has co-signed the head of its log in the evidence.
fn check_witnesses(tour: &mut Tour<'_>, answer: &Answer) -> Result<(), Fault> {
    let report = evidence::verify(&answer.evidence[..], &tour.federation.registry.root());
    let report = report.map_err(failed)?;
    tour.check(
        "a snapshot of the log proves that it leaves out nothing that happened to the agencies",
        &report.settled.is_some(),
        &true,
    );
    let cosigners: Vec<String> = report.cosigners.into_iter().map(|(name, _)| name).collect();
    let what = format!(
        "{} have co-signed the log's head in it: they saw it grow from all that they signed before",
        WITNESSES.join(" and ")
    );
    tour.check(&what, &cosigners, &WITNESSES.map(str::to_owned).to_vec());
    Ok(())
}

/// The evidence with one byte of a provider's rows changed, and where.
fn alter(evidence: &[u8]) -> Result<(Vec<u8>, usize), Fault> {
    let place = evidence
        .windows(NAME.len())
        .position(|bytes| bytes == NAME)
        .ok_or_else(|| {
            Fault::new(
                Blame::Internal,
                "the evidence does not hold the providers' rows",
            )
        })?;
    let mut altered = evidence.to_vec();
    altered[place] = b'S';
    Ok((altered, place))
}

/// Runs `jingwei verify` on the file, shows what it prints, and hands back the verdict.
pub fn verify(tour: &Tour<'_>, path: &Path) -> String {
    let registry = &tour.federation.registry;
    tour.screen.say(&format!(
        "jingwei verify {} --root {}",
        shell::path(path),
        registry.fingerprint()
    ));
    tour.screen.gap();
    let arguments = command::Arguments {
        file: path.to_owned(),
        root: registry.root(),
        export: Vec::new(),
        quiet: false,
    };
    let mut printed = Vec::new();
    command::run(&arguments, &mut printed);
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let mut lines = printed.lines();
    let verdict = lines.next().unwrap_or_default();
    tour.screen.say(verdict);
    for line in lines {
        tour.screen.aside(line);
    }
    tour.screen.gap();
    verdict.split(':').next().unwrap_or_default().to_owned()
}
