//! What a user may say: one query that reads, and nothing else.

use std::ops::ControlFlow;

use datafusion::common::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement as Parsed};
use datafusion::sql::sqlparser::ast::{
    Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;

use super::error::QueryError;

/// How deep a user's expressions may nest.
const MAX_DEPTH: usize = 256;

/// Reads the one query in `sql`.
///
/// # Errors
/// [`QueryError::WrongSql`] if it cannot be read, [`QueryError::ReadOnly`] if it does anything
/// but read, [`QueryError::Recursive`].
pub fn parse(sql: &str) -> Result<Box<Query>, QueryError> {
    let statements = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(MAX_DEPTH)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(QueryError::from)?;
    let mut statements = statements.into_iter();
    let query = match (statements.next(), statements.next()) {
        (None, _) => return Err(QueryError::wrong("there is no query")),
        (Some(_), Some(_)) => {
            return Err(QueryError::wrong(
                "one query at a time: this is more than one statement",
            ));
        }
        (Some(statement), None) => query(statement)?,
    };
    match query.visit(&mut Refusal) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(query),
    }
}

/// The query as a statement again, for the planner.
pub fn statement(query: &Query) -> Parsed {
    Parsed::Statement(Box::new(Statement::Query(Box::new(query.clone()))))
}

fn query(statement: Parsed) -> Result<Box<Query>, QueryError> {
    let what = match statement {
        Parsed::Statement(statement) => match *statement {
            Statement::Query(query) => return Ok(query),
            other => first_words(&other.to_string()),
        },
        Parsed::CreateExternalTable(_) => "CREATE EXTERNAL TABLE".to_owned(),
        Parsed::CopyTo(_) => "COPY".to_owned(),
        Parsed::Explain(_) => "EXPLAIN".to_owned(),
        Parsed::Reset(_) => "RESET".to_owned(),
    };
    Err(QueryError::ReadOnly { what })
}

/// The verb and, if a keyword too, its object: `CREATE TABLE`, `INSERT INTO`, `SET`.
fn first_words(text: &str) -> String {
    let keyword = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    let words: Vec<&str> = text
        .split_whitespace()
        .take_while(keyword)
        .take(2)
        .collect();
    words.join(" ")
}

struct Refusal;

impl Refusal {
    fn refuse(what: &str) -> ControlFlow<QueryError> {
        ControlFlow::Break(QueryError::ReadOnly {
            what: what.to_owned(),
        })
    }
}

impl Visitor for Refusal {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return ControlFlow::Break(QueryError::Recursive);
        }
        if !query.locks.is_empty() {
            return Self::refuse("FOR UPDATE or FOR SHARE");
        }
        let writes = matches!(
            *query.body,
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
        );
        if writes {
            Self::refuse("a query that writes")
        } else {
            ControlFlow::Continue(())
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        match select.into {
            Some(_) => Self::refuse("SELECT INTO"),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<QueryError> {
        Self::refuse(&first_words(&statement.to_string()))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<QueryError> {
        let function = match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            } => name.to_string(),
            TableFactor::Function { name, .. } => name.to_string(),
            TableFactor::TableFunction { .. } => "TABLE(…)".to_owned(),
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(QueryError::wrong(format!(
            "{function} in FROM: functions that make tables are not offered here"
        )))
    }
}

/// The one place where the planner's own check is asked too: it looks at the plan, not the text.
pub fn reads_only(plan: &datafusion::logical_expr::LogicalPlan) -> Result<(), DataFusionError> {
    datafusion::execution::context::SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
}
