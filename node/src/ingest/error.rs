//! What can go wrong while a file becomes a dataset, sorted by whose fault it is.

use std::fmt;
use std::io;
use std::path::PathBuf;

use jingwei_proto::words::counted;
use jingwei_schemas::{ColumnKind, HeaderError, Violation};

/// Where in a source a row stands, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The line on which the row begins: CSV and NDJSON.
    Line(u64),
    /// The element of a JSON array, and the line on which it begins. Both, because machines
    /// write such arrays on one line and people on many.
    Element {
        /// The element's number.
        number: u64,
        /// The line on which it begins.
        line: u64,
    },
    /// The row of a Parquet file, which has no lines.
    Row(u64),
}

impl Place {
    /// The number that the rejects file shows: the line of a text, the row of a Parquet file.
    pub fn number(self) -> u64 {
        match self {
            Place::Line(number) | Place::Row(number) => number,
            Place::Element { line, .. } => line,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(number) => write!(f, "line {number}"),
            Place::Element { number, line } => write!(f, "element {number} (line {line})"),
            Place::Row(number) => write!(f, "row {number}"),
        }
    }
}

/// One cell that breaks a rule of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The row.
    pub place: Place,
    /// The column, the start of the value, the rule, and what is wrong.
    pub violation: Violation,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.place, self.violation)
    }
}

/// All that a publisher is told about the rows that broke the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The source's name.
    pub file: String,
    /// How many violations were found in the whole source.
    pub count: u64,
    /// How many rows they stand in.
    pub rows: u64,
    /// The first of them, for the screen, in the source's order.
    pub first: Vec<Reject>,
    /// The file that lists them, `None` where it could not be written.
    pub rejects_file: Option<PathBuf>,
    /// How many that file lists: fewer than `count` only beyond its cap.
    pub listed: u64,
    /// At what reading ended, where it did not come to the end of the source; the last in the
    /// list.
    pub fault: Option<SourceFault>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Some(fault) => write!(
                f,
                "{}: {fault}; not all rows were checked, and nothing was published",
                self.file
            ),
            None => write!(
                f,
                "{}: rows that break the schema: {}, in {}; nothing was published",
                self.file,
                self.rows,
                counted(self.count, "place", "places")
            ),
        }?;
        match &self.rejects_file {
            Some(path) if self.listed < self.count => {
                write!(
                    f,
                    "; the first {} are listed in {}",
                    self.listed,
                    path.display()
                )
            }
            Some(path) => write!(f, "; all are listed in {}", path.display()),
            None => f.write_str("; the list could not be written, the disk refused it"),
        }
    }
}

/// Why a file did not become a dataset. In every case nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The source cannot be read as a table of this schema: the publisher's to mend.
    #[error("{file}: {fault}")]
    Source {
        /// The source's name as the publisher gave it.
        file: String,
        /// What is wrong with it.
        fault: SourceFault,
    },
    /// The source can be read, but rows of it break the schema: the publisher's to mend.
    #[error("{0}")]
    Invalid(Box<Invalid>),
    /// The caller asked to stop.
    #[error("publishing was cancelled; nothing was published")]
    Cancelled,
    /// This node could not read its copy of the source.
    #[error("cannot read {file}: {error}; nothing was published, publish again")]
    Read {
        /// The source's name.
        file: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// This node could not write: most often the disk is full.
    #[error(
        "cannot write the dataset: {0}; nothing was published, free the disk and publish again"
    )]
    Write(io::Error),
    /// The Parquet writer refused rows that had passed the schema: a defect of this program.
    #[error("the Parquet writer failed: {0}; nothing was published, please report this")]
    Defect(String),
}

/// What is wrong with a source as a whole, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// No bytes, or nothing but white space: more often a failed export than an empty table.
    #[error(
        "the file is empty; for a table without rows give a header line alone, [] or an empty Parquet file"
    )]
    Empty,
    /// None of the formats that can be published.
    #[error("{0}; publish CSV, NDJSON, a JSON array (each may be gzipped) or Parquet")]
    Format(&'static str),
    /// The gzip stream breaks off or is damaged.
    #[error("the gzip stream is damaged: {0}; fetch or compress the file again")]
    Gzip(String),
    /// More bytes than this node takes.
    #[error("more than {limit} bytes when unpacked, which is this node's limit; split the file")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// One row above the limit; it was not read to its end.
    #[error(
        "{place}: a row of more than {limit} bytes; is a quotation mark or a line end missing?"
    )]
    RowTooLong {
        /// Where the row begins.
        place: Place,
        /// The limit in bytes.
        limit: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("{place}{}: not UTF-8; save the file as UTF-8", in_column(column))]
    NotUtf8 {
        /// The row.
        place: Place,
        /// The column, where it is known.
        column: Option<String>,
    },
    /// CSV quotation marks or line ends outside of RFC 4180.
    #[error("line {line}: {fault}")]
    Quotes {
        /// The line on which the fault was seen, or on which an unclosed cell begins.
        line: u64,
        /// That line up to there, of a long one the end.
        text: String,
        /// What is wrong and how it is written.
        fault: &'static str,
    },
    /// Text that is not JSON, or not an object where a row must stand.
    #[error("{place}: {message}")]
    Json {
        /// The row.
        place: Place,
        /// What the parser met.
        message: String,
    },
    /// Columns that are missing, unknown to the schema, or stand twice.
    #[error("{0}; nothing was read")]
    Header(#[from] HeaderError),
    /// A Parquet column of a type that cannot become what the schema says.
    #[error(
        "the column ‘{column}’ has the type {found}, which cannot be read as {expected}; {advice}"
    )]
    ColumnType {
        /// The column.
        column: String,
        /// Its type in the file.
        found: String,
        /// What the schema makes of it.
        expected: ColumnKind,
        /// What the publisher can do.
        advice: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("not a readable Parquet file: {0}")]
    Parquet(String),
    /// The file is not what it was when reading began.
    #[error("the file changed while it was read; publish it again when nothing writes to it")]
    Changed,
}

impl SourceFault {
    /// The fault as a reject, where it has a place in the source.
    pub fn reject(&self) -> Option<Reject> {
        let (place, column, value, rule) = match self {
            SourceFault::RowTooLong { place, limit } => {
                (*place, None, "", format!("at most {limit} bytes in a row"))
            }
            SourceFault::NotUtf8 { place, column } => {
                (*place, column.clone(), "", "UTF-8".to_owned())
            }
            SourceFault::Quotes { line, text, .. } => (
                Place::Line(*line),
                None,
                text.as_str(),
                "RFC 4180".to_owned(),
            ),
            SourceFault::Json { place, .. } => (*place, None, "", "JSON".to_owned()),
            _ => return None,
        };
        let told = self.to_string();
        let where_it_is = format!("{place}{}: ", in_column(&column));
        let message = told.strip_prefix(&where_it_is).unwrap_or(&told).to_owned();
        Some(Reject {
            place,
            violation: Violation {
                column,
                value: value.to_owned(),
                rule,
                message,
            },
        })
    }
}

fn in_column(column: &Option<String>) -> String {
    column
        .as_ref()
        .map(|name| format!(", column ‘{name}’"))
        .unwrap_or_default()
}
