//! A transparency log in a directory: the registry's, a replica's of it, and a node's journals.
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
//! stage ─► read back, hash ─► seal ─► COMMIT RECORD ─► tiles        ─► checkpoint
//! └────── nothing has happened ─────┘ └───── the batch is final ──┘    └ readers see it ┘
//! └──────────────────────── append ───────────────────────────────┘    └── publish ────┘
//! ```
//!
//! The commit record is linked into place under the next number, which fails if that name is
//! taken: of two writers that both believe to be the one, the second is *fenced* and stops. The
//! record names the SHA-256 of the staged bytes, so from then on batch, root and seal are
//! fixed, and everything after it is written from the staging and may be written again. Recovery
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
//! Failures are told apart by what the caller has to do ([`AppendError`]): before the commit
//! point the log is as it was; after it the batch is in, and [`Log::complete`] or the next open
//! finishes the work. Nothing is published before all of it is durable.
//!
//! # What it costs
//!
//! An append of a small batch syncs the staging (1), the record and its directory (2), and each
//! tile or bundle with its directory (2 each: hashes, entries, and envelopes where the log has
//! them): 9 fsyncs with envelopes, 7 without, plus 2 for each 256 entries and kind. To publish
//! the log's own seal costs none: the commit record has it. A note with more signatures costs 2,
//! because a reader who saw it must not be shown a smaller log after a power cut.
//!
//! Out of scope: who may enter what (the state's matter), when to seal and with which keys (the
//! caller's), and serving over the network.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::merkle::{Edge, leaf_hash};
use jingwei_proto::tile::MAX_ENVELOPE;

use crate::disk::{Created, DirLock, Disk};

mod batch;
mod commit;
mod error;
mod reader;
#[cfg(test)]
mod tests;
mod tiles;

use batch::Batch;
use commit::{Commit, Commits, read_note};
pub use error::{AppendError, LogError};
use reader::Head;
pub use reader::{Items, LogReader};

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
    dir: PathBuf,
    disk: Disk,
    commits: Commits,
    newest: Option<Commit>,
    edge: Edge,
    pending: Option<Pending>,
    committed: LogReader,
    published: LogReader,
    _lock: DirLock,
}

/// A batch that is past its commit point, or may be.
struct Pending {
    commit: Commit,
    batch: Batch,
    edge: Edge,
    /// Whether the commit record is known to be durable.
    durable: bool,
}

