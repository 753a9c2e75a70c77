//! The opaque leaf: where policy meets data, below which no stranger's expression is evaluated.
//!
//! ```text
//!   project, group, sort, limit        the border query's own work
//!   filter                             conditions that a row can make fail
//! ─────────────────────────────────    GuardExec: nothing crosses this line but
//!   3 column op constant               total predicates, which no row can make fail
//!   2 masks                            (none yet)
//!   1 row filter                       (none yet)
//!   0 permit                           or no row is read at all
//!   Parquet
//! ```
//!
//! A filter node would be no barrier: the optimiser merges and reorders conditions through it,
//! and an error message can then quote a hidden value. This leaf takes no expression that is
//! not a [`Predicate`], tells no statistics, and stops early for a limit only when it filters
//! nothing, so that neither errors nor counts nor the time taken speak of rows left out.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::{and_kleene, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::stream;
use jingwei_proto::id::VersionId;

use super::file::{DataFile, FileError};
use super::permit::Permit;
use super::predicate::Predicate;
use super::provide::ProvideError;

/// One version of a dataset, with the permit of the one who asks.
#[derive(Debug, Clone)]
pub struct GuardedTable {
    version: VersionId,
    schema: SchemaRef,
    files: Arc<[Arc<DataFile>]>,
    permit: Permit,
}

impl GuardedTable {
    /// `version`, whose rows are those of `files` in turn, for the one whom `permit` names.
    ///
    /// # Errors
    /// [`ProvideError::Damaged`] if there is no file or their columns differ.
    pub fn new(
        version: VersionId,
        files: Vec<Arc<DataFile>>,
        permit: Permit,
    ) -> Result<GuardedTable, ProvideError> {
        let schema = files.first().map(|file| Arc::clone(file.schema()));
        let schema = schema.ok_or(ProvideError::Damaged)?;
        if files.iter().any(|file| *file.schema() != schema) {
            return Err(ProvideError::Damaged);
        }
        Ok(GuardedTable {
            version,
            schema,
            files: files.into(),
            permit,
        })
    }

    /// The version that it holds.
    pub fn version(&self) -> &VersionId {
        &self.version
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The permit that the leaf will enforce.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }
}

#[async_trait]
impl TableProvider for GuardedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let decide = |filter: &&Expr| match Predicate::from_expr(filter, &self.schema) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(decide).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicates = filters
            .iter()
            .map(|filter| Predicate::from_expr(filter, &self.schema))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| DataFusionError::Internal("a filter that was not accepted".into()))?;
        let fetch = limit.filter(|_| predicates.is_empty());
        let all = || (0..self.schema.fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let schema = Arc::new(self.schema.project(&projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(GuardExec {
            table: self.clone(),
            projection,
            predicates,
            fetch,
            properties: Arc::new(properties),
        }))
    }
}

/// The leaf itself. It has no children and lets no rule of the optimiser change it.
#[derive(Debug)]
struct GuardExec {
    table: GuardedTable,
    projection: Vec<usize>,
    predicates: Vec<Predicate>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "GuardExec: {}, predicates={}",
            self.table.version,
            self.predicates.len()
        )
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &str {
        "GuardExec"
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
        self.table.permit.check().map_err(ProvideError::Refused)?;
        let scan = Scan {
            schema: Arc::clone(self.properties.equivalence_properties().schema()),
            read: self.columns_to_read(),
            projection: self.projection.clone(),
            predicates: self.predicates.clone(),
        };
        let batches = scan.run(Arc::clone(&self.table.files), self.fetch);
        let schema = Arc::clone(self.properties.equivalence_properties().schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            schema,
            stream::iter(batches),
        )))
    }
}

impl GuardExec {
    /// What the answer shows and what the predicates look at, ascending.
    fn columns_to_read(&self) -> Vec<usize> {
        let looked_at = self.predicates.iter().map(Predicate::column);
        let mut columns: Vec<usize> = self.projection.iter().copied().chain(looked_at).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// One reading of the files.
struct Scan {
    schema: SchemaRef,
    /// Places in the file's schema, ascending, of the columns that a batch read holds.
    read: Vec<usize>,
    projection: Vec<usize>,
    predicates: Vec<Predicate>,
}

impl Scan {
    fn run(
        self,
        files: Arc<[Arc<DataFile>]>,
        fetch: Option<usize>,
    ) -> impl Iterator<Item = Result<RecordBatch>> {
        let mut waiting = 0..files.len();
        let mut reader = None;
        let mut left = fetch.unwrap_or(usize::MAX);
        std::iter::from_fn(move || {
            loop {
                if left == 0 {
                    return None;
                }
                let Some(batches) = &mut reader else {
                    let file = &files[waiting.next()?];
                    match self.open(file, fetch.map(|_| left)) {
                        Ok(opened) => reader = Some(opened),
                        Err(error) => return Some(Err(error)),
                    }
                    continue;
                };
                match batches.next() {
                    None => reader = None,
                    Some(batch) => match batch.and_then(|batch| self.finish(&batch)) {
                        // An empty batch goes up too, so that a search for few rows
                        // in many can be stopped between batches.
                        Ok(batch) => {
                            left = left.saturating_sub(batch.num_rows());
                            return Some(Ok(batch));
                        }
                        Err(error) => {
                            tracing::error!(%error, "a stored dataset cannot be read");
                            left = 0;
                            return Some(Err(ProvideError::Damaged.into()));
                        }
                    },
                }
            }
        })
    }

    fn open(
        &self,
        file: &DataFile,
        rows: Option<usize>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<>> {
        let groups = self.groups(file);
        file.read(&self.read, groups, rows)
            .map_err(|error: FileError| {
                tracing::error!(%error, "a stored dataset cannot be read");
                ProvideError::Damaged.into()
            })
    }

    /// The row groups that may hold rows for the answer. Only predicates decide here, never a
    /// row filter: which groups are read shows in the time taken.
    fn groups(&self, file: &DataFile) -> Vec<usize> {
        let metadata = file.metadata();
        let mut groups: Vec<usize> = (0..metadata.metadata().num_row_groups()).collect();
        for predicate in &self.predicates {
            if let Ok(Some(may_hold)) = predicate.may_hold(metadata, file.schema()) {
                groups.retain(|&group| may_hold.is_null(group) || may_hold.value(group));
            }
        }
        groups
    }

    /// Applies policy and predicates to a batch as read, and leaves the columns asked for.
    fn finish(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        // Row filter first, then masks, then what the asker wants to know: in this order.
        let batch = self.select(batch)?;
        let columns = self.projection.iter().map(|wanted| {
            let place = self.read.binary_search(wanted);
            let place = place.map_err(|_| ArrowError::SchemaError("column not read".into()))?;
            Ok(Arc::clone(batch.column(place)))
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)
    }

    fn select(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut chosen: Option<BooleanArray> = None;
        for predicate in &self.predicates {
            let place = self.read.binary_search(&predicate.column());
            let place = place.map_err(|_| ArrowError::SchemaError("column not read".into()))?;
            let holds = predicate.evaluate(batch.column(place))?;
            chosen = Some(match chosen {
                Some(chosen) => and_kleene(&chosen, &holds)?,
                None => holds,
            });
        }
        match chosen {
            Some(chosen) => filter_record_batch(batch, &chosen),
            None => Ok(batch.clone()),
        }
    }
}
