//! Parquet: batches of rows, turned into the same cells that a text would give.
//!
//! Dates and times become text again, because the schema judges text; types that JSON has no
//! cell for are refused by the column's name before any row is read.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    StringBuilder, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::temporal_conversions::date32_to_datetime;
use chrono::{DateTime, NaiveTime, Utc};
use jingwei_schemas::{Cell, ColumnKind, TableSchema, Violation};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use super::error::{IngestError, Place, SourceFault};
use super::rows::RowChecker;
use super::source::Source;

/// Rows of a batch: few enough that rows of a megabyte do not fill the memory before they are
/// seen, enough that a batch costs little beside its rows.
const BATCH_ROWS: usize = 1024;

/// The batches of a Parquet file.
pub(super) struct Batches {
    reader: ParquetRecordBatchReader,
    rows: u64,
    read: u64,
}

/// Which of the file's columns is which of the schema's.
#[derive(Debug, Clone)]
pub(super) struct ParquetRows {
    columns: Vec<usize>,
    row_limit: usize,
}

/// Opens a Parquet source, and checks its columns against the schema.
pub(super) fn open(
    source: &Source,
    schema: &TableSchema,
) -> Result<(Batches, ParquetRows), IngestError> {
    let fault = |error: String| source.fault(SourceFault::Parquet(error));
    let builder = builder(source.handle()?).map_err(|error| fault(error.to_string()))?;
    let groups = builder.metadata().row_groups();
    let unpacked: i128 = groups
        .iter()
        .map(|group| i128::from(group.total_byte_size()))
        .sum();
    let limit = source.limits().unpacked;
    if unpacked > i128::from(limit) {
        return Err(source.fault(SourceFault::TooLarge { limit }));
    }
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let file_schema = builder.schema().clone();
    let names: Vec<&str> = file_schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let columns = schema
        .header(&names)
        .map_err(|error| source.fault(error.into()))?;
    for (field, column) in file_schema.fields().iter().zip(&columns) {
        let kind = schema.columns()[*column].kind;
        check_type(field.name(), field.data_type(), kind).map_err(|error| source.fault(error))?;
    }
    let reader = builder
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| fault(error.to_string()))?;
    let row_limit = source.limits().row;
    Ok((
        Batches {
            reader,
            rows,
            read: 0,
        },
        ParquetRows { columns, row_limit },
    ))
}

fn builder(file: File) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
    // What a writer noted beside Parquet's own types (dictionaries, zones) changes no value.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::load(&file, options.clone())?;
    // Text is viewed in the pages it came in: a long one that a dictionary repeats in every
    // row stands in memory once.
    let fields = plain
        .schema()
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => field.as_ref().clone().with_data_type(DataType::Utf8View),
            _ => field.as_ref().clone(),
        });
    let viewed = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let metadata =
        ArrowReaderMetadata::try_new(plain.metadata().clone(), options.with_schema(viewed))?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(
        file, metadata,
    ))
}

impl Batches {
    /// The next rows, and the number of the first of them, counted from 1.
    pub fn next(&mut self) -> Result<Option<(RecordBatch, u64)>, SourceFault> {
        let batch = match self.reader.next() {
            None => return Ok(None),
            Some(batch) => batch.map_err(unreadable)?,
        };
        let first = self.read + 1;
        self.read += batch.num_rows() as u64;
        Ok(Some((batch, first)))
    }

    /// The share of the file's rows that were read, as bytes of `total`.
    pub fn progress(&self, total: u64) -> u64 {
        let share = u128::from(total) * u128::from(self.read) / u128::from(self.rows.max(1));
        u64::try_from(share).unwrap_or(total)
    }
}

