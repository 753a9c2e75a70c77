//! The one spelling of a query.
//!
//! Written without recursion, with the pieces still to come on a stack of our own: a tree
//! built in code may be deeper than the thread's stack allows.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{Expr, Item, Literal, Order, Query, Type};
use super::literal::write_quoted;

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        write_list(f, &self.select)?;
        let dataset = &self.from.dataset;
        write!(
            f,
            " FROM \"{}\".\"{}@{}\"",
            dataset.agency, dataset.name, self.from.version
        )?;
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if !self.group_by.is_empty() {
            f.write_str(" GROUP BY ")?;
            write_list(f, &self.group_by)?;
        }
        if !self.order_by.is_empty() {
            f.write_str(" ORDER BY ")?;
            write_list(f, &self.order_by)?;
        }
        match self.limit {
            Some(limit) => write!(f, " LIMIT {limit}"),
            None => Ok(()),
        }
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)?;
        if let Some(alias) = &self.alias {
            f.write_str(" AS ")?;
            write_quoted(f, '"', alias)?;
        }
        Ok(())
    }
}

impl Display for Order {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { "DESC" } else { "ASC" };
        write!(f, "{} {direction} NULLS LAST", self.expr)
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut waiting = vec![Piece::Whole(self)];
        while let Some(piece) = waiting.pop() {
            match piece {
                Piece::Sql(text) => f.write_str(text)?,
                Piece::Name(name) => write_quoted(f, '"', name)?,
                Piece::Pattern(text) => write_quoted(f, '\'', text)?,
                Piece::Literal(literal) => literal.fmt(f)?,
                Piece::Type(to) => to.fmt(f)?,
                Piece::Whole(expr) => expr.pieces(&mut waiting),
                Piece::Operand(expr) if expr.is_compound() => {
                    waiting.extend([Piece::Sql(")"), Piece::Whole(expr), Piece::Sql("(")]);
                }
                Piece::Operand(expr) => waiting.push(Piece::Whole(expr)),
            }
        }
        Ok(())
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Type::Decimal { precision, scale } => write!(f, "({precision}, {scale})"),
            _ => Ok(()),
        }
    }
}

fn write_list<T: Display>(f: &mut impl Write, list: &[T]) -> fmt::Result {
    for (i, entry) in list.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{entry}")?;
    }
    Ok(())
}

enum Piece<'a> {
    Sql(&'static str),
    Name(&'a str),
    Pattern(&'a str),
    Literal(&'a Literal),
    Type(Type),
    /// An expression between delimiters, which needs no parentheses.
    Whole(&'a Expr),
    /// An expression beside an operator.
    Operand(&'a Expr),
}

impl Expr {
    /// Puts the pieces that this expression consists of on the stack, first on top.
    fn pieces<'a>(&'a self, waiting: &mut Vec<Piece<'a>>) {
        use Piece::{Name, Operand, Pattern, Sql, Whole};
        let first = waiting.len();
        let not = |negated: bool| Sql(if negated { " NOT" } else { "" });
        match self {
            Expr::Literal(literal) => waiting.push(Piece::Literal(literal)),
            Expr::Column(name) => waiting.push(Name(name)),
            Expr::Not(expr) => waiting.extend([Sql("NOT "), Operand(expr)]),
            Expr::Negate(expr) => waiting.extend([Sql("- "), Operand(expr)]),
            Expr::Binary { op, left, right } => {
                waiting.extend([
                    Operand(left),
                    Sql(" "),
                    Sql(op.sql()),
                    Sql(" "),
                    Operand(right),
                ]);
            }
            Expr::IsNull { expr, negated } => {
                waiting.extend([Operand(expr), Sql(" IS"), not(*negated), Sql(" NULL")]);
            }
            Expr::In {
                expr,
                list,
                negated,
            } => {
                waiting.extend([Operand(expr), not(*negated), Sql(" IN (")]);
                commas(waiting, list.iter().map(Piece::Literal));
            }
            Expr::Like {
                expr,
                pattern,
                negated,
            } => {
                waiting.extend([
                    Operand(expr),
                    not(*negated),
                    Sql(" LIKE "),
                    Pattern(pattern),
                ]);
            }
            Expr::Case {
                branches,
                otherwise,
            } => case(waiting, branches, otherwise.as_deref()),
            Expr::Cast { expr, to } => {
                waiting.extend([
                    Sql("CAST("),
                    Whole(expr),
                    Sql(" AS "),
                    Piece::Type(*to),
                    Sql(")"),
                ]);
            }
            Expr::Call { function, args } => {
                waiting.extend([Sql(function.name()), Sql("(")]);
                commas(waiting, args.iter().map(Whole));
            }
            Expr::Aggregate { function, arg } => {
                let arg = arg.as_deref().map_or(Sql("*"), Whole);
                waiting.extend([Sql(function.name()), Sql("("), arg, Sql(")")]);
            }
        }
        waiting[first..].reverse();
    }
}

fn commas<'a>(waiting: &mut Vec<Piece<'a>>, list: impl Iterator<Item = Piece<'a>>) {
    for (i, piece) in list.enumerate() {
        waiting.extend((i > 0).then_some(Piece::Sql(", ")));
        waiting.push(piece);
    }
    waiting.push(Piece::Sql(")"));
}

fn case<'a>(
    waiting: &mut Vec<Piece<'a>>,
    branches: &'a [(Expr, Expr)],
    otherwise: Option<&'a Expr>,
) {
    use Piece::{Sql, Whole};
    waiting.push(Sql("CASE"));
    for (condition, value) in branches {
        waiting.extend([Sql(" WHEN "), Whole(condition), Sql(" THEN "), Whole(value)]);
    }
    if let Some(value) = otherwise {
        waiting.extend([Sql(" ELSE "), Whole(value)]);
    }
    waiting.push(Sql(" END"));
}
