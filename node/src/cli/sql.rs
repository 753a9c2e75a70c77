//! `jingwei sql`

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use indicatif::ProgressBar;
use jingwei_proto::wire::node::{
    Exports, SqlDone, SqlRequest, SqlResponse, SqlStart, sql_request, sql_response,
};
use jingwei_proto::words;
use jingwei_registry::command::{at_least_one, failed, wrong_use};
use jingwei_registry::fault::{Blame, Fault};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Place;
use super::client::{self, Client, received, with_node};
use super::table::{Table, partial};
use crate::home::Home;
use crate::output::Format;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei sql --dir fr 'SELECT nom, population FROM \"fr.communes\".communes ORDER BY population DESC LIMIT 5'
  jingwei sql --dir fr 'SELECT * FROM \"fr.communes\".\"communes@3\"' --format parquet --output communes.parquet
  jingwei sql --dir fr 'SELECT count(*) FROM \"cn.stats\".counties' --save count.evidence

The table goes to standard output, who answered and how long it took to standard error. Rows are held
back in a private file until every provider's receipt has verified: of an answer that fails, nothing is
printed and no file is left.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 an answer did not verify, 4 refused by policy, 5 incomplete.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The question; - reads it from standard input
    sql: String,
    /// The asking agency, if the node hosts several
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    agency: String,
    /// How to write the table; by default as the ending of --output says, or as a table on the screen
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write the table to a file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save evidence that anyone can verify offline
    #[arg(long, value_name = "FILE.evidence")]
    save: Option<PathBuf>,
    /// What the answer is for; it is signed and kept by both sides
    #[arg(long, default_value = "", hide_default_value = true)]
    purpose: String,
    /// The rule that allows asking
    #[arg(long, default_value = "", hide_default_value = true)]
    legal_basis: String,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one)]
    timeout: Option<u64>,
    /// Fail rather than return more rows
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_rows: Option<u64>,
    /// Do not say who answered
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let format = format(arguments)?;
    if format == Format::Parquet && arguments.output.is_none() && io::stdout().is_terminal() {
        return Err(wrong_use("Parquet is not for a terminal").advise("add --output FILE"));
    }
    let sql = match arguments.sql.as_str() {
        "-" => io::read_to_string(io::stdin()).map_err(failed)?,
        sql => sql.to_owned(),
    };
    let evidence = arguments
        .save
        .as_deref()
        .map(Evidence::create)
        .transpose()?;
    with_node(&arguments.place, |node| {
        ask(node, arguments, format, sql, evidence)
    })
}

/// The format that was asked for, or that the output's name asks for.
fn format(arguments: &Arguments) -> Result<Format, Fault> {
    let Some(path) = &arguments.output else {
        return Ok(arguments.format.unwrap_or(Format::Table));
    };
    if arguments.save.as_ref() == Some(path) {
        return Err(wrong_use(
            "the table and its evidence need files of their own",
        ));
    }
    let ending = path.extension().and_then(|ending| ending.to_str());
    let by_name =
        ending.and_then(|ending| <Format as clap::ValueEnum>::from_str(ending, true).ok());
    match arguments.format.or(by_name) {
        Some(Format::Table) => Err(wrong_use(format!(
            "a table is for the screen, and may leave out rows: {} would not hold the whole answer",
            path.display()
        ))
        .advise(FOR_FILES)),
        Some(format) => Ok(format),
        None => Err(wrong_use(format!(
            "the name {} does not say in which format to write",
            path.display()
        ))
        .advise(FOR_FILES)),
    }
}

/// What can be written to a file.
const FOR_FILES: &str =
    "end it in .csv, .json, .ndjson or .parquet, or give --format with one of these";

