//! Which bytes are a schema of a flat table, and what is read out of them.

use jingwei_proto::json;
use jingwei_schemas::{Additive, ColumnKind, Facet, Reference, SchemaError, TableSchema};
use serde_json::{Value, json};

fn parse(schema: Value) -> Result<TableSchema, SchemaError> {
    TableSchema::parse(schema.to_string().as_bytes())
}

fn with_column(column: Value) -> Value {
    json!({"type": "object", "properties": {"other": {"type": "string"}, "c": column}})
}

#[track_caller]
fn refused(schema: Value, words: &str) {
    let error = parse(schema).expect_err(words).to_string();
    assert!(error.contains(words), "‘{error}’ does not say ‘{words}’");
}

#[test]
fn columns_carry_kind_and_meaning() {
    let schema = parse(json!({
        "type": "object",
        "title": "T",
        "x-missing": ["NA"],
        "properties": {
            "i": {"type": "integer", "title": "I", "description": "d", "x-unit": "{person}",
                  "x-concept": "population", "x-definition": "population/municipale",
                  "x-reference": "2023", "x-grain": "undeclared", "x-additive": ["territory"]},
            "n": {"type": ["null", "number"], "x-reference": "d", "x-additive": []},
            "t": {"type": "string", "x-codes": "insee@2026", "x-key": true, "x-territory": true, "x-missing": []},
            "b": {"type": "boolean", "x-personal": true},
            "d": {"type": "string", "format": "date"},
            "dt": {"type": ["string", "null"], "format": "date-time"},
            "g": {"type": "string", "x-geometry": "wkt", "x-crs": "EPSG:4326"}
        },
        "required": ["i", "d"]
    }))
    .unwrap();
    let kinds: Vec<_> = schema
        .columns()
        .iter()
        .map(|c| (c.name.as_str(), c.kind, c.required, c.nullable))
        .collect();
    assert_eq!(
        kinds,
        [
            ("i", ColumnKind::Integer, true, false),
            ("n", ColumnKind::Number, false, true),
            ("t", ColumnKind::Text, false, false),
            ("b", ColumnKind::Boolean, false, false),
            ("d", ColumnKind::Date, true, false),
            ("dt", ColumnKind::DateTime, false, true),
            ("g", ColumnKind::Text, false, false),
        ]
    );
    let population = &schema.columns()[0];
    assert!(population.is_figure());
    assert_eq!(population.unit.as_deref(), Some("{person}"));
    assert_eq!(
        population.definition,
        Some(Facet::Declared("population/municipale".to_owned()))
    );
    assert_eq!(population.grain, Some(Facet::Undeclared));
    assert_eq!(
        population.reference,
        Some(Reference::Period("2023".to_owned()))
    );
    assert_eq!(
        population.additive,
        Some(Additive::Along(vec!["territory".to_owned()]))
    );
    assert_eq!(
        schema.columns()[1].reference,
        Some(Reference::Column("d".to_owned()))
    );
    assert_eq!(schema.columns()[2].missing, Some(vec![]));
    assert_eq!(
        (schema.place("DT"), schema.column("DT").map(|c| c.kind)),
        (None, Some(ColumnKind::DateTime))
    );
    assert_eq!(schema.title(), Some("T"));
}

#[test]
fn the_digest_is_of_the_canonical_form() {
    let compact = parse(
        json!({"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}),
    )
    .unwrap();
    let spaced = TableSchema::parse(
        br#" {"properties" : {"a": {"type":"string"}, "b": {"type":"string"}}, "type":"object"} "#,
    )
    .unwrap();
    assert_eq!(compact.digest(), spaced.digest());
}

#[test]
fn the_order_of_columns_survives_the_canonical_form() {
    let schema = parse(
        json!({"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}),
    )
    .unwrap();
    let ordered = schema.with_order().unwrap();
    let again = TableSchema::parse(&json::canonical(ordered.json())).unwrap();
    assert!(again.names().eq(["b", "a"]));
    assert_eq!(again.digest(), ordered.digest());
    assert_eq!(ordered.with_order().unwrap().digest(), ordered.digest());
    refused(
        json!({"type": "object", "x-order": ["a", "a"], "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}),
        "x-order",
    );
}

#[test]
fn what_is_no_flat_table_is_refused() {
    refused(json!([]), "JSON object");
    refused(
        json!({"properties": {"a": {"type": "string"}}}),
        "‘type’ must be",
    );
    refused(json!({"type": "object"}), "needs ‘properties’");
    refused(
        json!({"type": "object", "properties": {}}),
        "needs ‘properties’",
    );
    refused(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {}}),
        "patternProperties",
    );
    refused(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": true}),
        "only be false",
    );
    refused(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}),
        "‘b’",
    );
    refused(
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}),
        "2020-12",
    );
    refused(
        with_column(json!({"type": "object"})),
        "flat table has no objects",
    );
    refused(
        with_column(json!({"type": ["array", "null"]})),
        "flat table has no objects",
    );
    refused(with_column(json!({"minimum": 0})), "needs a ‘type’");
    for wrong in [
        json!("null"),
        json!("text"),
        json!(["string", "integer"]),
        json!(1),
    ] {
        let said = format!("cannot have the type {wrong}");
        refused(with_column(json!({ "type": wrong })), &said);
    }
    refused(with_column(json!(true)), "must be an object");
}

