//! A schema compiled by the `jsonschema` crate, the one judge of every row.

use jsonschema::json::Json;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::error::SchemaError;
use crate::nearest::nearest;
use crate::violation::shortened;

/// Bytes of one compiled pattern, and of its automaton's cache: ample for the patterns of codes
/// and names, and a thousand columns still fit in memory.
const PATTERN_BYTES: usize = 1 << 20;

/// The formats of JSON Schema 2020-12 by which rows are judged: all but the two for names and
/// addresses that are not ASCII.
pub(crate) const FORMATS: [&str; 17] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

/// The schema whose rows have no member but the columns: what is not stored must not be accepted.
pub(crate) fn closed(schema: &Value) -> Value {
    let mut closed = schema.clone();
    if let Some(members) = closed.as_object_mut() {
        members.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    closed
}

/// Compiles `schema` for rows of the representation `F`: Draft 2020-12, formats asserted, unknown
/// formats refused, patterns in linear time, nothing fetched from anywhere.
pub(crate) fn compile<F: Json>(schema: &Value) -> Result<Validator<F>, SchemaError> {
    jsonschema::options_for::<F>()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(
            PatternOptions::regex()
                .size_limit(PATTERN_BYTES)
                .dfa_size_limit(PATTERN_BYTES),
        )
        .build(schema)
        .map_err(|error| refused(&error, schema))
}

/// Why a schema is not compiled. The crate has no kind of its own for an unknown format: it is
/// what stands in the schema where the error points to.
fn refused(error: &ValidationError<'_>, schema: &Value) -> SchemaError {
    let place = error.schema_path().as_str();
    let named = schema
        .pointer(place)
        .filter(|_| place.ends_with("/format"))
        .and_then(Value::as_str);
    if let Some(name) = named.filter(|name| !FORMATS.contains(name)) {
        return SchemaError::UnknownFormat {
            place: shortened(place),
            name: shortened(name),
            near: nearest(name, FORMATS),
        };
    }
    SchemaError::Invalid {
        place: match error.instance_path().as_str() {
            "" => "/".to_owned(),
            path => shortened(path),
        },
        problem: error.to_string().chars().take(300).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_that_is_offered_is_one() {
        for format in FORMATS {
            let schema = json!({"type": "string", "format": format});
            let compiled: Result<Validator, SchemaError> = compile(&schema);
            assert!(compiled.is_ok(), "{format}");
        }
    }
}
