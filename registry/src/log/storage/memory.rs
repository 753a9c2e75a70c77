//! Files in memory, for tests: copied in no time, and made to fail by name.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is written.
    Lost,
    /// It is written, and reported as failed.
    Persisted,
    /// Half of it is written.
    Torn,
}

/// Which writes fail: those whose name begins so, as often as said.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub prefix: &'static str,
    pub fault: Fault,
    pub times: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    files: Mutex<BTreeMap<String, Arc<[u8]>>>,
    failing: Mutex<Option<Failing>>,
}

use std::sync::Arc;

impl Memory {
    /// Another storage with the same files.
    pub fn copy(&self) -> Memory {
        Memory {
            files: Mutex::new(self.files()),
            failing: Mutex::default(),
        }
    }

    pub fn files(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.files.lock().unwrap().clone()
    }

    pub fn fail(&self, failing: Failing) {
        *self.failing.lock().unwrap() = Some(failing);
    }

    /// How many failures are still to come.
    pub fn failures_left(&self) -> u32 {
        self.failing
            .lock()
            .unwrap()
            .as_ref()
            .map_or(0, |failing| failing.times)
    }

    pub fn set(&self, name: &str, bytes: &[u8]) {
        self.files.lock().unwrap().insert(name.into(), bytes.into());
    }

    pub fn remove(&self, name: &str) {
        self.files.lock().unwrap().remove(name);
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fault = match &mut *self.failing.lock().unwrap() {
            Some(failing) if failing.times > 0 && name.starts_with(failing.prefix) => {
                failing.times -= 1;
                Some(failing.fault)
            }
            _ => None,
        };
        match fault {
            Some(Fault::Lost) => {}
            Some(Fault::Torn) => self.set(name, &bytes[..bytes.len() / 2]),
            Some(Fault::Persisted) | None => self.set(name, bytes),
        }
        match fault {
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }
}

impl Storage for Memory {
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created> {
        if self.get(name)?.is_some() {
            return Ok(Created::Existed);
        }
        self.write(name, bytes).map(|()| Created::New)
    }

    fn put(&self, files: &[File], _: Begun) -> io::Result<()> {
        files
            .iter()
            .try_for_each(|(name, bytes)| self.write(name, bytes))
    }

    fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8], _: bool) -> io::Result<()> {
        let found = self.get(name)?;
        if found.as_deref() != old && found.as_deref() != Some(new) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.write(name, new)
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self
            .files
            .lock()
            .unwrap()
            .get(name)
            .map(|bytes| bytes.to_vec()))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        let below = files
            .keys()
            .filter_map(|name| name.strip_prefix(dir)?.strip_prefix('/'));
        Ok(below
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.remove(name);
        Ok(())
    }

    fn stage(&self, number: u64, digest: &Digest, bytes: &[u8], _: &[File]) -> io::Result<Begun> {
        self.write(&format!("staged/{number:012}-{digest}"), bytes)?;
        Ok(Begun::default())
    }

    fn staged(&self, number: u64, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.get(&format!("staged/{number:012}-{digest}"))
    }

    fn unstage(&self, number: u64, digest: &Digest) {
        self.remove(&format!("staged/{number:012}-{digest}"));
    }

    fn clean(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from("memory:").join(name)
    }
}
