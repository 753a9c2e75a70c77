//! Why the asker's query is not answered, by whose fault.

use datafusion::common::{DataFusionError, SchemaError};

use super::limits::Exceeded;
use super::names::Missing;
use super::provide::ProvideError;

/// An error of a query, on the asker's side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The SQL has a fault.
    #[error("{}{message}", place(*line, *column))]
    WrongSql {
        /// What is wrong.
        message: String,
        /// The line where, from 1, if known.
        line: Option<u64>,
        /// The character where, from 1, if known.
        column: Option<u64>,
    },
    /// The statement would do something else than read.
    #[error("{what} is not possible here: only queries (SELECT, VALUES, WITH … SELECT) can be run")]
    ReadOnly {
        /// The kind of statement.
        what: String,
    },
    /// The query is recursive.
    #[error("recursive queries are not run: write WITH without RECURSIVE")]
    Recursive,
    /// A table is not there.
    #[error("{}there is no table {name}{}{}", place(*line, *column), silent(silent_agency), hint(nearest))]
    UnknownTable {
        /// As it was written.
        name: String,
        /// Its agency, if that publishes nothing, and those with similar ids that do.
        silent_agency: Option<Box<(String, Vec<String>)>>,
        /// Tables with similar names, as SQL would write them, the nearest first.
        nearest: Vec<String>,
        /// The line where, from 1, if known.
        line: Option<u64>,
        /// The character where, from 1, if known.
        column: Option<u64>,
    },
    /// A table is there, and not in that version.
    #[error("{}there is no table {name}: {table} has {}", place(*line, *column), versions(*newest))]
    UnknownVersion {
        /// As it was written.
        name: String,
        /// The table's newest version, as SQL would write it.
        table: String,
        /// The number of that version; all before it are there, too.
        newest: u64,
        /// The dataset, as the catalogue calls it.
        dataset: String,
        /// The line where, from 1, if known.
        line: Option<u64>,
        /// The character where, from 1, if known.
        column: Option<u64>,
    },
    /// A column is not there.
    #[error("{}there is no column ‘{name}’{}{}", place(*line, *column), value_hint(*text, name), hint(nearest))]
    UnknownColumn {
        /// As it was written.
        name: String,
        /// Whether it resembles no column, and is a text most likely.
        text: bool,
        /// Columns with similar names, the nearest first.
        nearest: Vec<String>,
        /// The line where, from 1, if known.
        line: Option<u64>,
        /// The character where, from 1, if known.
        column: Option<u64>,
    },
    /// The query ran into a limit, here or at a provider.
    #[error("the query was stopped: {0}")]
    Limit(String),
    /// This node is too busy for the query now.
    #[error("{0}; try again later")]
    Overloaded(String),
    /// A provider refused by its policy, or this node did before it asked one.
    #[error("refused by {agency}: {reason}")]
    Refused {
        /// The provider, or ‘this node’.
        agency: String,
        /// What it says.
        reason: String,
    },
    /// A provider could not be asked or broke off, so that the answer would not be whole.
    #[error("the answer is incomplete: {agency}: {reason}")]
    Incomplete {
        /// The provider.
        agency: String,
        /// What went wrong.
        reason: String,
    },
    /// A provider answered something that does not verify; nothing of it is used.
    #[error("the answer does not verify: {agency}: {reason}")]
    Unverified {
        /// The provider.
        agency: String,
        /// What does not hold.
        reason: String,
    },
    /// The SQL is right, but cannot be computed for some row.
    #[error("the query cannot be computed: {0}")]
    Uncomputable(String),
    /// A fault of the program.
    #[error("a fault of this program, please report it: {0}")]
    Internal(String),
}

/// Who refuses or fails, where it is no other agency.
pub(crate) const THIS_NODE: &str = "this node";

/// How to see which tables and columns there are.
const LOOK: &str =
    "‘jingwei find’ lists what there is, and ‘jingwei describe AGENCY/NAME’ its columns";

fn place(line: Option<u64>, column: Option<u64>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: "),
        _ => String::new(),
    }
}

fn hint(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; the nearest: {}", names.join(", ")),
    }
}

fn silent(agency: &Option<Box<(String, Vec<String>)>>) -> String {
    let Some((id, near)) = agency.as_deref() else {
        return String::new();
    };
    let near = match near.as_slice() {
        [] => String::new(),
        near => format!(" (the nearest that do: {})", near.join(", ")),
    };
    format!("; no agency ‘{id}’ publishes anything{near}")
}

