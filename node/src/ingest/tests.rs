//! Whole ingestions: the same table from every format, bad input, full disks, random rows.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use ::arrow::array::{ArrayRef, AsArray, RecordBatch};
use ::arrow::compute::concat_batches;
use ::arrow::datatypes as types;
use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use jingwei_registry::disk::Disk;
use jingwei_registry::disk::faults::{FailAt, Failure};
use jingwei_schemas::TableSchema;

use super::*;
use crate::store::DatasetStore;

mod bad_input;
mod round_trip;

const SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "code": {"type": "string", "minLength": 2},
        "population": {"type": "integer", "minimum": 0},
        "area": {"type": "number"},
        "coastal": {"type": "boolean"},
        "since": {"type": "string", "format": "date"},
        "changed": {"type": "string", "format": "date-time"}
    },
    "required": ["code", "population"]
}"#;

const CSV: &str = "\u{feff}code,population,area,coastal,since,changed\r\n\
    35001,480178,12.5,false,2013-07-01,2013-07-01T02:00:00+02:00\r\n\
    \"35\n\"\"x\"\"\",0,,true,,2024-01-01T00:00:00.5Z\r\n\
    é1,2,3,,,\r\n";

const NDJSON: &str = r#"{"code":"35001","population":480178,"area":12.5,"coastal":false,"since":"2013-07-01","changed":"2013-07-01T02:00:00+02:00"}

{"changed":"2024-01-01T00:00:00.5Z","code":"35\n\"x\"","population":0,"coastal":true}
{"code":"\u00e91","population":2.0,"area":3,"since":null}
"#;

fn schema() -> TableSchema {
    TableSchema::parse(SCHEMA.as_bytes()).unwrap()
}

/// A node's directories, as far as an ingestion needs them.
struct Room {
    root: tempfile::TempDir,
    disk: Disk,
    limits: Limits,
}

impl Room {
    fn new() -> Room {
        Room::with(Disk::new())
    }

    fn with(disk: Disk) -> Room {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("staging")).unwrap();
        Room {
            root,
            disk,
            limits: Limits::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn ingest(&self, name: &str, bytes: &[u8]) -> Result<Written, IngestError> {
        self.ingest_as(name, bytes, &schema(), &|_| {})
    }

    fn ingest_as(
        &self,
        name: &str,
        bytes: &[u8],
        schema: &TableSchema,
        progress: &dyn Fn(Progress),
    ) -> Result<Written, IngestError> {
        fs::write(self.path("source"), bytes).unwrap();
        let source = Source::open(&self.path("source"), name, self.limits)?;
        let target = Target {
            disk: &self.disk,
            staging: &self.path("staging"),
            rejects: &self.path("rejects.csv"),
            salt: [7; 32],
        };
        ingest(&source, schema, &target, progress, &AtomicBool::new(false))
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.path("staging")).unwrap().count()
    }
}

fn read_back(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let arrow = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&arrow, &batches).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As other programs write Parquet: narrower and wider types, other units, other zones.
fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn same_table_as_parquet() -> Vec<u8> {
    use ::arrow::array::*;
    parquet(vec![
        (
            "changed",
            Arc::new(
                TimestampNanosecondArray::from(vec![
                    Some(1_372_636_800_000_000_000),
                    Some(1_704_067_200_500_000_000),
                    None,
                ])
                .with_timezone("Europe/Paris"),
            ),
        ),
        (
            "code",
            Arc::new(StringViewArray::from(vec!["35001", "35\n\"x\"", "é1"])),
        ),
        (
            "population",
            Arc::new(Float32Array::from(vec![480_178.0, 0.0, 2.0])),
        ),
        (
            "area",
            Arc::new(Float64Array::from(vec![Some(12.5), None, Some(3.0)])),
        ),
        (
            "coastal",
            Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
        ),
        (
            "since",
            Arc::new(TimestampMillisecondArray::from(vec![
                Some(1_372_636_800_000),
                None,
                None,
            ])),
        ),
    ])
}

