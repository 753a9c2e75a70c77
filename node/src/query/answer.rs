//! An answer's bytes: the Arrow IPC stream of its schema and batches as sent, whose SHA-256
//! both sides sign.
//!
//! ```text
//! frame     = FF FF FF FF, length of metadata (u32 LE, a multiple of 8), metadata, zeros, body
//! answer    = schema frame, batch frames, FF FF FF FF, 00 00 00 00
//! ```
//!
//! Provider and asker compute it from the same Flight frames, neither of them re-encoding
//! anything; from a saved `.arrows` file anyone can, and any Arrow reader opens it.

use std::io::{self, Write};

use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::FlightData;
use jingwei_proto::digest::Hasher;

/// What an IPC message starts with.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// What the stream's parts are aligned to.
const ALIGNMENT: usize = 8;

/// Why frames do not make up an answer, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The other side broke the format.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    /// An Arrow library refused what it was given.
    #[error("the answer is malformed: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The file that the answer is written to.
    #[error("cannot write the answer: {0}")]
    Write(#[from] io::Error),
}

pub use jingwei_proto::statement::AnswerDigest;

/// Writes an answer's bytes to `out` and digests them as frames come by.
pub struct AnswerWriter<W> {
    out: W,
    hasher: Hasher,
    rows: u64,
    bytes: u64,
    started: bool,
}

/// Digests an answer without keeping it.
pub type AnswerHasher = AnswerWriter<io::Sink>;

impl AnswerHasher {
    /// An answer without frames yet.
    pub fn hasher() -> AnswerHasher {
        AnswerWriter::new(io::sink())
    }
}

impl<W: Write> AnswerWriter<W> {
    /// An answer without frames yet, whose bytes go to `out`.
    pub fn new(out: W) -> AnswerWriter<W> {
        AnswerWriter {
            out,
            hasher: Hasher::new(),
            rows: 0,
            bytes: 0,
            started: false,
        }
    }

    /// Takes in the next frame: first the schema's, then batches'. A frame without Arrow
    /// content is no part of the answer and is passed over.
    ///
    /// # Errors
    /// [`AnswerError::Malformed`] for any other frame or order.
    pub fn frame(&mut self, frame: &FlightData) -> Result<(), AnswerError> {
        let message = root_as_message(&frame.data_header)
            .map_err(|_| AnswerError::Malformed("a frame's header is not an Arrow message"))?;
        match message.header_type() {
            MessageHeader::NONE => return Ok(()),
            MessageHeader::Schema if !self.started => self.started = true,
            MessageHeader::RecordBatch if self.started => {
                let batch = message.header_as_record_batch();
                let rows = batch.and_then(|batch| u64::try_from(batch.length()).ok());
                let rows = rows.ok_or(AnswerError::Malformed("a batch of no possible length"))?;
                self.rows = self.rows.saturating_add(rows);
            }
            _ => {
                return Err(AnswerError::Malformed(
                    "frames are one schema and then batches",
                ));
            }
        }
        if u64::try_from(message.bodyLength()) != Ok(frame.data_body.len() as u64)
            || !frame.data_body.len().is_multiple_of(ALIGNMENT)
        {
            return Err(AnswerError::Malformed(
                "a frame's body is not as long as it says",
            ));
        }
        self.message(&frame.data_header, &frame.data_body)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`AnswerError::Malformed`] if not even the schema came.
    pub fn finish(mut self) -> Result<(AnswerDigest, W), AnswerError> {
        if !self.started {
            return Err(AnswerError::Malformed("there is no schema"));
        }
        self.put(&CONTINUATION)?;
        self.put(&[0; 4])?;
        self.out.flush()?;
        let (rows, bytes) = (self.rows, self.bytes);
        Ok((
            AnswerDigest {
                digest: self.hasher.finish(),
                rows,
                bytes,
            },
            self.out,
        ))
    }

    /// What came so far, for the receipt of an answer that was cut off.
    pub fn counted(&self) -> (u64, u64) {
        (self.rows, self.bytes)
    }

    fn message(&mut self, metadata: &[u8], body: &[u8]) -> Result<(), AnswerError> {
        let padding = metadata.len().next_multiple_of(ALIGNMENT) - metadata.len();
        let length = u32::try_from(metadata.len() + padding)
            .map_err(|_| AnswerError::Malformed("a frame's header is too long"))?;
        self.put(&CONTINUATION)?;
        self.put(&length.to_le_bytes())?;
        self.put(metadata)?;
        self.put(&[0; ALIGNMENT][..padding])?;
        self.put(body)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
    use arrow::ipc::reader::StreamReader;
    use arrow::record_batch::RecordBatch;

    use super::super::frames::{Encoder, closing_frame};
    use jingwei_proto::digest::Digest;

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let texts = (0..rows).map(|i| (i % 3 > 0).then(|| format!("县{i}")));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
        let flags: ArrayRef = Arc::new(BooleanArray::from_iter((0..rows).map(|i| Some(i > 1))));
        RecordBatch::try_from_iter_with_nullable([
            ("n", numbers, true),
            ("t", texts, true),
            ("b", flags, true),
        ])
        .unwrap()
    }

    #[test]
    fn bytes_are_an_arrow_stream_and_hash_alike() {
        let batches = [batch(5), batch(1_000)];
        let encoder = Encoder::new(batches[0].schema()).unwrap();
        let mut frames = vec![encoder.schema_frame()];
        for batch in &batches {
            frames.extend(encoder.batch_frames(batch).unwrap());
        }
        frames.push(closing_frame(Vec::new().into()));
        let (mut writer, mut hasher) = (AnswerWriter::new(Vec::new()), AnswerWriter::hasher());
        for frame in &frames {
            writer.frame(frame).unwrap();
            hasher.frame(frame).unwrap();
        }
        let (written, bytes) = writer.finish().unwrap();
        assert_eq!(written, hasher.finish().unwrap().0);
        assert_eq!((written.rows, written.bytes), (1_005, bytes.len() as u64));
        assert_eq!(written.digest, Digest::of(&bytes));
        let read: Result<Vec<_>, _> = StreamReader::try_new(bytes.as_slice(), None)
            .unwrap()
            .collect();
        assert_eq!(read.unwrap(), batches);
    }

    #[test]
    fn other_orders_are_refused() {
        let encoder = Encoder::new(batch(1).schema()).unwrap();
        let rows = encoder.batch_frames(&batch(1)).unwrap().remove(0);
        assert!(AnswerWriter::hasher().frame(&rows).is_err());
        let mut twice = AnswerWriter::hasher();
        twice.frame(&encoder.schema_frame()).unwrap();
        assert!(twice.frame(&encoder.schema_frame()).is_err());
        let mut short = rows.clone();
        short.data_body.truncate(short.data_body.len() - 1);
        assert!(twice.frame(&short).is_err());
        assert!(AnswerWriter::hasher().finish().is_err());
    }
}
