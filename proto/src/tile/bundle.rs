//! Bundles: up to 256 entries or envelopes in one file, each with its length before it.

use super::{TileError, TileKind};

/// The most bytes an envelope may have: far beyond any statement, so that a full bundle
/// still fits in memory many times.
pub const MAX_ENVELOPE: usize = 256 * 1024;

/// How a kind of bundle writes lengths: bytes of the big-endian number, most bytes an entry has.
fn limits(kind: TileKind) -> Result<(usize, usize), TileError> {
    match kind {
        TileKind::Entries => Ok((2, u16::MAX as usize)),
        TileKind::Envelopes => Ok((4, MAX_ENVELOPE)),
        TileKind::Hash { .. } => Err(TileError::NotABundle),
    }
}

/// The bytes of a bundle: for entries each length as u16, for envelopes as u32, big-endian.
pub fn encode_bundle<T: AsRef<[u8]>>(kind: TileKind, entries: &[T]) -> Result<Vec<u8>, TileError> {
    let (prefix, most) = limits(kind)?;
    let mut bytes = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        if entry.len() > most {
            return Err(TileError::EntryLength {
                length: entry.len(),
                most,
            });
        }
        let length = (entry.len() as u64).to_be_bytes();
        bytes.extend_from_slice(&length[length.len() - prefix..]);
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle, which has to be exactly `width` of them and nothing after.
pub fn decode_bundle(kind: TileKind, bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let (prefix, most) = limits(kind)?;
    let wrong = TileError::Width { expected: width };
    let mut entries = Vec::with_capacity(usize::from(width));
    let mut rest = bytes;
    for _ in 0..width {
        let (length, after) = rest.split_at_checked(prefix).ok_or(wrong.clone())?;
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if length > most {
            return Err(TileError::EntryLength { length, most });
        }
        let (entry, after) = after.split_at_checked(length).ok_or(wrong.clone())?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() {
        Ok(entries)
    } else {
        Err(wrong)
    }
}
