//! The federation of the demo: its registry with witnesses, and its nodes, started, enrolled, stopped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use jingwei_proto::digest::Digest;
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::enrolment::propose;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::index::Index;
use jingwei_registry::keyfile::{self, TlsIdentity};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::Client;
use super::members::{MEMBERS, Member, NODES, member};
use super::registry::{RunningRegistry, blocking, failed};
use super::screen::{Screen, duration};
use crate::agency::HostedAgency;
use crate::config::Config;
use crate::home::Home;
use crate::membership::Membership;
use crate::node::Node;

/// For everything that happens within this machine and takes well under a second.
const LONG_ENOUGH: Duration = Duration::from_secs(60);
/// For the nodes to end what is under way.
const STOPPING: Duration = Duration::from_secs(5);

/// A running federation.
pub struct Federation {
    dir: PathBuf,
    /// Its registry.
    pub registry: RunningRegistry,
    nodes: BTreeMap<&'static str, RunningNode>,
}

struct RunningNode {
    node: Arc<Node>,
    client: Client,
    task: JoinHandle<Result<(), Fault>>,
}

impl Federation {
    /// Founds a federation in `dir`, starts its nodes, enrols its agencies, and waits until
    /// every node knows where every other one is.
    pub async fn start(dir: &Path) -> Result<Federation, Fault> {
        let registry = RunningRegistry::found(dir).await?;
        let address = format!("http://{}", registry.address());
        let starting = NODES.map(|name| {
            let starting = start_node(dir.join(name), name, address.clone(), registry.root());
            async move { tokio::spawn(starting).await.map_err(failed)? }
        });
        let nodes = NODES
            .into_iter()
            .zip(try_join_all(starting).await?)
            .collect();
        let federation = Federation {
            dir: dir.to_owned(),
            registry,
            nodes,
        };
        federation.enrol().await?;
        federation
            .everywhere("every agency and its node", |index| {
                MEMBERS.iter().all(|member| {
                    member
                        .id
                        .parse()
                        .is_ok_and(|id| matches!(index.node(&id), Ok(Some(_))))
                })
            })
            .await?;
        Ok(federation)
    }

    /// Where it keeps everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the node that hosts an agency.
    pub fn node_dir(&self, agency: &str) -> Result<PathBuf, Fault> {
        Ok(self.dir.join(member(agency)?.node))
    }

    /// The way to the node that hosts an agency.
    pub fn client(&self, agency: &str) -> Result<&Client, Fault> {
        Ok(&self.running(member(agency)?)?.client)
    }

    /// The node that hosts an agency.
    pub fn node(&self, agency: &str) -> Result<&Arc<Node>, Fault> {
        Ok(&self.running(member(agency)?)?.node)
    }

    fn running(&self, member: &Member) -> Result<&RunningNode, Fault> {
        self.nodes.get(member.node).ok_or_else(|| {
            Fault::new(
                Blame::Internal,
                format!("the node {} does not run", member.node),
            )
        })
    }

    /// Enrols superiors before those below them, those of one depth at the same time.
    async fn enrol(&self) -> Result<(), Fault> {
        let deepest = MEMBERS.iter().map(Member::depth).max().unwrap_or(0);
        for depth in 0..=deepest {
            let due = MEMBERS.iter().filter(|member| member.depth() == depth);
            try_join_all(due.map(|member| self.enrol_one(member))).await?;
        }
        Ok(())
    }

    async fn enrol_one(&self, member: &Member) -> Result<(), Fault> {
        let node = &self.running(member)?.node;
        let agency = node.hosted_agency(member.id)?;
        let proposal = propose(
            &agency.profile,
            &node.membership.federation,
            &agency.signing,
            (node.clock)(),
        )
        .to_bytes();
        match member.superior() {
            Some(superior) => self.client(superior)?.enrol(proposal).await,
            None => self.registry.enrol(&proposal).await,
        }
    }

