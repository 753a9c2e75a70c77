//! Fourth stop: the registry is stopped, and the nodes go on answering each other.

use std::io::ErrorKind;
use std::path::Path;

use jingwei_registry::fault::Fault;

use super::client::Answer;
use super::federation::Federation;
use super::questions::{ASKER, VERTICAL, ask, check_vertical};
use super::registry::failed;
use super::tour::Tour;
use crate::home::Home;
use crate::journal::{self, Kind};

/// The agencies whose journals show that they were asked again.
const ASKED: [&str; 2] = ["fr.communes", "fr.groups"];

/// Stops the registry, asks what was asked `before`, and hands back the new answer with its
/// evidence. The registry stays stopped.
pub async fn stop(tour: &mut Tour<'_>, before: &Answer) -> Result<Answer, Fault> {
    tour.screen
        .title("4  Without the registry: it is stopped, and the same question is asked again");
    let receipts = receipts_of(tour.federation)?;
    tour.federation.registry.stop().await;
    let knocked = tour
        .federation
        .registry
        .knock()
        .await
        .err()
        .map(|error| error.kind());
    tour.screen.gap();
    let closed = format!(
        "the registry's port {} refuses connections",
        tour.federation.registry.address()
    );
    tour.check(&closed, &knocked, &Some(ErrorKind::ConnectionRefused));
    let answer = ask(tour, ASKER, VERTICAL, true).await?;
    check_vertical(tour, &answer)?;
    tour.check(
        "the answer is the same as before",
        &answer.table,
        &before.table,
    );
    let more: Vec<usize> = receipts.iter().map(|count| count + 1).collect();
    tour.check(
        "it came from no cache: each provider's journal holds one receipt more",
        &receipts_of(tour.federation)?,
        &more,
    );
    Ok(answer)
}

fn receipts_of(federation: &Federation) -> Result<Vec<usize>, Fault> {
    ASKED
        .iter()
        .map(|agency| {
            receipts(
                &Home::new(&federation.node_dir(agency)?)
                    .journal()
                    .join(agency),
            )
        })
        .collect()
}

/// Receipts in an agency's journal of all years, read from its files.
fn receipts(journal: &Path) -> Result<usize, Fault> {
    let mut count = 0;
    for year in std::fs::read_dir(journal).map_err(failed)? {
        let records = journal::read_all(&year.map_err(failed)?.path()).map_err(failed)?;
        count += records
            .iter()
            .filter(|stored| stored.record.kind == Kind::Receipt)
            .count();
    }
    Ok(count)
}