fn versions(newest: u64) -> String {
    match newest {
        1 => "version 1 alone".to_owned(),
        newest => format!("the versions 1 to {newest}"),
    }
}

fn value_hint(text: bool, name: &str) -> String {
    match text {
        true => format!(
            "; if it is a text, it stands in single quotes, and double quotes are for names: '{}'",
            name.replace('\'', "''")
        ),
        false => String::new(),
    }
}

impl QueryError {
    /// What hindered the planning of a query lies in its SQL, whatever the engine calls it.
    pub fn of_planning(error: DataFusionError) -> QueryError {
        match QueryError::from(error) {
            QueryError::Uncomputable(message) => QueryError::wrong(message),
            other => other,
        }
    }

    /// What whoever asked can do next, where the error itself does not say it.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            QueryError::ReadOnly { what }
                if what.starts_with("SHOW") || what.starts_with("DESC") =>
            {
                LOOK.to_owned()
            }
            QueryError::UnknownTable { .. } => {
                format!("{LOOK}; in SQL a table is AGENCY.NAME, like \"fr.bre\".communes")
            }
            QueryError::UnknownVersion { table, dataset, .. } => {
                format!("{table} is the newest; ‘jingwei describe {dataset}’ lists its versions")
            }
            QueryError::Incomplete { agency, .. } if agency == THIS_NODE => {
                "‘jingwei doctor’ finds the reason".to_owned()
            }
            QueryError::Incomplete { agency, .. } => format!(
                "ask again in a moment; ‘jingwei doctor’ shows which other nodes can be reached; if it stays so, call the people of {agency}, whose node has to answer"
            ),
            _ => return None,
        })
    }

    /// This node declines, and asks nobody.
    pub fn refused_here(reason: impl Into<String>) -> QueryError {
        QueryError::Refused {
            agency: THIS_NODE.to_owned(),
            reason: reason.into(),
        }
    }

    /// The SQL is wrong, and where is not known.
    pub fn wrong(message: impl Into<String>) -> QueryError {
        QueryError::WrongSql {
            message: message.into(),
            line: None,
            column: None,
        }
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

/// What an error that the engine hands up, from planning or from a running stream, means. One
/// that was a [`QueryError`] on its way in comes out as it was.
impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> QueryError {
        if let Some(missing) = Missing::from_error(&error) {
            return missing.into_error();
        }
        let root = error.find_root();
        match root {
            DataFusionError::External(cause) => {
                if let Some(own) = cause.downcast_ref::<QueryError>() {
                    own.clone()
                } else if let Some(limit) = cause.downcast_ref::<Exceeded>() {
                    exceeded(limit)
                } else if let Some(own) = cause.downcast_ref::<ProvideError>() {
                    provided_here(own)
                } else {
                    QueryError::Uncomputable(cause.to_string())
                }
            }
            DataFusionError::ResourcesExhausted(_) => {
                QueryError::Limit(Exceeded::Memory.to_string())
            }
            DataFusionError::SQL(error, _) => syntax(&error.to_string()),
            DataFusionError::Plan(message)
            | DataFusionError::NotImplemented(message)
            | DataFusionError::Internal(message)
                if message.contains(NO_SUCH_CALL) =>
            {
                QueryError::wrong(no_such_call(message))
            }
            DataFusionError::Plan(message) if message.contains(UNGROUPED) => {
                QueryError::wrong(ungrouped(message))
            }
            DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => {
                QueryError::wrong(of_plan(message))
            }
            DataFusionError::SchemaError(error, _) => QueryError::wrong(of_names(error)),
            // The engine calls it internal when a function does not fit its arguments, too. Its
            // first line says what; the rest asks to report a defect.
            DataFusionError::Internal(message) => {
                QueryError::Uncomputable(plain(message.lines().next().unwrap_or_default()))
            }
            other => {
                let message = other.message();
                let told = not_cast(&message).or_else(|| divided_by_zero(&message));
                QueryError::Uncomputable(told.unwrap_or_else(|| plain(&message)))
            }
        }
    }
}

impl From<Exceeded> for QueryError {
    fn from(limit: Exceeded) -> QueryError {
        exceeded(&limit)
    }
}

fn exceeded(limit: &Exceeded) -> QueryError {
    match limit.passes() {
        true => QueryError::Overloaded(limit.to_string()),
        false => QueryError::Limit(limit.to_string()),
    }
}

/// How the engine introduces a call that no function answers, in a page of candidates.
const NO_SUCH_CALL: &str = "No function matches the given name and argument types '";

