//! A transparency log in a directory: the registry's, a replica's of it, and a
//! node's journals.
//!
//! ```text
//! lock                    one writer at a time
//! staged                  the batch on its way, leaves and envelopes
//! commit/000000000042     batch 42: predecessor's digest, sizes, root, sealed checkpoint
//! tile/0/x001/234.p/7     hashes          ┐
//! tile/entries/…          entries         ├ C2SP tlog-tiles, to be served as they are
//! tile/envelopes/…        envelopes       ┘
//! checkpoint              the published, sealed checkpoint
//! ```
//!
//! # How a batch gets in
//!
//! ```text
//! stage, tiles ─► read back ─► seal ─► COMMIT RECORD ─► tiles' names ─► checkpoint
//! └────── nothing has happened ──────┘ └──── the batch is final ────┘   └ readers see it ┘
//! └────────────────────────── append ───────────────────────────────┘   └─── publish ────┘
//! ```
//!
//! The tiles are written as temporary files while the batch is staged, where the storage has such,
//! and get their names after the commit.
//!
//! The commit record is linked into place under the next number, which fails if that name is
//! taken: of two writers that both believe to be the one, the second is *fenced* and stops. The
//! record names the SHA-256 of the staged bytes, so from then on batch, root and seal are
//! fixed, and everything after it can be written from the staging, also once more. Recovery
//! is therefore the last half of an append: if the staged bytes are the newest record's, write
//! their tiles. There is no other recovery code.
//!
//! What is committed is *published* by a second call, which takes the note with whatever
//! cosignatures were collected in between: [`Log::publish`]. A log that nobody co-signs publishes
//! its own seal at once ([`Log::append_and_publish`], and [`Log::publish_sealed`] after opening).
//! Meanwhile further batches may be committed: a note over any committed checkpoint that is not
//! older than the published one can be published. The log writes ([`Log::size`],
//! [`Log::committed`]) where commits end; readers ([`Log::reader`]) see what is published.
//!
//! A staged batch *without* commit record is dropped at open. Nobody was told of it, so whoever
//! submitted it will again; to commit it would take a seal, which only a writer can give. For
//! the same reason it does no harm that its checkpoint may have been signed: the note existed in
//! memory alone. Once the record stands, its checkpoint is the only one that can be published for
//! that size, so no two roots of one size leave the process.
//!
//! The right edge of the tree, and the tiles and bundles that are not full, stay in the writer's
//! memory from the moment they were checked against the committed root: what flips on the disk
//! afterwards cannot get into a root that is signed.
//!
//! Where the files are is the matter of a [`Storage`]. [`Log::open`] takes a directory of this
//! machine and locks it, [`Log::open_in`] any storage, such as a bucket ([`Objects`]).
//!
//! A log has one name, its origin, which stands in every checkpoint and commit record. Only a
//! replica's changes, when its registry is taken over by another ([`Log::continue_as`]): what was
//! committed before stays as it was, under the name of that time.
//!
//! That a log is an old copy, brought back from a backup, is not to be seen in it.
//! [`Log::remember`] keeps what was shown in a file outside of it, and finds that out.
//!
//! Failures are told apart by what the caller has to do ([`AppendError`]): before the commit
//! point the log is as it was; after it the batch is in, and [`Log::complete`] or the next open
//! finishes the work. Nothing is published before all of it is durable.
//!
//! # What it costs
//!
//! An append of a small batch waits for the disk four times: for the staging and, side by side with it,
//! the tiles and bundles (1), for the record and its directory (2), and for the directories of the tiles
//! (1): hashes, entries, and envelopes where the log has them, and one more of each kind for each 256
//! entries; and once for each directory that is new. To publish the log's own seal costs none: the commit record has it. A note
//! with more signatures costs 2, because a reader who saw it must not be shown a smaller log after a
//! power cut; and what [`Log::remember`] keeps costs 1 for each publication.
//!
//! Out of scope: who may enter what (the state's matter), when to seal and with which keys (the
//! caller's), and serving over the network.

