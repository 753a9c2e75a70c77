//! The asker's side: full SQL over the tables of many agencies.
//!
//! ```text
//! SQL ─► one query that reads ─► names ─► tables from the resolver ─► plan ─► run ─► limits ─► batches
//! ```
//!
//! The session holds no tables. It asks its [`Resolver`] for those that the query names, and
//! plans over them alone: nothing else can be reached, neither files nor settings.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, SessionStateDefaults, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::Query;

use super::catalog::{CATALOG, QueryCatalog};
use super::error::QueryError;
use super::functions;
use super::limits::{Limits, bounded};
use super::names::{self, Missing};
use super::seats::Seat;
use super::statement;
use super::types::SqlTypes;

/// Knows which tables there are, and how to reach their rows.
#[async_trait]
pub trait Resolver: std::fmt::Debug + Send + Sync {
    /// The table of that name (`communes` for the latest version, `communes@3` for the third),
    /// `None` if there is none.
    async fn table(
        &self,
        agency: &str,
        table: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError>;

    /// The agencies that publish anything.
    fn agencies(&self) -> Vec<String>;

    /// The datasets of one agency.
    fn tables(&self, agency: &str) -> Vec<String>;

    /// The number of a dataset's newest version, if there is one.
    fn newest(&self, agency: &str, table: &str) -> Option<u64>;
}

/// Runs one user's queries.
#[derive(Debug)]
pub struct Session {
    resolver: Arc<dyn Resolver>,
    limits: Limits,
}

impl Session {
    /// A session over the tables of `resolver`, each query of which keeps within `limits`.
    pub fn new(resolver: Arc<dyn Resolver>, limits: Limits) -> Session {
        Session { resolver, limits }
    }

    /// Runs one query on a seat. The stream's errors become [`QueryError`]s by `From`; dropping it stops
    /// the work here and at the providers.
    ///
    /// # Errors
    /// Everything that is known before the first row.
    pub async fn run(
        &self,
        sql: &str,
        seat: Seat,
    ) -> Result<(SchemaRef, SendableRecordBatchStream), QueryError> {
        let deadline = self.limits.deadline();
        let mut query = statement::parse(sql)?;
        names::fold(&mut query);
        let mut state = TEMPLATE.clone();
        // What `now()` says.
        state.mark_start_execution();
        state.register_catalog_list(Arc::new(self.resolve(&query).await?));
        let plan = plan(&state, query).await?;
        statement::reads_only(&plan)?;
        let physical = state
            .create_physical_plan(&plan)
            .await
            .map_err(QueryError::of_planning)?;
        let context = TaskContext::from(&state).with_runtime(seat.runtime(self.limits.memory));
        let physical = interruptible(physical)?;
        let rows = execute_stream(physical, Arc::new(context))?;
        let rows = bounded(rows, &self.limits, deadline, seat);
        Ok((rows.schema(), rows))
    }

    /// The tables that `query` names.
    async fn resolve(&self, query: &Query) -> Result<QueryCatalog, QueryError> {
        let parsed = statement::statement(query);
        let mut catalog = QueryCatalog::default();
        for reference in TEMPLATE.resolve_table_references(&parsed)? {
            let TableReference::Partial {
                schema: agency,
                table,
            } = &reference
            else {
                return Err(self.unknown(query, None, reference.table()));
            };
            match self.resolver.table(agency, table).await? {
                Some(found) => catalog.add(agency, table, found),
                None => return Err(self.unknown(query, Some(agency), table)),
            }
        }
        Ok(catalog)
    }

    fn unknown(&self, query: &Query, agency: Option<&str>, table: &str) -> QueryError {
        let name = match agency {
            Some(agency) => names::spell(agency, table),
            None => table.to_owned(),
        };
        let place = names::place_of(query, agency, table);
        let (line, column) = place.unzip();
        if let (Some(agency), Some((dataset, _))) = (agency, table.split_once('@'))
            && let Some(newest) = self.resolver.newest(agency, dataset)
        {
            return QueryError::UnknownVersion {
                name,
                table: names::spell(agency, dataset),
                newest,
                dataset: format!("{agency}/{dataset}"),
                line,
                column,
            };
        }
        QueryError::UnknownTable {
            name,
            silent_agency: agency.and_then(|agency| self.silent(agency)).map(Box::new),
            nearest: self.nearest(agency, table),
            line,
            column,
        }
    }

