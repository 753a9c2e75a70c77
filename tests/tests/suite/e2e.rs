//! What people do with a federation, from the command line, in separate processes.

use jingwei_proto::statement::parse_fingerprint;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::mpsc;

use jingwei_tests::Ran;
use jingwei_tests::child::{Child, PATIENCE};
use jingwei_tests::journal;
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{command, eventually};

use crate::pair::Pair;

const PLACES_SQL: &str = "SELECT code, name, people FROM aa.places";

#[test]
fn a_dataset_is_found_described_and_asked_for() {
    let pair = Pair::shared();
    pair.b
        .run(&["find"])
        .ok()
        .prints(&["aa/places@2", "aa/reserved@1", "bb/open@1"]);
    let found = pair.b.run(&["find", "plac"]).ok();
    assert!(!found.stdout.contains("bb/open"), "{found}");
    pair.b.run(&["describe", "aa/places"]).ok().prints(&[
        "aa/places@2 (newest: 2)",
        "unconditional",
        "Agency aa",
        "people",
        "SHA-256",
        "in SQL",
    ]);
    pair.b
        .run(&["describe", "aa/places@1"])
        .ok()
        .prints(&["aa/places@1", "rows        3"]);
    let ran = pair
        .b
        .sql(
            "SELECT count(*) AS n, sum(people) AS all FROM aa.places",
            &["--format", "csv"],
        )
        .ok();
    assert_eq!(ran.stdout, "n,all\n4,9572\n", "{ran}");
    ran.complains(&["aa/places@2 answered"]);
    assert_eq!(pair.b.rows("SELECT count(*) FROM aa.\"places@1\""), ["3"]);
    // The same from the publisher's own node, and of the asker's own dataset.
    assert_eq!(pair.a.rows(PLACES_SQL), pair.b.rows(PLACES_SQL));
    assert_eq!(pair.b.rows("SELECT count(*) FROM bb.own"), ["2"]);
    assert_eq!(pair.b.rows("SELECT 1 + 1"), ["2"]);
}

#[test]
fn joins_and_unions_go_across_agencies() {
    let pair = Pair::shared();
    let join = "SELECT p.name, p.people, o.people AS other FROM aa.places p JOIN bb.open o ON p.code = o.code";
    assert_eq!(pair.a.rows(join), ["Amanlis,1763,1800"]);
    assert_eq!(pair.b.rows(join), ["Amanlis,1763,1800"]);
    let union = "SELECT code, 'aa' AS who FROM aa.places UNION ALL SELECT code, 'bb' FROM bb.open";
    assert_eq!(pair.a.rows(union).len(), 6);
    assert_eq!(pair.a.rows(union), pair.b.rows(union));
    let only = "SELECT code FROM bb.open EXCEPT SELECT code FROM aa.places";
    assert_eq!(pair.a.rows(only), ["35009"]);
    let window = "SELECT code, rank() OVER (ORDER BY people DESC NULLS LAST) AS r FROM aa.places WHERE people > 1000";
    assert_eq!(pair.b.rows(window), ["35001,1", "35002,2"]);
}

#[test]
fn sharing_classes_are_enforced_at_the_provider() {
    let pair = Pair::shared();
    let ran = pair
        .b
        .sql("SELECT * FROM aa.reserved", &["--format", "csv"])
        .expect_code(4)
        .complains(&[
            "refused by aa: aa/reserved@1",
            "a grant is needed",
            "ask its agency",
            "‘unconditional’",
        ]);
    assert!(!ran.stdout.contains("Acign"), "{ran}");
    // A withheld dataset is not even named to others.
    let ran = pair
        .b
        .sql("SELECT * FROM aa.secret", &["--format", "csv"])
        .expect_code(2);
    assert!(!ran.stdout.contains("Acign"), "{ran}");
    let found = pair.b.run(&["find"]).ok();
    assert!(!found.stdout.contains("secret"), "{found}");
    // A join with something refused yields nothing at all.
    let join = "SELECT * FROM aa.reserved r JOIN bb.open o ON r.code = o.code";
    let ran = pair.b.sql(join, &["--format", "csv"]).expect_code(4);
    assert!(!ran.stdout.contains("Amanlis"), "{ran}");
    // The owner reads all that is its own.
    assert_eq!(pair.a.rows("SELECT count(*) FROM aa.reserved"), ["3"]);
    assert_eq!(pair.a.rows("SELECT count(*) FROM aa.secret"), ["3"]);
}

