//! Telling the federation where a node is: one statement for each hosted agency, entered when
//! the agency is enrolled and whenever address or keys have changed.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jingwei_proto::key::Signer;
use jingwei_proto::state::NodeRecord;
use jingwei_proto::statement::{Head, Node as Announced, Predicate, Statement};
use jingwei_registry::fault::Fault;

use crate::agency::HostedAgency;
use crate::node::{Node, index_fault};

/// Between two attempts while the registry is down.
const PAUSE: Duration = Duration::from_secs(5);

impl Node {
    /// Announces every hosted agency, and again whenever the log shows that something is due.
    /// Ends with the node.
    pub(crate) async fn keep_announced(self: Arc<Node>) {
        let mut standing = self.replica.standing();
        loop {
            self.settle_keys();
            let mut failed = false;
            for agency in self.agencies.values() {
                if let Err(fault) = self.announce(agency).await {
                    tracing::warn!(agency = %agency.id(), %fault, "the node is not announced yet");
                    failed = true;
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = standing.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if failed => {}
            }
        }
    }

    async fn announce(&self, agency: &HostedAgency) -> Result<(), Fault> {
        let index = self.replica.index();
        let Some(address) = self.address.get() else {
            return Ok(());
        };
        let record = index.agency(agency.id()).map_err(index_fault)?;
        if record.is_none_or(|record| !record.is_active()) || self.knows_the_rules().is_err() {
            return Ok(());
        }
        let current = index.node(agency.id()).map_err(index_fault)?;
        let due = self.announcement(agency, address);
        if current.as_ref().is_some_and(|current| current.node == due) {
            return Ok(());
        }
        if self.is_contested(agency, current.as_ref()) {
            return Ok(());
        }
        let statement = Statement {
            head: Head {
                federation: self.membership.federation.clone(),
                agency: Some(agency.id().clone()),
                time: (self.clock)(),
                sequence: current
                    .as_ref()
                    .map_or(1, |record| record.chain.sequence + 1),
                previous: current.map(|record| record.chain.payload),
            },
            predicate: Predicate::Node(due),
        };
        let sequence = statement.head.sequence;
        let entered = self.enter(&statement.sign(&agency.signing)).await?;
        tracing::info!(agency = %agency.id(), address, index = entered, "announced");
        self.announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(agency.id().clone(), sequence);
        Ok(())
    }

    /// Whether somebody else has announced the agency after this node did: a copy of the node's
    /// directory, most likely. To answer would begin a contest in a log that keeps everything.
    fn is_contested(&self, agency: &HostedAgency, current: Option<&NodeRecord>) -> bool {
        let mut announced = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let newest = current.map_or(0, |current| current.chain.sequence);
        let contested = announced
            .get(agency.id())
            .is_some_and(|ours| newest > *ours);
        if contested && announced.insert(agency.id().clone(), 0) != Some(0) {
            tracing::error!(agency = %agency.id(), "another node announces itself with the keys of this one");
        }
        contested
    }

    /// Agencies that another node has announced as its own since this one did.
    pub(crate) fn contested(&self) -> Vec<String> {
        let announced = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let contested = announced.iter().filter(|(_, ours)| **ours == 0);
        contested
            .map(|(agency, _)| {
                format!(
                    "another node announces itself as {agency} with this node's keys: a copy of its directory? stop one of the two, then restart this one"
                )
            })
            .collect()
    }

    fn announcement(&self, agency: &HostedAgency, address: &str) -> Announced {
        Announced {
            address: address.to_owned(),
            tls: vec![self.identity.id],
            journal: agency.journal.public().clone(),
            witness: agency.witness.public().clone(),
        }
    }

    /// Whether the log shows this node as the agency's, with its address and keys of today.
    pub(crate) fn is_announced(&self, agency: &HostedAgency) -> bool {
        let current = self.replica.index().node(agency.id()).ok().flatten();
        match (current, self.address.get()) {
            (Some(current), Some(address)) => current.node == self.announcement(agency, address),
            _ => false,
        }
    }
}
