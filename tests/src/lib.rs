//! Starts real federations for tests and benchmarks: the programs that people run, as processes
//! of their own, on free ports, in directories that vanish.
//!
//! ```text
//! Federation ─┬─ Registry     `jingwei-registry serve`, which can be killed and started again
//!             └─ Node …       `jingwei serve`; commands are run against it as from a terminal
//! Witness                     `jingwei-registry witness`
//! Witnessed                   a Registry whose log needs witnesses, and these
//! S3                          an object store in this process that can be made to fail
//! LyingRegistry, LyingPeer, LyingWitness
//!                             servers in this process that hold real keys and lie
//! WitnessGate                 stands before a truthful witness and loses what it says
//! BareAsker                   an agency whose messages the test writes by itself
//! accusing                    proofs of misbehaviour, as the auditor's program judges them
//! reading                     the log's files read by code that shares nothing with the product
//! ```
//!
//! Nothing here waits for a fixed time: a process is ready when it says so on its standard
//! output, and where there is no such event the state is asked for until a deadline.

pub mod accusing;
pub mod bare_asker;
pub mod child;
pub mod federation;
pub mod journal;
pub mod keyring;
pub mod local;
pub mod lying_peer;
pub mod lying_registry;
pub mod lying_witness;
pub mod node;
pub mod programs;
pub mod reading;
pub mod registry;
pub mod s3;
pub mod seeded;
pub mod shared;
pub mod snapshots;
pub mod witness;
pub mod witness_gate;
pub mod witnessed;

pub use federation::Federation;
pub use node::Node;
pub use programs::Ran;
pub use registry::Registry;
pub use witness::Witness;
pub use witnessed::Witnessed;
