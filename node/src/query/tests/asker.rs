//! Full SQL over remote tables: what crosses the border, what comes back, what is refused.

use super::super::error::QueryError;
use super::super::limits::Limits;
use super::super::session::Session;
use super::support::{Pair, Tables, lines, run, sample};

const FROM: &str = r#"FROM "fr.insee"."communes@3""#;

#[tokio::test]
async fn columns_filters_and_limits_cross_the_border() {
    let pair = Pair::new(1_000);
    for (sql, text) in [
        (
            "SELECT code, population FROM fr.insee.communes WHERE population > 9000 AND nom LIKE 'R%'",
            r#"SELECT "code", "population" {FROM} WHERE ("population" > 9000) AND ("NOM" LIKE 'R%')"#,
        ),
        (
            "SELECT code FROM \"fr.insee\".communes LIMIT 7",
            r#"SELECT "code" {FROM} LIMIT 7"#,
        ),
        (
            "SELECT count(*) FROM fr.insee.communes",
            r#"SELECT count(*) AS "rows" {FROM}"#,
        ),
        (
            "SELECT count(*) FROM fr.insee.communes WHERE active",
            r#"SELECT count(*) AS "rows" {FROM} WHERE "active""#,
        ),
        (
            "SELECT count(*) FROM (SELECT * FROM fr.insee.communes LIMIT 9)",
            r#"SELECT count(*) AS "rows" {FROM}"#,
        ),
        (
            "SELECT code FROM fr.insee.communes WHERE founded >= '1970-01-01' AND seen < TIMESTAMP '1970-02-01 12:00:00'",
            r#"SELECT "code" {FROM} WHERE ("founded" >= DATE '1970-01-01') AND ("seen" < TIMESTAMP '1970-02-01T12:00:00Z')"#,
        ),
        // What the border has no word for is done here.
        (
            "SELECT code FROM fr.insee.communes WHERE starts_with(code, '0000') AND population < 100 LIMIT 2",
            r#"SELECT "code" {FROM} WHERE ("population" < 100) AND ("code" LIKE '0000%') LIMIT 2"#,
        ),
        (
            "SELECT code FROM fr.insee.communes WHERE reverse(code) = '10000' AND population < 10000 ORDER BY code LIMIT 2",
            r#"SELECT "code" {FROM} WHERE "population" < 10000"#,
        ),
        (
            "SELECT nom, count(*) AS n, sum(population) FROM fr.insee.communes@3 GROUP BY nom ORDER BY n DESC, nom",
            r#"SELECT "NOM", "population" {FROM}"#,
        ),
    ] {
        let asked = pair.agree(sql).await;
        assert_eq!(asked, [text.replace("{FROM}", FROM)], "{sql}");
    }
}

#[tokio::test]
async fn a_limited_exchange_comes_to_its_end() {
    let pair = Pair::new(20_000);
    let sqls = [
        "SELECT code FROM fr.insee.communes LIMIT 3",
        "SELECT code FROM fr.insee.communes LIMIT 12000",
        "SELECT code FROM fr.insee.communes WHERE population > 5 LIMIT 12",
        "SELECT count(*) FROM fr.insee.communes LIMIT 1",
    ];
    for sql in sqls {
        run(&pair.remote, sql).await.unwrap();
    }
    assert_eq!(
        pair.ended.load(std::sync::atomic::Ordering::SeqCst),
        sqls.len()
    );
}