use std::path::Path;
use std::sync::Arc;

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::merkle::{Edge, leaf_hash};
use jingwei_proto::tile::MAX_ENVELOPE;

use crate::disk::{Created, DirLock, Disk};

mod batch;
mod commit;
mod error;
mod highest;
mod reader;
mod shown;
mod storage;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod tiles;

use batch::Batch;
use commit::{Commit, Commits, read_note};
pub use error::{AppendError, LogError};
use highest::Highest;
use reader::Head;
pub use reader::{Items, LogReader};
use shown::{CHECKPOINT, Shown};
pub use storage::{Begun, Bucket, File, Local, Objects, Patience, Storage, StorageUrl};
pub use stored::Stored;
use tiles::{Plan, Tail};

/// One entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is hashed into the tree; at most 65,535 bytes.
    pub leaf: Vec<u8>,
    /// The signed envelope behind it; at most 256 KiB. A log has envelopes for all its entries
    /// or for none.
    pub envelope: Option<Vec<u8>>,
}

/// Entries in one append. Larger batches save no more fsyncs worth having, and this many
/// statements of common size fit in memory with ease.
pub const MAX_BATCH: usize = 10_000;

/// The writer of a log; there is one at a time.
pub struct Log {
    storage: Arc<dyn Storage>,
    commits: Commits,
    /// The name in checkpoints from now on.
    origin: String,
    newest: Option<Commit>,
    edge: Edge,
    tail: Tail,
    pending: Option<Pending>,
    committed: LogReader,
    published: LogReader,
    shown: Shown,
    /// What was shown, as it is remembered beside the key.
    highest: Option<Highest>,
    _lock: Option<DirLock>,
}

/// A batch that is past its commit point, or may be.
struct Pending {
    commit: Commit,
    plan: Plan,
    /// What was done of the plan while the batch was staged.
    begun: Begun,
    edge: Edge,
    /// Whether the commit record is known to be durable.
    durable: bool,
}

impl Log {
    /// Opens the log in the directory `dir`, as [`Log::open_in`] does.
    pub fn open(dir: &Path, disk: Disk, origin: &str) -> Result<Log, LogError> {
        let (local, lock) = Local::writer(dir, disk)?;
        let mut log = Log::open_in(Arc::new(local), origin)?;
        log._lock = Some(lock);
        Ok(log)
    }

    /// Opens the log in `storage`, creating it if there is none, and finishes the commit that was
    /// cut off. What is committed may be unpublished still: see [`Log::unpublished`].
    pub fn open_in(storage: Arc<dyn Storage>, origin: &str) -> Result<Log, LogError> {
        let commits = Commits::new(storage.clone());
        let newest = commits.newest()?;
        if let Some(commit) = &newest {
            if commit.origin != origin {
                return Err(LogError::Origin {
                    dir: storage.place(""),
                    expected: origin.to_owned(),
                    found: commit.origin.clone(),
                });
            }
            commits.prune_all(commit.number)?;
            let cleaned = storage.clean(commit.number);
            cleaned.map_err(|error| LogError::io(&*storage, "", error))?;
        }
        let empty = || Head {
            checkpoint: Checkpoint::new(origin, 0, Edge::new().root()),
            note: None,
        };
        let mut log = Log {
            commits,
            origin: origin.to_owned(),
            newest: None,
            edge: Edge::new(),
            tail: Tail::default(),
            pending: None,
            committed: LogReader::new(storage.clone(), empty()),
            published: LogReader::new(storage.clone(), empty()),
            shown: Shown::load(storage.clone())?,
            highest: None,
            _lock: None,
            storage,
        };
        if let Some(commit) = newest {
            log.recover(commit)?;
        }
        log.take_up_published()?;
        Ok(log)
    }

    /// The name of the log in the directory `dir`, as its newest commit has it; `None` where there
    /// is none yet.
    pub fn origin_in(dir: &Path) -> Result<Option<String>, LogError> {
        Log::origin_of(&(Arc::new(Local::reader(dir)) as Arc<dyn Storage>))
    }

