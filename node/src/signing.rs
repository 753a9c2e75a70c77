//! An agency's signing key in its directory, through changes of it.
//!
//! ```text
//! signing.pem          the key that signs
//! signing.next.pem     a new key, staged before anything is said of it
//! ```
//!
//! A new key is durable before the statement that names it is signed, and it replaces the old
//! one (by one `rename(2)`) only when this node's own verified replica shows it in force. So
//! whenever the process ends, one of the two files holds the key that the registry knows, and
//! [`SigningKey::settle`] finds out which.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use jingwei_proto::key::{PublicKey, SecretKey, Signer};
use jingwei_registry::keyfile::{self, KeyFileError};

const CURRENT: &str = "signing.pem";
const NEXT: &str = "signing.next.pem";

/// The key that an agency signs with, and the ones that it goes over to while the node runs.
#[derive(Debug)]
pub struct SigningKey {
    dir: PathBuf,
    keys: Link,
    current: AtomicUsize,
    /// One change of the files at a time.
    changing: Mutex<()>,
}

/// Keys in the order in which they came, so that one in use never goes away.
#[derive(Debug)]
struct Link {
    key: SecretKey,
    next: OnceLock<Box<Link>>,
}

impl Link {
    fn new(key: SecretKey) -> Link {
        Link {
            key,
            next: OnceLock::new(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(Some(self), |link| link.next.get().map(Box::as_ref))
    }

    fn push(&self, key: SecretKey) -> &SecretKey {
        let last = self.all().last().unwrap_or(self);
        &last.next.get_or_init(|| Box::new(Link::new(key))).key
    }
}

impl SigningKey {
    /// The key in `dir`, made if there is none.
    pub fn load_or_create(dir: &Path) -> Result<SigningKey, KeyFileError> {
        keyfile::load_or_create(&dir.join(CURRENT))?;
        SigningKey::load(dir)
    }

    /// The key in `dir`. Where it is lost, and a new one was staged for its recovery, that one.
    pub fn load(dir: &Path) -> Result<SigningKey, KeyFileError> {
        let next = staged(dir)?;
        let (keys, next) = match (keyfile::load(&dir.join(CURRENT)), next) {
            (Ok(key), next) => (Link::new(key), next),
            (Err(error), Some(next)) if is_missing(&error) => (Link::new(next), None),
            (Err(error), _) => return Err(error),
        };
        if let Some(next) = next {
            keys.push(next);
        }
        Ok(SigningKey {
            dir: dir.to_owned(),
            keys,
            current: AtomicUsize::new(0),
            changing: Mutex::new(()),
        })
    }

    /// A new key for an agency, whose own may be lost, in its directory `dir`: durable when this
    /// returns. One that was staged before is taken again, unless it is `used` up.
    pub fn stage_in(
        dir: &Path,
        used: impl Fn(&PublicKey) -> bool,
    ) -> Result<SecretKey, KeyFileError> {
        if let Some(key) = staged(dir)? {
            if !used(key.public()) {
                return Ok(key);
            }
            remove(&dir.join(NEXT))?;
        }
        keyfile::create(&dir.join(NEXT))
    }

    /// A new key for this agency: see [`SigningKey::stage_in`].
    pub fn stage(&self, used: impl Fn(&PublicKey) -> bool) -> Result<&SecretKey, KeyFileError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = SigningKey::stage_in(&self.dir, used)?;
        let known = self
            .keys
            .all()
            .find(|link| link.key.public() == key.public());
        Ok(match known {
            Some(link) => &link.key,
            None => self.keys.push(key),
        })
    }

    /// Goes over to the key that the registry knows, if it is one of these. Returns whether the
    /// key that signs is the one in force.
    pub fn settle(&self, in_force: &PublicKey) -> Result<bool, KeyFileError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.public() == in_force && self.current.load(Ordering::Acquire) == 0 {
            // The usual case, and a lost key whose new one has come into force.
            if !self.dir.join(CURRENT).exists() {
                self.promote()?;
            }
            return Ok(true);
        }
        let place = self
            .keys
            .all()
            .position(|link| link.key.public() == in_force);
        let Some(place) = place else {
            return Ok(false);
        };
        if staged(&self.dir)?.is_some_and(|key| key.public() == in_force) {
            self.promote()?;
        }
        self.current.store(place, Ordering::Release);
        Ok(true)
    }

