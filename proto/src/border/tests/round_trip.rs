//! Reading undoes writing, and whatever is read writes itself back, for random queries,
//! random damage to them, and random texts.

use chrono::{DateTime, NaiveDate};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![r#"[a-z'"\\%_ ;(),-]{0,6}"#, any::<String>()]
        .prop_map(|text| text.replace('\0', ""))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-d]", text().prop_map(|text| format!("n{text}"))]
}

fn decimal() -> impl Strategy<Value = Decimal> {
    (1..=38u8, any::<u8>(), any::<i128>()).prop_map(|(precision, scale, unscaled)| Decimal {
        unscaled: unscaled % 10_i128.pow(precision.into()),
        precision,
        scale: scale % (precision + 1),
    })
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Boolean),
        prop_oneof![any::<i64>(), -9..9i64, Just(i64::MIN), Just(i64::MAX)]
            .prop_map(Literal::Integer),
        prop_oneof![any::<f64>(), -9.0..9.0f64, Just(-0.0), Just(1e16)]
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(Literal::Double),
        decimal().prop_map(Literal::Decimal),
        text().prop_map(Literal::Text),
        // 0001-01-01 to 9999-12-31 in days from 1970
        (-719_162..=2_932_896i32)
            .prop_map(|days| Literal::Date(NaiveDate::from_epoch_days(days).unwrap())),
        // 1678 to 2261
        prop_oneof![-9_214_560_000..9_214_646_399i64]
            .prop_flat_map(|seconds| (Just(seconds), prop_oneof![Just(0), 0..1_000_000u32]))
            .prop_map(|(seconds, micros)| Literal::Timestamp(
                DateTime::from_timestamp(seconds, micros * 1000).unwrap()
            )),
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    vec(
        select(vec!["a", "%", "_", r"\%", r"\_", r"\\", "'", "é", "\""]),
        0..6,
    )
    .prop_map(|parts| parts.concat())
}

fn cast_type() -> impl Strategy<Value = Type> {
    prop_oneof![
        select(Type::PLAIN.to_vec()),
        decimal().prop_map(|d| Type::Decimal {
            precision: d.precision,
            scale: d.scale
        }),
    ]
}

/// An expression of at most `depth` levels above its leaves.
fn expr(leaf: BoxedStrategy<Expr>) -> BoxedStrategy<Expr> {
    let grow = |inner: BoxedStrategy<Expr>| {
        let boxed = inner.clone().prop_map(Box::new).boxed();
        prop_oneof![
            boxed.clone().prop_map(Expr::Not),
            boxed.clone().prop_map(Expr::Negate),
            (select(BinaryOp::ALL.to_vec()), inner.clone(), inner.clone())
                .prop_map(|(op, left, right)| Expr::binary(op, left, right)),
            (boxed.clone(), any::<bool>())
                .prop_map(|(expr, negated)| Expr::IsNull { expr, negated }),
            (boxed.clone(), vec(literal(), 1..4), any::<bool>()).prop_map(
                |(expr, list, negated)| Expr::In {
                    expr,
                    list,
                    negated
                }
            ),
            (boxed.clone(), pattern(), any::<bool>()).prop_map(|(expr, pattern, negated)| {
                Expr::Like {
                    expr,
                    pattern,
                    negated,
                }
            }),
            (
                vec((inner.clone(), inner.clone()), 1..3),
                option::of(boxed.clone())
            )
                .prop_map(|(branches, otherwise)| Expr::Case {
                    branches,
                    otherwise
                }),
            (boxed, cast_type()).prop_map(|(expr, to)| Expr::Cast { expr, to }),
            call(inner),
        ]
    };
    leaf.prop_recursive(5, 40, 4, grow).boxed()
}

fn call(inner: BoxedStrategy<Expr>) -> impl Strategy<Value = Expr> {
    let shape = (
        select(Function::ALL.to_vec()),
        vec(inner, 1..4),
        any::<prop::sample::Index>(),
    );
    shape.prop_filter_map("arity", |(function, mut args, index)| {
        if let [first, ..] = function.units() {
            let units = function.units();
            let unit = units.get(index.index(units.len())).unwrap_or(first);
            args[0] = Expr::Literal(Literal::Text((*unit).to_owned()));
        }
        let count = (1..=args.len())
            .rev()
            .find(|count| function.takes(*count))?;
        args.truncate(count);
        Some(Expr::Call { function, args })
    })
}

fn row_expr() -> BoxedStrategy<Expr> {
    expr(
        prop_oneof![
            name().prop_map(Expr::Column),
            literal().prop_map(Expr::Literal)
        ]
        .boxed(),
    )
}

