//! What entries of a log say, read again from the log: the index holds what they led to.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::statement::Statement;

use crate::fault::{Blame, Fault};
use crate::log::LogReader;

/// The envelope of an entry.
///
/// # Errors
/// If the log has no such entry, or it cannot be read.
pub fn envelope(log: &LogReader, index: u64) -> Result<Envelope, Fault> {
    let internal = |error: &dyn std::fmt::Display| {
        Fault::new(
            Blame::Internal,
            format!("entry {index} of the log cannot be read: {error}"),
        )
    };
    let bytes = log.envelope(index).map_err(|error| internal(&error))?;
    Envelope::parse(&bytes).map_err(|error| internal(&error))
}

/// What an entry says.
///
/// # Errors
/// As [`envelope`].
pub fn statement(log: &LogReader, index: u64) -> Result<Statement, Fault> {
    let envelope = envelope(log, index)?;
    Statement::parse(envelope.payload())
        .map_err(|error| Fault::new(Blame::Internal, error.to_string()))
}
