//! Points in time as statements write them: RFC 3339, UTC, whole seconds.
//!
//! This crate reads no clock; times come in as arguments.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970-01-01T00:00:00Z, written `2024-05-01T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(i64);

/// The last second that RFC 3339 can write: 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

impl Time {
    /// The time `seconds` after the epoch; `None` before 1970 or after the year 9999.
    pub fn from_seconds(seconds: i64) -> Option<Time> {
        (0..=LAST).contains(&seconds).then_some(Time(seconds))
    }

    /// Seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// The time `seconds` later, held within the years 1970 to 9999.
    pub fn plus(self, seconds: i64) -> Time {
        Time(self.0.saturating_add(seconds).clamp(0, LAST))
    }

    /// The calendar year in UTC.
    pub fn year(self) -> i32 {
        use chrono::Datelike;
        self.calendar().year()
    }

    fn calendar(self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0, 0).unwrap_or_default()
    }
}

/// The text is not a time in the one form that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like 2024-05-01T12:00:00Z (RFC 3339, UTC, whole seconds)")]
pub struct TimeError;

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Time, TimeError> {
        let time = DateTime::parse_from_rfc3339(text)
            .ok()
            .and_then(|t| Time::from_seconds(t.timestamp()))
            .ok_or(TimeError)?;
        // One spelling for each time: anything else does not print as it was read.
        (time.to_string() == text).then_some(time).ok_or(TimeError)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.calendar().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let time: Time = "2024-02-29T23:59:59Z".parse().unwrap();
        assert_eq!(time.to_string(), "2024-02-29T23:59:59Z");
        assert_eq!(time.year(), 2024);
        for other in [
            "2024-02-29T23:59:59+00:00",
            "2024-02-29t23:59:59Z",
            "2024-02-29 23:59:59Z",
            "2024-02-29T23:59:59.0Z",
            "2023-02-29T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2016-12-31T23:59:60Z",
        ] {
            assert!(other.parse::<Time>().is_err(), "{other}");
        }
    }
}
