//! Numbers of things, in words for people.

use std::borrow::Borrow;

/// A number and what it counts: `1 row`, `2 rows`.
pub fn counted(number: impl Borrow<u64>, one: &str, more: &str) -> String {
    let number = *number.borrow();
    let word = if number == 1 { one } else { more };
    format!("{number} {word}")
}

/// Rows of a table.
pub fn rows(number: impl Borrow<u64>) -> String {
    counted(number, "row", "rows")
}

/// Entries of a log.
pub fn entries(number: impl Borrow<u64>) -> String {
    counted(number, "entry", "entries")
}

/// Root keys of a federation.
pub fn root_keys(number: impl Borrow<u64>) -> String {
    counted(number, "root key", "root keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        assert_eq!(rows(0), "0 rows");
        assert_eq!(rows(1), "1 row");
        assert_eq!(entries(1), "1 entry");
        assert_eq!(entries(21), "21 entries");
    }
}
