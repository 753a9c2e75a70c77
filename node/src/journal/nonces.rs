//! Nonces that must not be used again: those of requests which have not expired.
//!
//! A request that has expired is refused for that, so its nonce may be forgotten. Memory thus
//! follows the rate of requests and their life, not the age of the journal.

use std::collections::{BTreeSet, HashSet};

use jingwei_proto::time::Time;

/// How far ahead a request may expire, in seconds. What a restart has to read back follows from
/// it; requests live for minutes, and a day leaves room for clocks that are badly off.
pub const LONGEST_LIFE: i64 = 86_400;

/// The nonces in use.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    used: HashSet<String>,
    by_expiry: BTreeSet<(Time, String)>,
}

impl Nonces {
    /// Takes a nonce until a time; `false` if it is taken already.
    pub fn take(&mut self, nonce: &str, until: Time) -> bool {
        if !self.used.insert(nonce.to_owned()) {
            return false;
        }
        self.by_expiry.insert((until, nonce.to_owned()));
        true
    }

    /// Gives a nonce back whose record does not count.
    pub fn give_back(&mut self, nonce: &str, until: Time) {
        if self.by_expiry.remove(&(until, nonce.to_owned())) {
            self.used.remove(nonce);
        }
    }

    /// Forgets the nonces of requests that have expired before `now`.
    pub fn forget(&mut self, now: Time) {
        while self
            .by_expiry
            .first()
            .is_some_and(|(until, _)| *until < now)
        {
            if let Some((_, nonce)) = self.by_expiry.pop_first() {
                self.used.remove(&nonce);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_until_expiry() {
        let at = |seconds| Time::from_seconds(seconds).unwrap();
        let mut nonces = Nonces::default();
        assert!(nonces.take("a", at(10)));
        assert!(!nonces.take("a", at(20)));
        nonces.forget(at(10));
        assert!(!nonces.take("a", at(10)));
        nonces.forget(at(11));
        assert!(nonces.take("a", at(30)));
        nonces.give_back("a", at(30));
        assert!(nonces.take("a", at(30)));
    }
}
