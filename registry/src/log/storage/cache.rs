//! A bounded cache of files that never change.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes kept: the newest tiles of all levels and some ten thousand statements.
const BUDGET: usize = 64 * 1024 * 1024;

/// The files read or written last, by name; the oldest go first.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<String, Arc<[u8]>>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Cache {
    pub fn find(&self, name: &str) -> Option<Vec<u8>> {
        let found = self.lock().files.get(name).cloned();
        found.map(|bytes| bytes.to_vec())
    }

    pub fn holds(&self, name: &str) -> bool {
        self.lock().files.contains_key(name)
    }

    pub fn keep(&self, name: &str, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.forget(name);
        if bytes.len() > BUDGET {
            return;
        }
        kept.bytes += bytes.len();
        kept.files.insert(name.to_owned(), bytes.into());
        kept.order.push_back(name.to_owned());
        while kept.bytes > BUDGET
            && let Some(oldest) = kept.order.front().cloned()
        {
            kept.forget(&oldest);
        }
    }

    pub fn forget(&self, name: &str) {
        self.lock().forget(name);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget(&mut self, name: &str) {
        if let Some(bytes) = self.files.remove(name) {
            self.bytes -= bytes.len();
            // Nearly always the first: nothing is kept twice, and the oldest goes first.
            if let Some(at) = self.order.iter().position(|kept| kept == name) {
                self.order.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_budget_holds() {
        let cache = Cache::default();
        let quarter = vec![1; BUDGET / 4];
        for name in ["a", "b", "c", "d", "b", "e"] {
            cache.keep(name, &quarter);
        }
        cache.keep("too large", &vec![0; BUDGET + 1]);
        let found = |name| cache.find(name).is_some();
        assert!(!found("a") && !found("too large"));
        assert!(found("b") && found("c") && found("d") && found("e"));
        cache.forget("c");
        assert!(!found("c"));
        let kept = cache.lock();
        assert_eq!((kept.bytes, kept.order.len()), (3 * (BUDGET / 4), 3));
    }
}
