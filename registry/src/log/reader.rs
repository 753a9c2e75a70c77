//! Reading a log while somebody writes it: entries, envelopes, tiles and proofs.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::merkle::{self, Edge, HashReader, empty_root, leaf_hash};
use jingwei_proto::tile::{TileKind, TilePath, TileReadError, TileReader, WIDTH, bundles};

use super::commit::{Commits, read_note};
use super::shown::CHECKPOINT;
use super::tiles::Tiles;
use super::{Local, LogError, Storage, staged_batch};

/// Bundles that are got at once where a whole log is read: a few megabytes.
const AHEAD: u64 = 8;

/// What is published: size and root with the note that says so. They change together.
#[derive(Debug)]
pub(super) struct Head {
    pub checkpoint: Checkpoint,
    pub note: Option<String>,
}

/// A read-only view of a log, cheap to clone and to be shared by threads while one [`super::Log`]
/// appends. It sees what is published, nothing else.
#[derive(Debug, Clone)]
pub struct LogReader {
    storage: Arc<dyn Storage>,
    tiles: Tiles,
    head: Arc<RwLock<Arc<Head>>>,
}

impl LogReader {
    pub(super) fn new(storage: Arc<dyn Storage>, head: Head) -> LogReader {
        LogReader {
            tiles: Tiles::new(storage.clone()),
            storage,
            head: Arc::new(RwLock::new(Arc::new(head))),
        }
    }

    /// A view of the log in the directory `dir`, as [`LogReader::of`] gives it.
    pub fn open(dir: &Path) -> Result<LogReader, LogError> {
        LogReader::of(Arc::new(Local::reader(dir)))
    }

    /// A view of the log in `storage` as its newest published checkpoint has it, without locking
    /// or changing anything: for who looks at a log that another process may be writing. Which
    /// log it is, the checkpoint's origin says; that of an empty log is empty.
    pub fn of(storage: Arc<dyn Storage>) -> Result<LogReader, LogError> {
        let damaged = |reason: String| LogError::corrupt(&*storage, CHECKPOINT, reason);
        let stored = storage.get(CHECKPOINT);
        let stored = stored.map_err(|error| LogError::io(&*storage, CHECKPOINT, error))?;
        let head = match stored {
            Some(bytes) => {
                let note = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
                Head {
                    checkpoint: read_note(&note).map_err(damaged)?,
                    note: Some(note),
                }
            }
            None => Head {
                checkpoint: Checkpoint::new("", 0, empty_root()),
                note: None,
            },
        };
        Ok(LogReader::new(storage, head))
    }

    /// The first entry's envelope, read without knowing the log's origin: it may be the root
    /// document, which says what the origin is. Also found where the first commit was cut off
    /// before its bundle was written.
    pub fn first_envelope(storage: &Arc<dyn Storage>) -> Result<Vec<u8>, LogError> {
        let first = TilePath {
            kind: TileKind::Envelopes,
            index: 0,
            width: 1,
        };
        if let Some(bytes) = Tiles::new(storage.clone()).find(&first)? {
            let length = bytes.len().min(4);
            return Ok(bytes[length..].to_vec());
        }
        let commit = Commits::new(storage.clone()).newest()?;
        let batch = commit
            .map(|commit| staged_batch(&**storage, &commit))
            .transpose()?
            .flatten();
        batch
            .filter(|batch| batch.before == 0)
            .and_then(|batch| batch.entries.first()?.envelope.clone())
            .ok_or_else(|| LogError::Empty {
                dir: storage.place(""),
            })
    }

