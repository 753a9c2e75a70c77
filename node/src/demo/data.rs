//! The datasets that travel inside the program, each with its source and licence.

use jingwei_proto::statement::Sharing;

/// A dataset and how it is published.
pub struct Embedded {
    /// Who publishes it.
    pub agency: &'static str,
    /// As what.
    pub name: &'static str,
    /// The name of its schema in the program's own pack.
    pub schema: &'static str,
    /// For whom.
    pub sharing: Sharing,
    /// How many rows it has.
    pub rows: u64,
    /// The file's name.
    pub file: &'static str,
    /// The file: CSV, gzipped.
    pub bytes: &'static [u8],
    /// What it is, where it comes from, and its licence.
    pub source: &'static str,
}

macro_rules! embedded {
    ($file:literal) => {
        (
            concat!($file, ".csv.gz"),
            include_bytes!(concat!("../../demo-data/", $file, ".csv.gz")),
            include_str!(concat!("../../demo-data/", $file, ".csv.gz.source.txt")),
        )
    };
}

type File = (&'static str, &'static [u8], &'static str);

const COMMUNES: File = embedded!("communes-bretagne");
const GROUPINGS: File = embedded!("groupings-bretagne");
const STATISTICS: File = embedded!("counties-statistics");
const CIVIL_AFFAIRS: File = embedded!("counties-civil-affairs");
const NEW_YORK: File = embedded!("weather-new-york-2013");
const SEATTLE: File = embedded!("weather-seattle-2013");

const fn dataset(
    agency: &'static str,
    name: &'static str,
    schema: &'static str,
    sharing: Sharing,
    rows: u64,
    file: File,
) -> Embedded {
    Embedded {
        agency,
        name,
        schema,
        sharing,
        rows,
        file: file.0,
        bytes: file.1,
        source: file.2,
    }
}

/// What is published on the tour.
pub const DATASETS: [Embedded; 6] = [
    dataset(
        "fr.communes",
        "communes",
        "communes",
        Sharing::Public,
        1_202,
        COMMUNES,
    ),
    dataset(
        "fr.groups",
        "groupings",
        "groupings",
        Sharing::Unconditional,
        1_219,
        GROUPINGS,
    ),
    dataset(
        "cn.stats",
        "counties",
        "counties_statistics",
        Sharing::Unconditional,
        2_978,
        STATISTICS,
    ),
    dataset(
        "cn.mca",
        "counties",
        "counties_civil_affairs",
        Sharing::Public,
        2_846,
        CIVIL_AFFAIRS,
    ),
    dataset(
        "us.nyc",
        "weather_hour",
        "weather_hourly",
        Sharing::Public,
        26_115,
        NEW_YORK,
    ),
    dataset(
        "us.sea",
        "weather_day",
        "weather_daily",
        Sharing::Unconditional,
        365,
        SEATTLE,
    ),
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use jingwei_registry::disk::Disk;

    use super::*;
    use crate::ingest::{Limits, Source, Target, ingest};

    #[test]
    fn every_row_is_valid_and_every_row_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for dataset in &DATASETS {
            let path = dir.path().join(dataset.file);
            std::fs::write(&path, dataset.bytes).unwrap();
            let source = Source::open(&path, dataset.file, Limits::default()).unwrap();
            let schema = jingwei_schemas::pack::find(dataset.schema)
                .unwrap()
                .with_order()
                .unwrap();
            let rejects = dir.path().join("rejects.csv");
            let target = Target {
                disk: &Disk::new(),
                staging: dir.path(),
                rejects: &rejects,
                salt: [0; 32],
            };
            let written =
                ingest(&source, &schema, &target, &|_| {}, &AtomicBool::new(false)).unwrap();
            assert_eq!(written.rows, dataset.rows, "{}", dataset.file);
        }
    }

    #[test]
    fn they_are_small_and_say_where_they_come_from() {
        assert!(
            DATASETS
                .iter()
                .map(|dataset| dataset.bytes.len())
                .sum::<usize>()
                < 3_000_000
        );
        for dataset in &DATASETS {
            assert!(
                dataset.source.len() <= 4_000,
                "a manifest's description has no more: {}",
                dataset.file
            );
            for word in ["Source", "Licence", dataset.file, dataset.schema] {
                assert!(dataset.source.contains(word), "{}: {word}", dataset.file);
            }
        }
    }
}
