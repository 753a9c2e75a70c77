//! A provider that sends too much, nothing, or no end: the asker cuts it off, says who it was, and
//! goes on living. See `adversary_peer` for one that sends what is false.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use jingwei::query::frames::Encoder;
use jingwei_tests::lying_peer::{Ending, LyingPeer};
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{eventually, free_address};
use jingwei_tests::{Federation, Node, Ran, journal};

const SQL: &str = "SELECT code, name, people FROM aa.places";

/// `bb` asks `aa`, and what it reaches at the address of `aa` is not `aa`.
struct Stage {
    a: Node,
    b: Node,
    liar: LyingPeer,
    _federation: Federation,
}

impl Stage {
    /// With limits for queries at `bb`.
    fn new(limits: &[(&str, &str)]) -> Stage {
        let federation = Federation::start();
        let announced: SocketAddr = free_address();
        let (mut a, mut b) = (
            federation.joined("a", &["aa"]),
            federation.joined("b", &["bb"]),
        );
        let address = ("JINGWEI_NODE_ADDRESS".into(), announced.to_string());
        a.settings.push(address);
        for (name, value) in limits {
            let variable = format!("JINGWEI_NODE_QUERY_{name}");
            b.settings.push((variable, (*value).to_owned()));
        }
        for (node, agency) in [(&mut a, "aa"), (&mut b, "bb")] {
            federation.registry.enrol(&node.proposal(agency)).ok();
            node.start();
            node.until_announced();
        }
        a.publish_places("aa", "places", "public", PLACES);
        federation.settle(&[&a, &b]);
        let liar = LyingPeer::start(announced, &a.dir, a.listen, &b.dir);
        let stage = Stage {
            a,
            b,
            liar,
            _federation: federation,
        };
        assert_eq!(stage.b.rows(SQL).len(), 3, "the truth passes");
        stage
    }

    /// Asks, which must fail with `code` and `words`; afterwards all is well.
    #[track_caller]
    fn cut_off(&self, sql: &str, code: i32, words: &[&str]) {
        let ran = self.b.sql(sql, &["--format", "csv"]);
        let ran = ran.expect_code(code).complains(words).complains(&["aa"]);
        assert!(!ran.stdout.contains("Acign"), "{ran}");
        self.liar.lie(|_| {});
        self.liar.end(Ending::Proper);
        assert_eq!(self.b.rows(SQL).len(), 3, "the truth passes again");
    }
}

/// Batches of the table that is asked for, with `rows` rows of `width` bytes.
fn batches(rows: i64, width: usize) -> Vec<FlightData> {
    let text: ArrayRef = std::sync::Arc::new(StringArray::from_iter_values(
        (0..rows).map(|_| "x".repeat(width)),
    ));
    let number: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(0..rows));
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("code", text.clone(), true),
        ("name", text, true),
        ("people", number, true),
    ])
    .unwrap();
    let encoder = Encoder::new(batch.schema()).unwrap();
    encoder.batch_frames(&batch).unwrap()
}

#[test]
fn more_rows_than_were_asked_for_are_cut_off() {
    let stage = Stage::new(&[("ROWS", "100")]);
    let limited = format!("{SQL} LIMIT 2");
    assert_eq!(
        stage
            .b
            .sql(&limited, &["--format", "csv"])
            .ok()
            .stdout
            .lines()
            .count(),
        3
    );
    stage.liar.lie(|frames| {
        let again = frames[1].clone();
        frames.insert(1, again);
    });
    stage.cut_off(&limited, 3, &["more than the 2 rows asked for"]);
    stage.liar.lie(|frames| {
        frames.truncate(1);
        frames.extend(batches(60, 1));
    });
    stage.liar.end(Ending::Repetition);
    stage.cut_off(SQL, 1, &["more than 100 rows"]);
}

#[test]
fn more_bytes_than_are_allowed_are_cut_off() {
    let stage = Stage::new(&[("BYTES", "1MiB")]);
    stage.liar.lie(|frames| {
        frames.truncate(1);
        frames.extend(batches(1, 100_000));
    });
    stage.liar.end(Ending::Repetition);
    stage.cut_off(SQL, 1, &["more than 1048576 bytes"]);
    // Hidden beside the rows, where no table shows them.
    stage.liar.lie(|frames| {
        frames.truncate(1);
        let mut frame = batches(1, 1).remove(0);
        frame.app_metadata = vec![0; 100_000].into();
        frames.push(frame);
    });
    stage.liar.end(Ending::Repetition);
    stage.cut_off(SQL, 1, &["more than 1048576 bytes"]);
}

#[test]
fn batches_without_rows_and_without_end_are_cut_off() {
    let stage = Stage::new(&[]);
    stage.liar.lie(|frames| {
        frames.truncate(1);
        frames.extend(batches(0, 0));
    });
    stage.liar.end(Ending::Repetition);
    stage.cut_off(SQL, 3, &["without rows"]);
}

#[test]
fn silence_ends_with_the_question_s_time() {
    let stage = Stage::new(&[("SECONDS", "6")]);
    for said in [1, 2] {
        stage.liar.lie(move |frames| frames.truncate(said));
        stage.liar.end(Ending::Silence);
        let began = Instant::now();
        stage.cut_off(SQL, 1, &["not done within 6s"]);
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn an_acknowledgement_that_is_not_taken_fails_no_question() {
    let mut stage = Stage::new(&[]);
    let whole = |node: &Node, agency: &str| {
        let exchanges = journal::exchanges(&node.dir, agency);
        exchanges
            .values()
            .filter(|(_, counts)| *counts == [1, 1, 1, 1])
            .count()
    };
    eventually("the first is acknowledged", || whole(&stage.a, "aa") == 1);
    stage.liar.pass_acknowledgements(false);
    let ran: Ran = stage.b.sql(SQL, &["--format", "csv"]).ok();
    assert!(ran.stdout.contains("Acign"), "{ran}");
    let saved = stage.b.sql(SQL, &["--save", "silent.evidence"]).ok();
    assert!(stage.b.work.join("silent.evidence").exists(), "{saved}");
    assert_eq!((whole(&stage.a, "aa"), whole(&stage.b, "bb")), (1, 3));
    // Both go on by themselves when the provider listens again.
    stage.liar.pass_acknowledgements(true);
    eventually("all are acknowledged", || whole(&stage.a, "aa") == 3);
    // And after a crash of the asker, which only its journal outlives.
    stage.liar.pass_acknowledgements(false);
    stage.b.sql(SQL, &["--format", "csv"]).ok();
    stage.b.kill9();
    stage.liar.pass_acknowledgements(true);
    stage.b.start();
    eventually("the last is acknowledged", || whole(&stage.a, "aa") == 4);
}
