//! Durable file operations: a call that returned has reached the disk, name and content.
//!
//! The file system keeps less than it seems to promise. A file's bytes are safe after `fsync`
//! of the file, its *name* only after `fsync` of the directory; `rename` overwrites without
//! asking, so two writers that both believe to be the only one destroy each other's work. The
//! operations here are the few safe combinations:
//!
//! | operation | steps | used for |
//! |---|---|---|
//! | [`Disk::create_if_absent`] | temporary file, fsync, `link(2)`, fsync of the directory | commit points |
//! | [`Disk::replace`], [`Disk::write`] with [`Disk::name`] | temporary file, fsync, `rename(2)`, fsync of the directory | what may be rebuilt |
//! | [`Disk::overwrite`], [`Disk::write_at`] | write in place, fsync: may tear | staging and records, checked by digest |
//! | [`Appender`] | append, fsync, truncation after an error | journals |
//! | [`StagedFile`] | as `create_if_absent`, for content too large for memory | data files |
//!
//! Every step asks the [`Faults`] of the `Disk` first, so that a test can fill the disk at the
//! n-th step ([`faults::FailAt`]) and see that nothing acknowledged is lost.
//!
//! Out of scope: reading (`std::fs` does), and storage beyond one machine.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

mod append;
pub mod faults;
mod lock;
mod staged;

pub use append::Appender;
pub use faults::{Faults, Operation};
pub use lock::{DirLock, LockError};
pub use staged::{StagedFile, Temporary};

/// Names of temporary files start so; [`Disk::clean`] removes what a crash left of them.
const TEMPORARY: &str = ".tmp-";

/// Steps that wait for the disk at once: it takes about as long for several as for one.
const SIDE_BY_SIDE: usize = 8;

/// Whether [`Disk::create_if_absent`] made the file or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The file is new and holds the given bytes.
    New,
    /// A file of that name stood there already and was left as it is.
    Existed,
}

/// A way to the file system whose writes are durable, and can be made to fail in tests.
#[derive(Clone, Default)]
pub struct Disk {
    faults: Option<Arc<dyn Faults>>,
    private: bool,
    /// Held while a file is created: a directory takes one at a time, and whoever waits for it in
    /// the kernel keeps a processor busy.
    creating: Arc<Mutex<()>>,
}

impl Disk {
    /// The real file system.
    pub fn new() -> Disk {
        Disk::default()
    }

    /// The real file system, with `faults` asked around every step.
    pub fn with_faults(faults: Arc<dyn Faults>) -> Disk {
        Disk {
            faults: Some(faults),
            ..Disk::default()
        }
    }

    /// The same, but new files are of mode 0600 and new directories of mode 0700.
    pub fn private(mut self) -> Disk {
        self.private = true;
        self
    }

    /// Creates `path` with `bytes`, durably, unless a file of that name exists.
    ///
    /// Of several callers at once exactly one sees [`Created::New`]. After an error the file
    /// may or may not stand there (the last step may fail after the link): read it back.
    pub fn create_if_absent(&self, path: &Path, bytes: &[u8]) -> io::Result<Created> {
        let mut staged = self.stage(parent(path))?;
        staged.write_all(bytes)?;
        staged.finish_as(path)
    }