    /// Waits until every node's verified replica of the log shows something.
    pub async fn everywhere(
        &self,
        what: &str,
        shows: impl Fn(&Index) -> bool,
    ) -> Result<(), Fault> {
        let all = join_all(self.nodes.values().map(|running| async {
            let mut standing = running.node.replica().standing();
            // The receiver was made before the look, so nothing is missed between the two.
            while !shows(running.node.replica().index()) && standing.changed().await.is_ok() {}
        }));
        timeout(LONG_ENOUGH, all).await.map(|_| ()).map_err(|_| {
            Fault::new(
                Blame::TimedOut,
                format!("{what}: not all nodes see it in the registry's log after {LONG_ENOUGH:?}"),
            )
            .advise(format!(
                "the reason may stand in {}",
                self.dir.join("demo.log").display()
            ))
        })
    }

    /// Says what runs where.
    pub fn describe(&self, screen: &Screen, took: Duration) {
        screen.gap();
        screen.say(&format!(
            "{:<12} http://{}",
            "registry",
            self.registry.address()
        ));
        for witness in self.registry.witnesses() {
            let address = witness.url.as_str().trim_end_matches('/');
            screen.say(&format!(
                "{:<12} {address}  witness of the registry",
                witness.name
            ));
        }
        for member in &MEMBERS {
            let address = self
                .running(member)
                .ok()
                .and_then(|running| running.node.address())
                .unwrap_or("?");
            screen.say(&format!(
                "{:<12} https://{address}  level {}  {}",
                member.id, member.level, member.name
            ));
        }
        screen.gap();
        screen.say(&format!(
            "all started, enrolled and known to each other after {}",
            duration(took)
        ));
        screen.say(&format!("directory {}", self.dir.display()));
        screen.say(&format!("root      {}", self.registry.fingerprint()));
    }

    /// Stops everything.
    pub async fn stop(self) {
        for running in self.nodes.values() {
            running.node.stop();
        }
        let ending = join_all(self.nodes.into_values().map(|running| running.task));
        // Who does not end in time is ended with the process.
        let _ = tokio::join!(timeout(STOPPING, ending), self.registry.stop_all());
    }
}

async fn start_node(
    dir: PathBuf,
    name: &'static str,
    registry: String,
    root: Digest,
) -> Result<RunningNode, Fault> {
    let home = Home::new(&dir);
    let (clock, disk) = (clock::system(), Disk::new());
    let making = home.clone();
    blocking(move || make_agencies(&making, name)).await?;
    Membership::join(&home, &registry, root, &clock, &disk)
        .await
        .map_err(failed)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(failed)?;
    let listen = listener.local_addr().map_err(failed)?;
    write_settings(&home, listen)?;
    let config = Config {
        listen,
        ..Config::default()
    };
    let node = blocking(move || Node::open(home, config, clock, disk)).await?;
    let task = tokio::spawn(node.clone().serve(listener));
    let client = connect(&dir, &task).await?;
    Ok(RunningNode { node, client, task })
}

/// What `jingwei init` does, for each agency of the node.
fn make_agencies(home: &Home, node: &str) -> Result<(), Fault> {
    keyfile::create_private_dir(&home.keys()).map_err(failed)?;
    TlsIdentity::load_or_create(&home.keys()).map_err(failed)?;
    for member in MEMBERS.iter().filter(|member| member.node == node) {
        HostedAgency::create(home, member.profile()?).map_err(failed)?;
    }
    Ok(())
}

/// So that `jingwei serve` serves the node again as it was, if the directory is kept.
fn write_settings(home: &Home, listen: SocketAddr) -> Result<(), Fault> {
    std::fs::write(
        home.settings(),
        format!("# As the demo served it.\nlisten = \"{listen}\"\n"),
    )
    .map_err(failed)
}

/// Connects to a node that is about to be served.
async fn connect(dir: &Path, task: &JoinHandle<Result<(), Fault>>) -> Result<Client, Fault> {
    let patiently = async {
        loop {
            match Client::connect(dir).await {
                Err(_) if !task.is_finished() => tokio::time::sleep(Duration::from_millis(5)).await,
                done => return done,
            }
        }
    };
    timeout(LONG_ENOUGH, patiently).await.unwrap_or_else(|_| {
        Err(Fault::new(
            Blame::TimedOut,
            format!("the node in {} does not start", dir.display()),
        ))
    })
}
