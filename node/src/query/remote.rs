//! A table that another agency holds: scanning it asks that agency one border query.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr as Engine, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jingwei_proto::border::{Aggregate, Expr, Item, Query};
use jingwei_proto::id::VersionId;

use super::convert;
use super::error::QueryError;
use super::file::BATCH_ROWS;

/// Asks an agency one border query: an exchange, with all its messages.
pub trait Asker: fmt::Debug + Send + Sync {
    /// The batches of the answer, whose columns are to have the types of `schema` in its order.
    /// Nothing is sent before the stream is polled; dropping it tells the provider to stop.
    /// Errors are [`QueryError`]s, so that they reach the user as what they are.
    fn ask(&self, query: Query, schema: SchemaRef) -> BoxStream<'static, Result<RecordBatch>>;
}

/// One version of another agency's dataset, as a table.
#[derive(Debug)]
pub struct RemoteTable {
    version: VersionId,
    schema: SchemaRef,
    asker: Arc<dyn Asker>,
}

impl RemoteTable {
    /// The table `version`, which by its manifest has `schema`, to be asked through `asker`.
    pub fn new(version: VersionId, schema: SchemaRef, asker: Arc<dyn Asker>) -> RemoteTable {
        RemoteTable {
            version,
            schema,
            asker,
        }
    }

    /// The border query of a scan.
    fn query(&self, columns: &[usize], filters: &[Engine], limit: Option<usize>) -> Result<Query> {
        let filters = filters
            .iter()
            .map(|filter| convert::filter(filter, &self.schema))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| DataFusionError::Internal("a filter that was not accepted".into()))?;
        let column = |&place: &usize| Item {
            expr: Expr::column(self.schema.field(place).name()),
            alias: None,
        };
        let counts = columns.is_empty();
        let query = Query {
            select: if counts {
                vec![count()]
            } else {
                columns.iter().map(column).collect()
            },
            from: self.version.clone(),
            filter: Expr::all(filters),
            group_by: Vec::new(),
            order_by: Vec::new(),
            // A limit counts rows, not the one row that holds their number.
            limit: limit.filter(|_| !counts).map(|limit| limit as u64),
        };
        query
            .check()
            .map_err(|error| QueryError::wrong(error.to_string()))?;
        Ok(query)
    }
}

/// Where no column is wanted, the provider counts: one row travels instead of all.
fn count() -> Item {
    let count = Expr::Aggregate {
        function: Aggregate::Count,
        arg: None,
    };
    Item {
        expr: count,
        alias: Some("rows".to_owned()),
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Accepts filters while they all fit into one query's text together; the rest is left to
    /// the asker's own engine.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Engine],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let mut room = FILTER_BYTES;
        let mut nodes = convert::MAX_FILTERS;
        let mut decide = |filter: &&Engine| {
            let size = convert::filter(filter, &self.schema).map(|expr| expr.to_string().len());
            let left = size.and_then(|size| Some((room.checked_sub(size)?, nodes.checked_sub(1)?)));
            match left {
                Some(left) => {
                    (room, nodes) = left;
                    TableProviderFilterPushDown::Exact
                }
                None => TableProviderFilterPushDown::Unsupported,
            }
        };
        Ok(filters.iter().map(&mut decide).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Engine],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema.fields().len()).collect();
        let columns = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema.project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(RemoteExec {
            query: self.query(&columns, filters, limit)?,
            limit,
            asker: Arc::clone(&self.asker),
            properties: Arc::new(properties),
        }))
    }
}

/// Bytes of filters in one query: half of what a query may have, since joining them and the
/// columns' names take room too.
const FILTER_BYTES: usize = jingwei_proto::border::MAX_BYTES / 2;

/// The leaf: one exchange.
#[derive(Debug)]
struct RemoteExec {
    query: Query,
    limit: Option<usize>,
    asker: Arc<dyn Asker>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for RemoteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteExec: {}", self.query)
    }
}

impl ExecutionPlan for RemoteExec {
    fn name(&self) -> &str {
        "RemoteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        // The provided method would claim every filter for a node without children.
        Ok(FilterPushdownPropagation::all_unsupported(result))
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = Arc::clone(self.properties.equivalence_properties().schema());
        let agency = self.query.from.dataset.agency.to_string();
        let batches = if schema.fields().is_empty() {
            self.counted(Arc::clone(&schema), agency)
        } else {
            let wanted = Arc::clone(&schema);
            let answer = self.asker.ask(self.query.clone(), Arc::clone(&schema));
            let batches =
                answer.map(move |batch| batch.and_then(|batch| conform(&batch, &wanted, &agency)));
            hold_last_back(batches.boxed())
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl RemoteExec {
    /// As many rows without columns as the provider counts.
    fn counted(
        &self,
        schema: SchemaRef,
        agency: String,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let counts = Arc::new(Schema::new(vec![Field::new("rows", DataType::Int64, true)]));
        let answer = self.asker.ask(self.query.clone(), Arc::clone(&counts));
        let limit = self.limit.unwrap_or(usize::MAX);
        let number = async move {
            let batches: Vec<RecordBatch> = answer.try_collect().await?;
            let rows = single_count(&batches)
                .ok_or_else(|| incomplete(&agency, "it did not answer with the number of rows"))?;
            let rows = rows.min(limit);
            Ok::<_, DataFusionError>(stream::iter(empty_rows(schema, rows)))
        };
        stream::once(number).try_flatten().boxed()
    }
}

fn single_count(batches: &[RecordBatch]) -> Option<usize> {
    let mut filled = batches.iter().filter(|batch| batch.num_rows() > 0);
    let (batch, None) = (filled.next()?, filled.next()) else {
        return None;
    };
    let counts = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
    (counts.len() == 1 && counts.is_valid(0)).then_some(())?;
    usize::try_from(counts.value(0)).ok()
}

fn empty_rows(schema: SchemaRef, rows: usize) -> impl Iterator<Item = Result<RecordBatch>> {
    (0..rows.div_ceil(BATCH_ROWS)).map(move |batch| {
        let size = BATCH_ROWS.min(rows - batch * BATCH_ROWS);
        let options = RecordBatchOptions::new().with_row_count(Some(size));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&schema),
            Vec::new(),
            &options,
        )?)
    })
}

/// The batches of `answer`, each handed on only when what follows it has come. An engine that
/// has counted as many rows as its limit asks no further; so the exchange, whose receipt comes
/// after the last row, is over before that row is seen.
fn hold_last_back(
    answer: BoxStream<'static, Result<RecordBatch>>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let start = (Some(answer), None);
    stream::try_unfold(
        start,
        |(answer, mut held): (Option<BoxStream<_>>, _)| async move {
            let Some(mut answer) = answer else {
                return Ok(None);
            };
            loop {
                match (answer.try_next().await?, held) {
                    (Some(next), None) => held = Some(next),
                    (Some(next), Some(ready)) => {
                        return Ok(Some((ready, (Some(answer), Some(next)))));
                    }
                    (None, Some(last)) => return Ok(Some((last, (None, None)))),
                    (None, None) => return Ok(None),
                }
            }
        },
    )
    .boxed()
}

/// The batch under the schema that the manifest promises, or whose fault it is.
fn conform(batch: &RecordBatch, schema: &SchemaRef, agency: &str) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec())
        .map_err(|_| incomplete(agency, "its columns are not those of the manifest").into())
}

fn incomplete(agency: &str, reason: &str) -> QueryError {
    QueryError::Incomplete {
        agency: agency.to_owned(),
        reason: reason.to_owned(),
    }
}
