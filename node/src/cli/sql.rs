//! `jingwei sql`

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use arrow::ipc::reader::StreamDecoder;
use futures::StreamExt as _;
use indicatif::ProgressBar;
use jingwei_proto::digest::{Digest, Hasher};
use jingwei_proto::wire::node::{
    Export, Exports, SqlDone, SqlRequest, SqlResponse, SqlStart, sql_request, sql_response,
};
use jingwei_registry::fault::{Blame, Fault};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::client::{Client, with_node};
use super::{Place, failed, wrong_use};
use crate::output::{Format, Output, TABLE_ROWS};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei sql --dir fr 'SELECT nom, population FROM \"fr.communes\".communes ORDER BY population DESC LIMIT 5'
  jingwei sql --dir fr 'SELECT * FROM \"fr.communes\".\"communes@3\"' --format parquet --output communes.parquet
  jingwei sql --dir fr 'SELECT count(*) FROM \"cn.stats\".counties' --save count.evidence

The table goes to standard output, who answered and how long it took to standard error.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 an answer did not verify, 4 refused by policy, 5 incomplete.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The question; - reads it from standard input
    sql: String,
    /// The asking agency, if the node hosts several
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    agency: String,
    /// How to write the table; by default as the ending of --output says, or as a table
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
    #[arg(
        long,
        default_value_t = 0,
        value_name = "SECONDS",
        hide_default_value = true
    )]
    timeout: u64,
    /// Fail rather than return more rows
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    max_rows: u64,
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
    Ok(arguments.format.or(by_name).unwrap_or(Format::Table))
}

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
            ));
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
    let (sender, receiver) = mpsc::channel(2);
    let start = SqlStart {
        agency: arguments.agency.clone(),
        sql,
        save: arguments.save.is_some(),
        timeout_seconds: arguments.timeout,
        max_rows: arguments.max_rows,
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
    let mut replies = node
        .sql(ReceiverStream::new(receiver))
        .await
        .map_err(|status| Fault::from_status(&status))?
        .into_inner();
    let mut table = Table::new(arguments, format);
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
                ));
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
        Some(Err(status)) => Err(Fault::from_status(&status)),
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

/// What the table is written to, hashed on the way so that evidence can bind the export.
struct Hashed {
    out: Box<dyn Write + Send>,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The table as it comes in: an Arrow IPC stream in pieces.
struct Table<'a> {
    arguments: &'a Arguments,
    format: Format,
    decoder: StreamDecoder,
    output: Option<Output<Hashed>>,
    partial: Option<PathBuf>,
}

impl<'a> Table<'a> {
    fn new(arguments: &'a Arguments, format: Format) -> Table<'a> {
        Table {
            arguments,
            format,
            decoder: StreamDecoder::new(),
            output: None,
            partial: None,
        }
    }

    fn take(&mut self, bytes: Vec<u8>) -> Result<(), Fault> {
        let mut buffer = arrow::buffer::Buffer::from_vec(bytes);
        while !buffer.is_empty() {
            let batch = self.decoder.decode(&mut buffer).map_err(failed)?;
            if self.output.is_none() && self.decoder.schema().is_some() {
                self.output = Some(self.begin()?);
            }
            if let (Some(output), Some(batch)) = (&mut self.output, batch) {
                output.batch(&batch).map_err(pipe)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<Output<Hashed>, Fault> {
        let schema = self
            .decoder
            .schema()
            .ok_or_else(|| failed("the table has no columns"))?;
        let out: Box<dyn Write + Send> = match &self.arguments.output {
            Some(path) => {
                let partial = partial(path);
                let file = File::create(&partial).map_err(|error| {
                    wrong_use(format!("cannot write {}: {error}", path.display()))
                })?;
                self.partial = Some(partial);
                Box::new(BufWriter::new(file))
            }
            None => Box::new(BufWriter::new(io::stdout())),
        };
        let hashed = Hashed {
            out,
            hasher: Hasher::new(),
            bytes: 0,
        };
        let width = if io::stdout().is_terminal() {
            terminal_width()
        } else {
            None
        };
        Output::new(self.format, schema, hashed, TABLE_ROWS, width).map_err(failed)
    }

    /// Ends the table; names the export if it is one that can be bound.
    fn finish(mut self) -> Result<Option<Export>, Fault> {
        let Some(output) = self.output.take() else {
            return Err(Fault::new(Blame::Incomplete, "no table came"));
        };
        let (_, hashed) = output.finish().map_err(pipe)?;
        if let (Some(partial), Some(path)) = (self.partial.take(), &self.arguments.output) {
            std::fs::rename(&partial, path)
                .map_err(|error| failed(format!("cannot write {}: {error}", path.display())))?;
        }
        let format = match self.format {
            Format::Table => return Ok(None),
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        };
        let digest: Digest = hashed.hasher.finish();
        Ok(Some(Export {
            format: format.to_owned(),
            digest: digest.to_string(),
            bytes: hashed.bytes,
        }))
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        // An answer that broke off leaves no file that could be taken for a whole one.
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// The terminal's width in characters, as the shell exports it or the terminal reports it.
fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

/// A file under way, beside the one that it becomes.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

fn pipe(error: crate::output::OutputError) -> Fault {
    failed(error)
}

/// Who answered, and how long it took.
fn tell(done: &SqlDone, saved: Option<&Path>) {
    let rows = if done.rows == 1 {
        "1 row".to_owned()
    } else {
        format!("{} rows", done.rows)
    };
    eprintln!("{rows} in {}", milliseconds(done.micros));
    for exchange in &done.exchanges {
        eprintln!(
            "  {} answered with {} rows in {}",
            exchange.version,
            exchange.rows,
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