#[test]
fn names_are_distinct_and_short() {
    refused(
        with_column(json!({"type": "string"})).merged("C"),
        "only in case",
    );
    refused(
        json!({"type": "object", "properties": {"": {"type": "string"}}}),
        "1 to 128 bytes",
    );
    refused(
        json!({"type": "object", "properties": {"x".repeat(129): {"type": "string"}}}),
        "1 to 128 bytes",
    );
    refused(
        json!({"type": "object", "properties": {"a\nb": {"type": "string"}}}),
        "control characters",
    );
    let many = |n: usize| {
        let columns: serde_json::Map<_, _> = (0..n)
            .map(|i| (format!("c{i}"), json!({"type": "string"})))
            .collect();
        json!({"type": "object", "properties": columns})
    };
    assert_eq!(parse(many(1_000)).unwrap().columns().len(), 1_000);
    refused(many(1_001), "more than 1000");
}

trait Merged {
    fn merged(self, name: &str) -> Value;
}

impl Merged for Value {
    fn merged(mut self, name: &str) -> Value {
        self["properties"][name] = json!({"type": "string"});
        self
    }
}

#[test]
fn annotations_are_known_and_well_formed() {
    refused(
        with_column(json!({"type": "number", "x-unti": "mm"})),
        "did you mean ‘x-unit’",
    );
    refused(
        json!({"type": "object", "x-colour": 1, "properties": {"a": {"type": "string"}}}),
        "x-missing, x-order",
    );
    refused(
        with_column(json!({"type": "number", "x-unit": "degrees Celsius"})),
        "UCUM",
    );
    refused(
        with_column(json!({"type": "number", "x-definition": "By Hand"})),
        "glossary",
    );
    refused(
        with_column(json!({"type": "number", "x-reference": "othr"})),
        "did you mean ‘other’",
    );
    refused(
        with_column(json!({"type": "number", "x-additive": "time"})),
        "list of axes",
    );
    let additive = |axis: &str| with_column(json!({"type": "number", "x-additive": [axis]}));
    refused(
        additive("teritory"),
        "column ‘c’ of the schema: x-additive names the axis ‘teritory’, which is neither territory nor time nor a column of the schema; did you mean ‘territory’?",
    );
    for axis in ["territory", "time", "other"] {
        parse(additive(axis)).unwrap();
    }
    refused(
        with_column(json!({"type": "string", "x-codes": "insee"})),
        "edition",
    );
    refused(
        with_column(json!({"type": "string", "x-key": "yes"})),
        "true or false",
    );
    refused(
        with_column(json!({"type": "string", "x-missing": "NA"})),
        "x-missing",
    );
}

#[test]
fn a_word_that_is_no_keyword_is_refused_wherever_a_schema_stands() {
    let place = |schema: Value, place: &str, near: &str| {
        refused(schema.clone(), &format!("at {place}: ‘"));
        refused(schema, &format!("did you mean ‘{near}’"));
    };
    let column = |word: &str| with_column(json!({"type": "string", word: 5}));
    place(column("patern"), "/properties/c/patern", "pattern");
    place(column("maxlenght"), "/properties/c/maxlenght", "maxLength");
    place(column("MinLength"), "/properties/c/MinLength", "minLength");
    place(column("x_unit"), "/properties/c/x_unit", "x-unit");
    let table = |keyword: &str, value: Value| json!({"type": "object", "properties": {"a": {"type": "string"}}, keyword: value});
    place(table("requird", json!(["a"])), "/requird", "required");
    let rule = || json!({"minimun": 1});
    for (schema, pointer) in [
        (table("allOf", json!([{}, rule()])), "/allOf/1/minimun"),
        (table("not", rule()), "/not/minimun"),
        (
            table("then", json!({"properties": {"a": rule()}})),
            "/then/properties/a/minimun",
        ),
        (
            table("$defs", json!({"x/y": rule()})),
            "/$defs/x~1y/minimun",
        ),
        (
            table("definitions", json!({"x": rule()})),
            "/definitions/x/minimun",
        ),
        (
            table("dependentSchemas", json!({"a": rule()})),
            "/dependentSchemas/a/minimun",
        ),
        (table("propertyNames", rule()), "/propertyNames/minimun"),
        (
            with_column(json!({"type": "string", "anyOf": [{"items": rule()}]})),
            "/properties/c/anyOf/0/items/minimun",
        ),
        (
            with_column(json!({"type": "string", "oneOf": [{"prefixItems": [rule()]}]})),
            "/properties/c/oneOf/0/prefixItems/0/minimun",
        ),
    ] {
        place(schema, pointer, "minimum");
    }
    refused(column("colour"), "‘$comment’");
}

