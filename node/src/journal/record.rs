//! A record of a journal, its bytes, its frame in a segment file, and the leaf that commits to it.
//!
//! ```text
//! record:  1 │ kind u8 │ time i64 │ until i64 │ nonce length u8, nonce │ body
//! frame:   record length u32 │ key, 32 bytes │ record │ first 8 bytes of SHA-256 of all before
//! leaf:    HMAC-SHA256(key, record), 32 bytes
//! ```
//! Integers are big-endian, times are seconds since 1970.

use bytes::Bytes;
use jingwei_proto::digest::Digest;
use jingwei_proto::time::Time;

use super::JournalError;

/// The most bytes that a record may have: an envelope has at most 256 KiB.
pub const MAX_RECORD: usize = 1 << 20;

const VERSION: u8 = 1;
const FIXED: usize = 19;
const CHECKSUM: usize = 8;

/// Which message a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What was asked, by the requester.
    Request,
    /// That it will be answered, by the provider.
    Acceptance,
    /// What was answered, by the provider.
    Receipt,
    /// That the answer arrived, by the requester.
    Acknowledgement,
    /// A request for conditional data.
    Application,
    /// The answer to an application.
    Decision,
    /// A dispute about rows.
    Correction,
}

const KINDS: [Kind; 7] = [
    Kind::Request,
    Kind::Acceptance,
    Kind::Receipt,
    Kind::Acknowledgement,
    Kind::Application,
    Kind::Decision,
    Kind::Correction,
];

/// One message of an exchange, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was recorded; its year chooses the journal.
    pub time: Time,
    /// Which message it is.
    pub kind: Kind,
    /// What ties the messages of one exchange together.
    pub nonce: String,
    /// The message: its envelope.
    pub body: Bytes,
}

/// One record is a group of one, wherever several are taken.
impl From<Record> for Vec<Record> {
    fn from(record: Record) -> Vec<Record> {
        vec![record]
    }
}

/// A record as it stands in a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its index in the journal's log.
    pub index: u64,
    /// The random key of its commitment.
    pub key: [u8; 32],
    /// What is committed to: the record's bytes, as [`leaf`] takes them.
    pub bytes: Vec<u8>,
    /// The same, taken apart.
    pub record: Record,
    /// Until when its nonce must not be used again, where it opened an exchange.
    pub until: Option<Time>,
    /// The commitment.
    pub leaf: Digest,
    /// Whether the log has the leaf already, as far as it is published.
    pub sequenced: bool,
}

/// The leaf of a record: HMAC-SHA256 under its key. Without key and record it says nothing.
pub fn leaf(key: &[u8; 32], record: &[u8]) -> Digest {
    Digest::keyed(key, record)
}

/// A record's bytes.
pub(super) fn encode(record: &Record, until: Option<Time>) -> Result<Vec<u8>, JournalError> {
    let length = FIXED + record.nonce.len() + record.body.len();
    let (Ok(nonce), true) = (u8::try_from(record.nonce.len()), length <= MAX_RECORD) else {
        return Err(JournalError::TooLarge {
            length,
            most: MAX_RECORD,
        });
    };
    let kind = KINDS
        .iter()
        .position(|kind| *kind == record.kind)
        .unwrap_or_default();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend([VERSION, kind as u8 + 1]);
    bytes.extend(record.time.seconds().to_be_bytes());
    bytes.extend(until.map_or(0, Time::seconds).to_be_bytes());
    bytes.push(nonce);
    bytes.extend(record.nonce.as_bytes());
    bytes.extend(&record.body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<(Record, Option<Time>)> {
    let (&[VERSION, kind], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    let kind = *KINDS.get(usize::from(kind).checked_sub(1)?)?;
    let (time, rest) = rest.split_first_chunk()?;
    let (until, rest) = rest.split_first_chunk()?;
    let (&[length], rest) = rest.split_first_chunk()?;
    let (nonce, body) = rest.split_at_checked(usize::from(length))?;
    let until = match i64::from_be_bytes(*until) {
        0 => None,
        seconds => Some(Time::from_seconds(seconds)?),
    };
    let record = Record {
        time: Time::from_seconds(i64::from_be_bytes(*time))?,
        kind,
        nonce: std::str::from_utf8(nonce).ok()?.to_owned(),
        body: Bytes::copy_from_slice(body),
    };
    Some((record, until))
}

/// Adds a record's frame to `frames`; returns its leaf.
pub(super) fn frame(frames: &mut Vec<u8>, key: &[u8; 32], record: &[u8]) -> Digest {
    let start = frames.len();
    frames.extend((record.len() as u32).to_be_bytes());
    frames.extend(key);
    frames.extend(record);
    let check = Digest::of(&frames[start..]);
    frames.extend(&check.as_bytes()[..CHECKSUM]);
    leaf(key, record)
}

/// Takes the first frame off `bytes` as record `index`; `None` where there is no whole one.
pub(super) fn unframe(bytes: &mut &[u8], index: u64) -> Option<Stored> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_RECORD {
        return None;
    }
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (record, rest) = rest.split_at_checked(length)?;
    let (check, rest) = rest.split_at_checked(CHECKSUM)?;
    if Digest::of(&bytes[..4 + 32 + length]).as_bytes()[..CHECKSUM] != *check {
        return None;
    }
    let (parsed, until) = decode(record)?;
    *bytes = rest;
    Some(Stored {
        index,
        key: *key,
        bytes: record.to_vec(),
        record: parsed,
        until,
        leaf: leaf(key, record),
        sequenced: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_torn() {
        let time = Time::from_seconds(1_700_000_000).unwrap();
        for (kind, until) in KINDS
            .into_iter()
            .zip([None, Some(time.plus(60))].into_iter().cycle())
        {
            let record = Record {
                time,
                kind,
                nonce: "00ff".into(),
                body: Bytes::from_static(b"{}"),
            };
            let bytes = encode(&record, until).unwrap();
            let mut frames = Vec::new();
            let committed = frame(&mut frames, &[7; 32], &bytes);
            for end in 0..frames.len() {
                assert!(unframe(&mut &frames[..end], 0).is_none());
            }
            let mut rest = &frames[..];
            let stored = unframe(&mut rest, 5).unwrap();
            assert!(rest.is_empty());
            assert_eq!(
                (stored.record, stored.until, stored.leaf),
                (record, until, committed)
            );
            for at in 0..frames.len() {
                let mut flipped = frames.clone();
                flipped[at] ^= 1;
                assert!(unframe(&mut &flipped[..], 0).is_none());
            }
        }
    }

    #[test]
    fn the_leaf_is_hmac_sha256() {
        // RFC 4231, test case 1, whose key of 20 bytes is filled with zeros as HMAC does.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        assert_eq!(
            leaf(&key, b"Hi There").to_string(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }
}
