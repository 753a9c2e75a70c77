//! `jingwei describe`

use comfy_table::{Table, presets};
use jingwei_proto::wire::node::{DescribeRequest, DescribeResponse};
use jingwei_registry::fault::Fault;
use jingwei_registry::say;
use jingwei_schemas::TableSchema;

use super::Place;
use super::client::with_node;

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
        let answer = node.describe(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| Fault::from_status(&status))
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
        say!("in SQL      \"{agency}\".{name}");
    }
    if !described.description.is_empty() {
        say!("\n{}", described.description);
    }
    if let Ok(schema) = TableSchema::parse(described.schema.as_bytes()) {
        say!("\n{}", columns(&schema).trim_fmt());
    }
}

fn columns(schema: &TableSchema) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["column", "type", "unit", "definition", "what it is"]);
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
            column
                .definition
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            column
                .title
                .clone()
                .or_else(|| column.description.clone())
                .unwrap_or_default(),
        ]);
    }
    table
}
