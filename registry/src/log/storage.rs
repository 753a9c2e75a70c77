//! Where the files of a log live: a directory, or any storage that keeps the same promises.
//!
//! The log asks little of its storage: that a call which returned has reached durable media, that
//! of two who create one name exactly one succeeds, and that a reader sees the old content of a
//! name or the new, never a mixture. [`Local`] gets that from a file system, by fsync and
//! `link(2)`; [`Objects`] from a store that puts on condition.

use std::fmt;
use std::io;
use std::path::PathBuf;

use jingwei_proto::digest::Digest;

use crate::disk::{Created, Temporary};

mod bucket;
mod cache;
mod calls;
mod local;
#[cfg(test)]
pub(super) mod memory;
mod objects;

pub use bucket::{Bucket, StorageUrl};
pub use calls::Patience;
pub use local::Local;
pub use objects::Objects;

/// A file's name in the log, such as `tile/0/x001/234`, and its content.
pub type File = (String, Vec<u8>);

/// What a storage has done already about files that are to be put; nothing, at first.
#[derive(Default)]
pub struct Begun(Vec<Temporary>);

/// Named files, durable when a call returns. After an error a file may have its new content or
/// not; all calls but [`Storage::create`] and [`Storage::swap`] can be repeated then.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Creates `name` unless it exists. An existing file stays as it is, even one of the same
    /// content. After an error of kind [`io::ErrorKind::TimedOut`] the file may yet appear.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created>;

    /// Puts files in place of whatever has their names, each whole.
    fn put(&self, files: &[File], begun: Begun) -> io::Result<()>;

    /// Puts `new` in place of a file whose content is `old`; [`io::ErrorKind::AlreadyExists`] if
    /// it is neither that nor `new`. Unless `lasting`, a power cut may bring `old` back.
    fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8], lasting: bool) -> io::Result<()>;

    /// The content of a file; `None` where there is none.
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Gets files at once that are about to be asked for one by one, where that saves time.
    fn prefetch(&self, names: &[String]) {
        let _ = names;
    }

    /// The names of the files directly below `dir`, without it; none where there is no `dir`.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Removes a file. It may come back after a power cut.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Keeps the batch that is to be commit `number`, and does of what is to put `files` after it
    /// whatever no reader sees. A crash may tear the batch: it counts by digest.
    fn stage(
        &self,
        number: u64,
        digest: &Digest,
        bytes: &[u8],
        files: &[File],
    ) -> io::Result<Begun>;

    /// What is kept as the batch of this number and digest, true or not.
    fn staged(&self, number: u64, digest: &Digest) -> io::Result<Option<Vec<u8>>>;

    /// Lets a staged batch go, as far as possible.
    fn unstage(&self, number: u64, digest: &Digest);

    /// Removes what crashes left, given the number of the newest commit.
    fn clean(&self, newest: u64) -> io::Result<()>;

    /// Where `name` is, for people; of the log as a whole for the empty name.
    fn place(&self, name: &str) -> PathBuf;
}
