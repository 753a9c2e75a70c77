//! Reading the tree's hashes out of tiles.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::{TileError, TilePath, location, parse_hashes};
use crate::digest::Digest;
use crate::merkle::{Edge, HashReader, empty_root};
use crate::words::entries;

/// How many tiles a [`TileReader`] keeps: more than any one proof reads (two for each of eight
/// levels), in half a mebibyte.
const KEPT: usize = 64;

/// Reads the hashes of a log of given size from its tiles, fetching each only once in a while.
pub struct TileReader<F> {
    size: u64,
    fetch: F,
    kept: RefCell<BTreeMap<TilePath, Vec<Digest>>>,
}

/// Why a hash could not be read from tiles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileReadError<E> {
    /// The tile could not be fetched.
    #[error("tile {path}: {error}")]
    Fetch {
        /// The tile.
        path: TilePath,
        /// Why not.
        error: E,
    },
    /// What was fetched is not that tile.
    #[error("tile {path}: {error}")]
    Malformed {
        /// The tile.
        path: TilePath,
        /// What is wrong with it.
        error: TileError,
    },
    /// The log of this size has no such complete subtree.
    #[error("a log of {} has no complete subtree {index} of 2^{level} leaves", entries(*size))]
    Absent {
        /// The subtree's level.
        level: u8,
        /// Its place among those of its level.
        index: u64,
        /// The log's size.
        size: u64,
    },
}

impl<F, E> TileReader<F>
where
    F: Fn(&TilePath) -> Result<Vec<u8>, E>,
{
    /// A reader of the log of `size` entries whose tiles `fetch` gets.
    pub fn new(size: u64, fetch: F) -> TileReader<F> {
        TileReader {
            size,
            fetch,
            kept: RefCell::default(),
        }
    }

    fn tile(&self, path: TilePath) -> Result<Vec<Digest>, TileReadError<E>> {
        if let Some(hashes) = self.kept.borrow().get(&path) {
            return Ok(hashes.clone());
        }
        let bytes = (self.fetch)(&path).map_err(|error| TileReadError::Fetch { path, error })?;
        let hashes = parse_hashes(&bytes, path.width)
            .map_err(|error| TileReadError::Malformed { path, error })?;
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(path, hashes.clone());
        Ok(hashes)
    }
}

impl<F, E> HashReader for TileReader<F>
where
    F: Fn(&TilePath) -> Result<Vec<u8>, E>,
{
    type Error = TileReadError<E>;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, TileReadError<E>> {
        let size = self.size;
        let (path, range) =
            location(level, index, size).ok_or(TileReadError::Absent { level, index, size })?;
        let mut edge = Edge::new();
        for hash in &self.tile(path)?[range] {
            edge.push(*hash);
        }
        Ok(edge.root())
    }
}

/// Finds out which tiles a proof needs before any is fetched, so that they can be fetched
/// together or without blocking: run the proof over this, and its answer is worthless but
/// [`WantedTiles::paths`] are the tiles it asked for.
///
/// ```
/// use jingwei_proto::merkle::inclusion_proof;
/// use jingwei_proto::tile::WantedTiles;
///
/// let wanted = WantedTiles::new(300);
/// let Ok(_) = inclusion_proof(&wanted, 299, 300);
/// let paths: Vec<String> = wanted.paths().iter().map(|p| p.to_string()).collect();
/// assert_eq!(paths, ["tile/0/001.p/44", "tile/1/000.p/1"]);
/// ```
pub struct WantedTiles {
    size: u64,
    paths: RefCell<BTreeSet<TilePath>>,
}

impl WantedTiles {
    /// A list of what is needed of the log of `size` entries; nothing yet.
    pub fn new(size: u64) -> WantedTiles {
        WantedTiles {
            size,
            paths: RefCell::default(),
        }
    }

    /// The tiles asked for so far, each once, in the order of their paths' parts.
    pub fn paths(&self) -> Vec<TilePath> {
        self.paths.borrow().iter().copied().collect()
    }
}

impl HashReader for WantedTiles {
    type Error = Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Infallible> {
        if let Some((path, _)) = location(level, index, self.size) {
            self.paths.borrow_mut().insert(path);
        }
        Ok(empty_root())
    }
}
