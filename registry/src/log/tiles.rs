//! The log's tiles and bundles as files: read, cut to a smaller width, written for a batch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;
use jingwei_proto::merkle::{Edge, leaf_hash};
use jingwei_proto::tile::{
    TileKind, TilePath, bundles, decode_bundle, encode_bundle, encode_hashes, hash_tiles,
    parse_hashes,
};

use super::LogError;
use super::batch::Batch;
use crate::disk::{Disk, Group};

/// The tiles under a log's directory. Every file there is final: tiles are written only after
/// the commit point, so one path never has two contents.
#[derive(Debug, Clone)]
pub(super) struct Tiles {
    dir: PathBuf,
}

impl Tiles {
    pub fn new(log: &Path) -> Tiles {
        Tiles {
            dir: log.to_owned(),
        }
    }

    pub fn file(&self, path: &TilePath) -> PathBuf {
        self.dir.join(path.to_string())
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
            .chain(self.partials(path))
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
            .ok_or_else(|| LogError::corrupt(&self.file(path), "it is missing"))
    }

    /// The hashes of a hash tile that must be there.
    pub fn hashes(&self, path: &TilePath) -> Result<Vec<Digest>, LogError> {
        parse_hashes(&self.get(path)?, path.width)
            .map_err(|error| LogError::corrupt(&self.file(path), error))
    }

    /// The entries of a bundle that must be there.
    pub fn entries(&self, path: &TilePath) -> Result<Vec<Vec<u8>>, LogError> {
        let bytes = self.get(path)?;
        let entries = decode_bundle(path.kind, &bytes, path.width)
            .map_err(|error| LogError::corrupt(&self.file(path), error))?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// Writes the tiles and bundles that `batch` adds or widens, durably. Repeating it writes
    /// the same bytes again.
    pub fn write(&self, disk: &Disk, batch: &Batch) -> Result<(), LogError> {
        let after = batch.before + batch.entries.len() as u64;
        let mut writer = Writer {
            tiles: self,
            disk,
            group: disk.group(&self.dir),
            filled: Vec::new(),
        };
        writer.hashes(batch, after)?;
        let leaves = batch.entries.iter().map(|entry| &entry.leaf[..]);
        writer.bundles(TileKind::Entries, batch.before, after, leaves)?;
        if batch.envelopes {
            let envelopes = batch
                .entries
                .iter()
                .map(|entry| entry.envelope.as_deref().unwrap_or_default());
            writer.bundles(TileKind::Envelopes, batch.before, after, envelopes)?;
        }
        let Writer { group, filled, .. } = writer;
        group
            .finish()
            .map_err(|error| LogError::io(&self.dir, error))?;
        // Only now, when the full tiles are durable, may what they replace go.
        filled
            .iter()
            .for_each(|path| self.remove_partials(disk, path));
        Ok(())
    }

    fn read(&self, path: &TilePath) -> Result<Option<Vec<u8>>, LogError> {
        let file = self.file(path);
        match fs::read(&file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io(&file, error)),
        }
    }

    fn cut(&self, from: &TilePath, bytes: &[u8], width: u16) -> Result<Vec<u8>, LogError> {
        let damaged = |error| LogError::corrupt(&self.file(from), error);
        let keep = usize::from(width);
        if let TileKind::Hash { .. } = from.kind {
            let hashes = parse_hashes(bytes, from.width).map_err(damaged)?;
            return Ok(encode_hashes(&hashes[..keep]));
        }
        let entries = decode_bundle(from.kind, bytes, from.width).map_err(damaged)?;
        encode_bundle(from.kind, &entries[..keep]).map_err(damaged)
    }

    /// The directory of a tile's partial forms.
    fn partial_dir(&self, path: &TilePath) -> PathBuf {
        let mut dir = self.file(&path.full()).into_os_string();
        dir.push(".p");
        dir.into()
    }

    /// The stored partial forms of a tile.
    fn partials(&self, path: &TilePath) -> Vec<TilePath> {
        let Ok(dir) = fs::read_dir(self.partial_dir(path)) else {
            return Vec::new();
        };
        dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(|width| TilePath { width, ..*path })
            .collect()
    }

    /// Removes the partial forms of a full tile, as far as the disk lets it: those that stay
    /// are still true.
    fn remove_partials(&self, disk: &Disk, path: &TilePath) {
        for partial in self.partials(path) {
            let _ = disk.remove(&self.file(&partial));
        }
        let _ = fs::remove_dir(self.partial_dir(path));
    }
}

/// The files of one batch on their way to the disk.
struct Writer<'a> {
    tiles: &'a Tiles,
    disk: &'a Disk,
    group: Group<'a>,
    filled: Vec<TilePath>,
}

impl Writer<'_> {
    fn hashes(&mut self, batch: &Batch, after: u64) -> Result<(), LogError> {
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
            let mut hashes = match TilePath::in_log(path.kind, path.index, batch.before) {
                Some(old) => self.tiles.hashes(&old)?,
                None => Vec::new(),
            };
            hashes.extend(fresh.by_ref().take(usize::from(path.width) - hashes.len()));
            if path.is_full() {
                let mut edge = Edge::new();
                hashes.iter().for_each(|hash| edge.push(*hash));
                roots.push(edge.root());
            }
            self.put(&path, &encode_hashes(&hashes))?;
        }
        Ok(())
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
            let (mut bytes, width) = match TilePath::in_log(kind, path.index, before) {
                Some(old) => (self.tiles.get(&old)?, old.width),
                None => (Vec::new(), 0),
            };
            let added: Vec<&[u8]> = fresh
                .by_ref()
                .take(usize::from(path.width - width))
                .collect();
            let added = encode_bundle(kind, &added)
                .map_err(|error| LogError::corrupt(&self.tiles.file(&path), error))?;
            bytes.extend(added);
            self.put(&path, &bytes)?;
        }
        Ok(())
    }

    fn put(&mut self, path: &TilePath, bytes: &[u8]) -> Result<(), LogError> {
        let file = self.tiles.file(path);
        let dir = file.parent().unwrap_or(&file);
        self.disk
            .create_dir_all(dir)
            .map_err(|error| LogError::io(dir, error))?;
        self.group
            .replace(&file, bytes)
            .map_err(|error| LogError::io(&file, error))?;
        if path.is_full() {
            self.filled.push(*path);
        }
        Ok(())
    }
}
