//! One cell of a row, and how a CSV text becomes one.

use std::borrow::Cow;

use serde_json::{Number, Value};

use crate::column::{Column, ColumnKind};
use crate::violation::{Violation, shortened};

/// One cell, borrowed from the text or the JSON that it was read from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// The member is not there: an empty CSV cell, or a text that the schema lists as missing.
    Absent,
    /// JSON's `null`; stored like [`Cell::Absent`].
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// A text, and a date or a time as it was written.
    Text(&'a str),
}

impl Cell<'_> {
    /// The JSON value, `None` for an absent member.
    pub fn to_json(self) -> Option<Value> {
        Some(match self {
            Cell::Absent => return None,
            Cell::Null => Value::Null,
            Cell::Boolean(boolean) => Value::Bool(boolean),
            Cell::Integer(integer) => Value::Number(integer.into()),
            Cell::Number(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
            Cell::Text(text) => Value::String(text.to_owned()),
        })
    }
}

/// Reads one CSV cell by the column's kind; `missing` are the schema's texts for "no value".
pub(crate) fn read<'a>(
    column: &Column,
    missing: &[String],
    text: &'a str,
) -> Result<Cell<'a>, Violation> {
    if text.is_empty() || missing.iter().any(|word| word == text) {
        return Ok(Cell::Absent);
    }
    let cell = match column.kind {
        ColumnKind::Text | ColumnKind::Date | ColumnKind::DateTime => Some(Cell::Text(text)),
        ColumnKind::Integer => integer(text).map(Cell::Integer),
        ColumnKind::Number => number(text).map(Cell::Number),
        ColumnKind::Boolean => boolean(text).map(Cell::Boolean),
    };
    cell.ok_or_else(|| unreadable(column, text))
}

/// `-?(0|[1-9][0-9]*)`: a leading zero mostly means a code that was typed as a number, and
/// reading it as one would lose the zero.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Decimal digits with an optional fraction and exponent; not `inf`, not `NaN`.
fn number(text: &str) -> Option<f64> {
    let decimal = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    if !decimal || text.starts_with('+') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "1" => Some(true),
        "false" | "False" | "FALSE" | "0" => Some(false),
        _ => None,
    }
}

fn unreadable(column: &Column, text: &str) -> Violation {
    let (rule, wanted) = match column.kind {
        ColumnKind::Integer => (
            "type integer",
            "a whole number of at most 64 bits, like -12 or 480178",
        ),
        ColumnKind::Number => ("type number", "a finite number, like 12.8 or 1e-3"),
        ColumnKind::Boolean => ("type boolean", "true, false, 1 or 0"),
        ColumnKind::Text | ColumnKind::Date | ColumnKind::DateTime => ("type string", "a text"),
    };
    let value = shortened(text);
    Violation {
        column: Some(column.name.clone()),
        message: format!("‘{value}’ is not {wanted}{}", advice(column, text)),
        value,
        rule: rule.to_owned(),
    }
}

/// What to do about the two commonest mistakes.
fn advice(column: &Column, text: &str) -> Cow<'static, str> {
    const WORDS: [&str; 9] = ["NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "-", "."];
    if WORDS.contains(&text) {
        return Cow::Owned(format!(
            "; if ‘{text}’ means no value, list it in the schema's x-missing"
        ));
    }
    let code = column.kind == ColumnKind::Integer
        && text.starts_with('0')
        && integer(text.trim_start_matches('0')).is_some();
    if code {
        return Cow::Borrowed("; a leading zero is kept only by a column of type string");
    }
    Cow::Borrowed("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnKind) -> Column {
        Column::new("c", kind)
    }

    fn read_as(kind: ColumnKind, text: &str) -> Option<Cell<'_>> {
        read(&column(kind), &["NA".to_owned()], text).ok()
    }

    #[test]
    fn integers_are_strictly_decimal() {
        let read = |text| read_as(ColumnKind::Integer, text);
        assert_eq!(read("0"), Some(Cell::Integer(0)));
        assert_eq!(read("-12"), Some(Cell::Integer(-12)));
        assert_eq!(read("9223372036854775807"), Some(Cell::Integer(i64::MAX)));
        for bad in [
            "9223372036854775808",
            "01",
            "+1",
            "1.0",
            "1e3",
            " 1",
            "-",
            "--1",
            "１",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_finite() {
        let read = |text| read_as(ColumnKind::Number, text);
        assert_eq!(
            read("10.357019999999999"),
            Some(Cell::Number(10.357019999999999))
        );
        assert_eq!(read("-1e-3"), Some(Cell::Number(-0.001)));
        for bad in ["1e400", "inf", "NaN", "1,5", "1.5.0", "0x10", "+1", "e"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn absence_is_empty_or_declared() {
        for kind in [ColumnKind::Text, ColumnKind::Number] {
            assert_eq!(read_as(kind, ""), Some(Cell::Absent));
            assert_eq!(read_as(kind, "NA"), Some(Cell::Absent));
        }
        let undeclared = read(&column(ColumnKind::Number), &[], "NA").unwrap_err();
        assert!(
            undeclared.message.contains("x-missing"),
            "{}",
            undeclared.message
        );
        let code = read(&column(ColumnKind::Integer), &[], "01001").unwrap_err();
        assert!(code.message.contains("leading zero"), "{}", code.message);
    }

    #[test]
    fn booleans() {
        assert_eq!(
            read_as(ColumnKind::Boolean, "TRUE"),
            Some(Cell::Boolean(true))
        );
        assert_eq!(
            read_as(ColumnKind::Boolean, "0"),
            Some(Cell::Boolean(false))
        );
        assert_eq!(read_as(ColumnKind::Boolean, "yes"), None);
    }
}
