//! Unix sockets at any path: the kernel allows 107 bytes, a temporary directory may be longer.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// `sun_path` of `sockaddr_un` holds 108 bytes on Linux, one of them the final zero.
const LONGEST: usize = 107;

/// Listens on a socket that only its owner may connect to.
///
/// A socket file left by a process that is gone is replaced.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] while another process listens there.
pub async fn bind(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path).await?;
    let reachable = Reachable::new(path)?;
    let listener = UnixListener::bind(&reachable.path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket at `path`.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let reachable = Reachable::new(path)?;
    UnixStream::connect(&reachable.path).await
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket"));
        }
        Ok(_) => {}
    }
    match connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => fs::remove_file(path),
    }
}

/// A spelling of a path that is short enough, valid while this value lives.
struct Reachable {
    path: PathBuf,
    /// Keeps the directory open, through which a long path is reached.
    _directory: Option<File>,
}

impl Reachable {
    fn new(path: &Path) -> io::Result<Reachable> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Reachable {
                path: path.to_owned(),
                _directory: None,
            });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = File::open(parent)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(Reachable {
            path,
            _directory: Some(directory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_paths_stale_files_and_living_owners() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("node.sock");
        let listener = bind(&path).await.unwrap();
        connect(&path).await.unwrap();
        let taken = bind(&path).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(connect(&path).await.is_err());
        bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        fs::write(&path, "data").unwrap();
        assert!(bind(&path).await.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