    pub(super) fn head(&self) -> Arc<Head> {
        self.head
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn publish(&self, head: Head) {
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(head);
    }

    pub(super) fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// How many entries are published.
    pub fn size(&self) -> u64 {
        self.head().checkpoint.size
    }

    /// The published checkpoint; of size 0 for a log that has none.
    pub fn checkpoint(&self) -> Checkpoint {
        self.head().checkpoint.clone()
    }

    /// The published checkpoint as the signed note; [`LogError::Empty`] before the first entry.
    pub fn checkpoint_note(&self) -> Result<String, LogError> {
        self.head().note.clone().ok_or_else(|| LogError::Empty {
            dir: self.storage.place(""),
        })
    }

    /// Entry `index`, as it was hashed into its leaf.
    pub fn leaf(&self, index: u64) -> Result<Vec<u8>, LogError> {
        self.one(TileKind::Entries, index)
    }

    /// The envelope of entry `index`.
    pub fn envelope(&self, index: u64) -> Result<Vec<u8>, LogError> {
        self.one(TileKind::Envelopes, index)
    }

    /// The entries of a range, read a bundle at a time.
    pub fn leaves(&self, range: Range<u64>) -> Result<Items, LogError> {
        self.many(TileKind::Entries, range)
    }

    /// The envelopes of a range, read a bundle at a time.
    pub fn envelopes(&self, range: Range<u64>) -> Result<Items, LogError> {
        self.many(TileKind::Envelopes, range)
    }

    /// The bytes of a tile or bundle for serving; `None` where the published log has none of
    /// that width.
    pub fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, LogError> {
        match TilePath::in_log(path.kind, path.index, self.size()) {
            Some(whole) if path.width <= whole.width => self.tiles.find(path),
            _ => Ok(None),
        }
    }

    /// The root of the log when it had `size` entries.
    pub fn root_at(&self, size: u64) -> Result<Digest, LogError> {
        let reader = self.hashes(size)?;
        merkle::root(&reader, size).map_err(|error| self.unread(error))
    }

    /// The proof that entry `index` is in the log of `size` entries (RFC 9162 §2.1.3).
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let reader = self.hashes(size)?;
        if index >= size {
            return Err(LogError::Beyond { asked: index, size });
        }
        merkle::inclusion_proof(&reader, index, size).map_err(|error| self.unread(error))
    }

    /// The proof that the log of `old` entries is the beginning of that of `new` (RFC 9162 §2.1.4).
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, LogError> {
        let reader = self.hashes(new)?;
        if old > new {
            return Err(LogError::Beyond {
                asked: old,
                size: new,
            });
        }
        merkle::consistency_proof(&reader, old, new).map_err(|error| self.unread(error))
    }

    /// Reads the whole log and checks that it is of a piece: the entries yield the hashes of every
    /// tile and the root, and the commit records that are kept follow from each other. It holds a
    /// bundle and a tile in memory at a time.
    pub fn audit(&self) -> Result<(), LogError> {
        let checkpoint = self.checkpoint();
        Commits::new(self.storage.clone()).check_chain()?;
        let mut edge = Edge::new();
        let entries = |path: TilePath| -> Result<Vec<Digest>, LogError> {
            let entries = self.tiles.entries(&path)?;
            Ok(entries.iter().map(|entry| leaf_hash(entry)).collect())
        };
        // The hashes that the tiles of each level must have: of the entries, or of the tiles below.
        let mut below = Vec::new();
        for level in 0..8 {
            let kind = TileKind::Hash { level };
            let mut above = Vec::new();
            for path in bundles(kind, 0, checkpoint.size) {
                match level {
                    0 => self.prefetch(&path, &[kind, TileKind::Entries]),
                    _ => self.prefetch(&path, &[kind]),
                }
                let expected = if level == 0 {
                    let kind = TileKind::Entries;
                    entries(TilePath { kind, ..path })?
                } else {
                    let start = path.index as usize * usize::from(WIDTH);
                    below[start..start + usize::from(path.width)].to_vec()
                };
                if self.tiles.hashes(&path)? != expected {
                    return Err(self
                        .tiles
                        .corrupt(&path, "its hashes are not those of the entries"));
                }
                if level == 0 {
                    expected.iter().for_each(|hash| edge.push(*hash));
                }
                if path.is_full() {
                    let mut tile = Edge::new();
                    expected.iter().for_each(|hash| tile.push(*hash));
                    above.push(tile.root());
                }
            }
            below = above;
        }
        if edge.root() == checkpoint.root {
            return Ok(());
        }
        Err(LogError::corrupt(
            &*self.storage,
            "tile/entries",
            "the entries do not yield the published root",
        ))
    }

    /// Checks that every envelope `fits` its entry.
    pub fn audit_envelopes(&self, fits: impl Fn(&[u8], &[u8]) -> bool) -> Result<(), LogError> {
        let size = self.size();
        for path in bundles(TileKind::Envelopes, 0, size) {
            self.prefetch(&path, &[TileKind::Entries, TileKind::Envelopes]);
            let start = path.index * u64::from(WIDTH);
            let range = start..start + u64::from(path.width);
            for (leaf, envelope) in self.leaves(range.clone())?.zip(self.envelopes(range)?) {
                if !fits(&leaf?, &envelope?) {
                    return Err(self
                        .tiles
                        .corrupt(&path, "an envelope is not that of its entry"));
                }
            }
        }
        Ok(())
    }