    /// The agency, if it publishes nothing, and those with similar ids that do.
    fn silent(&self, agency: &str) -> Option<(String, Vec<String>)> {
        let all = self.resolver.agencies();
        let near = || jingwei_schemas::nearest(agency, all.iter().map(String::as_str));
        let publishes = all.iter().any(|other| other == agency);
        (!publishes).then(|| (agency.to_owned(), near()))
    }

    /// Tables of that agency with a similar name, or else that name at any agency, or else a
    /// similar name altogether.
    fn nearest(&self, agency: Option<&str>, table: &str) -> Vec<String> {
        let dataset = table.split('@').next().unwrap_or(table);
        let spell = |agency: &str, table: &str| names::spell(agency, table);
        if let Some(agency) = agency {
            let own = self.resolver.tables(agency);
            let near = jingwei_schemas::nearest(dataset, own.iter().map(String::as_str));
            if !near.is_empty() {
                return near.iter().map(|table| spell(agency, table)).collect();
            }
        }
        let all: Vec<(String, String)> = self
            .resolver
            .agencies()
            .into_iter()
            .flat_map(|agency| {
                let tables = self.resolver.tables(&agency);
                tables.into_iter().map(move |table| (agency.clone(), table))
            })
            .collect();
        let same = all.iter().filter(|(_, other)| other == dataset);
        let same: Vec<String> = same.map(|(agency, table)| spell(agency, table)).collect();
        if !same.is_empty() {
            return same.into_iter().take(5).collect();
        }
        let plain = |agency: &str, table: &str| format!("{agency}.{table}");
        let written = plain(agency.unwrap_or_default(), dataset);
        let spelled: Vec<String> = all
            .iter()
            .map(|(agency, table)| plain(agency, table))
            .collect();
        let near = jingwei_schemas::nearest(&written, spelled.iter().map(String::as_str));
        let place = |name: &String| spelled.iter().position(|other| other == name);
        near.iter()
            .filter_map(place)
            .map(|place| spell(&all[place].0, &all[place].1))
            .collect()
    }
}

/// What all sessions begin with, made once: hundreds of functions take longer to register than a
/// small query takes to answer.
static TEMPLATE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut scalars = SessionStateDefaults::default_scalar_functions();
    // Last, so that these are the ones whatever else the engine is built with.
    scalars.extend(functions::numeric());
    SessionStateBuilder::new()
        .with_session_id("question".to_owned())
        .with_config(config())
        .with_catalog_list(Arc::new(QueryCatalog::default()))
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_type_planner(Arc::new(SqlTypes))
        .with_scalar_functions(scalars)
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .build()
});

/// The plan with joins that give way to others after every so many batches. What reads a table does
/// so by itself, but one batch of a table may be joined with millions of rows, and until it is,
/// neither a limit of time nor somebody who goes away would be noticed. A loop over two tables that
/// finds nothing gives way to nobody still: it is within the library.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let wrapped = plan.transform_up(|node| {
        Ok(if node.name().ends_with("JoinExec") {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    });
    wrapped.data()
}

/// Plans, mending columns' case one by one as they turn out to be missing.
async fn plan(state: &SessionState, mut query: Box<Query>) -> Result<LogicalPlan, QueryError> {
    for _ in 0..MAX_MENDS {
        let error = match state.statement_to_plan(statement::statement(&query)).await {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        match Missing::from_error(&error) {
            Some(missing) if missing.mend(&mut query) => {}
            Some(missing) => return Err(missing.into_error()),
            None => return Err(place_error(error)),
        }
    }
    Err(QueryError::wrong(
        "too many columns are written in another case than they have",
    ))
}

/// Each costs one more planning, of about a millisecond.
const MAX_MENDS: usize = 200;

/// The error, with the place that the planner tells beside it.
fn place_error(error: DataFusionError) -> QueryError {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    match (QueryError::of_planning(error), span) {
        (
            QueryError::WrongSql {
                message,
                line: None,
                ..
            },
            Some(span),
        ) => QueryError::WrongSql {
            message,
            line: Some(span.start.line),
            column: Some(span.start.column),
        },
        (error, _) => error,
    }
}

fn config() -> SessionConfig {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, "public")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_batch_size(super::file::BATCH_ROWS)
        .with_target_partitions(cores.min(4));
    let options = config.options_mut();
    super::settle_sql(options);
    options.execution.enable_recursive_ctes = false;
    options.sql_parser.collect_spans = true;
    config
}
