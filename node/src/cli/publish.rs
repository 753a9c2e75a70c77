//! `jingwei publish`

use jingwei_registry::say;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use jingwei_proto::statement::Sharing;
use jingwei_proto::wire::node::{
    PublishEnd, PublishProgress, PublishRequest, PublishStart, Published, RowsRejected,
    publish_request, publish_response,
};
use jingwei_proto::words::{counted, rows};
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::fault::{Blame, Fault};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Place;
use super::client::{self, Client, received, with_node};
use crate::ingest::LIST_COLUMNS;

/// Bytes of the file in one message.
const CHUNK: usize = 1024 * 1024;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei publish communes.csv    --dir fr --as communes --schema communes.schema.json --sharing unconditional
  jingwei publish weather.csv.gz  --dir fr --as weather  --schema weather_daily        --sharing public
  jingwei publish parcels.parquet --dir fr --as parcels  --schema eu/parcels           --sharing conditional

FILE is CSV, NDJSON, a JSON array (each may be gzipped) or Parquet. Every row is checked against the
schema; if one row breaks it nothing is published. The first 20 violations are shown, and all are
listed in FILE.rejects.csv in the current directory, until FILE has been published.
The same file published twice is one version.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The file to publish
    file: PathBuf,
    /// The dataset's name
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    /// A JSON Schema file, AGENCY/NAME of one in the registry, or one of the program's own
    #[arg(long, value_name = "SCHEMA")]
    schema: String,
    /// Who may read it: public, unconditional, conditional, withheld
    #[arg(long, value_name = "CLASS")]
    sharing: Sharing,
    /// The publishing agency, if the node hosts several
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    agency: String,
    /// A title for people; by default the schema's
    #[arg(long, default_value = "", hide_default_value = true)]
    title: String,
    /// What it holds, where it comes from, its licence; by default the schema's
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let upload = Upload::open(&arguments.file)?;
    let start = PublishStart {
        agency: arguments.agency.clone(),
        name: arguments.name.clone(),
        file: file_name(&arguments.file),
        bytes: upload.bytes,
        schema: schema(&arguments.schema)?,
        sharing: arguments.sharing.to_string(),
        title: arguments.title.clone(),
        description: arguments.description.clone(),
    };
    let bar = bar(upload.bytes, arguments.quiet);
    let rejects = rejects(&arguments.file);
    let published = with_node(&arguments.place, |node| {
        publish(node, start, upload, &bar, &rejects)
    })?;
    bar.finish_and_clear();
    let what = if published.existed {
        "unchanged"
    } else {
        "published"
    };
    say!("{what:<11} {}@{}", published.dataset, published.version);
    say!("rows        {}", published.rows);
    if published.rows == 0 {
        say!("note        a version without rows: whoever asks for the newest gets none");
    }
    say!(
        "data        SHA-256 {}, {} bytes of Parquet",
        published.digest,
        published.bytes
    );
    say!("log entry   {}", published.index);
    if let Some(note) = note(arguments.sharing, &published.dataset) {
        say!("note        {note}");
    }
    for alarm in &published.alarms {
        say!("alarm       {alarm}");
    }
    if !published.alarms.is_empty() {
        say!("note        ‘jingwei doctor’ says what to do about an alarm");
    }
    forget(&rejects);
    Ok(())
}

/// What its publisher may not expect of a sharing class.
fn note(sharing: Sharing, dataset: &str) -> Option<String> {
    let agency = dataset
        .split_once('/')
        .map_or(dataset, |(agency, _)| agency);
    (sharing == Sharing::Conditional).then(|| {
        format!(
            "nobody but {agency} itself gets an answer yet: others need a grant, and grants cannot be given so far"
        )
    })
}