#[test]
fn every_format_gives_the_same_file() {
    let room = Room::new();
    let elements: Vec<&str> = NDJSON.lines().filter(|line| !line.is_empty()).collect();
    let json = format!("[{}]", elements.join(" ,\n"));
    let reordered = "population;code;coastal;area;changed;since\n480178;35001;0;1.25e1;2013-07-01T00:00:00Z;2013-07-01\n\
        0;\"35\n\"\"x\"\"\";1;;2024-01-01T00:00:00.500Z;\n\n2;é1;;3.0;;";
    let first = room.ingest("a.csv", CSV.as_bytes()).unwrap();
    assert_eq!(first.rows, 3);
    for (name, bytes) in [
        ("a.csv.gz", gzip(CSV.as_bytes())),
        ("b.csv", reordered.as_bytes().to_vec()),
        ("a.ndjson", NDJSON.as_bytes().to_vec()),
        ("a.ndjson.gz", gzip(NDJSON.as_bytes())),
        ("a.json", json.into_bytes()),
        ("a.parquet", same_table_as_parquet()),
    ] {
        let other = room
            .ingest(name, &bytes)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (other.digest, other.bytes, other.rows),
            (first.digest, first.bytes, 3),
            "{name}"
        );
    }
}

#[test]
fn the_file_is_what_the_schema_says() {
    let room = Room::new();
    let store = DatasetStore::open(&room.path("data"), room.disk.clone()).unwrap();
    let digest = store
        .put(room.ingest("a.csv", CSV.as_bytes()).unwrap())
        .unwrap();
    let path = store.verified(&digest).unwrap();
    assert_eq!(room.staged(), 0);

    let batch = read_back(&path);
    assert_eq!(batch.schema().fields(), arrow_schema(&schema()).fields());
    assert_eq!(batch.column(0).as_string::<i32>().value(1), "35\n\"x\"");
    assert!(batch.column(2).is_null(1));
    assert_eq!(
        batch.column(4).as_primitive::<types::Date32Type>().value(0),
        15_887
    );
    let changed = batch
        .column(5)
        .as_primitive::<types::TimestampMicrosecondType>();
    assert_eq!(changed.value(1), 1_704_067_200_500_000);

    let file = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
    let metadata = file.metadata().file_metadata();
    assert_eq!(metadata.created_by(), Some("jingwei"));
    let pairs = metadata.key_value_metadata().unwrap();
    assert_eq!(pairs.len(), 1);
    assert_eq!(
        (pairs[0].key.as_str(), pairs[0].value.as_deref()),
        (SALT_KEY, Some("07".repeat(32).as_str()))
    );
    let column = file.metadata().row_group(0).column(0);
    assert!(column.column_index_offset().is_some() && column.offset_index_offset().is_some());
}

#[test]
fn tables_without_rows_and_files_without_content() {
    let room = Room::new();
    let header = CSV.lines().next().unwrap();
    let empty = room.ingest("a.csv", header.as_bytes()).unwrap();
    assert_eq!(empty.rows, 0);
    assert_eq!(
        room.ingest("a.json", b" [ ] ").unwrap().digest,
        empty.digest
    );
    for (name, bytes) in [
        ("a.csv", &b""[..]),
        ("a.csv", b"\n\n"),
        ("a.json", b""),
        ("a.ndjson", b" \n"),
    ] {
        let error = room.ingest(name, bytes).err().unwrap();
        assert!(
            matches!(
                error,
                IngestError::Source {
                    fault: SourceFault::Empty,
                    ..
                }
            ),
            "{error}"
        );
    }
    // Blank beyond what the format is guessed from.
    let blank = [b"{}\n".as_slice(), &[b'\n'; 5000]].concat();
    assert!(room.ingest("a.ndjson", &blank[3..]).is_err());
}

#[test]
fn many_blocks_stay_in_order_and_progress_is_told() {
    let room = Room::new();
    let mut csv = "code,population\n".to_owned();
    for row in 0..100_000 {
        csv.push_str(&format!("c{row},{row}\n"));
    }
    let told = Mutex::new(Vec::new());
    let progress = |progress: Progress| told.lock().unwrap().push(progress);
    let written = room
        .ingest_as("a.csv", csv.as_bytes(), &schema(), &progress)
        .unwrap();
    let batch = read_back(written.file.path());
    let populations = batch.column(1).as_primitive::<types::Int64Type>();
    assert!(populations.values().iter().copied().eq(0..100_000));
    let told = told.into_inner().unwrap();
    assert!(told.len() > 2 && told.windows(2).all(|pair| pair[0].rows <= pair[1].rows));
    let last = told.last().unwrap();
    assert_eq!(
        (last.rows, last.bytes_read, last.bytes_total),
        (100_000, csv.len() as u64, csv.len() as u64)
    );
}

