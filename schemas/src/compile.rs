//! A schema compiled by the `jsonschema` crate, the one judge of every row.

use jsonschema::json::Json;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::error::SchemaError;
use crate::violation::shortened;

/// Bytes of one compiled pattern, and of its automaton's cache: ample for the patterns of codes
/// and names, and a thousand columns still fit in memory.
const PATTERN_BYTES: usize = 1 << 20;

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
        .map_err(|error| SchemaError::Invalid {
            place: match error.instance_path().as_str() {
                "" => "/".to_owned(),
                path => shortened(path),
            },
            problem: error.to_string().chars().take(300).collect(),
        })
}
