//! Bad input: each gets an error that says where and what, and leaves nothing behind.

use super::*;

fn message(name: &str, bytes: &[u8]) -> String {
    let room = Room::new();
    let error = room.ingest(name, bytes).err().unwrap().to_string();
    assert_eq!(room.staged(), 0);
    error
}

#[test]
fn faults_of_a_csv_file() {
    for (text, expected) in [
        (
            &b"code,population\n35,1\n36,x\"1\n"[..],
            "a.csv: line 3: a quotation mark within a cell",
        ),
        (
            b"code,population\n35,1\n36,\"1\n37,2\n",
            "a.csv: line 3: the quotation mark that opens here is never closed",
        ),
        (
            b"code,population\n35,1\n\xff\xfe,2\n",
            "a.csv: line 3, column ‘code’: not UTF-8",
        ),
        (b"code\n35\n", "the required column ‘population’ is missing"),
        (
            b"code,poplation\n35,1\n",
            "column 2 is ‘poplation’, which the schema does not have; did you mean ‘population’?",
        ),
        (
            b"code,population,code\n35,1,36\n",
            "two columns are called ‘code’",
        ),
    ] {
        let message = message("a.csv", text);
        assert!(message.contains(expected), "{message}");
    }
}

fn rejected(room: &Room, csv: &[u8]) -> (Invalid, Vec<::csv::StringRecord>) {
    let invalid = match room.ingest("a.csv", csv) {
        Err(IngestError::Invalid(invalid)) => *invalid,
        other => panic!("{:?}", other.err()),
    };
    let mut listed = ::csv::Reader::from_path(invalid.rejects_file.as_ref().unwrap()).unwrap();
    let records = listed.records().map(Result::unwrap).collect();
    (invalid, records)
}

#[test]
fn ragged_rows_are_rejects_and_the_others_are_read() {
    let room = Room::new();
    let csv = b"code,population\r\n35,1\r\n\r\n36\r\n37,1,2\r\n38,-1\r\n";
    let (invalid, listed) = rejected(&room, csv);
    assert_eq!((invalid.count, invalid.rows, &invalid.fault), (3, 3, &None));
    let rule = "one cell for each column";
    let found: Vec<Vec<&str>> = listed.iter().map(|row| row.iter().collect()).collect();
    assert_eq!(
        found[..2],
        [
            [
                "4",
                "",
                "36",
                rule,
                "1 cell where the header names 2 columns"
            ],
            [
                "5",
                "",
                "37,1,2",
                rule,
                "3 cells where the header names 2 columns"
            ],
        ]
    );
    assert_eq!(found[2][..3], ["6", "population", "-1"]);
    assert_eq!(room.staged(), 0);
}

#[test]
fn a_fault_that_ends_reading_is_the_last_in_the_list() {
    let room = Room::new();
    let rows = "35,1\n".repeat(100_000);
    let csv = format!("code,population\n35,-1\n{rows}36,\"1\n37,1\n");
    let (invalid, listed) = rejected(&room, csv.as_bytes());
    assert_eq!((invalid.count, invalid.rows), (2, 2));
    assert_eq!((invalid.first.len(), invalid.listed), (1, 2));
    assert_eq!(&listed[0][2], "-1");
    let last: Vec<&str> = listed[1].iter().collect();
    let opens = "the quotation mark that opens here is never closed";
    assert_eq!(last, ["100003", "", "36,\"", "RFC 4180", opens]);
    let told = invalid.to_string();
    assert!(
        told.contains("a.csv: line 100003: the quotation") && told.contains("not all rows"),
        "{told}"
    );

    let (_, listed) = rejected(&room, b"code,population\n35,-1\n\xff,2\n36,-1\n");
    let found: Vec<Vec<&str>> = listed
        .iter()
        .map(|row| row.iter().take(4).collect())
        .collect();
    assert_eq!(
        found,
        [
            ["2", "population", "-1", "minimum 0"],
            ["3", "code", "", "UTF-8"]
        ]
    );
    assert_eq!(room.staged(), 0);
}

