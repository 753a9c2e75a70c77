//! Rows that are right, rows that are wrong, and what is said about them.

use jingwei_schemas::{Cell, TableSchema, Violation, pack};
use serde_json::{Value, json};

fn schema() -> TableSchema {
    TableSchema::parse(
        json!({
            "type": "object",
            "properties": {
                "code": {"type": "string", "pattern": "^[0-9]{5}$"},
                "n": {"type": "integer", "minimum": 0},
                "x": {"type": ["number", "null"], "exclusiveMaximum": 100},
                "kind": {"type": "string", "enum": ["a", "b"]},
                "ok": {"type": "boolean"},
                "day": {"type": "string", "format": "date"},
                "at": {"type": "string", "format": "date-time"}
            },
            "required": ["code"],
            "dependentRequired": {"x": ["n"]}
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap()
}

fn brief(violations: &[Violation]) -> Vec<String> {
    violations
        .iter()
        .map(|v| {
            format!(
                "{:?} {:?} [{}] {}",
                v.column.as_deref().unwrap_or("-"),
                v.value,
                v.rule,
                v.message
            )
        })
        .collect()
}

#[track_caller]
fn says(row: Value, expected: &[&str]) {
    assert_eq!(brief(&schema().validate_row(&row)), expected);
}

#[test]
fn each_broken_rule_is_named() {
    says(
        json!({"code": "35238", "n": 1, "x": null, "kind": "a", "ok": true, "day": "2024-02-29", "at": "2024-02-29T01:02:03Z"}),
        &[],
    );
    says(
        json!({"n": -5, "code": "1"}),
        &[
            r#""code" "1" [pattern ^[0-9]{5}$] ‘1’ does not match "^[0-9]{5}$""#,
            r#""n" "-5" [minimum 0] -5 is less than the minimum of 0"#,
        ],
    );
    says(
        json!({"nn": 5}),
        &[
            r#""code" "" [required] a value is required"#,
            r#""nn" "5" [additionalProperties false] the schema has no column ‘nn’; did you mean ‘n’?"#,
        ],
    );
    says(
        json!({"code": "35238", "day": "2023-02-29"}),
        &[
            r#""day" "2023-02-29" [format date] ‘2023-02-29’ is not a "date"; 2023-02 has the days 01 to 28; a date is written YYYY-MM-DD, like 2025-10-01"#,
        ],
    );
    says(
        json!({"code": "35238", "day": "1998-13-01"}),
        &[
            r#""day" "1998-13-01" [format date] ‘1998-13-01’ is not a "date"; its month is 13, and a year has 12; a date is written YYYY-MM-DD, like 2025-10-01"#,
        ],
    );
    says(
        json!({"code": "35238", "day": "28/02/2023"}),
        &[
            r#""day" "28/02/2023" [format date] ‘28/02/2023’ is not a "date"; a date is written YYYY-MM-DD, like 2025-10-01"#,
        ],
    );
    says(
        json!({"code": "35238", "kind": "c"}),
        &[r#""kind" "c" [enum ["a","b"]] ‘c’ is not one of "a" or "b""#],
    );
    says(
        json!({"code": {"a": 1}}),
        &[r#""code" "{\"a\":1}" [type string] {"a":1} is not of type "string""#],
    );
    says(
        json!([1]),
        &[r#""-" "[1]" [type object] the row is not of type "object""#],
    );
}

#[test]
fn what_cannot_be_stored_unchanged_is_refused() {
    let written_with_a_point = json!({"code": "35238", "n": 2.0});
    assert_eq!(
        schema().cells(&written_with_a_point).unwrap()[1],
        Cell::Integer(2)
    );
    for n in [json!(1e30), json!(9_223_372_036_854_775_808_u64)] {
        assert_eq!(
            schema()
                .cells(&json!({"code": "35238", "n": n}))
                .unwrap_err()[0]
                .rule,
            "stored as integer"
        );
    }
    for at in ["2016-12-31T23:59:60Z", "2016-12-31T00:00:00.0000001Z"] {
        let row = json!({"code": "35238", "at": at});
        assert_eq!(schema().validate_row(&row)[0].rule, "stored as date-time");
        let cells = schema_cells(&[("code", "35238"), ("at", at)]);
        assert_eq!(
            schema().validate_cells(&cells)[0].rule,
            "stored as date-time"
        );
    }
}

fn schema_cells<'a>(texts: &[(&str, &'a str)]) -> Vec<Cell<'a>> {
    let schema = schema();
    let mut cells = vec![Cell::Absent; schema.columns().len()];
    for (name, text) in texts {
        let place = schema.place(name).unwrap();
        cells[place] = schema.read(place, text).unwrap();
    }
    cells
}

#[test]
fn cells_from_csv_are_judged_alike() {
    let schema = schema();
    let good = schema_cells(&[("code", "35238"), ("n", "7"), ("x", "1.5"), ("ok", "0")]);
    assert_eq!(schema.validate_cells(&good), []);
    assert_eq!(
        schema.row(&good),
        json!({"code": "35238", "n": 7, "x": 1.5, "ok": false})
    );
    assert_eq!(schema.validate_cells(&good[..1]), []);
    let without = schema_cells(&[("n", "7"), ("x", "")]);
    assert_eq!(
        brief(&schema.validate_cells(&without)),
        [r#""code" "" [required] a value is required"#]
    );
    let high = schema_cells(&[("code", "35238"), ("n", "1"), ("x", "100")]);
    assert_eq!(schema.validate_cells(&high)[0].rule, "exclusiveMaximum 100");
    let unreadable = schema.cell(1, "many").unwrap_err();
    assert_eq!(
        (unreadable.rule.as_str(), unreadable.value.as_str()),
        ("type integer", "many")
    );
    assert_eq!(schema.cell(1, "12"), Ok(Some(json!(12))));
    assert_eq!(schema.cell(1, ""), Ok(None));
}

#[test]
fn numbers_are_finite_even_where_null_is_allowed() {
    for number in [f64::NAN, f64::INFINITY] {
        let cells = [Cell::Text("35238"), Cell::Integer(1), Cell::Number(number)];
        let violations = schema().validate_cells(&cells);
        assert_eq!(
            (violations.len(), violations[0].column.as_deref()),
            (1, Some("x"))
        );
    }
}

#[test]
fn a_huge_value_makes_a_short_report() {
    let row = json!({"code": "9".repeat(10_000_000)});
    let violations = schema().validate_row(&row);
    assert_eq!(violations[0].value.chars().count(), 80);
    assert!(violations[0].message.chars().count() <= 300);
    let many: serde_json::Map<String, Value> = (0..10_000)
        .map(|i| (format!("{i:0>200}"), json!(1)))
        .collect();
    for violation in schema().validate_row(&Value::Object(many)) {
        assert!(
            violation.message.len() < 1_000
                && violation.column.is_none_or(|c| c.chars().count() <= 80)
        );
    }
}

/// A row of each schema of the pack, as the published data write it.
const ROWS: [(&str, &str); 6] = [
    (
        "communes",
        "35238,Rennes,353,35,53,213502388,230890,35000 35200 35700",
    ),
    ("counties_civil_affairs", "110101,东城区,11,01,01"),
    ("counties_statistics", "110101,东城区,1101,11"),
    (
        "groupings",
        "243500139,Rennes Métropole,METRO,35238,Rennes,236289,230890",
    ),
    ("weather_daily", "2013-01-01,0.0,5.0,-2.8,2.7,sun"),
    (
        "weather_hourly",
        "EWR,2013,1,1,1,39.02,26.06,59.37,270,10.357019999999999,NA,0,1012,10,2013-01-01T06:00:00Z",
    ),
];

#[test]
fn the_pack_accepts_the_rows_it_was_made_for() {
    assert!(pack::names().eq(ROWS.iter().map(|(name, _)| *name)));
    for (name, row) in ROWS {
        let schema = pack::find(name).unwrap();
        let texts: Vec<&str> = row.split(',').collect();
        assert_eq!(texts.len(), schema.columns().len(), "{name}");
        let cells: Vec<Cell> = texts
            .iter()
            .enumerate()
            .map(|(place, text)| schema.read(place, text).unwrap())
            .collect();
        assert_eq!(schema.validate_cells(&cells), [], "{name}");
        assert_eq!(schema.validate_row(&schema.row(&cells)), [], "{name}");
        assert_eq!(schema.cells(&schema.row(&cells)).unwrap(), cells, "{name}");
        let mut broken = cells.clone();
        broken[0] = Cell::Text("?");
        assert!(!schema.validate_cells(&broken).is_empty(), "{name}");
    }
    assert!(pack::find("nothing").is_none());
}

#[test]
fn the_pack_states_what_its_figures_mean() {
    for name in pack::names() {
        let schema = pack::find(name).unwrap();
        assert!(
            schema.title().is_some() && schema.description().is_some(),
            "{name}"
        );
        assert!(schema.columns().iter().any(|column| column.key), "{name}");
        for column in schema.columns().iter().filter(|column| column.is_figure()) {
            let complete = column.unit.is_some()
                && column.concept.is_some()
                && column.grain.is_some()
                && column.reference.is_some()
                && column.additive.is_some();
            assert!(complete, "{name}.{}", column.name);
        }
    }
    let groupings = pack::find("groupings").unwrap();
    let definitions: Vec<String> = groupings
        .columns()
        .iter()
        .filter_map(|c| c.definition.as_ref())
        .map(ToString::to_string)
        .collect();
    assert_eq!(definitions, ["population/totale", "population/municipale"]);
}
