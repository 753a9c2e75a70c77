//! JSON rows: one flat object each, from a line of NDJSON or an element of an array.

use std::borrow::Cow;
use std::fmt;

use jingwei_schemas::{Cell, TableSchema, Violation, nearest};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::{Place, SourceFault};
use super::frame::Block;
use super::rows::RowChecker;

/// Reads the lines of a block into `rows`; blank ones are skipped.
pub(super) fn read_lines(block: &Block, rows: &mut RowChecker<'_>) -> Result<(), SourceFault> {
    for (line, bytes) in (block.line..).zip(block.bytes.split(|byte| *byte == b'\n')) {
        if !bytes.iter().all(u8::is_ascii_whitespace) {
            read(bytes, Place::Line(line), rows)?;
        }
    }
    Ok(())
}

/// Reads the elements of a block into `rows`.
pub(super) fn read_elements(block: &Block, rows: &mut RowChecker<'_>) -> Result<(), SourceFault> {
    let mut lines = block.lines();
    for (number, range) in (block.first_element..).zip(&block.elements) {
        let line = lines.at(range.start);
        read(
            &block.bytes[range.clone()],
            Place::Element { number, line },
            rows,
        )?;
    }
    Ok(())
}

fn read(bytes: &[u8], place: Place, rows: &mut RowChecker<'_>) -> Result<(), SourceFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| SourceFault::NotUtf8 {
        place,
        column: None,
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let row = json
        .deserialize_any(RowVisitor(rows.schema()))
        .and_then(|row| json.end().map(|()| row));
    let row = row.map_err(|error| SourceFault::Json {
        place,
        message: explain(&error),
    })?;
    let cells: Vec<Cell<'_>> = row.cells.iter().map(Member::cell).collect();
    rows.row(&cells, row.violations, || place);
    Ok(())
}

/// The parser's words without its position, which counts from the start of the row.
fn explain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message);
    let hint = if error.is_eof() {
        "; a row of NDJSON stands on one line"
    } else {
        ""
    };
    format!("{message} at its character {}{hint}", error.column())
}

/// What a member holds, in the order of the schema's columns.
#[derive(Clone)]
enum Member<'de> {
    /// The member is not there.
    Absent,
    Value(Cell<'static>),
    /// Borrowed where the text holds no escapes.
    Text(Cow<'de, str>),
    /// An array or an object, which a flat table has no place for.
    Nested,
}

impl Member<'_> {
    fn cell(&self) -> Cell<'_> {
        match self {
            Member::Absent | Member::Nested => Cell::Absent,
            Member::Value(cell) => *cell,
            Member::Text(text) => Cell::Text(text),
        }
    }

    fn shown(&self) -> String {
        let value = match self {
            Member::Nested => "…".to_owned(),
            Member::Text(text) => text.to_string(),
            other => other
                .cell()
                .to_json()
                .map(|value| value.to_string())
                .unwrap_or_default(),
        };
        value.chars().take(80).collect()
    }
}

struct Row<'de> {
    cells: Vec<Member<'de>>,
    violations: Vec<Violation>,
}

struct RowVisitor<'s>(&'s TableSchema);

impl<'de> Visitor<'de> for RowVisitor<'_> {
    type Value = Row<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object: a row is written {\"column\": value, …}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row<'de>, A::Error> {
        let schema = self.0;
        let mut cells = vec![None; schema.columns().len()];
        let mut violations = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            let member = map.next_value_seed(MemberSeed)?;
            let Some(place) = schema.place(&name) else {
                violations.push(unknown(&name, &member, schema));
                continue;
            };
            if cells[place].is_some() {
                return Err(A::Error::custom(format_args!(
                    "member ‘{name}’ stands twice"
                )));
            }
            if matches!(member, Member::Nested) {
                violations.push(nested(&name, &member));
            }
            cells[place] = Some(match member {
                // Where the schema knows no null, it is how a writer says that there is no
                // value, as an empty cell does in CSV and a null in Parquet.
                Member::Value(Cell::Null) if !schema.columns()[place].nullable => Member::Absent,
                member => member,
            });
        }
        let cells = cells
            .into_iter()
            .map(|cell| cell.unwrap_or(Member::Absent))
            .collect();
        Ok(Row { cells, violations })
    }
}

fn unknown(name: &str, member: &Member<'_>, schema: &TableSchema) -> Violation {
    let hint = match nearest(name, schema.names()).first() {
        Some(known) => format!("; did you mean ‘{known}’?"),
        None => String::new(),
    };
    Violation {
        column: Some(name.chars().take(80).collect()),
        value: member.shown(),
        rule: "additionalProperties false".to_owned(),
        message: format!("the schema has no such column{hint}"),
    }
}

fn nested(name: &str, member: &Member<'_>) -> Violation {
    Violation {
        column: Some(name.to_owned()),
        value: member.shown(),
        rule: "type".to_owned(),
        message: "a cell of a flat table cannot hold an array or an object".to_owned(),
    }
}

/// Reads a member's name without copying it where it holds no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

struct MemberSeed;

impl<'de> DeserializeSeed<'de> for MemberSeed {
    type Value = Member<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MemberSeed {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Member<'de>, E> {
        Ok(Member::Value(Cell::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Member<'de>, E> {
        Ok(Member::Value(Cell::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member<'de>, E> {
        // Beyond 64 bits with a sign: as a number it is refused by an integer column.
        let cell = i64::try_from(value).map_or(Cell::Number(value as f64), Cell::Integer);
        Ok(Member::Value(cell))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Member<'de>, E> {
        Ok(Member::Value(Cell::Number(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Member<'de>, E> {
        Ok(Member::Value(Cell::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Nested)
    }
}
