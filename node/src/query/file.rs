//! A dataset's Parquet file, opened once and read by many.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use jingwei_proto::digest::Digest;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use super::types;

/// Rows of a batch at most: between batches limits are checked and a dropped query stops.
pub const BATCH_ROWS: usize = 8_192;

/// An immutable Parquet file whose footer has been read.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
}

/// Why a dataset's file cannot be read. All are the fault of the node that holds it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no Parquet file, or a broken one.
    #[error("{path} is not readable Parquet: {source}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: ParquetError,
    },
    /// It holds a column that no dataset has.
    #[error("{path}: column ‘{column}’ has the type {found}, which no dataset's column has")]
    Type {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its Arrow type.
        found: String,
    },
}

impl DataFile {
    /// Opens a file and reads its footer.
    pub fn open(path: &Path) -> Result<DataFile, FileError> {
        let broken = |source| FileError::Parquet {
            path: path.to_owned(),
            source,
        };
        let file = open(path)?;
        let metadata =
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(broken)?;
        let schema = types::bare_schema(metadata.schema());
        if let Some(field) = schema
            .fields()
            .iter()
            .find(|f| !types::is_settled(f.data_type()))
        {
            return Err(FileError::Type {
                path: path.to_owned(),
                column: field.name().clone(),
                found: field.data_type().to_string(),
            });
        }
        Ok(DataFile {
            path: path.to_owned(),
            metadata,
            schema,
        })
    }

    /// Its columns, without the file's metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the footer says of row groups and their columns.
    pub fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// Reads `columns` (places in the schema, ascending) of `groups`, at most `rows` of them, in
    /// batches of at most [`BATCH_ROWS`].
    pub fn read(
        &self,
        columns: &[usize],
        groups: Vec<usize>,
        rows: Option<usize>,
    ) -> Result<ParquetRecordBatchReader, FileError> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            open(&self.path)?,
            self.metadata.clone(),
        )
        .with_projection(mask)
        .with_row_groups(groups)
        .with_batch_size(BATCH_ROWS);
        if let Some(rows) = rows {
            builder = builder.with_limit(rows);
        }
        builder.build().map_err(|source| FileError::Parquet {
            path: self.path.clone(),
            source,
        })
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| FileError::Open {
        path: path.to_owned(),
        source,
    })
}

/// The files read last, by digest, so that a small query does not parse a footer each time.
#[derive(Debug)]
pub struct FileCache {
    /// The latest used at the back. Short enough that a walk costs less than hashing.
    files: Mutex<VecDeque<(Digest, Arc<DataFile>)>>,
    capacity: usize,
}

impl FileCache {
    /// A cache of at most `capacity` files' footers.
    pub fn new(capacity: usize) -> FileCache {
        FileCache {
            files: Mutex::new(VecDeque::new()),
            capacity,
        }
    }

    /// The file of that digest, which stands at `path`. Whether the bytes there have that
    /// digest was settled when they were stored.
    pub fn open(&self, digest: &Digest, path: &Path) -> Result<Arc<DataFile>, FileError> {
        if let Some(file) = self.recall(digest) {
            return Ok(file);
        }
        let file = Arc::new(DataFile::open(path)?);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= self.capacity {
            files.pop_front();
        }
        files.push_back((*digest, Arc::clone(&file)));
        Ok(file)
    }

    /// The file of that digest, if it was read lately.
    pub fn recall(&self, digest: &Digest) -> Option<Arc<DataFile>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let place = files.iter().position(|(known, _)| known == digest)?;
        let entry = files.remove(place)?;
        let file = Arc::clone(&entry.1);
        files.push_back(entry);
        Some(file)
    }
}

impl Default for FileCache {
    /// 64 files: footers of wide tables take up to some hundred kilobytes.
    fn default() -> FileCache {
        FileCache::new(64)
    }
}
