//! Writes checked rows as Parquet, the same bytes for the same rows and salt.
//!
//! Pages are cut by what the writer is given at once, so batches are cut anew here, at places
//! that depend on the rows alone and not on the format, the blocks or the threads before.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use jingwei_proto::digest::{Digest, HashingWriter, to_hex};
use jingwei_registry::disk::StagedFile;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::error::IngestError;

/// The key of the salt, 32 random bytes in hex, in a file's metadata. With it, nobody can find
/// out a small table by hashing guesses at it.
pub const SALT_KEY: &str = "jingwei.salt";

/// Rows of a row group: what a reader can skip or fetch alone. A multiple of [`CHUNK_ROWS`].
const GROUP_ROWS: usize = 131_072;

/// Bytes of text after which a row group ends early: the writer holds a group in memory.
const GROUP_BYTES: u64 = 256 << 20;

/// Rows written at once.
const CHUNK_ROWS: usize = 8192;

/// Bytes of text after which a chunk ends early.
const CHUNK_BYTES: u64 = 16 << 20;

/// A complete Parquet file that is staged but has no name yet. Dropped, it leaves nothing.
pub struct Written {
    /// The SHA-256 of the file.
    pub digest: Digest,
    /// The file's size.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The file, to be linked under its digest.
    pub file: StagedFile,
}

/// A Parquet file under way.
pub(super) struct ParquetFile {
    writer: ArrowWriter<HashingWriter<StagedFile>>,
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: u64,
    group_bytes: u64,
    rows: u64,
}

impl ParquetFile {
    /// Begins a file of rows of `schema`.
    pub fn new(
        file: StagedFile,
        schema: SchemaRef,
        salt: &[u8; 32],
    ) -> Result<ParquetFile, IngestError> {
        let hashed = HashingWriter::new(file);
        // Without the Arrow schema of the writer: Parquet's own types say all that ours need.
        let options = ArrowWriterOptions::new()
            .with_properties(properties(salt)?)
            .with_skip_arrow_metadata(true);
        let writer =
            ArrowWriter::try_new_with_options(hashed, schema.clone(), options).map_err(blame)?;
        Ok(ParquetFile {
            writer,
            schema,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            group_bytes: 0,
            rows: 0,
        })
    }

    /// Writes rows, whose text has as many bytes as `text_bytes` says for each.
    pub fn write(&mut self, batch: &RecordBatch, text_bytes: &[u32]) -> Result<(), IngestError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let count = self.room(&text_bytes[start..]);
            self.pending.push(batch.slice(start, count));
            self.pending_rows += count;
            start += count;
            if self.pending_rows == CHUNK_ROWS || self.pending_bytes >= CHUNK_BYTES {
                self.write_chunk()?;
            }
        }
        Ok(())
    }

    /// Completes the file.
    pub fn finish(mut self) -> Result<Written, IngestError> {
        self.write_chunk()?;
        let rows = self.rows;
        let mut hashed = self.writer.into_inner().map_err(blame)?;
        hashed.flush().map_err(IngestError::Write)?;
        let (file, digest, bytes) = hashed.finish();
        Ok(Written {
            digest,
            bytes,
            rows,
            file,
        })
    }

    /// How many of the next rows the pending chunk takes; at least one.
    fn room(&mut self, text_bytes: &[u32]) -> usize {
        let mut count = 0;
        for bytes in text_bytes.iter().take(CHUNK_ROWS - self.pending_rows) {
            count += 1;
            self.pending_bytes += u64::from(*bytes);
            if self.pending_bytes >= CHUNK_BYTES {
                break;
            }
        }
        count
    }

    fn write_chunk(&mut self) -> Result<(), IngestError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = concat_batches(&self.schema, &self.pending)
            .map_err(|error| IngestError::Defect(error.to_string()))?;
        self.pending.clear();
        self.writer.write(&chunk).map_err(blame)?;
        self.rows += self.pending_rows as u64;
        self.group_bytes += self.pending_bytes;
        if self.group_bytes >= GROUP_BYTES {
            self.writer.flush().map_err(blame)?;
        }
        if self.writer.in_progress_rows() == 0 {
            self.group_bytes = 0;
        }
        self.pending_rows = 0;
        self.pending_bytes = 0;
        Ok(())
    }
}

fn properties(salt: &[u8; 32]) -> Result<WriterProperties, IngestError> {
    // Level 3 is zstd's own default: higher ones cost several times the time for a few percent.
    let level = ZstdLevel::try_new(3).map_err(blame)?;
    Ok(WriterProperties::builder()
        .set_created_by("jingwei".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_offset_index_disabled(false)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(vec![KeyValue::new(SALT_KEY.to_owned(), to_hex(salt))]))
        .build())
}

/// A failed write is the disk's, any other error the writer's.
fn blame(error: ParquetError) -> IngestError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => IngestError::Write(*error),
            Err(other) => IngestError::Defect(other.to_string()),
        },
        other => IngestError::Defect(other.to_string()),
    }
}
