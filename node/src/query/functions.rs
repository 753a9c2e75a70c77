//! The functions that queries may call, with those that the engine is built without.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::{try_unary, unary};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, plan_err};
use datafusion::functions::{core, datetime, string, unicode};
use datafusion::functions_aggregate::{average, count, min_max, sum};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// The scalar functions of the border grammar: linear in their arguments, no regular
/// expressions, nothing that reads a clock.
pub fn border_scalars() -> Vec<Arc<ScalarUDF>> {
    let mut functions = vec![
        string::lower(),
        string::upper(),
        string::btrim(),
        unicode::substr(),
        unicode::character_length(),
        core::coalesce(),
        core::nullif(),
        datetime::date_trunc(),
        datetime::date_part(),
        datetime::make_date(),
    ];
    functions.extend(numeric());
    functions
}

/// The aggregates of the border grammar.
pub fn border_aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        sum::sum_udaf(),
        count::count_udaf(),
        min_max::min_udaf(),
        min_max::max_udaf(),
        average::avg_udaf(),
    ]
}

/// `abs`, `round` and `floor`, the same on both sides of the border.
pub fn numeric() -> Vec<Arc<ScalarUDF>> {
    [Numeric::ABS, Numeric::ROUND, Numeric::FLOOR]
        .map(|name| Arc::new(ScalarUDF::new_from_impl(Numeric::new(name))))
        .to_vec()
}

/// One of the three.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Numeric {
    name: &'static str,
    signature: Signature,
}

impl Numeric {
    const ABS: &'static str = "abs";
    const ROUND: &'static str = "round";
    const FLOOR: &'static str = "floor";

    fn new(name: &'static str) -> Numeric {
        Numeric {
            name,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Numeric {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let number = match args.first() {
            Some(kept @ DataType::Decimal128(_, _)) if self.name == Self::ABS => kept.clone(),
            Some(number) if number.is_integer() && self.name == Self::ABS => DataType::Int64,
            Some(number) if number.is_numeric() || number.is_null() => DataType::Float64,
            _ => return plan_err!("{} takes a number", self.name),
        };
        match (self.name, args.len()) {
            (_, 1) => Ok(vec![number]),
            (Self::ROUND, 2) if args[1].is_integer() => Ok(vec![number, DataType::Int64]),
            _ => plan_err!(
                "{} takes a number, and round also how many digits",
                self.name
            ),
        }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Float64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result = match (self.name, arrays.as_slice()) {
            (Self::ABS, [numbers]) => abs(numbers)?,
            (Self::FLOOR, [numbers]) => floats(numbers, f64::floor),
            (Self::ROUND, [numbers]) => floats(numbers, f64::round),
            (Self::ROUND, [numbers, digits]) => round(numbers, digits),
            _ => return plan_err!("{} takes a number", self.name),
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn floats(numbers: &ArrayRef, op: fn(f64) -> f64) -> ArrayRef {
    Arc::new(unary::<_, _, Float64Type>(
        numbers.as_primitive::<Float64Type>(),
        op,
    ))
}

fn abs(numbers: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let overflow = || ArrowError::ArithmeticOverflow("abs".to_owned());
    Ok(match numbers.data_type() {
        DataType::Int64 => {
            let integers = numbers.as_primitive::<Int64Type>();
            let result: arrow::array::Int64Array =
                try_unary(integers, |value| value.checked_abs().ok_or_else(overflow))?;
            Arc::new(result)
        }
        DataType::Decimal128(precision, scale) => {
            let decimals = numbers.as_primitive::<Decimal128Type>();
            let result = unary::<_, _, Decimal128Type>(decimals, i128::wrapping_abs);
            Arc::new(result.with_precision_and_scale(*precision, *scale)?)
        }
        _ => floats(numbers, f64::abs),
    })
}

/// Half away from zero at so many digits after the point, or before it where negative.
fn round(numbers: &ArrayRef, digits: &ArrayRef) -> ArrayRef {
    let digits = digits.as_primitive::<Int64Type>();
    let numbers = numbers.as_primitive::<Float64Type>();
    let rounded = numbers.iter().zip(digits.iter()).map(|(number, digits)| {
        let (number, digits) = (number?, digits?);
        // A double has no more than 308 digits before the point, nor 340 after it.
        let scale = 10_f64.powi(digits.clamp(-340, 340) as i32);
        let result = (number * scale).round() / scale;
        Some(if result.is_finite() { result } else { number })
    });
    Arc::new(rounded.collect::<Float64Array>())
}
