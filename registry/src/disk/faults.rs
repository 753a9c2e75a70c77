//! Faults on purpose: a disk that is full, or that fails after it has done the work.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// One step of a file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A file or directory is created, or opened for writing.
    Create,
    /// Bytes are written.
    Write,
    /// A file's content is made durable.
    Sync,
    /// A second name is given to a file, failing if that name exists.
    Link,
    /// A file takes another's name.
    Rename,
    /// The names in a directory are made durable.
    SyncDirectory,
    /// A file is removed.
    Remove,
    /// A file is cut to a length.
    Truncate,
}

/// What is asked around every step that changes the disk.
pub trait Faults: Send + Sync {
    /// An error here becomes the step's, which is then not carried out (a write: half of it).
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()>;

    /// An error here becomes the step's, although it was carried out.
    fn after(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let _ = (operation, path);
        Ok(())
    }
}

/// How the step chosen by [`FailAt`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It reports a full disk and has done nothing (a write: half); later steps succeed.
    Once,
    /// It and every later step report a full disk, until [`FailAt::repair`].
    FromThenOn,
    /// It has done its work and reports an error all the same.
    Persisted,
}

/// Fails the n-th step, or several from there on, with `ENOSPC`. The removal of what a failed step
/// leaves is none of those that follow: a full disk does not keep anybody from it, and what is tried
/// again is to fail again.
#[derive(Debug)]
pub struct FailAt {
    failure: Failure,
    count: Mutex<Count>,
}

#[derive(Debug)]
struct Count {
    seen: u64,
    /// Whether the last step was a removal that is not counted.
    passed: bool,
    /// The steps that fail.
    target: Range<u64>,
}

impl FailAt {
    /// Fails step `n`, counted from 1.
    pub fn new(n: u64, failure: Failure) -> FailAt {
        FailAt::in_a_row(n, 1, failure)
    }

    /// Fails step `n` and those after it, so many in all: what is tried again at once fails again.
    pub fn in_a_row(n: u64, times: u64, failure: Failure) -> FailAt {
        let end = match failure {
            Failure::FromThenOn => u64::MAX,
            Failure::Once | Failure::Persisted => n + times,
        };
        FailAt {
            failure,
            count: Mutex::new(Count {
                seen: 0,
                passed: false,
                target: n..end,
            }),
        }
    }

    /// Lets all steps succeed from now on.
    pub fn repair(&self) {
        self.lock().target = 0..0;
    }

    /// Whether the chosen step has come.
    pub fn reached(&self, n: u64) -> bool {
        self.lock().seen >= n
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Count> {
        self.count
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Faults for FailAt {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        let mut count = self.lock();
        if operation == Operation::Remove && count.target.contains(&count.seen) {
            count.passed = true;
            return Ok(());
        }
        count.passed = false;
        count.seen += 1;
        let fails = self.failure != Failure::Persisted && count.target.contains(&count.seen);
        if fails { Err(full()) } else { Ok(()) }
    }

    fn after(&self, _: Operation, _: &Path) -> io::Result<()> {
        let count = self.lock();
        let fails = self.failure == Failure::Persisted
            && !count.passed
            && count.target.contains(&count.seen);
        if fails { Err(full()) } else { Ok(()) }
    }
}

/// A disk that is full while it is told so.
#[derive(Debug, Default)]
pub struct Full(AtomicBool);

impl Full {
    /// Tells it whether it is full from now on.
    pub fn set(&self, full: bool) {
        self.0.store(full, Ordering::SeqCst);
    }
}

impl Faults for Full {
    fn before(&self, _: Operation, _: &Path) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(full()),
            false => Ok(()),
        }
    }
}

/// The error of a full disk (`ENOSPC`, "No space left on device").
pub fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}
