//! The provider's side alone: border text in, batches or a bare class of error out.

use std::time::Duration;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use jingwei_proto::border::Query;
use jingwei_proto::statement::Sharing;

use super::super::guard::GuardedTable;
use super::super::limits::{Exceeded, Limits};
use super::super::permit::Denial;
use super::super::provide::{ProvideError, provide};
use super::super::seats::Seat;
use super::support::{guarded, lines, sample};

async fn answer(
    text: &str,
    table: &GuardedTable,
    limits: &Limits,
) -> Result<Vec<RecordBatch>, ProvideError> {
    let query = Query::parse(text).unwrap();
    let rows = provide(&query, table.clone(), limits, Seat::alone()).await?;
    rows.try_collect()
        .await
        .map_err(|error| ProvideError::classify(&error))
}

fn table(rows: i64, class: Sharing) -> (GuardedTable, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let table = guarded(
        "fr.insee/communes@3",
        &sample(rows),
        directory.path(),
        class,
    );
    (table, directory)
}

const FROM: &str = r#"FROM "fr.insee"."communes@3""#;

#[tokio::test]
async fn the_whole_grammar_is_answered() {
    let (table, _directory) = table(1_000, Sharing::Public);
    let limits = Limits::default();
    for (select, rest, rows) in [
        (
            r#""code", "NOM""#,
            r#"WHERE "population" >= 5000 ORDER BY "code" DESC NULLS LAST LIMIT 3"#,
            3,
        ),
        (r#"count(*)"#, "", 1),
        (
            r#"count(*) AS "n", sum("population"), min("area"), max("seen"), avg("population")"#,
            r#"WHERE "code" IN ('00001', '00002', '00003')"#,
            1,
        ),
        (
            r#"date_part('year', "founded") AS "y", count(*) AS "n""#,
            r#"GROUP BY date_part('year', "founded") ORDER BY "n" DESC NULLS LAST LIMIT 5"#,
            5,
        ),
        (
            r#"lower("NOM"), upper("NOM"), trim("NOM"), substr("NOM", 2, 3), length("NOM")"#,
            "LIMIT 4",
            4,
        ),
        (
            r#"coalesce("NOM", '?') AS "c", nullif("NOM", ''), abs("population"), round("area", 1), round("area") AS "r0", floor("area")"#,
            "LIMIT 4",
            4,
        ),
        (
            r#"date_trunc('month', "seen"), date_trunc('year', "founded"), make_date(2024, 2, 29)"#,
            "LIMIT 1",
            1,
        ),
        (
            r#"CASE WHEN "active" THEN 1.5 ELSE 2.0 END AS "x", CAST("population" AS DECIMAL(20, 2)), CAST("population" AS TEXT) AS "t", CAST('2024-01-01' AS DATE) AS "d", CAST('2024-01-01T00:00:00Z' AS TIMESTAMP) AS "ts""#,
            "LIMIT 1",
            1,
        ),
        (
            r#""code""#,
            r#"WHERE "seen" >= TIMESTAMP '1970-01-02T00:00:00Z' LIMIT 1"#,
            1,
        ),
        (
            r#""code""#,
            r#"WHERE ("NOM" LIKE 'a\%b\_c') AND (NOT ("code" IS NULL)) LIMIT 1"#,
            1,
        ),
        (
            r#""code", NULL AS "nothing", -1 AS "minus", - "population" AS "neg", DECIMAL(4, 2) '12.50' AS "dec", 1e300 AS "big", 'it''s' AS "text""#,
            "LIMIT 1",
            1,
        ),
    ] {
        let text = format!("SELECT {select} {FROM} {rest}");
        let answer = answer(text.trim_end(), &table, &limits).await;
        let batches = answer.unwrap_or_else(|error| panic!("{text}: {error}"));
        let counted: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(counted, rows, "{text}");
    }
}

#[tokio::test]
async fn columns_are_named_and_typed_by_the_text() {
    let (table, _directory) = table(10, Sharing::Public);
    let text = format!(r#"SELECT count(*), length("code"), "code" AS "c" {FROM} GROUP BY "code""#);
    let batches = answer(&text, &table, &Limits::default()).await.unwrap();
    let schema = batches[0].schema();
    let told: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    assert_eq!(told, ["count(*) Int64", "length(\"code\") Int64", "c Utf8"]);
    assert!(schema.metadata().is_empty(), "the salt stays at home");
}

#[tokio::test]
async fn policy_is_enforced_at_the_leaf() {
    let text = format!(r#"SELECT "code" {FROM}"#);
    for (class, denial) in [
        (Sharing::Conditional, Denial::GrantNeeded),
        (Sharing::Withheld, Denial::Withheld),
    ] {
        let (table, _directory) = table(10, class);
        let refused = answer(&text, &table, &Limits::default()).await;
        assert_eq!(refused, Err(ProvideError::Refused(denial)));
        // Even a session that forgot to look at the door reads nothing.
        let context = datafusion::prelude::SessionContext::new();
        context
            .register_table("t", std::sync::Arc::new(table))
            .unwrap();
        let rows = context
            .sql("SELECT * FROM t")
            .await
            .unwrap()
            .collect()
            .await;
        let error = ProvideError::classify(&rows.unwrap_err());
        assert_eq!(error, ProvideError::Refused(denial));
    }
}

#[tokio::test]
async fn errors_tell_classes_and_no_values() {
    let (table, _directory) = table(1_000, Sharing::Public);
    for (item, class) in [
        (r#"CAST("NOM" AS BIGINT)"#, ProvideError::Uncomputable),
        (r#"CAST("NOM" AS DATE)"#, ProvideError::Uncomputable),
        (r#"CAST("NOM" AS TIMESTAMP)"#, ProvideError::Uncomputable),
        (r#"CAST("NOM" AS BOOLEAN)"#, ProvideError::Uncomputable),
        (
            r#"1 / ("population" - "population")"#,
            ProvideError::Uncomputable,
        ),
        (
            r#"CAST(("population" * 1000000) AS DECIMAL(5, 2))"#,
            ProvideError::Uncomputable,
        ),
        (
            r#"make_date("population", 13, 40)"#,
            ProvideError::Uncomputable,
        ),
        (r#"lower("active" + 1)"#, ProvideError::Unfit),
        (r#"sum("NOM")"#, ProvideError::Unfit),
        (
            r#""nom""#,
            ProvideError::UnknownColumn { name: "nom".into() },
        ),
    ] {
        for text in [
            format!(r#"SELECT {item} AS "x" {FROM}"#),
            format!(r#"SELECT "code" {FROM} WHERE ({item}) IS NULL"#),
        ] {
            let Ok(query) = Query::parse(&text) else {
                continue;
            };
            let error = answer(&query.to_string(), &table, &Limits::default()).await;
            assert_eq!(error.as_ref().err(), Some(&class), "{text}");
            for value in ["Rennes", "rennes", "海淀区", "O'Brien", "Malo"] {
                assert!(
                    !error.as_ref().unwrap_err().to_string().contains(value),
                    "{text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn limits_stop_a_query() {
    let (table, _directory) = table(3_000, Sharing::Public);
    let all = format!(r#"SELECT "code", "NOM" {FROM}"#);
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let rows = limits(|l| l.rows = 2_999);
    assert_eq!(
        answer(&all, &table, &rows).await,
        Err(Exceeded::Rows(2_999).into())
    );
    let bytes = limits(|l| l.bytes = 1_000);
    assert_eq!(
        answer(&all, &table, &bytes).await,
        Err(Exceeded::Bytes(1_000).into())
    );
    let time = limits(|l| l.time = Duration::ZERO);
    assert_eq!(
        answer(&all, &table, &time).await,
        Err(Exceeded::Time(Duration::ZERO).into())
    );
    let memory = limits(|l| l.memory = 1_000);
    let sorted = format!(r#"{all} ORDER BY "NOM" ASC NULLS LAST"#);
    assert_eq!(
        answer(&sorted, &table, &memory).await,
        Err(Exceeded::Memory.into())
    );
}

#[tokio::test]
async fn another_dataset_is_not_answered() {
    let (table, _directory) = table(10, Sharing::Public);
    for from in [r#""fr.insee"."communes@2""#, r#""fr.dgcl"."communes@3""#] {
        let text = format!(r#"SELECT "code" FROM {from}"#);
        let error = answer(&text, &table, &Limits::default()).await;
        assert_eq!(error, Err(ProvideError::OtherDataset));
    }
}

#[tokio::test]
async fn several_files_are_one_table() {
    let directory = tempfile::tempdir().unwrap();
    let one = guarded(
        "fr.insee/communes@1",
        &sample(600),
        directory.path(),
        Sharing::Public,
    );
    let two = guarded(
        "fr.insee/communes@2",
        &sample(400),
        directory.path(),
        Sharing::Public,
    );
    let open = |n: u32| {
        let path = directory.path().join(format!("communes-{n}.parquet"));
        std::sync::Arc::new(super::super::file::DataFile::open(&path).unwrap())
    };
    let both = GuardedTable::new(
        "fr.insee/communes@3".parse().unwrap(),
        vec![open(1), open(2)],
        one.permit().clone(),
    )
    .unwrap();
    drop(two);
    let count = format!(r#"SELECT count(*) AS "n" {FROM}"#);
    let batches = answer(&count, &both, &Limits::default()).await.unwrap();
    assert_eq!(lines(&batches), ["| 1000 |", "| n    |"]);
    let limited = format!(r#"SELECT "code" {FROM} LIMIT 700"#);
    let batches = answer(&limited, &both, &Limits::default()).await.unwrap();
    assert_eq!(
        batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        700
    );
}

#[tokio::test]
async fn a_dropped_answer_reads_no_further() {
    let (table, _directory) = table(50_000, Sharing::Public);
    let query = Query::parse(&format!(r#"SELECT "code" {FROM}"#)).unwrap();
    let limits = Limits::default();
    let mut rows = provide(&query, table, &limits, Seat::alone())
        .await
        .unwrap();
    let first = rows.next().await.unwrap().unwrap();
    assert!(first.num_rows() <= 8_192);
    drop(rows);
}