/// Removes the list of what was wrong with the file in an earlier attempt. Another file of that
/// name stays: it has not the first line of ours.
fn forget(rejects: &Path) {
    if !rejects.is_file() {
        return;
    }
    let Ok(file) = File::open(rejects) else {
        return;
    };
    let ours = format!("{}\n", LIST_COLUMNS.join(","));
    let mut first = Vec::new();
    let read = file.take(ours.len() as u64).read_to_end(&mut first);
    if read.is_err() || first != ours.as_bytes() {
        return;
    }
    let path = rejects.display();
    match std::fs::remove_file(rejects) {
        Ok(()) => say!("removed     {path}, the list of an earlier attempt"),
        // The file is published, which is what was asked for.
        Err(error) => say!("note        {path} is of an earlier attempt, and stays: {error}"),
    }
}

/// Where the list of what is wrong with a file goes: into the current directory, since the file's
/// own may be somebody else's. All of the path is told.
fn rejects(file: &Path) -> PathBuf {
    let name = PathBuf::from(format!("{}.rejects.csv", file_name(file)));
    std::path::absolute(&name).unwrap_or(name)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The schema's bytes, if it is a file; otherwise its name, which the node looks up.
fn schema(text: &str) -> Result<Vec<u8>, Fault> {
    let path = Path::new(text);
    // A pipe will do: it is read once.
    if path.exists() && !path.is_dir() {
        return super::schema::read(path);
    }
    if text.ends_with(".json") || text.starts_with(['.', '/']) {
        return Err(wrong_use(format!("there is no schema file {text}")));
    }
    Ok(text.as_bytes().to_vec())
}

/// A file being read, and what it was when reading began.
struct Upload {
    file: File,
    name: String,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Upload {
    fn open(path: &Path) -> Result<Upload, Fault> {
        let cannot =
            |error: std::io::Error| wrong_use(format!("cannot read {}: {error}", path.display()));
        // Looked at before it is opened: to open a pipe that nobody writes to never ends.
        let kind = std::fs::metadata(path).map_err(cannot)?;
        if !kind.is_file() {
            let what = if kind.is_dir() {
                "a directory"
            } else {
                "a pipe or a device"
            };
            return Err(wrong_use(format!("{} is {what}, not a file", path.display()))
                .advise("publish reads an ordinary file, which it can tell has not changed meanwhile: save it as one first"));
        }
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        Ok(Upload {
            file,
            name: path.display().to_string(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    fn chunk(&mut self) -> Result<Vec<u8>, Fault> {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&self.file)
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)
            .map_err(|error| failed(format!("cannot read {}: {error}", self.name)))?;
        Ok(chunk)
    }

    /// Whether the file is still what it was when reading began.
    fn unchanged(&self, read: u64) -> bool {
        self.file.metadata().is_ok_and(|now| {
            now.len() == self.bytes && read == self.bytes && now.modified().ok() == self.modified
        })
    }
}

async fn publish(
    mut node: Client,
    start: PublishStart,
    upload: Upload,
    bar: &ProgressBar,
    rejects: &Path,
) -> Result<Published, Fault> {
    let name = upload.name.clone();
    let (sender, receiver) = mpsc::channel(4);
    let feeding = tokio::spawn(feed(sender, start, upload));
    let mut replies = received(node.publish(ReceiverStream::new(receiver)).await)?;
    let mut rejected = Rejected::new(rejects);
    let mut result = None;
    while let Some(reply) = replies.next().await {
        match reply.map(|reply| reply.part) {
            Ok(Some(publish_response::Part::Progress(progress))) => show(bar, &progress),
            Ok(Some(publish_response::Part::Published(published))) => result = Some(published),
            Ok(Some(publish_response::Part::Rejected(part))) => rejected.take(part),
            Ok(None) => {}
            Err(status) => {
                // If reading failed here, that is the reason for what the node says.
                if let Ok(Err(fault)) = feeding.await {
                    return Err(fault);
                }
                return Err(client::fault(&status));
            }
        }
    }
    if rejected.count > 0 {
        bar.finish_and_clear();
        return Err(rejected.finish(&name));
    }
    result.ok_or_else(client::stopped)
}

async fn feed(
    sender: mpsc::Sender<PublishRequest>,
    start: PublishStart,
    mut upload: Upload,
) -> Result<(), Fault> {
    let send = |part| sender.send(PublishRequest { part: Some(part) });
    if send(publish_request::Part::Start(start)).await.is_err() {
        return Ok(());
    }
    let mut read = 0;
    loop {
        let chunk = upload.chunk()?;
        if chunk.is_empty() {
            break;
        }
        read += chunk.len() as u64;
        if send(publish_request::Part::Chunk(chunk)).await.is_err() {
            return Ok(());
        }
    }
    if !upload.unchanged(read) {
        return Err(Fault::new(
            Blame::Malformed,
            format!(
                "{} changed while it was read; nothing was published",
                upload.name
            ),
        )
        .advise("publish it again when nothing writes to it"));
    }
    let _ = send(publish_request::Part::End(PublishEnd { bytes: read })).await;
    Ok(())
}

/// The rejects as they come: the first on the screen, all that the node could list in a file.
struct Rejected<'a> {
    path: &'a Path,
    file: Option<File>,
    count: u64,
    violations: u64,
    shown: u64,
    listed: u64,
    /// At what reading ended before the end of the file; empty if it did not.
    fault: String,
    /// Why the list cannot be written here, if it cannot.
    refused: Option<std::io::Error>,
}

impl<'a> Rejected<'a> {
    fn new(path: &'a Path) -> Rejected<'a> {
        Rejected {
            path,
            file: None,
            count: 0,
            violations: 0,
            shown: 0,
            listed: 0,
            fault: String::new(),
            refused: None,
        }
    }

    fn take(&mut self, part: RowsRejected) {
        if part.count > 0 {
            self.count = part.count;
            self.violations = part.violations;
            self.shown = part.first.len() as u64;
            self.listed = part.listed;
            self.fault = part.fault;
            for cell in &part.first {
                let column = if cell.column.is_empty() {
                    "the row".to_owned()
                } else {
                    format!("column ‘{}’", cell.column)
                };
                eprintln!(
                    "line {}, {column}: {} ({})  value: {}",
                    cell.line, cell.message, cell.rule, cell.value
                );
            }
        }
        // What is wrong with the file has been told; that it cannot be listed is told beside.
        if self.listed > 0
            && self.refused.is_none()
            && let Err(error) = self.write(&part.rejects)
        {
            // Half a list would look like a whole one.
            if self.file.take().is_some() {
                let _ = std::fs::remove_file(self.path);
            }
            self.refused = Some(error);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(File::create(self.path)?);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    fn finish(self, name: &str) -> Fault {
        let message = if self.fault.is_empty() {
            let rows = counted(self.count, "row breaks", "rows break");
            format!("{name}: {rows} the schema; nothing was published")
        } else {
            let fault = &self.fault;
            format!("{name}: {fault}; not all rows were checked, and nothing was published")
        };
        let list = self.list();
        let advice = match self.excerpt() {
            Some(excerpt) => format!("{excerpt}; {list}"),
            None => list,
        };
        Fault::new(Blame::Malformed, message).advise(advice)
    }

    /// That there is more than the screen shows, if there is: at what reading ended is told beside.
    fn excerpt(&self) -> Option<String> {
        let told = self.shown + u64::from(!self.fault.is_empty());
        (self.shown > 0 && told < self.violations).then(|| {
            let all = counted(self.violations, "violation", "violations");
            format!("shown are the first {} of {all}", self.shown)
        })
    }

    /// Where all that is wrong can be read, or why it cannot.
    fn list(&self) -> String {
        let (listed, all, path) = (self.listed, self.violations, self.path.display());
        if let Some(error) = &self.refused {
            format!(
                "the list cannot be written to {path}: {error}; publish again in a directory with room, where you may write"
            )
        } else if listed == 0 {
            "no list could be made: the node's disk refused it; free space there and publish again"
                .to_owned()
        } else if listed < all {
            format!("the first {listed} of {all} violations stand in {path}")
        } else if !self.fault.is_empty() {
            format!("what was found stands in {path}")
        } else {
            format!("all that is wrong stands in {path}")
        }
    }
}

fn bar(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    // Drawn on standard error, and not at all if that is not a terminal.
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg} {eta}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: &PublishProgress) {
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_read);
    bar.set_message(format!("{} valid", rows(progress.rows)));
}

#[cfg(test)]
mod tests {
    use jingwei_proto::wire::node::RejectedCell;

    use super::*;

    fn told(violations: u64, listed: u64, shown: usize) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv.rejects.csv");
        let mut rejected = Rejected::new(&path);
        let part = RowsRejected {
            count: 2,
            violations,
            listed,
            first: vec![RejectedCell::default(); shown],
            ..RowsRejected::default()
        };
        rejected.take(part);
        (rejected.finish("a.csv").to_string(), path.exists())
    }

    #[test]
    fn what_is_wrong_is_told_where_the_list_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("a.csv.rejects.csv");
        let mut rejected = Rejected::new(&path);
        let parts = [(2, 3), (0, 0)].map(|(count, listed)| RowsRejected {
            count,
            violations: listed,
            listed,
            rejects: b"line,column\n".to_vec(),
            ..RowsRejected::default()
        });
        parts.into_iter().for_each(|part| rejected.take(part));
        let fault = rejected.finish("a.csv");
        assert!(fault.message.contains("2 rows break the schema"), "{fault}");
        let place = format!("cannot be written to {}: ", path.display());
        assert!(fault.to_string().contains(&place), "{fault}");
        assert!(fault.to_string().contains("where you may write"), "{fault}");
    }

    #[test]
    fn the_list_is_told_by_all_of_its_path() {
        let path = rejects(Path::new("elsewhere/a.csv"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(path, here.join("a.csv.rejects.csv"));
    }

    #[test]
    fn the_list_is_not_said_to_hold_more_than_it_does() {
        let (all, file) = told(3, 3, 3);
        assert!(all.contains("all that is wrong stands in") && file, "{all}");
        let (capped, file) = told(1_000_002, 1_000_000, 20);
        assert!(
            capped.contains("the first 1000000 of 1000002 violations stand in") && file,
            "{capped}"
        );
        let (refused, file) = told(3, 0, 3);
        assert!(
            refused.contains("no list could be made") && !file,
            "{refused}"
        );
    }

    #[test]
    fn an_excerpt_is_called_one() {
        let (whole, _) = told(20, 20, 20);
        assert!(!whole.contains("shown are"), "{whole}");
        let (excerpt, _) = told(120, 120, 20);
        assert!(
            excerpt.contains("shown are the first 20 of 120 violations; all that is wrong stands"),
            "{excerpt}"
        );
        let (unlisted, _) = told(120, 0, 20);
        assert!(
            unlisted.contains("shown are the first 20 of 120 violations; no list"),
            "{unlisted}"
        );
    }

    #[test]
    fn who_shares_conditionally_is_told_that_nobody_has_a_grant() {
        let told = note(Sharing::Conditional, "aa.x/places").unwrap();
        assert!(
            told.contains("nobody but aa.x itself") && told.contains("a grant"),
            "{told}"
        );
        for sharing in [Sharing::Public, Sharing::Unconditional, Sharing::Withheld] {
            assert_eq!(note(sharing, "aa.x/places"), None);
        }
    }

    #[test]
    fn what_could_not_be_read_is_told_first() {
        let mut rejected = Rejected::new(Path::new("never-written"));
        let part = RowsRejected {
            count: 2,
            violations: 2,
            fault: "line 3: a quotation mark".to_owned(),
            ..RowsRejected::default()
        };
        rejected.take(part);
        let told = rejected.finish("a.csv").to_string();
        assert!(
            told.starts_with("a.csv: line 3: a quotation mark; not all rows"),
            "{told}"
        );
    }
}