impl Log {
    /// Opens the log in `dir`, creating it if there is none, and finishes the commit that was cut
    /// off. What is committed may be unpublished still: see [`Log::unpublished`].
    pub fn open(dir: &Path, disk: Disk, origin: &str) -> Result<Log, LogError> {
        let commits = Commits::new(dir);
        let failed = |error| LogError::io(dir, error);
        disk.create_dir_all(commits.dir()).map_err(failed)?;
        let lock = DirLock::acquire(dir)?;
        disk.clean(dir)
            .and_then(|()| disk.clean(commits.dir()))
            .map_err(failed)?;
        // A record linked just before a crash may not be durable yet, and is about to count.
        disk.sync_directory(commits.dir()).map_err(failed)?;
        let newest = commits.newest()?;
        if let Some(commit) = &newest {
            if commit.origin != origin {
                return Err(LogError::Origin {
                    dir: dir.to_owned(),
                    expected: origin.to_owned(),
                    found: commit.origin.clone(),
                });
            }
            commits.prune_all(&disk, commit.number)?;
        }
        let empty = || Head {
            checkpoint: Checkpoint::new(origin, 0, Edge::new().root()),
            note: None,
        };
        let mut log = Log {
            dir: dir.to_owned(),
            disk,
            commits,
            newest: None,
            edge: Edge::new(),
            pending: None,
            committed: LogReader::new(dir, empty()),
            published: LogReader::new(dir, empty()),
            _lock: lock,
        };
        if let Some(commit) = newest {
            log.recover(commit)?;
        }
        log.take_up_published()?;
        Ok(log)
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
        let (batch, digest) = self
            .stage(entries, envelopes)
            .map_err(AppendError::Storage)?;
        let mut edge = self.edge.clone();
        batch
            .entries
            .iter()
            .for_each(|entry| edge.push(leaf_hash(&entry.leaf)));
        let checkpoint = Checkpoint::new(self.checkpoint().origin, edge.size(), edge.root());
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
            batch,
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
            create(&self.disk, &self.commits, &pending.commit)?;
            pending.durable = true;
        }
        self.committed.tiles().write(&self.disk, &pending.batch)?;
        if let Some(Pending { commit, edge, .. }) = self.pending.take() {
            self.commits.prune(&self.disk, commit.number);
            self.edge = edge;
            self.take_up(commit);
        }
        // What stays staged is overwritten by the next batch, and written again by the next
        // open, to no effect.
        let _ = fs::File::create(staged_path(&self.dir));
        Ok(self.checkpoint())
    }

    /// Shows readers a committed checkpoint under `note`, which may carry more signatures than
    /// the log's own. It may be the published checkpoint again, with further signatures; it
    /// cannot be an older one. Whose signatures they are is the caller's to check.
    pub fn publish(&mut self, note: &str) -> Result<(), LogError> {
        let path = checkpoint_path(&self.dir);
        let checkpoint = read_note(note).map_err(|reason| LogError::Unpublishable { reason })?;
        self.check_committed(&checkpoint)
            .map_err(|reason| LogError::Unpublishable { reason })?;
        let sealed = self.newest.as_ref().is_some_and(|own| own.note == note);
        let written = if sealed {
            // The commit record has it too.
            self.disk.replace_unsynced(&path, note.as_bytes())
        } else {
            self.disk.replace(&path, note.as_bytes())
        };
        written.map_err(|error| LogError::io(&path, error))?;
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

    /// How many entries are committed.
    pub fn size(&self) -> u64 {
        self.committed.size()
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
        match staged_batch(&self.dir, &commit)? {
            Some(batch) => {
                // The edge is read from the tiles below, once they are all there.
                let edge = Edge::new();
                self.pending = Some(Pending {
                    commit,
                    batch,
                    edge,
                    durable: true,
                });
                self.complete()?;
            }
            None => self.take_up(commit),
        }
        let current = self.checkpoint();
        self.committed.check_tail(current.size, &current.root)?;
        self.edge = self.committed.edge()?;
        Ok(())
    }

    /// Takes up what readers were shown last. A checkpoint file that is no note was cut off by a
    /// power cut: what it said is published anew.
    fn take_up_published(&mut self) -> Result<(), LogError> {
        let path = checkpoint_path(&self.dir);
        let note = match fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(()),
            Err(error) => return Err(LogError::io(&path, error)),
        };
        let Ok(checkpoint) = read_note(&note) else {
            return Ok(());
        };
        self.check_committed(&checkpoint)
            .map_err(|reason| LogError::corrupt(&path, reason))?;
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
        if checkpoint.origin != self.checkpoint().origin || checkpoint.root != root {
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

    /// Stages the batch durably and returns what the disk gives back of it.
    fn stage(&self, entries: &[Entry], envelopes: bool) -> Result<(Batch, Digest), LogError> {
        let number = self.newest.as_ref().map_or(1, |commit| commit.number + 1);
        let path = staged_path(&self.dir);
        let failed = |error| LogError::io(&path, error);
        let bytes = batch::encode(number, self.edge.size(), envelopes, entries);
        self.disk.overwrite(&path, &bytes).map_err(failed)?;
        let stored = fs::read(&path).map_err(failed)?;
        if stored != bytes {
            return Err(LogError::corrupt(
                &path,
                "it reads back other than it was written",
            ));
        }
        let batch = batch::decode(&stored)
            .ok_or_else(|| LogError::corrupt(&path, "it reads back as no batch"))?;
        Ok((batch, Digest::of(&stored)))
    }

    /// The commit point. After an error that leaves it open whether the record stands, the
    /// record itself decides.
    fn commit<E>(&mut self, mut pending: Pending) -> Result<(), AppendError<E>> {
        if let Some(newest) = &self.newest {
            // Gone only if another writer is a thousand commits ahead and has pruned it.
            let path = self.commits.path(newest.number);
            if !path.exists() {
                return Err(AppendError::Fenced(LogError::Fenced { path }));
            }
        }
        match create(&self.disk, &self.commits, &pending.commit) {
            Ok(()) => pending.durable = true,
            Err(error @ LogError::Fenced { .. }) => return Err(AppendError::Fenced(error)),
            Err(error) => match self.commits.read(pending.commit.number) {
                Ok(None) => return Err(AppendError::Storage(error)),
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

fn unfinished<E>(error: LogError) -> AppendError<E> {
    match error {
        LogError::Fenced { .. } => AppendError::Fenced(error),
        other => AppendError::Unfinished(other),
    }
}

/// Creates a commit record, or finds the same bytes there already.
fn create(disk: &Disk, commits: &Commits, commit: &Commit) -> Result<(), LogError> {
    let path = commits.path(commit.number);
    let bytes = commit.to_bytes();
    let created = disk
        .create_if_absent(&path, &bytes)
        .map_err(|error| LogError::io(&path, error))?;
    match created {
        Created::New => Ok(()),
        Created::Existed if commits.read(commit.number)?.as_ref() == Some(&bytes) => Ok(()),
        Created::Existed => Err(LogError::Fenced { path }),
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

fn checkpoint_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

fn staged_path(dir: &Path) -> PathBuf {
    dir.join("staged")
}

/// The staged batch, if it is the one that `commit` took in.
fn staged_batch(dir: &Path, commit: &Commit) -> Result<Option<Batch>, LogError> {
    let path = staged_path(dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io(&path, error)),
    };
    if Digest::of(&bytes) != commit.batch {
        return Ok(None);
    }
    Ok(batch::decode(&bytes).filter(|batch| batch.number == commit.number))
}