#[test]
fn a_full_disk_at_any_step_loses_nothing_and_leaves_nothing() {
    let mut csv = CSV.to_owned();
    for row in 0..6_000 {
        csv.push_str(&format!("{row:05},{row},,,,\n"));
    }
    let publish = |room: &Room| -> Result<_, String> {
        let store =
            DatasetStore::open(&room.path("data"), room.disk.clone()).map_err(|e| e.to_string())?;
        let spooled = (|| {
            let mut spool = Spool::begin(&room.disk, &room.path("staging"), Spool::LIMIT)?;
            csv.as_bytes()
                .chunks(20 << 10)
                .try_for_each(|chunk| spool.push(chunk))?;
            spool.finish()
        })();
        let spooled = spooled.map_err(|error: SpoolError| error.to_string())?;
        let source =
            Source::open(spooled.path(), "a.csv", room.limits).map_err(|e| e.to_string())?;
        let target = Target {
            disk: &room.disk,
            staging: &room.path("staging"),
            rejects: &room.path("rejects.csv"),
            salt: [7; 32],
        };
        let written = ingest(
            &source,
            &schema(),
            &target,
            &|_| {},
            &AtomicBool::new(false),
        );
        store
            .put(written.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())
    };
    let expected = publish(&Room::new()).unwrap();
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        for n in 1.. {
            let faults = Arc::new(FailAt::new(n, failure));
            let room = Room::with(Disk::with_faults(faults.clone()));
            let result = publish(&room);
            if !faults.reached(n) {
                assert!(n > 10, "only {n} steps");
                break;
            }
            if let Err(error) = &result {
                assert!(error.contains("no storage space"), "{error}");
            }
            faults.repair();
            if failure != Failure::FromThenOn && room.path("data").is_dir() {
                let left = DatasetStore::open(&room.path("data"), room.disk.clone())
                    .unwrap()
                    .list()
                    .unwrap();
                assert_eq!(left.is_empty(), result.is_err(), "{failure:?} at step {n}");
            }
            room.disk.clean(&room.path("staging")).unwrap();
            assert_eq!(publish(&room), Ok(expected), "{failure:?} at step {n}");
            assert_eq!(room.staged(), 0);
            assert_eq!(fs::read_dir(room.path("data")).unwrap().count(), 1);
        }
    }
}

#[test]
fn a_full_disk_hides_no_reject() {
    // Enough of them for several writes.
    let mut csv = "code,population\n".to_owned();
    for row in 0..2_000 {
        csv.push_str(&format!("{row:05},-{}\n", row + 1));
    }
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        let (mut listed, mut refused) = (0, 0);
        for n in 1.. {
            let faults = Arc::new(FailAt::new(n, failure));
            let room = Room::with(Disk::with_faults(faults.clone()));
            let invalid = match room.ingest("a.csv", csv.as_bytes()) {
                Err(IngestError::Invalid(invalid)) => invalid,
                // The Parquet file was begun before the first reject was seen.
                Err(IngestError::Write(_)) => continue,
                other => panic!("{failure:?} at step {n}: {:?}", other.err()),
            };
            assert_eq!((invalid.count, invalid.rows), (2_000, 2_000));
            assert_eq!(invalid.first.len(), SHOWN);
            let named = room.path("rejects.csv");
            match &invalid.rejects_file {
                Some(path) => {
                    assert_eq!((path, invalid.listed), (&named, 2_000));
                    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 2_001);
                    listed += 1;
                }
                None => {
                    assert_eq!(invalid.listed, 0);
                    assert!(invalid.to_string().contains("could not be written"));
                    refused += 1;
                }
            }
            if !faults.reached(n) {
                break;
            }
            faults.repair();
            room.disk.clean(&room.path("staging")).unwrap();
            assert_eq!(room.staged(), 0);
        }
        assert!(
            listed >= 1 && refused > 2,
            "{failure:?}: {listed}, {refused}"
        );
    }
}
