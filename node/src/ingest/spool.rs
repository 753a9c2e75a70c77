//! The spool: an upload on its way to becoming a source.
//!
//! What a client sends is first written whole to a file of the node's own, so that it can be
//! read at the node's pace, its format found out from its start, and the same upload recognised.
//! The file is private, is never synced, and is gone when it is dropped.

use std::io::{self, Write};
use std::path::Path;

use jingwei_proto::digest::{Digest, Hasher};
use jingwei_registry::disk::{Disk, StagedFile};

/// An upload under way.
pub struct Spool {
    file: StagedFile,
    hasher: Hasher,
    bytes: u64,
    limit: u64,
}

/// A complete upload; its file lives as long as this.
pub struct Spooled {
    file: StagedFile,
    /// The SHA-256 of what was sent. Kept to this node: a plain digest of a small or guessable
    /// file says what is in it.
    pub digest: Digest,
    /// How many bytes were sent.
    pub bytes: u64,
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The client sends more than this node takes.
    #[error(
        "the file has more than {0} bytes, which is this node's limit; split it or compress it"
    )]
    TooLarge(u64),
    /// This node could not write: most often the disk is full.
    #[error("cannot store the upload: {0}; nothing was published, free the disk and publish again")]
    Write(#[from] io::Error),
}

impl Spool {
    /// The limit where none is configured: 8 GiB, many times any table that a department
    /// keeps in one file, and little beside a disk.
    pub const LIMIT: u64 = 8 << 30;

    /// Begins an upload of at most `limit` bytes, in the existing directory `staging`.
    pub fn begin(disk: &Disk, staging: &Path, limit: u64) -> Result<Spool, SpoolError> {
        Ok(Spool {
            file: disk.stage(staging)?,
            hasher: Hasher::new(),
            bytes: 0,
            limit,
        })
    }

    /// Takes in the next bytes. After an error the spool is to be dropped.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SpoolError> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.limit {
            return Err(SpoolError::TooLarge(self.limit));
        }
        self.file.write_all(chunk)?;
        self.hasher.update(chunk);
        Ok(())
    }

    /// Ends the upload.
    pub fn finish(mut self) -> Result<Spooled, SpoolError> {
        self.file.flush()?;
        Ok(Spooled {
            file: self.file,
            digest: self.hasher.finish(),
            bytes: self.bytes,
        })
    }
}

impl Spooled {
    /// Where the upload can be read.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Tells a file published again from a new one: HMAC-SHA256 under the node's secret over the
/// source, the schema and the options. Without the secret nobody can test a guess at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sameness(pub Digest);

impl Sameness {
    /// The sameness of a source with this digest, published under a schema with this digest and
    /// with these options, which the caller writes in one form only.
    pub fn of(secret: &[u8; 32], source: &Digest, schema: &Digest, options: &[u8]) -> Sameness {
        // Two digests of fixed length stand before the options: no two inputs look alike.
        let head = b"jingwei sameness 1\n";
        let message = [&head[..], source.as_bytes(), schema.as_bytes(), options].concat();
        Sameness(Digest::keyed(secret, &message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_hashed_capped_and_cleaned_up() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        let mut spool = Spool::begin(&disk, directory.path(), 5).unwrap();
        spool.push(b"ab").unwrap();
        spool.push(b"cde").unwrap();
        let spooled = spool.finish().unwrap();
        assert_eq!(spooled.digest, Digest::of(b"abcde"));
        assert_eq!(std::fs::read(spooled.path()).unwrap(), b"abcde");
        drop(spooled);

        let mut spool = Spool::begin(&disk, directory.path(), 5).unwrap();
        assert!(matches!(
            spool.push(b"abcdef"),
            Err(SpoolError::TooLarge(5))
        ));
        drop(spool);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn sameness_depends_on_every_part() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let base = Sameness::of(&[1; 32], &a, &b, b"public");
        assert_eq!(base, Sameness::of(&[1; 32], &a, &b, b"public"));
        for other in [
            Sameness::of(&[2; 32], &a, &b, b"public"),
            Sameness::of(&[1; 32], &b, &a, b"public"),
            Sameness::of(&[1; 32], &a, &a, b"public"),
            Sameness::of(&[1; 32], &a, &b, b"withheld"),
        ] {
            assert_ne!(base, other);
        }
    }
}
