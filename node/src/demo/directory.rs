//! The demo's directory: chosen by the user and kept, or a temporary one that goes with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jingwei_proto::digest::to_hex;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::keyfile;
use jingwei_registry::shell;
use tracing_subscriber::EnvFilter;

/// Where a demo keeps everything: one directory for the registry and one for each node.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    /// The directory `chosen`, which must be empty or not there yet, or a temporary one, which
    /// is removed when this value is dropped.
    ///
    /// # Errors
    /// If it holds anything, or cannot be made.
    pub fn claim(chosen: Option<&Path>) -> Result<Directory, Fault> {
        let (path, temporary) = match chosen {
            Some(path) => (path.to_owned(), false),
            None => (
                std::env::temp_dir().join(format!(
                    "jingwei-demo-{}",
                    to_hex(&rand::random::<[u8; 6]>())
                )),
                true,
            ),
        };
        let cannot = |error: &dyn std::fmt::Display| {
            Fault::new(
                Blame::WrongUse,
                format!("cannot use {}: {error}", path.display()),
            )
        };
        if !temporary
            && path.exists()
            && fs::read_dir(&path)
                .map_err(|error| cannot(&error))?
                .next()
                .is_some()
        {
            return Err(Fault::new(Blame::WrongUse, format!("{} is not empty, and the demo founds a federation of its own", path.display()))
                .advise("choose a new directory with --dir; nodes of an earlier demo are served with ‘jingwei serve’"));
        }
        keyfile::create_private_dir(&path).map_err(|error| cannot(&error))?;
        // Commands for another terminal must not depend on where this one stands.
        let path = path.canonicalize().map_err(|error| cannot(&error))?;
        Ok(Directory { path, temporary })
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes with the demo.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Sends the logs of the registry and all nodes to `demo.log`, so that the tour can be read.
    pub(super) fn log_into(&self) -> Result<(), Fault> {
        let path = self.path.join("demo.log");
        let file = File::create(&path).map_err(|error| {
            Fault::new(
                Blame::Internal,
                format!("cannot write {}: {error}", shell::path(&path)),
            )
        })?;
        // A test that logs already keeps what it has.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info"))
            .with_writer(Mutex::new(file))
            .with_ansi(false)
            .try_init();
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary {
            remove(&self.path);
        }
    }
}

/// Removes a directory, what is in it at the same time: some file systems take a second to
/// free the files of one node. What cannot be removed is only space in a temporary directory.
fn remove(path: &Path) {
    std::thread::scope(|scope| {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            scope.spawn(move || fs::remove_dir_all(entry.path()));
        }
    });
    let _ = fs::remove_dir_all(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_a_temporary_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let chosen = Directory::claim(Some(&dir.path().join("new"))).unwrap();
        assert!(!chosen.is_temporary());
        fs::write(chosen.path().join("file"), "x").unwrap();
        assert_eq!(
            Directory::claim(Some(chosen.path())).unwrap_err().blame,
            Blame::WrongUse
        );
        let temporary = Directory::claim(None).unwrap();
        let path = temporary.path().to_owned();
        assert!(path.is_dir());
        drop(temporary);
        assert!(!path.exists());
    }
}
