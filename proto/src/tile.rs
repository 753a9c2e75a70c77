//! Tiles: the log as static files of 256 hashes or entries each, with the paths and bytes of
//! C2SP tlog-tiles (tile height 8).
//!
//! ```text
//! tile/1/000.p/1         the root of each complete tile below
//! tile/0/000             256 leaf hashes
//! tile/entries/000       the 256 entries themselves
//! tile/envelopes/000     the 256 signed envelopes behind them (our addition)
//! ```
//!
//! A full tile never changes. The last tile of a level is partial and names its width, so that
//! under one path there are only ever the same bytes.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::digest::Digest;

mod bundle;
mod reader;
#[cfg(test)]
mod tests;

pub use bundle::{MAX_ENVELOPE, decode_bundle, encode_bundle};
pub use reader::{TileReadError, TileReader, WantedTiles};

/// How many hashes or entries a full tile has: 2 to the power of the tile height.
pub const WIDTH: u16 = 256;

/// The levels of the tree that one level of tiles spans.
const HEIGHT: u8 = 8;

/// What a tile contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of complete subtrees of 256^`level` leaves; level 0 is the leaf hashes.
    Hash {
        /// 0 to 63; no tree of 64-bit size has a tile above level 7.
        level: u8,
    },
    /// The entries, as they were hashed into leaves.
    Entries,
    /// The signed envelopes that the entries speak of.
    Envelopes,
}

impl TileKind {
    /// How many hashes or entries of this kind a log of `size` entries has.
    fn count(self, size: u64) -> u64 {
        match self {
            TileKind::Hash { level } => size.checked_shr(u32::from(level) * 8).unwrap_or(0),
            TileKind::Entries | TileKind::Envelopes => size,
        }
    }
}

/// One tile or bundle and where it is found, written `tile/0/x001/234.p/7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    /// What it contains.
    pub kind: TileKind,
    /// Its place within the kind: it begins at hash or entry 256 × `index`.
    pub index: u64,
    /// How many hashes or entries it has: 256, or fewer when it is the last of a smaller tree.
    pub width: u16,
}

impl TilePath {
    /// The tile with this index in a log of `size` entries; `None` when the log ends before it.
    pub fn in_log(kind: TileKind, index: u64, size: u64) -> Option<TilePath> {
        let before = index.checked_mul(u64::from(WIDTH))?;
        let rest = kind.count(size).checked_sub(before)?;
        let width = u16::try_from(rest).map_or(WIDTH, |rest| rest.min(WIDTH));
        (width > 0).then_some(TilePath { kind, index, width })
    }

    /// Whether it is full, hence final.
    pub fn is_full(&self) -> bool {
        self.width == WIDTH
    }

    /// The full tile that takes this one's place once the log has grown.
    pub fn full(&self) -> TilePath {
        TilePath {
            width: WIDTH,
            ..*self
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hash { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
            TileKind::Envelopes => f.write_str("tile/envelopes/")?,
        }
        let digits = self.index.to_string();
        let digits = "0".repeat((3 - digits.len() % 3) % 3) + &digits;
        for start in (0..digits.len()).step_by(3) {
            let group = &digits[start..start + 3];
            if start + 3 < digits.len() {
                write!(f, "x{group}/")?;
            } else {
                f.write_str(group)?;
            }
        }
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(text: &str) -> Result<TilePath, TileError> {
        // A path is read leniently and then has to print as it was read: one spelling each.
        read_path(text)
            .filter(|path| path.to_string() == text)
            .ok_or(TileError::Path)
    }
}

fn read_path(text: &str) -> Option<TilePath> {
    let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        "envelopes" => TileKind::Envelopes,
        level => TileKind::Hash {
            level: level.parse().ok().filter(|level| *level < 64)?,
        },
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, width.parse().ok()?),
        None => (rest, WIDTH),
    };
    if !(1..=WIDTH).contains(&width) {
        return None;
    }
    let index = index.replace(['x', '/'], "").parse().ok()?;
    Some(TilePath { kind, index, width })
}

/// Why bytes or a text are not a tile or its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// The text is not a tile's path in its one spelling.
    #[error("not a tile path: expected one like tile/0/x001/234 or tile/entries/000.p/7")]
    Path,
    /// The tile has fewer or more hashes or entries than its path says.
    #[error("the tile does not have the {expected} hashes or entries that its path says")]
    Width {
        /// The width that the path says.
        expected: u16,
    },
    /// One entry is larger than its kind of bundle can hold.
    #[error("an entry of {length} bytes; at most {most} fit in this bundle")]
    EntryLength {
        /// The entry's length in bytes.
        length: usize,
        /// The most bytes an entry of this kind may have.
        most: usize,
    },
    /// Hashes were read as entries: a mistake of the caller.
    #[error("a hash tile is no bundle of entries")]
    NotABundle,
}

/// The tiles of one kind that a log of `new_size` entries has and one of `old_size` had not, or
/// had at another width: what to write, or to read, when the log grows from one to the other.
pub fn bundles(
    kind: TileKind,
    old_size: u64,
    new_size: u64,
) -> impl Iterator<Item = TilePath> + Clone {
    let (old, new) = (kind.count(old_size), kind.count(new_size));
    let width = u64::from(WIDTH);
    let changed = if old < new {
        old / width..new.div_ceil(width)
    } else {
        0..0
    };
    changed.filter_map(move |index| TilePath::in_log(kind, index, new_size))
}

/// The hash tiles of all levels that are new or changed when the log grows from `old_size`
/// entries to `new_size`, level 0 first.
pub fn hash_tiles(old_size: u64, new_size: u64) -> impl Iterator<Item = TilePath> + Clone {
    (0..64 / HEIGHT).flat_map(move |level| bundles(TileKind::Hash { level }, old_size, new_size))
}

/// Where the hash of the `index`-th complete subtree of 2^`level` leaves stands in a log of
/// `size` entries: the tile, and which of its hashes are to be joined to that subtree's root.
///
/// `None` when the log has no such complete subtree.
pub fn location(level: u8, index: u64, size: u64) -> Option<(TilePath, Range<usize>)> {
    let end = u128::from(index) + 1;
    if level > 63 || end << level > u128::from(size) {
        return None;
    }
    let kind = TileKind::Hash {
        level: level / HEIGHT,
    };
    // The subtree's first hash among those of its tiles' level, and how many it spans.
    let (first, count) = (index << (level % HEIGHT), 1 << (level % HEIGHT));
    let path = TilePath::in_log(kind, first / u64::from(WIDTH), size)?;
    let start = (first % u64::from(WIDTH)) as usize;
    Some((path, start..start + count))
}

/// The hashes of a hash tile, which has to be exactly `width` of them.
pub fn parse_hashes(bytes: &[u8], width: u16) -> Result<Vec<Digest>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() != usize::from(width) || !rest.is_empty() {
        return Err(TileError::Width { expected: width });
    }
    Ok(hashes.iter().copied().map(Digest).collect())
}

/// The bytes of a hash tile.
pub fn encode_hashes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}
