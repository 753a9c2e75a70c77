//! Rows: each is judged by the schema, and its cells go straight to their Arrow columns.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use jingwei_schemas::{Cell, TableSchema, Violation};

use super::columns::{ColumnBuilder, arrow_schema};
use super::error::{IngestError, Place, Reject};

/// What one block of a source became.
pub(super) struct Rows {
    /// How many rows were read.
    pub count: u64,
    /// The rows, `None` if any of them breaks the schema: then nothing will be written.
    pub batch: Option<RecordBatch>,
    /// Bytes of text in each row, by which the writer bounds its memory.
    pub text_bytes: Vec<u32>,
    /// What breaks the schema.
    pub rejects: Vec<Reject>,
    /// How many rows do.
    pub rejected: u64,
}

/// Judges rows and gathers them into Arrow columns.
pub(super) struct RowChecker<'s> {
    schema: &'s TableSchema,
    arrow: SchemaRef,
    builders: Vec<ColumnBuilder>,
    text_bytes: Vec<u32>,
    rejects: Vec<Reject>,
    rejected: u64,
}

impl<'s> RowChecker<'s> {
    /// A checker without rows.
    pub fn new(schema: &'s TableSchema) -> RowChecker<'s> {
        RowChecker {
            schema,
            arrow: arrow_schema(schema),
            builders: builders(schema),
            text_bytes: Vec::new(),
            rejects: Vec::new(),
            rejected: 0,
        }
    }

    /// The schema of the rows.
    pub fn schema(&self) -> &'s TableSchema {
        self.schema
    }

    /// Takes in a row: its cells in the schema's order, and what its reader found wrong with
    /// them. `place` is only asked where the row is at fault.
    pub fn row(
        &mut self,
        cells: &[Cell<'_>],
        unreadable: Vec<Violation>,
        place: impl FnOnce() -> Place,
    ) {
        self.text_bytes.push(text_bytes(cells));
        let mut violations = self.schema.validate_cells(cells);
        // A cell that could not be read is absent from the row: that it is then missing would
        // be the same fault told twice.
        violations.retain(|found| unreadable.iter().all(|other| other.column != found.column));
        violations.extend(unreadable);
        if violations.is_empty() && self.rejects.is_empty() {
            violations = self.append(cells);
        }
        if !violations.is_empty() {
            let place = place();
            self.rejected += 1;
            self.rejects.extend(
                violations
                    .into_iter()
                    .map(|violation| Reject { place, violation }),
            );
        }
    }

    /// Takes in a row whose cells are not known.
    pub fn unreadable(&mut self, place: Place, violation: Violation) {
        self.text_bytes.push(0);
        self.rejected += 1;
        self.rejects.push(Reject { place, violation });
    }

    /// The rows so far; the checker is empty again.
    pub fn take(&mut self) -> Result<Rows, IngestError> {
        let batch = if self.rejects.is_empty() {
            let columns: Vec<ArrayRef> = self
                .builders
                .iter_mut()
                .map(ColumnBuilder::finish)
                .collect();
            let batch = RecordBatch::try_new(self.arrow.clone(), columns);
            Some(batch.map_err(|error| IngestError::Defect(error.to_string()))?)
        } else {
            self.builders = builders(self.schema);
            None
        };
        let text_bytes = std::mem::take(&mut self.text_bytes);
        Ok(Rows {
            count: text_bytes.len() as u64,
            batch,
            text_bytes,
            rejects: std::mem::take(&mut self.rejects),
            rejected: std::mem::take(&mut self.rejected),
        })
    }

    /// Stores a row that the schema allows; what it allows and a column cannot hold is a
    /// violation all the same.
    fn append(&mut self, cells: &[Cell<'_>]) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (index, (builder, cell)) in self.builders.iter_mut().zip(cells).enumerate() {
            if builder.append(*cell).is_err() {
                let column = &self.schema.columns()[index];
                let value = cell
                    .to_json()
                    .map(|value| value.to_string())
                    .unwrap_or_default();
                violations.push(Violation {
                    column: Some(column.name.clone()),
                    value: value.chars().take(80).collect(),
                    rule: format!("stored as {}", column.kind),
                    message: format!("the value cannot be stored as {}", column.kind),
                });
            }
        }
        violations
    }
}

fn builders(schema: &TableSchema) -> Vec<ColumnBuilder> {
    schema
        .columns()
        .iter()
        .map(|column| ColumnBuilder::new(column.kind))
        .collect()
}

fn text_bytes(cells: &[Cell<'_>]) -> u32 {
    let texts = cells.iter().map(|cell| match cell {
        Cell::Text(text) => text.len(),
        _ => 0,
    });
    u32::try_from(texts.sum::<usize>()).unwrap_or(u32::MAX)
}
