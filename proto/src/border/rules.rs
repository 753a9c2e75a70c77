//! The rules that a query's form alone does not show.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::ast::{Aggregate, Expr, Function, Literal, Order, Query, Type};
use super::{BorderError, MAX_BYTES, MAX_DEPTH, MAX_IN, literal};

/// Where an expression stands; aggregates may stand only in some places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    Select,
    Where,
    GroupBy,
    OrderBy,
}

/// The rule that is broken.
type Rule = &'static str;

impl Query {
    /// Whether the query may cross the border. A query from [`Query::parse`] may; one built in
    /// code is to be checked before its printing is signed or sent.
    pub fn check(&self) -> Result<(), BorderError> {
        for item in &self.select {
            item.expr.check(Clause::Select)?;
            if let Some(alias) = &item.alias {
                name(alias).map_err(nowhere)?;
            }
        }
        if let Some(filter) = &self.filter {
            filter.check(Clause::Where)?;
        }
        for key in &self.group_by {
            key.check(Clause::GroupBy)?;
        }
        for order in &self.order_by {
            order.expr.check(Clause::OrderBy)?;
        }
        self.check_whole().map_err(nowhere)?;
        write!(Room(MAX_BYTES), "{self}").map_err(|fmt::Error| BorderError::TooLong)
    }

    /// The rules that concern more than one expression.
    pub(super) fn check_whole(&self) -> Result<(), Rule> {
        if self.select.is_empty() {
            return Err("SELECT has at least one item");
        }
        if !(1..=1 << 53).contains(&self.from.version) || self.limit > Some(1 << 53) {
            return Err("versions are 1 to 2^53 and limits 0 to 2^53");
        }
        self.check_answer_names()?;
        self.check_keys()
    }

    fn check_answer_names(&self) -> Result<(), Rule> {
        let mut names = BTreeSet::new();
        for item in &self.select {
            let name = match (&item.alias, &item.expr) {
                (Some(name), _) | (None, Expr::Column(name)) => name.clone(),
                (None, expr) => expr.to_string(),
            };
            if !names.insert(name) {
                return Err("each column of the answer has a name of its own: add AS");
            }
        }
        Ok(())
    }

    /// An alias that differs from the column of its name would leave open which of them a key
    /// means: engines disagree.
    fn check_keys(&self) -> Result<(), Rule> {
        let aliases: BTreeSet<&str> = self
            .select
            .iter()
            .filter_map(|item| match (&item.alias, &item.expr) {
                (Some(alias), Expr::Column(name)) if alias == name => None,
                (alias, _) => alias.as_deref(),
            })
            .collect();
        if self
            .group_by
            .iter()
            .any(|key| !key.columns().is_disjoint(&aliases))
        {
            return Err("GROUP BY names no alias of SELECT: write the expression out");
        }
        let nested = |order: &&Order| !matches!(order.expr, Expr::Column(_));
        let mut keys = self.order_by.iter().filter(nested);
        if keys.any(|order| !order.expr.columns().is_disjoint(&aliases)) {
            return Err("ORDER BY names an alias of SELECT only alone, not in an expression");
        }
        Ok(())
    }
}

impl Expr {
    /// Whether the expression may stand as the filter of a query.
    pub fn check_filter(&self) -> Result<(), BorderError> {
        self.check(Clause::Where)?;
        write!(Room(MAX_BYTES), "{self}").map_err(|fmt::Error| BorderError::TooLong)
    }

    fn check(&self, clause: Clause) -> Result<(), BorderError> {
        for (expr, depth) in self.nodes() {
            if depth > MAX_DEPTH {
                return Err(BorderError::TooDeep { at: None });
            }
            node(expr, clause).map_err(nowhere)?;
        }
        key(self, clause).map_err(nowhere)
    }
}

/// The rule that this one expression breaks, its operands left aside.
pub(super) fn node(expr: &Expr, clause: Clause) -> Result<(), Rule> {
    match expr {
        Expr::Literal(value) => literal::check(value),
        Expr::Column(column) => name(column),
        Expr::In { list, .. } => {
            if !(1..=MAX_IN).contains(&list.len()) {
                return Err("IN lists 1 to 1,000 constants");
            }
            list.iter().try_for_each(literal::check)
        }
        Expr::Like { pattern, .. } => like_pattern(pattern),
        Expr::Case { branches, .. } if branches.is_empty() => Err("CASE has at least one WHEN"),
        Expr::Cast {
            to: Type::Decimal { precision, scale },
            ..
        } => literal::check_digits(*precision, *scale),
        Expr::Call { function, args } => call(*function, args),
        Expr::Aggregate { function, arg } => aggregate(*function, arg.as_deref(), clause),
        _ => Ok(()),
    }
}

/// The rule that `expr` breaks as a whole, as a key to sort or group by.
pub(super) fn key(expr: &Expr, clause: Clause) -> Result<(), Rule> {
    let is_key = matches!(clause, Clause::GroupBy | Clause::OrderBy);
    let varies = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Aggregate { .. });
    if is_key && !expr.nodes().any(|(expr, _)| varies(expr)) {
        // SQL would take a bare number as the position of an item.
        return Err("a key of GROUP BY or ORDER BY is no constant");
    }
    Ok(())
}

/// The rule that an identifier breaks.
pub(super) fn name(name: &str) -> Result<(), Rule> {
    if name.is_empty() || name.contains('\0') {
        return Err("a name is not empty and holds no NUL character");
    }
    Ok(())
}

/// Engines disagree on what a backslash before any other character means.
pub(super) fn like_pattern(pattern: &str) -> Result<(), Rule> {
    if pattern.contains('\0') {
        return Err(literal::NO_NUL);
    }
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && !matches!(chars.next(), Some('%' | '_' | '\\')) {
            return Err(r"in a LIKE pattern, % or _ or \ follows each \");
        }
    }
    Ok(())
}

fn call(function: Function, args: &[Expr]) -> Result<(), Rule> {
    if !function.takes(args.len()) {
        return Err("a function has as many arguments as it takes");
    }
    let units = function.units();
    let unit_fits = match args.first() {
        Some(Expr::Literal(Literal::Text(unit))) => units.contains(&unit.as_str()),
        _ => false,
    };
    if units.is_empty() || unit_fits {
        Ok(())
    } else {
        Err("the first argument of date_trunc and date_part is a unit, such as 'month'")
    }
}

fn aggregate(function: Aggregate, arg: Option<&Expr>, clause: Clause) -> Result<(), Rule> {
    if !matches!(clause, Clause::Select | Clause::OrderBy) {
        return Err("aggregates stand in SELECT and ORDER BY only");
    }
    match arg {
        None if function != Aggregate::Count => Err("the star is for count alone"),
        Some(arg) if arg.has_aggregates() => Err("no aggregate stands within another"),
        _ => Ok(()),
    }
}

fn nowhere(rule: Rule) -> BorderError {
    BorderError::Forbidden { at: None, rule }
}

/// Counts down the bytes that may still be written, and keeps none of them.
struct Room(usize);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
