//! Batches to Flight frames and back. What comes from a stranger is checked in full before an
//! Arrow library sees it: those libraries take some liberties of a stranger for bugs of their
//! caller, and stop the program.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{self, MessageHeader, MetadataVersion, root_as_message};
use arrow::record_batch::RecordBatch;
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::Bytes;

use super::answer::AnswerError;
use super::types;

/// Bytes of a frame's body at which a batch is sent in pieces: well below the 4 MiB that gRPC
/// takes by default.
const FRAME_BYTES: usize = 1 << 20;

/// Turns the batches of one answer into frames: no dictionaries, no compression, so that one
/// answer has one spelling.
pub struct Encoder {
    schema: SchemaRef,
    options: IpcWriteOptions,
}

impl Encoder {
    /// An encoder of answers with that schema.
    ///
    /// # Errors
    /// [`AnswerError::Malformed`] if answers cannot have such columns.
    pub fn new(schema: SchemaRef) -> Result<Encoder, AnswerError> {
        if !schema
            .fields()
            .iter()
            .all(|field| types::is_settled(field.data_type()))
        {
            return Err(AnswerError::Malformed("a column of no settled type"));
        }
        let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5)?;
        Ok(Encoder {
            schema: types::bare_schema(&schema),
            options,
        })
    }

    /// The first frame.
    pub fn schema_frame(&self) -> FlightData {
        SchemaAsIpc::new(&self.schema, &self.options).into()
    }

    /// The frames of a batch, each of about a mebibyte at most unless a single row has more.
    pub fn batch_frames(&self, batch: &RecordBatch) -> Result<Vec<FlightData>, AnswerError> {
        let mut frames = Vec::new();
        let mut waiting = vec![batch.clone()];
        while let Some(batch) = waiting.pop() {
            let rows = batch.num_rows();
            let frame = self.encode(&batch)?;
            if frame.data_body.len() > FRAME_BYTES && rows > 1 {
                waiting.push(batch.slice(rows / 2, rows - rows / 2));
                waiting.push(batch.slice(0, rows / 2));
            } else {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn encode(&self, batch: &RecordBatch) -> Result<FlightData, AnswerError> {
        let (_, encoded) = IpcDataGenerator::default().encode(
            batch,
            &mut DictionaryTracker::new(true),
            &self.options,
            &mut IpcWriteContext::default(),
        )?;
        Ok(encoded.into())
    }
}

/// A frame that carries `app_metadata` and nothing of Arrow, such as an answer's last.
pub fn closing_frame(app_metadata: Bytes) -> FlightData {
    // The flatbuffer of a message whose only field is its version, 5, at the offset 4 that the
    // table of fields at byte 6 gives. Clients refuse an empty header.
    const NONE: &[u8] = &[12, 0, 0, 0, 0, 0, 6, 0, 6, 0, 4, 0, 6, 0, 0, 0, 4, 0, 0, 0];
    FlightData {
        data_header: Bytes::from_static(NONE),
        app_metadata,
        ..FlightData::default()
    }
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The answer's columns.
    Schema(SchemaRef),
    /// Some of its rows.
    Batch(RecordBatch),
    /// Nothing of Arrow, only `app_metadata`.
    Closing,
}

/// Turns a stranger's frames back into batches.
#[derive(Debug, Default)]
pub struct Decoder {
    schema: Option<SchemaRef>,
}

impl Decoder {
    /// A decoder that has seen no frame yet.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// [`AnswerError::Malformed`] or [`AnswerError::Arrow`]; never a panic, whatever the bytes.
    pub fn frame(&mut self, frame: &FlightData) -> Result<Frame, AnswerError> {
        let message = root_as_message(&frame.data_header)
            .map_err(|_| AnswerError::Malformed("a frame's header is not an Arrow message"))?;
        match (message.header_type(), &self.schema) {
            (MessageHeader::NONE, _) => Ok(Frame::Closing),
            (MessageHeader::Schema, None) => {
                let schema = message.header_as_schema().and_then(read_schema);
                let schema = schema.ok_or(AnswerError::Malformed("a column of no settled type"))?;
                self.schema = Some(Arc::clone(&schema));
                Ok(Frame::Schema(schema))
            }
            (MessageHeader::RecordBatch, Some(schema)) => {
                let batch = message
                    .header_as_record_batch()
                    .filter(|_| message.version() == MetadataVersion::V5)
                    .ok_or(AnswerError::Malformed(
                        "a batch of another version of Arrow",
                    ))?;
                read_batch(frame, batch, schema).map(Frame::Batch)
            }
            _ => Err(AnswerError::Malformed(
                "frames are one schema and then batches",
            )),
        }
    }
}

/// The schema, if it is one that answers have. Metadata is left behind.
fn read_schema(schema: ipc::Schema<'_>) -> Option<SchemaRef> {
    (schema.endianness() == ipc::Endianness::Little).then_some(())?;
    let fields = schema.fields()?.iter().map(|field| {
        let plain =
            field.dictionary().is_none() && field.children().is_none_or(|all| all.is_empty());
        let data_type = read_type(field).filter(|_| plain)?;
        Some(Field::new(field.name()?, data_type, field.nullable()))
    });
    Some(Arc::new(Schema::new(fields.collect::<Option<Vec<_>>>()?)))
}

fn read_type(field: ipc::Field<'_>) -> Option<DataType> {
    match field.type_type() {
        ipc::Type::Bool => Some(DataType::Boolean),
        ipc::Type::Utf8 => Some(DataType::Utf8),
        ipc::Type::Int => {
            let int = field.type_as_int()?;
            (int.bitWidth() == 64 && int.is_signed()).then_some(DataType::Int64)
        }
        ipc::Type::FloatingPoint => {
            let float = field.type_as_floating_point()?;
            (float.precision() == ipc::Precision::DOUBLE).then_some(DataType::Float64)
        }
        ipc::Type::Date => {
            let date = field.type_as_date()?;
            (date.unit() == ipc::DateUnit::DAY).then_some(DataType::Date32)
        }
        ipc::Type::Timestamp => {
            let time = field.type_as_timestamp()?;
            let settled =
                time.unit() == ipc::TimeUnit::MICROSECOND && time.timezone() == Some("UTC");
            settled.then(types::timestamp)
        }
        ipc::Type::Decimal => {
            let decimal = field.type_as_decimal()?;
            let (precision, scale) = (decimal.precision(), decimal.scale());
            let settled = decimal.bitWidth() == 128
                && (1..=38).contains(&precision)
                && (0..=precision).contains(&scale);
            settled.then_some(DataType::Decimal128(precision as u8, scale as i8))
        }
        _ => None,
    }
}

fn read_batch(
    frame: &FlightData,
    batch: ipc::RecordBatch<'_>,
    schema: &SchemaRef,
) -> Result<RecordBatch, AnswerError> {
    fits(batch, schema, frame.data_body.len()).ok_or(AnswerError::Malformed(
        "a batch that does not fit its schema or its body",
    ))?;
    let body = Buffer::from(frame.data_body.as_ref());
    let none = HashMap::new();
    let decoder = RecordBatchDecoder::try_new(
        &body,
        batch,
        Arc::clone(schema),
        &none,
        &MetadataVersion::V5,
    )?;
    Ok(decoder.read_record_batch()?)
}

/// Whether every array that the batch describes lies within a body of `bytes` and is long enough
/// for its rows. Contents (offsets, UTF-8) are left to Arrow, which checks those well.
fn fits(batch: ipc::RecordBatch<'_>, schema: &Schema, bytes: usize) -> Option<()> {
    let rows = usize::try_from(batch.length()).ok()?;
    let plain = batch.compression().is_none()
        && batch
            .variadicBufferCounts()
            .is_none_or(|counts| counts.is_empty());
    let nodes = batch.nodes()?;
    (plain && !schema.fields().is_empty() && nodes.len() == schema.fields().len()).then_some(())?;
    let mut buffers = batch.buffers()?.iter();
    // A buffer of at least `rows` values of `width` bytes, and of whole values only.
    let mut next = |rows: usize, width: usize| {
        let buffer = buffers.next()?;
        let start = usize::try_from(buffer.offset()).ok()?;
        let length = usize::try_from(buffer.length()).ok()?;
        let inside = start.checked_add(length)? <= bytes;
        let enough = rows.checked_mul(width)? <= length && length % width == 0;
        (inside && enough).then_some(())
    };
    for (node, field) in nodes.iter().zip(schema.fields()) {
        let nulls = usize::try_from(node.null_count()).ok()?;
        let told = usize::try_from(node.length()).ok()?;
        (told == rows && nulls <= rows).then_some(())?;
        next(if nulls > 0 { rows.div_ceil(8) } else { 0 }, 1)?;
        match field.data_type() {
            DataType::Boolean => next(rows.div_ceil(8), 1)?,
            DataType::Utf8 => {
                next(if rows > 0 { rows.checked_add(1)? } else { 0 }, 4)?;
                next(0, 1)?;
            }
            other => next(rows, other.primitive_width()?)?,
        }
    }
    buffers.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn batch(rows: i64, width: usize) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let texts = (0..rows).map(|i| (i % 3 > 0).then(|| "x".repeat(width)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)])
            .unwrap()
    }

    fn frames(batch: &RecordBatch) -> Vec<FlightData> {
        let encoder = Encoder::new(batch.schema()).unwrap();
        let mut frames = vec![encoder.schema_frame()];
        frames.extend(encoder.batch_frames(batch).unwrap());
        frames
    }

    #[test]
    fn large_batches_travel_in_pieces() {
        let whole = batch(100, 50_000);
        let frames = frames(&whole);
        assert!(frames.len() > 4);
        assert!(
            frames
                .iter()
                .all(|frame| frame.data_body.len() <= FRAME_BYTES)
        );
        let mut decoder = Decoder::new();
        let mut batches = Vec::new();
        for frame in &frames {
            match decoder.frame(frame).unwrap() {
                Frame::Batch(batch) => batches.push(batch),
                Frame::Schema(schema) => assert_eq!(schema, whole.schema()),
                Frame::Closing => panic!("no closing frame was sent"),
            }
        }
        let joined = arrow::compute::concat_batches(&whole.schema(), &batches).unwrap();
        assert_eq!(joined, whole);
    }

    #[test]
    fn a_closing_frame_is_one_to_others_too() {
        let frame = closing_frame(Bytes::from_static(b"receipt"));
        let message = root_as_message(&frame.data_header).unwrap();
        assert_eq!(message.header_type(), MessageHeader::NONE);
        assert_eq!(message.version(), MetadataVersion::V5);
        assert_eq!(Decoder::new().frame(&frame).unwrap(), Frame::Closing);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Changed, cut and stretched bytes end in an error or a batch, never in a panic.
        #[test]
        fn hostile_frames_do_not_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
            which in 0..2_usize,
        ) {
            let mut frames = frames(&batch(20, 3));
            let mut header = frames[which].data_header.to_vec();
            for (place, byte) in changes {
                let place = place.index(header.len());
                header[place] = byte;
            }
            frames[which].data_header = header.into();
            if let Some(cut) = cut {
                let length = cut.index(frames[1].data_body.len());
                frames[1].data_body.truncate(length);
            }
            let mut decoder = Decoder::new();
            for frame in &frames {
                let _ = decoder.frame(frame);
            }
        }
    }
}