    /// Puts `bytes` under the name `path`, durably, in place of whatever stood there. A reader
    /// sees the old content or the new, never a mixture.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let written = self.write(parent(path), bytes)?;
        self.name(vec![(written, path.to_owned())])
    }

    /// Makes `bytes` durable in a temporary file in `dir`, which [`Disk::name`] gives its name.
    pub fn write(&self, dir: &Path, bytes: &[u8]) -> io::Result<Temporary> {
        let mut staged = self.stage(dir)?;
        staged.write_all(bytes)?;
        staged.synced()
    }

    /// Gives files the names beside them, durably, in place of whatever has those. Each is in the
    /// file system of its name. After an error some may have theirs and others not.
    pub fn name(&self, files: Vec<(Temporary, PathBuf)>) -> io::Result<()> {
        let mut directories = BTreeSet::new();
        for (file, path) in files {
            file.rename_to(&path)?;
            directories.insert(parent(&path).to_owned());
        }
        let directories = Vec::from_iter(directories);
        self.each(&directories, |dir| self.sync_directory(dir))
            .map(drop)
    }

    /// As [`Disk::replace`], but without any fsync: for what is rebuilt after a power cut.
    /// A reader still sees the old content or the new.
    pub fn replace_unsynced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut staged = self.stage(parent(path))?;
        staged.write_all(bytes)?;
        staged.unsynced().rename_to(path)
    }

    /// Writes `bytes` over the content of `path` in place, durably: one fsync where the file
    /// exists. After a crash or an error the content may be old, new, partial or empty, so it
    /// must be recognisable by a digest kept elsewhere.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = !path.exists();
        let mut file = self.step(Operation::Create, path, || {
            self.options().create(true).truncate(true).open(path)
        })?;
        self.write_to(&mut file, path, bytes)?;
        self.step(Operation::Sync, path, || file.sync_data())?;
        if new {
            self.sync_directory(parent(path))
        } else {
            Ok(())
        }
    }

    /// Writes `bytes` over what the file `path` holds from `offset` on, durably: one fsync. After a
    /// crash or an error there may be the old bytes, the new or both in part, so they must be
    /// recognisable, and the old dispensable.
    pub fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.step(Operation::Create, path, || self.options().open(path))?;
        file.seek(SeekFrom::Start(offset))?;
        self.write_to(&mut file, path, bytes)?;
        self.step(Operation::Sync, path, || file.sync_data())
    }

    /// Creates the directory `path` and what is missing above it, each name durable.
    pub fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let above = parent(path);
        self.create_dir_all(above)?;
        let made = self.step(Operation::Create, path, || self.builder().create(path));
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_directory(above)
    }

    /// Removes the file `path`. The removal is not synced: what is removed here may come back
    /// after a power cut, and every caller can live with that.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Operation::Remove, path, || fs::remove_file(path))
    }

    /// Makes the names in the directory `path` durable.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.step(Operation::SyncDirectory, path, || {
            File::open(path)?.sync_all()
        })
    }

    /// A new temporary file in the directory `dir`, to be given its name when complete.
    pub fn stage(&self, dir: &Path) -> io::Result<StagedFile> {
        StagedFile::new(self.clone(), dir)
    }

    /// Opens `path` for appending, creating it (durably) if it is not there.
    pub fn append(&self, path: &Path) -> io::Result<Appender> {
        Appender::open(self.clone(), path)
    }

    /// Removes the temporary files that a crash left in `dir`. Only for whoever holds the
    /// directory's [`DirLock`]: another's temporary files look the same.
    pub fn clean(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                self.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Does for each item what waits for the disk, side by side. Where faults are asked it is one
    /// after the other, so that the n-th step is always the same.
    pub(crate) fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        run: impl Fn(&T) -> io::Result<R> + Sync,
    ) -> io::Result<Vec<R>> {
        if self.faults.is_some() {
            return items.iter().map(run).collect();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else {
                    return Ok(done);
                };
                done.push((at, run(item)?));
            }
        };
        let done = std::thread::scope(|scope| {
            let more = 1..items.len().min(SIDE_BY_SIDE);
            // Where there is no thread to be had, those that are there do the work.
            let workers: Vec<_> = more
                .filter_map(|_| Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let own = work();
            let others = workers.into_iter().map(|worker| {
                let ended = worker.join();
                ended.unwrap_or_else(|_| Err(io::Error::other("a thread of the disk panicked")))
            });
            [own]
                .into_iter()
                .chain(others)
                .collect::<io::Result<Vec<_>>>()
        });
        let mut done: Vec<(usize, R)> = done?.into_iter().flatten().collect();
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    }

    /// A name in `dir` that nobody else uses.
    fn temporary(&self, dir: &Path) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The process id repeats in containers that share a volume; the random part does not.
        let random: u32 = rand::random();
        dir.join(format!(
            "{TEMPORARY}{}-{number}-{random:08x}",
            std::process::id()
        ))
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true);
        #[cfg(unix)]
        if self.private {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        options
    }

    fn builder(&self) -> DirBuilder {
        #[cfg_attr(not(unix), allow(unused_mut))]
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        if self.private {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder
    }

    /// Runs one step between the two questions to the faults.
    fn step<T>(
        &self,
        operation: Operation,
        path: &Path,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(faults) = &self.faults else {
            return run();
        };
        faults.before(operation, path)?;
        let done = run()?;
        faults.after(operation, path)?;
        Ok(done)
    }

    /// Writes all of `bytes`. An injected fault leaves half of them behind, as a full disk does.
    fn write_to(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(faults) = &self.faults
            && let Err(error) = faults.before(Operation::Write, path)
        {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        file.write_all(bytes)?;
        match &self.faults {
            Some(faults) => faults.after(Operation::Write, path),
            None => Ok(()),
        }
    }
}

/// The directory that holds `path`'s name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