    /// The name of the log in `storage`.
    pub fn origin_of(storage: &Arc<dyn Storage>) -> Result<Option<String>, LogError> {
        let newest = Commits::new(storage.clone()).newest()?;
        Ok(newest.map(|commit| commit.origin))
    }

    /// How many entries are committed to the log in `storage`, which its writer may have open.
    pub fn committed_in(storage: &Arc<dyn Storage>) -> Result<u64, LogError> {
        let newest = Commits::new(storage.clone()).newest()?;
        Ok(newest.map_or(0, |commit| commit.size))
    }

    /// Goes on under another name from the next commit on. A log that is opened again before has
    /// its old one still.
    pub fn continue_as(&mut self, origin: &str) {
        origin.clone_into(&mut self.origin);
    }

    /// Commits a batch: `seal` gets the checkpoint that covers it and returns the signed note,
    /// or refuses. On `Ok` the entries are durable and final, but no reader sees them before
    /// [`Log::publish`].
    ///
    /// The seal must keep to itself what it signed: the note counts only once this returns.
    pub fn append<E>(
        &mut self,
        entries: &[Entry],
        seal: impl FnOnce(&Checkpoint) -> Result<String, E>,
    ) -> Result<Checkpoint, AppendError<E>> {
        if self.pending.is_some() {
            self.complete().map_err(unfinished)?;
            return Err(AppendError::Grown { size: self.size() });
        }
        if entries.is_empty() {
            return Ok(self.checkpoint());
        }
        let envelopes = self.check(entries).map_err(AppendError::Refused)?;
        self.check_unfenced()?;
        let batch = Batch {
            number: self.newest.as_ref().map_or(1, |commit| commit.number + 1),
            before: self.edge.size(),
            envelopes,
            entries: entries.into(),
        };
        let plan = self.committed.tiles().plan(&self.tail, &batch);
        let plan = plan.map_err(AppendError::Storage)?;
        let staged = self.stage(&batch, &plan);
        let (digest, begun) = staged.map_err(AppendError::Storage)?;
        let mut edge = self.edge.clone();
        batch
            .entries
            .iter()
            .for_each(|entry| edge.push(leaf_hash(&entry.leaf)));
        let checkpoint = Checkpoint::new(self.origin.clone(), edge.size(), edge.root());
        let note = seal(&checkpoint).map_err(AppendError::Seal)?;
        check_seal(&checkpoint, &note).map_err(AppendError::Refused)?;
        let commit = Commit {
            number: batch.number,
            previous: self.newest.as_ref().map(Commit::digest),
            origin: checkpoint.origin,
            before: batch.before,
            size: checkpoint.size,
            root: checkpoint.root,
            batch: digest,
            envelopes,
            note,
        };
        self.commit(Pending {
            commit,
            plan,
            begun,
            edge,
            durable: false,
        })?;
        self.complete().map_err(unfinished)
    }

    /// As [`Log::append`], and publishes at once: for a log that nobody co-signs.
    pub fn append_and_publish<E>(
        &mut self,
        entries: &[Entry],
        seal: impl FnOnce(&Checkpoint) -> Result<String, E>,
    ) -> Result<Checkpoint, AppendError<E>> {
        let checkpoint = self.append(entries, seal)?;
        self.publish_sealed().map_err(unfinished)?;
        Ok(checkpoint)
    }