fn group_expr() -> BoxedStrategy<Expr> {
    let aggregate =
        (select(Aggregate::ALL.to_vec()), row_expr()).prop_map(|(function, arg)| Expr::Aggregate {
            function,
            arg: Some(Box::new(arg)),
        });
    let count = Expr::Aggregate {
        function: Aggregate::Count,
        arg: None,
    };
    expr(prop_oneof![aggregate, Just(count), name().prop_map(Expr::Column)].boxed())
}

fn query() -> impl Strategy<Value = Query> {
    let item = (
        prop_oneof![row_expr(), group_expr()],
        option::weighted(0.8, name()),
    )
        .prop_map(|(expr, alias)| Item { expr, alias });
    let order =
        (group_expr(), any::<bool>()).prop_map(|(expr, descending)| Order { expr, descending });
    let from = (
        "[a-z]{1,3}(\\.[a-z0-9]{1,3}){0,3}",
        "[a-z][a-z0-9_]{0,8}",
        1..=1u64 << 53,
    )
        .prop_filter_map("reserved", |(agency, name, version)| {
            format!("{agency}/{name}@{version}").parse().ok()
        });
    (
        vec(item, 1..4),
        from,
        option::of(row_expr()),
        vec(row_expr(), 0..3),
        vec(order, 0..3),
        option::of(0..=1u64 << 53),
    )
        .prop_map(|(select, from, filter, group_by, order_by, limit)| Query {
            select,
            from,
            filter,
            group_by,
            order_by,
            limit,
        })
        .prop_filter("aliases and keys clash", |query| query.check().is_ok())
}

/// Whatever is read is allowed, and has no other spelling.
fn holds(text: &str) -> Result<(), TestCaseError> {
    if let Ok(query) = Query::parse(text) {
        prop_assert_eq!(query.to_string(), text);
        prop_assert_eq!(query.check(), Ok(()));
    }
    if let Ok(expr) = Expr::parse(text) {
        prop_assert_eq!(expr.to_string(), text);
        prop_assert_eq!(expr.check_filter(), Ok(()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..Default::default() })]

    #[test]
    fn reading_undoes_writing(query in query()) {
        let text = query.to_string();
        let read = Query::parse(&text);
        prop_assert_eq!(read.as_ref(), Ok(&query));
        // The tree's equality takes 0.0 for -0.0; its text does not.
        prop_assert_eq!(read.map(|read| read.to_string()), Ok(text));
    }

    #[test]
    fn filters_stand_alone(expr in row_expr()) {
        prop_assert_eq!(Expr::parse(&expr.to_string()), Ok(expr));
    }

    #[test]
    fn damage_is_noticed(
        query in query(),
        at in any::<prop::sample::Index>(),
        removed in 0..4usize,
        put in prop_oneof!["[ ()'\",0-9.eA-Z@-]{0,3}", any::<String>()],
    ) {
        let chars: Vec<char> = query.to_string().chars().collect();
        let at = at.index(chars.len());
        let end = (at + removed).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(put.chars())
            .chain(chars[end..].iter().copied()).collect();
        holds(&text)?;
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        holds(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_tokens_are_survived(tokens in vec(select(TOKENS.to_vec()), 0..60), whole in any::<bool>()) {
        let text = tokens.concat();
        holds(&if whole { filter(&text) } else { text })?;
    }
}

const TOKENS: [&str; 60] = [
    "SELECT ",
    " FROM ",
    "\"x\".\"d@1\"",
    " WHERE ",
    " GROUP BY ",
    " ORDER BY ",
    " LIMIT ",
    " AS ",
    " ASC",
    " DESC",
    " NULLS LAST",
    "\"a\"",
    "\"b\"",
    "1",
    "-1",
    "1.5",
    "e",
    "'x'",
    "'",
    "\"",
    "NULL",
    "TRUE",
    "DATE ",
    "TIMESTAMP ",
    "DECIMAL(",
    "'2024-01-01'",
    "2, 1) '0.5'",
    "NOT ",
    "- ",
    " AND ",
    " OR ",
    " = ",
    " < ",
    " + ",
    " - ",
    " IS NULL",
    " IS NOT NULL",
    " NOT",
    " IN (",
    " LIKE ",
    "CASE",
    " WHEN ",
    " THEN ",
    " ELSE ",
    " END",
    "CAST(",
    "BIGINT",
    "lower(",
    "sum(",
    "count(*)",
    "substr(",
    "date_part('year', ",
    "(",
    ")",
    "(",
    ")",
    ", ",
    " ",
    "\u{0}",
    "é",
];
