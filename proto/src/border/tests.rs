//! What the grammar accepts, what it refuses, and that reading and writing are inverse.

mod accepted;
mod refused;
mod round_trip;

use super::*;

/// A query around one expression in `WHERE`.
fn filter(expr: &str) -> String {
    format!(r#"SELECT "a" FROM "x.y"."d@1" WHERE {expr}"#)
}

/// A query with these items.
fn select(items: &str) -> String {
    format!(r#"SELECT {items} FROM "x.y"."d@1""#)
}

/// Ways to make an expression one level deeper.
const WRAPS: [fn(Expr) -> Expr; 7] = [
    |expr| Expr::Not(Box::new(expr)),
    |expr| Expr::Negate(Box::new(expr)),
    |expr| Expr::binary(BinaryOp::Add, expr, Expr::column("b")),
    |expr| Expr::binary(BinaryOp::And, Expr::column("b"), expr),
    |expr| Expr::Call {
        function: Function::Lower,
        args: vec![expr],
    },
    |expr| Expr::Cast {
        expr: Box::new(expr),
        to: Type::Text,
    },
    |expr| Expr::Case {
        branches: vec![(expr, Expr::column("b"))],
        otherwise: None,
    },
];

/// An expression of that many levels.
fn deep(wrap: fn(Expr) -> Expr, levels: usize) -> Expr {
    (1..levels).fold(Expr::column("a"), |expr, _| wrap(expr))
}
