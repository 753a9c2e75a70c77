//! The journals of the agencies that a node hosts, one for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::time::Time;
use jingwei_registry::clock::Clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::{Blame, Fault};

use crate::agency::HostedAgency;
use crate::home::Home;
pub use crate::journal::Kind;
use crate::journal::{Journal, JournalError, Record, Setup, Unfinished};

/// A message to be entered: which one of an exchange, of which exchange, and its envelope.
pub type Entry<'a> = (Kind, &'a str, &'a Bytes);

/// A journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the journal of {agency}: {source}")]
pub struct JournalsError {
    /// Whose.
    agency: AgencyId,
    /// Why.
    source: JournalError,
}

/// The journals by agency.
pub struct Journals {
    open: BTreeMap<AgencyId, Journal>,
    clock: Clock,
}

impl Journals {
    /// Opens the journal of each agency.
    pub fn open<'a>(
        home: &Home,
        federation: &FederationId,
        agencies: impl Iterator<Item = &'a Arc<HostedAgency>>,
        clock: &Clock,
        disk: &Disk,
    ) -> Result<Journals, JournalsError> {
        let now = clock();
        let open = agencies
            .map(|agency| {
                let id = agency.id().clone();
                let setup = Setup {
                    dir: home.journal(),
                    federation: federation.clone(),
                    agency: id.clone(),
                    signer: agency.journal.clone(),
                    disk: disk.clone(),
                };
                let journal = Journal::open(setup, now).map_err(|source| JournalsError {
                    agency: id.clone(),
                    source,
                })?;
                Ok((id, journal))
            })
            .collect::<Result<_, JournalsError>>()?;
        Ok(Journals {
            open,
            clock: clock.clone(),
        })
    }

    /// Enters messages, in one step; when this returns all are durable, or none counts.
    pub async fn enter(&self, agency: &AgencyId, messages: &[Entry<'_>]) -> Result<(), Fault> {
        let records = self.records(messages);
        let recorded = self.of(agency)?.record(records).await;
        recorded.map(|_| ()).map_err(fault)
    }

    /// Enters the request that opens an exchange, unless its nonce was used before, and in the
    /// same step what follows it.
    pub async fn enter_new(
        &self,
        agency: &AgencyId,
        expires: Time,
        messages: &[Entry<'_>],
    ) -> Result<(), Fault> {
        let records = self.records(messages);
        let recorded = self.of(agency)?.record_new(expires, records).await;
        recorded.map(|_| ()).map_err(fault)
    }

    /// What was unfinished in each agency's journal when it was opened; it is handed out once.
    /// Others' messages are among it.
    pub fn take_unfinished(&self) -> Vec<(AgencyId, Unfinished)> {
        let journals = self.open.iter();
        journals
            .map(|(agency, journal)| (agency.clone(), journal.take_unfinished()))
            .collect()
    }

    /// Puts everything entered so far into the journals' logs, before the node stops.
    pub async fn sequence(&self) {
        for (agency, journal) in &self.open {
            if let Err(error) = journal.sequence().await {
                tracing::warn!(%agency, %error, "the journal is sequenced at the next start");
            }
        }
    }

    fn records(&self, messages: &[Entry<'_>]) -> Vec<Record> {
        let time = (self.clock)();
        let record = |&(kind, nonce, message): &Entry<'_>| Record {
            time,
            kind,
            nonce: nonce.to_owned(),
            body: message.clone(),
        };
        messages.iter().map(record).collect()
    }

    fn of(&self, agency: &AgencyId) -> Result<&Journal, Fault> {
        self.open
            .get(agency)
            .ok_or_else(|| Fault::new(Blame::Internal, format!("{agency} has no journal here")))
    }
}

fn fault(error: JournalError) -> Fault {
    match &error {
        JournalError::Replayed { .. } => Fault::new(Blame::Inconsistent, error.to_string()),
        JournalError::Expiry { .. } => Fault::new(Blame::Stale, error.to_string()),
        _ => {
            tracing::error!(%error, "a message could not be entered in the journal");
            Fault::new(
                Blame::Unavailable,
                "the journal cannot be written, and nothing is exchanged without it",
            )
            .advise("the node's officer finds the reason in its log; most often the disk is full")
        }
    }
}
