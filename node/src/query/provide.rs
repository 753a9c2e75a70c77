//! The provider's side: plans the text of a border query where nothing but its one table is.
//!
//! ```text
//! border text ─► parse ─► plan over {one GuardedTable, allowed functions} ─► run ─► limits ─► batches
//! ```
//!
//! What is planned is the canonical text, that is, what was signed and what receipts record.
//! Everything a query does not need is left out of the session rather than forbidden in it.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, future};
use jingwei_proto::border::{BorderError, Expr, Query};

use super::border_session;
use super::guard::GuardedTable;
use super::limits::{Exceeded, Limits, bounded};
use super::permit::Denial;
use super::seats::Seat;
use super::types;

/// Why a query is not answered, by whose fault. The messages may cross the border: they hold
/// names and classes, and never a value from a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvideError {
    /// The asker may not read the dataset.
    #[error("refused: {0}")]
    Refused(Denial),
    /// The query breaks a rule of the border grammar.
    #[error(transparent)]
    Border(#[from] BorderError),
    /// The query is over another dataset version than the one it was brought to.
    #[error("the query is not over this dataset version")]
    OtherDataset,
    /// The asker names a column that is not there.
    #[error("the dataset has no column ‘{name}’")]
    UnknownColumn {
        /// The name.
        name: String,
    },
    /// The asker's expressions do not fit the columns' types, or each other.
    #[error("the query does not fit the dataset: check the types of what it compares and computes")]
    Unfit,
    /// An expression cannot be computed for some row.
    #[error(
        "the query cannot be computed for some row: a conversion, an overflow or a division by zero"
    )]
    Uncomputable,
    /// The query needs more than it may use.
    #[error(transparent)]
    Limit(#[from] Exceeded),
    /// The provider cannot read its own file.
    #[error("the provider cannot read its copy of the dataset")]
    Damaged,
}

impl From<ProvideError> for DataFusionError {
    fn from(error: ProvideError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

impl ProvideError {
    /// The class of an error that a running query's stream ended with; whatever it says of rows
    /// is left behind.
    pub fn classify(error: &DataFusionError) -> ProvideError {
        match error.find_root() {
            DataFusionError::External(cause) => {
                let own = cause.downcast_ref::<ProvideError>().cloned();
                let limit = || {
                    cause
                        .downcast_ref::<Exceeded>()
                        .cloned()
                        .map(ProvideError::Limit)
                };
                own.or_else(limit).unwrap_or(ProvideError::Uncomputable)
            }
            DataFusionError::ResourcesExhausted(_) => Exceeded::Memory.into(),
            DataFusionError::Plan(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::SchemaError(_, _)
            | DataFusionError::SQL(_, _) => ProvideError::Unfit,
            DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => ProvideError::Damaged,
            _ => ProvideError::Uncomputable,
        }
    }
}

/// Answers `query` from `table` within `limits`, on a `seat`. The stream's errors are [`ProvideError`]s
/// (see [`ProvideError::classify`]); dropping it stops the work.
///
/// # Errors
/// Everything that is known before the first row: a refusal above all.
pub async fn provide(
    query: &Query,
    table: GuardedTable,
    limits: &Limits,
    seat: Seat,
) -> Result<SendableRecordBatchStream, ProvideError> {
    let deadline = limits.deadline();
    table.permit().check().map_err(ProvideError::Refused)?;
    check(query, &table)?;
    let answer = border_session::plan(query, table).await.map_err(|error| {
        tracing::debug!(%error, "a border query cannot be planned");
        ProvideError::classify(&error)
    })?;
    let schema = answer_schema(query, &answer.schema()).ok_or(ProvideError::Unfit)?;
    let context = border_session::context(limits, &seat);
    let rows = execute_stream(answer, context).map_err(|error| ProvideError::classify(&error))?;
    Ok(bounded(settle(rows, schema), limits, deadline, seat))
}

fn check(query: &Query, table: &GuardedTable) -> Result<(), ProvideError> {
    query.check()?;
    if query.from != *table.version() {
        return Err(ProvideError::OtherDataset);
    }
    let unknown = query
        .columns()
        .into_iter()
        .find(|name| table.schema().index_of(name).is_err());
    match unknown {
        Some(name) => Err(ProvideError::UnknownColumn {
            name: name.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The answer's columns: named as the query says, in the few types that answers have, and all
/// nullable, so that the schema follows from the text and the dataset's columns alone.
fn answer_schema(query: &Query, computed: &Schema) -> Option<SchemaRef> {
    let columns = query
        .select
        .iter()
        .zip(computed.fields())
        .map(|(item, field)| {
            let name = match (&item.alias, &item.expr) {
                (Some(name), _) | (None, Expr::Column(name)) => name.clone(),
                (None, expr) => expr.to_string(),
            };
            Some(Field::new(
                name,
                types::answer_type(field.data_type())?,
                true,
            ))
        });
    Some(Arc::new(Schema::new(columns.collect::<Option<Vec<_>>>()?)))
}

/// Brings batches to the answer's schema, leaves out empty ones and strips errors of data.
fn settle(rows: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    let settled = Arc::clone(&schema);
    let batches = rows
        .map(move |batch| {
            batch
                .and_then(|batch| Ok(settle_batch(&batch, &settled)?))
                .map_err(|error| {
                    tracing::debug!(%error, "a border query failed");
                    ProvideError::classify(&error).into()
                })
        })
        .try_filter(|batch| future::ready(batch.num_rows() > 0));
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

fn settle_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
