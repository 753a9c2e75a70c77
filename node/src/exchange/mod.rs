//! Exchanges: how one agency's question to another is asked, answered, and afterwards proved.
//!
//! ```text
//! asker                                              provider
//!   request ─ journal ──── Flight DoGet(ticket) ─────► check ─ journal(request, acceptance)
//!           ◄──── schema frame + acceptance ─────────
//!           ◄──── batches ───────────────────────────  plan in a session that holds one table
//!           ◄──── closing frame + receipt ───────────  journal(receipt)
//!   check ─ journal(acceptance, receipt, acknowledgement)
//!           ───── DoAction("acknowledge") ───────────► journal(acknowledgement)
//! ```
//!
//! A message counts once it is durable in its sender's journal, and is sent only then. A short answer
//! is computed before its first frame is sent, so that its receipt becomes durable together with its
//! acceptance.
//!
//! Signatures are verified by the [`verifier`], together with those of other exchanges.
//!
//! The asker's question is answered when the acknowledgement stands in its own journal. Bringing
//! it to the provider is the [`outbox`]'s work, which goes on trying when the question is over.

use std::sync::Arc;

use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::Seen;
use jingwei_registry::fault::{Blame, Fault};

use crate::node::Node;

mod acknowledged;
pub mod ask;
mod asking;
pub mod bundle;
mod coming;
mod incoming;
pub mod ledger;
pub mod messages;
pub mod outbox;
pub mod provider;
mod sending;
#[cfg(test)]
mod tests;
pub mod verifier;

/// The Flight action by which acknowledgements are delivered: one envelope, or several as a
/// [`bundle`].
pub const ACKNOWLEDGE: &str = "acknowledge";

/// Bytes of rows up to which an answer is short: what HTTP/2 lets a server send before it hears
/// from its client (RFC 9113 §6.9.2).
const SHORT: usize = 65_535;

/// Goes on with what a restart interrupted: answers that wait for an acknowledgement, and
/// acknowledgements that may not have arrived.
pub(crate) fn resume(node: &Arc<Node>) {
    for (agency, unfinished) in node.journals.take_unfinished() {
        node.ledger.resume(&agency, &unfinished.receipts);
        node.outbox
            .resume(node, &agency, &unfinished.acknowledgements);
    }
}

/// Another agency that was shown another history of the registry is neither believed nor
/// answered.
fn same_history(node: &Node, seen: &Seen, other: &AgencyId) -> Result<(), Fault> {
    let log = node.replica.log();
    // Most often both have seen the same, and no file need be read for an older root.
    if seen.size == 0 || seen.size > log.size() || *seen == node.seen() {
        return Ok(());
    }
    match log.root_at(seen.size) {
        Ok(root) if root == seen.root => Ok(()),
        Ok(_) => {
            tracing::error!(agency = %other, size = seen.size, "another agency has seen another history of the registry");
            // Not proved by this: the checkpoints that the registry signed for both are.
            node.greeter.soon(other);
            Err(Fault::new(
                Blame::Inconsistent,
                "the two nodes have been shown different histories of the registry",
            )
            .at(other)
            .advise("compare both nodes with ‘jingwei doctor’: the registry, or one of the two, is lying; what the registry signed decides it"))
        }
        Err(error) => {
            tracing::error!(%error, "the replica's log cannot be read");
            Err(Fault::new(
                Blame::Internal,
                "the node cannot read its replica of the log",
            ))
        }
    }
}
