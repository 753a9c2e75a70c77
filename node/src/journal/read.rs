//! Reading a journal's files, without its writer and without changing anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;
use jingwei_proto::words;
use jingwei_registry::log::{Items, LogReader};

use super::JournalError;
use super::record::{Stored, unframe};

/// The directory of a year's segment files.
pub(super) fn records_dir(dir: &Path) -> PathBuf {
    dir.join("records")
}

/// A year's segment file that begins with record `first`.
pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    records_dir(dir).join(format!("{first:012}"))
}

/// The directory of a year's log.
pub(super) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// The first indices of a year's segment files, ascending; the first is 0.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let records = records_dir(dir);
    let entries = match fs::read_dir(&records) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::disk(&records, error)),
    };
    let mut firsts = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|error| JournalError::disk(&records, error))?
            .file_name();
        let Some(first) = name.to_str().and_then(|name| name.parse().ok()) else {
            return Err(JournalError::corrupt(
                &records.join(name),
                "not a segment of this journal",
            ));
        };
        firsts.push(first);
    }
    firsts.sort_unstable();
    if firsts.first().is_some_and(|first| *first != 0) {
        return Err(JournalError::corrupt(
            &segment_path(dir, 0),
            "it is missing",
        ));
    }
    Ok(firsts)
}

/// What a segment file holds.
pub(super) struct Segment {
    /// The whole records.
    pub records: Vec<Stored>,
    /// The bytes they take; what comes after is torn.
    pub whole: u64,
    /// The file's length.
    pub length: u64,
}

/// Reads the segment that begins with record `first`.
pub(super) fn segment(dir: &Path, first: u64) -> Result<Segment, JournalError> {
    let path = segment_path(dir, first);
    let bytes = fs::read(&path).map_err(|error| JournalError::disk(&path, error))?;
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    while let Some(stored) = unframe(&mut rest, first + records.len() as u64) {
        records.push(stored);
    }
    let length = bytes.len() as u64;
    Ok(Segment {
        records,
        whole: length - rest.len() as u64,
        length,
    })
}

/// Reads a segment that another follows: it has to end exactly where that one begins.
pub(super) fn whole_segment(
    dir: &Path,
    first: u64,
    next: u64,
) -> Result<Vec<Stored>, JournalError> {
    let segment = segment(dir, first)?;
    if segment.whole == segment.length && first + segment.records.len() as u64 == next {
        return Ok(segment.records);
    }
    Err(JournalError::corrupt(
        &segment_path(dir, first),
        format!("it should hold the records {first} to {next}"),
    ))
}

/// All records of a year's journal in their order, each checked against the journal's log;
/// reads one segment at a time. A torn tail, which nobody was told of, is passed over.
pub struct Records {
    dir: PathBuf,
    /// First indices of the segments still to be read.
    segments: std::iter::Peekable<std::vec::IntoIter<u64>>,
    current: std::vec::IntoIter<Stored>,
    next: u64,
    leaves: Items,
    size: u64,
    ended: bool,
}

impl Records {
    /// Begins to read the journal in `dir`, the directory of one agency and year. Its writer may
    /// be at work.
    pub fn open(dir: &Path) -> Result<Records, JournalError> {
        // The log first: what it has by now, the segments have too.
        let log = LogReader::open(&log_dir(dir))?;
        let size = log.size();
        Ok(Records {
            dir: dir.to_owned(),
            segments: segments(dir)?.into_iter().peekable(),
            current: Vec::new().into_iter(),
            next: 0,
            leaves: log.leaves(0..size)?,
            size,
            ended: false,
        })
    }

    fn step(&mut self) -> Result<Option<Stored>, JournalError> {
        loop {
            if let Some(mut stored) = self.current.next() {
                self.next += 1;
                if let Some(leaf) = self.leaves.next() {
                    self.compare(&stored, &leaf?)?;
                    stored.sequenced = true;
                }
                return Ok(Some(stored));
            }
            let Some(first) = self.segments.next() else {
                break;
            };
            self.current = match self.segments.peek() {
                Some(next) => whole_segment(&self.dir, first, *next)?,
                None => segment(&self.dir, first)?.records,
            }
            .into_iter();
        }
        if self.next < self.size {
            let reason = format!(
                "the log has {}, the records end at {}",
                words::entries(self.size),
                self.next
            );
            return Err(JournalError::corrupt(&records_dir(&self.dir), reason));
        }
        Ok(None)
    }

    fn compare(&self, stored: &Stored, leaf: &[u8]) -> Result<(), JournalError> {
        check_leaf(&self.dir, stored.index, &stored.leaf, leaf)
    }
}

/// Compares a record's commitment with the log's entry.
pub(super) fn check_leaf(
    dir: &Path,
    index: u64,
    leaf: &Digest,
    entry: &[u8],
) -> Result<(), JournalError> {
    if entry == leaf.as_bytes() {
        return Ok(());
    }
    let reason = format!("record {index} is not what the log's entry commits to");
    Err(JournalError::corrupt(&records_dir(dir), reason))
}

impl Iterator for Records {
    type Item = Result<Stored, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// All records of the journal in `dir`, the directory of one agency and year, read from the
/// files alone and checked against the log, whose tree is recomputed.
pub fn read_all(dir: &Path) -> Result<Vec<Stored>, JournalError> {
    LogReader::open(&log_dir(dir))?.audit()?;
    Records::open(dir)?.collect()
}
