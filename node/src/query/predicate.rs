//! Total predicates over one column: the only conditions that a dataset's leaf evaluates.
//!
//! *Total* means that no row can make them fail, so no error can tell of a row that a filter
//! or mask hides. A comparison of a column with a constant of its own type is total; a
//! conversion, a sum or a quotient is not.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar};
use arrow::compute::kernels::cmp;
use arrow::compute::{cast, is_not_null, is_null};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::errors::ParquetError;

/// `column op literal`
#[derive(Debug, Clone)]
pub struct Predicate {
    column: usize,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Null {
        negated: bool,
    },
    Compare {
        op: Operator,
        value: Scalar<ArrayRef>,
    },
    In {
        values: Values,
        negated: bool,
    },
}

#[derive(Debug, Clone)]
enum Values {
    Integers(HashSet<i64>),
    Texts(HashSet<String>),
}

impl Predicate {
    /// `expr` as a total predicate over `schema`; `None` if it is none.
    pub fn from_expr(expr: &Expr, schema: &Schema) -> Option<Predicate> {
        let (column, test) = match expr {
            Expr::IsNull(of) => (column(of, schema)?, Test::Null { negated: false }),
            Expr::IsNotNull(of) => (column(of, schema)?, Test::Null { negated: true }),
            Expr::BinaryExpr(binary) => compare(&binary.left, binary.op, &binary.right, schema)
                .or_else(|| compare(&binary.right, binary.op.swap()?, &binary.left, schema))?,
            Expr::InList(list) => {
                let column = column(&list.expr, schema)?;
                let values = values(&list.list, schema.field(column).data_type())?;
                (
                    column,
                    Test::In {
                        values,
                        negated: list.negated,
                    },
                )
            }
            _ => return None,
        };
        Some(Predicate { column, test })
    }

    /// The place of its column in the schema.
    pub fn column(&self) -> usize {
        self.column
    }

    /// For each of the column's values whether the predicate holds; null where SQL says so.
    pub fn evaluate(&self, values: &ArrayRef) -> Result<BooleanArray, ArrowError> {
        match &self.test {
            Test::Null { negated: false } => is_null(values),
            Test::Null { negated: true } => is_not_null(values),
            Test::Compare { op, value } => compare_with(*op, values, value),
            Test::In {
                values: wanted,
                negated,
            } => wanted.contain(values, *negated),
        }
    }

    /// For each row group whether any of its rows may fulfil the predicate, by the least and
    /// greatest values in the footer; `None` where they say nothing.
    pub fn may_hold(
        &self,
        file: &ArrowReaderMetadata,
        schema: &Schema,
    ) -> Result<Option<BooleanArray>, ParquetError> {
        let Test::Compare { op, value } = &self.test else {
            return Ok(None);
        };
        let field = schema.field(self.column);
        if field.data_type().is_floating() {
            // The footer leaves out NaN, which is greater than every number here.
            return Ok(None);
        }
        let groups = file.metadata().row_groups();
        let statistics =
            StatisticsConverter::try_new(field.name(), file.schema(), file.parquet_schema())?;
        let least = statistics.row_group_mins(groups)?;
        let greatest = statistics.row_group_maxes(groups)?;
        Ok(Some(match op {
            Operator::Lt | Operator::LtEq => compare_with(*op, &least, value)?,
            Operator::Gt | Operator::GtEq => compare_with(*op, &greatest, value)?,
            Operator::Eq => {
                arrow::compute::and(&cmp::lt_eq(&least, value)?, &cmp::gt_eq(&greatest, value)?)?
            }
            _ => return Ok(None),
        }))
    }
}

fn column(expr: &Expr, schema: &Schema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of(&column.name).ok(),
        _ => None,
    }
}

fn compare(left: &Expr, op: Operator, right: &Expr, schema: &Schema) -> Option<(usize, Test)> {
    let comparison = matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
    );
    let column = column(left, schema)?;
    let value = literal(right, schema.field(column).data_type())?;
    comparison.then_some(())?;
    Some((
        column,
        Test::Compare {
            op,
            value: value.to_scalar().ok()?,
        },
    ))
}

fn compare_with(
    op: Operator,
    values: &ArrayRef,
    value: &Scalar<ArrayRef>,
) -> Result<BooleanArray, ArrowError> {
    match op {
        Operator::Eq => cmp::eq(values, value),
        Operator::NotEq => cmp::neq(values, value),
        Operator::Lt => cmp::lt(values, value),
        Operator::LtEq => cmp::lt_eq(values, value),
        Operator::Gt => cmp::gt(values, value),
        Operator::GtEq => cmp::gt_eq(values, value),
        _ => Err(ArrowError::ComputeError("not a comparison".to_owned())),
    }
}

/// A constant that is not null and has exactly the column's type.
fn literal<'a>(expr: &'a Expr, data_type: &DataType) -> Option<&'a ScalarValue> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() && value.data_type() == *data_type => {
            Some(value)
        }
        _ => None,
    }
}

fn values(list: &[Expr], data_type: &DataType) -> Option<Values> {
    let literals = list.iter().map(|expr| literal(expr, data_type));
    match data_type {
        DataType::Utf8 => literals
            .map(|value| match value? {
                ScalarValue::Utf8(Some(text)) => Some(text.clone()),
                _ => None,
            })
            .collect::<Option<_>>()
            .map(Values::Texts),
        DataType::Int64 | DataType::Date32 | DataType::Timestamp(_, _) => literals
            .map(|value| match value? {
                ScalarValue::Int64(Some(value)) => Some(*value),
                ScalarValue::Date32(Some(days)) => Some(i64::from(*days)),
                ScalarValue::TimestampMicrosecond(Some(time), _) => Some(*time),
                _ => None,
            })
            .collect::<Option<_>>()
            .map(Values::Integers),
        _ => None,
    }
}

impl Values {
    fn contain(&self, values: &ArrayRef, negated: bool) -> Result<BooleanArray, ArrowError> {
        let found: Vec<bool> = match self {
            Values::Texts(wanted) => {
                let texts = values.as_string::<i32>();
                (0..texts.len())
                    .map(|row| texts.is_valid(row) && wanted.contains(texts.value(row)))
                    .collect()
            }
            Values::Integers(wanted) => {
                let integers = as_integers(values)?;
                let integers = integers.as_primitive::<Int64Type>();
                integers
                    .values()
                    .iter()
                    .map(|value| wanted.contains(value))
                    .collect()
            }
        };
        let found = found
            .into_iter()
            .map(|found| found != negated)
            .collect::<Vec<_>>();
        Ok(BooleanArray::new(found.into(), values.nulls().cloned()))
    }
}

fn as_integers(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match values.data_type() {
        // Days and microseconds as they count; arrow has no single step from days to 64 bits.
        DataType::Date32 => cast(&cast(values, &DataType::Int32)?, &DataType::Int64),
        _ => cast(values, &DataType::Int64),
    }
}
