//! Whatever the row, the schema's verdict is that of the plain `jsonschema` crate.

use jingwei_schemas::{Cell, TableSchema};
use jsonschema::{Draft, PatternOptions, Validator};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NAMES: [&str; 6] = ["i", "n", "t", "b", "d", "at"];

fn plain(schema: &Value) -> Validator {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .unwrap()
}

/// A column's schema: its type, and rules of which some concern other types, as people write them.
fn column(name: &'static str) -> impl Strategy<Value = Value> {
    let kind = match name {
        "i" => "integer",
        "n" => "number",
        "b" => "boolean",
        _ => "string",
    };
    let rules = prop::collection::vec(rule(), 0..2);
    (any::<bool>(), rules).prop_map(move |(nullable, rules)| {
        let mut column = Map::from_iter(rules);
        let kind = if nullable {
            json!([kind, "null"])
        } else {
            json!(kind)
        };
        column.insert("type".to_owned(), kind);
        match name {
            "d" => column.insert("format".to_owned(), json!("date")),
            "at" => column.insert("format".to_owned(), json!("date-time")),
            _ => None,
        };
        Value::Object(column)
    })
}

fn rule() -> impl Strategy<Value = (String, Value)> {
    let bound = prop_oneof![
        (-5..5_i64).prop_map(|n| json!(n)),
        (-5.0..5.0).prop_map(|n: f64| json!(n))
    ];
    let keyword = |name: &'static str| move |value: Value| (name.to_owned(), value);
    prop_oneof![
        bound.clone().prop_map(keyword("minimum")),
        bound.clone().prop_map(keyword("exclusiveMaximum")),
        (0..4_u64)
            .prop_map(|n| json!(n))
            .prop_map(keyword("minLength")),
        (0..4_u64)
            .prop_map(|n| json!(n))
            .prop_map(keyword("maxLength")),
        Just(json!(2)).prop_map(keyword("multipleOf")),
        Just(json!("^[a-c1]+$")).prop_map(keyword("pattern")),
        Just(json!(["a", "é", 1, 2.0, true, null])).prop_map(keyword("enum")),
        bound
            .prop_map(|n| json!({"const": n}))
            .prop_map(keyword("not")),
        Just(json!({"maximum": 2}))
            .prop_map(|rule| json!([rule, {"maxLength": 1}]))
            .prop_map(keyword("anyOf")),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let columns: Vec<_> = NAMES.into_iter().map(column).collect();
    let required = prop::sample::subsequence(NAMES.to_vec(), 0..2);
    let row_rule = prop_oneof![
        Just(None),
        Just(Some(("dependentRequired", json!({"i": ["n"]})))),
        Just(Some(("minProperties", json!(2)))),
        Just(Some(("maxProperties", json!(3)))),
        Just(Some(("propertyNames", json!({"maxLength": 1})))),
        Just(Some((
            "oneOf",
            json!([{"required": ["t"]}, {"required": ["d"]}])
        ))),
        Just(Some((
            "if",
            json!({"properties": {"b": {"const": true}}, "required": ["b"]})
        ))),
    ];
    (columns, required, row_rule).prop_map(|(columns, required, row_rule)| {
        let properties: Map<String, Value> = NAMES.iter().map(|name| (*name).to_owned()).zip(columns).collect();
        let mut schema = json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        });
        if let Some((keyword, value)) = row_rule {
            schema[keyword] = value;
            schema["then"] = json!({"required": ["at"]});
        }
        schema
    })
}

/// A value of any type, so that every column also meets the wrong ones.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => (-6..6_i64).prop_map(|n| json!(n)),
        2 => (-6.0..6.0).prop_map(|n: f64| json!(n)),
        1 => Just(json!(2.0)),
        1 => Just(json!(null)),
        2 => any::<bool>().prop_map(|b| json!(b)),
        2 => "[a-cé1]{0,4}".prop_map(|t| json!(t)),
        1 => prop::sample::select(vec!["2024-02-29", "2023-02-29", "2024-02-29T00:00:00Z", "24:00"]).prop_map(|t| json!(t)),
        1 => Just(json!([1])),
        1 => Just(json!({"a": 1})),
    ]
}

/// A value that a column of this name may well accept.
fn fitting(name: &'static str) -> BoxedStrategy<Value> {
    match name {
        "i" => (-6..6_i64).prop_map(|n| json!(n)).boxed(),
        "n" => (-6.0..6.0).prop_map(|n: f64| json!(n)).boxed(),
        "b" => any::<bool>().prop_map(|b| json!(b)).boxed(),
        "d" => Just(json!("2024-02-29")).boxed(),
        "at" => Just(json!("2024-02-29T00:00:00Z")).boxed(),
        _ => "[a-cé1]{0,4}".prop_map(|t| json!(t)).boxed(),
    }
}

/// Rows of which about a third is valid: most values fit, some do not, some columns are unknown.
fn row() -> impl Strategy<Value = Value> {
    let member = |name: &'static str| {
        let value = prop_oneof![12 => fitting(name), 1 => value()];
        prop::option::weighted(0.6, value.prop_map(move |value| (name.to_owned(), value)))
    };
    let stranger = prop::option::weighted(0.03, ("[a-z]{1,2}", value()));
    let members: Vec<_> = NAMES.into_iter().map(member).collect();
    (members, stranger).prop_map(|(members, stranger)| {
        Value::Object(members.into_iter().flatten().chain(stranger).collect())
    })
}

/// The row as cells, unless it holds what no cell can.
fn cells<'a>(row: &'a Value) -> Option<Vec<Cell<'a>>> {
    let row = row.as_object()?;
    let known = row.keys().all(|name| NAMES.contains(&name.as_str()));
    let cell = |name: &&str| -> Option<Cell<'a>> {
        Some(match row.get(*name) {
            None => Cell::Absent,
            Some(Value::Null) => Cell::Null,
            Some(Value::Bool(boolean)) => Cell::Boolean(*boolean),
            Some(Value::String(text)) => Cell::Text(text),
            Some(Value::Number(number)) => match number.as_i64() {
                Some(integer) => Cell::Integer(integer),
                None => Cell::Number(number.as_f64()?),
            },
            Some(Value::Array(_) | Value::Object(_)) => return None,
        })
    };
    known.then(|| NAMES.iter().map(cell).collect())?
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn with_the_plain_judge(schema in schema(), rows in prop::collection::vec(row(), 20)) {
        let ours = TableSchema::parse(schema.to_string().as_bytes()).unwrap();
        let plain = plain(&schema);
        for row in rows {
            let valid = plain.is_valid(&row);
            let violations = ours.validate_row(&row);
            prop_assert_eq!(valid, violations.is_empty(), "{} {:?}", row, violations);
            prop_assert_eq!(valid, ours.cells(&row).is_ok());
            if let Some(cells) = cells(&row) {
                prop_assert_eq!(&ours.row(&cells), &row);
                let violations = ours.validate_cells(&cells);
                prop_assert_eq!(valid, violations.is_empty(), "{} {:?}", row, violations);
                prop_assert!(violations.iter().all(|v| v.rule != "schema"), "{:?}", violations);
            }
        }
    }
}
