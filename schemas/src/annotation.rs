//! The annotations that say what a column's figures mean, each read into a type.
//!
//! | keyword | value |
//! |---|---|
//! | `x-unit` | UCUM code, such as `mm` or `[degF]`, judged by [`crate::unit`] |
//! | `x-concept`, `x-definition` | ids of the glossary, such as `population/municipale` |
//! | `x-reference` | `2023`, `2023-06`, `2023-06-30`, `FROM/TO`, or a column of the schema |
//! | `x-grain` | what one row's figure is: `instant`, `daily-maximum`, … |
//! | `x-additive` | list of the axes along which a sum makes sense, maybe empty: `territory`, `time`, columns of the schema |
//! | `x-codes` | code list and edition: `insee@2026` |
//! | `x-key`, `x-territory`, `x-personal` | `true` where the column has that role |
//! | `x-geometry`, `x-crs` | encoding of a geometry (`wkt`) and its reference system (`EPSG:4326`) |
//! | `x-missing` | texts that mean "no value" in CSV; of the schema, or of one column instead |
//!
//! Definition, reference, grain, additivity and codes may honestly be `undeclared`.

use std::fmt;

use serde_json::{Map, Value};

use crate::calendar;
use crate::column::Column;
use crate::error::SchemaError;
use crate::nearest::suggestion;
use crate::unit;

/// The annotations of a column.
const OF_A_COLUMN: [&str; 13] = [
    "x-additive",
    "x-codes",
    "x-concept",
    "x-crs",
    "x-definition",
    "x-geometry",
    "x-grain",
    "x-key",
    "x-missing",
    "x-personal",
    "x-reference",
    "x-territory",
    "x-unit",
];

/// The annotations of a schema as a whole.
const OF_A_SCHEMA: [&str; 2] = ["x-missing", "x-order"];

/// The axes that every schema has, beside its columns.
const AXES: [&str; 2] = ["territory", "time"];

/// The word for a facet that nobody has stated.
const UNDECLARED: &str = "undeclared";

/// Characters of an annotation's value; it stands in tables that people read.
const LONGEST: usize = 128;

/// Something a figure's publisher states, or honestly does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facet {
    /// Stated.
    Declared(String),
    /// Known to be unknown: shown, and never combined with another dataset's.
    Undeclared,
}

impl Facet {
    /// What was stated.
    pub fn declared(&self) -> Option<&str> {
        match self {
            Facet::Declared(text) => Some(text),
            Facet::Undeclared => None,
        }
    }
}

impl fmt::Display for Facet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.declared().unwrap_or(UNDECLARED))
    }
}

/// What date or period a figure is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The same for every row: a year, a month, a day, or two of them joined by `/`.
    Period(String),
    /// Each row's own, in this column.
    Column(String),
    /// Not stated.
    Undeclared,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Period(text) | Reference::Column(text) => f.write_str(text),
            Reference::Undeclared => f.write_str(UNDECLARED),
        }
    }
}

/// Along which axes the figures of a column may be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Additive {
    /// Along these: `territory`, `time` or columns; an empty list means along none.
    Along(Vec<String>),
    /// Not stated.
    Undeclared,
}

impl fmt::Display for Additive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Additive::Along(axes) if axes.is_empty() => f.write_str("along no axis"),
            Additive::Along(axes) => f.write_str(&axes.join(", ")),
            Additive::Undeclared => f.write_str(UNDECLARED),
        }
    }
}

/// All annotations, of columns and of schemas.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    OF_A_COLUMN.into_iter().chain(OF_A_SCHEMA)
}

/// Refuses an annotation of the schema itself that is not one of ours.
pub(crate) fn check_schema(schema: &Map<String, Value>) -> Result<(), SchemaError> {
    check_known(schema, "the schema", &OF_A_SCHEMA)
}