#[test]
fn a_withheld_dataset_shares_its_name_with_no_other() {
    let pair = Pair::with_places();
    let (file, schema) = pair.a.places("names", PLACES);
    for (name, first, then, what) in [
        (
            "shown",
            "public",
            "withheld",
            "a dataset that others may see",
        ),
        ("hidden", "withheld", "unconditional", "a withheld dataset"),
    ] {
        pair.a.publish(&file, "aa", name, &schema, first).ok();
        pair.a
            .publish(&file, "aa", name, &schema, then)
            .expect_code(2)
            .complains(&[&format!("aa/{name} is {what} already"), "another name"]);
    }
    // Among those that others know of, a class may change.
    pair.a
        .publish(&file, "aa", "shown", &schema, "conditional")
        .ok()
        .prints(&["aa/shown@2"]);
}

#[test]
fn answers_come_in_every_format() {
    let pair = Pair::shared();
    let sql = "SELECT code, people FROM aa.places ORDER BY code";
    let csv = pair.b.sql(sql, &["--format", "csv"]).ok();
    assert_eq!(
        csv.stdout,
        "code,people\n35001,6930\n35002,1763\n35003,879\n35004,\n"
    );
    let json = pair.b.sql(sql, &["--format", "json", "--quiet"]).ok();
    assert_eq!(json.stderr, "");
    let rows: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        rows[1],
        serde_json::json!({"code": "35002", "people": 1763})
    );
    assert_eq!(rows.as_array().unwrap().len(), 4);
    let table = pair.b.sql(sql, &[]).ok();
    assert!(
        table.stdout.contains("35003") && table.stdout.contains("879"),
        "{table}"
    );
    // A file holds the whole answer, or there is none.
    for output in [
        &["--output", "answer.txt"][..],
        &["--format", "table", "--output", "answer.csv"],
    ] {
        pair.b
            .sql(sql, output)
            .expect_code(2)
            .complains(&[output[output.len() - 1], ".parquet"]);
    }
    let file = pair.b.work.join("all-formats.parquet");
    pair.b
        .sql(
            sql,
            &["--format", "parquet", "--output", "all-formats.parquet"],
        )
        .ok();
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(
        (&bytes[..4], &bytes[bytes.len() - 4..]),
        (&b"PAR1"[..], &b"PAR1"[..])
    );
    // What was exported can be published again: the types have survived.
    let schema = pair.b.write(
        "places.schema.json",
        jingwei_tests::node::SCHEMA.replace(", \"name\"", ""),
    );
    pair.b
        .publish(&file, "bb", "again", &schema, "public")
        .ok()
        .prints(&["bb/again@1", "rows        4"]);
    assert_eq!(
        pair.b.rows("SELECT code, people FROM bb.again"),
        pair.b.rows(sql)
    );
}

