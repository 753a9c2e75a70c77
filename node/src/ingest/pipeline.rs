//! The threads between a source and a Parquet file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use ::arrow::array::RecordBatch;
use jingwei_registry::disk::Disk;
use jingwei_schemas::TableSchema;

use super::columns::arrow_schema;
use super::csv::{Header, delimiter};
use super::error::{IngestError, SourceFault};
use super::frame::{ArrayCut, Block, CsvCut, Cut, FrameError, Frames, LineCut};
use super::json;
use super::parquet::{self, Batches, ParquetRows};
use super::rejects::{LISTED, Rejects};
use super::rows::{RowChecker, Rows};
use super::source::{Format, Source};
use super::write::{ParquetFile, Written};

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows checked.
    pub rows: u64,
    /// Bytes of the source read, as stored; ahead of the rows by what is in flight.
    pub bytes_read: u64,
    /// The source's size in bytes.
    pub bytes_total: u64,
}

/// Where the results of an ingestion go.
pub struct Target<'a> {
    /// The disk, by which everything is written.
    pub disk: &'a Disk,
    /// An existing directory for the file under way, in the file system of the dataset store.
    pub staging: &'a Path,
    /// The rejects file, written only if there are rejects. What stands there is replaced.
    pub rejects: &'a Path,
    /// 32 random bytes that become part of the file.
    pub salt: [u8; 32],
}

/// Reads `source`, checks every row against `schema`, and writes them all to a staged Parquet
/// file, or none.
///
/// Calls `progress` after each block of rows, on this thread, and stops soon after `cancelled`
/// becomes true. Blocks this thread: not for an async task.
///
/// # Errors
/// Sorted by blame, see [`IngestError`]; the first one in the order of the source. A fault that
/// makes the rest unreadable is the last of the rejects; one without a place in the source hides
/// them.
pub fn ingest(
    source: &Source,
    schema: &TableSchema,
    target: &Target<'_>,
    progress: &dyn Fn(Progress),
    cancelled: &AtomicBool,
) -> Result<Written, IngestError> {
    let rejects = Rejects::new(target.disk, target.rejects, LISTED);
    let (reader, parser) = match open(source, schema) {
        Ok(opened) => opened,
        Err(error) => return Err(ended(rejects, error)),
    };
    let gather = Gather {
        rejects,
        file: Some(begin(schema, target)?),
        source,
        rows: 0,
        progress,
        cancelled,
    };
    let read = source.bytes_read();
    thread::scope(|scope| {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for _ in 0..checkers() {
            let (input, jobs) = sync_channel(IN_FLIGHT);
            let (results, output) = sync_channel(IN_FLIGHT);
            inputs.push(input);
            outputs.push(output);
            let parser = &parser;
            scope.spawn(move || check(parser, schema, source, &jobs, &results));
        }
        scope.spawn(move || feed(reader, source, &read, &inputs, cancelled));
        // The outputs end with this call, and with them, on an early return, the threads.
        gather.run(outputs)
    })
}

/// Jobs and results that wait for each thread.
const IN_FLIGHT: usize = 2;

/// Threads that check rows: at least two, so that one core's machine still overlaps reading and
/// checking; at most eight, which the one that writes can hardly follow.
fn checkers() -> usize {
    thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}

fn begin(schema: &TableSchema, target: &Target<'_>) -> Result<ParquetFile, IngestError> {
    let file = target
        .disk
        .stage(target.staging)
        .map_err(IngestError::Write)?;
    ParquetFile::new(file, arrow_schema(schema), &target.salt)
}

/// What hands out the source in pieces.
enum Reader {
    Csv(Block, Frames<CsvCut>),
    Lines(Frames<LineCut>),
    Elements(Frames<ArrayCut>),
    Batches(Batches),
}

/// What turns a piece into rows.
enum Parser {
    Csv(Header),
    Lines,
    Elements,
    Batches(ParquetRows),
}

/// A piece of the source, or why there is none.
enum Job {
    Block(Block),
    Batch(RecordBatch, u64),
    Failed(IngestError),
}

/// What became of a piece: the rows in it, and why reading ended within it.
struct Checked {
    rows: Rows,
    end: Option<IngestError>,
}

fn open(source: &Source, schema: &TableSchema) -> Result<(Reader, Parser), IngestError> {
    let limit = source.limits().row;
    Ok(match source.format() {
        Format::Csv => {
            let (start, text) = source.text()?;
            let delimiter = delimiter(&start);
            let mut frames = Frames::new(text, CsvCut::new(delimiter), limit);
            let mut first = frames
                .next()
                .map_err(|error| blame(source, error))?
                .ok_or_else(|| source.fault(SourceFault::Empty))?;
            let header =
                Header::take(&mut first, delimiter, schema).map_err(|fault| source.fault(fault))?;
            (Reader::Csv(first, frames), Parser::Csv(header))
        }
        Format::Ndjson => (
            Reader::Lines(Frames::new(source.text()?.1, LineCut, limit)),
            Parser::Lines,
        ),
        Format::Json => {
            let frames = Frames::new(source.text()?.1, ArrayCut::default(), limit);
            (Reader::Elements(frames), Parser::Elements)
        }
        Format::Parquet => {
            let (batches, rows) = parquet::open(source, schema)?;
            (Reader::Batches(batches), Parser::Batches(rows))
        }
    })
}

/// Hands the pieces of the source to the checkers in turn.
fn feed(
    reader: Reader,
    source: &Source,
    read: &AtomicU64,
    inputs: &[SyncSender<Job>],
    cancelled: &AtomicBool,
) {
    let turns = Turns {
        inputs,
        next: 0,
        cancelled,
    };
    match reader {
        Reader::Csv(first, frames) => feed_blocks(Some(first), frames, source, turns),
        Reader::Lines(frames) => feed_blocks(None, frames, source, turns),
        Reader::Elements(frames) => feed_blocks(None, frames, source, turns),
        Reader::Batches(batches) => feed_batches(batches, source, read, turns),
    }
}

