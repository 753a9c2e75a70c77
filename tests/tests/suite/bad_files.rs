//! Files and schemas that cannot be published: a clear error, exit code 1, nothing entered.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jingwei_tests::Ran;
use jingwei_tests::node::{PLACES, SCHEMA};
use jingwei_tests::reading::LogFiles;

use crate::pair::Pair;

/// Publishes a file that must be refused, and checks that the log has not grown by it.
fn refused(
    pair: &Pair,
    name: &str,
    content: impl AsRef<[u8]>,
    schema: &str,
    words: &[&str],
) -> Ran {
    let file = pair.a.write(&format!("{name}.csv"), content);
    let schema = pair.a.write(&format!("{name}.schema.json"), schema);
    let ran = pair
        .a
        .publish(&file, "aa", name, &schema, "public")
        .complains(words);
    assert_eq!(ran.code, 1, "{ran}");
    not_entered(pair, name);
    ran
}

fn not_entered(pair: &Pair, name: &str) {
    let log = LogFiles::read(&pair.federation.registry.dir.join("log"));
    let word = format!("dataset/aa/{name}");
    for bytes in &log.envelopes {
        let envelope = jingwei_proto::dsse::Envelope::parse(bytes).unwrap();
        let text = String::from_utf8_lossy(envelope.payload()).into_owned();
        assert!(
            !text.contains(&word) && !text.contains(&format!("\"name\":\"{name}\"")),
            "{name} was entered"
        );
    }
}

#[test]
fn broken_csv() {
    let pair = Pair::shared();
    refused(
        &pair,
        "ragged",
        "code,name,people\n35001,Acigné,6930\n35002,Amanlis\n",
        SCHEMA,
        &["line 3", "2 cells", "3 columns"],
    );
    refused(
        &pair,
        "quotes",
        "code,name,people\n35001,\"Acigné,6930\n",
        SCHEMA,
        &["line 2"],
    );
    refused(
        &pair,
        "bytes",
        b"code,name,people\n35001,Acign\xe9,6930\n",
        SCHEMA,
        &["line 2", "UTF-8"],
    );
    refused(&pair, "empty", "", SCHEMA, &["empty"]);
    for (name, words) in [
        ("ragged", "3,,\"35002,Amanlis\""),
        ("quotes", "never closed"),
    ] {
        let list = pair.a.work.join(format!("{name}.csv.rejects.csv"));
        let list = std::fs::read_to_string(list).unwrap();
        assert!(list.contains(words), "{list}");
    }
}

#[test]
fn a_list_of_rejects_is_gone_when_the_file_is_published() {
    let pair = Pair::shared();
    let bad = "code,name,people\n3500,Amanlis,1763\n";
    refused(&pair, "mended", bad, SCHEMA, &["mended.csv.rejects.csv"]);
    let list = pair.a.work.join("mended.csv.rejects.csv");
    assert!(list.exists());
    pair.a
        .publish_places("aa", "mended", "public", PLACES)
        .prints(&["removed", "mended.csv.rejects.csv"]);
    assert!(!list.exists());
    // Another file of that name is not ours to remove.
    std::fs::write(&list, "line,column,value\n").unwrap();
    let again = pair.a.publish_places("aa", "mended", "public", PLACES);
    assert!(
        !again.stdout.contains("removed") && list.exists(),
        "{again}"
    );
}

#[test]
fn where_no_list_can_be_written_the_violations_are_shown_all_the_same() {
    let pair = Pair::shared();
    let list = pair.a.work.join("unlisted.csv.rejects.csv");
    // Not even its owner writes to a directory as to a file.
    std::fs::create_dir(&list).unwrap();
    let bad = "code,name,people\n3500,Amanlis,1763\n";
    let words = [
        "line 2, column ‘code’",
        "1 row breaks the schema; nothing was published",
        "the list cannot be written to /",
        "/unlisted.csv.rejects.csv: ",
    ];
    refused(&pair, "unlisted", bad, SCHEMA, &words);
}

#[test]
fn invalid_rows_are_listed_and_nothing_is_published() {
    let pair = Pair::shared();
    let csv = "code,name,people\n35001,Acigné,6930\n3500,Amanlis,1763\n35003,,many\n";
    let ran = refused(
        &pair,
        "invalid",
        csv,
        SCHEMA,
        &[
            "line 3",
            "code",
            "3500",
            "line 4",
            "people",
            "many",
            "nothing was published",
        ],
    );
    assert!(!ran.stderr.contains("line 2,"), "{ran}");
    let rejects = std::fs::read_to_string(pair.a.work.join("invalid.csv.rejects.csv")).unwrap();
    assert!(rejects.lines().count() >= 4, "{rejects}");
    assert!(rejects.contains("many"), "{rejects}");
}

#[test]
fn only_the_first_twenty_rejects_are_shown() {
    let pair = Pair::shared();
    let rows: String = (0..100).map(|n| format!("x{n},Place,1\n")).collect();
    let ran = refused(
        &pair,
        "hundred",
        format!("code,name,people\n{rows}"),
        SCHEMA,
        &["100 rows", "shown are the first 20 of 100 violations"],
    );
    assert_eq!(
        ran.stderr
            .lines()
            .filter(|line| line.starts_with("line "))
            .count(),
        20,
        "{ran}"
    );
    let rejects = std::fs::read_to_string(pair.a.work.join("hundred.csv.rejects.csv")).unwrap();
    assert_eq!(rejects.lines().count(), 101);
}

