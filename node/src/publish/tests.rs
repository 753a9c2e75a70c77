//! A full disk or a crash at every write of a publication: nothing is half published, and the
//! same command afterwards makes it one version.

use tokio::task::JoinHandle;

use super::*;
use crate::world::{self, MODES, Mode, ROWS, Trap, World};

const OTHER_ROWS: &[u8] = b"code,people\n35001,6931\n";
/// Where publications are written.
const PLACES: &[&str] = &["data", "publications", "staging"];

/// A registry and a node of one agency, in this process.
struct Stage {
    node: Arc<Node>,
    following: JoinHandle<()>,
    trap: Arc<Trap>,
    world: World,
}

impl Stage {
    async fn new() -> Stage {
        let world = World::new().await;
        let trap = Trap::new(PLACES);
        let node = world::open(world.home("aa").await, trap.disk());
        Stage {
            following: follow(&node),
            node,
            trap,
            world,
        }
    }

    async fn publish(
        &self,
        name: &str,
        sharing: Sharing,
        rows: &[u8],
    ) -> Result<Published, String> {
        world::publish(&self.node, name, sharing, rows).await
    }

    /// The node as it is after a crash and a start on a disk with room.
    async fn started_again(self) -> Stage {
        let Stage {
            node,
            following,
            world,
            ..
        } = self;
        let home = node.home.clone();
        node.stop();
        following.await.unwrap();
        drop(node);
        let trap = Trap::new(PLACES);
        let node = world::open(home, trap.disk());
        Stage {
            following: follow(&node),
            node,
            trap,
            world,
        }
    }

    /// Versions in the registry's log under the name that the dataset has there.
    fn entered(&self, name: &str, sharing: Sharing) -> Vec<u64> {
        let agency: AgencyId = "aa".parse().unwrap();
        let id = self
            .node
            .entered_as(&agency, &name.parse().unwrap(), sharing);
        let log = &self.world.log;
        let mut versions = Vec::new();
        for bytes in log.envelopes(0..log.size()).unwrap() {
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

    /// Publishes the same again, which makes it one version however far it had come.
    async fn once_more(&self, name: &str, sharing: Sharing, at: &str) {
        let second = self.publish(name, sharing, ROWS).await.unwrap();
        assert_eq!(second.version.version, 1, "{at}");
        assert_eq!(self.entered(name, sharing), [1], "{at}");
        let file = format!("{}.parquet", second.record.file);
        assert!(self.node.home.data().join(file).is_file(), "{at}");
        assert!(self.publish(name, sharing, ROWS).await.unwrap().existed);
    }
}

fn follow(node: &Arc<Node>) -> JoinHandle<()> {
    tokio::spawn(node.replica.clone().follow(
        node.source.subscribe(),
        node.clock.clone(),
        node.shutdown.clone(),
    ))
}

/// Every second dataset is one that the registry must not name.
fn class(n: u64) -> Sharing {
    [Sharing::Public, Sharing::Withheld][n as usize % 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_says_what_is_being_published() {
    let mut stage = Stage::new().await;
    // It will be entered, and the node does not see it yet.
    stage.following.abort();
    let _ = (&mut stage.following).await;
    let node = stage.node.clone();
    let publishing =
        tokio::spawn(async move { world::publish(&node, "places", Sharing::Public, ROWS).await });
    let (agency, name) = ("aa".parse().unwrap(), "places".parse().unwrap());
    let waits =
        || Record::load(&stage.node.home, &agency, &name).is_ok_and(|record| record.waits());
    while !waits() {
        assert!(!publishing.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stage.node.status().publishing, "aa/places");
    let _following = follow(&stage.node);
    publishing.await.unwrap().unwrap();
    assert!(!waits());
    assert_eq!(stage.node.status().publishing, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_every_write_loses_nothing_and_doubles_nothing() {
    let stage = Stage::new().await;
    let mut reached = 0;
    for mode in MODES {
        for n in 1.. {
            let name = format!("t_{mode:?}_{n}").to_lowercase();
            stage.trap.arm(n, mode);
            let first = stage.publish(&name, class(n), ROWS).await;
            if !stage.trap.disarm() {
                assert!(first.is_ok(), "{first:?}");
                break;
            }
            reached += 1;
            if let Err(message) = &first {
                assert!(!message.is_empty() && stage.entered(&name, class(n)).len() <= 1);
            }
            let at = format!("{mode:?} at step {n}: {first:?}");
            stage.once_more(&name, class(n), &at).await;
        }
    }
    assert!(reached > 30, "only {reached} writes were made to fail");
}

/// Up to each step everything has reached the disk, and nothing after it: as where the power goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_write_loses_nothing_and_doubles_nothing() {
    let mut stage = Stage::new().await;
    for n in 1.. {
        let name = format!("t_{n}");
        stage.trap.arm(n, Mode::FromThenOn);
        let first = stage.publish(&name, class(n), ROWS).await;
        if !stage.trap.disarm() {
            assert!(first.is_ok() && n > 10, "{n} steps: {first:?}");
            break;
        }
        stage = stage.started_again().await;
        for dir in [stage.node.home.data(), stage.node.home.staging()] {
            let left = world::names(&dir);
            assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");
        }
        let at = format!("a crash at step {n}: {first:?}");
        stage.once_more(&name, class(n), &at).await;
        let files = world::names(&stage.node.home.data());
        assert_eq!(files.len() as u64, n, "{at}: {files:?}");
    }
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
}