    /// Finishes a batch that an append had to leave after its commit point; does nothing where
    /// there is none. Returns the checkpoint that is committed then.
    pub fn complete(&mut self) -> Result<Checkpoint, LogError> {
        let Some(pending) = &mut self.pending else {
            return Ok(self.checkpoint());
        };
        if !pending.durable {
            create(&*self.storage, &self.commits, &pending.commit)?;
            pending.durable = true;
        }
        let begun = std::mem::take(&mut pending.begun);
        self.committed.tiles().write(&pending.plan, begun)?;
        if let Some(Pending {
            commit, plan, edge, ..
        }) = self.pending.take()
        {
            self.committed.tiles().remove_replaced(&plan);
            self.storage.unstage(commit.number, &commit.batch);
            self.commits.prune(commit.number);
            (self.edge, self.tail) = (edge, plan.tail);
            self.take_up(commit);
        }
        Ok(self.checkpoint())
    }

    /// Shows readers a committed checkpoint under `note`, which may carry more signatures than
    /// the log's own. It may be the published checkpoint again, with further signatures; it
    /// cannot be an older one. Whose signatures they are is the caller's to check.
    pub fn publish(&mut self, note: &str) -> Result<(), LogError> {
        let checkpoint = read_note(note).map_err(|reason| LogError::Unpublishable { reason })?;
        self.check_committed(&checkpoint)
            .map_err(|reason| LogError::Unpublishable { reason })?;
        // The log's own seal stands in the commit record too.
        let sealed = self.newest.as_ref().is_some_and(|own| own.note == note);
        if let Some(highest) = &mut self.highest {
            highest.raise(&checkpoint)?;
        }
        self.shown.replace(note, !sealed)?;
        self.published.publish(Head {
            checkpoint,
            note: Some(note.to_owned()),
        });
        Ok(())
    }

    /// Publishes the newest commit under the log's own seal, where it is not published yet.
    pub fn publish_sealed(&mut self) -> Result<(), LogError> {
        match self.unpublished() {
            Some(note) => self.publish(&note),
            None => Ok(()),
        }
    }

    /// The log's own note over the newest commit, as long as readers see only an older one.
    pub fn unpublished(&self) -> Option<String> {
        let commit = self.newest.as_ref()?;
        (self.published.size() < commit.size).then(|| commit.note.clone())
    }

    /// Remembers in the file `path`, which is to lie beside the key that signs the log, what
    /// readers are shown, and refuses a log that is older than what it remembers.
    pub fn remember(&mut self, path: &Path, disk: Disk) -> Result<(), LogError> {
        let mut highest = Highest::open(path, disk)?;
        if let Some((size, root)) = highest.shown() {
            let known = size <= self.size() && self.committed.root_at(size)? == root;
            if !known {
                return Err(LogError::OldCopy {
                    log: self.storage.place(""),
                    size: self.size(),
                    record: highest.path().to_owned(),
                    shown: size,
                });
            }
        }
        if self.published.size() > 0 {
            highest.raise(&self.published.checkpoint())?;
        }
        self.highest = Some(highest);
        Ok(())
    }

    /// How many entries are committed.
    pub fn size(&self) -> u64 {
        self.committed.size()
    }

    /// How many entries the newest seal covers that counts, or may count yet.
    pub fn newest_sealed(&self) -> u64 {
        let pending = self.pending.as_ref().map(|pending| pending.commit.size);
        pending.unwrap_or_else(|| self.size())
    }

    /// The newest committed checkpoint; of size 0 for a log that has none.
    pub fn checkpoint(&self) -> Checkpoint {
        self.committed.checkpoint()
    }

    /// A view of what is published, for other threads.
    pub fn reader(&self) -> LogReader {
        self.published.clone()
    }

    /// A view of what is committed: for the writer's own state, which must not lag behind.
    pub fn committed(&self) -> LogReader {
        self.committed.clone()
    }

    /// Takes up the log at its newest commit, writing what that commit's batch still lacks.
    fn recover(&mut self, commit: Commit) -> Result<(), LogError> {
        let tiles = self.committed.tiles().clone();
        match staged_batch(&*self.storage, &commit)? {
            Some(batch) => {
                let before = Tail::load(&tiles, batch.before, batch.envelopes)?;
                let plan = tiles.plan(&before, &batch)?;
                // The edge is read from the tiles below, once they are all there.
                let edge = Edge::new();
                self.pending = Some(Pending {
                    commit,
                    plan,
                    begun: Begun::default(),
                    edge,
                    durable: true,
                });
                self.complete()?;
            }
            None => {
                self.tail = Tail::load(&tiles, commit.size, commit.envelopes)?;
                self.take_up(commit);
            }
        }
        let current = self.checkpoint();
        self.committed.check_tail(current.size, &current.root)?;
        self.edge = self.committed.edge()?;
        Ok(())
    }

