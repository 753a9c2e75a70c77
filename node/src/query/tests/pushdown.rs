//! A condition means the same here and over the border, whatever it is made of.

use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::support::{Pair, lines, run};

static PAIR: LazyLock<(Pair, Runtime)> =
    LazyLock::new(|| (Pair::new(700), Runtime::new().unwrap()));

fn pick(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(choices).prop_map(str::to_owned)
}

fn comparison() -> impl Strategy<Value = String> {
    pick(&["=", "<>", "<", "<=", ">", ">="])
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        pick(&[
            "population",
            "area",
            "length(nom)",
            "date_part('year', founded)"
        ]),
        (-60_i64..10_010).prop_map(|n| n.to_string()),
        (-40_i32..100).prop_map(|n| format!("{:?}", f64::from(n) / 4.0)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), pick(&["+", "-", "*"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (pick(&["abs", "floor", "round"]), inner.clone())
                .prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("nullif({a}, {b})")),
            inner.clone().prop_map(|a| format!("CAST({a} AS DOUBLE)")),
            inner.clone().prop_map(|a| format!("(- {a})")),
            (inner.clone(), inner)
                .prop_map(|(a, b)| format!("CASE WHEN active THEN {a} ELSE {b} END")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        pick(&[
            "nom",
            "code",
            "CAST(population AS TEXT)",
            "CAST(founded AS TEXT)"
        ]),
        pick(&[
            "'Rennes'",
            "'海淀区'",
            "''",
            "'O''Brien'",
            "'00017'",
            "'\\'"
        ]),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (pick(&["lower", "upper", "trim"]), inner.clone())
                .prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), 1..4, 0..5).prop_map(|(a, s, n)| format!("substr({a}, {s}, {n})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
        ]
    })
}

fn time() -> impl Strategy<Value = String> {
    prop_oneof![
        (
            pick(&["seen", "date_trunc('month', seen)"]),
            comparison(),
            1..28_u8
        )
            .prop_map(|(a, op, day)| format!("{a} {op} TIMESTAMP '1970-02-{day:02}T01:02:03.5Z'")),
        (
            pick(&["founded", "make_date(1999, 2, 3)"]),
            comparison(),
            1950..2040
        )
            .prop_map(|(a, op, year)| format!("{a} {op} DATE '{year}-06-01'")),
        (1950..2040, 1..50).prop_map(|(year, span)| format!(
            "founded NOT BETWEEN '{year}-01-01' AND '{}-01-01'",
            year + span
        )),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (number(), comparison(), number()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text(), comparison(), text()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (
            pick(&["population", "code", "area", "active", "seen"]),
            comparison()
        )
            .prop_map(|(a, op)| format!("{a} {op} {a}")),
        (
            text(),
            pick(&["'R%'", "'%n_s'", "'a\\%%'", "'%区'", "'_'", "''"])
        )
            .prop_map(|(a, p)| format!("{a} LIKE {p}")),
        (text(), pick(&["'R%'", "'%\\_%'"])).prop_map(|(a, p)| format!("{a} NOT LIKE {p}")),
        pick(&["population", "nom", "area", "founded", "seen", "active"])
            .prop_map(|a| format!("{a} IS NULL")),
        prop::collection::vec(-60_i64..10_010, 1..8)
            .prop_map(|list| format!("population IN ({})", join(&list))),
        prop::collection::vec(-60_i64..10_010, 1..8)
            .prop_map(|list| format!("population NOT IN ({})", join(&list))),
        prop::collection::vec(0_i64..700, 4..9).prop_map(|list| {
            let list: Vec<String> = list.iter().map(|n| format!("'{n:05}'")).collect();
            format!("code IN ({})", list.join(", "))
        }),
        pick(&[
            "active",
            "NOT active",
            "active IS NOT NULL",
            "area IN (1.5, -2.0, 7.25, 8.0)"
        ]),
        (number(), number(), number()).prop_map(|(a, b, c)| format!("{a} BETWEEN {b} AND {c}")),
        time(),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

fn join(list: &[i64]) -> String {
    list.iter()
        .map(i64::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pushing_a_condition_down_changes_no_row(condition in condition()) {
        let (pair, runtime) = &*PAIR;
        let sql = format!("SELECT code FROM fr.insee.communes WHERE {condition}");
        let here = runtime.block_on(run(&pair.memory, &sql));
        let there = runtime.block_on(run(&pair.remote, &sql));
        match (here, there) {
            (Ok(here), Ok(there)) => prop_assert_eq!(lines(&here), lines(&there)),
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => prop_assert!(false, "only the border fails: {}", error),
            (Err(error), Ok(_)) => prop_assert!(false, "only the border succeeds: {}", error),
        }
    }
}

/// Most of what people write does cross the border; else the test above would show little.
#[test]
fn common_conditions_are_pushed_down() {
    let (pair, runtime) = (Pair::new(700), Runtime::new().unwrap());
    for condition in [
        "population * 2 > 10",
        "lower(nom) = 'rennes'",
        "area BETWEEN 1 AND 2",
        "date_part('year', founded) = 1999",
        "population + area > 3.5",
        "CASE WHEN active THEN 1 ELSE 2 END = 1",
        "coalesce(nom, '') <> ''",
        "seen IS NULL OR population IN (1, 2, 3, 4, 5)",
        "NOT active",
        "nom NOT LIKE 'R%'",
    ] {
        let sql = format!("SELECT code FROM fr.insee.communes WHERE {condition}");
        let asked = runtime.block_on(pair.agree(&sql));
        assert!(asked[0].contains(" WHERE "), "{condition}: {asked:?}");
    }
}