impl ParquetRows {
    /// Reads a batch, whose first row has the given number, into `rows`.
    pub fn read(
        &self,
        batch: &RecordBatch,
        first: u64,
        rows: &mut RowChecker<'_>,
    ) -> Result<(), SourceFault> {
        let kinds = self
            .columns
            .iter()
            .map(|column| rows.schema().columns()[*column].kind);
        let columns: Vec<CellColumn> = kinds
            .zip(batch.columns())
            .map(|(kind, array)| CellColumn::new(array, kind))
            .collect::<Result<_, ArrowError>>()
            .map_err(unreadable)?;
        let mut cells = vec![Cell::Absent; rows.schema().columns().len()];
        for (index, number) in (0..batch.num_rows()).zip(first..) {
            let mut violations = Vec::new();
            let mut bytes = 0;
            for (column, target) in columns.iter().zip(&self.columns) {
                let name = &rows.schema().columns()[*target].name;
                cells[*target] = column.cell(index, name).unwrap_or_else(|violation| {
                    violations.push(violation);
                    Cell::Absent
                });
                if let Cell::Text(text) = cells[*target] {
                    bytes += text.len();
                }
            }
            let place = Place::Row(number);
            if bytes > self.row_limit {
                return Err(SourceFault::RowTooLong {
                    place,
                    limit: self.row_limit,
                });
            }
            rows.row(&cells, violations, || place);
        }
        Ok(())
    }
}

fn unreadable(error: ArrowError) -> SourceFault {
    SourceFault::Parquet(error.to_string())
}

fn check_type(column: &str, found: &DataType, kind: ColumnKind) -> Result<(), SourceFault> {
    use DataType as T;
    let text = matches!(found, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let number = found.is_integer() || found.is_floating();
    let fits = match kind {
        ColumnKind::Integer | ColumnKind::Number => number,
        ColumnKind::Text => text,
        ColumnKind::Boolean => *found == T::Boolean,
        ColumnKind::Date => text || matches!(found, T::Date32 | T::Date64 | T::Timestamp(_, _)),
        ColumnKind::DateTime => text || matches!(found, T::Timestamp(_, Some(_))),
    };
    if fits || *found == T::Null {
        return Ok(());
    }
    let advice = match (found, kind) {
        (T::Timestamp(_, None), ColumnKind::DateTime) => {
            "its times name no zone: write them as UTC"
        }
        (T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..), _) => {
            "write it as a 64-bit float or an integer"
        }
        (T::Binary | T::LargeBinary | T::BinaryView, _) => {
            "mark the column as a string (UTF8) when writing it"
        }
        (found, _) if found.is_nested() => "a flat table has one value in a cell",
        _ => "change the column or the schema",
    };
    Err(SourceFault::ColumnType {
        column: column.to_owned(),
        found: if text {
            "string".to_owned()
        } else {
            found.to_string()
        },
        expected: kind,
        advice,
    })
}

/// A column of a batch, in one of the forms that cells are made from.
enum CellColumn {
    Absent,
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Number {
        values: Float64Array,
        whole: bool,
    },
    Boolean(BooleanArray),
    /// Dates and times, written out.
    Text(StringArray),
    View(StringViewArray),
}

impl CellColumn {
    fn new(array: &ArrayRef, kind: ColumnKind) -> Result<CellColumn, ArrowError> {
        use DataType as T;
        Ok(match array.data_type() {
            T::Null => CellColumn::Absent,
            T::Boolean => CellColumn::Boolean(array.as_boolean().clone()),
            T::UInt64 => CellColumn::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            found if found.is_integer() => {
                CellColumn::Integer(cast(array, &T::Int64)?.as_primitive::<Int64Type>().clone())
            }
            found if found.is_floating() => CellColumn::Number {
                values: cast(array, &T::Float64)?
                    .as_primitive::<Float64Type>()
                    .clone(),
                whole: kind == ColumnKind::Integer,
            },
            T::Date32 | T::Date64 => CellColumn::Text(dates(array)?),
            T::Timestamp(unit, _) => CellColumn::Text(times(array, *unit, kind)?),
            _ => CellColumn::View(cast(array, &T::Utf8View)?.as_string_view().clone()),
        })
    }

