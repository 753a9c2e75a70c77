//! The checkpoint file: what readers are shown, replaced only by the writer that put it there.

use std::io;
use std::sync::Arc;

use super::{LogError, Storage};

pub(super) const CHECKPOINT: &str = "checkpoint";

/// Contents in doubt that are remembered: as many as commits that a writer may have open.
const TRIED: usize = 16;

/// The checkpoint file as this writer knows it.
pub(super) struct Shown {
    storage: Arc<dyn Storage>,
    content: Option<Vec<u8>>,
    /// What was to replace it when the storage reported an error, and may stand there all the
    /// same, or appear yet.
    tried: Vec<Vec<u8>>,
}

impl Shown {
    /// As it stands in the storage.
    pub fn load(storage: Arc<dyn Storage>) -> Result<Shown, LogError> {
        let content = storage.get(CHECKPOINT);
        let content = content.map_err(|error| LogError::io(&*storage, CHECKPOINT, error))?;
        Ok(Shown {
            storage,
            content,
            tried: Vec::new(),
        })
    }

    pub fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// Puts a note in its place, unless another writer has put one there. Unless `lasting`, a
    /// power cut may bring the old one back.
    pub fn replace(&mut self, note: &str, lasting: bool) -> Result<(), LogError> {
        let new = note.as_bytes();
        let failed = |storage: &dyn Storage, error| LogError::io(storage, CHECKPOINT, error);
        loop {
            let old = self.content.as_deref();
            match self.storage.swap(CHECKPOINT, old, new, lasting) {
                Ok(()) => {
                    self.content = Some(new.to_vec());
                    self.tried.clear();
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let found = self.storage.get(CHECKPOINT);
                    let found = found.map_err(|error| failed(&*self.storage, error))?;
                    if !self.own(found) {
                        return Err(LogError::Fenced {
                            path: self.storage.place(CHECKPOINT),
                        });
                    }
                }
                Err(error) => {
                    self.doubt(new);
                    return Err(failed(&*self.storage, error));
                }
            }
        }
    }

    /// Whether what was found is an earlier attempt of this writer, which then counts.
    fn own(&mut self, found: Option<Vec<u8>>) -> bool {
        let Some(at) = self
            .tried
            .iter()
            .position(|own| Some(own) == found.as_ref())
        else {
            return false;
        };
        self.content = Some(self.tried.remove(at));
        true
    }

    fn doubt(&mut self, new: &[u8]) {
        if !self.tried.iter().any(|tried| tried == new) {
            if self.tried.len() == TRIED {
                self.tried.remove(0);
            }
            self.tried.push(new.to_vec());
        }
    }
}