#[tokio::test]
async fn joins_unions_and_subqueries_run_here() {
    let pair = Pair::new(1_000);
    for sql in [
        "SELECT g.grp, count(*), sum(c.population) FROM fr.insee.communes c JOIN fr.dgcl.groups g ON g.member = c.code WHERE c.population > 0 GROUP BY g.grp",
        "SELECT code FROM fr.insee.communes WHERE active UNION SELECT member FROM fr.dgcl.groups",
        "SELECT code FROM fr.insee.communes EXCEPT SELECT member FROM fr.dgcl.groups",
        "SELECT code FROM fr.insee.communes WHERE code IN (SELECT member FROM fr.dgcl.groups WHERE grp = 'G1')",
        "SELECT code FROM fr.insee.communes c WHERE NOT EXISTS (SELECT 1 FROM fr.dgcl.groups g WHERE g.member = c.code)",
        "WITH big AS (SELECT * FROM fr.insee.communes WHERE population > 5000) SELECT nom, max(area) FROM big GROUP BY nom HAVING count(*) > 2",
        "SELECT code, rank() OVER (PARTITION BY nom ORDER BY population DESC NULLS LAST, code) AS r FROM fr.insee.communes ORDER BY code LIMIT 40",
        "SELECT (SELECT max(population) FROM fr.insee.communes) - population AS d, code FROM fr.insee.communes WHERE area BETWEEN 1 AND 2",
        "VALUES (1, 'a'), (2, 'b')",
        "SELECT 1 + 1 AS two",
        "SELECT * FROM fr.insee.communes ORDER BY code LIMIT 20 OFFSET 5",
        "SELECT communes.code, g.* FROM fr.insee.communes LEFT JOIN fr.dgcl.groups AS G ON G.member = communes.code ORDER BY 1 LIMIT 10",
        "SELECT fr.insee.communes.code FROM fr.insee.communes WHERE \"fr.insee\".communes.Population IS NULL",
    ] {
        pair.agree(sql).await;
    }
}

#[tokio::test]
async fn rows_of_one_agency_never_become_filters_at_another() {
    let pair = Pair::new(1_000);
    let asked = pair
        .agree("SELECT c.code FROM fr.insee.communes c JOIN fr.dgcl.groups g ON g.member = c.code ORDER BY c.code LIMIT 3")
        .await;
    assert_eq!(
        asked,
        [
            r#"SELECT "code" FROM "fr.insee"."communes@3""#,
            r#"SELECT "member" FROM "fr.dgcl"."groups@1""#
        ]
    );
}