    fn cell(&self, row: usize, name: &str) -> Result<Cell<'_>, Violation> {
        Ok(match self {
            CellColumn::Absent => Cell::Absent,
            CellColumn::Integer(array) if array.is_valid(row) => Cell::Integer(array.value(row)),
            CellColumn::Unsigned(array) if array.is_valid(row) => {
                let value = array.value(row);
                let refuse = || {
                    violation(
                        name,
                        value.to_string(),
                        "type integer",
                        "an integer must fit in 64 bits",
                    )
                };
                Cell::Integer(i64::try_from(value).map_err(|_| refuse())?)
            }
            CellColumn::Number { values, whole } if values.is_valid(row) => {
                number(values.value(row), *whole, name)?
            }
            CellColumn::Boolean(array) if array.is_valid(row) => Cell::Boolean(array.value(row)),
            CellColumn::Text(array) if array.is_valid(row) => Cell::Text(array.value(row)),
            CellColumn::View(array) if array.is_valid(row) => Cell::Text(array.value(row)),
            _ => Cell::Absent,
        })
    }
}

/// A float. Tables with gaps often hold integers as floats, so a whole one may be an integer.
fn number(value: f64, whole: bool, name: &str) -> Result<Cell<'static>, Violation> {
    /// Up to here a float tells neighbouring integers apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !value.is_finite() {
        let message = "no number that JSON knows; write a missing value as null";
        return Err(violation(name, value.to_string(), "type number", message));
    }
    if whole && value.fract() == 0.0 && value.abs() <= EXACT {
        return Ok(Cell::Integer(value as i64));
    }
    Ok(Cell::Number(value))
}

fn violation(column: &str, value: String, rule: &str, message: &str) -> Violation {
    Violation {
        column: Some(column.to_owned()),
        value,
        rule: rule.to_owned(),
        message: message.to_owned(),
    }
}

fn dates(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let days = cast(array, &DataType::Date32)?;
    texts(days.as_primitive::<Date32Type>().iter().map(|day| {
        day.map(|day| match date32_to_datetime(day) {
            Some(time) => Cow::Owned(time.date().to_string()),
            None => OUT_OF_RANGE,
        })
    }))
}

fn times(array: &ArrayRef, unit: TimeUnit, kind: ColumnKind) -> Result<StringArray, ArrowError> {
    let utc = |unit| DataType::Timestamp(unit, Some("UTC".into()));
    let text = |time: Option<DateTime<Utc>>| match time {
        None => OUT_OF_RANGE,
        Some(time) if kind == ColumnKind::Date && time.time() == NaiveTime::MIN => {
            Cow::Owned(time.date_naive().to_string())
        }
        Some(time) => Cow::Owned(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
    };
    // Nanoseconds are kept apart: made into microseconds, they would lose digits unseen.
    if unit == TimeUnit::Nanosecond {
        let array = cast(array, &utc(unit))?;
        let array: &TimestampNanosecondArray = array.as_primitive::<TimestampNanosecondType>();
        return texts(
            array
                .iter()
                .map(|time| time.map(|time| text(Some(DateTime::from_timestamp_nanos(time))))),
        );
    }
    let array = cast(array, &utc(TimeUnit::Microsecond))?;
    let array: &TimestampMicrosecondArray = array.as_primitive::<TimestampMicrosecondType>();
    texts(
        array
            .iter()
            .map(|time| time.map(|time| text(DateTime::from_timestamp_micros(time)))),
    )
}

/// Stands where a number means no date; no format takes it for one.
const OUT_OF_RANGE: Cow<'static, str> = Cow::Borrowed("out of range");

fn texts<'a>(
    values: impl Iterator<Item = Option<Cow<'a, str>>>,
) -> Result<StringArray, ArrowError> {
    let mut builder = StringBuilder::new();
    for value in values {
        match value {
            None => builder.append_null(),
            Some(text) => {
                builder
                    .write_str(&text)
                    .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
                builder.append_value("");
            }
        }
    }
    Ok(builder.finish())
}