#[test]
fn a_schema_that_is_none() {
    let pair = Pair::shared();
    for (n, (schema, words)) in [
        ("code,name\n", &["the schema is not acceptable JSON"][..]),
        ("{\"type\": 5}", &["schema"]),
        ("{\"type\": \"array\"}", &["object"]),
        ("{\"type\": \"object\", \"properties\": {\"code\": {\"type\": \"string\", \"pattern\": \"(\"}}}", &["pattern"]),
        ("{\"type\": \"object\", \"properties\": {\"code\": {\"type\": \"string\", \"x-unti\": \"m\"}}}", &["x-unti"]),
        ("{\"type\": \"object\", \"properties\": {\"code\": {\"type\": \"string\", \"patern\": \"^a\"}}}", &["/properties/code/patern", "did you mean ‘pattern’"]),
        ("{\"type\": \"object\", \"properties\": {\"code\": {\"type\": \"string\", \"format\": \"dat\"}}}", &["/properties/code/format", "did you mean ‘date’"]),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("schema{n}");
        let ran = refused(&pair, &name, PLACES, schema, words);
        ran.complains(&[&format!("{name}.schema.json: ")]);
    }
    let file = pair.a.write("places-none.csv", PLACES);
    let ran = pair.a.publish(
        &file,
        "aa",
        "none",
        Path::new("no-such.schema.json"),
        "public",
    );
    ran.expect_code(2).complains(&["no-such.schema.json"]);
    pair.a
        .publish(&file, "aa", "none", Path::new("aa/no_such"), "public")
        .complains(&["aa/no_such"]);
}

#[test]
fn columns_missing_unknown_or_twice() {
    let pair = Pair::shared();
    refused(
        &pair,
        "missing",
        "code,people\n35001,6930\n",
        SCHEMA,
        &["the required column ‘name’ is missing"],
    );
    refused(
        &pair,
        "unknown",
        "code,name,peeple\n35001,Acigné,6930\n",
        SCHEMA,
        &["‘peeple’", "did you mean ‘people’"],
    );
    refused(
        &pair,
        "double",
        "code,name,name\n35001,Acigné,Acigné\n",
        SCHEMA,
        &["two columns are called ‘name’"],
    );
}

#[test]
fn a_row_of_100_mb() {
    let pair = Pair::shared();
    let path = pair.a.work.join("giant.csv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    file.write_all(b"code,name,people\n35001,").unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        file.write_all(&chunk).unwrap();
    }
    file.write_all(b",1\n").unwrap();
    drop(file);
    let schema = pair.a.write("giant.schema.json", SCHEMA);
    let ran = pair
        .a
        .publish(&path, "aa", "giant", &schema, "public")
        .expect_code(1);
    ran.complains(&["line 2", "1048576"]);
    not_entered(&pair, "giant");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let pair = Pair::shared();
    let row = format!("35001,{},1\n", "x".repeat(10_000));
    let path = pair.a.write(
        "changing.csv",
        format!("code,name,people\n{}", row.repeat(4_000)),
    );
    let schema = pair.a.write("changing.schema.json", SCHEMA);
    let over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (over, path) = (over.clone(), path.clone());
        move || {
            let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
            while !over.load(Ordering::SeqCst) {
                file.write_all(b"35002,Amanlis,1\n").unwrap();
                std::thread::yield_now();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    });
    let ran = pair.a.publish(&path, "aa", "changing", &schema, "public");
    over.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    ran.expect_code(1).complains(&["changing.csv", "changed"]);
    not_entered(&pair, "changing");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_is_not_there_has_one_exit_code() {
    let pair = Pair::shared();
    let root = pair.federation.registry.fingerprint.as_str();
    let here = |arguments: &[&str]| pair.a.run(arguments);
    let offline = |program: &str, arguments: &[&str]| {
        jingwei_tests::programs::run_in(&pair.a.work, program, arguments.iter().copied())
    };
    pair.a.write("some.tar", "some");
    for ran in [
        here(&[
            "publish",
            "gone",
            "--as",
            "gone",
            "--schema",
            "communes",
            "--sharing",
            "public",
        ]),
        here(&["schema", "gone", "--as", "gone"]),
        here(&["enrol", "gone", "--yes"]),
        here(&["recover", "gone", "--yes"]),
        offline("jingwei-verify", &["gone", "--root", root]),
        offline(
            "jingwei-verify",
            &["some.tar", "--root", root, "--export", "gone"],
        ),
        offline("jingwei", &["verify", "gone", "--root", root]),
        offline(
            "jingwei",
            &[
                "evidence",
                "export",
                "gone",
                "--root",
                root,
                "--sigstore",
                "to",
            ],
        ),
    ] {
        ran.expect_code(2).complains(&["cannot read gone"]);
    }
}

#[test]
fn wrong_use_is_told_apart() {
    let pair = Pair::shared();
    let (file, schema) = pair.a.places("wrong-use", PLACES);
    pair.a
        .publish(&file, "aa", "Not A Name", &schema, "public")
        .expect_code(2);
    pair.a
        .publish(&file, "aa", "wrong_use", &schema, "secret")
        .expect_code(2)
        .complains(&["public", "withheld"]);
    pair.a
        .publish(
            Path::new("no-such-file.csv"),
            "aa",
            "wrong_use",
            &schema,
            "public",
        )
        .expect_code(2)
        .complains(&["no-such-file.csv"]);
    pair.a
        .publish(&file, "zz", "wrong_use", &schema, "public")
        .expect_code(2)
        .complains(&["does not host ‘zz’", "aa"]);
}
