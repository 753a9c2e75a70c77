//! The schema of a flat table: read once, then asked about every row.

use std::collections::HashMap;
use std::sync::Arc;

use jingwei_proto::digest::Digest;
use jingwei_proto::json;
use jsonschema::Validator;
use serde_json::Value;

use crate::annotation;
use crate::calendar;
use crate::cell::{self, Cell};
use crate::column::{Column, ColumnKind};
use crate::compile;
use crate::error::SchemaError;
use crate::keyword;
use crate::row::{Row, RowNode, Rows};
use crate::shape;
use crate::violation::{self, Violation, shortened};

/// The largest schema, in bytes: it travels in a signed statement beside other things.
pub const MAX_BYTES: usize = 64 * 1024;

/// Reasons given for one row; whoever puts them right will look again.
const REASONS: usize = 100;

/// A JSON Schema 2020-12 for the rows of one flat table. Cheap to clone.
#[derive(Clone)]
pub struct TableSchema(Arc<Inner>);

struct Inner {
    json: Value,
    digest: Digest,
    columns: Vec<Column>,
    names: Vec<String>,
    places: HashMap<String, usize>,
    missing: Vec<String>,
    /// Columns of kind date-time, whose format allows a little more than a table can store.
    times: Vec<usize>,
    /// The schema that the two validators were compiled from.
    closed: Value,
    documents: Validator,
    rows: Validator<Rows>,
}

impl TableSchema {
    /// Reads and compiles a schema: at most 64 KiB of JSON without a member that stands twice,
    /// of type object, with each column in `properties` and of one scalar type.
    ///
    /// Columns stand in the order of `x-order`, else in that of the text.
    ///
    /// # Errors
    /// What keeps the bytes from being such a schema, and where; also a word in it that is no
    /// keyword, or an axis that there is not.
    pub fn parse(bytes: &[u8]) -> Result<TableSchema, SchemaError> {
        let schema = TableSchema::parse_entered(bytes)?;
        keyword::check(schema.json())?;
        annotation::check_axes(schema.columns())?;
        Ok(schema)
    }

    /// As [`TableSchema::parse`], for a schema that stands in the log: words that are no keywords,
    /// and unknown axes, are passed over, as they were when its rows were checked.
    ///
    /// # Errors
    /// What keeps the bytes from being such a schema, and where.
    pub fn parse_entered(bytes: &[u8]) -> Result<TableSchema, SchemaError> {
        if bytes.len() > MAX_BYTES {
            return Err(SchemaError::TooLarge {
                size: bytes.len(),
                limit: MAX_BYTES,
            });
        }
        TableSchema::from_json(json::parse_with_floats(bytes)?)
    }

    fn from_json(json: Value) -> Result<TableSchema, SchemaError> {
        let shape = shape::read(&json)?;
        let closed = compile::closed(&json);
        let names: Vec<String> = shape
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect();
        let is_time = |column: &Column| column.kind == ColumnKind::DateTime;
        Ok(TableSchema(Arc::new(Inner {
            digest: Digest::of(&json::canonical(&json)),
            times: (0..names.len())
                .filter(|place| is_time(&shape.columns[*place]))
                .collect(),
            places: names.iter().cloned().zip(0..).collect(),
            documents: compile::compile(&closed)?,
            rows: compile::compile(&closed)?,
            columns: shape.columns,
            missing: shape.missing,
            names,
            closed,
            json,
        })))
    }

    /// The same schema with the order of its columns written down in `x-order`.
    ///
    /// The canonical form of JSON sorts members, so that without it a reader of the canonical
    /// form sees the columns in the order of the alphabet. Changes the digest, where it is absent.
    ///
    /// # Errors
    /// Never for a schema that was parsed; the signature follows the parser's.
    pub fn with_order(&self) -> Result<TableSchema, SchemaError> {
        if self.0.json.get("x-order").is_some() {
            return Ok(self.clone());
        }
        let mut json = self.0.json.clone();
        json["x-order"] = self.names().collect();
        TableSchema::from_json(json)
    }

    /// The columns, in the table's order.
    pub fn columns(&self) -> &[Column] {
        &self.0.columns
    }

