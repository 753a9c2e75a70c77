//! The rejects file: every cell that breaks the schema, as CSV, for the publisher to mend.

use std::io;
use std::path::{Path, PathBuf};

use jingwei_registry::disk::{Disk, StagedFile};

use super::error::{Invalid, Reject, SourceFault};

/// How many rejects a person is shown.
pub const SHOWN: usize = 20;

/// How many rejects the file lists. Beyond a million the fault is in the schema or the whole
/// file, and the list should not fill the disk.
pub const LISTED: u64 = 1_000_000;

/// The first line of every list, by which one is told from another file.
pub const LIST_COLUMNS: [&str; 5] = ["line", "column", "value", "rule", "message"];

/// Collects rejects; writes nothing, and makes no file, until there is one.
pub(super) struct Rejects<'a> {
    disk: &'a Disk,
    path: &'a Path,
    cap: u64,
    file: File,
    count: u64,
    rows: u64,
    listed: u64,
    first: Vec<Reject>,
    fault: Option<SourceFault>,
}

enum File {
    None,
    Open(Box<::csv::Writer<StagedFile>>),
    /// The disk refused it. The publisher still gets the first rejects and the count.
    Failed,
}

impl<'a> Rejects<'a> {
    /// For a list at `path` of at most `cap` rejects.
    pub fn new(disk: &'a Disk, path: &'a Path, cap: u64) -> Rejects<'a> {
        Rejects {
            disk,
            path,
            cap,
            file: File::None,
            count: 0,
            rows: 0,
            listed: 0,
            first: Vec::new(),
            fault: None,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes in the rejects of `rows` rows.
    pub fn add(&mut self, rejects: Vec<Reject>, rows: u64) {
        self.rows += rows;
        for reject in rejects {
            self.note(&reject);
            if self.first.len() < SHOWN {
                self.first.push(reject);
            }
        }
    }

    /// Takes in the fault at which reading ended. It is told as such, and not among the first.
    pub fn end(&mut self, fault: SourceFault) {
        if let Some(reject) = fault.reject() {
            self.rows += 1;
            self.note(&reject);
        }
        self.fault = Some(fault);
    }

    fn note(&mut self, reject: &Reject) {
        self.count += 1;
        if self.listed < self.cap && self.list(reject).is_err() {
            self.file = File::Failed;
        }
    }

    /// Completes the file and sums up.
    pub fn finish(mut self, source: &str) -> Invalid {
        // The publisher gets the first rejects and the count even when the disk is full.
        let rejects_file = self.complete().unwrap_or(None);
        Invalid {
            file: source.to_owned(),
            count: self.count,
            rows: self.rows,
            first: self.first,
            listed: if rejects_file.is_some() {
                self.listed
            } else {
                0
            },
            rejects_file,
            fault: self.fault,
        }
    }

    fn list(&mut self, reject: &Reject) -> io::Result<()> {
        if matches!(self.file, File::None) {
            let directory = self.path.parent().unwrap_or(Path::new("."));
            let mut writer = ::csv::Writer::from_writer(self.disk.stage(directory)?);
            writer.write_record(LIST_COLUMNS)?;
            self.file = File::Open(Box::new(writer));
        }
        let File::Open(writer) = &mut self.file else {
            return Ok(());
        };
        let violation = &reject.violation;
        let line = reject.place.number().to_string();
        writer.write_record([
            line.as_str(),
            violation.column.as_deref().unwrap_or_default(),
            violation.value.as_str(),
            violation.rule.as_str(),
            violation.message.as_str(),
        ])?;
        self.listed += 1;
        Ok(())
    }

    fn complete(&mut self) -> io::Result<Option<PathBuf>> {
        let File::Open(mut writer) = std::mem::replace(&mut self.file, File::Failed) else {
            return Ok(None);
        };
        let rest = self.count - self.listed;
        if rest > 0 {
            let message = format!("{rest} more are not listed");
            writer.write_record(["", "", "", "", message.as_str()])?;
        }
        let file = writer.into_inner().map_err(|error| error.into_error())?;
        if self.path.exists() {
            self.disk.remove(self.path)?;
        }
        file.finish_as(self.path)?;
        Ok(Some(self.path.to_owned()))
    }
}