/// Reads the annotations of one column into `column`; `names` are all columns of the schema.
pub(crate) fn read_into(
    column: &mut Column,
    members: &Map<String, Value>,
    names: &[String],
) -> Result<(), SchemaError> {
    check_known(members, &format!("column ‘{}’", column.name), &OF_A_COLUMN)?;
    let from = Reader {
        column: column.name.clone(),
        members,
    };
    column.unit = from.unit()?;
    column.concept = from.text("x-concept", is_id, "an id of the glossary, like population")?;
    column.definition = from.facet(
        "x-definition",
        is_id,
        "an id of the glossary, like population/municipale",
    )?;
    column.grain = from.facet(
        "x-grain",
        is_id,
        "an id like instant, hourly-sum or daily-maximum",
    )?;
    column.codes = from.facet(
        "x-codes",
        is_codes,
        "a code list and its edition, like insee@2026",
    )?;
    column.reference = from.reference(names)?;
    column.additive = from.additive(names)?;
    column.geometry = from.text("x-geometry", is_id, "an encoding, like wkt or geojson")?;
    column.crs = from.text("x-crs", is_visible, "a reference system, like EPSG:4326")?;
    column.key = from.flag("x-key")?;
    column.territory = from.flag("x-territory")?;
    column.personal = from.flag("x-personal")?;
    column.missing =
        missing(members).map_err(|problem| SchemaError::column(&column.name, problem))?;
    Ok(())
}

/// Refuses an axis of `x-additive` that there is not: nobody would ever add up along it.
pub(crate) fn check_axes(columns: &[Column]) -> Result<(), SchemaError> {
    let known = || {
        let names = columns.iter().map(|column| column.name.as_str());
        AXES.into_iter().chain(names)
    };
    for column in columns {
        let Some(Additive::Along(axes)) = &column.additive else {
            continue;
        };
        let unknown = axes.iter().find(|axis| !known().any(|name| name == **axis));
        if let Some(axis) = unknown {
            let hint = suggestion(axis, known());
            let problem = format!(
                "x-additive names the axis ‘{axis}’, which is neither territory nor time nor a column of the schema{hint}"
            );
            return Err(SchemaError::column(&column.name, problem));
        }
    }
    Ok(())
}

/// The texts of `x-missing` at one place, `None` where it is not given.
pub(crate) fn missing(members: &Map<String, Value>) -> Result<Option<Vec<String>>, String> {
    members
        .get("x-missing")
        .map(|value| {
            texts(value)
                .filter(|texts| texts.len() <= 20 && texts.iter().all(|text| text.len() <= LONGEST))
                .ok_or_else(|| {
                    "x-missing must be a list of at most 20 short texts, like [\"NA\"]".to_owned()
                })
        })
        .transpose()
}

