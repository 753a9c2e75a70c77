//! A full disk at every write of a publication: nothing is half published, and the same command
//! afterwards makes it one version.

use std::path::Path;
use std::sync::Mutex;

use jingwei_proto::id::AgencyId;
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_registry::clock;
use jingwei_registry::disk::faults::full;
use jingwei_registry::disk::{Disk, Faults, Operation};
use jingwei_registry::enrolment::{Profile, Proposal, parse_territory, propose};
use jingwei_registry::found::{Plan, found, sign_together};
use jingwei_registry::keyfile::{self, TlsIdentity};
use jingwei_registry::log::LogReader;
use jingwei_registry::registry::Registry;
use jingwei_registry::serve::ServeLimits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Config;
use crate::home::Home;
use crate::ingest::Spool;
use crate::membership::Membership;

const ROWS: &[u8] = b"code,people\n35001,6930\n35002,1763\n";
const OTHER_ROWS: &[u8] = b"code,people\n35001,6931\n";
const SCHEMA: &[u8] =
    br#"{"type":"object","properties":{"code":{"type":"string"},"people":{"type":"integer"}}}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One step fails, later ones succeed.
    Once,
    /// Every step fails from then on.
    FromThenOn,
    /// One step does its work and fails all the same.
    Persisted,
}

/// Fails the n-th step on the files of publications. What the replica and the journals write
/// meanwhile is neither counted nor hurt.
#[derive(Debug, Default)]
struct Trap(Mutex<(u64, Option<(u64, Mode)>)>);

impl Trap {
    fn arm(&self, n: u64, mode: Mode) {
        *self.0.lock().unwrap() = (0, Some((n, mode)));
    }

    /// Ends it; says whether the step came.
    fn disarm(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        let reached = state.1.is_some_and(|(n, _)| state.0 >= n);
        state.1 = None;
        reached
    }
}

impl Faults for Trap {
    fn before(&self, _: Operation, path: &Path) -> std::io::Result<()> {
        let ours = ["data", "publications", "staging"];
        let mut state = self.0.lock().unwrap();
        if !path
            .components()
            .any(|part| ours.iter().any(|own| part.as_os_str() == *own))
        {
            return Ok(());
        }
        state.0 += 1;
        match state.1 {
            Some((n, Mode::Once)) if state.0 == n => Err(full()),
            Some((n, Mode::FromThenOn)) if state.0 >= n => Err(full()),
            _ => Ok(()),
        }
    }

    fn after(&self, _: Operation, _: &Path) -> std::io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match state.1 {
            Some((n, Mode::Persisted)) if state.0 == n => {
                state.0 += 1;
                Err(full())
            }
            _ => Ok(()),
        }
    }
}

/// A registry and a node of one agency, in this process.
struct Stage {
    node: Arc<Node>,
    trap: Arc<Trap>,
    log: LogReader,
    registry: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let (place, now) = (dir.path().join("registry"), clock::system());
        let plan = Plan {
            recovery_delay: 60,
            ..Plan::new("test", 1, 1)
        };
        let founded = found(&place, &plan, now(), Disk::new()).unwrap();
        let registry = Registry::open(&place, now.clone(), Disk::new()).unwrap();
        let (log, sequencer) = (registry.log().clone(), registry.sequencer().clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ending = CancellationToken::new();
        tokio::spawn(registry.serve(listener, None, ServeLimits::default(), ending.clone()));

        let home = Home::new(&dir.path().join("node"));
        let profile = Profile {
            id: "aa".parse().unwrap(),
            name: "Agency".into(),
            level: 1,
            territory: parse_territory("test@1:A").unwrap(),
            roles: Vec::new(),
        };
        keyfile::create_private_dir(home.dir()).unwrap();
        TlsIdentity::load_or_create(&home.keys()).unwrap();
        let agency = HostedAgency::create(&home, profile.clone()).unwrap();
        let proposal = propose(&profile, &founded.federation, &agency.signing, now());
        let proposal = Proposal::parse(&proposal.to_bytes()).unwrap();
        let root_key: SecretKey = keyfile::load(&founded.root_keys[0]).unwrap();
        let enrolment = sign_together(&proposal.statement(), &[&root_key as &dyn Signer], 1);
        sequencer.submit(enrolment).await.unwrap();
        Membership::join(&home, &url, founded.root, &now, &Disk::new())
            .await
            .unwrap();
        let trap = Arc::new(Trap::default());
        let disk = Disk::with_faults(trap.clone());
        let node = Node::open(home, Config::default(), now, disk).unwrap();
        tokio::spawn(node.replica.clone().follow(
            node.source.subscribe(),
            node.clock.clone(),
            node.shutdown.clone(),
        ));
        Stage {
            node,
            trap,
            log,
            registry: ending,
            _dir: dir,
        }
    }

