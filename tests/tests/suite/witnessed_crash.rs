//! `kill -9` of a registry and of its witnesses under load: what was acknowledged is there, a
//! quorum has signed it, and no witness has signed anything else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jingwei_proto::dsse::Envelope;
use jingwei_proto::policy::Policy;
use jingwei_registry::fault::Blame;
use jingwei_registry::submit::Submitter;
use jingwei_tests::Witnessed;
use jingwei_tests::local::runtime;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::seeded::Seeded;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const ROUNDS: usize = 15;
const STATEMENTS: usize = 1_200;
/// Statements on their way at once.
const CLIENTS: usize = 16;
/// Acknowledged between two kills, at most.
const ENOUGH: usize = 30;

struct Load {
    statements: Vec<Envelope>,
    waiting: Mutex<Vec<usize>>,
    acknowledged: Mutex<HashMap<usize, (u64, Arc<str>)>>,
    count: watch::Sender<usize>,
}

impl Load {
    /// Submits statement after statement until the registry is gone or none is left.
    async fn submit(self: Arc<Self>, submitter: Submitter) {
        loop {
            let Some(next) = self.waiting.lock().unwrap().pop() else {
                return;
            };
            match submitter.submit(&self.statements[next]).await {
                Ok(accepted) => {
                    let place = (accepted.index, accepted.checkpoint);
                    let before = self.acknowledged.lock().unwrap().insert(next, place);
                    assert!(before.is_none());
                    self.count.send_modify(|count| *count += 1);
                }
                Err(fault) => {
                    let gone = [Blame::Unavailable, Blame::Cancelled, Blame::Internal];
                    assert!(gone.contains(&fault.blame), "{fault:?}");
                    self.waiting.lock().unwrap().push(next);
                    return;
                }
            }
        }
    }

    fn clients(self: &Arc<Self>, all: &Witnessed) -> Vec<JoinHandle<()>> {
        let submitter = all.registry.submitter();
        (0..CLIENTS)
            .map(|_| runtime().spawn(self.clone().submit(submitter.clone())))
            .collect()
    }

    /// Waits until some more are acknowledged.
    fn some_more(&self, random: &mut Seeded) {
        let mut count = self.count.subscribe();
        let enough = (*count.borrow() + 1 + random.below(ENOUGH)).min(STATEMENTS);
        let so = runtime().block_on(count.wait_for(|count| *count >= enough));
        assert!(so.is_ok());
    }
}

fn ended(clients: Vec<JoinHandle<()>>) {
    for client in clients {
        runtime().block_on(client).unwrap();
    }
}

#[test]
fn what_a_quorum_has_signed_survives_kill_9_of_registry_and_witnesses() {
    let mut all = Witnessed::found(3, 2, &[]);
    all.start();
    let load = Arc::new(Load {
        statements: (0..STATEMENTS)
            .map(|n| all.agent.dataset(&format!("d{n}")))
            .collect(),
        waiting: Mutex::new((0..STATEMENTS).collect()),
        acknowledged: Mutex::default(),
        count: watch::Sender::new(0),
    });
    let mut random = Seeded::new(0x5eed_0011);
    for _ in 0..ROUNDS {
        let clients = load.clients(&all);
        load.some_more(&mut random);
        // One witness is not missed; it comes back, and another goes.
        let (first, second) = (random.below(3), random.below(3));
        all.witnesses[first].kill9();
        load.some_more(&mut random);
        all.witnesses[first].start(&all.policy);
        load.some_more(&mut random);
        all.witnesses[second].kill9();
        std::thread::sleep(random.millis(20));
        all.registry.kill9();
        ended(clients);
        all.registry.start();
        all.witnesses[second].start(&all.policy);
    }
    // Clients give up where the registry was still waiting for its quorum.
    while load.acknowledged.lock().unwrap().len() < STATEMENTS {
        ended(load.clients(&all));
    }
    check(&mut all, &load);
}

fn check(all: &mut Witnessed, load: &Load) {
    all.registry.stop();
    let log = LogFiles::read(&all.registry.dir.join("log"));
    // The root, the agency, and each statement once.
    assert_eq!(log.size(), 2 + STATEMENTS as u64);
    assert!(!log.repeats());
    let policy = Policy::parse(&std::fs::read(&all.policy).unwrap()).unwrap();
    let acknowledged = load.acknowledged.lock().unwrap();
    for (statement, (index, note)) in acknowledged.iter() {
        let held = &log.envelopes[*index as usize];
        assert_eq!(*held, load.statements[*statement].to_bytes(), "{index}");
        let accepted = policy.verify(note.as_bytes()).unwrap();
        assert!(accepted.checkpoint.size > *index && log.holds(note));
    }
    for witness in &mut all.witnesses {
        witness.kill9();
        let remembered = memories(&witness.dir.join("logs"));
        assert_eq!(remembered.len(), 1);
        assert!(log.holds(&remembered[0]), "{}", remembered[0]);
    }
}

/// What a witness has stored; besides its memory of each log there is a lock.
fn memories(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let memories = files.filter(|file| file.file_name().len() == 64);
    memories
        .map(|file| std::fs::read_to_string(file.path()).unwrap())
        .collect()
}
