//! A replica whose disk is full just where it remembers the highest checkpoint.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jingwei_proto::digest::Digest;
use jingwei_registry::clock;
use jingwei_registry::disk::{Disk, Faults, Operation};
use jingwei_registry::replica::Replica;
use jingwei_registry::source::Source;
use jingwei_tests::Federation;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::reading::LogFiles;

/// A disk that is full for one operation on the file, or that is full and does it all the same.
#[derive(Default)]
struct Full {
    before: AtomicBool,
    after: AtomicBool,
}

impl Full {
    fn refuses(&self, flag: &AtomicBool, operation: Operation, path: &Path) -> io::Result<()> {
        let highest = path.file_name().is_some_and(|name| name == "highest");
        if highest && operation == Operation::Rename && flag.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Faults for Full {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.refuses(&self.before, operation, path)
    }

    fn after(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.refuses(&self.after, operation, path)
    }
}

struct Stage {
    federation: Federation,
    agent: Agent,
    origin: String,
    full: Arc<Full>,
}

impl Stage {
    fn open(&self) -> Arc<Replica> {
        let dir = self.federation.dir.path().join("replica");
        let disk = Disk::with_faults(self.full.clone());
        let root: Digest = self.federation.registry.root();
        Replica::open(&dir, &self.origin, root, disk).unwrap()
    }

    fn advance(&self, replica: &Arc<Replica>) -> Result<(), String> {
        let source = Source::new(&self.federation.registry.url()).unwrap();
        let clock = clock::system();
        let advanced = replica.advance(&source, Duration::ZERO, &clock);
        let advanced = runtime().block_on(advanced);
        advanced.map(drop).map_err(|error| error.to_string())
    }

    fn enter(&self, name: &str) {
        let submitter = self.federation.registry.submitter();
        let envelope = self.agent.dataset(name);
        runtime().block_on(submitter.submit(&envelope)).unwrap();
    }
}

/// What it cannot remember it does not rely on: it says so, shows what it had, and goes on as
/// soon as there is room, also after a start in between.
#[test]
fn a_full_disk_where_the_highest_checkpoint_is_kept() {
    let federation = Federation::start();
    let agent = Agent::new(&federation.registry, "aa", 7);
    let submitter = federation.registry.submitter();
    let enrolment = agent.enrolment(&federation.registry);
    runtime().block_on(submitter.submit(&enrolment)).unwrap();
    let log = LogFiles::read(&federation.registry.dir.join("log"));
    let stage = Stage {
        origin: log.origin,
        federation,
        agent,
        full: Arc::default(),
    };
    let mut replica = stage.open();
    stage.advance(&replica).unwrap();
    let mut size = replica.log().size();
    assert_eq!(size, 2);
    for (round, (flag, restarts)) in [
        (&stage.full.before, false),
        (&stage.full.before, true),
        (&stage.full.after, false),
        (&stage.full.after, true),
    ]
    .into_iter()
    .enumerate()
    {
        stage.enter(&format!("d{round}"));
        flag.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            let refused = stage.advance(&replica).unwrap_err();
            assert!(refused.contains("highest"), "{refused}");
            assert_eq!(replica.log().size(), size, "shown, and not remembered");
        }
        flag.store(false, Ordering::SeqCst);
        if restarts {
            drop(replica);
            replica = stage.open();
        }
        stage.advance(&replica).unwrap();
        size += 1;
        assert_eq!(replica.log().size(), size);
        replica.log().audit().unwrap();
    }
}
