//! The container of evidence: an uncompressed POSIX ustar archive in exactly one byte form.
//!
//! `tar`, `sha256sum` and every archive viewer open it. Each header field but the name and the
//! size is fixed, so that the reader rebuilds every header and compares all of its 512 bytes:
//! there is no byte in the file that could be changed without being noticed.

use std::io::{self, Read, Write};

use crate::digest::{Digest, Hasher};

const BLOCK: usize = 512;
/// The largest size that eleven octal digits write.
const MAX_MEMBER: u64 = 0o77_777_777_777;
/// Members that are not answers are kept in memory up to this size in all.
const MAX_KEPT: u64 = 256 * 1024 * 1024;

/// A member as read: its name, size and digest, and its bytes if it is not an answer.
#[derive(Debug)]
pub struct Member {
    /// Its path in the archive.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes; empty for `.arrows` members, which can be larger than memory.
    pub bytes: Vec<u8>,
}

/// Why bytes are not an archive in the one accepted form.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file could not be read.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// The bytes differ from what the archive of these members would be.
    #[error("not an archive in the one accepted form{}: {what}", place(*at))]
    Form {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: u64,
    },
}

/// Of a file that is wrong from its beginning no place is told.
fn place(at: u64) -> String {
    match at {
        0 => String::new(),
        at => format!(", at byte {at}"),
    }
}

/// The header block of a member.
fn header(name: &str, size: u64) -> Option<[u8; BLOCK]> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"./-_".contains(&b);
    let ok = (1..=100).contains(&name.len()) && name.bytes().all(plain);
    if !ok || name.starts_with('/') || name.contains("..") || size > MAX_MEMBER {
        return None;
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Writes an archive, member by member.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// An archive without members.
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// Adds a member of `size` bytes, which `content` must yield exactly.
    pub fn member(&mut self, name: &str, size: u64, mut content: impl Read) -> io::Result<()> {
        let header = header(name, size).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a name or size for an evidence file",
            )
        })?;
        self.out.write_all(&header)?;
        let copied = io::copy(&mut content.by_ref().take(size), &mut self.out)?;
        if copied != size || content.read(&mut [0])? != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{name} changed its size while it was written"),
            ));
        }
        self.out.write_all(&[0; BLOCK][..padding(size)])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads all members, in order, and checks every byte between them.
pub fn read(input: impl Read) -> Result<Vec<Member>, ArchiveError> {
    let mut reader = Reader {
        input,
        at: 0,
        kept: 0,
    };
    let mut members = Vec::new();
    while let Some(member) = reader.member()? {
        members.push(member);
    }
    Ok(members)
}

struct Reader<R> {
    input: R,
    at: u64,
    kept: u64,
}

impl<R: Read> Reader<R> {
    fn form<T>(&self, what: &'static str) -> Result<T, ArchiveError> {
        Err(ArchiveError::Form { what, at: self.at })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        match self.input.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => match self.at {
                0 => self.form(OTHER),
                _ => self.form("the file ends too early"),
            },
            result => Ok(result?),
        }
    }

    fn member(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if block == [0; BLOCK] {
            return self.end();
        }
        let own = parse_header(&block).filter(|(name, size)| header(name, *size) == Some(block));
        let Some((name, size)) = own else {
            return self.form(unexpected(&block, self.at));
        };
        self.at += BLOCK as u64;
        let (digest, bytes) = self.content(&name, size)?;
        let mut pad = [0; BLOCK];
        let pad = &mut pad[..padding(size)];
        self.fill(pad)?;
        if pad.iter().any(|b| *b != 0) {
            return self.form("padding that is not zero");
        }
        self.at += pad.len() as u64;
        Ok(Some(Member {
            name,
            digest,
            size,
            bytes,
        }))
    }

    fn content(&mut self, name: &str, size: u64) -> Result<(Digest, Vec<u8>), ArchiveError> {
        let keep = !name.ends_with(".arrows");
        if keep {
            self.kept = self.kept.saturating_add(size);
            if self.kept > MAX_KEPT {
                return self.form("more than 256 MiB of statements and proofs");
            }
        }
        let mut hasher = Hasher::new();
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        let mut left = size;
        while left > 0 {
            let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.fill(&mut chunk[..length])?;
            hasher.update(&chunk[..length]);
            if keep {
                bytes.extend_from_slice(&chunk[..length]);
            }
            left -= length as u64;
            self.at += length as u64;
        }
        Ok((hasher.finish(), bytes))
    }

    fn end(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if block != [0; BLOCK] {
            return self.form("an end mark that is not zero");
        }
        if self.input.read(&mut [0])? != 0 {
            return self.form("bytes after the end");
        }
        Ok(None)
    }
}

