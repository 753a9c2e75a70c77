//! A column of a flat table: its name, its kind, and what its figures mean.

use std::fmt;

use crate::annotation::{Additive, Facet, Reference};

/// What a column's cells are, and so how they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// `integer`, stored as Int64.
    Integer,
    /// `number`, stored as Float64.
    Number,
    /// `string`, stored as Utf8.
    Text,
    /// `boolean`.
    Boolean,
    /// `string` of format `date`, stored as Date32.
    Date,
    /// `string` of format `date-time`, stored as Timestamp of microseconds in UTC.
    DateTime,
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnKind::Integer => "integer",
            ColumnKind::Number => "number",
            ColumnKind::Text => "text",
            ColumnKind::Boolean => "boolean",
            ColumnKind::Date => "date",
            ColumnKind::DateTime => "date-time",
        })
    }
}

/// One column, with the annotations that the schema gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, unique in the schema even without regard to case; 1 to 128 bytes.
    pub name: String,
    /// What its cells are.
    pub kind: ColumnKind,
    /// Whether every row must have a value.
    pub required: bool,
    /// Whether JSON's `null` is a value that the schema allows; stored like an absent one.
    pub nullable: bool,
    /// A short name for people.
    pub title: Option<String>,
    /// What the column holds, for people.
    pub description: Option<String>,
    /// UCUM code of the unit (`x-unit`).
    pub unit: Option<String>,
    /// What is measured or named: an id of the glossary (`x-concept`).
    pub concept: Option<String>,
    /// How the figure was counted: an id of the glossary (`x-definition`).
    pub definition: Option<Facet>,
    /// The date or period that the figure is for (`x-reference`).
    pub reference: Option<Reference>,
    /// What one row's figure is (`x-grain`).
    pub grain: Option<Facet>,
    /// Along which axes a sum makes sense (`x-additive`).
    pub additive: Option<Additive>,
    /// Code list and edition (`x-codes`).
    pub codes: Option<Facet>,
    /// Whether it is part of what identifies a row (`x-key`).
    pub key: bool,
    /// Whether it holds the territory that the row is about (`x-territory`).
    pub territory: bool,
    /// Encoding of the geometry it holds (`x-geometry`).
    pub geometry: Option<String>,
    /// Coordinate reference system of that geometry (`x-crs`).
    pub crs: Option<String>,
    /// Whether it holds personal data (`x-personal`).
    pub personal: bool,
    /// CSV texts that mean "no value" here, in place of the schema's own list (`x-missing`).
    pub missing: Option<Vec<String>>,
}

impl Column {
    /// A column with nothing stated about it.
    pub(crate) fn new(name: &str, kind: ColumnKind) -> Column {
        Column {
            name: name.to_owned(),
            kind,
            required: false,
            nullable: false,
            title: None,
            description: None,
            unit: None,
            concept: None,
            definition: None,
            reference: None,
            grain: None,
            additive: None,
            codes: None,
            key: false,
            territory: false,
            geometry: None,
            crs: None,
            personal: false,
            missing: None,
        }
    }

    /// Whether the column holds figures: numbers that state a unit, a definition, a grain or
    /// along which axes they add up.
    pub fn is_figure(&self) -> bool {
        let numeric = matches!(self.kind, ColumnKind::Integer | ColumnKind::Number);
        let stated = self.unit.is_some()
            || self.definition.is_some()
            || self.grain.is_some()
            || self.additive.is_some();
        numeric && stated
    }
}
