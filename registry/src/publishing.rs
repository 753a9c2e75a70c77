//! From committed to shown: the log as its writer and its rounds of cosignatures share it, and
//! what submitters wait for.
//!
//! The writer commits batch after batch. What readers are shown follows behind, as cosignatures
//! come in ([`crate::witness::rounds`]); where no witness has to sign, it follows at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jingwei_proto::checkpoint::{
    self, Checkpoint, CheckpointError, CheckpointKeys, verify_cosignature,
};
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::note::Note;
use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::RegistryKeys;
use jingwei_proto::time::Time;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::clock::{Clock, forward};
use crate::fault::{Blame, Fault};
use crate::log::{AppendError, Entry, Log, LogError, LogReader};
use crate::witness::client::WitnessAddress;
use crate::witness::rounds::{Committed, Gate, Publisher, Readers, Rounds};

/// How long a statement may wait for a quorum before its submitter is told that there is none.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The keys that a registry signs its log's checkpoints with.
#[derive(Debug)]
pub struct LogKeys {
    /// The log's origin.
    pub origin: String,
    /// Signs.
    pub log: SecretKey,
    /// Dates, where no witness does.
    pub cosigner: SecretKey,
}

impl LogKeys {
    /// Whether these are the keys that a root document names.
    pub fn are_of(&self, root: &RegistryKeys) -> bool {
        *self.log.public() == root.log && *self.cosigner.public() == root.cosigner
    }

    /// A signed and dated note of the checkpoint.
    pub fn seal(&self, checkpoint: &Checkpoint, clock: &Clock) -> Result<String, CheckpointError> {
        self.sign(checkpoint, 0, clock)
    }

    /// A signed note of the checkpoint, dated where no `quorum` of witnesses will.
    pub fn sign(
        &self,
        checkpoint: &Checkpoint,
        quorum: u64,
        clock: &Clock,
    ) -> Result<String, CheckpointError> {
        Ok(self.note(checkpoint, quorum, clock)?.to_string())
    }

    fn note(
        &self,
        checkpoint: &Checkpoint,
        quorum: u64,
        clock: &Clock,
    ) -> Result<Note, CheckpointError> {
        let mut note = checkpoint.sign(&self.log)?;
        if quorum == 0 {
            let (name, text) = (&self.origin, &note.text);
            let cosignature = checkpoint::cosign(text, name, &self.cosigner, clock())?;
            note.signatures.push(cosignature);
        }
        Ok(note)
    }

    /// A note signed with these keys and with the next ones: the first checkpoint that covers a
    /// new root is read by those who know it already, and by those who are about to.
    fn sign_with_next(
        &self,
        next: Option<&LogKeys>,
        checkpoint: &Checkpoint,
        quorum: u64,
        clock: &Clock,
    ) -> Result<String, CheckpointError> {
        let mut note = self.note(checkpoint, quorum, clock)?;
        if let Some(next) = next.filter(|next| next.log.public() != self.log.public()) {
            let signed = next.note(checkpoint, quorum, clock)?;
            note.signatures.splice(..0, signed.signatures);
        }
        Ok(note.to_string())
    }
}

/// The log, its keys, and who is told what readers are shown.
struct Shared {
    log: Mutex<Log>,
    keys: RwLock<Arc<LogKeys>>,
    clock: Clock,
    size: watch::Sender<u64>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        // The log keeps account of what it was doing, and finishes that before anything else.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> Arc<LogKeys> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Shows readers a committed checkpoint, unless they were shown a larger one already.
    fn show(&self, checkpoint: &Checkpoint, note: &str) -> Result<(), LogError> {
        let mut log = self.log();
        if log.reader().size() <= checkpoint.size {
            log.publish(note)?;
        }
        let size = log.reader().size();
        drop(log);
        self.size.send_if_modified(|shown| {
            let grown = *shown < size;
            *shown = size;
            grown
        });
        Ok(())
    }
}

/// The log in its writer's hands.
pub struct Publishing {
    shared: Arc<Shared>,
    rounds: Rounds,
    committed: LogReader,
    /// The size of the commit that the rounds heard of last.
    handed: AtomicU64,
}

