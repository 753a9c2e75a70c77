//! Questions that cannot be answered: what is wrong, and what might have been meant.

use crate::pair::Pair;

fn asked(pair: &Pair, sql: &str, code: i32, words: &[&str]) {
    let ran = pair
        .b
        .sql(sql, &["--format", "csv"])
        .expect_code(code)
        .complains(words);
    assert_eq!(ran.stdout, "", "{ran}");
}

#[test]
fn wrong_sql() {
    let pair = Pair::shared();
    asked(
        &pair,
        "SELEC 1",
        2,
        &["line 1, column 1: ‘SELEC’ stands where"],
    );
    asked(
        &pair,
        "SELECT code FROM aa.places WHERE",
        2,
        &["the query ends where"],
    );
    asked(
        &pair,
        "SELECT code FROM aa.places GROUP BY name",
        2,
        &["code"],
    );
    asked(&pair, "", 2, &[]);
    asked(&pair, "SELECT 1; SELECT 2", 2, &[]);
}

#[test]
fn sql_that_does_something_else_than_read() {
    let pair = Pair::shared();
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("x.csv");
    for sql in [
        "DELETE FROM aa.places",
        "INSERT INTO aa.places VALUES ('35001', 'x', 1)",
        "UPDATE aa.places SET people = 0",
        "DROP TABLE aa.places",
        "CREATE TABLE t AS SELECT * FROM aa.places",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        &format!("COPY (SELECT 1) TO '{}'", written.display()),
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN SELECT * FROM aa.places",
    ] {
        asked(&pair, sql, 2, &["only queries"]);
    }
    assert!(!written.exists());
}

#[test]
fn sql_that_recurses() {
    let pair = Pair::shared();
    asked(
        &pair,
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * FROM t",
        2,
        &["recursive"],
    );
}

#[test]
fn tables_and_columns_that_are_not_there_with_the_nearest() {
    let pair = Pair::shared();
    asked(
        &pair,
        "SELECT * FROM aa.plases",
        2,
        &[
            "line 1, column 15: ",
            "plases",
            "nearest",
            "aa.places",
            "‘jingwei find’",
        ],
    );
    asked(
        &pair,
        "SELECT * FROM ab.places",
        2,
        &[
            "ab.places",
            "no agency ‘ab’ publishes anything (the nearest that do: aa, bb)",
            "; the nearest: ",
        ],
    );
    asked(
        &pair,
        "SELECT * FROM zz.nothing_like_it",
        2,
        &["zz.nothing_like_it"],
    );
    asked(
        &pair,
        "SELECT * FROM aa.\"places@9\"",
        2,
        &[
            "places@9",
            "aa.places has the versions 1 to 2",
            "‘jingwei describe aa/places’",
        ],
    );
    asked(
        &pair,
        "SELECT peple FROM aa.places",
        2,
        &["line 1, column 8: ", "peple", "the nearest: people"],
    );
    for sql in [
        "SELECT * FROM information_schema.tables",
        "SHOW TABLES",
        "DESCRIBE aa.places",
    ] {
        let words = ["‘jingwei find’", "‘jingwei describe AGENCY/NAME’"];
        asked(&pair, sql, 2, &words);
    }
    // Its own people see the versions of what the agency withholds.
    let own = pair.a.sql("SELECT * FROM aa.\"secret@9\"", &[]);
    own.expect_code(2)
        .complains(&["aa.secret has version 1 alone"]);
    let other = pair.b.sql("SELECT * FROM aa.\"secret@9\"", &[]);
    let other = other.expect_code(2);
    assert!(!other.stderr.contains("version"), "{other}");
}

#[test]
fn limits_stop_a_question() {
    let pair = Pair::shared();
    // 4 to the power of 14 rows, which nobody computes in a second.
    let tables: Vec<String> = (0..14).map(|n| format!("aa.places t{n}")).collect();
    let sql = format!(
        "SELECT count(*), max(t0.people + t13.people) FROM {}",
        tables.join(", ")
    );
    pair.b
        .sql(&sql, &["--timeout", "1"])
        .expect_code(1)
        .complains(&["stopped"]);
    let ran = pair
        .b
        .sql(
            "SELECT * FROM aa.places",
            &["--format", "csv", "--max-rows", "2"],
        )
        .expect_code(1);
    let ran = ran.complains(&["stopped", "rows"]);
    assert_eq!(ran.stdout, "", "no part of it is printed");
    pair.b
        .run(&["describe", "aa/plases"])
        .expect_code(2)
        .complains(&["aa/plases", "the nearest: aa/places"]);
}

#[test]
fn a_question_from_an_agency_that_is_not_here() {
    let pair = Pair::shared();
    pair.b
        .sql("SELECT 1", &["--agency", "aa"])
        .expect_code(2)
        .complains(&["does not host ‘aa’", "it hosts bb"]);
    pair.b.run(&["sql"]).expect_code(2);
    pair.b
        .run(&["sql", "SELECT 1", "--format", "xml"])
        .expect_code(2);
}
