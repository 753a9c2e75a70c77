//! Calls to an object store, each repeated until its answer is beyond doubt.
//!
//! Over a network there are three answers, not two: yes, no, and *doubt* (a time-out, a lost
//! answer, a 5xx; also a 409, which tells of a concurrent call and not of its outcome). After a
//! doubtful answer the object is read back and compared. If it is not there the call is
//! repeated, which is safe: the same bytes under the same condition. When patience ends the call
//! fails with [`io::ErrorKind::TimedOut`], and the object may yet appear.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::Created;

/// How long an object store is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one answer.
    pub answer: Duration,
    /// For a call with its repetitions.
    pub call: Duration,
}

impl Default for Patience {
    /// Stores answer in tens of milliseconds; what takes 10 s is lost. A minute is more than
    /// most disturbances last, and less than submitters wait.
    fn default() -> Patience {
        Patience {
            answer: Duration::from_secs(10),
            call: Duration::from_secs(60),
        }
    }
}

/// The calls to the store, each repeated until its answer is beyond doubt.
#[derive(Clone)]
pub(super) struct Calls {
    pub store: Arc<dyn ObjectStore>,
    pub patience: Patience,
}

/// An object's content and version.
pub(super) type Found = Option<(Bytes, UpdateVersion)>;

impl Calls {
    pub async fn create(&self, path: &Path, bytes: Bytes) -> io::Result<Created> {
        let mut turns = self.turns();
        loop {
            let doubt = match self.put_if(path, &bytes, PutMode::Create).await {
                Ok(()) => return Ok(Created::New),
                Err(doubt) => doubt?,
            };
            // Also after "it exists": the store says that of a concurrent call's name, too, and
            // it may be this call's own object, whose answer was lost.
            match self.read(path).await {
                Ok(Some((found, _))) if found == bytes => return Ok(Created::New),
                Ok(Some(_)) => return Ok(Created::Existed),
                Ok(None) => turns.next(doubt).await?,
                Err(doubt) => turns.next(doubt?).await?,
            }
        }
    }

    pub async fn swap(&self, path: &Path, old: Option<Bytes>, new: Bytes) -> io::Result<()> {
        let mut turns = self.turns();
        loop {
            let mode = match self.read(path).await {
                Ok(Some((found, _))) if found == new => return Ok(()),
                Ok(Some((found, version))) if Some(&found) == old.as_ref() => {
                    PutMode::Update(version)
                }
                Ok(None) if old.is_none() => PutMode::Create,
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(doubt) => {
                    turns.next(doubt?).await?;
                    continue;
                }
            };
            match self.put_if(path, &new, mode).await {
                Ok(()) => return Ok(()),
                Err(doubt) => turns.next(doubt?).await?,
            }
        }
    }

    pub async fn put(&self, path: &Path, bytes: Bytes) -> io::Result<()> {
        let mut turns = self.turns();
        loop {
            match self.put_if(path, &bytes, PutMode::Overwrite).await {
                Ok(()) => return Ok(()),
                Err(doubt) => turns.next(doubt?).await?,
            }
        }
    }

    pub async fn get(&self, path: &Path) -> io::Result<Found> {
        let mut turns = self.turns();
        loop {
            match self.read(path).await {
                Ok(found) => return Ok(found),
                Err(doubt) => turns.next(doubt?).await?,
            }
        }
    }

    pub async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut turns = self.turns();
        loop {
            let listed = self.within(self.store.list_with_delimiter(Some(dir))).await;
            match listed {
                Ok(listed) => {
                    let names = listed.objects.iter();
                    let names = names.filter_map(|object| object.location.filename());
                    return Ok(names.map(str::to_owned).collect());
                }
                Err(doubt) => turns.next(doubt?).await?,
            }
        }
    }

    pub async fn delete(&self, path: &Path) -> io::Result<()> {
        let mut turns = self.turns();
        loop {
            match self.within(self.store.delete(path)).await {
                Ok(()) => return Ok(()),
                Err(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(doubt) => turns.next(doubt?).await?,
            }
        }
    }

    /// Tries whether a put on condition is refused where the condition does not hold, and whether
    /// it is done where it does. An error says which of them is not so.
    pub async fn keeps_conditions(&self, path: &Path) -> io::Result<Result<(), &'static str>> {
        let [one, two, three] = ["one", "two", "three"].map(Bytes::from);
        self.create(path, one.clone()).await?;
        if self.create(path, two.clone()).await? == Created::New {
            return Ok(Err(
                "lets a second put with If-None-Match overwrite the first",
            ));
        }
        let Some((found, stale)) = self.get(path).await?.filter(|(found, _)| *found == one) else {
            return Ok(Err("does not give back what was put"));
        };
        self.swap(path, Some(found), two.clone()).await?;
        // The condition is for the store to check: `swap` would look first.
        let overwritten = self.put_if(path, &three, PutMode::Update(stale)).await;
        let kept = self.get(path).await?.is_some_and(|(found, _)| found == two);
        match overwritten {
            Err(doubt) if kept => doubt.map(|_| Ok(())),
            _ => Ok(Err(
                "lets a put with an outdated If-Match overwrite another",
            )),
        }
    }

    async fn read(&self, path: &Path) -> Result<Found, Doubt> {
        let read = async {
            let found = self.store.get(path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, version))
        };
        match self.within(read).await {
            Ok(found) => Ok(Some(found)),
            Err(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(doubt) => Err(doubt),
        }
    }

    async fn put_if(&self, path: &Path, bytes: &Bytes, mode: PutMode) -> Result<(), Doubt> {
        let options = PutOptions::from(mode);
        let put = self.store.put_opts(path, bytes.clone().into(), options);
        self.within(put).await.map(drop)
    }

    /// One answer, or a doubt; the time-out is for a store that does not answer at all.
    async fn within<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Doubt> {
        match timeout(self.patience.answer, call).await {
            Ok(answer) => answer.map_err(doubt),
            Err(_) => Err(Ok(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} ms", self.patience.answer.as_millis()),
            ))),
        }
    }

    fn turns(&self) -> Turns {
        Turns {
            end: Instant::now() + self.patience.call,
            pause: Duration::from_millis(20),
        }
    }
}

/// An answer that is no yes: `Ok` is a reason to look and to try again, `Err` is final.
type Doubt = io::Result<io::Error>;

fn doubt(error: Error) -> Doubt {
    let kind = match &error {
        // What is missing is not the object.
        Error::NotFound { .. } if error.to_string().contains("NoSuchBucket") => {
            io::ErrorKind::InvalidInput
        }
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            io::ErrorKind::InvalidInput
        }
        // The condition failed, or a server or the network did: in each case look what is there.
        _ => return Ok(io::Error::other(error)),
    };
    Err(io::Error::new(kind, error))
}

/// Repetitions, with growing pauses, until patience ends.
struct Turns {
    end: Instant,
    pause: Duration,
}

impl Turns {
    async fn next(&mut self, doubt: io::Error) -> io::Result<()> {
        if Instant::now() + self.pause > self.end {
            let text = format!("the object store gives no clear answer: {doubt}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(2));
        Ok(())
    }
}
