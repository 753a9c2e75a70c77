//! A log's files in a bucket of an S3-compatible object store.
//!
//! What a single machine's lock does here has to be done by the store: a commit record is made by
//! a put *on condition* that no object has its name (`If-None-Match: *`), and the published
//! checkpoint is replaced on condition that it is still the one that this writer showed last
//! (`If-Match`). A writer that another has overtaken fails at one or the other. Staged batches
//! are named by their digest, so that it cannot have destroyed the other's batch by then.
//!
//! A store that ignores conditions looks like a good one until it is too late; so
//! [`Objects::probe`] tries before the first write.
//!
//! The log is synchronous code on threads of its own. The calls run on a small runtime that
//! belongs to the storage, so it makes no difference whether the caller has one.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use jingwei_proto::digest::Digest;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{ClientConfigKey, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use super::bucket::{Bucket, StorageUrl};
use super::cache::Cache;
use super::calls::{Calls, Patience};
use super::{Begun, File, Storage};
use crate::disk::Created;

/// Calls on their way at once; a batch has some fifteen files.
const AT_ONCE: usize = 16;

/// A bucket, or a part of one.
pub struct Objects {
    url: StorageUrl,
    calls: Calls,
    cache: Cache,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Objects {
    /// The bucket that `bucket` names.
    pub fn new(bucket: &Bucket, patience: Patience) -> io::Result<Objects> {
        Objects::reached_by(&bucket.url, bucket.builder(), patience)
    }

    /// The bucket at `url`, reached as `builder` says.
    pub fn reached_by(
        url: &StorageUrl,
        builder: AmazonS3Builder,
        patience: Patience,
    ) -> io::Result<Objects> {
        let answer = format!("{} ms", patience.answer.as_millis());
        // Repetition is ours, because only we read back in between.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let store = builder
            .with_retry(retry)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), answer)
            .build()
            .map_err(io::Error::other)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("storage")
            .enable_all()
            .build()?;
        let calls = Calls {
            store: Arc::new(store),
            patience,
        };
        Ok(Objects {
            url: url.clone(),
            calls,
            cache: Cache::default(),
            runtime: Some(runtime),
        })
    }

    /// Tries whether the store keeps the two conditions that the log depends on.
    pub fn probe(&self) -> io::Result<()> {
        let name = format!("probe/{:016x}", rand::random::<u64>());
        let (calls, path) = (self.calls.clone(), self.path(&name));
        let kept = self.wait(async move {
            let kept = calls.keeps_conditions(&path).await;
            // One that stays is a few bytes that nobody reads.
            let _ = calls.delete(&path).await;
            kept
        });
        match kept? {
            Ok(()) => Ok(()),
            Err(what) => {
                let text = format!("{} is no place for a log: its store {what}", self.url);
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        }
    }

    fn path(&self, name: &str) -> Path {
        match self.url.prefix.as_str() {
            "" => Path::from(name),
            prefix => Path::from(format!("{prefix}/{name}")),
        }
    }

    /// Runs a call on the storage's own runtime, and waits for it.
    fn wait<T, F>(&self, call: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (answer, answered) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            let _ = answer.send(call.await);
        });
        answered
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the call to the object store panicked")))
    }

    fn staging(&self, number: u64, digest: &Digest) -> String {
        format!("staged/{number:012}-{digest}")
    }
}

impl Storage for Objects {
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created> {
        let (calls, path) = (self.calls.clone(), self.path(name));
        let bytes = Bytes::copy_from_slice(bytes);
        self.wait(async move { calls.create(&path, bytes).await })
    }

    fn put(&self, files: &[File], _: Begun) -> io::Result<()> {
        let jobs: Vec<(Path, Bytes)> = files
            .iter()
            .map(|(name, bytes)| (self.path(name), Bytes::copy_from_slice(bytes)))
            .collect();
        let calls = self.calls.clone();
        self.wait(async move {
            let puts = jobs.into_iter().map(|(path, bytes)| {
                let calls = calls.clone();
                async move { calls.put(&path, bytes).await }
            });
            let puts = futures::stream::iter(puts).buffer_unordered(AT_ONCE);
            puts.try_collect::<()>().await
        })?;
        for (name, bytes) in files.iter().filter(|(name, _)| immutable(name)) {
            self.cache.keep(name, bytes);
        }
        Ok(())
    }

    fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8], _: bool) -> io::Result<()> {
        let (calls, path) = (self.calls.clone(), self.path(name));
        let old = old.map(Bytes::copy_from_slice);
        let new = Bytes::copy_from_slice(new);
        self.wait(async move { calls.swap(&path, old, new).await })
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.cache.find(name) {
            return Ok(Some(bytes));
        }
        let (calls, path) = (self.calls.clone(), self.path(name));
        let found = self.wait(async move { calls.get(&path).await })?;
        if let Some((bytes, _)) = &found
            && immutable(name)
        {
            self.cache.keep(name, bytes);
        }
        Ok(found.map(|(bytes, _)| bytes.into()))
    }

    fn prefetch(&self, names: &[String]) {
        let missing = names.iter().filter(|name| !self.cache.holds(name));
        let jobs: Vec<(String, Path)> = missing
            .map(|name| (name.clone(), self.path(name)))
            .collect();
        let calls = self.calls.clone();
        let fetched = self.wait(async move {
            let gets = jobs.into_iter().map(|(name, path)| {
                let calls = calls.clone();
                async move { (name, calls.get(&path).await) }
            });
            let gets = futures::stream::iter(gets).buffer_unordered(AT_ONCE);
            Ok(gets.collect::<Vec<_>>().await)
        });
        // What failed is asked for again by whoever needs it, and told then.
        for (name, found) in fetched.unwrap_or_default() {
            if let Ok(Some((bytes, _))) = found {
                self.cache.keep(&name, &bytes);
            }
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let (calls, path) = (self.calls.clone(), self.path(dir));
        self.wait(async move { calls.list(&path).await })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.cache.forget(name);
        let (calls, path) = (self.calls.clone(), self.path(name));
        self.wait(async move { calls.delete(&path).await })
    }

    fn stage(&self, number: u64, digest: &Digest, bytes: &[u8], _: &[File]) -> io::Result<Begun> {
        // Whatever is put here is seen.
        let batch = (self.staging(number, digest), bytes.to_vec());
        self.put(&[batch], Begun::default())?;
        Ok(Begun::default())
    }

    fn staged(&self, number: u64, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.get(&self.staging(number, digest))
    }

    fn unstage(&self, number: u64, digest: &Digest) {
        let _ = self.delete(&self.staging(number, digest));
    }

    fn clean(&self, newest: u64) -> io::Result<()> {
        for name in self.list("staged")? {
            let number = name.split('-').next().and_then(|n| n.parse::<u64>().ok());
            // The newest may be needed still; one beyond it may be another writer's.
            if number.is_some_and(|number| number < newest) {
                self.delete(&format!("staged/{name}"))?;
            }
        }
        Ok(())
    }

    fn place(&self, name: &str) -> PathBuf {
        let log = PathBuf::from(self.url.to_string());
        if name.is_empty() { log } else { log.join(name) }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // Waiting for it is not allowed on a thread of another runtime, and nothing is left to
        // wait for: every call has returned.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Objects")
            .field(&self.url.to_string())
            .finish()
    }
}

/// Whether a file of this name never changes.
fn immutable(name: &str) -> bool {
    name.starts_with("tile/")
}