/// A JSON list of texts.
pub(crate) fn texts(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn check_known(
    members: &Map<String, Value>,
    place: &str,
    known: &[&str],
) -> Result<(), SchemaError> {
    let unknown = members
        .keys()
        .find(|key| key.starts_with("x-") && !known.contains(&key.as_str()));
    match unknown {
        None => Ok(()),
        Some(keyword) => Err(SchemaError::UnknownAnnotation {
            place: place.to_owned(),
            keyword: keyword.chars().take(80).collect(),
            known: known.join(", "),
        }),
    }
}

/// Reads the annotations of one column.
struct Reader<'a> {
    column: String,
    members: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn wrong<T>(&self, keyword: &str, wanted: &str) -> Result<T, SchemaError> {
        Err(SchemaError::column(
            &self.column,
            format!("{keyword} must be {wanted}"),
        ))
    }

    fn text(
        &self,
        keyword: &str,
        valid: fn(&str) -> bool,
        wanted: &str,
    ) -> Result<Option<String>, SchemaError> {
        match self.members.get(keyword) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= LONGEST && valid(text) => {
                Ok(Some(text.clone()))
            }
            Some(_) => self.wrong(keyword, wanted),
        }
    }

    fn unit(&self) -> Result<Option<String>, SchemaError> {
        const KEYWORD: &str = "x-unit";
        const WANTED: &str = "a UCUM code, like mm, [degF] or {person}";
        let Some(code) = self.text(KEYWORD, |_| true, WANTED)? else {
            return Ok(None);
        };
        match unit::check(&code) {
            Ok(()) => Ok(Some(code)),
            Err(problem) => self.wrong(KEYWORD, &format!("{WANTED}: {problem}")),
        }
    }

    fn facet(
        &self,
        keyword: &str,
        valid: fn(&str) -> bool,
        wanted: &str,
    ) -> Result<Option<Facet>, SchemaError> {
        if self.is_undeclared(keyword) {
            return Ok(Some(Facet::Undeclared));
        }
        let text = self.text(keyword, valid, &format!("{wanted}, or “undeclared”"))?;
        Ok(text.map(Facet::Declared))
    }

    fn is_undeclared(&self, keyword: &str) -> bool {
        self.members
            .get(keyword)
            .is_some_and(|value| value == UNDECLARED)
    }

    fn flag(&self, keyword: &str) -> Result<bool, SchemaError> {
        match self.members.get(keyword) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => self.wrong(keyword, "true or false"),
        }
    }

    fn reference(&self, names: &[String]) -> Result<Option<Reference>, SchemaError> {
        const WANTED: &str =
            "a period (2023, 2023-06, 2023-06-30 or two joined by /), a column, or “undeclared”";
        if self.is_undeclared("x-reference") {
            return Ok(Some(Reference::Undeclared));
        }
        let Some(text) = self.text("x-reference", |_| true, WANTED)? else {
            return Ok(None);
        };
        if is_period(&text) {
            return Ok(Some(Reference::Period(text)));
        }
        if names.contains(&text) {
            return Ok(Some(Reference::Column(text)));
        }
        let hint = suggestion(&text, names.iter().map(String::as_str));
        self.wrong("x-reference", &format!("{WANTED}{hint}"))
    }

    fn additive(&self, names: &[String]) -> Result<Option<Additive>, SchemaError> {
        const KEYWORD: &str = "x-additive";
        if self.is_undeclared(KEYWORD) {
            return Ok(Some(Additive::Undeclared));
        }
        let Some(value) = self.members.get(KEYWORD) else {
            return Ok(None);
        };
        let is_axis = |axis: &String| is_id(axis) || names.contains(axis);
        match texts(value) {
            Some(axes) if axes.len() <= 8 && axes.iter().all(is_axis) => {
                Ok(Some(Additive::Along(axes)))
            }
            _ => self.wrong(
                KEYWORD,
                "a list of axes (territory, time or columns of the schema), like [\"territory\"] or [], or “undeclared”",
            ),
        }
    }
}

/// Lower-case words of letters, digits and inner hyphens, joined by slashes.
fn is_id(text: &str) -> bool {
    text.len() <= LONGEST
        && text.split('/').all(|word| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && !word.ends_with('-')
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_codes(text: &str) -> bool {
    text.split_once('@').is_some_and(|(list, edition)| {
        is_id(list)
            && !edition.is_empty()
            && edition
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

fn is_period(text: &str) -> bool {
    match text.split_once('/') {
        None => is_point(text),
        Some((from, to)) => is_point(from) && is_point(to),
    }
}

fn is_point(text: &str) -> bool {
    // A year or a month is a date whose rest is filled up.
    let rest = match text.len() {
        4 => "-01-01",
        7 => "-01",
        _ => "",
    };
    calendar::days(&format!("{text}{rest}")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        assert!(is_id("population/municipale") && is_id("daily-maximum") && is_id("gb2260"));
        assert!(!is_id("Population") && !is_id("a//b") && !is_id("") && !is_id("a-"));
        assert!(is_codes("insee@2026") && is_codes("gb2260@undeclared"));
        assert!(!is_codes("insee") && !is_codes("@2026") && !is_codes("insee@"));
        assert!(is_period("2023") && is_period("2023-06") && is_period("2023-06-30/2024"));
        assert!(!is_period("2023-13") && !is_period("soon") && !is_period("2023/"));
    }
}