#[test]
fn faults_of_a_json_file() {
    for (name, text, expected) in [
        (
            "a.ndjson",
            &b"{\"code\":\"35\",\"population\":1}\n{\"code\":\"35\",\n"[..],
            "a.ndjson: line 2: EOF",
        ),
        (
            "a.ndjson",
            b"{\"code\":\"35\",\"population\":1,\"code\":\"36\"}",
            "line 1: member ‘code’ stands twice",
        ),
        (
            "a.ndjson",
            b"{\"code\":\"35\",\"population\":1} {}",
            "line 1: trailing characters",
        ),
        (
            "a.ndjson",
            b"{}\n[1]\n",
            "line 2: invalid type: sequence, expected an object",
        ),
        ("a.ndjson", b"{\"code\":\"\xff\"}", "line 1: not UTF-8"),
        (
            "a.json",
            b"[{\"code\":\"35\",\"population\":1},\n 7]",
            "element 2 (line 2): expected an object",
        ),
        (
            "a.json",
            b"[{\"code\":\"35\",\"population\":1}",
            "the file ends within the array",
        ),
        (
            "a.json",
            b"[{\"code\":\"35\" \"population\":1}]",
            "element 1 (line 1): expected `,` or `}`",
        ),
    ] {
        let message = message(name, text);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn faults_of_a_parquet_file() {
    use ::arrow::array::*;
    let text = || Arc::new(StringArray::from(vec!["35"])) as ArrayRef;
    let number = || Arc::new(Int32Array::from(vec![1])) as ArrayRef;
    let decimal = Decimal128Array::from(vec![100])
        .with_precision_and_scale(9, 2)
        .unwrap();
    let naive = TimestampMicrosecondArray::from(vec![1]);
    for (columns, expected) in [
        (
            vec![("code", text())],
            "the required column ‘population’ is missing",
        ),
        (
            vec![("code", text()), ("population", text())],
            "the column ‘population’ has the type string",
        ),
        (
            vec![
                ("code", text()),
                ("population", number()),
                ("area", Arc::new(decimal) as ArrayRef),
            ],
            "64-bit float",
        ),
        (
            vec![
                ("code", text()),
                ("population", number()),
                ("changed", Arc::new(naive) as ArrayRef),
            ],
            "name no zone",
        ),
    ] {
        let message = message("a.parquet", &parquet(columns));
        assert!(message.contains(expected), "{message}");
    }
    let mut broken = same_table_as_parquet();
    let middle = broken.len() / 2;
    broken.truncate(middle);
    assert!(message("a.parquet", &broken).contains("not a readable Parquet file"));
    // A cell that no JSON can hold is reported by its row.
    let areas = Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef;
    let room = Room::new();
    let nan = parquet(vec![
        ("code", text()),
        ("population", number()),
        ("area", areas),
    ]);
    match room.ingest("a.parquet", &nan).err() {
        Some(IngestError::Invalid(invalid)) => {
            assert_eq!(invalid.first[0].place, Place::Row(1));
            assert_eq!(invalid.first[0].violation.value, "NaN");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_above_the_limit() {
    let mut room = Room::new();
    room.limits.row = 1000;
    let long = "x".repeat(1001);
    for (name, text, place) in [
        (
            "a.csv",
            format!("code,population\n35,1\n{long},1\n"),
            "line 3",
        ),
        (
            "a.ndjson",
            format!("{{\"code\":\"35\",\"population\":1}}\n{{\"code\":\"{long}\"}}"),
            "line 2",
        ),
        (
            "a.json",
            format!("[{{\"code\":\"35\",\"population\":1}},{{\"code\":\"{long}\"}}]"),
            "element 2",
        ),
    ] {
        let error = room
            .ingest(name, text.as_bytes())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(place) && error.contains("more than 1000 bytes"),
            "{error}"
        );
    }
    use ::arrow::array::*;
    let rows = parquet(vec![
        (
            "code",
            Arc::new(StringArray::from(vec!["35", &long])) as ArrayRef,
        ),
        ("population", Arc::new(UInt8Array::from(vec![1, 2]))),
    ]);
    let error = room.ingest("a.parquet", &rows).err().unwrap().to_string();
    assert!(
        error.contains("row 2: a row of more than 1000 bytes"),
        "{error}"
    );
}

#[test]
fn rows_that_break_the_schema_are_all_listed() {
    let room = Room::new();
    let mut csv = "code,population,area\n".to_owned();
    for row in 0..30 {
        // A quoted line end shifts the lines that follow; each row takes two.
        csv.push_str(&format!(
            "\"a\nb\",{},1.5\n",
            if row < 25 { "-1" } else { "1" }
        ));
    }
    csv.push_str("x,NA,much\n");
    let invalid = match room.ingest("a.csv", csv.as_bytes()) {
        Err(IngestError::Invalid(invalid)) => invalid,
        other => panic!("{:?}", other.err()),
    };
    assert_eq!((invalid.rows, invalid.first.len()), (26, SHOWN));
    assert_eq!(invalid.listed, invalid.count);
    let second = &invalid.first[1];
    assert_eq!(second.place, Place::Line(4));
    assert_eq!(second.violation.column.as_deref(), Some("population"));
    assert_eq!(
        (
            second.violation.value.as_str(),
            second.violation.rule.as_str()
        ),
        ("-1", "minimum 0")
    );

    let mut listed = ::csv::Reader::from_path(invalid.rejects_file.as_ref().unwrap()).unwrap();
    assert_eq!(
        listed.headers().unwrap(),
        vec!["line", "column", "value", "rule", "message"]
    );
    let records: Vec<::csv::StringRecord> = listed.records().map(Result::unwrap).collect();
    assert_eq!(records.len() as u64, invalid.count);
    let mut last: Vec<_> = records
        .iter()
        .filter(|record| &record[0] == "62")
        .map(|record| &record[1])
        .collect();
    last.sort();
    assert_eq!(last, ["area", "code", "population"]);
    assert_eq!(room.staged(), 0);
    let shown = invalid.to_string();
    assert!(
        shown.contains("rows that break the schema: 26") && shown.contains("rejects.csv"),
        "{shown}"
    );

    // The next attempt's list takes the place of this one.
    assert!(room.ingest("a.csv", b"code,population\nx,-1\n").is_err());
    let text = fs::read_to_string(room.path("rejects.csv")).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn the_list_of_rejects_is_capped_and_says_so() {
    let room = Room::new();
    let path = room.path("rejects.csv");
    let mut rejects = super::super::rejects::Rejects::new(&room.disk, &path, 2);
    let reject = |line| Reject {
        place: Place::Line(line),
        violation: schema().read(1, "x").unwrap_err(),
    };
    rejects.add((1..=5).map(reject).collect(), 5);
    let invalid = rejects.finish("a.csv");
    assert_eq!((invalid.count, invalid.listed), (5, 2));
    assert!(invalid.to_string().contains("the first 2 are listed"));
    assert!(
        fs::read_to_string(path)
            .unwrap()
            .contains("3 more are not listed")
    );
}

#[test]
fn unknown_and_nested_members_are_rejects_of_their_row() {
    let room = Room::new();
    let text = r#"{"code":"35","population":{"total":[1,2]},"arae":1}"#;
    match room.ingest("a.ndjson", text.as_bytes()) {
        Err(IngestError::Invalid(invalid)) => {
            assert_eq!(invalid.count, 2, "{:?}", invalid.first);
            let messages: Vec<String> = invalid.first.iter().map(Reject::to_string).collect();
            assert!(
                messages
                    .iter()
                    .any(|message| message.contains("did you mean ‘area’?")),
                "{messages:?}"
            );
            assert!(
                messages
                    .iter()
                    .any(|message| message.contains("cannot hold an array")),
                "{messages:?}"
            );
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let room = Room::new();
    let csv = format!("code,population\n{}", "35,1\n".repeat(100_000));
    let path = room.path("source");
    let append = |_: Progress| {
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"36,1\n")
            .unwrap();
    };
    let error = room
        .ingest_as("a.csv", csv.as_bytes(), &schema(), &append)
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            IngestError::Source {
                fault: SourceFault::Changed,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(room.staged(), 0);
}

#[test]
fn cancelling_stops_early_and_leaves_nothing() {
    let room = Room::new();
    let csv = format!("code,population\n{}", "35,1\n".repeat(1_000_000));
    fs::write(room.path("source"), csv).unwrap();
    let source = Source::open(&room.path("source"), "a.csv", room.limits).unwrap();
    let target = Target {
        disk: &room.disk,
        staging: &room.path("staging"),
        rejects: &room.path("rejects.csv"),
        salt: [0; 32],
    };
    let cancelled = AtomicBool::new(false);
    let last = Mutex::new(0);
    let progress = |progress: Progress| {
        *last.lock().unwrap() = progress.rows;
        cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let result = ingest(&source, &schema(), &target, &progress, &cancelled);
    assert!(matches!(result, Err(IngestError::Cancelled)));
    assert!(last.into_inner().unwrap() < 200_000);
    assert_eq!(room.staged(), 0);
}
