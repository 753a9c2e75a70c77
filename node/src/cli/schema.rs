//! `jingwei schema`

use jingwei_registry::say;
use std::path::PathBuf;

use jingwei_proto::wire::node::EnterSchemaRequest;
use jingwei_registry::command::wrong_use;
use jingwei_registry::fault::Fault;

use super::Place;
use super::client::{received, with_node};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei schema parcels.schema.json --dir std --as parcels

Others then publish with --schema AGENCY/parcels. It needs the standards role, which only the root grants.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The JSON Schema 2020-12
    file: PathBuf,
    /// Its name
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    /// The entering agency, if the node hosts several
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    agency: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let schema = std::fs::read(&arguments.file)
        .map_err(|error| wrong_use(format!("cannot read {}: {error}", arguments.file.display())))?;
    let request = EnterSchemaRequest {
        agency: arguments.agency.clone(),
        name: arguments.name.clone(),
        schema,
    };
    let entered = with_node(&arguments.place, |mut node| async move {
        received(node.enter_schema(request).await)
    })?;
    say!("entered     {} version {}", arguments.name, entered.version);
    say!("log entry   {}", entered.index);
    Ok(())
}
