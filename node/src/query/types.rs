//! The few column types that SQL here knows, so that both sides of the border, files and
//! answers agree on them.
//!
//! | cell | Arrow | SQL |
//! |---|---|---|
//! | integer | `Int64` | `BIGINT` |
//! | number | `Float64` | `DOUBLE` |
//! | string | `Utf8` | `TEXT` |
//! | boolean | `Boolean` | `BOOLEAN` |
//! | date | `Date32` | `DATE` |
//! | date-time | `Timestamp(µs, "UTC")` | `TIMESTAMP` |
//!
//! Answers may hold `Decimal128` as well, which `CAST` makes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::DataType as SqlType;

/// The type of a date-time: microseconds since 1970 in UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type in which an answer carries values of type `computed`; `None` if it cannot.
pub fn answer_type(computed: &DataType) -> Option<DataType> {
    match computed {
        DataType::Boolean => Some(DataType::Boolean),
        integer if integer.is_integer() => Some(DataType::Int64),
        float if float.is_floating() => Some(DataType::Float64),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            Some(DataType::Utf8)
        }
        DataType::Date32 | DataType::Date64 => Some(DataType::Date32),
        DataType::Timestamp(_, _) => Some(timestamp()),
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            Some(DataType::Decimal128(*precision, *scale))
        }
        _ => None,
    }
}

/// Whether `data_type` may stand in a dataset's file or an answer as it is.
pub fn is_settled(data_type: &DataType) -> bool {
    answer_type(data_type).as_ref() == Some(data_type)
}

/// `schema` without any metadata: a file's holds the salt that hides its digest, which is
/// nobody else's.
pub fn bare_schema(schema: &Schema) -> SchemaRef {
    let bare =
        |field: &FieldRef| Field::new(field.name(), field.data_type().clone(), field.is_nullable());
    Arc::new(Schema::new(
        schema.fields().iter().map(bare).collect::<Vec<_>>(),
    ))
}

/// Reads SQL's type names as the types of this module, on both sides of the border.
#[derive(Debug)]
pub struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let data_type = match sql_type {
            SqlType::Timestamp(..) | SqlType::Datetime(_) => timestamp(),
            SqlType::TinyInt(_)
            | SqlType::SmallInt(_)
            | SqlType::Int(_)
            | SqlType::Integer(_)
            | SqlType::BigInt(_) => DataType::Int64,
            SqlType::Float(_) | SqlType::Real | SqlType::Double(_) | SqlType::DoublePrecision => {
                DataType::Float64
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
