//! What a dataset's rows must look like and what their figures mean.
//!
//! ```text
//! schema bytes ──► TableSchema ──► columns: kind, unit, definition, grain, …
//!                      │
//! CSV text ──► Cell ───┤ validate_cells ──► nothing, or what is wrong and where
//! JSON row ────────────┘ validate_row
//! ```
//!
//! A schema is a JSON Schema 2020-12 for one flat row, with annotations that carry what a
//! figure means. The `jsonschema` crate judges every row; a row that came from CSV is shown
//! to it through a representation of our own ([`Cell`]), so that no JSON is built for the
//! hundreds of thousands of rows that are right.
//!
//! Out of scope here: files, compression, Arrow and Parquet, the network, signing.

mod annotation;
pub mod calendar;
mod cell;
mod column;
mod compile;
mod error;
mod header;
mod keyword;
mod nearest;
pub mod pack;
mod row;
mod schema;
mod shape;
mod unit;
mod violation;

pub use annotation::{Additive, Facet, Reference};
pub use cell::Cell;
pub use column::{Column, ColumnKind};
pub use error::SchemaError;
pub use header::HeaderError;
pub use nearest::nearest;
pub use schema::{MAX_BYTES as MAX_SCHEMA_BYTES, TableSchema};
pub use violation::Violation;
