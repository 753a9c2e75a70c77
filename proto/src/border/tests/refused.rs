//! Texts and trees that may not cross the border, near misses above all.

use super::*;

fn refuse(text: &str) -> BorderError {
    match Query::parse(text) {
        Ok(query) => panic!("accepted: {text}\n{query:?}"),
        Err(error) => error,
    }
}

#[test]
fn other_spellings() {
    for text in [
        "",
        " ",
        "SELECT",
        r#"select "a" FROM "x"."d@1""#,
        r#"SELECT "a" from "x"."d@1""#,
        r#" SELECT "a" FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1" "#,
        r#"SELECT  "a" FROM "x"."d@1""#,
        "SELECT\t\"a\" FROM \"x\".\"d@1\"",
        "SELECT \"a\"\nFROM \"x\".\"d@1\"",
        "SELECT\u{a0}\"a\" FROM \"x\".\"d@1\"",
        r#"SELECT "a","b" FROM "x"."d@1""#,
        r#"SELECT a FROM "x"."d@1""#,
        r#"SELECT "a" FROM x.d"#,
        r#"SELECT * FROM "x"."d@1""#,
        r#"SELECT DISTINCT "a" FROM "x"."d@1""#,
        r#"SELECT "a" "b" FROM "x"."d@1""#,
        r#"SELECT "a" as "b" FROM "x"."d@1""#,
        r#"SELECT "d"."a" FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1";"#,
        r#"SELECT "a" FROM "x"."d@1" -- all"#,
        r#"SELECT "a" /* b */ FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1" LIMIT 01"#,
        r#"SELECT "a" FROM "x"."d@1" LIMIT -1"#,
        r#"SELECT "a" FROM "x"."d@1" LIMIT 9223372036854775808"#,
        r#"SELECT "a" FROM "x"."d@1" LIMIT 1 OFFSET 1"#,
        r#"SELECT "a" FROM "x"."d@1" ORDER BY "a""#,
        r#"SELECT "a" FROM "x"."d@1" ORDER BY "a" ASC"#,
        r#"SELECT "a" FROM "x"."d@1" ORDER BY "a" ASC NULLS FIRST"#,
        r#"SELECT "a" FROM "x"."d@1" LIMIT 1 WHERE "a""#,
        r#"SELECT "a" FROM "x"."d@1" GROUP BY "a" HAVING "a""#,
    ] {
        refuse(text);
    }
}

#[test]
fn other_statements() {
    for text in [
        r#"EXPLAIN SELECT "a" FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1"; SELECT "a" FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1" UNION SELECT "a" FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1", "x"."e@1""#,
        r#"SELECT "a" FROM "x"."d@1" JOIN "x"."e@1" ON TRUE"#,
        r#"SELECT "a" FROM "x"."d@1" AS "t""#,
        r#"SELECT "a" FROM (SELECT "a" FROM "x"."d@1")"#,
        r#"SELECT (SELECT "a" FROM "x"."d@1") FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1" WHERE "a" IN (SELECT "a" FROM "x"."d@1")"#,
        r#"SELECT "a" FROM "x"."d@1" WHERE EXISTS (SELECT "a" FROM "x"."d@1")"#,
        r#"WITH "t" AS (SELECT 1) SELECT "a" FROM "t""#,
        r#"SELECT sum("a") OVER () FROM "x"."d@1""#,
        r#"DELETE FROM "x"."d@1""#,
        r#"SELECT 1"#,
    ] {
        refuse(text);
    }
}