    /// Gets the next full tiles of these kinds at once, where many are read one after the other.
    fn prefetch(&self, next: &TilePath, kinds: &[TileKind]) {
        if !next.is_full() || !next.index.is_multiple_of(AHEAD) {
            return;
        }
        let names = (next.index..next.index + AHEAD)
            .flat_map(|index| kinds.iter().map(move |kind| (index, *kind)))
            .filter_map(|(index, kind)| TilePath::in_log(kind, index, self.size()))
            .map(|path| path.to_string());
        self.storage.prefetch(&names.collect::<Vec<_>>());
    }

    /// Checks the right edge: that the stored tiles yield `root`, and that the last entries are
    /// those of the last tile.
    pub(super) fn check_tail(&self, size: u64, root: &Digest) -> Result<(), LogError> {
        let Some(last) = size.checked_sub(1).map(|last| last / u64::from(WIDTH)) else {
            return Ok(());
        };
        let in_log =
            |kind| TilePath::in_log(kind, last, size).ok_or(LogError::Beyond { asked: last, size });
        let (tile, bundle) = (
            in_log(TileKind::Hash { level: 0 })?,
            in_log(TileKind::Entries)?,
        );
        let entries = self.tiles.entries(&bundle)?;
        if self.tiles.hashes(&tile)?
            != entries
                .iter()
                .map(|entry| leaf_hash(entry))
                .collect::<Vec<_>>()
        {
            return Err(self
                .tiles
                .corrupt(&tile, "its hashes are not those of the entries"));
        }
        let reader = TileReader::new(size, |path: &TilePath| self.tiles.get(path));
        let stored = merkle::root(&reader, size).map_err(|error| self.unread(error))?;
        if stored != *root {
            return Err(LogError::corrupt(
                &*self.storage,
                "tile",
                "the tiles do not yield the committed root",
            ));
        }
        Ok(())
    }

    /// The right edge of the published tree.
    pub fn edge(&self) -> Result<Edge, LogError> {
        self.edge_at(self.size())
    }

    /// The right edge of the tree of the first `size` entries.
    pub fn edge_at(&self, size: u64) -> Result<Edge, LogError> {
        let reader = self.hashes(size)?;
        Edge::from_reader(size, &reader).map_err(|error| self.unread(error))
    }

    fn hashes(
        &self,
        size: u64,
    ) -> Result<impl HashReader<Error = TileReadError<LogError>>, LogError> {
        self.within(size)?;
        Ok(TileReader::new(size, |path: &TilePath| {
            self.tiles.get(path)
        }))
    }

    fn unread(&self, error: TileReadError<LogError>) -> LogError {
        match error {
            TileReadError::Fetch { error, .. } => error,
            TileReadError::Malformed { path, error } => self.tiles.corrupt(&path, error),
            TileReadError::Absent { index, size, .. } => LogError::Beyond { asked: index, size },
        }
    }

    fn within(&self, asked: u64) -> Result<(), LogError> {
        let size = self.size();
        if asked <= size {
            Ok(())
        } else {
            Err(LogError::Beyond { asked, size })
        }
    }

    fn one(&self, kind: TileKind, index: u64) -> Result<Vec<u8>, LogError> {
        let mut items = self.many(kind, index..index.saturating_add(1))?;
        items.next().unwrap_or(Err(LogError::Beyond {
            asked: index,
            size: self.size(),
        }))
    }

    fn many(&self, kind: TileKind, range: Range<u64>) -> Result<Items, LogError> {
        self.within(range.end)?;
        Ok(Items {
            tiles: self.tiles.clone(),
            size: self.size(),
            kind,
            range,
            bundle: Vec::new().into_iter(),
        })
    }
}

/// The entries or envelopes of a range. It holds one bundle at a time, and ends after an error.
#[derive(Debug)]
pub struct Items {
    tiles: Tiles,
    size: u64,
    kind: TileKind,
    range: Range<u64>,
    bundle: std::vec::IntoIter<Vec<u8>>,
}

impl Items {
    fn load(&mut self) -> Result<(), LogError> {
        let (width, at) = (u64::from(WIDTH), self.range.start);
        let path = TilePath::in_log(self.kind, at / width, self.size).ok_or(LogError::Beyond {
            asked: at,
            size: self.size,
        })?;
        let mut entries = self.tiles.entries(&path)?;
        self.bundle = entries.split_off((at % width) as usize).into_iter();
        Ok(())
    }
}

impl Iterator for Items {
    type Item = Result<Vec<u8>, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        if self.bundle.len() == 0
            && let Err(error) = self.load()
        {
            self.range = 0..0;
            return Some(Err(error));
        }
        self.range.start += 1;
        self.bundle.next().map(Ok)
    }
}
