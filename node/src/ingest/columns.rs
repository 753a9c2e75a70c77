//! Columns: what Arrow makes of the schema's kinds, and how a column grows cell by cell.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use jingwei_schemas::{Cell, ColumnKind, TableSchema, calendar};

/// The Arrow type of each kind of column.
pub fn arrow_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::Integer => DataType::Int64,
        ColumnKind::Number => DataType::Float64,
        ColumnKind::Text => DataType::Utf8,
        ColumnKind::Boolean => DataType::Boolean,
        ColumnKind::Date => DataType::Date32,
        ColumnKind::DateTime => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The Arrow schema of the files that hold rows of `schema`. Every column may be null there:
/// which cells must stand is the JSON Schema's to say, and a later version may relax it.
pub fn arrow_schema(schema: &TableSchema) -> SchemaRef {
    let columns = schema.columns().iter();
    let fields = columns.map(|column| Field::new(&column.name, arrow_type(column.kind), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A cell that passed the schema has no place in its Arrow column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit;

/// An Arrow column that grows cell by cell.
pub(super) enum ColumnBuilder {
    Integer(Int64Builder),
    Number(Float64Builder),
    Text(StringBuilder),
    Boolean(BooleanBuilder),
    Date(Date32Builder),
    DateTime(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    /// An empty column.
    pub fn new(kind: ColumnKind) -> ColumnBuilder {
        match kind {
            ColumnKind::Integer => ColumnBuilder::Integer(Int64Builder::new()),
            ColumnKind::Number => ColumnBuilder::Number(Float64Builder::new()),
            ColumnKind::Text => ColumnBuilder::Text(StringBuilder::new()),
            ColumnKind::Boolean => ColumnBuilder::Boolean(BooleanBuilder::new()),
            ColumnKind::Date => ColumnBuilder::Date(Date32Builder::new()),
            ColumnKind::DateTime => ColumnBuilder::DateTime(
                TimestampMicrosecondBuilder::new().with_data_type(arrow_type(ColumnKind::DateTime)),
            ),
        }
    }

    fn append_absent(&mut self) {
        match self {
            ColumnBuilder::Integer(builder) => builder.append_null(),
            ColumnBuilder::Number(builder) => builder.append_null(),
            ColumnBuilder::Text(builder) => builder.append_null(),
            ColumnBuilder::Boolean(builder) => builder.append_null(),
            ColumnBuilder::Date(builder) => builder.append_null(),
            ColumnBuilder::DateTime(builder) => builder.append_null(),
        }
    }

    /// Appends a cell.
    pub fn append(&mut self, cell: Cell<'_>) -> Result<(), Unfit> {
        match (self, cell) {
            (builder, Cell::Absent | Cell::Null) => builder.append_absent(),
            (ColumnBuilder::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (ColumnBuilder::Integer(builder), Cell::Integer(value)) => builder.append_value(value),
            (ColumnBuilder::Integer(builder), Cell::Number(value)) => {
                builder.append_value(whole(value).ok_or(Unfit)?);
            }
            (ColumnBuilder::Number(builder), Cell::Number(value)) => builder.append_value(value),
            (ColumnBuilder::Number(builder), Cell::Integer(value)) => {
                builder.append_value(value as f64);
            }
            (ColumnBuilder::Boolean(builder), Cell::Boolean(value)) => builder.append_value(value),
            (ColumnBuilder::Date(builder), Cell::Text(text)) => {
                builder.append_value(calendar::days(text).ok_or(Unfit)?);
            }
            (ColumnBuilder::DateTime(builder), Cell::Text(text)) => {
                builder.append_value(calendar::micros(text).ok_or(Unfit)?);
            }
            _ => return Err(Unfit),
        }
        Ok(())
    }

    /// The column, complete.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Integer(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Number(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish()),
            ColumnBuilder::DateTime(builder) => Arc::new(builder.finish()),
        }
    }
}

/// JSON Schema takes 3.0 for an integer; so do we, where no neighbouring integer could be meant.
fn whole(number: f64) -> Option<i64> {
    /// Up to 2^53 a float tells neighbouring integers apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_is_appended() {
        let append = |kind, cell| ColumnBuilder::new(kind).append(cell);
        assert!(append(ColumnKind::Integer, Cell::Number(3.0)).is_ok());
        assert!(append(ColumnKind::Integer, Cell::Number(1e300)).is_err());
        assert!(append(ColumnKind::Date, Cell::Text("2013-02-29")).is_err());
        assert!(append(ColumnKind::DateTime, Cell::Text("2013-02-28T00:00:00")).is_err());
        assert!(append(ColumnKind::Boolean, Cell::Text("true")).is_err());
        assert!(append(ColumnKind::Boolean, Cell::Null).is_ok());
    }
}
