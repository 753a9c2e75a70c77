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
//! A message counts once it is durable in its sender's journal, and is sent only then.

pub mod ask;
pub mod ledger;
pub mod messages;
pub mod provider;

/// The Flight action by which an acknowledgement is delivered.
pub const ACKNOWLEDGE: &str = "acknowledge";