    /// Takes up what readers were shown last. A checkpoint file that is no note, or has lost
    /// the log's signature, was damaged: what it said is published anew.
    fn take_up_published(&mut self) -> Result<(), LogError> {
        let shown = self.shown.content().map(<[u8]>::to_vec);
        let note = shown.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((note, checkpoint)) = note.and_then(|note| {
            let checkpoint = read_note(&note).ok()?;
            Some((note, checkpoint))
        }) else {
            return Ok(());
        };
        self.check_committed(&checkpoint)
            .map_err(|reason| LogError::corrupt(&*self.storage, CHECKPOINT, reason))?;
        // Over the newest commit it can only be that commit's note with signatures added.
        let newest = self
            .newest
            .as_ref()
            .filter(|own| own.size == checkpoint.size);
        if newest.is_some_and(|own| !note.starts_with(&own.note)) {
            return Ok(());
        }
        self.published.publish(Head {
            checkpoint,
            note: Some(note),
        });
        Ok(())
    }

    /// Whether the committed log had this size with this root, and readers saw no larger one.
    fn check_committed(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let (published, committed) = (self.published.size(), self.size());
        if checkpoint.size < published || checkpoint.size > committed {
            return Err(format!(
                "a checkpoint of {} entries, where {published} are published and {committed} committed",
                checkpoint.size
            ));
        }
        let root = if checkpoint.size == committed {
            self.checkpoint().root
        } else {
            let read = self.committed.root_at(checkpoint.size);
            read.map_err(|error| error.to_string())?
        };
        // What is older than the newest commit may bear the name that the log had then.
        let renamed = checkpoint.size == committed && checkpoint.origin != self.checkpoint().origin;
        if renamed || checkpoint.root != root {
            return Err("a checkpoint of another history".into());
        }
        Ok(())
    }

    fn take_up(&mut self, commit: Commit) {
        self.committed.publish(Head {
            checkpoint: commit.checkpoint(),
            note: Some(commit.note.clone()),
        });
        self.newest = Some(commit);
    }

    /// Checks a batch against the rules of the formats; says whether it has envelopes.
    fn check(&self, entries: &[Entry]) -> Result<bool, String> {
        if entries.len() > MAX_BATCH {
            return Err(format!(
                "{} entries in one batch, at most {MAX_BATCH}",
                entries.len()
            ));
        }
        let first = entries
            .first()
            .is_some_and(|entry| entry.envelope.is_some());
        let envelopes = self
            .newest
            .as_ref()
            .map_or(first, |commit| commit.envelopes);
        for entry in entries {
            if entry.envelope.is_some() != envelopes {
                return Err("a log has envelopes for all its entries or for none".into());
            }
            let envelope = entry.envelope.as_ref().map_or(0, Vec::len);
            if entry.leaf.len() > usize::from(u16::MAX) || envelope > MAX_ENVELOPE {
                return Err(format!(
                    "an entry of {} and an envelope of {envelope} bytes; at most 65535 and {MAX_ENVELOPE}",
                    entry.leaf.len()
                ));
            }
        }
        Ok(envelopes)
    }

    /// Finds out that another writer has committed before anything of its is touched.
    fn check_unfenced<E>(&self) -> Result<(), AppendError<E>> {
        let newest = self.newest.as_ref().map_or(0, |commit| commit.number);
        let storage = AppendError::Storage;
        if self.commits.read(newest + 1).map_err(storage)?.is_some() {
            return Err(self.fenced(newest + 1));
        }
        // Gone only if another writer is a thousand commits ahead and has pruned it.
        if newest > 0
            && self
                .commits
                .read(newest)
                .map_err(AppendError::Storage)?
                .is_none()
        {
            return Err(self.fenced(newest));
        }
        Ok(())
    }