/// What a file is that does not begin as an archive does.
const OTHER: &str =
    "it is another file, or only the beginning of one; ‘jingwei sql --save’ writes evidence";

/// What a block is that should be a header and is not one of ours.
fn unexpected(block: &[u8; BLOCK], at: u64) -> &'static str {
    if block.starts_with(&[0x1f, 0x8b]) || block.starts_with(b"BZh") || block.starts_with(b"PK") {
        return "it is compressed; unpack it to the original file, and verify that";
    }
    // Every tar program writes a correct sum, also over members of other kinds.
    let written = std::str::from_utf8(&block[148..156]).unwrap_or_default();
    let written = u32::from_str_radix(written.trim_matches([' ', '\0']), 8);
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    let own: u32 = block[148..156].iter().map(|b| u32::from(*b)).sum();
    if block[257..262] == *b"ustar" && written == Ok(sum - own + 8 * u32::from(b' ')) {
        "another program has packed it again; every byte of evidence counts, so verify the original file"
    } else if at == 0 && block[257..262] != *b"ustar" {
        OTHER
    } else {
        "a damaged member header"
    }
}

fn parse_header(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let end = block[..100].iter().position(|b| *b == 0).unwrap_or(100);
    let name = std::str::from_utf8(&block[..end]).ok()?.to_owned();
    let size = std::str::from_utf8(&block[124..135]).ok()?;
    Some((name, u64::from_str_radix(size, 8).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (name, content) in [
            ("a.json", vec![1; 700]),
            ("x/answer.arrows", vec![2; 512]),
            ("empty", vec![]),
        ] {
            writer
                .member(name, content.len() as u64, &content[..])
                .unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn round_trip() {
        let members = read(&sample()[..]).unwrap();
        let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["a.json", "x/answer.arrows", "empty"]);
        assert_eq!(members[0].bytes, vec![1; 700]);
        assert!(members[1].bytes.is_empty());
        assert_eq!(members[1].digest, Digest::of(&[2; 512]));
    }

    #[test]
    fn every_byte_between_the_contents_counts() {
        let bytes = sample();
        let original: Vec<(String, Digest)> = read(&bytes[..])
            .unwrap()
            .into_iter()
            .map(|m| (m.name, m.digest))
            .collect();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            if let Ok(members) = read(&changed[..]) {
                let now: Vec<(String, Digest)> =
                    members.into_iter().map(|m| (m.name, m.digest)).collect();
                assert_ne!(now, original, "byte {at}");
            }
        }
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
        assert!(read(&[&bytes[..], &[0]].concat()[..]).is_err());
    }

    #[test]
    fn an_archive_packed_again_is_called_that() {
        let told = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let mut again = sample();
        // Another owner, and the sum that goes with it.
        again[108..116].copy_from_slice(b"0001750\0");
        again[148..156].fill(b' ');
        let sum: u32 = again[..BLOCK].iter().map(|b| u32::from(*b)).sum();
        again[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(told(&again).contains("packed it again"), "{}", told(&again));
        again[108] ^= 1;
        assert!(told(&again).contains("damaged"), "{}", told(&again));
        let mut compressed = sample();
        compressed[..2].copy_from_slice(&[0x1f, 0x8b]);
        assert!(told(&compressed).contains("compressed"));
        assert!(!told(&compressed).contains("at byte"));
        let cut = &sample()[..BLOCK + 1];
        assert!(told(cut).contains(", at byte 512: "), "{}", told(cut));
    }

    #[test]
    fn names_stay_inside_the_archive() {
        let mut writer = Writer::new(Vec::new());
        for name in ["", "/etc/passwd", "../x", "a b", &"x".repeat(101)] {
            assert!(writer.member(name, 0, &[][..]).is_err(), "{name}");
        }
    }
}
