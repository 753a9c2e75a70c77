//! A federation whose log needs witnesses, as processes.

use std::path::PathBuf;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::policy::Policy;
use jingwei_registry::fault::Fault;
use jingwei_registry::sequencer::Accepted;
use tempfile::TempDir;

use crate::keyring::Agent;
use crate::local::runtime;
use crate::registry::Registry;
use crate::witness::Witness;

/// A federation whose log needs witnesses.
pub struct Witnessed {
    /// The registry.
    pub registry: Registry,
    /// Its witnesses, `w1.example` and so on.
    pub witnesses: Vec<Witness>,
    /// The policy that the registry prints, in a file.
    pub policy: PathBuf,
    /// An agency.
    pub agent: Agent,
    /// Where everything is; it vanishes with the federation.
    pub dir: TempDir,
}

impl Witnessed {
    /// Founds it with so many witnesses, which are started, and of which `quorum` must sign; of
    /// those in `absent` there are addresses and directories with keys only. The registry is not
    /// started.
    pub fn found(count: usize, quorum: u64, absent: &[&str]) -> Witnessed {
        let dir = tempfile::Builder::new()
            .prefix("jingwei-")
            .tempdir()
            .expect("a temporary directory");
        let mut options = vec!["--quorum".to_owned(), quorum.to_string()];
        let mut witnesses = Vec::new();
        for n in 1..=count + absent.len() {
            let name = format!("w{n}.example");
            let witness = Witness::begin(&dir.path().join(format!("w{n}")), &name);
            let url = match absent.get(n.wrapping_sub(count + 1)) {
                Some(address) => (*address).to_owned(),
                None => witness.url(),
            };
            options.extend(["--witness".into(), witness.key.to_string(), url]);
            if n <= count {
                witnesses.push(witness);
            }
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let registry = Registry::found_with(&dir.path().join("registry"), "test", &options);
        let policy = dir.path().join("policy");
        std::fs::write(&policy, registry.policy()).expect("the directory is ours");
        let agent = Agent::new(&registry, "aa", 3);
        let mut all = Witnessed {
            registry,
            witnesses,
            policy,
            agent,
            dir,
        };
        all.start_witnesses();
        all
    }

    /// Starts all witnesses.
    pub fn start_witnesses(&mut self) {
        for witness in &mut self.witnesses {
            witness.start(&self.policy);
        }
    }

    /// Starts the registry and enrols the agency.
    pub fn start(&mut self) {
        self.registry.start();
        let enrolled = self.submit(&self.agent.enrolment(&self.registry));
        enrolled.expect("the quorum signs");
    }

    /// Submits a statement and waits for the answer.
    pub fn submit(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        runtime().block_on(self.registry.submitter().submit(envelope))
    }

    /// Who has co-signed a checkpoint, which the policy must accept.
    #[track_caller]
    pub fn cosigners(&self, note: &str) -> Vec<usize> {
        let policy = std::fs::read(&self.policy).expect("it was written");
        let policy = Policy::parse(&policy).expect("the registry prints a policy");
        policy
            .verify(note.as_bytes())
            .expect("the quorum has signed");
        let lines = |name: String| note.contains(&format!("\n— {name} "));
        (1..=3).filter(|n| lines(format!("w{n}.example"))).collect()
    }
}
