//! Whether a JSON Schema describes a flat table, and the columns it describes.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::annotation;
use crate::column::{Column, ColumnKind};
use crate::error::SchemaError;

/// The one dialect; a schema of another would be judged by rules its author did not mean.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A table is read by people and planned by an engine: neither copes with more.
const MAX_COLUMNS: usize = 1_000;

/// Bytes of a column's name.
const MAX_NAME: usize = 128;

/// Keywords that lead to other schemas. Without them nothing is ever fetched, a rule stands where
/// it is applied, and checking a row cannot take longer than the schema is long.
const REFERENCES: [&str; 4] = ["$ref", "$dynamicRef", "$recursiveRef", "$dynamicAnchor"];

/// What a schema says about a flat table.
pub(crate) struct Shape {
    pub columns: Vec<Column>,
    pub missing: Vec<String>,
}

/// Reads the columns out of `schema`, or says what keeps it from describing a flat table.
pub(crate) fn read(schema: &Value) -> Result<Shape, SchemaError> {
    let root = schema
        .as_object()
        .ok_or_else(|| shape("a schema is a JSON object"))?;
    check_root(root)?;
    check_self_contained(schema, true)?;
    let properties = match root.get("properties") {
        Some(Value::Object(properties)) if !properties.is_empty() => properties,
        _ => {
            return Err(shape(
                "it needs ‘properties’, an object with one member for each column",
            ));
        }
    };
    check_names(properties)?;
    let names = order(root, properties)?;
    let required = required(root, properties)?;
    let columns = names
        .iter()
        .map(|name| {
            column(
                name,
                &properties[name],
                required.contains(name.as_str()),
                &names,
            )
        })
        .collect::<Result<_, _>>()?;
    let missing = annotation::missing(root)
        .map_err(shape)?
        .unwrap_or_default();
    Ok(Shape { columns, missing })
}

fn shape(problem: impl Into<String>) -> SchemaError {
    SchemaError::Shape(problem.into())
}

fn check_root(root: &Map<String, Value>) -> Result<(), SchemaError> {
    annotation::check_schema(root)?;
    if let Some(dialect) = root.get("$schema") {
        let given = dialect.as_str().map(|uri| uri.trim_end_matches('#'));
        if given != Some(DIALECT) {
            return Err(shape(format!("‘$schema’ must be {DIALECT}")));
        }
    }
    if root.get("type").is_none_or(|kind| kind != "object") {
        return Err(shape("‘type’ must be \"object\": one row is one object"));
    }
    // The columns of a table are known before its rows.
    if root.contains_key("patternProperties") {
        return Err(shape(
            "‘patternProperties’ cannot be used: name each column in ‘properties’",
        ));
    }
    for keyword in ["additionalProperties", "unevaluatedProperties"] {
        if root
            .get(keyword)
            .is_some_and(|value| value != &Value::Bool(false))
        {
            return Err(shape(format!(
                "‘{keyword}’ can only be false: a table has the columns it names"
            )));
        }
    }
    Ok(())
}

/// Refuses references and embedded dialects at any depth.
fn check_self_contained(value: &Value, at_root: bool) -> Result<(), SchemaError> {
    match value {
        Value::Object(members) => {
            if let Some(keyword) = REFERENCES
                .iter()
                .find(|keyword| members.contains_key(**keyword))
            {
                return Err(shape(format!(
                    "‘{keyword}’ cannot be used: write the rule where it applies"
                )));
            }
            if !at_root && (members.contains_key("$id") || members.contains_key("$schema")) {
                return Err(shape(
                    "‘$id’ and ‘$schema’ belong at the top of the schema only",
                ));
            }
            members
                .values()
                .try_for_each(|member| check_self_contained(member, false))
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_self_contained(item, false)),
        _ => Ok(()),
    }
}

