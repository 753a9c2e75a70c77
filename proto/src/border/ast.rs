//! The queries that border grammar 1 can say, as a tree.
//!
//! The fields are public so that a query can be built and taken apart freely; whether it may
//! cross the border is what [`Query::check`] says.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};

use crate::id::VersionId;

/// One `SELECT` block over one pinned version of one dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The columns of the answer, in order; at least one.
    pub select: Vec<Item>,
    /// The dataset version that is read.
    pub from: VersionId,
    /// `WHERE`: rows for which this is not true are left out.
    pub filter: Option<Expr>,
    /// `GROUP BY`; empty without one.
    pub group_by: Vec<Expr>,
    /// `ORDER BY`; empty without one.
    pub order_by: Vec<Order>,
    /// `LIMIT`: at most this many rows.
    pub limit: Option<u64>,
}

/// A column of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What it holds.
    pub expr: Expr,
    /// `AS "alias"`.
    pub alias: Option<String>,
}

/// A sort key; nulls always come last.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// What is sorted by. A bare column that is an item's alias means that item.
    pub expr: Expr,
    /// `DESC` rather than `ASC`.
    pub descending: bool,
}

/// An expression over the columns of one row, or of one group where aggregates may stand.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A constant.
    Literal(Literal),
    /// A column of the dataset, by its exact name.
    Column(String),
    /// `NOT e`
    Not(Box<Expr>),
    /// `- e`. A negative constant is a negative [`Literal`] instead.
    Negate(Box<Expr>),
    /// `left op right`
    Binary {
        /// The operator.
        op: BinaryOp,
        /// What stands before it.
        left: Box<Expr>,
        /// What stands after it.
        right: Box<Expr>,
    },
    /// `e IS [NOT] NULL`
    IsNull {
        /// What is tested.
        expr: Box<Expr>,
        /// `IS NOT NULL`
        negated: bool,
    },
    /// `e [NOT] IN (…)`
    In {
        /// What is looked for.
        expr: Box<Expr>,
        /// 1 to 1,000 constants.
        list: Vec<Literal>,
        /// `NOT IN`
        negated: bool,
    },
    /// `e [NOT] LIKE 'pattern'`
    Like {
        /// The text that is matched.
        expr: Box<Expr>,
        /// `%` and `_` are wild; `\` makes the `%`, `_` or `\` after it plain.
        pattern: String,
        /// `NOT LIKE`
        negated: bool,
    },
    /// `CASE WHEN condition THEN value … [ELSE value] END`
    Case {
        /// Conditions and their values, tried in order; at least one.
        branches: Vec<(Expr, Expr)>,
        /// The value where no condition is true; null without one.
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(e AS type)`
    Cast {
        /// What is converted.
        expr: Box<Expr>,
        /// The type that it becomes.
        to: Type,
    },
    /// A scalar function's call.
    Call {
        /// The function.
        function: Function,
        /// Its arguments.
        args: Vec<Expr>,
    },
    /// An aggregate over the rows of a group.
    Aggregate {
        /// The aggregate.
        function: Aggregate,
        /// Its argument; `None` is the star of `count(*)` and of no other.
        arg: Option<Box<Expr>>,
    },
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `NULL`
    Null,
    /// `TRUE` or `FALSE`
    Boolean(bool),
    /// `42`
    Integer(i64),
    /// `1.0` or `1e300`: finite, in the shortest digits that read back to the same bits.
    Double(f64),
    /// `DECIMAL(4, 2) '12.50'`
    Decimal(Decimal),
    /// `'it''s'`
    Text(String),
    /// `DATE '2024-05-01'`: a year from 1 to 9999.
    Date(NaiveDate),
    /// `TIMESTAMP '2024-05-01T12:00:00Z'`: UTC, whole microseconds, a year from 1678 to 2261,
    /// which every engine that counts nanoseconds in 64 bits can hold.
    Timestamp(DateTime<Utc>),
}

/// An exact decimal number, `unscaled / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The digits without the point.
    pub unscaled: i128,
    /// Digits in all, 1 to 38.
    pub precision: u8,
    /// Digits after the point, 0 to `precision`.
    pub scale: u8,
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the operator of its name")]
pub enum BinaryOp {
    And,
    Or,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A type that `CAST` converts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `BOOLEAN`
    Boolean,
    /// `BIGINT`: 64 bits, signed.
    BigInt,
    /// `DOUBLE`: IEEE 754 binary64.
    Double,
    /// `DECIMAL(precision, scale)`, always with both: engines differ on what a bare one means.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: u8,
    },
    /// `TEXT`
    Text,
    /// `DATE`
    Date,
    /// `TIMESTAMP`
    Timestamp,
}