    /// The columns' names, in the table's order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.names.iter().map(String::as_str)
    }

    /// Where in [`TableSchema::columns`] the column of exactly this name stands.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.0.places.get(name).copied()
    }

    /// The column of this name, exactly, else without regard to case.
    pub fn column(&self, name: &str) -> Option<&Column> {
        let folded = || {
            let name = name.to_lowercase();
            self.0
                .names
                .iter()
                .position(|other| other.to_lowercase() == name)
        };
        self.0.columns.get(self.place(name).or_else(folded)?)
    }

    /// The schema's title, for people.
    pub fn title(&self) -> Option<&str> {
        self.0.json.get("title")?.as_str()
    }

    /// What the table holds, for people.
    pub fn description(&self) -> Option<&str> {
        self.0.json.get("description")?.as_str()
    }

    /// The schema as it was given.
    pub fn json(&self) -> &Value {
        &self.0.json
    }

    /// The SHA-256 of the schema's RFC 8785 form.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Reads one CSV cell of the column at `place` by its kind: an empty text, and one that
    /// `x-missing` lists, is an absent member. Rules other than the type are judged with the row.
    ///
    /// # Errors
    /// The text is not of the column's kind.
    ///
    /// # Panics
    /// If there is no column at `place`.
    pub fn read<'a>(&self, place: usize, text: &'a str) -> Result<Cell<'a>, Violation> {
        let column = &self.0.columns[place];
        cell::read(
            column,
            column.missing.as_ref().unwrap_or(&self.0.missing),
            text,
        )
    }

    /// As [`TableSchema::read`], but gives the JSON value, `None` for an absent member.
    ///
    /// # Errors
    /// The text is not of the column's kind.
    ///
    /// # Panics
    /// If there is no column at `place`.
    pub fn cell(&self, place: usize, text: &str) -> Result<Option<Value>, Violation> {
        self.read(place, text).map(Cell::to_json)
    }

    /// Judges a row of cells that stand in the columns' order; cells left off at the end are
    /// absent. Empty if all is well, and then nothing was allocated.
    pub fn validate_cells(&self, cells: &[Cell<'_>]) -> Vec<Violation> {
        let row = Row {
            names: &self.0.names,
            cells,
        };
        let unstorable = self.0.times.iter().any(|place| match cells.get(*place) {
            Some(Cell::Text(text)) => calendar::micros(text).is_none(),
            _ => false,
        });
        let infinite = self.infinite(cells);
        let valid = || !unstorable && self.0.rows.is_valid(RowNode::Row(row));
        if !infinite.is_empty() || valid() {
            return infinite;
        }
        self.explain(&row.to_json())
    }

    /// Judges a row that came as JSON. Empty if all is well: it satisfies the schema, has no
    /// member but the columns, and each value can be stored as the column's kind.
    pub fn validate_row(&self, row: &Value) -> Vec<Violation> {
        if self.0.documents.is_valid(row) {
            return self.unstorable(row);
        }
        self.explain(row)
    }

    /// The cells of a row that came as JSON, in the columns' order, if it is valid.
    ///
    /// # Errors
    /// What [`TableSchema::validate_row`] finds.
    pub fn cells<'a>(&self, row: &'a Value) -> Result<Vec<Cell<'a>>, Vec<Violation>> {
        let violations = self.validate_row(row);
        if !violations.is_empty() {
            return Err(violations);
        }
        let cell = |column: &Column| match row.get(&column.name) {
            None | Some(Value::Array(_) | Value::Object(_)) => Cell::Absent,
            Some(Value::Null) => Cell::Null,
            Some(Value::Bool(boolean)) => Cell::Boolean(*boolean),
            Some(Value::String(text)) => Cell::Text(text),
            Some(value) if column.kind == ColumnKind::Integer => {
                whole(value).map_or(Cell::Absent, Cell::Integer)
            }
            Some(value) => value.as_f64().map_or(Cell::Absent, Cell::Number),
        };
        Ok(self.0.columns.iter().map(cell).collect())
    }

    /// A row of cells as JSON.
    pub fn row(&self, cells: &[Cell<'_>]) -> Value {
        Row {
            names: &self.0.names,
            cells,
        }
        .to_json()
    }

    /// Numbers that JSON cannot write; only a binary file can bring them.
    fn infinite(&self, cells: &[Cell<'_>]) -> Vec<Violation> {
        let check = |(column, cell): (&Column, &Cell<'_>)| match cell {
            Cell::Number(number) if !number.is_finite() => Some(Violation {
                column: Some(column.name.clone()),
                message: format!("‘{number}’ is not a finite number; leave the cell empty instead"),
                value: number.to_string(),
                rule: "type number".to_owned(),
            }),
            _ => None,
        };
        self.0.columns.iter().zip(cells).filter_map(check).collect()
    }

    fn explain(&self, row: &Value) -> Vec<Violation> {
        let explain = |error| violation::explain(&error, &self.0.closed, self.names());
        let mut found: Vec<Violation> = self
            .0
            .documents
            .iter_errors(row)
            .flat_map(explain)
            .take(REASONS)
            .collect();
        if found.is_empty() {
            found = self.unstorable(row);
        }
        if found.is_empty() {
            // A verdict is never dropped because its reason could not be put into words.
            found.push(Violation {
                column: None,
                value: String::new(),
                rule: "schema".to_owned(),
                message: "the row does not satisfy the schema".to_owned(),
            });
        }
        // In the table's order, whatever that of the row; strangers last.
        found.sort_by_key(|violation| match &violation.column {
            None => 0,
            Some(name) => self.place(name).map_or(usize::MAX, |place| place + 1),
        });
        found
    }

    /// Values that JSON Schema allows and the table cannot hold unchanged.
    fn unstorable(&self, row: &Value) -> Vec<Violation> {
        let check = |column: &Column| {
            let value = row.get(&column.name)?;
            let message = match column.kind {
                ColumnKind::Integer if value.is_number() && whole(value).is_none() => {
                    "beyond the 64 bits that an integer column stores"
                }
                ColumnKind::DateTime
                    if value
                        .as_str()
                        .is_some_and(|text| calendar::micros(text).is_none()) =>
                {
                    "a leap second or a fraction finer than a microsecond, which a table cannot store"
                }
                _ => return None,
            };
            let value = value.as_str().map_or_else(|| value.to_string(), shortened);
            Some(Violation {
                column: Some(column.name.clone()),
                message: format!("‘{value}’ is {message}"),
                value,
                rule: format!("stored as {}", column.kind),
            })
        };
        self.0.columns.iter().filter_map(check).collect()
    }
}

impl std::fmt::Debug for TableSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableSchema")
            .field("digest", &self.0.digest)
            .field("columns", &self.0.names)
            .finish()
    }
}

/// The 64-bit integer that a JSON number is, also when it is written `2.0` (JSON Schema counts
/// that as an integer).
fn whole(value: &Value) -> Option<i64> {
    // The first float beyond i64; -2^63 itself is one.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|_| !value.is_u64())?;
        let fits = number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number);
        fits.then_some(number as i64)
    })
}