impl Publishing {
    /// Takes up a log: what is committed and not published yet is published first, by the rules
    /// of `root`.
    pub fn start(
        mut log: Log,
        root: RootRecord,
        keys: LogKeys,
        clock: Clock,
        addresses: Vec<WitnessAddress>,
    ) -> Result<(Publishing, Coverage), LogError> {
        let witnessed = root.quorum > 0;
        if !witnessed {
            log.publish_sealed()?;
        }
        let (committed, shown) = (log.committed(), log.reader());
        // A smaller log dated later than a larger one is a proof against the registry, so a
        // clock that is set back must not make its dates go back.
        let dates = [&committed, &shown].map(|log| dated(&root, log));
        let clock = forward(clock, dates.into_iter().flatten().max());
        let (size, sizes) = watch::channel(shown.size());
        let shared = Arc::new(Shared {
            log: Mutex::new(log),
            keys: RwLock::new(Arc::new(keys)),
            clock,
            size,
        });
        let publisher = Publisher {
            readers: Box::new(shared.clone()),
            log: committed.clone(),
            addresses,
        };
        let rounds = Rounds::start(publisher, !witnessed)
            .map_err(|error| LogError::Threads(error.to_string()))?;
        let coverage = Coverage {
            size: sizes,
            gate: rounds.gate(),
            shown,
        };
        let publishing = Publishing {
            shared,
            rounds,
            handed: AtomicU64::new(committed.size()),
            committed,
        };
        publishing.take_up(Arc::new(root), !witnessed)?;
        Ok((publishing, coverage))
    }

    /// How many entries are committed.
    pub fn size(&self) -> u64 {
        self.committed.size()
    }

    /// What is committed, for reading.
    pub fn committed(&self) -> &LogReader {
        &self.committed
    }

