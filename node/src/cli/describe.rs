//! `jingwei describe`

use comfy_table::{Table, presets};
use jingwei_proto::wire::node::{DescribeRequest, DescribeResponse};
use jingwei_registry::fault::Fault;
use jingwei_registry::say;
use jingwei_schemas::{Column, TableSchema};

use super::Place;
use super::client::{received, with_node};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei describe --dir fr fr.communes/communes
  jingwei describe --dir fr fr.communes/communes@2
  jingwei describe --dir fr fr.communes/communes --schema > communes.schema.json")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// AGENCY/NAME, or AGENCY/NAME@VERSION
    dataset: String,
    /// Print its JSON Schema and nothing else
    #[arg(long)]
    schema: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let request = DescribeRequest {
        dataset: arguments.dataset.clone(),
    };
    let described = with_node(&arguments.place, |mut node| async move {
        received(node.describe(request).await)
    })?;
    if arguments.schema {
        say!("{}", described.schema);
    } else {
        print(&described);
    }
    Ok(())
}

fn print(described: &DescribeResponse) {
    let summary = described.summary.clone().unwrap_or_default();
    say!(
        "dataset     {}@{} (newest: {})",
        summary.dataset,
        summary.version,
        described.versions
    );
    if !summary.title.is_empty() {
        say!("title       {}", summary.title);
    }
    say!(
        "agency      {}, level {}, {}",
        described.agency_name,
        described.agency_level,
        described.agency_territory
    );
    if !summary.agency_stopped.is_empty() {
        say!("            {}", summary.agency_stopped);
    }
    say!("sharing     {}", summary.sharing);
    say!(
        "published   {}, log entry {}",
        summary.time,
        described.index
    );
    say!("rows        {}", summary.rows);
    if !described.source_format.is_empty() {
        say!(
            "made from   {} of {} bytes",
            described.source_format,
            described.source_bytes
        );
    }
    for file in &described.files {
        say!("data        SHA-256 {}, {} bytes", file.digest, file.bytes);
    }
    say!("manifest    SHA-256 {}", described.manifest_digest);
    if let Some((agency, name)) = summary.dataset.split_once('/') {
        // Without a version the newest is meant.
        match summary.version == described.versions {
            true => say!("in SQL      \"{agency}\".{name}"),
            false => say!("in SQL      \"{agency}\".\"{name}@{}\"", summary.version),
        }
    }
    if !described.description.is_empty() {
        say!("\n{}", described.description);
    }
    if let Some(history) = history(described) {
        say!("\n{}", history.trim_fmt());
    }
    if let Ok(schema) = TableSchema::parse_entered(described.schema.as_bytes()) {
        say!("\n{}", columns(&schema).trim_fmt());
    }
}

/// The versions there are, if more than the one that is shown.
fn history(described: &DescribeResponse) -> Option<Table> {
    if described.history.len() < 2 {
        return None;
    }
    let mut table = plain(&["version", "published", "rows"]);
    for version in &described.history {
        table.add_row([
            version.version.to_string(),
            version.time.clone(),
            version.rows.to_string(),
        ]);
    }
    if (described.history.len() as u64) < described.versions {
        table.add_row(["…", "", ""]);
    }
    Some(table)
}

fn columns(schema: &TableSchema) -> Table {
    let mut table = plain(&["column", "type", "unit", "stated", "what it is"]);
    for column in schema.columns() {
        let required = if column.required {
            ""
        } else {
            ", may be empty"
        };
        table.add_row([
            column.name.clone(),
            format!("{}{required}", column.kind),
            column.unit.clone().unwrap_or_default(),
            stated(column),
            column
                .title
                .clone()
                .or_else(|| column.description.clone())
                .unwrap_or_default(),
        ]);
    }
    table
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}

/// What the schema states of a column besides type and unit, one annotation on each line.
fn stated(column: &Column) -> String {
    let text = |what: &str, value: Option<String>| value.map(|value| format!("{what} {value}"));
    let shown = |value: &dyn ToString| value.to_string();
    let geometry = column.geometry.as_ref().map(|encoding| match &column.crs {
        Some(crs) => format!("{encoding} in {crs}"),
        None => encoding.clone(),
    });
    [
        column.key.then(|| "key".to_owned()),
        column.territory.then(|| "territory".to_owned()),
        column.personal.then(|| "personal".to_owned()),
        text("concept", column.concept.clone()),
        text("definition", column.definition.as_ref().map(|v| shown(v))),
        text("reference", column.reference.as_ref().map(|v| shown(v))),
        text("grain", column.grain.as_ref().map(|v| shown(v))),
        text("adds up", column.additive.as_ref().map(|v| shown(v))),
        text("codes", column.codes.as_ref().map(|v| shown(v))),
        text("geometry", geometry),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<String>>()
    .join("\n")
}
