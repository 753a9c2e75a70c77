//! `jingwei schema`

use jingwei_registry::say;
use std::path::{Path, PathBuf};

use jingwei_proto::wire::node::EnterSchemaRequest;
use jingwei_registry::command::wrong_use;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_schemas::TableSchema;

use super::Place;
use super::client::{received, with_node};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei schema parcels.schema.json --dir std --as parcels

Others then publish with --schema AGENCY/parcels. It needs the standards role, which only the root grants.
A schema that the name has already is not entered again.")]
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
    let request = EnterSchemaRequest {
        agency: arguments.agency.clone(),
        name: arguments.name.clone(),
        schema: read(&arguments.file)?,
    };
    let entered = with_node(&arguments.place, |mut node| async move {
        received(node.enter_schema(request).await)
    })?;
    let (what, rest) = match entered.existed {
        true => ("unchanged", ": nothing to do"),
        false => ("entered", ""),
    };
    let (name, version) = (&arguments.name, entered.version);
    say!("{what:<11} {name} version {version}{rest}");
    say!("log entry   {}", entered.index);
    Ok(())
}

/// The bytes of a schema's file. They are checked before anybody is asked, so that what is wrong
/// with them is told by the file's name, which the node does not know.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| wrong_use(format!("cannot read {shown}: {error}")))?;
    TableSchema::parse(&bytes)
        .map_err(|error| Fault::new(Blame::Malformed, format!("{shown}: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_schema_is_told_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("places.schema.json");
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let fault = read(&path).unwrap_err();
            assert_eq!(fault.blame, Blame::Malformed, "{fault}");
            let name = format!("{}: ", path.display());
            fault.message.strip_prefix(&name).unwrap().to_owned()
        };
        assert!(told("code,name\n").contains("the schema is not acceptable JSON"));
        let format =
            r#"{"type": "object", "properties": {"day": {"type": "string", "format": "dat"}}}"#;
        assert!(told(format).contains("did you mean ‘date’?"));
    }
}
