//! A full disk under the journal, on either side of an exchange: no message counts that is not in
//! its sender's journal, and when there is room again everything goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::StreamExt as _;
use jingwei_proto::statement::Sharing;
use jingwei_registry::disk::Disk;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::ask::Question;
use super::*;
use crate::catalogue::Tables;
use crate::journal::{Kind, read_all};
use crate::query::error::QueryError;
use crate::query::session::Session;
use crate::world::{self, MODES, ROWS, Trap, World};

const SQL: &str = "SELECT code, people FROM aa.places";
/// Where the journals' records are; their logs are made of them, also after a crash.
const RECORDS: &[&str] = &["records"];

/// What an exchange leaves in a journal, in the order of the records.
const REQUESTED: &[Kind] = &[Kind::Request];
const ANSWERED: &[Kind] = &[Kind::Request, Kind::Acceptance, Kind::Receipt];
const WHOLE: &[Kind] = &[
    Kind::Request,
    Kind::Acceptance,
    Kind::Receipt,
    Kind::Acknowledgement,
];

/// A node in service.
struct Served {
    node: Arc<Node>,
    task: JoinHandle<Result<(), Fault>>,
}

impl Served {
    async fn start(world: &World, agency: &str, disk: Disk) -> Served {
        let node = world::open(world.home(agency).await, disk);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let task = tokio::spawn(node.clone().serve(listener));
        Served { node, task }
    }

    /// Waits until it knows the agency's node.
    async fn knows(&self, agency: &str) {
        let (id, mut standing) = (agency.parse().unwrap(), self.node.replica.standing());
        while self.node.replica.index().node(&id).unwrap().is_none() {
            standing.changed().await.unwrap();
        }
    }

    /// Stops it, which puts all records into the journal's log.
    async fn stop(self) {
        self.node.stop();
        self.task.await.unwrap().unwrap();
    }
}

/// `aa` provides and `bb` asks.
struct Stage {
    provider: Served,
    asker: Served,
    world: World,
}

impl Stage {
    async fn new(provider: Disk, asker: Disk) -> Stage {
        let world = World::new().await;
        let provider = Served::start(&world, "aa", provider).await;
        let asker = Served::start(&world, "bb", asker).await;
        provider.knows("bb").await;
        asker.knows("aa").await;
        let published = world::publish(&provider.node, "places", Sharing::Unconditional, ROWS);
        let index = published.await.unwrap().record.index;
        asker.node.replica.reached(index).await;
        Stage {
            provider,
            asker,
            world,
        }
    }

    /// Asks once: how many rows came, and how the question ended.
    async fn ask(&self) -> (usize, Result<(), QueryError>) {
        let mut rows = 0;
        let result = self.question(&mut rows).await;
        (rows, result)
    }

    async fn question(&self, count: &mut usize) -> Result<(), QueryError> {
        let node = &self.asker.node;
        let agency = node.hosted_agency("").unwrap();
        let limits = node.config.query.clone();
        let seat = node.seats.ask().await.unwrap();
        let question = Question::new(node, &agency, None, None, false, limits.clone());
        let _stops_all = question.cancelled.clone().drop_guard();
        let session = Session::new(Arc::new(Tables(question.clone())), limits);
        let (_, mut rows) = session.run(SQL, seat).await?;
        while let Some(batch) = rows.next().await {
            *count += batch?.num_rows();
        }
        assert_eq!(question.take_exchanged().await?.len(), 1);
        Ok(())
    }

    /// Ends both nodes; what each journal, read from its files, holds of every exchange.
    async fn journals(self) -> [Vec<Vec<Kind>>; 2] {
        let year = (self.asker.node.clock)().year().to_string();
        let dirs = [(&self.provider, "aa"), (&self.asker, "bb")]
            .map(|(side, agency)| side.node.home.journal().join(agency).join(&year));
        self.provider.stop().await;
        self.asker.stop().await;
        // The files go with the world.
        let _world = self.world;
        dirs.map(exchanges)
    }
}

/// The messages of each exchange in a journal, all of them in its log.
fn exchanges(dir: PathBuf) -> Vec<Vec<Kind>> {
    let mut exchanges: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for stored in read_all(&dir).unwrap() {
        assert!(stored.sequenced, "a record is not in the log");
        let kinds = exchanges.entry(stored.record.nonce).or_default();
        kinds.push(stored.record.kind);
    }
    exchanges.into_values().collect()
}

fn count(exchanges: &[Vec<Kind>], kinds: &[Kind]) -> usize {
    exchanges.iter().filter(|one| *one == kinds).count()
}

/// Lets the journal fail at each of its writes, in every mode, and asks again once it is mended.
/// `failed` is told at which write a question failed and how many rows had come; returns how many
/// were answered.
async fn fail_everywhere(stage: &Stage, trap: &Trap, mut failed: impl FnMut(u64, usize)) -> usize {
    let mut answered = 0;
    for mode in MODES {
        for n in 1.. {
            trap.arm(n, mode);
            let (rows, result) = stage.ask().await;
            let reached = trap.disarm();
            match result {
                Ok(()) => answered += 1,
                Err(error) => {
                    assert!(
                        error.to_string().contains("journal"),
                        "{mode:?} at {n}: {error}"
                    );
                    failed(n, rows);
                }
            }
            let (rows, result) = stage.ask().await;
            assert!(result.is_ok() && rows == 2, "{mode:?} at {n}: {result:?}");
            answered += 1;
            if !reached {
                assert_eq!(n, 5, "a short exchange is written in two groups");
                break;
            }
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asker_whose_journal_cannot_be_written_has_no_answer() {
    let trap = Trap::new(RECORDS);
    let stage = Stage::new(Disk::new(), trap.disk()).await;
    let (mut unasked, mut unacknowledged) = (0, 0);
    // Before the request stands in the journal nobody is asked.
    let failed = |n, rows| match n {
        1 | 2 => {
            assert_eq!(rows, 0, "at {n}");
            unasked += 1;
        }
        _ => unacknowledged += 1,
    };
    let answered = fail_everywhere(&stage, &trap, failed).await;
    assert!(unasked >= 6 && unacknowledged >= 6);
    let [provider, asker] = stage.journals().await;
    assert_eq!(count(&asker, WHOLE), answered, "{asker:?}");
    assert_eq!(count(&asker, REQUESTED), unacknowledged);
    assert_eq!(asker.len(), answered + unacknowledged);
    assert_eq!(provider.len(), answered + unacknowledged);
    assert_eq!(count(&provider, WHOLE), answered, "{provider:?}");
    assert_eq!(count(&provider, ANSWERED), unacknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_journal_cannot_be_written_answers_nobody() {
    let trap = Trap::new(RECORDS);
    let stage = Stage::new(trap.disk(), Disk::new()).await;
    let mut unaccepted = 0;
    // No row leaves before acceptance and receipt stand in the journal.
    let failed = |n, rows| {
        assert_eq!(rows, 0, "at {n}");
        assert!(n <= 2, "an acknowledgement can wait");
        unaccepted += 1;
    };
    let answered = fail_everywhere(&stage, &trap, failed).await;
    assert!(unaccepted >= 6);
    let [provider, asker] = stage.journals().await;
    assert_eq!(count(&asker, WHOLE), answered, "{asker:?}");
    assert_eq!(count(&asker, REQUESTED), unaccepted);
    assert_eq!(provider.len(), answered);
    assert_eq!(count(&provider, WHOLE), answered, "{provider:?}");
}