/// The call in the words of schemas: `sum(text)`.
fn no_such_call(message: &str) -> String {
    let call = message.split(NO_SUCH_CALL).nth(1).unwrap_or_default();
    let call = in_our_words(call.split("'.").next().unwrap_or_default());
    format!(
        "{call} is not possible: the function takes other types, or another number of values; CAST(… AS DOUBLE) reads a text as a number"
    )
}

/// How the engine introduces a column that is neither grouped by nor aggregated.
const UNGROUPED: &str = "must be in GROUP BY or an aggregate function";

fn ungrouped(message: &str) -> String {
    let column = message.split("column \"").nth(1).unwrap_or_default();
    let column = column.split('"').next().unwrap_or_default();
    format!("the column ‘{column}’ must stand in GROUP BY or within an aggregate like max()")
}

/// A text that is not written as its type is, if that is what the engine says.
fn not_cast(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Cannot cast string '")?;
    let (text, rest) = rest.rsplit_once("' to value of ")?;
    let kind = in_our_words(rest.strip_suffix(" type")?);
    let form = match kind.as_str() {
        "date" => ", like '2025-10-01'",
        "date-time" => ", like '2025-10-01T08:30:00Z'",
        _ => "",
    };
    Some(format!("the text '{text}' cannot be read as {kind}{form}"))
}

fn divided_by_zero(message: &str) -> Option<String> {
    let divided = message.contains("Divide by zero");
    divided.then(|| "it divides by zero; NULLIF(…, 0) makes that no value".to_owned())
}

/// What keeps a query from being planned.
fn of_plan(message: &str) -> String {
    no_such_function(message)
        .or_else(|| no_common_type(message))
        .unwrap_or_else(|| plain(&in_our_words(message)))
}

fn no_such_function(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Invalid function '")?;
    let (name, rest) = rest.split_once('\'')?;
    let near = rest.split_once("Did you mean '");
    let near = near.and_then(|(_, near)| near.split('\'').next());
    let near: Vec<String> = near.into_iter().map(str::to_owned).collect();
    Some(format!("there is no function {name}{}", hint(&near)))
}

/// How the engine introduces an operation whose sides have types that do not go together.
const NO_COMMON_TYPE: [&str; 2] = [
    "Cannot coerce arithmetic expression ",
    "Cannot infer common argument type for comparison operation ",
];

fn no_common_type(message: &str) -> Option<String> {
    let mut introductions = NO_COMMON_TYPE.iter();
    let (_, operation) = introductions.find_map(|words| message.split_once(words))?;
    let operation = operation.lines().next().unwrap_or_default();
    let operation = in_our_words(operation.trim_end_matches(" to valid types"));
    Some(format!(
        "{operation} is not possible: these types do not go together; CAST(… AS …) changes one of them"
    ))
}

/// What is wrong with the names of columns, where they are there.
fn of_names(error: &SchemaError) -> String {
    match error {
        SchemaError::AmbiguousReference { field } if field.relation.is_none() => format!(
            "the column ‘{}’ is in more than one table: write which, like p.{} after FROM … AS p",
            field.name, field.name
        ),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => format!(
            "the table {qualifier} stands in the query twice: give each a name of its own, like FROM … AS p"
        ),
        SchemaError::AmbiguousReference { field } => same_name(&field.name),
        SchemaError::DuplicateUnqualifiedField { name } => same_name(name),
        // Told by its own kind of error, with the nearest names.
        SchemaError::FieldNotFound { field, .. } => format!("there is no column ‘{}’", field.name),
    }
}

fn same_name(name: &str) -> String {
    format!("two columns are called ‘{name}’: give one another name with AS")
}

/// How the engine introduces errors, its own and those within them.
const INTRODUCTIONS: [&str; 8] = [
    "Error during planning: ",
    "This feature is not implemented: ",
    "Schema error: ",
    "SQL error: ",
    "Execution error: ",
    "Arrow error: ",
    "Internal error: ",
    "External error: ",
];

/// The message without the engine's introductions.
fn plain(message: &str) -> String {
    let cut = |text: String, words: &&str| text.replace(words, "");
    INTRODUCTIONS.iter().fold(message.to_owned(), cut)
}

