//! Border grammar 1: the SQL that may cross the border between two agencies.
//!
//! What an asker sends is the text of one `SELECT` block over one pinned version of one
//! dataset. That text is signed, planned by the provider, recorded in receipts and read by
//! auditors, so each query has exactly one spelling:
//!
//! ```text
//! SELECT e [AS "id"], … FROM "agency"."name@n" [WHERE e] [GROUP BY e, …]
//!   [ORDER BY e ASC|DESC NULLS LAST, …] [LIMIT n]
//! ```
//!
//! on one line with single spaces, keywords in capitals, functions in small letters and
//! identifiers quoted. An operand that is itself a compound stands in parentheses and nothing
//! else does: `("a" + 1) > 2`, `NOT ("a" IS NULL)`, `lower("a" LIKE 'b%')`. So no reader, human
//! or engine, needs rules of precedence to agree on what was asked.
//!
//! [`Query::parse`] accepts that spelling and no other; [`Query`]'s `Display` writes it; and
//! [`Query::check`] says whether a query built in code may be written. The text means the same
//! to any engine of the PostgreSQL family. One that bounds the recursion of its own parser
//! needs room for two or three of its levels to each of the [`MAX_DEPTH`] levels here.
//!
//! ```
//! use jingwei_proto::border::Query;
//!
//! let text = r#"SELECT "code", "population" FROM "fr.bre.35"."communes@3" WHERE "population" >= 1000"#;
//! let query = Query::parse(text)?;
//! assert_eq!(query.from.to_string(), "fr.bre.35/communes@3");
//! assert_eq!(query.to_string(), text);
//! # Ok::<(), jingwei_proto::border::BorderError>(())
//! ```
//!
//! Out of scope here, on purpose: types and the existence of columns, which only the provider
//! knows, and whether the asker may ask, which its policy decides.

mod ast;
mod literal;
mod names;
mod parse;
mod print;
mod rules;
#[cfg(test)]
mod tests;

pub use ast::{Aggregate, BinaryOp, Decimal, Expr, Function, Item, Literal, Order, Query, Type};

/// The version of the grammar, which is part of every request.
pub const GRAMMAR: u32 = 1;

/// Bytes of the longest text: beyond it a query is a way to send data, not a question.
pub const MAX_BYTES: usize = 64 * 1024;

/// How deep expressions may nest, a column or constant being 1: engines recurse over them, and
/// a stack is finite. [`Expr::all`] and [`Expr::any`] keep long conjunctions shallow.
pub const MAX_DEPTH: usize = 64;

/// Constants that one `IN` may list.
pub const MAX_IN: usize = 1_000;

/// Why a text or a query may not cross the border. All are the asker's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BorderError {
    /// The text is not a sentence of the grammar.
    #[error("not border grammar 1: at byte {at} expected {expected}, found ‘{found}’")]
    Syntax {
        /// Where the text departs from the grammar.
        at: usize,
        /// What could stand there.
        expected: &'static str,
        /// The first few characters that stand there instead.
        found: String,
    },
    /// The text says something allowed in another spelling than its canonical one.
    #[error("not the canonical spelling of border grammar 1: differs from it at byte {at}")]
    NotCanonical {
        /// Where the spellings part.
        at: usize,
    },
    /// The query breaks a rule of the grammar that its form alone does not show.
    #[error("not allowed in border grammar 1{}: {rule}", place(*at))]
    Forbidden {
        /// Where in the text, if it was read from one and the rule concerns one place.
        at: Option<usize>,
        /// The rule.
        rule: &'static str,
    },
    /// The text is, or would be, longer than [`MAX_BYTES`].
    #[error("a query of more than {MAX_BYTES} bytes: ask for less at a time")]
    TooLong,
    /// An expression nests deeper than [`MAX_DEPTH`].
    #[error("an expression nested deeper than {MAX_DEPTH}{}: split it up", place(*at))]
    TooDeep {
        /// Where in the text, if it was read from one.
        at: Option<usize>,
    },
}

fn place(at: Option<usize>) -> String {
    at.map(|at| format!(" at byte {at}")).unwrap_or_default()
}
