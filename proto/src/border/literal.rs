//! Constants: their one spelling, and the ranges in which every engine agrees on them.

use std::fmt::{self, Display, Formatter, Write};

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};

use super::ast::{Decimal, Literal};

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("NULL"),
            Literal::Boolean(true) => f.write_str("TRUE"),
            Literal::Boolean(false) => f.write_str("FALSE"),
            Literal::Integer(value) => write!(f, "{value}"),
            // Rust's debug form is the shortest that reads back to the same bits, and always
            // has a point or an exponent, which sets it apart from an integer.
            Literal::Double(value) => write!(f, "{value:?}"),
            Literal::Decimal(value) => {
                write!(f, "DECIMAL({}, {}) '{value}'", value.precision, value.scale)
            }
            Literal::Text(text) => write_quoted(f, '\'', text),
            Literal::Date(date) => write!(f, "DATE '{date}'"),
            Literal::Timestamp(time) => {
                write!(f, "TIMESTAMP '{}'", time.format(timestamp_form(time)))
            }
        }
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let digits = format!(
            "{:0width$}",
            self.unscaled.unsigned_abs(),
            width = scale + 1
        );
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if scale == 0 { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

/// Writes `text` between two `quote`s, doubling those inside.
pub(super) fn write_quoted(f: &mut impl Write, quote: char, text: &str) -> fmt::Result {
    f.write_char(quote)?;
    for (i, part) in text.split(quote).enumerate() {
        if i > 0 {
            f.write_char(quote)?;
            f.write_char(quote)?;
        }
        f.write_str(part)?;
    }
    f.write_char(quote)
}

fn timestamp_form(time: &DateTime<Utc>) -> &'static str {
    match time.nanosecond() {
        0 => "%Y-%m-%dT%H:%M:%SZ",
        _ => "%Y-%m-%dT%H:%M:%S%.6fZ",
    }
}

/// Reads what stands in the quotes of a `DATE`; `None` if it is not spelled as it prints.
pub(super) fn date(text: &str) -> Option<NaiveDate> {
    let date: NaiveDate = text.parse().ok()?;
    (date.to_string() == text).then_some(date)
}

/// Reads what stands in the quotes of a `TIMESTAMP`; `None` if not spelled as it prints.
pub(super) fn timestamp(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let printed = time.format(timestamp_form(&time)).to_string();
    (printed == text).then_some(time)
}

/// Reads what stands in the quotes of a `DECIMAL(precision, scale)`; `None` if it is not
/// spelled as it prints.
pub(super) fn decimal(text: &str, precision: u8, scale: u8) -> Option<Decimal> {
    let unscaled = text.replacen('.', "", 1).parse().ok()?;
    let value = Decimal {
        unscaled,
        precision,
        scale,
    };
    (value.to_string() == text).then_some(value)
}

/// Reads a number with a sign at most, as an integer unless it has a point or an exponent;
/// `None` if it is not spelled as it prints.
pub(super) fn number(text: &str) -> Option<Literal> {
    let literal = if text.contains(['.', 'e']) {
        Literal::Double(text.parse().ok()?)
    } else {
        Literal::Integer(text.parse().ok()?)
    };
    (literal.to_string() == text).then_some(literal)
}

/// The rule that `literal` breaks, if any.
pub(super) fn check(literal: &Literal) -> Result<(), &'static str> {
    let (ok, rule) = match literal {
        Literal::Null | Literal::Boolean(_) | Literal::Integer(_) => (true, ""),
        Literal::Double(value) => (value.is_finite(), "a double is a finite number"),
        Literal::Decimal(value) => return check_decimal(*value),
        Literal::Text(text) => (!text.contains('\0'), NO_NUL),
        Literal::Date(date) => (
            (1..=9999).contains(&date.year()),
            "a date's year is 1 to 9999",
        ),
        Literal::Timestamp(time) => (
            (1678..=2261).contains(&time.year())
                && time.nanosecond() < 1_000_000_000
                && time.nanosecond() % 1_000 == 0,
            "a timestamp has whole microseconds, no leap second, and a year from 1678 to 2261",
        ),
    };
    if ok { Ok(()) } else { Err(rule) }
}

/// No engine of the PostgreSQL family stores it, and others stop reading there.
pub(super) const NO_NUL: &str = "a text holds no NUL character";

/// The rule that a decimal type breaks, if any.
pub(super) fn check_digits(precision: u8, scale: u8) -> Result<(), &'static str> {
    if (1..=38).contains(&precision) && scale <= precision {
        Ok(())
    } else {
        Err("a decimal has 1 to 38 digits in all, and after the point no more than in all")
    }
}

fn check_decimal(value: Decimal) -> Result<(), &'static str> {
    check_digits(value.precision, value.scale)?;
    if value.unscaled.unsigned_abs() < 10_u128.pow(value.precision.into()) {
        Ok(())
    } else {
        Err("a decimal has no more digits than its type says")
    }
}
