//! The node as a witness: it co-signs the federation's log, and others that its configuration
//! names, with the witness key of an agency that it hosts.
//!
//! What it co-signs stands in a memory of its own, not in the replica: a witness says what it has
//! signed, whether or not it has read the entries.

use std::sync::Arc;

use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::key::Signer as _;
use jingwei_proto::note::{Algorithm, NoteKey};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::serve::{TlsMode, serve};
use jingwei_registry::witness::home::limits;
use jingwei_registry::witness::{Witness, service};
use tokio::net::TcpListener;

use crate::agency::HostedAgency;
use crate::node::Node;

/// A witness and its port.
pub(crate) struct Serving {
    witness: Arc<Witness>,
    listener: TcpListener,
}

impl Node {
    /// Opens the witness and its port, where the configuration asks for one.
    pub(crate) async fn open_witness(&self) -> Result<Option<Serving>, Fault> {
        let Some(listen) = self.config.witness.listen else {
            return Ok(None);
        };
        let witness = Arc::new(self.load_witness()?);
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| wrong(format!("the witness cannot listen on {listen}: {error}")))?;
        Ok(Some(Serving { witness, listener }))
    }

    /// Serves the witness until the node stops.
    pub(crate) async fn serve_witness(&self, serving: Option<Serving>) {
        let Some(Serving { witness, listener }) = serving else {
            return;
        };
        tracing::info!(witness = %witness.key(), "co-signing");
        let router = service::router(witness.clone());
        let serving = serve(
            listener,
            router,
            TlsMode::Plain,
            limits(),
            self.shutdown.clone(),
        );
        tokio::join!(serving, self.keep_watching(&witness));
    }

    /// The key that verifies what the node co-signs; empty if it does not.
    pub(crate) fn witness_key(&self) -> String {
        let (Some(_), Ok(agency)) = (self.config.witness.listen, self.witnessing()) else {
            return String::new();
        };
        let name = self.membership.federation.witness_name(agency.id());
        let public = agency.witness.public().clone();
        NoteKey::new(name, Algorithm::CosignatureV1, public)
            .map_or_else(|_| String::new(), |key| key.to_string())
    }

    /// The agency whose key co-signs: the one that is named, or the only one.
    fn witnessing(&self) -> Result<&Arc<HostedAgency>, Fault> {
        let hosted = &self.agencies;
        let found = match &self.config.witness.agency {
            Some(id) => hosted.get(id),
            None if hosted.len() == 1 => hosted.values().next(),
            None => None,
        };
        found.ok_or_else(|| {
            wrong("set witness.agency to one of the agencies that this node hosts".into())
        })
    }

    fn load_witness(&self) -> Result<Witness, Fault> {
        let agency = self.witnessing()?;
        let name = self.membership.federation.witness_name(agency.id());
        let (dir, key) = (self.home.witness(), agency.witness.clone());
        let witness = Witness::open(&dir, &name, key, self.clock.clone(), self.disk.clone())
            .map_err(|error| wrong(error.to_string()))?;
        let logs = &self.config.witness.logs;
        for log in logs {
            let same = logs.iter().filter(|other| other.origin == log.origin);
            let keys = same.map(|other| other.key.clone()).collect();
            let watched = witness.watch(&log.origin, keys);
            watched.map_err(|error| wrong(error.to_string()))?;
        }
        Ok(witness)
    }

    /// Co-signs the registry's log by the key of the root in force, whichever that becomes.
    async fn keep_watching(&self, witness: &Witness) {
        let mut standing = self.replica.standing();
        let mut before = String::new();
        loop {
            if let Ok(Some(root)) = self.replica.index().root() {
                self.leave_former(witness, &root.registry.origin, &mut before);
                let keys = CheckpointKeys::of_root(&root);
                let watched = match keys.log_key() {
                    Ok(key) => witness.watch(keys.origin, vec![key]),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = watched {
                    tracing::error!(%error, "the registry's log is not co-signed");
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = standing.changed() => if changed.is_err() { return },
            }
        }
    }

    /// After a take-over the log from which the other goes on is co-signed no longer.
    fn leave_former(&self, witness: &Witness, origin: &str, before: &mut String) {
        let logs = &self.config.witness.logs;
        if before != origin && !logs.iter().any(|log| log.origin == *before) {
            witness.leave(before);
        }
        origin.clone_into(before);
    }
}

fn wrong(reason: String) -> Fault {
    Fault::new(Blame::Internal, reason)
}
