//! The log's files read from nothing but the specifications: C2SP tlog-tiles and checkpoints,
//! RFC 6962. No code of the product is used, so that it cannot agree with itself in an error.

use std::collections::HashSet;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jingwei_proto::digest::Digest;

/// What the files of a log hold.
pub struct LogFiles {
    /// The log's name.
    pub origin: String,
    /// What is hashed into the tree, in order.
    pub leaves: Vec<Vec<u8>>,
    /// The signed statements, in the same order.
    pub envelopes: Vec<Vec<u8>>,
    hashes: Vec<Digest>,
}

impl LogFiles {
    /// Reads all entries under the published checkpoint, and checks that they yield its root.
    pub fn read(dir: &Path) -> LogFiles {
        let note = std::fs::read_to_string(dir.join("checkpoint")).expect("a published checkpoint");
        let (origin, size, root) = parse_checkpoint(&note);
        let leaves = bundles(dir, "entries", size, 2);
        let envelopes = if dir.join("tile/envelopes").exists() {
            bundles(dir, "envelopes", size, 4)
        } else {
            Vec::new()
        };
        let hashes = leaves.iter().map(|leaf| hash(&[&[0], leaf])).collect();
        let log = LogFiles {
            origin,
            leaves,
            envelopes,
            hashes,
        };
        assert_eq!(
            log.root_at(size),
            root,
            "the entries of {} do not yield the published root",
            dir.display()
        );
        log
    }

    /// Entries.
    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// The root of the first `size` entries (RFC 6962 §2.1).
    pub fn root_at(&self, size: u64) -> Digest {
        tree(&self.hashes[..size as usize])
    }

    /// Checks a checkpoint that was once handed out: it must be one of this history.
    pub fn holds(&self, note: &str) -> bool {
        let (origin, size, root) = parse_checkpoint(note);
        origin == self.origin && size <= self.size() && self.root_at(size) == root
    }

    /// Whether any entry stands there twice.
    pub fn repeats(&self) -> bool {
        let distinct: HashSet<&Vec<u8>> = self.leaves.iter().collect();
        let statements: HashSet<&Vec<u8>> = self.envelopes.iter().collect();
        distinct.len() != self.leaves.len() || statements.len() != self.envelopes.len()
    }
}

/// Origin, size and root of a checkpoint's text.
pub fn parse_checkpoint(note: &str) -> (String, u64, Digest) {
    let mut lines = note.lines();
    let mut next = || lines.next().expect("a checkpoint has three lines");
    let (origin, size, root) = (next().to_owned(), next().parse().expect("a size"), next());
    let root = BASE64_STANDARD.decode(root).expect("a root in base64");
    (origin, size, Digest(root.try_into().expect("32 bytes")))
}

fn hash(parts: &[&[u8]]) -> Digest {
    Digest::of(&parts.concat())
}

fn tree(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => *leaf,
        _ => {
            let left = leaves.len().next_power_of_two() / 2;
            let (left, right) = (tree(&leaves[..left]), tree(&leaves[left..]));
            hash(&[&[1], left.as_bytes(), right.as_bytes()])
        }
    }
}

/// The items of all bundles; each begins with its length, big-endian, in `width` bytes.
fn bundles(dir: &Path, kind: &str, size: u64, width: usize) -> Vec<Vec<u8>> {
    let mut items = Vec::new();
    for bundle in 0..size.div_ceil(256) {
        let here = (size - bundle * 256).min(256);
        let mut path = format!("tile/{kind}/{}", number(bundle));
        if here < 256 {
            path += &format!(".p/{here}");
        }
        let bytes =
            std::fs::read(dir.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let before = items.len() as u64;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = rest[..width]
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            items.push(rest[width..width + length].to_vec());
            rest = &rest[width + length..];
        }
        assert_eq!(items.len() as u64 - before, here, "{path}");
    }
    items
}

/// 1234067 as `x001/x234/067`.
fn number(n: u64) -> String {
    let mut text = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_paths() {
        assert_eq!(number(0), "000");
        assert_eq!(number(1_234_067), "x001/x234/067");
    }

    #[test]
    fn small_trees() {
        let leaf = |byte: u8| hash(&[&[0], &[byte]]);
        let pair = |a: &Digest, b: &Digest| hash(&[&[1], a.as_bytes(), b.as_bytes()]);
        let three = pair(&pair(&leaf(1), &leaf(2)), &leaf(3));
        assert_eq!(tree(&[leaf(1), leaf(2), leaf(3)]), three);
    }
}
