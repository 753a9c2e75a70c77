//! `jingwei find`

use comfy_table::{Table, presets};
use jingwei_proto::wire::node::FindRequest;
use jingwei_registry::command::at_least_one;
use jingwei_registry::fault::Fault;
use jingwei_registry::say;

use super::Place;
use super::client::{received, with_node};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei find --dir fr
  jingwei find --dir fr population commune

Every word must occur: in the name, the title, the description, a column or the agency's name.
Withheld datasets are listed only to the agency's own people, here at its own node.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// What to look for; without words everything is listed
    words: Vec<String>,
    /// At most this many
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one)]
    limit: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let request = FindRequest {
        words: arguments.words.clone(),
        limit: u32::try_from(arguments.limit).unwrap_or(u32::MAX),
    };
    let found = with_node(&arguments.place, |mut node| async move {
        received(node.find(request).await)
    })?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["dataset", "rows", "sharing", "published", "title"]);
    for dataset in &found.datasets {
        table.add_row([
            format!("{}@{}", dataset.dataset, dataset.version),
            dataset.rows.to_string(),
            dataset.sharing.clone(),
            dataset.time.clone(),
            dataset.title.clone(),
        ]);
    }
    if found.total == 0 {
        say!("nothing found; ‘jingwei find’ without words lists everything");
        return Ok(());
    }
    say!("{}", table.trim_fmt());
    let shown = found.datasets.len() as u64;
    if shown < found.total {
        say!("{shown} of {} shown; --limit shows more", found.total);
    }
    Ok(())
}
