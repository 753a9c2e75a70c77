//! Numbers of things, as a sentence says them.

use std::borrow::Borrow;

/// A number and the word for what is counted: ‘1 entry’, ‘2 entries’.
pub fn counted(count: impl Borrow<u64>, one: &str, more: &str) -> String {
    let count = *count.borrow();
    format!("{count} {}", if count == 1 { one } else { more })
}

/// So many entries of a log.
pub fn entries(count: impl Borrow<u64>) -> String {
    counted(count, "entry", "entries")
}

/// So many root keys.
pub fn root_keys(count: impl Borrow<u64>) -> String {
    counted(count, "root key", "root keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(entries(1), "1 entry");
        assert_eq!(entries(0), "0 entries");
        assert_eq!(root_keys(&2), "2 root keys");
        assert_eq!(counted(1, "day", "days"), "1 day");
    }
}
