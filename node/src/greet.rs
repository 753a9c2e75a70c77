//! Greeting other nodes: each shows the other its newest checkpoint of the registry's log, so
//! that a registry that tells members different histories is found out.
//!
//! A node greets whom it begins to talk with, whoever says in an exchange that it has seen
//! another history, and some of all nodes every few minutes. Of two that were shown different
//! histories the one with the longer can prove it from its own replica; it sends the other the
//! proof, which stands as an alarm in both from then on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use jingwei_proto::id::AgencyId;
use jingwei_proto::wire::node::{ComparedPeer, GreetRequest, GreetResponse};
use jingwei_proto::words;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::replica::Comparison;
use rand::seq::SliceRandom as _;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::serve::PeerService;
use crate::serve::stubs::peer_client::PeerClient;
use crate::serve::stubs::peer_server::Peer;

/// Between two rounds of greetings.
const ROUND: Duration = Duration::from_secs(5 * 60);
/// Nodes greeted in a round: whom one does not meet, others do.
const IN_A_ROUND: usize = 16;
/// Nodes compared with when a person asks.
const WHEN_ASKED: usize = 128;
/// Greetings under way at once.
const AT_ONCE: usize = 8;
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Greetings that may wait; beyond them the next round will do.
const WAITING: usize = 64;

/// The way to ask for a greeting soon.
pub struct Greeter {
    wanted: mpsc::Sender<AgencyId>,
    /// Taken by the task that greets.
    queue: Mutex<Option<mpsc::Receiver<AgencyId>>>,
}

impl Default for Greeter {
    fn default() -> Greeter {
        let (wanted, queue) = mpsc::channel(WAITING);
        Greeter {
            wanted,
            queue: Mutex::new(Some(queue)),
        }
    }
}

impl Greeter {
    fn take_queue(&self) -> Option<mpsc::Receiver<AgencyId>> {
        let queue = self.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks for a greeting of this agency's node; the work at hand does not wait for it.
    pub fn soon(&self, agency: &AgencyId) {
        // With so many waiting, the next round will do.
        let _ = self.wanted.try_send(agency.clone());
    }
}

impl Node {
    /// Greets other nodes until the node stops.
    pub(crate) async fn keep_greeting(self: Arc<Node>) {
        let Some(mut queue) = self.greeter.take_queue() else {
            return;
        };
        let mut round = tokio::time::interval(ROUND);
        // The first tick is at once, when nothing is known of others yet.
        round.tick().await;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                Some(agency) = queue.recv() => {
                    self.greet_quietly(&agency).await;
                }
                _ = round.tick() => {
                    drop(self.compare_with(IN_A_ROUND).await);
                }
            }
        }
    }

    async fn greet_quietly(self: &Arc<Node>, agency: &AgencyId) {
        if let Err(fault) = self.greet(agency).await {
            tracing::debug!(%agency, %fault, "not greeted");
        }
    }

    /// Compares with up to `most` other nodes, chosen by lot.
    pub(crate) async fn compare_with(self: &Arc<Node>, most: usize) -> Vec<ComparedPeer> {
        let mut others: Vec<(String, AgencyId)> = self.other_nodes().into_iter().collect();
        others.shuffle(&mut rand::rng());
        others.truncate(most);
        let mut peers: Vec<ComparedPeer> = stream::iter(others)
            .map(|(address, agency)| {
                let node = self.clone();
                async move {
                    let result = node.greet(&agency).await;
                    compared(address, result)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        peers.sort_by(|a, b| a.address.cmp(&b.address));
        peers
    }

    /// Compares with all other nodes, as far as they are not too many.
    pub(crate) async fn compare(self: &Arc<Node>) -> Vec<ComparedPeer> {
        self.compare_with(WHEN_ASKED).await
    }

    /// The addresses of all other nodes, each with one of its agencies.
    fn other_nodes(&self) -> BTreeMap<String, AgencyId> {
        let index = self.replica.index();
        index
            .agencies()
            .filter(|agency| !self.agencies.contains_key(&agency.id))
            .filter_map(|agency| {
                let node = index.node(&agency.id).ok().flatten()?;
                Some((node.node.address, agency.id))
            })
            .collect()
    }

    /// Shows the agency's node the newest checkpoint, and looks at its own.
    async fn greet(self: &Arc<Node>, agency: &AgencyId) -> Result<Comparison, Fault> {
        let answer = self.show(agency, Vec::new()).await?;
        if !answer.proof.is_empty() {
            self.take_proof(answer.proof).await;
        }
        let comparison = self.compare_note(answer.checkpoint).await?;
        if let Comparison::Different {
            proof: Some(proof), ..
        } = &comparison
        {
            // The other one cannot tell from its shorter log.
            self.show(agency, proof.clone()).await?;
        }
        Ok(comparison)
    }

    async fn show(&self, agency: &AgencyId, proof: Vec<u8>) -> Result<GreetResponse, Fault> {
        let checkpoint = self.replica.signed_note().unwrap_or_default();
        let mut client = PeerClient::new(self.link(agency)?);
        let request = GreetRequest { checkpoint, proof };
        let answer = tokio::time::timeout(PATIENCE, client.greet(request)).await;
        let late = |_| Fault::new(Blame::Unavailable, "no answer in time").at(agency);
        let answer = answer.map_err(late)?;
        answer
            .map(Response::into_inner)
            .map_err(|status| Fault::from_status(&status))
    }

    /// Comparing reads the replica's files.
    async fn compare_note(self: &Arc<Node>, note: String) -> Result<Comparison, Fault> {
        let node = self.clone();
        tokio::task::spawn_blocking(move || node.replica.compare(&note))
            .await
            .map_err(|panic| Fault::new(Blame::Internal, panic.to_string()))
    }

    async fn take_proof(self: &Arc<Node>, proof: Vec<u8>) -> bool {
        let node = self.clone();
        let taken = tokio::task::spawn_blocking(move || node.replica.take_proof(&proof)).await;
        taken.unwrap_or(false)
    }
}

fn compared(address: String, result: Result<Comparison, Fault>) -> ComparedPeer {
    let mut peer = ComparedPeer {
        address,
        ..ComparedPeer::default()
    };
    match result {
        Ok(Comparison::Same(size) | Comparison::Larger(size)) => peer.size = size,
        Ok(Comparison::Unsigned) => {
            peer.problem = "it shows no checkpoint of a registry that is known here".into();
        }
        Ok(Comparison::Former { size, ended }) => {
            peer.problem = format!(
                "it shows {} of the log before the take-over, of which {ended} count",
                words::entries(size)
            );
        }
        Ok(Comparison::Different { misbehaviour, .. }) => {
            peer.different = true;
            peer.problem = misbehaviour.to_string();
        }
        Err(fault) => peer.problem = fault.to_string(),
    }
    peer
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let node = &self.0;
        let GreetRequest { checkpoint, proof } = request.into_inner();
        if !proof.is_empty() && !node.take_proof(proof).await {
            return Err(Fault::new(Blame::Malformed, "the proof proves nothing").into());
        }
        let proof = match node.compare_note(checkpoint).await? {
            Comparison::Different { proof, .. } => proof.unwrap_or_default(),
            _ => Vec::new(),
        };
        Ok(Response::new(GreetResponse {
            checkpoint: node.replica.signed_note().unwrap_or_default(),
            agencies: node.hosted().map(ToString::to_string).collect(),
            proof,
        }))
    }
}
