//! The log's tiles and bundles as files: read, cut to a smaller width, made of a batch.

use std::sync::Arc;

use jingwei_proto::digest::Digest;
use jingwei_proto::merkle::{Edge, leaf_hash};
use jingwei_proto::tile::{
    TileKind, TilePath, bundles, decode_bundle, encode_bundle, encode_hashes, hash_tiles,
    parse_hashes,
};

use super::batch::Batch;
use super::{Begun, File, LogError, Storage};

/// The tiles of a log. Every file of them is final: tiles get their names only after the commit
/// point, so one path never has two contents.
#[derive(Debug, Clone)]
pub(super) struct Tiles {
    storage: Arc<dyn Storage>,
}

impl Tiles {
    pub fn new(storage: Arc<dyn Storage>) -> Tiles {
        Tiles { storage }
    }

    /// An error about a tile that is not what it should be.
    pub fn corrupt(&self, path: &TilePath, reason: impl ToString) -> LogError {
        LogError::corrupt(&*self.storage, &path.to_string(), reason)
    }

    /// A tile's bytes, cut from a wider one where it is not stored itself; `None` where neither
    /// is there.
    pub fn find(&self, path: &TilePath) -> Result<Option<Vec<u8>>, LogError> {
        if let Some(bytes) = self.read(path)? {
            return Ok(Some(bytes));
        }
        // The full tile comes last too: a partial may vanish between listing and reading it,
        // and only because the full one has appeared.
        let wider = std::iter::once(path.full())
            .chain(self.partials(path)?)
            .chain(std::iter::once(path.full()));
        for wider in wider.filter(|wider| wider.width > path.width) {
            if let Some(bytes) = self.read(&wider)? {
                return self.cut(&wider, &bytes, path.width).map(Some);
            }
        }
        Ok(None)
    }

    /// As [`Tiles::find`], for a tile that must be there.
    pub fn get(&self, path: &TilePath) -> Result<Vec<u8>, LogError> {
        self.find(path)?
            .ok_or_else(|| self.corrupt(path, "it is missing"))
    }

    /// The hashes of a hash tile that must be there.
    pub fn hashes(&self, path: &TilePath) -> Result<Vec<Digest>, LogError> {
        parse_hashes(&self.get(path)?, path.width).map_err(|error| self.corrupt(path, error))
    }

    /// The entries of a bundle that must be there.
    pub fn entries(&self, path: &TilePath) -> Result<Vec<Vec<u8>>, LogError> {
        let bytes = self.get(path)?;
        let entries = decode_bundle(path.kind, &bytes, path.width)
            .map_err(|error| self.corrupt(path, error))?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// What the files are that `batch` adds or widens. `tail` are the tiles before it that are
    /// not full; nothing else is read.
    pub fn plan(&self, tail: &Tail, batch: &Batch<'_>) -> Result<Plan, LogError> {
        let after = batch.before + batch.entries.len() as u64;
        let mut planner = Planner {
            tiles: self,
            old: tail,
            plan: Plan::default(),
        };
        planner.hashes(batch, after)?;
        let leaves = batch.entries.iter().map(|entry| &entry.leaf[..]);
        planner.bundles(TileKind::Entries, batch.before, after, leaves)?;
        if batch.envelopes {
            let envelopes = batch
                .entries
                .iter()
                .map(|entry| entry.envelope.as_deref().unwrap_or_default());
            planner.bundles(TileKind::Envelopes, batch.before, after, envelopes)?;
        }
        Ok(planner.plan)
    }

    /// Writes what was planned, durably. Repeating it writes the same bytes again.
    pub fn write(&self, plan: &Plan, begun: Begun) -> Result<(), LogError> {
        let put = self.storage.put(&plan.files, begun);
        put.map_err(|error| LogError::io(&*self.storage, "tile", error))
    }

    /// Removes the partial forms of the tiles that were filled, as far as the storage lets it:
    /// those that stay are still true. Only once what was planned is written.
    pub fn remove_replaced(&self, plan: &Plan) {
        for path in &plan.filled {
            for partial in self.partials(path).unwrap_or_default() {
                let _ = self.storage.delete(&partial.to_string());
            }
        }
    }

    fn read(&self, path: &TilePath) -> Result<Option<Vec<u8>>, LogError> {
        let name = path.to_string();
        let read = self.storage.get(&name);
        read.map_err(|error| LogError::io(&*self.storage, &name, error))
    }

    fn cut(&self, from: &TilePath, bytes: &[u8], width: u16) -> Result<Vec<u8>, LogError> {
        let damaged = |error| self.corrupt(from, error);
        let keep = usize::from(width);
        if let TileKind::Hash { .. } = from.kind {
            let hashes = parse_hashes(bytes, from.width).map_err(damaged)?;
            return Ok(encode_hashes(&hashes[..keep]));
        }
        let entries = decode_bundle(from.kind, bytes, from.width).map_err(damaged)?;
        encode_bundle(from.kind, &entries[..keep]).map_err(damaged)
    }

    /// The stored partial forms of a tile.
    fn partials(&self, path: &TilePath) -> Result<Vec<TilePath>, LogError> {
        let dir = format!("{}.p", path.full());
        let names = self.storage.list(&dir);
        let names = names.map_err(|error| LogError::io(&*self.storage, &dir, error))?;
        let widths = names.iter().filter_map(|name| name.parse().ok());
        Ok(widths.map(|width| TilePath { width, ..*path }).collect())
    }
}

/// The tiles and bundles of a log's right edge that are not full.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<(TilePath, Vec<u8>)>);

impl Tail {
    /// Of the stored log of this size. It is to be checked against the root before use.
    pub fn load(tiles: &Tiles, size: u64, envelopes: bool) -> Result<Tail, LogError> {
        let mut tail = Vec::new();
        let mut kinds = vec![TileKind::Entries];
        kinds.extend(envelopes.then_some(TileKind::Envelopes));
        kinds.extend((0..8).map(|level| TileKind::Hash { level }));
        for kind in kinds {
            let shift = match kind {
                TileKind::Hash { level } => 8 * (u32::from(level) + 1),
                TileKind::Entries | TileKind::Envelopes => 8,
            };
            let index = size.checked_shr(shift).unwrap_or(0);
            if let Some(path) = TilePath::in_log(kind, index, size) {
                tail.push((path, tiles.get(&path)?));
            }
        }
        Ok(Tail(tail))
    }

