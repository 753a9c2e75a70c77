//! A checkpoint signed by keys that a root document names which is not here yet.
//!
//! Whoever comes back after the registry's keys were changed holds the old root, and is shown
//! checkpoints of the new keys. The new root stands in the log beyond what is here, and k of n
//! keys of the old one have signed it: so it is looked for among the entries before anything is
//! believed, and nothing is stored until the checkpoint has verified. In the same way a registry is
//! found that has taken over: the root says from which log it goes on.

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::note::Note;
use jingwei_proto::state::{Lookup, keys, record};
use jingwei_proto::statement::{Continues, Predicate, Statement};
use jingwei_proto::time::Time;

use super::taken_over::continues;
use super::{ReplicaError, fetch};
use crate::index::{Batch, Index};
use crate::source::Source;

/// A checkpoint by keys that were not known here.
pub(super) struct Newer {
    pub checkpoint: Checkpoint,
    pub time: Time,
    /// The logs that it goes on from, oldest first.
    pub taken_over: Vec<Continues>,
}

/// Verifies `note` by the first root, of those beyond `index`, under which it verifies. The log's
/// first one must be the one that was pinned.
pub(super) async fn verify(
    index: &Index,
    pinned: Digest,
    source: &Source,
    note: &str,
) -> Result<Option<Newer>, ReplicaError> {
    let shown = Note::parse(note.as_bytes()).ok();
    let Some(shown) = shown.and_then(|note| note.text.parse::<Checkpoint>().ok()) else {
        return Ok(None);
    };
    let mut batch = Batch::new(index);
    let mut taken_over = Vec::new();
    let mut at = index.size()?;
    while at < shown.size {
        let to = shown.size.min((at / 256 + 1) * 256);
        let envelopes = fetch::envelopes(source, at..to, shown.size).await?;
        for (place, bytes) in (at..to).zip(&envelopes) {
            let Some((envelope, statement)) = root_envelope(bytes) else {
                continue;
            };
            if place == 0 && envelope.payload_digest() != pinned {
                return Ok(None);
            }
            if batch.admit(place, &envelope, None).is_err() {
                continue;
            }
            taken_over.extend(continues(&statement).cloned());
            let root = batch.get(keys::ROOT)?.as_deref().and_then(record);
            let verified = root.and_then(|root| CheckpointKeys::of_root(&root).verify(note).ok());
            if let Some((checkpoint, time)) = verified {
                return Ok(Some(Newer {
                    checkpoint,
                    time,
                    taken_over,
                }));
            }
        }
        at = to;
    }
    Ok(None)
}

/// The envelope, if it holds a root document.
pub(super) fn root_envelope(bytes: &[u8]) -> Option<(Envelope, Statement)> {
    let envelope = Envelope::parse(bytes).ok()?;
    let statement = Statement::parse(envelope.payload()).ok()?;
    matches!(statement.predicate, Predicate::Root(_)).then_some((envelope, statement))
}
