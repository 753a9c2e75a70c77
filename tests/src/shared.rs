//! Something costly that tests share while any of them needs it, and that goes with the last.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A place for what is shared. As a `static` it would never be dropped, and servers would outlive
/// the tests; so only those who use it own it.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Nothing yet.
    pub const fn new() -> Shared<T> {
        Shared(Mutex::new(Weak::new()))
    }

    /// What is there, or what `make` makes; others wait meanwhile.
    pub fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = place.upgrade() {
            return there;
        }
        let made = Arc::new(make());
        *place = Arc::downgrade(&made);
        made
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared::new()
    }
}