    /// The tile of which `wider` is to be a wider form, and its bytes.
    fn find(&self, wider: &TilePath) -> Option<&(TilePath, Vec<u8>)> {
        let same = |path: &TilePath| (path.kind, path.index) == (wider.kind, wider.index);
        self.0.iter().find(|(path, _)| same(path))
    }
}

/// The files that a batch makes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub files: Vec<File>,
    filled: Vec<TilePath>,
    /// The tail once they are written.
    pub tail: Tail,
}

struct Planner<'a> {
    tiles: &'a Tiles,
    old: &'a Tail,
    plan: Plan,
}

impl Planner<'_> {
    fn hashes(&mut self, batch: &Batch<'_>, after: u64) -> Result<(), LogError> {
        let leaves = batch.entries.iter().map(|entry| leaf_hash(&entry.leaf));
        // New hashes of one level of tiles; below it fill those of the next.
        let mut level = 0;
        let mut fresh = leaves.collect::<Vec<_>>().into_iter();
        let mut roots = Vec::new();
        for path in hash_tiles(batch.before, after) {
            if path.kind != (TileKind::Hash { level }) {
                level += 1;
                fresh = std::mem::take(&mut roots).into_iter();
            }
            let mut hashes = match self.old.find(&path) {
                Some((old, bytes)) => parse_hashes(bytes, old.width)
                    .map_err(|error| self.tiles.corrupt(old, error))?,
                None => Vec::new(),
            };
            hashes.extend(fresh.by_ref().take(usize::from(path.width) - hashes.len()));
            if path.is_full() {
                let mut edge = Edge::new();
                hashes.iter().for_each(|hash| edge.push(*hash));
                roots.push(edge.root());
            }
            self.add(path, encode_hashes(&hashes));
        }
        self.keep_higher(batch.before, after);
        Ok(())
    }

    /// Tiles of higher levels that the batch does not touch stay in the tail.
    fn keep_higher(&mut self, before: u64, after: u64) {
        let touched: Vec<TilePath> = hash_tiles(before, after).collect();
        let same = |a: &TilePath, b: &TilePath| (a.kind, a.index) == (b.kind, b.index);
        for (path, bytes) in &self.old.0 {
            let hash = matches!(path.kind, TileKind::Hash { .. });
            if hash && !touched.iter().any(|other| same(path, other)) {
                self.plan.tail.0.push((*path, bytes.clone()));
            }
        }
    }

    fn bundles<'e>(
        &mut self,
        kind: TileKind,
        before: u64,
        after: u64,
        mut fresh: impl Iterator<Item = &'e [u8]>,
    ) -> Result<(), LogError> {
        for path in bundles(kind, before, after) {
            // Bundles are concatenations: what is stored is the beginning of what is to be.
            let (mut bytes, width) = match self.old.find(&path) {
                Some((old, bytes)) => (bytes.clone(), old.width),
                None => (Vec::new(), 0),
            };
            let added: Vec<&[u8]> = fresh
                .by_ref()
                .take(usize::from(path.width - width))
                .collect();
            let added =
                encode_bundle(kind, &added).map_err(|error| self.tiles.corrupt(&path, error))?;
            bytes.extend(added);
            self.add(path, bytes);
        }
        Ok(())
    }

    fn add(&mut self, path: TilePath, bytes: Vec<u8>) {
        if path.is_full() {
            self.plan.filled.push(path);
        } else {
            self.plan.tail.0.push((path, bytes.clone()));
        }
        self.plan.files.push((path.to_string(), bytes));
    }
}