/// A scalar function that may cross the border. All are total or fail cleanly, and linear in
/// the size of their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the SQL function of its name")]
pub enum Function {
    Lower,
    Upper,
    Trim,
    Substr,
    Length,
    Coalesce,
    NullIf,
    Abs,
    Round,
    Floor,
    DateTrunc,
    DatePart,
    MakeDate,
}

/// An aggregate that may cross the border: one whose parts can be merged at the asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the SQL aggregate of its name")]
pub enum Aggregate {
    Sum,
    Count,
    Min,
    Max,
    Avg,
}

impl Query {
    /// The columns of the dataset that the query reads. A sort key that is an item's alias
    /// is not one of them.
    pub fn columns(&self) -> BTreeSet<&str> {
        let mut columns = BTreeSet::new();
        let clauses = self.select.iter().map(|item| &item.expr);
        let keys = self.order_by.iter().map(|order| &order.expr);
        let keys = keys.filter(|key| !self.is_alias(key));
        for expr in clauses
            .chain(&self.filter)
            .chain(&self.group_by)
            .chain(keys)
        {
            columns.extend(expr.columns());
        }
        columns
    }

    /// Whether any column of the answer or sort key holds an aggregate.
    pub fn has_aggregates(&self) -> bool {
        let items = self.select.iter().map(|item| &item.expr);
        items
            .chain(self.order_by.iter().map(|order| &order.expr))
            .any(Expr::has_aggregates)
    }

    fn is_alias(&self, key: &Expr) -> bool {
        let Expr::Column(name) = key else {
            return false;
        };
        self.select
            .iter()
            .any(|item| item.alias.as_ref() == Some(name))
    }
}

impl Expr {
    /// A column.
    pub fn column(name: impl Into<String>) -> Expr {
        Expr::Column(name.into())
    }

    /// `left op right`
    pub fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
        Expr::Binary {
            op,
            left: Box::new(left),
            right: Box::new(right),
        }
    }

    /// All of `exprs` joined by `AND` into a tree as flat as can be, so that a long list stays
    /// within the depth limit; `None` for none.
    pub fn all(exprs: Vec<Expr>) -> Option<Expr> {
        join(BinaryOp::And, exprs)
    }

    /// As [`Expr::all`], joined by `OR`.
    pub fn any(exprs: Vec<Expr>) -> Option<Expr> {
        join(BinaryOp::Or, exprs)
    }

    /// The names of the columns in this expression.
    pub fn columns(&self) -> BTreeSet<&str> {
        self.nodes()
            .filter_map(|(expr, _)| match expr {
                Expr::Column(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Whether an aggregate stands anywhere in this expression.
    pub fn has_aggregates(&self) -> bool {
        self.nodes()
            .any(|(expr, _)| matches!(expr, Expr::Aggregate { .. }))
    }

    /// Whether the printing joins several operands without brackets of its own, so that it
    /// stands in parentheses where it is an operand itself.
    pub(super) fn is_compound(&self) -> bool {
        matches!(
            self,
            Expr::Not(_)
                | Expr::Negate(_)
                | Expr::Binary { .. }
                | Expr::IsNull { .. }
                | Expr::In { .. }
                | Expr::Like { .. }
        )
    }

    /// This expression and all below it with their depths, the root's being 1, without
    /// recursion: a tree built in code may be deeper than the stack allows.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Expr, usize)> {
        let mut waiting = vec![(self, 1)];
        std::iter::from_fn(move || {
            let (expr, depth) = waiting.pop()?;
            expr.children(&mut |child| waiting.push((child, depth + 1)));
            Some((expr, depth))
        })
    }

    /// Hands each direct operand to `visit`.
    pub(super) fn children<'a>(&'a self, visit: &mut impl FnMut(&'a Expr)) {
        match self {
            Expr::Literal(_) | Expr::Column(_) => {}
            Expr::Not(expr)
            | Expr::Negate(expr)
            | Expr::IsNull { expr, .. }
            | Expr::In { expr, .. }
            | Expr::Like { expr, .. }
            | Expr::Cast { expr, .. } => visit(expr),
            Expr::Binary { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Expr::Case {
                branches,
                otherwise,
            } => {
                for (condition, value) in branches {
                    visit(condition);
                    visit(value);
                }
                otherwise.iter().for_each(|expr| visit(expr));
            }
            Expr::Call { args, .. } => args.iter().for_each(visit),
            Expr::Aggregate { arg, .. } => arg.iter().for_each(|expr| visit(expr)),
        }
    }
}

/// Halves the list until one is left, which keeps the tree's depth at the logarithm of its size.
fn join(op: BinaryOp, mut exprs: Vec<Expr>) -> Option<Expr> {
    if exprs.len() <= 1 {
        return exprs.pop();
    }
    let rest = exprs.split_off(exprs.len().div_ceil(2));
    Some(Expr::binary(op, join(op, exprs)?, join(op, rest)?))
}
