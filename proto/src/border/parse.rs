//! Reads the one spelling of a query, by recursive descent without a tokenizer: where
//! every space is fixed, the text itself is the tokens.
//!
//! Each level of recursion is a level of the tree, and at [`MAX_DEPTH`] of them it stops.

use std::str::FromStr;

use super::ast::{Aggregate, BinaryOp, Expr, Function, Item, Literal, Order, Query, Type};
use super::rules::{self, Clause};
use super::{BorderError, MAX_BYTES, MAX_DEPTH, MAX_IN, literal};
use crate::id::{AgencyId, VersionId, parse_version};

impl Query {
    /// Reads a query in its canonical spelling; any other text is refused.
    pub fn parse(text: &str) -> Result<Query, BorderError> {
        let mut parser = Parser::new(text)?;
        let query = parser.query()?;
        parser.finish(&query.to_string())?;
        query
            .check_whole()
            .map_err(|rule| BorderError::Forbidden { at: None, rule })?;
        Ok(query)
    }
}

impl FromStr for Query {
    type Err = BorderError;

    fn from_str(text: &str) -> Result<Query, BorderError> {
        Query::parse(text)
    }
}

impl Expr {
    /// Reads an expression as it may stand in `WHERE`, in its canonical spelling: a row filter
    /// or a mask in a policy.
    pub fn parse(text: &str) -> Result<Expr, BorderError> {
        let mut parser = Parser::new(text)?;
        let expr = parser.clause(Clause::Where)?;
        parser.finish(&expr.to_string())?;
        Ok(expr)
    }
}

impl FromStr for Expr {
    type Err = BorderError;