fn check_names(properties: &Map<String, Value>) -> Result<(), SchemaError> {
    if properties.len() > MAX_COLUMNS {
        return Err(shape(format!(
            "it has {} columns, more than {MAX_COLUMNS}",
            properties.len()
        )));
    }
    let mut folded: HashMap<String, &str> = HashMap::new();
    for name in properties.keys() {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(SchemaError::column(
                name,
                format!("a name has 1 to {MAX_NAME} bytes"),
            ));
        }
        if name.starts_with('$') || name.chars().any(char::is_control) {
            return Err(SchemaError::column(
                name,
                "a name has no control characters and no leading $",
            ));
        }
        if let Some(other) = folded.insert(name.to_lowercase(), name) {
            return Err(SchemaError::column(
                name,
                format!(
                    "differs from column ‘{other}’ only in case, and SQL could not tell them apart"
                ),
            ));
        }
    }
    Ok(())
}

/// The order of the columns: that of `x-order`, else that of the text.
fn order(
    root: &Map<String, Value>,
    properties: &Map<String, Value>,
) -> Result<Vec<String>, SchemaError> {
    let Some(order) = root.get("x-order") else {
        return Ok(properties.keys().cloned().collect());
    };
    let names = annotation::texts(order).unwrap_or_default();
    let distinct: HashSet<&str> = names.iter().map(String::as_str).collect();
    let complete = names.len() == properties.len()
        && distinct.len() == names.len()
        && names.iter().all(|name| properties.contains_key(name));
    if !complete {
        return Err(shape(
            "‘x-order’ must be a list that names each column once",
        ));
    }
    Ok(names)
}

fn required<'a>(
    root: &'a Map<String, Value>,
    properties: &Map<String, Value>,
) -> Result<HashSet<&'a str>, SchemaError> {
    let names: HashSet<&str> = root
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    match names.iter().find(|name| !properties.contains_key(**name)) {
        None => Ok(names),
        Some(name) => Err(shape(format!(
            "‘required’ names ‘{name}’, which is no column in ‘properties’"
        ))),
    }
}

fn column(
    name: &str,
    value: &Value,
    required: bool,
    names: &[String],
) -> Result<Column, SchemaError> {
    let members = value
        .as_object()
        .ok_or_else(|| SchemaError::column(name, "must be an object with a ‘type’"))?;
    let (kind, nullable) = kind(name, members)?;
    let text = |keyword: &str| {
        members
            .get(keyword)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let mut column = Column {
        required,
        nullable,
        title: text("title"),
        description: text("description"),
        ..Column::new(name, kind)
    };
    annotation::read_into(&mut column, members, names)?;
    Ok(column)
}

/// The kind by the schema's type and format, and whether `null` is allowed.
fn kind(name: &str, members: &Map<String, Value>) -> Result<(ColumnKind, bool), SchemaError> {
    const WANTED: &str =
        "integer, number, string or boolean, or a list of one of them and \"null\"";
    let wrong = |found: &Value| {
        let message = format!("cannot have the type {found}; a ‘type’ is {WANTED}");
        SchemaError::column(name, message)
    };
    let declared = members
        .get("type")
        .ok_or_else(|| SchemaError::column(name, format!("needs a ‘type’: {WANTED}")))?;
    let types: Vec<&str> = match declared {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        other => return Err(wrong(other)),
    };
    let nullable = types.contains(&"null");
    let mut others = types.iter().filter(|kind| **kind != "null");
    let (Some(kind), None) = (others.next(), others.next()) else {
        return Err(wrong(declared));
    };
    let format = members.get("format").and_then(Value::as_str);
    let kind = match (*kind, format) {
        ("integer", _) => ColumnKind::Integer,
        ("number", _) => ColumnKind::Number,
        ("boolean", _) => ColumnKind::Boolean,
        ("string", Some("date")) => ColumnKind::Date,
        ("string", Some("date-time")) => ColumnKind::DateTime,
        ("string", _) => ColumnKind::Text,
        ("object" | "array", _) => {
            return Err(SchemaError::column(
                name,
                "a flat table has no objects and arrays in its cells: make it several columns, or a table of its own",
            ));
        }
        _ => return Err(wrong(declared)),
    };
    Ok((kind, nullable))
}
