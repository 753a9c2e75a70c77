//! Random rows, written and read back.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn cell(kind: usize) -> BoxedStrategy<Value> {
    match kind {
        0 => "[ -~\u{e9}\u{7ecf}\n\r\",;]{2,12}"
            .prop_map(Value::from)
            .boxed(),
        1 => (0..i64::MAX).prop_map(Value::from).boxed(),
        2 => any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Value::from)
            .boxed(),
        3 => any::<bool>().prop_map(Value::from).boxed(),
        4 => (1u32..9999, 1u32..=12, 1u32..=28)
            .prop_map(|(year, month, day)| json!(format!("{year:04}-{month:02}-{day:02}")))
            .boxed(),
        _ => (0i64..4_000_000_000_000_000)
            .prop_map(|time| {
                json!(
                    chrono::DateTime::from_timestamp_micros(time)
                        .unwrap()
                        .to_rfc3339()
                )
            })
            .boxed(),
    }
}

fn row() -> impl Strategy<Value = Vec<Option<Value>>> {
    let optional = |kind| prop::option::of(cell(kind));
    (
        cell(0),
        cell(1),
        optional(2),
        optional(3),
        optional(4),
        optional(5),
    )
        .prop_map(|(code, population, area, coastal, since, changed)| {
            vec![Some(code), Some(population), area, coastal, since, changed]
        })
}

fn names() -> Vec<String> {
    schema()
        .columns()
        .iter()
        .map(|column| column.name.clone())
        .collect()
}

fn as_ndjson(rows: &[Vec<Option<Value>>]) -> String {
    let object = |row: &Vec<Option<Value>>| {
        let members = names()
            .into_iter()
            .zip(row)
            .filter_map(|(name, cell)| Some((name, cell.clone()?)));
        Value::Object(members.collect::<Map<_, _>>()).to_string() + "\n"
    };
    rows.iter().map(object).collect()
}

fn as_csv(rows: &[Vec<Option<Value>>]) -> Vec<u8> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(names()).unwrap();
    for row in rows {
        let cells = row.iter().map(|cell| match cell {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        });
        writer.write_record(cells).unwrap();
    }
    writer.into_inner().unwrap()
}

fn as_json(batch: &RecordBatch, row: usize) -> Vec<Option<Value>> {
    let valid = |column: usize| batch.column(column).is_valid(row).then_some(column);
    vec![
        valid(0).map(|c| json!(batch.column(c).as_string::<i32>().value(row))),
        valid(1).map(|c| {
            json!(
                batch
                    .column(c)
                    .as_primitive::<types::Int64Type>()
                    .value(row)
            )
        }),
        valid(2).map(|c| {
            json!(
                batch
                    .column(c)
                    .as_primitive::<types::Float64Type>()
                    .value(row)
            )
        }),
        valid(3).map(|c| json!(batch.column(c).as_boolean().value(row))),
        valid(4).map(|c| {
            let days = batch
                .column(c)
                .as_primitive::<types::Date32Type>()
                .value(row);
            let date = chrono::DateTime::from_timestamp(i64::from(days) * 86_400, 0).unwrap();
            json!(date.date_naive().to_string())
        }),
        valid(5).map(|c| {
            let time = batch
                .column(c)
                .as_primitive::<types::TimestampMicrosecondType>()
                .value(row);
            json!(
                chrono::DateTime::from_timestamp_micros(time)
                    .unwrap()
                    .to_rfc3339()
            )
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_are_read_back_as_they_were_written(rows in prop::collection::vec(row(), 1..60)) {
        let mut room = Room::new();
        // Small rows and small reads: the blocks are cut everywhere.
        room.limits.row = 400;
        let from_json = room.ingest("a.ndjson", as_ndjson(&rows).as_bytes()).unwrap();
        let from_csv = room.ingest("a.csv", &as_csv(&rows)).unwrap();
        prop_assert_eq!(from_json.digest, from_csv.digest);
        let batch = read_back(from_csv.file.path());
        prop_assert_eq!(batch.num_rows(), rows.len());
        for (index, row) in rows.iter().enumerate() {
            prop_assert_eq!(&as_json(&batch, index), row);
        }
        let again = fs::read(from_csv.file.path()).unwrap();
        prop_assert_eq!(room.ingest("a.parquet", &again).unwrap().digest, from_json.digest);
    }
}
