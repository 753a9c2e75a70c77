//! A checkpoint signed by keys that a root document names which is not here yet.
//!
//! Whoever comes back after the registry's keys were changed holds the old root, and is shown
//! checkpoints of the new keys. The new root stands in the log beyond what is here, and k of n
//! keys of the old one have signed it: so it is looked for among the entries before anything is
//! believed, and nothing is stored until the checkpoint has verified.

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::note::Note;
use jingwei_proto::state::{Lookup, keys, record};
use jingwei_proto::statement::{Predicate, Statement};
use jingwei_proto::time::Time;

use super::{ReplicaError, fetch};
use crate::index::{Batch, Index};
use crate::source::Source;

/// Verifies `note` by the first root, of those beyond `index`, under which it verifies. The log's
/// first one must be the one that was pinned.
pub(super) async fn verify(
    index: &Index,
    pinned: Digest,
    source: &Source,
    note: &str,
) -> Result<Option<(Checkpoint, Time)>, ReplicaError> {
    let shown = Note::parse(note.as_bytes()).ok();
    let Some(shown) = shown.and_then(|note| note.text.parse::<Checkpoint>().ok()) else {
        return Ok(None);
    };
    let mut batch = Batch::new(index);
    let mut at = index.size()?;
    while at < shown.size {
        let to = shown.size.min((at / 256 + 1) * 256);
        let envelopes = fetch::envelopes(source, at..to, shown.size).await?;
        for (place, bytes) in (at..to).zip(&envelopes) {
            let Some(envelope) = root_envelope(bytes) else {
                continue;
            };
            if place == 0 && envelope.payload_digest() != pinned {
                return Ok(None);
            }
            if batch.admit(place, &envelope, None).is_err() {
                continue;
            }
            let root = batch.get(keys::ROOT)?.as_deref().and_then(record);
            let verified = root.and_then(|root| CheckpointKeys::of_root(&root).verify(note).ok());
            if verified.is_some() {
                return Ok(verified);
            }
        }
        at = to;
    }
    Ok(None)
}

/// The envelope, if it holds a root document.
fn root_envelope(bytes: &[u8]) -> Option<Envelope> {
    let envelope = Envelope::parse(bytes).ok()?;
    let statement = Statement::parse(envelope.payload()).ok()?;
    matches!(statement.predicate, Predicate::Root(_)).then_some(envelope)
}
