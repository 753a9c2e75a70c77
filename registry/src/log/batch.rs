//! A batch of entries as it is staged: written in place, recognised by its SHA-256.
//!
//! ```text
//! "jingwei batch 1\n"  number u64  before u64  envelopes u8  count u32
//! then for each entry: length u32, leaf; and with envelopes: length u32, envelope
//! ```
//! Integers are big-endian. The file may tear or be stale; it counts only while its digest is
//! the one that the newest commit record names.

use std::borrow::Cow;

use super::Entry;

const MAGIC: &[u8] = b"jingwei batch 1\n";

/// Entries on their way into the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch<'a> {
    /// The number of the commit that is to take them in.
    pub number: u64,
    /// The log's size before them.
    pub before: u64,
    /// Whether each has an envelope; then all have.
    pub envelopes: bool,
    /// At least one.
    pub entries: Cow<'a, [Entry]>,
}

/// The staged form of a batch.
pub(super) fn encode(batch: &Batch<'_>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(batch.number.to_be_bytes());
    bytes.extend(batch.before.to_be_bytes());
    bytes.push(batch.envelopes.into());
    bytes.extend((batch.entries.len() as u32).to_be_bytes());
    for entry in &*batch.entries {
        push(&mut bytes, &entry.leaf);
        if let Some(envelope) = &entry.envelope {
            push(&mut bytes, envelope);
        }
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend((part.len() as u32).to_be_bytes());
    bytes.extend(part);
}

/// Reads a staged batch; `None` for anything that [`encode`] does not write.
pub(super) fn decode(bytes: &[u8]) -> Option<Batch<'static>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let number = u64::from_be_bytes(take(&mut rest)?);
    let before = u64::from_be_bytes(take(&mut rest)?);
    let envelopes = match take::<1>(&mut rest)? {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let count = u32::from_be_bytes(take(&mut rest)?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let leaf = part(&mut rest)?;
        let envelope = if envelopes {
            Some(part(&mut rest)?)
        } else {
            None
        };
        entries.push(Entry { leaf, envelope });
    }
    rest.is_empty().then_some(Batch {
        number,
        before,
        envelopes,
        entries: entries.into(),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(take(rest)?) as usize;
    let (part, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(part.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_torn() {
        for envelopes in [false, true] {
            let entries: Vec<Entry> = (0..3u8)
                .map(|i| Entry {
                    leaf: vec![i; 3],
                    envelope: envelopes.then(|| vec![i; usize::from(i)]),
                })
                .collect();
            let batch = Batch {
                number: 7,
                before: 9,
                envelopes,
                entries: entries.into(),
            };
            let bytes = encode(&batch);
            assert_eq!(decode(&bytes), Some(batch));
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), None);
            }
        }
    }
}