    async fn publish(
        &self,
        name: &str,
        sharing: Sharing,
        rows: &[u8],
    ) -> Result<Published, String> {
        let staging = self.node.home.staging();
        let mut spool =
            Spool::begin(&self.node.disk, &staging, 1 << 20).map_err(|error| error.to_string())?;
        spool.push(rows).map_err(|error| error.to_string())?;
        let upload = spool.finish().map_err(|error| error.to_string())?;
        let publication = Publication {
            agency: self.node.hosted_agency("").unwrap(),
            name: name.parse().unwrap(),
            sharing,
            schema: TableSchema::parse(SCHEMA).unwrap(),
            title: None,
            description: None,
            file: "rows.csv".into(),
            rejects: staging.join("rejects.csv"),
            cancelled: Arc::default(),
        };
        let published = self.node.publish(publication, upload, |_| {}).await;
        published.map_err(|error| error.to_string())
    }

    /// Versions in the registry's log under the name that the dataset has there.
    fn entered(&self, name: &str, sharing: Sharing) -> Vec<u64> {
        let agency: AgencyId = "aa".parse().unwrap();
        let id = self
            .node
            .entered_as(&agency, &name.parse().unwrap(), sharing);
        let mut versions = Vec::new();
        for bytes in self.log.envelopes(0..self.log.size()).unwrap() {
            let envelope = Envelope::parse(&bytes.unwrap()).unwrap();
            let statement = Statement::parse(envelope.payload()).unwrap();
            let sequence = statement.head.sequence;
            if matches!(statement.predicate, Predicate::Dataset(dataset) if dataset.name == id.name)
            {
                versions.push(sequence);
            }
        }
        versions
    }

    fn end(self) {
        self.node.stop();
        self.registry.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_every_write_loses_nothing_and_doubles_nothing() {
    let stage = Stage::new().await;
    let mut reached = 0;
    for mode in [Mode::Once, Mode::FromThenOn, Mode::Persisted] {
        for n in 1.. {
            let name = format!("t_{mode:?}_{n}").to_lowercase();
            let class = [Sharing::Public, Sharing::Withheld][n as usize % 2];
            stage.trap.arm(n, mode);
            let first = stage.publish(&name, class, ROWS).await;
            if !stage.trap.disarm() {
                assert!(first.is_ok(), "{first:?}");
                break;
            }
            reached += 1;
            if let Err(message) = &first {
                assert!(!message.is_empty() && stage.entered(&name, class).len() <= 1);
            }
            let second = stage.publish(&name, class, ROWS).await.unwrap();
            assert_eq!(second.version.version, 1, "{mode:?} at step {n}: {first:?}");
            assert_eq!(stage.entered(&name, class), [1], "{mode:?} at step {n}");
            assert!(
                stage
                    .node
                    .home
                    .data()
                    .join(format!("{}.parquet", second.record.file))
                    .is_file()
            );
            assert!(stage.publish(&name, class, ROWS).await.unwrap().existed);
        }
    }
    assert!(reached > 30, "only {reached} writes were made to fail");
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_entered_unseen_is_kept_when_another_file_follows() {
    let stage = Stage::new().await;
    let name = "hidden";
    // The last write of a publication, which records that it is done, is the one that fails.
    let mut n = 1;
    loop {
        let probe = format!("probe_{n}");
        stage.trap.arm(n, Mode::FromThenOn);
        let result = stage.publish(&probe, Sharing::Withheld, ROWS).await;
        stage.trap.disarm();
        let entered = stage.entered(&probe, Sharing::Withheld);
        if result.is_err() && !entered.is_empty() {
            break;
        }
        assert!(result.is_err(), "no write comes after the registry's word");
        n += 1;
    }
    stage.trap.arm(n, Mode::FromThenOn);
    stage
        .publish(name, Sharing::Withheld, ROWS)
        .await
        .unwrap_err();
    stage.trap.disarm();
    let next = stage
        .publish(name, Sharing::Withheld, OTHER_ROWS)
        .await
        .unwrap();
    assert_eq!(next.version.version, 2);
    assert_eq!(stage.entered(name, Sharing::Withheld), [1, 2]);
    // Its officers can still read the first.
    let id = DatasetId {
        agency: "aa".parse().unwrap(),
        name: name.parse().unwrap(),
    };
    for version in [1, 2] {
        assert!(
            stage.node.withheld(&id, Some(version)).is_some(),
            "version {version} is lost"
        );
    }
    stage.end();
}
