//! The session in which border queries are planned: made once, with as little in it as can be.
//!
//! A border query is one `SELECT` over one table in one partition. The rules that the engine
//! has for joins, subqueries, unions, windows and many partitions would find nothing to do, and
//! looking takes longer than to answer a small query.

use std::sync::{Arc, LazyLock};

use datafusion::common::DataFusionError;
use datafusion::config::Dialect;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::combine_partial_final_agg::CombinePartialFinalAggregate;
use datafusion::physical_optimizer::ensure_coop::EnsureCooperative;
use datafusion::physical_optimizer::limit_pushdown::LimitPushdown;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use jingwei_proto::border::Query;

use super::catalog::{CATALOG, QueryCatalog};
use super::functions;
use super::guard::GuardedTable;
use super::limits::Limits;
use super::seats::Seat;
use super::types::SqlTypes;

/// Plans the text of `query` where `table` is all there is.
pub async fn plan(
    query: &Query,
    table: GuardedTable,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let dataset = &query.from.dataset;
    let name = format!("{}@{}", dataset.name, query.from.version);
    let mut catalog = QueryCatalog::default();
    catalog.add(dataset.agency.as_str(), &name, Arc::new(table));
    let mut state = TEMPLATE.clone();
    state.register_catalog_list(Arc::new(catalog));
    let statement = state.sql_to_statement(&query.to_string(), &Dialect::Generic)?;
    let plan = state.statement_to_plan(statement).await?;
    state.create_physical_plan(&plan).await
}

/// What a planned query runs in.
pub fn context(limits: &Limits, seat: &Seat) -> Arc<TaskContext> {
    let context = TaskContext::from(&*TEMPLATE);
    Arc::new(context.with_runtime(seat.runtime(limits.memory)))
}

static TEMPLATE: LazyLock<SessionState> = LazyLock::new(|| {
    SessionStateBuilder::new()
        .with_session_id("border".to_owned())
        .with_config(config())
        .with_catalog_list(Arc::new(QueryCatalog::default()))
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_type_planner(Arc::new(SqlTypes))
        .with_scalar_functions(functions::border_scalars())
        .with_aggregate_functions(functions::border_aggregates())
        .with_optimizer_rules(rules())
        .with_physical_optimizer_rules(physical_rules())
        .build()
});

/// One partition: a provider's cores serve askers side by side, not one query at a time.
fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, "public")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_batch_size(super::file::BATCH_ROWS)
        .with_target_partitions(1);
    let options = config.options_mut();
    super::settle_sql(options);
    // In the order below each rule finds all it can in one pass.
    options.optimizer.max_passes = 1;
    config
}

fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        // Constants are to be constants before the leaf is asked whether it takes a filter.
        Arc::new(SimplifyExpressions::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}

fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    vec![
        Arc::new(CombinePartialFinalAggregate::new()),
        Arc::new(LimitPushdown::new()),
        // Gives way between batches, which is what lets a time-out or a hang-up take effect.
        Arc::new(EnsureCooperative::new()),
        Arc::new(SanityCheckPlan::new()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With all of the engine's rules a small query takes tens of milliseconds to plan.
    #[test]
    fn a_border_query_is_planned_by_few_rules_in_one_pass() {
        let names = |all: &[Arc<dyn OptimizerRule + Send + Sync>]| -> Vec<String> {
            all.iter().map(|rule| rule.name().to_owned()).collect()
        };
        assert_eq!(names(TEMPLATE.optimizers()), names(&rules()));
        let physical = |all: &[Arc<dyn PhysicalOptimizerRule + Send + Sync>]| -> Vec<String> {
            all.iter().map(|rule| rule.name().to_owned()).collect()
        };
        assert_eq!(
            physical(TEMPLATE.physical_optimizers()),
            physical(&physical_rules())
        );
        assert!(rules().len() + physical_rules().len() < 10);
        let options = TEMPLATE.config().options();
        assert_eq!(options.optimizer.max_passes, 1);
        assert_eq!(options.execution.target_partitions, 1);
    }
}
