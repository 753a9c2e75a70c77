//! The schemas that ship with the program, for datasets that many agencies have.

use crate::schema::TableSchema;

/// Name and text of each schema.
const PACK: [(&str, &str); 6] = [
    ("communes", include_str!("../pack/communes.schema.json")),
    (
        "counties_civil_affairs",
        include_str!("../pack/counties_civil_affairs.schema.json"),
    ),
    (
        "counties_statistics",
        include_str!("../pack/counties_statistics.schema.json"),
    ),
    ("groupings", include_str!("../pack/groupings.schema.json")),
    (
        "weather_daily",
        include_str!("../pack/weather_daily.schema.json"),
    ),
    (
        "weather_hourly",
        include_str!("../pack/weather_hourly.schema.json"),
    ),
];

/// The schemas' names, in the order of the alphabet.
pub fn names() -> impl Iterator<Item = &'static str> {
    PACK.iter().map(|(name, _)| *name)
}

/// The schema of this name as JSON text.
pub fn text(name: &str) -> Option<&'static str> {
    PACK.iter()
        .find(|(other, _)| *other == name)
        .map(|(_, text)| *text)
}

/// The schema of this name.
///
/// # Panics
/// Never: the schemas are part of the program, and a test reads each of them.
pub fn find(name: &str) -> Option<TableSchema> {
    text(name).map(|text| {
        TableSchema::parse(text.as_bytes()).expect("a test has read every schema of the pack")
    })
}