    fn from_str(text: &str) -> Result<Expr, BorderError> {
        Expr::parse(text)
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
    clause: Clause,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>, BorderError> {
        if text.len() > MAX_BYTES {
            return Err(BorderError::TooLong);
        }
        Ok(Parser {
            text,
            at: 0,
            clause: Clause::Select,
        })
    }

    /// Demands that nothing follows, and that what was read prints as it was written.
    fn finish(&self, printed: &str) -> Result<(), BorderError> {
        if !self.rest().is_empty() {
            return self.expected("the next clause or the end of the text");
        }
        if printed == self.text {
            return Ok(());
        }
        let same = self
            .text
            .bytes()
            .zip(printed.bytes())
            .take_while(|(a, b)| a == b);
        Err(BorderError::NotCanonical { at: same.count() })
    }

    fn query(&mut self) -> Result<Query, BorderError> {
        self.need("SELECT ", "‘SELECT’ and a space")?;
        let select = self.list(Parser::item)?;
        self.need(
            " FROM ",
            "an operator, ‘AS’, a comma and a space, or ‘FROM’",
        )?;
        let from = self.version()?;
        let filter = match self.eat(" WHERE ") {
            true => Some(self.clause(Clause::Where)?),
            false => None,
        };
        let group_by = match self.eat(" GROUP BY ") {
            true => self.list(|parser| parser.clause(Clause::GroupBy))?,
            false => Vec::new(),
        };
        let order_by = match self.eat(" ORDER BY ") {
            true => self.list(Parser::order)?,
            false => Vec::new(),
        };
        let limit = match self.eat(" LIMIT ") {
            true => Some(self.limit()?),
            false => None,
        };
        Ok(Query {
            select,
            from,
            filter,
            group_by,
            order_by,
            limit,
        })
    }

    fn item(&mut self) -> Result<Item, BorderError> {
        let expr = self.clause(Clause::Select)?;
        let alias = match self.eat(" AS ") {
            true => Some(self.name()?),
            false => None,
        };
        Ok(Item { expr, alias })
    }

    fn order(&mut self) -> Result<Order, BorderError> {
        let expr = self.clause(Clause::OrderBy)?;
        let descending = self.eat(" DESC");
        if !descending {
            self.need(" ASC", "an operator, ‘ASC’ or ‘DESC’")?;
        }
        self.need(" NULLS LAST", "‘NULLS LAST’")?;
        Ok(Order { expr, descending })
    }

    fn version(&mut self) -> Result<VersionId, BorderError> {
        const WHAT: &str = "a pinned version of a dataset, like \"fr.bre.35\".\"communes@3\"";
        let start = self.at;
        let agency = self.name()?;
        self.need(".", WHAT)?;
        let dataset = self.name()?;
        let version = agency
            .parse::<AgencyId>()
            .ok()
            .and_then(|agency| format!("{agency}/{dataset}").parse().ok());
        version.map_or_else(|| self.expected_at(start, WHAT), Ok)
    }

    fn limit(&mut self) -> Result<u64, BorderError> {
        let start = self.at;
        let digits = self.take(|c| c.is_ascii_digit());
        match digits {
            "0" => Ok(0),
            _ => parse_version(digits)
                .map_or_else(|| self.expected_at(start, "a whole number up to 2^53"), Ok),
        }
    }

    /// Reads the expression that is a clause's or an entry of its list.
    fn clause(&mut self, clause: Clause) -> Result<Expr, BorderError> {
        self.clause = clause;
        let start = self.at;
        let expr = self.expr(1)?;
        if expr.nodes().any(|(_, depth)| depth > MAX_DEPTH) {
            return Err(BorderError::TooDeep { at: Some(start) });
        }
        self.rule(start, rules::key(&expr, clause))?;
        Ok(expr)
    }

    /// Reads an expression that stands between delimiters, at least `depth` deep in its tree.
    fn expr(&mut self, depth: usize) -> Result<Expr, BorderError> {
        if self.eat("NOT ") {
            return Ok(Expr::Not(Box::new(self.operand(depth + 1)?)));
        }
        if self.eat("- ") {
            return Ok(Expr::Negate(Box::new(self.operand(depth + 1)?)));
        }
        if !self.rest().starts_with('(') {
            let atom = self.atom(depth)?;
            return self.after(atom, depth);
        }
        let operand = self.operand(depth + 1)?;
        let end = self.at;
        let expr = self.after(operand, depth)?;
        if self.at == end {
            return self.expected("an operator: parentheses hold an operand only");
        }
        Ok(expr)
    }

    /// Reads the operator that follows `first`, if any, with what belongs to it.
    fn after(&mut self, first: Expr, depth: usize) -> Result<Expr, BorderError> {
        let rest = self.rest();
        let matches = |op: &BinaryOp| {
            let after = rest
                .strip_prefix(' ')
                .and_then(|rest| rest.strip_prefix(op.sql()));
            after.is_some_and(|after| after.starts_with(' '))
        };
        if let Some(op) = BinaryOp::ALL.into_iter().find(matches) {
            self.at += op.sql().len() + 2;
            return Ok(Expr::binary(op, first, self.operand(depth + 1)?));
        }
        let expr = Box::new(first);
        if self.eat(" IS NULL") {
            return Ok(Expr::IsNull {
                expr,
                negated: false,
            });
        }
        if self.eat(" IS NOT NULL") {
            return Ok(Expr::IsNull {
                expr,
                negated: true,
            });
        }
        let negated = self.eat(" NOT");
        if self.eat(" IN (") {
            return Ok(Expr::In {
                expr,
                list: self.constants()?,
                negated,
            });
        }
        if self.eat(" LIKE ") {
            let start = self.at;
            let pattern = self.quoted('\'', "a text in ' '")?;
            self.rule(start, rules::like_pattern(&pattern))?;
            return Ok(Expr::Like {
                expr,
                pattern,
                negated,
            });
        }
        if negated {
            return self.expected("‘IN’ or ‘LIKE’");
        }
        Ok(*expr)
    }

    /// Reads what stands beside an operator: in parentheses if, and only if, it is a compound.
    fn operand(&mut self, depth: usize) -> Result<Expr, BorderError> {
        if !self.eat("(") {
            return self.atom(depth);
        }
        self.within(depth)?;
        let expr = self.expr(depth)?;
        if !expr.is_compound() {
            return self.expected("an operator: parentheses hold an operation only");
        }
        self.need(")", "‘)’")?;
        Ok(expr)
    }

    /// Reads an expression that needs no parentheses anywhere.
    fn atom(&mut self, depth: usize) -> Result<Expr, BorderError> {
        let start = self.at;
        let atom = self.unchecked_atom(depth)?;
        self.rule(start, rules::node(&atom, self.clause))?;
        Ok(atom)
    }

    fn unchecked_atom(&mut self, depth: usize) -> Result<Expr, BorderError> {
        self.within(depth)?;
        if self.rest().starts_with('"') {
            return Ok(Expr::Column(self.name()?));
        }
        if self.eat("CASE") {
            return self.case(depth + 1);
        }
        if self.eat("CAST(") {
            let expr = Box::new(self.expr(depth + 1)?);
            self.need(" AS ", "an operator or ‘AS’")?;
            let to = self.cast_type()?;
            self.need(")", "‘)’")?;
            return Ok(Expr::Cast { expr, to });
        }
        let starts_name = |c: char| c.is_ascii_lowercase();
        match self.rest().starts_with(starts_name) {
            true => self.call(depth + 1),
            false => Ok(Expr::Literal(self.literal()?)),
        }
    }

    fn case(&mut self, depth: usize) -> Result<Expr, BorderError> {
        let mut branches = Vec::new();
        while self.eat(" WHEN ") {
            let condition = self.expr(depth)?;
            self.need(" THEN ", "an operator or ‘THEN’")?;
            branches.push((condition, self.expr(depth)?));
        }
        let otherwise = match self.eat(" ELSE ") {
            true => Some(Box::new(self.expr(depth)?)),
            false => None,
        };
        self.need(" END", "an operator, ‘WHEN’, ‘ELSE’ or ‘END’")?;
        Ok(Expr::Case {
            branches,
            otherwise,
        })
    }

    fn call(&mut self, depth: usize) -> Result<Expr, BorderError> {
        let start = self.at;
        let name = self.take(|c| c.is_ascii_lowercase() || c == '_');
        if let Some(function) = Aggregate::from_name(name) {
            self.need("(", "‘(’")?;
            let arg = match self.eat("*") {
                true => None,
                false => Some(Box::new(self.expr(depth)?)),
            };
            self.need(")", "an operator or ‘)’")?;
            return Ok(Expr::Aggregate { function, arg });
        }
        let Some(function) = Function::from_name(name) else {
            return self.expected_at(start, "a function or aggregate of border grammar 1");
        };
        self.need("(", "‘(’")?;
        let args = self.list(|parser| parser.expr(depth))?;
        self.need(")", "an operator, a comma and a space, or ‘)’")?;
        Ok(Expr::Call { function, args })
    }

    fn cast_type(&mut self) -> Result<Type, BorderError> {
        if self.eat("DECIMAL(") {
            let (precision, scale) = self.digits()?;
            return Ok(Type::Decimal { precision, scale });
        }
        match Type::PLAIN.into_iter().find(|plain| self.eat(plain.name())) {
            Some(plain) => Ok(plain),
            None => self.expected(
                "BOOLEAN, BIGINT, DOUBLE, DECIMAL(precision, scale), TEXT, DATE or TIMESTAMP",
            ),
        }
    }

    /// Reads `precision, scale)`.
    fn digits(&mut self) -> Result<(u8, u8), BorderError> {
        const WHAT: &str = "digits in all and after the point, like (10, 2)";
        let start = self.at;
        let precision = self.take(|c| c.is_ascii_digit()).parse().ok();
        self.need(", ", WHAT)?;
        let scale = self.take(|c| c.is_ascii_digit()).parse().ok();
        self.need(")", WHAT)?;
        precision
            .zip(scale)
            .map_or_else(|| self.expected_at(start, WHAT), Ok)
    }

    /// Reads the rest of an `IN`, up to its `)`.
    fn constants(&mut self) -> Result<Vec<Literal>, BorderError> {
        let mut list = Vec::new();
        loop {
            let start = self.at;
            if list.len() == MAX_IN {
                return self.expected("‘)’ after 1,000 constants");
            }
            let value = self.literal()?;
            self.rule(start, literal::check(&value))?;
            list.push(value);
            if !self.eat(", ") {
                self.need(")", "a comma and a space, or ‘)’")?;
                return Ok(list);
            }
        }
    }

    fn literal(&mut self) -> Result<Literal, BorderError> {
        let start = self.at;
        if self.rest().starts_with('\'') {
            return Ok(Literal::Text(self.quoted('\'', "a text in ' '")?));
        }
        if self
            .rest()
            .starts_with(|c: char| c == '-' || c.is_ascii_digit())
        {
            let number = self.take(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | 'e'));
            return literal::number(number).map_or_else(
                || self.expected_at(start, "a number in its shortest form, like -5 or 1.0"),
                Ok,
            );
        }
        let plain = [
            ("NULL", Literal::Null),
            ("TRUE", Literal::Boolean(true)),
            ("FALSE", Literal::Boolean(false)),
        ];
        if let Some((_, value)) = plain.into_iter().find(|(word, _)| self.eat(word)) {
            return Ok(value);
        }
        match self.typed_literal()? {
            Some(value) => Ok(value),
            None => self.expected("a column in \" \", a constant, or a function"),
        }
    }