/// The engine's types as schemas call them.
fn in_our_words(text: &str) -> String {
    let mut text = text.to_owned();
    for (engine, ours) in [
        ("Timestamp(µs, \"+00:00\")", "date-time"),
        ("Timestamp(µs)", "date-time"),
        ("Utf8View", "text"),
        ("Utf8", "text"),
        ("Int64", "integer"),
        ("Float64", "number"),
        ("Boolean", "boolean"),
        ("Date32", "date"),
    ] {
        text = text.replace(engine, ours);
    }
    text
}

/// A table of one's own node, read without an exchange.
fn provided_here(error: &ProvideError) -> QueryError {
    match error {
        ProvideError::Refused(denial) => QueryError::refused_here(denial.to_string()),
        ProvideError::Limit(limit) => exceeded(limit),
        ProvideError::Damaged => QueryError::Incomplete {
            agency: THIS_NODE.to_owned(),
            reason: error.to_string(),
        },
        other => QueryError::Uncomputable(other.to_string()),
    }
}

/// The parser says where only in its text: `… at Line: 1, Column: 8`.
fn syntax(message: &str) -> QueryError {
    let message = message.trim_start_matches("sql parser error: ");
    let place = message.rsplit_once(" at Line: ").and_then(|(what, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((what, line.trim().parse().ok()?, column.trim().parse().ok()?))
    });
    match place {
        Some((what, line, column)) => QueryError::WrongSql {
            message: unexpected(what),
            line: Some(line),
            column: Some(column),
        },
        None => QueryError::wrong(unexpected(message)),
    }
}

/// What the parser met, in a sentence.
fn unexpected(message: &str) -> String {
    if message.contains("recursion limit") {
        return "the query is nested too deeply".to_owned();
    }
    if message.starts_with("Unterminated") {
        return "a quotation mark is not closed".to_owned();
    }
    let parts = message.strip_prefix("Expected: ");
    let Some((expected, found)) = parts.and_then(|parts| parts.rsplit_once(", found: ")) else {
        return message.to_owned();
    };
    let expected = match expected {
        "an SQL statement" => "a query (SELECT …)",
        "end of statement" => "the end of the query",
        other => other,
    };
    match found {
        "EOF" => format!("the query ends where {expected} is expected"),
        found => format!("‘{found}’ stands where {expected} is expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_says_where() {
        let error =
            syntax("sql parser error: Expected: an expression, found: FROM at Line: 1, Column: 8");
        assert_eq!(
            error.to_string(),
            "line 1, column 8: ‘FROM’ stands where an expression is expected"
        );
        for (engine, told) in [
            (
                "Expected: an expression, found: EOF",
                "the query ends where an expression is expected",
            ),
            (
                "Unterminated string literal at Line: 2, Column: 3",
                "line 2, column 3: a quotation mark is not closed",
            ),
            ("recursion limit exceeded", "the query is nested too deeply"),
        ] {
            let error = syntax(&format!("sql parser error: {engine}"));
            assert_eq!(error.to_string(), told);
        }
    }

    #[test]
    fn no_words_of_the_engine_are_left() {
        for (engine, told) in [
            (
                "Invalid function 'nosuch'.\nDid you mean 'nvl'?",
                "there is no function nosuch; the nearest: nvl",
            ),
            ("Invalid function 'nosuch'", "there is no function nosuch"),
            (
                "Cannot coerce arithmetic expression Utf8 + Boolean to valid types",
                "text + boolean is not possible",
            ),
            (
                "type coercion: Error during planning: no Int64",
                "type coercion: no integer",
            ),
        ] {
            let error = QueryError::from(DataFusionError::Plan(engine.to_owned()));
            assert!(error.to_string().starts_with(told), "{error}");
        }
    }

    #[test]
    fn a_call_that_no_function_answers_is_told_in_a_line() {
        let engine = "Function 'sum' failed to match any signature, errors: Error during planning: \
            Function 'sum' requires Decimal. No function matches the given name and argument types \
            'sum(Utf8)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tsum(Decimal)";
        for error in [
            DataFusionError::Plan(engine.into()),
            DataFusionError::Internal(engine.into()),
        ] {
            let told = QueryError::from(error);
            assert!(matches!(told, QueryError::WrongSql { .. }), "{told:?}");
            assert!(told.to_string().starts_with("sum(text) is not possible"));
            assert!(!told.to_string().contains("Candidate"), "{told}");
        }
    }

    #[test]
    fn own_errors_pass_through_the_engine() {
        let refused = QueryError::Refused {
            agency: "cn.stats".into(),
            reason: "withheld".into(),
        };
        let inside = DataFusionError::from(refused.clone()).context("while scanning");
        assert_eq!(QueryError::from(inside), refused);
    }
}