    /// Why nothing must be signed any more, if that is so.
    pub fn halted(&self) -> Option<String> {
        match &*self.rounds.gate().borrow() {
            Gate::Halted(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// The keys that sign.
    pub fn keys(&self) -> Arc<LogKeys> {
        self.shared.keys()
    }

    /// Signs with other keys from now on.
    pub fn go_over_to(&self, keys: LogKeys) {
        let mut current = self
            .shared
            .keys
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(keys);
    }

    /// Commits a batch that a `quorum` of witnesses is to sign. `next` are the keys that a root at
    /// its end names. Readers are shown it when [`Publishing::show`] has been called and the
    /// quorum has signed.
    pub fn commit(
        &self,
        entries: &[Entry],
        quorum: u64,
        next: Option<&LogKeys>,
    ) -> Result<Checkpoint, AppendError<CheckpointError>> {
        let (keys, clock) = (self.shared.keys(), &self.shared.clock);
        let seal = |checkpoint: &Checkpoint| keys.sign_with_next(next, checkpoint, quorum, clock);
        self.shared.log().append(entries, seal)
    }

    /// Finishes a commit that the disk cut off.
    pub fn complete(&self) -> Result<(), LogError> {
        self.shared.log().complete().map(drop)
    }

    /// Brings the newest commit before its readers: at once, or as soon as a quorum has signed.
    /// `root` is the one in force with it, by which readers verify it. Does nothing where that was
    /// done already.
    pub fn show(&self, root: Arc<RootRecord>) -> Result<(), LogError> {
        let log = self.shared.log();
        let Some(note) = log.unpublished() else {
            return Ok(());
        };
        let checkpoint = log.checkpoint();
        drop(log);
        let direct = root.quorum == 0 && *self.rounds.gate().borrow() == Gate::Open;
        if direct {
            self.shared.show(&checkpoint, &note)?;
        }
        let handed = self.handed.swap(checkpoint.size, Ordering::Relaxed);
        if !direct && handed == checkpoint.size {
            return Ok(());
        }
        self.rounds.committed(Committed {
            checkpoint,
            note,
            root,
            published: direct,
        });
        Ok(())
    }

    /// The first round, over what is committed already; also where it is published, so that the
    /// witnesses can say whether this is an old copy.
    fn take_up(&self, root: Arc<RootRecord>, published: bool) -> Result<(), LogError> {
        let (checkpoint, note) = (
            self.committed.checkpoint(),
            self.committed.checkpoint_note(),
        );
        match note {
            Ok(note) => self.rounds.committed(Committed {
                checkpoint,
                note,
                root,
                published,
            }),
            Err(LogError::Empty { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// When the registry dated the newest checkpoint of the log, by its key in force.
fn dated(root: &RootRecord, log: &LogReader) -> Option<Time> {
    let note = Note::parse(log.checkpoint_note().ok()?.as_bytes()).ok()?;
    let key = CheckpointKeys::of_root(root).cosigner_key().ok()?;
    verify_cosignature(&note, &key).ok()
}

impl Readers for Arc<Shared> {
    fn publish(&self, checkpoint: &Checkpoint, note: &str) -> Result<(), String> {
        self.show(checkpoint, note)
            .map_err(|error| error.to_string())
    }

    fn seal(&self, checkpoint: &Checkpoint) -> Result<Option<String>, String> {
        // Held until it is dated: commits are dated under it too, so that no smaller log is ever
        // dated later than a larger one, which would be a proof against the registry.
        let log = self.log();
        if log.newest_sealed() != checkpoint.size {
            return Ok(None);
        }
        let sealed = self.keys().seal(checkpoint, &self.clock);
        sealed.map(Some).map_err(|error| error.to_string())
    }
}

/// What readers are shown, for those who wait until their statement is among it.
#[derive(Clone)]
pub struct Coverage {
    size: watch::Receiver<u64>,
    gate: watch::Receiver<Gate>,
    shown: LogReader,
}

impl Coverage {
    /// The published size, and its changes.
    pub fn size(&self) -> watch::Receiver<u64> {
        self.size.clone()
    }

    /// Whether the log takes in more, and its changes.
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.clone()
    }

    /// Whether the log takes in statements now.
    pub fn is_open(&self) -> bool {
        *self.gate.borrow() == Gate::Open
    }

    /// Waits until the log takes in statements.
    pub async fn open(&self, deadline: Instant) -> Result<(), Fault> {
        let mut gate = self.gate.clone();
        let opened = gate.wait_for(|gate| matches!(gate, Gate::Open | Gate::Halted(_)));
        let state = match timeout_at(deadline, opened).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => return Ok(()),
            Err(_) => self.gate.borrow().clone(),
        };
        match state {
            Gate::Open => Ok(()),
            closed => Err(no_quorum("nothing was entered", &closed)),
        }
    }

    /// Waits until a published checkpoint covers entry `index`, and returns it.
    pub async fn covered(&self, index: u64, deadline: Instant) -> Result<Arc<str>, Fault> {
        let mut size = self.size.clone();
        let mut covered = *size.borrow() > index;
        if !covered {
            let shown = timeout_at(deadline, size.wait_for(|size| *size > index)).await;
            covered = matches!(shown, Ok(Ok(_)));
        }
        if !covered {
            let gate = self.gate.borrow().clone();
            return Err(no_quorum(&format!("the statement is entry {index}"), &gate));
        }
        let note = self.shown.checkpoint_note().map_err(|error| {
            tracing::error!(%error, "the log cannot be read");
            Fault::new(Blame::Unavailable, "the registry cannot read its log")
        })?;
        Ok(note.into())
    }
}

fn no_quorum(done: &str, gate: &Gate) -> Fault {
    let reason = match gate {
        Gate::Waiting(reason) | Gate::Halted(reason) => reason.as_str(),
        Gate::Starting | Gate::Open => "the witnesses have not answered yet",
    };
    Fault::new(
        Blame::Unavailable,
        format!("{done}, but the log has no quorum of witnesses: {reason}"),
    )
    .advise("submit it again later: the same statement is never entered twice")
    .retry_after(Duration::from_secs(5))
}
