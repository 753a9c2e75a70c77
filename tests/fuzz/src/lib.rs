//! What must hold for whatever bytes a stranger sends: one property for each format.
//!
//! Each function takes any bytes at all and panics when its property does not hold. That
//! nothing panics is the least of it: what is read prints as it was read, what is refused stays
//! refused when it is written another way, and what was changed no longer verifies.
//!
//! The fuzz targets hand their input over to these functions and do nothing else. The test
//! suite runs the same functions over the seeds and thousands of mutations of them.

// In this package what comes from the workspace needs no documentation of its own.
#![allow(missing_docs)]

mod archive;
mod evidence;
mod log;
mod proofs;
mod query;
mod statement;
mod witness;

pub use archive::archive;
pub use evidence::evidence;
pub use log::{bundle, checkpoint, merkle, note, tile_path, tlog_proof};
pub use proofs::{misbehaviour, snapshot_proof};
pub use query::{border, id};
pub use statement::{apply, envelope, json, leaf, statement};
pub use witness::{policy, witness_answer, witness_request};

/// A property by the name of its fuzz target and of its directory of seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("apply", apply),
    ("archive", archive),
    ("border", border),
    ("bundle", bundle),
    ("checkpoint", checkpoint),
    ("envelope", envelope),
    ("evidence", evidence),
    ("id", id),
    ("json", json),
    ("leaf", leaf),
    ("merkle", merkle),
    ("misbehaviour", misbehaviour),
    ("note", note),
    ("policy", policy),
    ("snapshot_proof", snapshot_proof),
    ("statement", statement),
    ("tile_path", tile_path),
    ("tlog_proof", tlog_proof),
    ("witness_answer", witness_answer),
    ("witness_request", witness_request),
];
