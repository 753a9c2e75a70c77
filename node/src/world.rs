//! For tests: a registry and nodes of its members in this process, on disks that can be full.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::statement::Sharing;
use jingwei_registry::clock;
use jingwei_registry::disk::faults::full;
use jingwei_registry::disk::{Disk, Faults, Operation};
use jingwei_registry::enrolment::{Profile, Proposal, parse_territory, propose};
use jingwei_registry::found::{Founded, Plan, found, sign_together};
use jingwei_registry::keyfile::{self, TlsIdentity};
use jingwei_registry::log::LogReader;
use jingwei_registry::registry::Registry;
use jingwei_registry::sequencer::Sequencer;
use jingwei_registry::serve::ServeLimits;
use jingwei_schemas::TableSchema;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agency::HostedAgency;
use crate::config::Config;
use crate::home::Home;
use crate::ingest::Spool;
use crate::membership::Membership;
use crate::node::Node;
use crate::publish::{Publication, Published};

/// A small table.
pub const ROWS: &[u8] = b"code,people\n35001,6930\n35002,1763\n";
const SCHEMA: &[u8] =
    br#"{"type":"object","properties":{"code":{"type":"string"},"people":{"type":"integer"}}}"#;

/// How the step that a [`Trap`] is set for fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One step fails, later ones succeed.
    Once,
    /// Every step fails from then on.
    FromThenOn,
    /// One step does its work and fails all the same.
    Persisted,
}

/// All of them.
pub const MODES: [Mode; 3] = [Mode::Once, Mode::FromThenOn, Mode::Persisted];

/// Fails the n-th step on files below directories of certain names. What is written elsewhere
/// meanwhile is neither counted nor hurt.
pub struct Trap {
    names: &'static [&'static str],
    state: Mutex<(u64, Option<(u64, Mode)>)>,
}

impl Trap {
    /// For files below directories with one of `names`.
    pub fn new(names: &'static [&'static str]) -> Arc<Trap> {
        Arc::new(Trap {
            names,
            state: Mutex::default(),
        })
    }

    /// The disk that it is in.
    pub fn disk(self: &Arc<Trap>) -> Disk {
        Disk::with_faults(self.clone())
    }

    /// Sets it for the n-th step from now.
    pub fn arm(&self, n: u64, mode: Mode) {
        *self.state.lock().unwrap() = (0, Some((n, mode)));
    }

    /// Ends it; says whether the step came.
    pub fn disarm(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let reached = state.1.is_some_and(|(n, _)| state.0 >= n);
        state.1 = None;
        reached
    }

    fn guards(&self, path: &Path) -> bool {
        let named = |part: &OsStr| self.names.iter().any(|name| part == OsStr::new(name));
        path.iter().any(named)
    }
}

impl Faults for Trap {
    fn before(&self, _: Operation, path: &Path) -> io::Result<()> {
        if !self.guards(path) {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        match state.1 {
            Some((n, Mode::Once)) if state.0 == n => Err(full()),
            Some((n, Mode::FromThenOn)) if state.0 >= n => Err(full()),
            _ => Ok(()),
        }
    }

    fn after(&self, _: Operation, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        match state.1 {
            Some((n, Mode::Persisted)) if state.0 == n && self.guards(path) => {
                state.0 += 1;
                Err(full())
            }
            _ => Ok(()),
        }
    }
}

/// A federation with a running registry.
pub struct World {
    dir: tempfile::TempDir,
    founded: Founded,
    url: String,
    /// The registry's log.
    pub log: LogReader,
    sequencer: Sequencer,
    registry: CancellationToken,
}

impl World {
    /// Founds it.
    pub async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let (place, now) = (dir.path().join("registry"), clock::system());
        let plan = Plan {
            recovery_delay: 60,
            ..Plan::new("test", 1, 1)
        };
        let founded = found(&place, &plan, now(), Disk::new()).unwrap();
        let registry = Registry::open(&place, now, Disk::new()).unwrap();
        let (log, sequencer) = (registry.log().clone(), registry.sequencer().clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ending = CancellationToken::new();
        tokio::spawn(registry.serve(listener, None, ServeLimits::default(), ending.clone()));
        World {
            dir,
            founded,
            url,
            log,
            sequencer,
            registry: ending,
        }
    }

    /// The directory of a node that hosts one agency, which is enrolled and has joined.
    pub async fn home(&self, agency: &str) -> Home {
        let home = Home::new(&self.dir.path().join(agency));
        let now = clock::system();
        let profile = Profile {
            id: agency.parse().unwrap(),
            name: "Agency".into(),
            level: 1,
            territory: parse_territory("test@1:A").unwrap(),
            roles: Vec::new(),
        };
        keyfile::create_private_dir(home.dir()).unwrap();
        TlsIdentity::load_or_create(&home.keys()).unwrap();
        let agency = HostedAgency::create(&home, profile.clone()).unwrap();
        let proposal = propose(&profile, &self.founded.federation, &agency.signing, now());
        let proposal = Proposal::parse(&proposal.to_bytes()).unwrap();
        let root_key: SecretKey = keyfile::load(&self.founded.root_keys[0]).unwrap();
        let enrolment = sign_together(&proposal.statement(), &[&root_key as &dyn Signer], 1);
        self.sequencer.submit(enrolment).await.unwrap();
        Membership::join(&home, &self.url, self.founded.root, &now, &Disk::new())
            .await
            .unwrap();
        home
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.registry.cancel();
    }
}

/// Opens the node in `home`.
pub fn open(home: Home, disk: Disk) -> Arc<Node> {
    Node::open(home, Config::default(), clock::system(), disk).unwrap()
}

/// Publishes `rows` of one small schema.
pub async fn publish(
    node: &Arc<Node>,
    name: &str,
    sharing: Sharing,
    rows: &[u8],
) -> Result<Published, String> {
    let staging = node.home.staging();
    let mut spool =
        Spool::begin(&node.disk, &staging, 1 << 20).map_err(|error| error.to_string())?;
    spool.push(rows).map_err(|error| error.to_string())?;
    let upload = spool.finish().map_err(|error| error.to_string())?;
    let publication = Publication {
        agency: node.hosted_agency("").unwrap(),
        name: name.parse().unwrap(),
        sharing,
        schema: TableSchema::parse(SCHEMA).unwrap(),
        title: None,
        description: None,
        file: "rows.csv".into(),
        rejects: staging.join("rejects.csv"),
        cancelled: Arc::default(),
    };
    let published = node.publish(publication, upload, |_| {}).await;
    published.map_err(|error| error.to_string())
}

/// The names in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