#[test]
fn evidence_verifies_offline_and_binds_the_export() {
    let pair = Pair::shared();
    let asked = [
        "--format",
        "csv",
        "--output",
        "answer.csv",
        "--save",
        "answer.evidence",
        "--purpose",
        "a test",
        "--legal-basis",
        "Act 1",
    ];
    pair.b
        .sql(
            "SELECT p.name FROM aa.places p JOIN bb.open o ON p.code = o.code",
            &asked,
        )
        .ok();
    let fingerprint = &pair.federation.registry.fingerprint;
    let verify = |program: &str, arguments: &[&str]| {
        Ran::run(
            command(program)
                .args(arguments)
                .args(["--root", fingerprint])
                .current_dir(&pair.b.work),
        )
    };
    let words = [
        "VALID: bb asked",
        "aa/places@2",
        "a test",
        "Act 1",
        "SELECT p.name",
    ];
    let by_verifier = verify("jingwei-verify", &["answer.evidence"])
        .ok()
        .prints(&words);
    assert_eq!(
        verify("jingwei", &["verify", "answer.evidence"])
            .ok()
            .stdout,
        by_verifier.stdout
    );
    verify(
        "jingwei-verify",
        &["answer.evidence", "--export", "answer.csv"],
    )
    .ok();
    pair.b.write("other.csv", "name\nRennes\n");
    verify(
        "jingwei-verify",
        &["answer.evidence", "--export", "other.csv"],
    )
    .expect_code(3)
    .prints(&["INVALID"]);

    let mut bytes = std::fs::read(pair.b.work.join("answer.evidence")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    pair.b.write("changed.evidence", &bytes);
    for program in ["jingwei", "jingwei-verify"] {
        let arguments: &[&str] = if program == "jingwei" {
            &["verify", "changed.evidence"]
        } else {
            &["changed.evidence"]
        };
        let ran = verify(program, arguments).expect_code(3);
        assert!(ran.stdout.starts_with("INVALID: "), "{ran}");
    }
    // Another federation's root.
    let other = "A".repeat(52);
    Ran::run(
        command("jingwei-verify")
            .args(["answer.evidence", "--root", &other])
            .current_dir(&pair.b.work),
    )
    .expect_code(3)
    .prints(&["INVALID", "fingerprint"]);
    assert!(parse_fingerprint(fingerprint).is_some());
    // Nothing but the file's owner needs the network: it verifies with every server gone, too;
    // here the verifier simply has no address that it could connect to.
    verify("jingwei-verify", &["no-such-file.evidence"]).expect_code(2);
}

#[test]
fn the_same_file_published_twice_is_one_version() {
    let pair = Pair::shared();
    pair.a
        .publish_places("aa", "twice", "public", PLACES)
        .prints(&["published   aa/twice@1"]);
    pair.a
        .publish_places("aa", "twice", "public", PLACES)
        .prints(&["unchanged   aa/twice@1"]);
    pair.a
        .publish_places("aa", "twice", "unconditional", PLACES)
        .prints(&["published   aa/twice@2"]);
    let more = format!("{PLACES}35010,Bais,2300\n");
    pair.a
        .publish_places("aa", "twice", "unconditional", &more)
        .prints(&["published   aa/twice@3", "rows        4"]);
}

#[test]
fn nodes_answer_without_the_registry_and_name_who_is_missing() {
    let mut pair = Pair::with_places();
    let before = pair.b.rows(PLACES_SQL);
    assert_eq!(before.len(), 3);
    pair.federation.registry.kill9();
    assert_eq!(pair.b.rows(PLACES_SQL), before);
    // A publication without a registry says so, and loses nothing.
    let (file, schema) = pair.b.places("later", PLACES);
    pair.b
        .publish(&file, "bb", "later", &schema, "public")
        .expect_code(1)
        .complains(&["registry"]);
    pair.a.kill9();
    let ran = pair
        .b
        .sql(PLACES_SQL, &["--format", "csv"])
        .expect_code(5)
        .complains(&[
            "the answer is incomplete: aa: ",
            "ask again",
            "‘jingwei doctor’",
            "call the people of aa",
        ]);
    assert!(!ran.stdout.contains("Acign"), "{ran}");
    pair.federation.registry.start();
    pair.a.start();
    pair.b
        .publish(&file, "bb", "later", &schema, "public")
        .ok()
        .prints(&["bb/later@1"]);
    pair.federation.settle(&[&pair.a, &pair.b]);
    assert_eq!(pair.a.rows("SELECT count(*) FROM bb.later"), ["3"]);
    assert_eq!(pair.b.rows(PLACES_SQL), before);
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let mut pair = Pair::with_places();
    let (before, found) = (pair.b.rows(PLACES_SQL), pair.b.run(&["find"]).ok().stdout);
    for node in [&mut pair.a, &mut pair.b] {
        node.stop();
        std::fs::remove_dir_all(node.dir.join("replica/index")).unwrap();
    }
    pair.federation.registry.stop();
    std::fs::remove_dir_all(pair.federation.registry.dir.join("index")).unwrap();
    // The nodes need no registry for it: the log is theirs.
    pair.a.start();
    pair.b.start();
    assert_eq!(pair.b.rows(PLACES_SQL), before);
    assert_eq!(pair.b.run(&["find"]).ok().stdout, found);
    pair.federation.registry.start();
    pair.a
        .publish_places("aa", "places", "unconditional", "code,name\n35001,Acigné\n")
        .prints(&["aa/places@2"]);
    pair.federation.settle(&[&pair.b]);
    assert_eq!(pair.b.rows("SELECT count(*) FROM aa.places"), ["1"]);
}

#[test]
fn a_superior_enrols_whom_it_answers_for() {
    let federation = jingwei_tests::Federation::start();
    let mut above = federation.joined("above", &["fr"]);
    let mut below = jingwei_tests::Node::new(federation.dir.path(), "below");
    below.init("fr.bre", 2, "test@1:B<A", &[]).ok();
    below.init("fr.far", 2, "test@1:X<Y", &[]).ok();
    // As long as nobody knows what fr answers for, all may be asked for.
    federation
        .join(&below)
        .ok()
        .prints(&["fr is not enrolled yet", "give it to fr"]);
    federation.registry.enrol(&above.proposal("fr")).ok();
    above.start();
    above.until_announced();
    // The registry's own command refuses to skip the superior.
    federation
        .registry
        .enrol(&below.proposal("fr.bre"))
        .expect_code(4)
        .complains(&["fr"]);
    let enrol = |agency: &str| {
        above.run(&[
            "enrol",
            &below.proposal(agency).display().to_string(),
            "--yes",
        ])
    };
    // Without a terminal, and without --yes, nothing is signed.
    above
        .run(&["enrol", &below.proposal("fr.bre").display().to_string()])
        .expect_code(2);
    enrol("fr.bre").ok().prints(&["fr.bre", "log entry"]);
    enrol("fr.far")
        .expect_code(4)
        .complains(&["test@1:X", "within", "test@1:A"]);
    below.start();
    below.until("announced for fr.bre", |status| {
        status
            .agencies
            .iter()
            .any(|agency| agency.id == "fr.bre" && agency.announced)
    });
    // A node with several agencies asks to be told which; here one is not enrolled yet.
    let (file, schema) = below.places("places", PLACES);
    below
        .publish(&file, "fr.far", "places", &schema, "public")
        .expect_code(4)
        .complains(&["fr.far", "enrol"]);
    below
        .publish(&file, "fr.bre", "places", &schema, "public")
        .ok();
    federation.settle(&[&above]);
    assert_eq!(above.rows("SELECT count(*) FROM \"fr.bre\".places"), ["3"]);
    below
        .run(&["doctor"])
        .expect_code(1)
        .prints(&["fr.far is not enrolled"]);
    above.run(&["doctor"]).ok().prints(&["all is well"]);
}

#[test]
fn a_standard_is_entered_by_whom_the_root_allows_and_used_by_name() {
    let federation = jingwei_tests::Federation::start();
    let mut standards = jingwei_tests::Node::new(federation.dir.path(), "standards");
    standards
        .init("std-office", 1, "test@1:A", &["--standards"])
        .ok();
    federation.join(&standards).ok();
    federation
        .registry
        .enrol(&standards.proposal("std-office"))
        .ok();
    standards.start();
    standards.until_announced();
    let office = federation.node("office", &["bb"]);
    let (file, schema) = office.places("places", PLACES);
    let schema = schema.display().to_string();
    let enter = ["schema", &schema, "--as", "places"];
    office.run(&enter).expect_code(4).complains(&["standards"]);
    let first = standards.run(&enter).ok();
    first.clone().prints(&["entered     places version 1"]);
    let again = standards.run(&enter).ok();
    again
        .clone()
        .prints(&["unchanged   places version 1: nothing to do"]);
    assert_eq!(again.field("log entry"), first.field("log entry"));
    federation.settle(&[&office]);
    let named = std::path::Path::new("std-office/places");
    office.publish(&file, "bb", "places", named, "public").ok();
    let ndjson = office.write("rows.ndjson", "{\"code\":\"35001\",\"name\":\"Acigné\"}\n");
    office
        .publish(&ndjson, "bb", "lines", named, "public")
        .ok()
        .prints(&["rows        1"]);
    let json = office.write(
        "rows.json",
        "[{\"code\":\"35001\",\"name\":\"Acigné\",\"people\":7}]",
    );
    office
        .publish(&json, "bb", "array", named, "public")
        .ok()
        .prints(&["rows        1"]);
    federation.settle(&[&standards]);
    let all = "SELECT name FROM bb.lines UNION ALL SELECT name FROM bb.array";
    assert_eq!(standards.rows(all), ["Acigné", "Acigné"]);
}

#[test]
fn one_request_id_is_logged_at_both_nodes() {
    let pair = Pair::with_places();
    assert_eq!(pair.b.rows(PLACES_SQL).len(), 3);
    // A line is written before what it tells of, and may be read after that.
    for node in [&pair.a, &pair.b] {
        eventually("it is logged", || !answered(&node.log()).is_empty());
    }
    let asked = answered(&pair.b.log());
    let provided = answered(&pair.a.log());
    assert_eq!(
        asked.len(),
        1,
        "the asker's log:\n{}",
        pair.b.log().join("\n")
    );
    assert_eq!(
        provided,
        asked,
        "the provider's log:\n{}",
        pair.a.log().join("\n")
    );
}

/// The request ids of the lines that say an exchange was answered.
fn answered(log: &[String]) -> Vec<String> {
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .filter(|line| line["message"] == "answered" && !line["dataset"].is_null())
        .map(|line| {
            let spans = line["spans"].as_array().cloned().unwrap_or_default();
            let mut ids = spans
                .iter()
                .chain([&line["span"], &line])
                .filter_map(|span| span["id"].as_str());
            ids.next()
                .unwrap_or_else(|| panic!("a line without a request id: {line}"))
                .to_owned()
        })
        .collect()
}

#[test]
fn interrupting_a_question_stops_the_work_at_the_provider() {
    let pair = Pair::bare();
    // More than all buffers on the way can hold, so that the provider is still sending.
    let name = "x".repeat(1_000);
    let rows: String = (0..40_000)
        .map(|n| format!("{n:05},{name},{n}\n"))
        .collect();
    pair.a.publish_places(
        "aa",
        "large",
        "public",
        &format!("code,name,people\n{rows}"),
    );
    pair.federation.settle(&[&pair.b]);
    // The file under way is a pipe here, which takes in as much as somebody reads.
    let under_way = pair.b.work.join("large.csv.partial");
    let made = std::process::Command::new("mkfifo")
        .arg(&under_way)
        .status();
    assert!(made.unwrap().success());
    let sql = ["sql", "SELECT * FROM aa.large", "--output", "large.csv"];
    let asking = Child::start("asking", &mut pair.b.command(&sql));
    // The first row has come; from here on nobody reads.
    let _reader = begun(under_way);
    asking.interrupt();
    pair.a.until_log("the answer was cut off");
    // Request, acceptance and a receipt, but no acknowledgement.
    eventually("the aborted receipt is in the journal", || {
        let exchanges = journal::exchanges(&pair.a.dir, "aa");
        let counts: Vec<[usize; 4]> = exchanges.values().map(|(_, counts)| *counts).collect();
        assert_eq!(counts.iter().map(|counts| counts[3]).sum::<usize>(), 0);
        counts == [[1, 1, 1, 0]]
    });
    let receipt = journal::read(&pair.a.dir, "aa")
        .into_iter()
        .find(|record| record.kind == 3)
        .unwrap();
    let envelope = jingwei_proto::dsse::Envelope::parse(&receipt.body).unwrap();
    let text = String::from_utf8(envelope.payload().to_vec()).unwrap();
    assert!(text.contains("\"aborted\""), "{text}");
    assert!(!pair.b.work.join("large.csv").exists());
    // Both nodes go on.
    assert_eq!(pair.b.rows("SELECT count(*) FROM aa.large"), ["40000"]);
}

/// Waits until something is written to a named pipe, and holds it open.
fn begun(pipe: PathBuf) -> std::fs::File {
    let (sender, opened) = mpsc::sync_channel(1);
    // To open a pipe that nobody writes to never ends.
    std::thread::spawn(move || {
        let mut reader = std::fs::File::open(pipe).unwrap();
        reader.read_exact(&mut [0; 16]).unwrap();
        sender.send(reader)
    });
    opened.recv_timeout(PATIENCE).expect("the first rows come")
}
