//! A journal's files read from nothing but their layout, as an auditor with a hex editor would.
//!
//! ```text
//! records/000000000000    frames: length u32 │ key, 32 bytes │ record │ 8 bytes of SHA-256
//! record                  1 │ kind u8 │ time i64 │ until i64 │ nonce length u8, nonce │ body
//! log/                    one leaf for each record: HMAC-SHA256(key, record)
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::statement::{Predicate, Statement};

use crate::reading::LogFiles;

/// The four messages of an exchange, as records number them.
pub const MESSAGES: [u8; 4] = [1, 2, 3, 4];

/// One record.
#[derive(Debug, Clone)]
pub struct JournalRecord {
    /// 1 request, 2 acceptance, 3 receipt, 4 acknowledgement.
    pub kind: u8,
    /// What ties the messages of one exchange together.
    pub nonce: String,
    /// The message's envelope.
    pub body: Vec<u8>,
    /// The commitment.
    pub leaf: Digest,
}

/// The records of all years of an agency's journal, in order. Half of a record at the end of the
/// last file, which a crash leaves, is passed over.
pub fn read(node: &Path, agency: &str) -> Vec<JournalRecord> {
    let mut records = Vec::new();
    for year in sorted(&node.join("journal").join(agency)) {
        let before = records.len();
        for file in sorted(&year.join("records")) {
            let name: usize = file
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.parse().ok())
                .expect("a number");
            assert_eq!(
                name,
                records.len() - before,
                "{} is named by its first record",
                file.display()
            );
            let bytes = std::fs::read(&file).expect("a readable file");
            let mut rest = &bytes[..];
            while let Some(record) = frame(&mut rest) {
                records.push(record);
            }
        }
    }
    records
}

/// Checks that the journal's log holds the leaf of each of its first records, and nothing else.
/// Returns how many it holds.
pub fn check_log(node: &Path, agency: &str) -> u64 {
    let records = read(node, agency);
    let mut at = 0;
    for year in sorted(&node.join("journal").join(agency)) {
        if !year.join("log/checkpoint").exists() {
            continue;
        }
        let log = LogFiles::read(&year.join("log"));
        assert!(!log.repeats());
        for leaf in &log.leaves {
            assert_eq!(
                leaf,
                records[at].leaf.as_bytes(),
                "leaf {at} of the journal of {agency}"
            );
            at += 1;
        }
    }
    at as u64
}

/// The exchanges in a journal: for each nonce the query, and how often each message stands there.
pub fn exchanges(node: &Path, agency: &str) -> BTreeMap<String, (String, [usize; 4])> {
    let mut found: BTreeMap<String, (String, [usize; 4])> = BTreeMap::new();
    for record in read(node, agency) {
        let (query, counts) = found.entry(record.nonce.clone()).or_default();
        counts[usize::from(record.kind) - 1] += 1;
        let envelope = Envelope::parse(&record.body).expect("an envelope");
        if let Predicate::Request(request) = Statement::parse(envelope.payload())
            .expect("a statement")
            .predicate
        {
            *query = request.query;
        }
    }
    found
}

fn frame(bytes: &mut &[u8]) -> Option<JournalRecord> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let whole = bytes.get(..4 + 32 + length + 8)?;
    let (content, check) = whole.split_at(4 + 32 + length);
    if Digest::of(content).as_bytes()[..8] != *check {
        return None;
    }
    *bytes = &bytes[whole.len()..];
    let (key, record) = content[4..].split_at(32);
    assert_eq!(record[0], 1, "the version of the record");
    let nonce = usize::from(record[18]);
    Some(JournalRecord {
        kind: record[1],
        nonce: String::from_utf8(record[19..19 + nonce].to_vec()).expect("a nonce is text"),
        body: record[19 + nonce..].to_vec(),
        leaf: hmac(key, record),
    })
}

/// HMAC-SHA256 (RFC 2104) with a key of 32 bytes.
fn hmac(key: &[u8], message: &[u8]) -> Digest {
    let padded = |with: u8| -> Vec<u8> {
        let mut block = [with; 64];
        block
            .iter_mut()
            .zip(key)
            .for_each(|(byte, key)| *byte ^= key);
        block.to_vec()
    };
    let inner = Digest::of(&[padded(0x36), message.to_vec()].concat());
    Digest::of(&[padded(0x5c), inner.as_bytes().to_vec()].concat())
}

fn sorted(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_of_rfc_4231() {
        // Test case 1 has a key of 20 bytes; zeros make it 32 without changing the HMAC.
        let key = [vec![0x0b; 20], vec![0; 12]].concat();
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hmac(&key, b"Hi There").to_string(), expected);
    }
}