#[test]
fn names_and_values_are_no_keywords() {
    parse(json!({
        "type": "object",
        "$comment": "free",
        "$defs": {"patern": {"type": "string"}},
        "properties": {
            "patern": {"type": "string", "enum": ["maxlenght"], "examples": [{"patern": 1}]},
            "maxlenght": {"type": "number", "default": {"patern": 1}, "not": {"const": {"patern": 1}}},
            "deep": {"type": "string", "allOf": [{"x-own": 1, "minLength": 1}, true]}
        },
        "dependentRequired": {"patern": ["deep"]},
        "dependentSchemas": {"patern": {"required": ["deep"]}}
    }))
    .unwrap();
}

#[test]
fn what_was_entered_stays_readable() {
    let entered = with_column(json!({"type": "string", "patern": "^a$"})).to_string();
    let schema = TableSchema::parse_entered(entered.as_bytes()).unwrap();
    assert!(schema.names().eq(["other", "c"]));
    assert!(TableSchema::parse(entered.as_bytes()).is_err());
    let entered = with_column(json!({"type": "number", "x-additive": ["sex"]})).to_string();
    assert!(TableSchema::parse_entered(entered.as_bytes()).is_ok());
    assert!(TableSchema::parse(entered.as_bytes()).is_err());
}

#[test]
fn nothing_is_fetched_and_no_rule_stands_elsewhere() {
    refused(
        with_column(json!({"type": "string", "$ref": "https://example.com/s.json"})),
        "$ref",
    );
    refused(
        with_column(json!({"type": "string", "$ref": "file:///etc/passwd"})),
        "$ref",
    );
    refused(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "allOf": [{"$ref": "#"}]}),
        "$ref",
    );
    refused(
        with_column(json!({"type": "string", "$id": "urn:x:y"})),
        "$id",
    );
}

#[test]
fn what_is_no_json_schema_is_refused() {
    refused(
        with_column(json!({"type": "string", "minLength": "x"})),
        "/properties/c/minLength",
    );
    let format = |name: &str, words: &str| {
        let schema = with_column(json!({"type": "string", "format": name}));
        refused(schema.clone(), "at /properties/c/format: ‘");
        refused(schema, words);
    };
    format("dat", "did you mean ‘date’?");
    format("datetime", "did you mean ‘date-time’?");
    format("postcode", "known are date, date-time, duration");
    // A column may be called as a keyword is.
    refused(
        json!({"type": "object", "properties": {"format": {"type": "string", "format": "dat"}}}),
        "at /properties/format/format: ‘dat’",
    );
    refused(
        with_column(json!({"type": "string", "format": 5})),
        "/properties/c/format",
    );
    refused(
        with_column(json!({"type": "string", "pattern": "("})),
        "/properties/c/pattern",
    );
    // Look-around needs an engine whose time is not linear.
    refused(
        with_column(json!({"type": "string", "pattern": "^(?=a)b"})),
        "/properties/c/pattern",
    );
    refused(
        with_column(json!({"type": "string", "pattern": "(a)\\1"})),
        "/properties/c/pattern",
    );
    refused(
        with_column(json!({"type": "string", "pattern": "(\\w{100}){1000}"})),
        "/properties/c/pattern",
    );
    let twice = br#"{"type":"object","properties":{"a":{"type":"string"},"a":{"type":"string"}}}"#;
    assert!(
        TableSchema::parse(twice)
            .unwrap_err()
            .to_string()
            .contains("stands twice")
    );
    assert!(matches!(
        TableSchema::parse(b"{"),
        Err(SchemaError::Json(_))
    ));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
    assert!(matches!(
        TableSchema::parse(large.as_bytes()),
        Err(SchemaError::TooLarge { .. })
    ));
}

#[test]
fn headers_match_or_say_why_not() {
    let schema = parse(json!({
        "type": "object",
        "properties": {"code": {"type": "string"}, "nom": {"type": "string"}, "population": {"type": "integer"}},
        "required": ["code", "nom"]
    }))
    .unwrap();
    assert_eq!(schema.header(&["\u{feff}nom", "code"]), Ok(vec![1, 0]));
    let error = schema.header(&["code", "code", "poplation"]).unwrap_err();
    assert_eq!(
        error.problems,
        [
            "two columns are called ‘code’",
            "column 3 is ‘poplation’, which the schema does not have; did you mean ‘population’?",
            "the required column ‘nom’ is missing",
        ]
    );
}