    /// The staged key takes the place of the old one, in one step.
    fn promote(&self) -> Result<(), KeyFileError> {
        let path = self.dir.join(CURRENT);
        fs::rename(self.dir.join(NEXT), &path)
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(|source| failed("replace", &path, source))
    }
}

impl Signer for SigningKey {
    fn public(&self) -> &PublicKey {
        self.signer().public()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer().sign(message)
    }
}

impl SigningKey {
    fn signer(&self) -> &SecretKey {
        let place = self.current.load(Ordering::Acquire);
        self.keys
            .all()
            .nth(place)
            .map_or(&self.keys.key, |link| &link.key)
    }
}

fn staged(dir: &Path) -> Result<Option<SecretKey>, KeyFileError> {
    match keyfile::load(&dir.join(NEXT)) {
        Ok(key) => Ok(Some(key)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &KeyFileError) -> bool {
    matches!(error, KeyFileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn remove(path: &Path) -> Result<(), KeyFileError> {
    fs::remove_file(path).map_err(|source| failed("remove", path, source))
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never(_: &PublicKey) -> bool {
        false
    }

    #[test]
    fn a_rotation_survives_an_end_at_any_point() {
        let dir = tempfile::tempdir().unwrap();
        let old = SigningKey::load_or_create(dir.path()).unwrap();
        let before = old.public().clone();
        let new = old.stage(never).unwrap().public().clone();
        // Staged, nothing entered: the old key, after a restart too, and the same new one.
        let again = SigningKey::load(dir.path()).unwrap();
        assert!(again.settle(&before).unwrap());
        assert_eq!(*again.public(), before);
        assert_eq!(*again.stage(never).unwrap().public(), new);
        // Entered, and ended before the file was replaced.
        let after = SigningKey::load(dir.path()).unwrap();
        assert!(after.settle(&new).unwrap());
        assert_eq!(*after.public(), new);
        assert!(!dir.path().join(NEXT).exists());
        // Ended after it.
        let last = SigningKey::load(dir.path()).unwrap();
        assert!(last.settle(&new).unwrap());
        assert_eq!(*last.public(), new);
        assert!(!last.settle(&before).unwrap());
        // The process that staged it goes over as well, and again to a third.
        assert!(old.settle(&new).unwrap());
        assert_eq!(*old.public(), new);
        let third = old.stage(never).unwrap().public().clone();
        assert!(old.settle(&third).unwrap());
        assert_eq!(*SigningKey::load(dir.path()).unwrap().public(), third);
    }

    #[test]
    fn a_key_that_was_used_up_is_not_staged_again() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_create(dir.path()).unwrap();
        let contested = key.stage(never).unwrap().public().clone();
        let fresh = key.stage(|public| *public == contested).unwrap().public();
        assert_ne!(*fresh, contested);
    }

    #[test]
    fn a_lost_key_is_replaced_by_the_one_that_was_staged_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let lost = SigningKey::load_or_create(dir.path())
            .unwrap()
            .public()
            .clone();
        fs::remove_file(dir.path().join(CURRENT)).unwrap();
        assert!(SigningKey::load(dir.path()).is_err());
        let new = SigningKey::stage_in(dir.path(), never).unwrap();
        let key = SigningKey::load(dir.path()).unwrap();
        // Until the recovery takes effect the registry knows the lost one.
        assert!(!key.settle(&lost).unwrap());
        assert!(key.settle(new.public()).unwrap());
        assert!(dir.path().join(CURRENT).exists() && !dir.path().join(NEXT).exists());
        assert_eq!(SigningKey::load(dir.path()).unwrap().public(), new.public());
    }
}