    /// Reads a constant that names its type.
    fn typed_literal(&mut self) -> Result<Option<Literal>, BorderError> {
        const DATE: &str = "a date like '2024-05-01'";
        const TIMESTAMP: &str = "a timestamp like '2024-05-01T12:00:00Z'";
        const DECIMAL: &str = "a decimal with as many digits after the point as its type says";
        let value = if self.eat("DATE ") {
            self.quoted_as(DATE, literal::date).map(Literal::Date)?
        } else if self.eat("TIMESTAMP ") {
            self.quoted_as(TIMESTAMP, literal::timestamp)
                .map(Literal::Timestamp)?
        } else if self.eat("DECIMAL(") {
            let (precision, scale) = self.digits()?;
            self.need(" ", DECIMAL)?;
            let read = |text: &str| literal::decimal(text, precision, scale);
            self.quoted_as(DECIMAL, read).map(Literal::Decimal)?
        } else {
            return Ok(None);
        };
        Ok(Some(value))
    }

    fn quoted_as<T>(
        &mut self,
        what: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, BorderError> {
        let start = self.at;
        let text = self.quoted('\'', what)?;
        read(&text).map_or_else(|| self.expected_at(start, what), Ok)
    }

    fn name(&mut self) -> Result<String, BorderError> {
        let start = self.at;
        let name = self.quoted('"', "a name in \" \"")?;
        self.rule(start, rules::name(&name))?;
        Ok(name)
    }

    /// Reads what stands between two `quote`s, where a doubled one stands for itself.
    fn quoted(&mut self, quote: char, what: &'static str) -> Result<String, BorderError> {
        let start = self.at;
        if !self.rest().starts_with(quote) {
            return self.expected(what);
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let Some(end) = rest.find(quote) else {
                return self.expected_at(start, what);
            };
            text.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.rest().starts_with(quote) {
                return Ok(text);
            }
            self.at += 1;
            text.push(quote);
        }
    }

    fn list<T>(
        &mut self,
        mut entry: impl FnMut(&mut Self) -> Result<T, BorderError>,
    ) -> Result<Vec<T>, BorderError> {
        let mut list = vec![entry(self)?];
        while self.eat(", ") {
            list.push(entry(self)?);
        }
        Ok(list)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn eat(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn need(&mut self, token: &str, what: &'static str) -> Result<(), BorderError> {
        match self.eat(token) {
            true => Ok(()),
            false => self.expected(what),
        }
    }

    fn within(&self, depth: usize) -> Result<(), BorderError> {
        match depth <= MAX_DEPTH {
            true => Ok(()),
            false => Err(BorderError::TooDeep { at: Some(self.at) }),
        }
    }

    fn rule(&self, at: usize, checked: Result<(), &'static str>) -> Result<(), BorderError> {
        checked.map_err(|rule| BorderError::Forbidden { at: Some(at), rule })
    }

    fn expected<T>(&self, what: &'static str) -> Result<T, BorderError> {
        self.expected_at(self.at, what)
    }

    fn expected_at<T>(&self, at: usize, expected: &'static str) -> Result<T, BorderError> {
        // A person needs to see where, not to have the whole text repeated.
        let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let found = self.text[at..].chars().take(24).map(printable).collect();
        Err(BorderError::Syntax {
            at,
            expected,
            found,
        })
    }
}
