//! From a publisher's file to a Parquet file whose every row satisfies the schema.
//!
//! ```text
//!  Source ──► Frames ──► blocks of whole rows ──┬─► RowChecker ──┬─► ParquetFile ──► Written
//!  (gunzip,   (one thread, sees only where      └─► RowChecker ──┘   (re-cut, hashed,
//!   limits)    rows end)                            (threads)         the caller's thread)
//! ```
//!
//! Blocks go to the checking threads in turn and are taken back in the same turn, so that rows,
//! rejects and the first error come in the order of the file, however the threads run. The
//! Parquet file depends on the rows and the salt alone: the same table gives the same digest
//! from CSV, NDJSON, JSON and Parquet.
//!
//! It is all or nothing. The file under way has no name and vanishes when dropped; rows that
//! break the schema are collected to the end of the source, so that a publisher sees all of
//! them at once. A fault that makes the rest unreadable, such as a quotation mark that is never
//! closed, is the last in that list.
//!
//! What a missing value is: an empty cell or one of the schema's `x-missing` texts in CSV, an
//! absent member in JSON, a null in Parquet, and in JSON also a `null` where the schema does not
//! allow one as a value. A table without rows may be published, a file without content not.

mod columns;
mod csv;
mod error;
mod frame;
mod frame_array;
mod frame_csv;
mod json;
mod parquet;
mod pipeline;
mod rejects;
mod rows;
mod source;
mod spool;
mod write;

pub use columns::{arrow_schema, arrow_type};
pub use error::{IngestError, Invalid, Place, Reject, SourceFault};
pub use pipeline::{Progress, Target, ingest};
pub use rejects::{LIST_COLUMNS, LISTED, SHOWN};
pub use source::{Format, Limits, Source};
pub use spool::{Sameness, Spool, SpoolError, Spooled};
pub use write::{SALT_KEY, Written};

#[cfg(test)]
mod tests;
