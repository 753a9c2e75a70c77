//! Why the asker's query is not answered, by whose fault.

use datafusion::common::DataFusionError;

use super::limits::Exceeded;
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
    #[error("there is no table {name}{}", hint(nearest))]
    UnknownTable {
        /// As it was written.
        name: String,
        /// Tables with similar names, as SQL would write them, the nearest first.
        nearest: Vec<String>,
    },
    /// A column is not there.
    #[error("there is no column ‘{name}’{}{}", value_hint(*text, name), hint(nearest))]
    UnknownColumn {
        /// As it was written.
        name: String,
        /// Whether it resembles no column, and is a text most likely.
        text: bool,
        /// Columns with similar names, the nearest first.
        nearest: Vec<String>,
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
const THIS_NODE: &str = "this node";

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
                QueryError::wrong(message)
            }
            DataFusionError::SchemaError(error, _) => QueryError::wrong(error.to_string()),
            // The engine calls it internal when a function does not fit its arguments, too. Its
            // first line says what; the rest asks to report a defect.
            DataFusionError::Internal(message) => {
                QueryError::Uncomputable(message.lines().next().unwrap_or_default().to_owned())
            }
            other => {
                let message = other.message();
                let told = not_cast(&message);
                QueryError::Uncomputable(told.unwrap_or_else(|| message.into_owned()))
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
            message: what.to_owned(),
            line: Some(line),
            column: Some(column),
        },
        None => QueryError::wrong(message),
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
            "line 1, column 8: Expected: an expression, found: FROM"
        );
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
