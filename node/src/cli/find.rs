//! `jingwei find`

use comfy_table::{Table, presets};
use jingwei_proto::wire::node::{DatasetSummary, FindRequest};
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
Withheld datasets are listed only to the agency's own people, here at its own node.
An agency that takes no part is marked, with the log entry since which: its datasets give no answer.")]
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
    if found.total == 0 {
        let nearest = match found.nearest.as_slice() {
            [] => String::new(),
            near => format!("; the nearest: {}", near.join(", ")),
        };
        say!("nothing found{nearest}; ‘jingwei find’ without words lists everything");
        return Ok(());
    }
    say!("{}", table(&found.datasets).trim_fmt());
    let shown = found.datasets.len() as u64;
    if shown < found.total {
        say!("{shown} of {} shown; --limit shows more", found.total);
    }
    Ok(())
}

/// One line for each; how an agency stands only if one of them takes no part.
fn table(datasets: &[DatasetSummary]) -> Table {
    let stopped = datasets
        .iter()
        .any(|dataset| !dataset.agency_stopped.is_empty());
    let standing = |text: &str| stopped.then(|| text.to_owned());
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let columns = ["dataset", "rows", "sharing", "published"].map(str::to_owned);
    let last = ["title".to_owned()];
    table.set_header(columns.into_iter().chain(standing("agency")).chain(last));
    for dataset in datasets {
        let cells = [
            format!("{}@{}", dataset.dataset, dataset.version),
            dataset.rows.to_string(),
            dataset.sharing.clone(),
            dataset.time.clone(),
        ];
        let agency = standing(&dataset.agency_stopped);
        let last = [dataset.title.clone()];
        table.add_row(cells.into_iter().chain(agency).chain(last));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agency_that_takes_no_part_is_marked() {
        let dataset = |name: &str, stopped: &str| DatasetSummary {
            dataset: name.to_owned(),
            version: 1,
            title: "Places".to_owned(),
            agency_stopped: stopped.to_owned(),
            ..DatasetSummary::default()
        };
        let active = dataset("aa/places", "");
        let plain = table(std::slice::from_ref(&active)).trim_fmt();
        assert!(!plain.contains("agency"), "{plain}");
        let stopped = dataset("bb/places", "suspended since log entry 7: ‘an audit’");
        let marked = table(&[active, stopped]).trim_fmt();
        let lines: Vec<&str> = marked.lines().collect();
        assert!(lines[0].contains("agency"), "{marked}");
        assert!(!lines[1].contains("suspended"), "{marked}");
        assert!(
            lines[2].contains("suspended since log entry 7: ‘an audit’"),
            "{marked}"
        );
    }
}
