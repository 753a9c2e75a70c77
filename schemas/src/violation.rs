//! What is wrong with a row, in words for the person who must put it right.

use std::io::{self, Write};

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde::Serialize;
use serde_json::Value;

use crate::calendar;
use crate::nearest::suggestion;

/// Characters of a value that a report repeats.
const VALUE_CHARS: usize = 80;

/// Characters of a message; longer ones quote a schema, which the reader has.
const MESSAGE_CHARS: usize = 300;

/// Unknown members that one row's report names; a stranger may have sent a million.
const UNKNOWN_COLUMNS: usize = 20;

/// One rule that one row breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The column, `None` where the rule is about the row as a whole.
    pub column: Option<String>,
    /// The value found, at most 80 characters; empty where there is none.
    pub value: String,
    /// The keyword of the schema and its value, such as `minimum 0`.
    pub rule: String,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.column {
            Some(column) => write!(f, "column ‘{column}’: {} ({})", self.message, self.rule),
            None => write!(f, "{} ({})", self.message, self.rule),
        }
    }
}

/// The start of `text`, at most 80 characters, with `…` where it was cut.
pub(crate) fn shortened(text: &str) -> String {
    cut(text, VALUE_CHARS)
}

fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => {
            let kept = text.char_indices().nth(limit - 1).map_or(0, |(at, _)| at);
            format!("{}…", &text[..kept])
        }
    }
}

/// Turns one error of the `jsonschema` crate into as many violations as it names columns.
pub(crate) fn explain<'a>(
    error: &ValidationError<'_>,
    schema: &Value,
    columns: impl Iterator<Item = &'a str> + Clone,
) -> Vec<Violation> {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .take(UNKNOWN_COLUMNS)
            .map(|name| unknown_column(name, error.instance(), columns.clone()))
            .collect(),
        ValidationErrorKind::Required { property } => vec![missing(property)],
        _ => vec![broken(error, schema)],
    }
}

fn unknown_column<'a>(
    name: &str,
    row: &Value,
    columns: impl Iterator<Item = &'a str>,
) -> Violation {
    let hint = suggestion(name, columns);
    let value = row.get(name).map(brief).unwrap_or_default();
    let name = shortened(name);
    Violation {
        message: format!("the schema has no column ‘{name}’{hint}"),
        value,
        column: Some(name),
        rule: "additionalProperties false".to_owned(),
    }
}

fn missing(property: &Value) -> Violation {
    let name = property.as_str().unwrap_or_default().to_owned();
    Violation {
        message: "a value is required".to_owned(),
        column: Some(name),
        value: String::new(),
        rule: "required".to_owned(),
    }
}

fn broken(error: &ValidationError<'_>, schema: &Value) -> Violation {
    let value = brief(error.instance());
    let keyword = error.kind().keyword();
    let operand = schema
        .pointer(error.schema_path().as_str())
        .map(brief)
        .unwrap_or_default();
    let column = column_of(error);
    let shown = match (&column, error.instance().as_ref()) {
        (None, _) => "the row".to_owned(),
        (Some(_), Value::String(_)) => format!("‘{value}’"),
        (Some(_), _) => value.clone(),
    };
    let message = format!(
        "{}{}",
        error.masked_with(shown),
        form(keyword, &operand, &value)
    );
    Violation {
        message: cut(&message, MESSAGE_CHARS),
        column,
        value,
        rule: format!("{keyword} {operand}").trim_end().to_owned(),
    }
}

/// What is wrong with the day, where that is it, and how a value of a format is written.
fn form(keyword: &str, operand: &str, value: &str) -> String {
    let written = match (keyword, operand) {
        ("format", "date") => "a date is written YYYY-MM-DD, like 2025-10-01",
        ("format", "date-time") => {
            "a date with its time is written YYYY-MM-DDThh:mm:ss and Z or an offset, like 2025-10-01T08:30:00Z"
        }
        _ => return String::new(),
    };
    let day = value.get(..10).unwrap_or(value);
    match calendar::no_such_day(day) {
        Some(why) => format!("; {why}; {written}"),
        None => format!("; {written}"),
    }
}

/// The first segment of the instance's JSON Pointer, unescaped (RFC 6901 §4).
fn column_of(error: &ValidationError<'_>) -> Option<String> {
    let path = error.instance_path().as_str().strip_prefix('/')?;
    let segment = path.split('/').next().unwrap_or(path);
    Some(segment.replace("~1", "/").replace("~0", "~"))
}

/// A value as short text: a string bare, anything else as JSON, without ever writing the whole
/// of a large one.
fn brief(value: &Value) -> String {
    if let Value::String(text) = value {
        return shortened(text);
    }
    let mut start = Start(Vec::new());
    // An error only says that the limit was reached: what is in the buffer is the answer.
    let _ = serde_json::to_writer(&mut start, value);
    shortened(&String::from_utf8_lossy(&start.0))
}

/// Keeps the first bytes written and then refuses more.
struct Start(Vec<u8>);

impl Write for Start {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() > 8 * VALUE_CHARS {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0
            .extend_from_slice(&bytes[..bytes.len().min(8 * VALUE_CHARS)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_shortened() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(80)), "é".repeat(80));
        let long = shortened(&"é".repeat(81));
        assert_eq!(long.chars().count(), 80);
        assert!(long.ends_with('…'));
        let row = Value::Array(vec![Value::String("x".repeat(1_000_000)); 3]);
        assert_eq!(brief(&row).chars().count(), 80);
    }
}