    fn fenced<E>(&self, number: u64) -> AppendError<E> {
        AppendError::Fenced(LogError::Fenced {
            path: self.storage.place(&Commits::name(number)),
        })
    }

    /// Stages the batch durably, as the storage is seen to give it back, and begins with its tiles.
    fn stage(&self, batch: &Batch<'_>, plan: &Plan) -> Result<(Digest, Begun), LogError> {
        let failed = |error| LogError::io(&*self.storage, STAGED, error);
        let bytes = batch::encode(batch);
        let digest = Digest::of(&bytes);
        let staged = self
            .storage
            .stage(batch.number, &digest, &bytes, &plan.files);
        let begun = staged.map_err(failed)?;
        let stored = self.storage.staged(batch.number, &digest).map_err(failed)?;
        if stored.as_ref() != Some(&bytes) {
            return Err(LogError::corrupt(
                &*self.storage,
                STAGED,
                "it reads back other than it was written",
            ));
        }
        Ok((digest, begun))
    }

    /// The commit point. After an error that leaves it open whether the record stands, the
    /// record itself decides.
    fn commit<E>(&mut self, mut pending: Pending) -> Result<(), AppendError<E>> {
        match create(&*self.storage, &self.commits, &pending.commit) {
            Ok(()) => pending.durable = true,
            Err(error @ LogError::Fenced { .. }) => return Err(AppendError::Fenced(error)),
            Err(error) => match self.commits.read(pending.commit.number) {
                // On its way it may still be, unless the storage is sure that it is not.
                Ok(None) if !error.in_doubt() => return Err(AppendError::Storage(error)),
                _ => {
                    self.pending = Some(pending);
                    return Err(AppendError::Unfinished(error));
                }
            },
        }
        self.pending = Some(pending);
        Ok(())
    }
}

/// The place of staged batches, for messages.
const STAGED: &str = "staged";

fn unfinished<E>(error: LogError) -> AppendError<E> {
    match error {
        LogError::Fenced { .. } => AppendError::Fenced(error),
        other => AppendError::Unfinished(other),
    }
}

/// Creates a commit record, or finds the same bytes there already.
fn create(storage: &dyn Storage, commits: &Commits, commit: &Commit) -> Result<(), LogError> {
    let name = Commits::name(commit.number);
    let bytes = commit.to_bytes();
    let created = storage
        .create(&name, &bytes)
        .map_err(|error| LogError::io(storage, &name, error))?;
    match created {
        Created::New => Ok(()),
        Created::Existed if commits.read(commit.number)?.as_ref() == Some(&bytes) => Ok(()),
        Created::Existed => Err(LogError::Fenced {
            path: storage.place(&name),
        }),
    }
}

/// The seal may add further lines to the checkpoint, but not speak of another one.
fn check_seal(checkpoint: &Checkpoint, note: &str) -> Result<(), String> {
    let sealed = read_note(note)?;
    let same = (&sealed.origin, sealed.size, sealed.root)
        == (&checkpoint.origin, checkpoint.size, checkpoint.root);
    if same {
        Ok(())
    } else {
        Err("the seal is over another checkpoint".into())
    }
}

/// The staged batch, if it is the one that `commit` took in.
fn staged_batch(
    storage: &dyn Storage,
    commit: &Commit,
) -> Result<Option<Batch<'static>>, LogError> {
    let staged = storage.staged(commit.number, &commit.batch);
    let staged = staged.map_err(|error| LogError::io(storage, STAGED, error))?;
    let own = staged.filter(|bytes| Digest::of(bytes) == commit.batch);
    Ok(own
        .and_then(|bytes| batch::decode(&bytes))
        .filter(|batch| batch.number == commit.number))
}