struct Turns<'a> {
    inputs: &'a [SyncSender<Job>],
    next: usize,
    cancelled: &'a AtomicBool,
}

impl Turns<'_> {
    /// Whether to go on: nobody takes jobs any more once the caller has its error.
    fn send(&mut self, job: Job) -> bool {
        let sent = self.inputs[self.next].send(job).is_ok();
        self.next = (self.next + 1) % self.inputs.len();
        sent && !self.cancelled.load(Ordering::Relaxed)
    }
}

fn feed_blocks<C: Cut>(
    first: Option<Block>,
    mut frames: Frames<C>,
    source: &Source,
    mut turns: Turns<'_>,
) {
    if first.is_some_and(|block| !turns.send(Job::Block(block))) {
        return;
    }
    loop {
        let job = match frames.next() {
            Ok(Some(block)) => Job::Block(block),
            Ok(None) => return,
            Err(error) => {
                turns.send(Job::Failed(blame(source, error)));
                return;
            }
        };
        if !turns.send(job) {
            return;
        }
    }
}

fn feed_batches(mut batches: Batches, source: &Source, read: &AtomicU64, mut turns: Turns<'_>) {
    loop {
        let job = match batches.next() {
            Ok(Some((batch, first))) => Job::Batch(batch, first),
            Ok(None) => return,
            Err(fault) => {
                turns.send(Job::Failed(source.fault(fault)));
                return;
            }
        };
        read.store(batches.progress(source.bytes_total()), Ordering::Relaxed);
        if !turns.send(job) {
            return;
        }
    }
}

fn blame(source: &Source, error: FrameError) -> IngestError {
    match error {
        FrameError::Read(error) => source.blame(error),
        FrameError::Fault(fault) => source.fault(fault),
    }
}

/// Turns pieces into checked rows until there are no more, or nobody wants them.
fn check(
    parser: &Parser,
    schema: &TableSchema,
    source: &Source,
    jobs: &Receiver<Job>,
    results: &SyncSender<Result<Checked, IngestError>>,
) {
    let mut rows = RowChecker::new(schema);
    for job in jobs {
        let read = match (parser, job) {
            (_, Job::Failed(error)) => Err(error),
            (Parser::Csv(header), Job::Block(block)) => header
                .read(&block, &mut rows)
                .map_err(|fault| source.fault(fault)),
            (Parser::Elements, Job::Block(block)) => {
                json::read_elements(&block, &mut rows).map_err(|fault| source.fault(fault))
            }
            (_, Job::Block(block)) => {
                json::read_lines(&block, &mut rows).map_err(|fault| source.fault(fault))
            }
            (Parser::Batches(columns), Job::Batch(batch, first)) => columns
                .read(&batch, first, &mut rows)
                .map_err(|fault| source.fault(fault)),
            (_, Job::Batch(..)) => Err(IngestError::Defect(
                "a batch without Parquet columns".to_owned(),
            )),
        };
        let end = read.err();
        let checked = rows.take().map(|rows| Checked { rows, end });
        if results.send(checked).is_err() {
            return;
        }
    }
}

/// The error at which reading ended, with the rejects before it: in their list, if it has a place
/// in the source.
fn ended(mut rejects: Rejects<'_>, error: IngestError) -> IngestError {
    match error {
        IngestError::Source { file, fault } if fault.reject().is_some() => {
            rejects.end(fault);
            IngestError::Invalid(Box::new(rejects.finish(&file)))
        }
        other => other,
    }
}

/// Takes the checked rows in order to the file and to the rejects.
struct Gather<'a> {
    rejects: Rejects<'a>,
    /// Given up at the first reject: what would be written then is never used.
    file: Option<ParquetFile>,
    source: &'a Source,
    rows: u64,
    progress: &'a dyn Fn(Progress),
    cancelled: &'a AtomicBool,
}

impl Gather<'_> {
    fn run(
        mut self,
        outputs: Vec<Receiver<Result<Checked, IngestError>>>,
    ) -> Result<Written, IngestError> {
        let read: Arc<AtomicU64> = self.source.bytes_read();
        // Jobs were dealt in turn: the first checker without a result had no further job.
        for output in outputs.iter().cycle() {
            let Ok(checked) = output.recv() else { break };
            let Checked { rows, end } = checked?;
            self.take(rows)?;
            if let Some(error) = end {
                return Err(ended(self.rejects, error));
            }
            (self.progress)(Progress {
                rows: self.rows,
                bytes_read: read.load(Ordering::Relaxed).min(self.source.bytes_total()),
                bytes_total: self.source.bytes_total(),
            });
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(IngestError::Cancelled);
        }
        self.finish()
    }

    fn take(&mut self, rows: Rows) -> Result<(), IngestError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(IngestError::Cancelled);
        }
        self.rows += rows.count;
        if rows.rejected > 0 {
            self.file = None;
            self.rejects.add(rows.rejects, rows.rejected);
        }
        match (&mut self.file, &rows.batch) {
            (Some(file), Some(batch)) => file.write(batch, &rows.text_bytes),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Written, IngestError> {
        self.source.check_unchanged()?;
        if self.rows == 0 && self.source.format() == Format::Ndjson {
            return Err(self.source.fault(SourceFault::Empty));
        }
        match self.file {
            Some(file) if self.rejects.is_empty() => file.finish(),
            _ => Err(IngestError::Invalid(Box::new(
                self.rejects.finish(self.source.name()),
            ))),
        }
    }
}