/// The evidence file, made before anything is asked; nothing that is there is written over.
struct Evidence<'a> {
    path: &'a Path,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl<'a> Evidence<'a> {
    fn create(path: &'a Path) -> Result<Evidence<'a>, Fault> {
        if path.exists() {
            return Err(wrong_use(format!("{} exists already", path.display()))
                .advise("evidence is not written over: choose another name, or remove the file"));
        }
        let partial = partial(path);
        let file = File::create(&partial)
            .map_err(|error| wrong_use(format!("cannot write {}: {error}", path.display())))?;
        Ok(Evidence {
            path,
            partial,
            file: BufWriter::new(file),
        })
    }

    async fn save(mut self, replies: &mut Streaming<SqlResponse>) -> Result<(), Fault> {
        let path = self.path;
        let cannot = |error: io::Error| failed(format!("cannot write {}: {error}", path.display()));
        let mut came = false;
        while let Some(part) = next(replies).await? {
            if let sql_response::Part::Evidence(bytes) = part {
                came = true;
                self.file.write_all(&bytes).map_err(cannot)?;
            }
        }
        if !came {
            return Err(Fault::new(
                Blame::Incomplete,
                "the node stopped before the evidence was whole",
            )
            .advise(client::START_AGAIN));
        }
        self.file.flush().map_err(cannot)?;
        self.file.get_ref().sync_all().map_err(cannot)?;
        std::fs::rename(&self.partial, path).map_err(cannot)
    }
}

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        // Gone already if it became the evidence.
        let _ = std::fs::remove_file(&self.partial);
    }
}

async fn ask(
    mut node: Client,
    arguments: &Arguments,
    format: Format,
    sql: String,
    evidence: Option<Evidence<'_>>,
) -> Result<(), Fault> {
    let home = Home::new(&arguments.place.dir);
    let mut table = Table::new(&home, format, arguments.output.as_deref())?;
    let (sender, receiver) = mpsc::channel(2);
    let start = SqlStart {
        agency: arguments.agency.clone(),
        sql,
        save: arguments.save.is_some(),
        timeout_seconds: arguments.timeout.unwrap_or(0),
        max_rows: arguments.max_rows.unwrap_or(0),
        purpose: arguments.purpose.clone(),
        legal_basis: arguments.legal_basis.clone(),
    };
    // The channel holds two, and nothing has been sent.
    let _ = sender
        .send(SqlRequest {
            part: Some(sql_request::Part::Start(start)),
        })
        .await;
    let spinner = spinner(arguments);
    let mut replies = received(node.sql(ReceiverStream::new(receiver)).await)?;
    let done = loop {
        match next(&mut replies).await? {
            Some(sql_response::Part::Table(bytes)) => {
                spinner.finish_and_clear();
                table.take(bytes)?;
            }
            Some(sql_response::Part::Done(done)) => break done,
            Some(sql_response::Part::Evidence(_)) => {}
            None => {
                return Err(Fault::new(
                    Blame::Incomplete,
                    "the node stopped before the answer was whole",
                )
                .advise(client::START_AGAIN));
            }
        }
    };
    spinner.finish_and_clear();
    let export = table.finish()?;
    if let Some(evidence) = evidence {
        let files = export.into_iter().collect();
        let _ = sender
            .send(SqlRequest {
                part: Some(sql_request::Part::Exports(Exports { files })),
            })
            .await;
        evidence.save(&mut replies).await?;
    }
    if !arguments.quiet {
        tell(&done, arguments.save.as_deref());
    }
    Ok(())
}

async fn next(replies: &mut Streaming<SqlResponse>) -> Result<Option<sql_response::Part>, Fault> {
    match replies.next().await {
        Some(Ok(reply)) => Ok(reply.part),
        Some(Err(status)) => Err(client::fault(&status)),
        None => Ok(None),
    }
}

fn spinner(arguments: &Arguments) -> ProgressBar {
    if arguments.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message("asking");
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    spinner
}

/// Who answered, and how long it took.
fn tell(done: &SqlDone, saved: Option<&Path>) {
    let rows = words::rows(done.rows);
    eprintln!("{rows} in {}", milliseconds(done.micros));
    for exchange in &done.exchanges {
        eprintln!(
            "  {} answered with {} in {}",
            exchange.version,
            words::rows(exchange.rows),
            milliseconds(exchange.micros)
        );
    }
    if let Some(path) = saved {
        eprintln!("  evidence in {}", path.display());
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1_000.0)
}
