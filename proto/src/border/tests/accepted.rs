//! Sentences of the grammar, each in its one spelling.

use super::*;

fn accept(text: &str) -> Query {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(query.to_string(), text);
    query.check().unwrap();
    query
}

#[test]
fn every_clause() {
    let query = accept(concat!(
        r#"SELECT "dept", sum("pop") AS "people", count(*) FROM "fr.bre.35"."communes@3""#,
        r#" WHERE ("pop" > 100) AND ("name" LIKE 'Saint\_%') GROUP BY "dept""#,
        r#" ORDER BY "people" DESC NULLS LAST, "dept" ASC NULLS LAST LIMIT 10"#,
    ));
    assert_eq!(query.from.to_string(), "fr.bre.35/communes@3");
    assert_eq!(
        query.columns().into_iter().collect::<Vec<_>>(),
        ["dept", "name", "pop"]
    );
    assert!(query.has_aggregates());
    assert_eq!(query.limit, Some(10));
}

#[test]
fn every_expression() {
    for expr in [
        r#"NOT "a""#,
        r#"- "a""#,
        r#"- -1"#,
        r#"- (- "a")"#,
        r#""a" IS NULL"#,
        r#"("a" IS NOT NULL) IS NULL"#,
        r#""a" IN (1, -2.5, 'x', NULL, DATE '2024-02-29')"#,
        r#"("a" + "b") NOT IN (TRUE, FALSE)"#,
        r#""a" NOT LIKE 'it''s 100\% \\ _'"#,
        r#"CASE WHEN "a" < 1 THEN 'low' WHEN "a" < 9 THEN NULL ELSE 'high' END = 'low'"#,
        r#"CASE WHEN "a" THEN "b" END"#,
        r#"CAST("a" + 1 AS DECIMAL(10, 2)) <= DECIMAL(3, 2) '-0.05'"#,
        r#"(CAST("a" AS BOOLEAN) OR (CAST("a" AS BIGINT) = 1)) AND "b""#,
        r#"(("a" + 1) - ("b" * 2)) / -3"#,
        r#"substr(upper(trim(lower("a"))), 1, length("b")) <> substr("a", 2)"#,
        r#"coalesce(nullif("a", 0), abs("b"), floor("c"), round("d"), round("d", 2)) >= 0"#,
        r#"date_trunc('month', "a") = TIMESTAMP '2024-05-01T00:00:00Z'"#,
        r#"date_part('dow', "a") = date_part('year', make_date(2024, 5, 1))"#,
        r#""any ""name"", even é; -- or /*" = '; DROP TABLE x; --'"#,
    ] {
        accept(&filter(expr));
        assert_eq!(Expr::parse(expr).unwrap().to_string(), expr);
    }
}

#[test]
fn aggregates() {
    accept(&select(
        r#"(sum("a") * 100) / count("a") AS "x", min("b"), max(lower("b")), avg("c")"#,
    ));
    accept(r#"SELECT "a" FROM "x"."d@1" GROUP BY "a" ORDER BY count(*) DESC NULLS LAST"#);
}

#[test]
fn constants_keep_their_type_and_bits() {
    let constant = |text: &str| match Query::parse(&select(text)).unwrap().select.remove(0).expr {
        Expr::Literal(literal) => literal,
        other => panic!("{other:?}"),
    };
    assert_eq!(constant("1"), Literal::Integer(1));
    assert_eq!(constant("1.0"), Literal::Double(1.0));
    assert_eq!(constant("-9223372036854775808"), Literal::Integer(i64::MIN));
    assert_eq!(constant("1e300"), Literal::Double(1e300));
    assert_eq!(constant("5e-324"), Literal::Double(5e-324));
    assert!(matches!(constant("-0.0"), Literal::Double(x) if x.is_sign_negative()));
    let decimal = Decimal {
        unscaled: -5,
        precision: 3,
        scale: 2,
    };
    assert_eq!(constant("DECIMAL(3, 2) '-0.05'"), Literal::Decimal(decimal));
    for text in [
        "DECIMAL(38, 0) '99999999999999999999999999999999999999'",
        "DATE '0001-01-01'",
        "DATE '9999-12-31'",
        "TIMESTAMP '1678-01-01T00:00:00Z'",
        "TIMESTAMP '2261-12-31T23:59:59.000001Z'",
        "'two\nlines\tand \u{1F30D}'",
    ] {
        constant(text);
    }
}

#[test]
fn up_to_the_limits() {
    for wrap in WRAPS {
        accept(&filter(&deep(wrap, MAX_DEPTH).to_string()));
    }
    let list = vec!["1"; MAX_IN].join(", ");
    accept(&filter(&format!(r#""a" IN ({list})"#)));
    let prefix = select("''").len();
    accept(&select(&format!("'{}'", "x".repeat(MAX_BYTES - prefix))));
    let many = (0..2000).map(|i| {
        Expr::binary(
            BinaryOp::Equal,
            Expr::column("a"),
            Expr::Literal(Literal::Integer(i)),
        )
    });
    let any = Expr::any(many.collect()).unwrap();
    assert_eq!(Expr::parse(&any.to_string()).unwrap(), any);
}

#[test]
fn aliases_are_not_columns() {
    let text = r#"SELECT "a" + 1 AS "n", "b" AS "b" FROM "x"."d@1" ORDER BY "n" ASC NULLS LAST, "b" ASC NULLS LAST"#;
    assert_eq!(
        accept(text).columns().into_iter().collect::<Vec<_>>(),
        ["a", "b"]
    );
}
