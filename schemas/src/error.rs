//! Why bytes are no table schema.

use jingwei_proto::json::JsonError;

use crate::compile::FORMATS;
use crate::nearest::{did_you_mean, suggestion};

/// The bytes are not a schema for a flat table; each message says where and what would do.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// More bytes than a schema may have.
    #[error("the schema has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Bytes given.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not JSON, or JSON with a member that stands twice.
    #[error("the schema is {0}")]
    Json(#[from] JsonError),
    /// JSON, but not the shape of a flat table's schema.
    #[error("the schema does not describe a flat table: {0}")]
    Shape(String),
    /// A column that a flat table cannot have.
    #[error("column ‘{column}’ of the schema: {problem}")]
    Column {
        /// The column's name.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An annotation that is not one of ours: a typing error would lose its meaning.
    #[error(
        "{place} has the unknown annotation ‘{keyword}’{hint}; known here are {known}",
        hint = suggestion(keyword, known.split(", "))
    )]
    UnknownAnnotation {
        /// `the schema` or `column ‘name’`.
        place: String,
        /// The keyword.
        keyword: String,
        /// The keywords known at that place, joined by commas.
        known: String,
    },
    /// A word that is no keyword: a validator would pass over it, and the rule would never hold.
    #[error(
        "not a keyword of JSON Schema 2020-12, at {place}: ‘{keyword}’, whose rule would never hold{hint}",
        hint = did_you_mean(near).unwrap_or_else(|| "; a remark belongs in ‘$comment’".to_owned())
    )]
    UnknownKeyword {
        /// JSON Pointer into the schema.
        place: String,
        /// The word.
        keyword: String,
        /// Those that may have been meant, nearest first.
        near: Vec<String>,
    },
    /// A format by which nothing is judged here: whatever was meant by it would never hold.
    #[error(
        "not a format that is known here, at {place}: ‘{name}’{hint}",
        hint = did_you_mean(near).unwrap_or_else(|| format!("; known are {}", FORMATS.join(", ")))
    )]
    UnknownFormat {
        /// JSON Pointer into the schema.
        place: String,
        /// The format's name.
        name: String,
        /// Those that may have been meant, nearest first.
        near: Vec<String>,
    },
    /// Not a valid JSON Schema 2020-12: the `jsonschema` crate's own words.
    #[error("not a valid JSON Schema 2020-12, at {place}: {problem}")]
    Invalid {
        /// JSON Pointer into the schema, `/` for the whole.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

impl SchemaError {
    pub(crate) fn column(column: &str, problem: impl Into<String>) -> SchemaError {
        let column = column.chars().take(80).collect();
        SchemaError::Column {
            column,
            problem: problem.into(),
        }
    }
}
