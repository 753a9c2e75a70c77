//! An answer as it comes in: held to its limits, hashed, kept if wanted, decoded.
//!
//! The provider is a stranger. However it answers, what this side does for it is bounded: by the
//! rows that were asked for, by the limits of a query here, by a few frames without rows, and by
//! the question's deadline, which is the caller's matter.

use std::io::{BufWriter, Write};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::AnswerDigest;
use jingwei_proto::words;
use jingwei_registry::fault::{Blame, Fault};
use tonic_prost::prost::Message as _;

use super::ask::TempFile;
use crate::node::Node;
use crate::query::answer::AnswerWriter;
use crate::query::frames::{Decoder, Frame};
use crate::query::limits::{Exceeded, Limits};

/// Batches without rows in one answer. Our own providers send none, others may now and then.
const EMPTY: usize = 16;

/// What one answer may have.
struct Room {
    /// The rows that the query allows by its `LIMIT`.
    asked: Option<u64>,
    /// The rows and bytes that this node takes.
    limits: Limits,
    rows: u64,
    bytes: u64,
    empty: usize,
}

impl Room {
    fn frame(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > self.limits.bytes {
            return Err(exceeded(&Exceeded::Bytes(self.limits.bytes)));
        }
        Ok(())
    }

    fn rows(&mut self, rows: usize) -> Result<(), Fault> {
        let lie = |what: String| Err(Fault::new(Blame::Unverified, what));
        self.rows = self.rows.saturating_add(rows as u64);
        self.empty += usize::from(rows == 0);
        if let Some(asked) = self.asked.filter(|asked| self.rows > *asked) {
            return lie(format!(
                "it sent more than the {} asked for",
                words::rows(asked)
            ));
        }
        if self.empty > EMPTY {
            return lie("it sends batch after batch without rows".into());
        }
        if self.rows > self.limits.rows {
            return Err(exceeded(&Exceeded::Rows(self.limits.rows)));
        }
        Ok(())
    }
}

fn exceeded(limit: &Exceeded) -> Fault {
    Fault::new(Blame::LimitExceeded, limit.to_string())
}

/// The answer of one provider. Its faults name that agency.
pub(super) struct Incoming<'a> {
    provider: &'a AgencyId,
    schema: SchemaRef,
    room: Room,
    writer: AnswerWriter<Box<dyn Write + Send>>,
    decoder: Decoder,
    file: Option<TempFile>,
}

impl<'a> Incoming<'a> {
    /// Nothing has come yet. The columns are to be those of `schema`, the rows no more than
    /// `asked`, and the whole within `limits`; it goes into a file if it is to be kept.
    pub fn new(
        node: &Node,
        provider: &'a AgencyId,
        schema: SchemaRef,
        asked: Option<u64>,
        limits: Limits,
        keep: bool,
    ) -> std::io::Result<Incoming<'a>> {
        let (file, out): (_, Box<dyn Write + Send>) = if keep {
            let (temp, file) = TempFile::create(node)?;
            (Some(temp), Box::new(BufWriter::new(file)))
        } else {
            (None, Box::new(std::io::sink()))
        };
        Ok(Incoming {
            provider,
            schema,
            room: Room {
                asked,
                limits,
                rows: 0,
                bytes: 0,
                empty: 0,
            },
            writer: AnswerWriter::new(out),
            decoder: Decoder::new(),
            file,
        })
    }

    /// Takes the first frame.
    pub fn schema(&mut self, frame: &FlightData) -> Result<(), Fault> {
        match self.decode(frame)? {
            Frame::Schema(schema) if same_types(&schema, &self.schema) => Ok(()),
            _ => Err(self.lie("the answer has not the columns that were asked for")),
        }
    }

    /// The frame's rows, or `None` for the closing frame.
    pub fn rows(&mut self, frame: &FlightData) -> Result<Option<RecordBatch>, Fault> {
        match self.decode(frame)? {
            Frame::Batch(batch) => {
                self.room
                    .rows(batch.num_rows())
                    .map_err(|fault| fault.at(self.provider))?;
                RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())
                    .map(Some)
                    .map_err(|_| self.lie("a batch does not fit the columns that were asked for"))
            }
            Frame::Closing => Ok(None),
            Frame::Schema(_) => Err(self.lie("a second schema in one answer")),
        }
    }

    /// What came, and the file that holds it if it is kept.
    pub fn finish(self) -> Result<(AnswerDigest, Option<TempFile>), Fault> {
        let provider = self.provider;
        let (digest, _) = self
            .writer
            .finish()
            .map_err(|error| Fault::new(Blame::Unverified, error.to_string()).at(provider))?;
        Ok((digest, self.file))
    }

    fn decode(&mut self, frame: &FlightData) -> Result<Frame, Fault> {
        self.room
            .frame(frame.encoded_len())
            .map_err(|fault| fault.at(self.provider))?;
        let decoded = self.decoder.frame(frame);
        let decoded = decoded.map_err(|error| self.lie(&error.to_string()))?;
        self.writer
            .frame(frame)
            .map_err(|error| self.lie(&error.to_string()))?;
        Ok(decoded)
    }

    fn lie(&self, what: &str) -> Fault {
        Fault::new(Blame::Unverified, what).at(self.provider)
    }
}

fn same_types(found: &SchemaRef, expected: &SchemaRef) -> bool {
    found.fields().len() == expected.fields().len()
        && found
            .fields()
            .iter()
            .zip(expected.fields())
            .all(|(found, expected)| found.data_type() == expected.data_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(asked: Option<u64>) -> Room {
        Room {
            asked,
            limits: Limits {
                rows: 10,
                bytes: 100,
                ..Limits::default()
            },
            rows: 0,
            bytes: 0,
            empty: 0,
        }
    }

    #[test]
    fn everything_is_bounded() {
        let blame = |result: Result<(), Fault>| result.err().map(|fault| fault.blame);
        let mut asked = room(Some(3));
        assert_eq!(blame(asked.rows(3)), None);
        assert_eq!(blame(asked.rows(1)), Some(Blame::Unverified));
        let mut all = room(None);
        assert_eq!(blame(all.rows(10)), None);
        assert_eq!(blame(all.rows(1)), Some(Blame::LimitExceeded));
        let mut wide = room(None);
        assert_eq!(blame(wide.frame(100)), None);
        assert_eq!(blame(wide.frame(1)), Some(Blame::LimitExceeded));
        let mut empty = room(None);
        assert!((0..EMPTY).all(|_| empty.rows(0).is_ok()));
        assert_eq!(blame(empty.rows(0)), Some(Blame::Unverified));
    }
}