#[test]
fn datasets_not_pinned_or_not_named_rightly() {
    for from in [
        r#""x"."d""#,
        r#""x"."d@0""#,
        r#""x"."d@01""#,
        r#""x"."d@""#,
        r#""x"."d@1@2""#,
        r#""X"."d@1""#,
        r#""x"."D@1""#,
        r#""x/y"."d@1""#,
        r#""std"."d@1""#,
        r#""d@1""#,
        r#""x"."y"."d@1""#,
        r#""x" . "d@1""#,
        r#""x"."d@99999999999999999999""#,
    ] {
        refuse(&format!(r#"SELECT "a" FROM {from}"#));
    }
}

#[test]
fn expressions() {
    for expr in [
        r#"("a" = 1)"#,
        r#"(("a"))"#,
        r#"("a") = 1"#,
        r#"("a" = 1) AND ("b" = 2) AND ("c" = 3)"#,
        r#""a" = 1 AND "b" = 2"#,
        r#"NOT NOT "a""#,
        r#"NOT "a" = 1"#,
        r#"-"a""#,
        r#"--1"#,
        r#"- - 1"#,
        r#"+1"#,
        r#"01"#,
        r#"1."#,
        r#".5"#,
        r#"1.50"#,
        r#"1e2"#,
        r#"1E300"#,
        r#"1e+300"#,
        r#"1e999"#,
        r#"NaN"#,
        r#"inf"#,
        r#"-0"#,
        r#"0x10"#,
        r#"1_000"#,
        r#"9223372036854775808"#,
        r#"0.1000000000000000055511151231257827"#,
        r#"true"#,
        r#"null"#,
        r#"'open"#,
        r#""open"#,
        r#""""#,
        r#"E'\n'"#,
        r#"'a' 'b'"#,
        r#"$1"#,
        r#"?"#,
        r#"@x"#,
        r#""a" == 1"#,
        r#""a" != 1"#,
        r#""a" || 'x'"#,
        r#""a" % 2"#,
        r#""a" ~ 'x'"#,
        r#""a" ILIKE 'x'"#,
        r#""a" SIMILAR TO 'x'"#,
        r#""a" BETWEEN 1 AND 2"#,
        r#""a" LIKE "b""#,
        r#""a" LIKE 'x' ESCAPE '!'"#,
        r#""a" LIKE 'x\'"#,
        r#""a" LIKE '\d'"#,
        r#""a" NOT"#,
        r#""a" NOT = 1"#,
        r#""a" IS TRUE"#,
        r#""a" IN ()"#,
        r#""a" IN ("b")"#,
        r#""a" IN (1 + 1)"#,
        r#""a" IN (1,2)"#,
        r#""a"::BIGINT"#,
        r#"CAST("a" AS INTEGER)"#,
        r#"CAST("a" AS DECIMAL)"#,
        r#"CAST("a" AS DECIMAL(39, 0))"#,
        r#"CAST("a" AS DECIMAL(0, 0))"#,
        r#"CAST("a" AS DECIMAL(3, 4))"#,
        r#"CAST("a" AS DECIMAL(3,2))"#,
        r#"CAST("a" AS bigint)"#,
        r#"DECIMAL(3, 2) '0.5'"#,
        r#"DECIMAL(3, 2) '10.00'"#,
        r#"DECIMAL(3, 2) '.50'"#,
        r#"DECIMAL(3, 2) '-0.00'"#,
        r#"DATE '2024-2-29'"#,
        r#"DATE '2023-02-29'"#,
        r#"DATE '0000-01-01'"#,
        r#"DATE '+10000-01-01'"#,
        r#"TIMESTAMP '2024-05-01 12:00:00Z'"#,
        r#"TIMESTAMP '2024-05-01T12:00:00'"#,
        r#"TIMESTAMP '2024-05-01T12:00:00+02:00'"#,
        r#"TIMESTAMP '2024-05-01T12:00:00.5Z'"#,
        r#"TIMESTAMP '2024-05-01T12:00:00.000000Z'"#,
        r#"TIMESTAMP '2024-05-01T12:00:00.000000001Z'"#,
        r#"TIMESTAMP '2016-12-31T23:59:60Z'"#,
        r#"TIMESTAMP '1677-12-31T00:00:00Z'"#,
        r#"TIMESTAMP '2262-01-01T00:00:00Z'"#,
        r#"CASE END"#,
        r#"CASE ELSE 1 END"#,
        r#"CASE "a" WHEN 1 THEN 2 END"#,
        r#"LOWER("a")"#,
        r#"lower ("a")"#,
        r#"lower()"#,
        r#"lower("a", "b")"#,
        r#"lower(("a" = 1))"#,
        r#"coalesce()"#,
        r#"substr("a")"#,
        r#"round("a", 1, 2)"#,
        r#"make_date(2024, 1)"#,
        r#"date_trunc("a", "b")"#,
        r#"date_trunc('century', "b")"#,
        r#"date_trunc('MONTH', "b")"#,
        r#"date_part('epoch', "b")"#,
        r#"regexp_like("a", 'x')"#,
        r#"pg_sleep(10)"#,
        r#"repeat('x', 1000000)"#,
        r#"random()"#,
        r#"now()"#,
        r#"sum("a") > 1"#,
        r#"count(*) > 1"#,
        r#"1 IN (1) IN (TRUE)"#,
    ] {
        refuse(&filter(expr));
        assert!(Expr::parse(expr).is_err(), "{expr}");
    }
    refuse(&filter("'\0'"));
    refuse(&filter("\"\0\""));
}

#[test]
fn aggregates_out_of_place() {
    for text in [
        select(r#"sum(count(*))"#),
        select(r#"sum("a" + (max("b") * 2))"#),
        select(r#"sum(*)"#),
        select(r#"count()"#),
        select(r#"count(DISTINCT "a")"#),
        select(r#"sum("a", "b")"#),
        select(r#"median("a")"#),
        r#"SELECT "a" FROM "x"."d@1" GROUP BY sum("a")"#.to_owned(),
        r#"SELECT "a" FROM "x"."d@1" GROUP BY "b" + sum("a")"#.to_owned(),
    ] {
        refuse(&text);
    }
}

#[test]
fn ambiguous_names_and_keys() {
    for text in [
        r#"SELECT "a", "a" FROM "x"."d@1""#,
        r#"SELECT "a", "b" AS "a" FROM "x"."d@1""#,
        r#"SELECT count(*), count(*) FROM "x"."d@1""#,
        r#"SELECT "a" AS "" FROM "x"."d@1""#,
        r#"SELECT "a" FROM "x"."d@1" GROUP BY 1"#,
        r#"SELECT "a" FROM "x"."d@1" GROUP BY 1 + 1"#,
        r#"SELECT "a" FROM "x"."d@1" ORDER BY 1 ASC NULLS LAST"#,
        r#"SELECT lower("a") AS "a" FROM "x"."d@1" GROUP BY "a""#,
        r#"SELECT lower("a") AS "a" FROM "x"."d@1" ORDER BY upper("a") ASC NULLS LAST"#,
    ] {
        assert!(
            matches!(refuse(text), BorderError::Forbidden { .. }),
            "{text}"
        );
    }
}

#[test]
fn beyond_the_limits() {
    let bombs = [
        "(",
        "lower(",
        "NOT (",
        "- (",
        "1 + (",
        "CASE WHEN ",
        "CAST(",
        "sum(",
    ];
    for open in bombs {
        for levels in [MAX_DEPTH, 5_000] {
            let error = refuse(&filter(&open.repeat(levels)));
            assert!(
                matches!(error, BorderError::TooDeep { at: Some(_) }),
                "{open}: {error}"
            );
        }
    }
    for wrap in WRAPS {
        let expr = deep(wrap, MAX_DEPTH + 1);
        assert_eq!(expr.check_filter(), Err(BorderError::TooDeep { at: None }));
        let error = refuse(&filter(&expr.to_string()));
        assert!(
            matches!(error, BorderError::TooDeep { at: Some(_) }),
            "{error}"
        );
    }
    let list = vec!["1"; MAX_IN + 1].join(", ");
    refuse(&filter(&format!(r#""a" IN ({list})"#)));
    let long = select(&format!("'{}'", "x".repeat(MAX_BYTES)));
    assert_eq!(refuse(&long), BorderError::TooLong);
}

#[test]
fn errors_say_where_and_repeat_little() {
    let text = filter(&format!(r#""a" = {}"#, "é".repeat(1000)));
    let error = refuse(&text);
    assert_eq!(
        error.to_string(),
        format!(
            "not border grammar 1: at byte {} expected a column in \" \", a constant, or a \
             function, found ‘{}’",
            text.find('é').unwrap(),
            "é".repeat(24)
        )
    );
    let text = filter(r#"("a" = 1) AND (sum("b") > 2)"#);
    let error = refuse(&text);
    assert_eq!(
        error.to_string(),
        format!(
            "not allowed in border grammar 1 at byte {}: aggregates stand in SELECT and ORDER BY \
             only",
            text.find("sum").unwrap()
        )
    );
}

#[test]
fn trees_built_in_code() {
    let whole = |expr: Expr| Query {
        select: vec![Item { expr, alias: None }],
        from: "x/d@1".parse().unwrap(),
        filter: None,
        group_by: Vec::new(),
        order_by: Vec::new(),
        limit: None,
    };
    let constant = |literal| whole(Expr::Literal(literal));
    assert!(constant(Literal::Double(0.5)).check().is_ok());
    for literal in [
        Literal::Double(f64::NAN),
        Literal::Double(f64::NEG_INFINITY),
        Literal::Text("\0".into()),
        Literal::Decimal(Decimal {
            unscaled: 1000,
            precision: 3,
            scale: 0,
        }),
        Literal::Decimal(Decimal {
            unscaled: i128::MIN,
            precision: 38,
            scale: 200,
        }),
        Literal::Date(chrono::NaiveDate::MAX),
        Literal::Timestamp(chrono::DateTime::from_timestamp_nanos(1)),
    ] {
        let query = constant(literal);
        assert!(
            matches!(query.check(), Err(BorderError::Forbidden { .. })),
            "{query}"
        );
    }
    assert_eq!(
        constant(Literal::Text("x".repeat(MAX_BYTES))).check(),
        Err(BorderError::TooLong)
    );
    let mut query = whole(Expr::column("a"));
    query.limit = Some(u64::MAX);
    assert!(query.check().is_err());
    query.limit = None;
    query.from.version = 0;
    assert!(query.check().is_err());
    query.from.version = 1;
    query.select.clear();
    assert!(query.check().is_err());
}

#[test]
fn a_tree_deeper_than_the_stack_is_checked_and_printed() {
    let mut expr = Expr::column("a");
    for _ in 0..300_000 {
        expr = Expr::Not(Box::new(expr));
    }
    assert_eq!(expr.check_filter(), Err(BorderError::TooDeep { at: None }));
    assert!(expr.to_string().len() > 300_000);
    assert!(!expr.has_aggregates());
    // Dropping it is what recurses.
    while let Expr::Not(inner) = expr {
        expr = *inner;
    }
}

#[test]
fn a_message_does_not_steer_the_readers_terminal() {
    let error = Query::parse("SELECT \"a\" FROM \"x\".\"d@1\" \u{1b}[2J\nVALID").unwrap_err();
    let told = error.to_string();
    assert!(!told.contains(|c: char| c.is_control()), "{told:?}");
}
