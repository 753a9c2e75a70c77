//! First stop: six agencies publish what they have, every row validated.

use std::time::{Duration, Instant};

use futures::future::join_all;
use indicatif::ProgressBar;
use jingwei_proto::wire::node::{PublishStart, Published};
use jingwei_registry::fault::Fault;

use super::data::{DATASETS, Embedded};
use super::federation::Federation;
use super::screen::{Screen, bar, duration, grouped};
use super::tour::Tour;

/// Publishes every dataset that travels inside the program.
pub async fn stop(tour: &mut Tour<'_>) -> Result<(), Fault> {
    tour.screen
        .title("1  Publishing: every row is checked before anything is signed");
    tour.screen.gap();
    let began = Instant::now();
    let bars = tour.screen.progress();
    let federation = &*tour.federation;
    let publishing = DATASETS.iter().map(|dataset| {
        let bar = bar(
            &bars,
            format!("{}/{}", dataset.agency, dataset.name),
            dataset.rows,
        );
        publish(federation, dataset, bar)
    });
    let published = join_all(publishing).await;
    // What remains of the bars gives way to the lines below.
    let _ = bars.clear();
    let published: Vec<(Published, Duration)> = published.into_iter().collect::<Result<_, _>>()?;
    for (dataset, (published, took)) in DATASETS.iter().zip(&published) {
        report(tour.screen, dataset, published, *took);
    }
    tour.screen.gap();
    let rows: u64 = published.iter().map(|(published, _)| published.rows).sum();
    tour.screen.say(&format!(
        "{} rows validated, signed and entered in {}",
        grouped(rows),
        duration(began.elapsed())
    ));
    let rows: Vec<u64> = published
        .iter()
        .map(|(published, _)| published.rows)
        .collect();
    tour.check(
        "every row of every dataset is valid and published",
        &rows,
        &DATASETS.map(|dataset| dataset.rows).to_vec(),
    );
    // What evidence rests on is older than the next snapshot that is due.
    let snapshot = tour.federation.registry.snapshot().await?;
    tour.federation
        .everywhere(
            "the published datasets and the snapshot after them",
            |index| index.size().is_ok_and(|size| size > snapshot),
        )
        .await
}

async fn publish(
    federation: &Federation,
    dataset: &Embedded,
    bar: ProgressBar,
) -> Result<(Published, Duration), Fault> {
    let began = Instant::now();
    let start = PublishStart {
        agency: dataset.agency.to_owned(),
        name: dataset.name.to_owned(),
        file: dataset.file.to_owned(),
        bytes: dataset.bytes.len() as u64,
        schema: dataset.schema.into(),
        sharing: dataset.sharing.to_string(),
        title: String::new(),
        description: dataset.source.trim_end().to_owned(),
    };
    let client = federation.client(dataset.agency)?;
    let published = client
        .publish(start, dataset.bytes, |now| bar.set_position(now.rows))
        .await?;
    bar.set_position(published.rows);
    bar.finish();
    Ok((published, began.elapsed()))
}

fn report(screen: &Screen, dataset: &Embedded, published: &Published, took: Duration) {
    screen.say(&format!(
        "{:<24} {:>6} rows  {:<13}  {:>4} kB of Parquet  log entry {:>2}  {:>8}",
        format!("{}@{}", published.dataset, published.version),
        grouped(published.rows),
        dataset.sharing.to_string(),
        published.bytes.div_ceil(1_000),
        published.index,
        duration(took)
    ));
}