#[tokio::test]
async fn only_one_query_that_reads_is_run() {
    let pair = Pair::new(10);
    for (sql, what) in [
        ("CREATE TABLE t (a INT)", "CREATE TABLE"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE EXTERNAL TABLE",
        ),
        ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
        ("DROP TABLE t", "DROP TABLE"),
        (
            "INSERT INTO fr.dgcl.groups VALUES ('a', 'b')",
            "INSERT INTO",
        ),
        ("UPDATE fr.dgcl.groups SET grp = 'x'", "UPDATE"),
        ("DELETE FROM fr.dgcl.groups", "DELETE FROM"),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
        ("SET datafusion.execution.batch_size = 1", "SET"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN"),
        ("SHOW TABLES", "SHOW TABLES"),
        ("SELECT * INTO t FROM fr.dgcl.groups", "SELECT INTO"),
        (
            "SELECT * FROM fr.dgcl.groups FOR UPDATE",
            "FOR UPDATE or FOR SHARE",
        ),
    ] {
        match pair.error(sql).await {
            QueryError::ReadOnly { what: told } => assert_eq!(told, what, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let recursive =
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r";
    assert_eq!(pair.error(recursive).await, QueryError::Recursive);
    for (sql, part) in [
        ("SELECT 1; SELECT 2", "one query at a time"),
        ("", "no query"),
        ("SELEC 1", "line 1, column 1"),
        ("SELECT 1\n  FROM fr.t WHERE", "the query ends where"),
        (
            "SELECT code FROM fr.insee.communes a JOIN fr.insee.communes b ON a.code = b.code",
            "the column ‘code’ is in more than one table",
        ),
        ("SELECT 1\n  FRO fr.t", "line 2, column"),
        (
            "SELECT * FROM read_csv('/etc/passwd')",
            "functions that make tables",
        ),
        ("SELECT nosuch(1)", "nosuch"),
        ("SELECT code + active FROM fr.insee.communes", ""),
    ] {
        match pair.error(sql).await {
            error @ QueryError::WrongSql { .. } => {
                let told = error.to_string();
                assert!(told.contains(part), "{sql}: {told}");
                for word in [
                    "Error during planning",
                    "Schema error",
                    "ParserError",
                    "Utf8",
                ] {
                    assert!(!told.contains(word), "{sql}: {told}");
                }
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn unknown_names_come_with_the_nearest() {
    let pair = Pair::new(10);
    for (sql, name, nearest) in [
        (
            "SELECT 1 FROM fr.insee.commune",
            r#""fr.insee".commune"#,
            r#""fr.insee".communes"#,
        ),
        (
            "SELECT 1 FROM communes",
            "communes",
            r#""fr.insee".communes"#,
        ),
        (
            "SELECT 1 FROM fr.dgcl.communes",
            r#""fr.dgcl".communes"#,
            r#""fr.insee".communes"#,
        ),
        (
            "SELECT 1 FROM fr.inse.communes@9",
            r#""fr.inse"."communes@9""#,
            r#""fr.insee".communes"#,
        ),
        (
            "SELECT 1 FROM information_schema.tables",
            "information_schema.tables",
            "",
        ),
        ("SELECT 1 FROM '/etc/passwd'", "/etc/passwd", ""),
    ] {
        match pair.error(sql).await {
            QueryError::UnknownTable {
                name: told,
                nearest: near,
                line,
                column,
                ..
            } => {
                assert_eq!(told, name, "{sql}");
                if !nearest.is_empty() {
                    assert_eq!((line, column), (Some(1), Some(15)), "{sql}");
                }
                assert_eq!(near.first().map_or("", String::as_str), nearest, "{sql}");
            }
            // Some are no SQL at all, which is as well.
            QueryError::WrongSql { .. } if nearest.is_empty() => {}
            other => panic!("{sql}: {other:?}"),
        }
    }
    match pair.error("SELECT populatoin FROM fr.insee.communes").await {
        QueryError::UnknownColumn {
            name,
            nearest,
            line,
            column,
            ..
        } => {
            assert_eq!(
                (name.as_str(), nearest),
                ("populatoin", vec!["population".to_owned()])
            );
            assert_eq!((line, column), (Some(1), Some(8)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unknown_versions_and_agencies_are_told_apart_from_unknown_tables() {
    let pair = Pair::new(10);
    let version = pair.error("SELECT 1 FROM fr.insee.communes@9").await;
    assert_eq!(
        version.to_string(),
        r#"line 1, column 15: there is no table "fr.insee"."communes@9": "fr.insee".communes has the versions 1 to 3"#
    );
    let advice = version.advice().unwrap();
    assert!(
        advice.contains("‘jingwei describe fr.insee/communes’"),
        "{advice}"
    );
    let agency = pair.error("SELECT 1 FROM fr.inse.nothing").await;
    assert_eq!(
        agency.to_string(),
        r#"line 1, column 15: there is no table "fr.inse".nothing; no agency ‘fr.inse’ publishes anything (the nearest that do: fr.insee)"#
    );
    let table = pair.error("SELECT 1 FROM fr.insee.nothing").await;
    assert!(!table.to_string().contains("no agency"), "{table}");
}

#[tokio::test]
async fn who_looks_for_tables_in_sql_is_shown_the_catalogue() {
    let pair = Pair::new(10);
    for sql in [
        "SHOW TABLES",
        "SHOW COLUMNS FROM fr.insee.communes",
        "DESCRIBE fr.insee.communes",
        "DESC fr.insee.communes",
        "SELECT * FROM information_schema.tables",
    ] {
        let error = pair.error(sql).await;
        let advice = error.advice().unwrap_or_default();
        for command in ["‘jingwei find’", "‘jingwei describe AGENCY/NAME’"] {
            assert!(advice.contains(command), "{sql}: {error}: {advice}");
        }
    }
    let writing = pair.error("DROP TABLE fr.insee.communes").await;
    assert_eq!(writing.advice(), None);
}

#[tokio::test]
async fn columns_match_without_case_where_that_is_unique() {
    let pair = Pair::new(50);
    pair.agree("SELECT Code, \"nom\", C.POPULATION FROM fr.insee.Communes C WHERE Nom IS NOT NULL GROUP BY CODE, nom, c.Population HAVING max(Area) > 0 ORDER BY CODE").await;
    pair.agree("SELECT nom AS Total FROM fr.insee.communes ORDER BY total")
        .await;
    pair.agree(
        "SELECT g.GRP, c.NOM FROM fr.insee.communes c JOIN fr.dgcl.groups g ON G.Member = C.Code",
    )
    .await;
    let batch = sample(5);
    let twice = arrow::record_batch::RecordBatch::try_from_iter([
        ("Name", batch.column(0).clone()),
        ("NAME", batch.column(0).clone()),
    ])
    .unwrap();
    let tables = Tables::default()
        .memory("fr", "t", &twice)
        .memory("fr", "u", &batch);
    let session = Session::new(std::sync::Arc::new(tables), Limits::default());
    assert!(run(&session, "SELECT NAME FROM fr.t").await.is_ok());
    // Each name is mended where it stands: `nom` here is NOM of u, and Name stays what it is.
    assert!(
        run(
            &session,
            "SELECT \"Name\" FROM fr.t UNION SELECT nom FROM fr.u"
        )
        .await
        .is_ok()
    );
    let error = run(&session, "SELECT name FROM fr.t").await.unwrap_err();
    assert!(matches!(error, QueryError::UnknownColumn { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_or_a_fault_abroad_is_told_as_such() {
    let pair = Pair::new(100);
    match pair.error("SELECT * FROM fr.dgcl.grants").await {
        QueryError::Refused { agency, reason } => {
            assert_eq!(agency, "fr.dgcl");
            assert!(reason.contains("a grant is needed"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let error = pair
        .error("SELECT code FROM fr.insee.communes WHERE CAST(nom AS BIGINT) = 1")
        .await;
    assert!(matches!(error, QueryError::Refused { .. }), "{error:?}");
    assert!(!error.to_string().contains("ennes"), "{error}");
}

#[tokio::test]
async fn limits_hold_here_too() {
    let directory = sample(3_000);
    let tables = Tables::default().memory("fr", "u", &directory);
    let limits = Limits {
        rows: 10,
        ..Limits::default()
    };
    let session = Session::new(std::sync::Arc::new(tables), limits);
    let error = run(&session, "SELECT * FROM fr.u").await.unwrap_err();
    assert!(matches!(error, QueryError::Limit(_)), "{error:?}");
    assert!(run(&session, "SELECT * FROM fr.u LIMIT 10").await.is_ok());
}

/// Ten thousand million pairs, and one thread for them and for the clock.
#[tokio::test]
async fn a_join_without_end_is_stopped_in_time() {
    let tables = Tables::default().memory("fr", "u", &sample(100_000));
    let limits = Limits {
        time: std::time::Duration::from_millis(500),
        ..Limits::default()
    };
    let session = Session::new(std::sync::Arc::new(tables), limits);
    let endless = "SELECT a.code, count(*) FROM fr.u a \
         JOIN fr.u b ON length(a.code) = length(b.code) AND a.nom < b.nom GROUP BY 1";
    let began = std::time::Instant::now();
    let error = run(&session, endless).await.unwrap_err();
    assert!(matches!(error, QueryError::Limit(_)), "{error:?}");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_time_of_asking_is_known() {
    let tables = Tables::default().memory("fr", "u", &sample(3));
    let session = Session::new(std::sync::Arc::new(tables), Limits::default());
    let sql = "SELECT count(*) FROM fr.u WHERE now() > '2024-01-01' \
         AND current_date > '2024-01-01' AND current_timestamp >= now()";
    let counted = lines(&run(&session, sql).await.unwrap());
    assert!(counted[0].contains("| 3 "), "{counted:?}");
}
