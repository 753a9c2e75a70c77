//! What a newcomer types, rightly and wrongly, and what the programs say to it.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{Ran, free_address, run_in};
use jingwei_tests::{Federation, Node};

use crate::pair::Pair;

#[test]
fn an_agency_is_corrected_until_it_is_enrolled() {
    let federation = Federation::start();
    let node = Node::new(federation.dir.path(), "new");
    let key = node.init("aa", 1, "test@1:B", &[]).ok().field("key");
    node.init("aa", 1, "test@1:B", &[])
        .ok()
        .prints(&["unchanged"]);
    node.init("aa", 1, "test@1:C", &["--listen", "127.0.0.1:1"])
        .expect_code(2)
        .complains(&["node.toml", "listen"]);
    node.init("aa", 1, "test@1:C", &[])
        .ok()
        .prints(&["test@1:C (was test@1:B)", "keys are kept"]);
    federation.join(&node).ok();
    let first = std::fs::read(node.proposal("aa")).unwrap();
    node.init("aa", 2, "test@1:A", &[])
        .ok()
        .prints(&["level       2 (was 1)", "made anew"]);
    let second = std::fs::read(node.proposal("aa")).unwrap();
    assert_ne!(first, second, "the request follows the correction");
    node.init("aa", 1, "test@1:A", &[]).ok();
    let enrolled = federation.registry.enrol(&node.proposal("aa")).ok();
    assert_eq!(enrolled.field("key"), key);
    assert_eq!(enrolled.field("territory"), "test@1:A");
    node.init("aa", 1, "test@1:B", &[])
        .expect_code(2)
        .complains(&["enrolled already", "test@1:A", "nothing was changed"]);
}

#[test]
fn an_agency_is_not_corrected_while_nobody_can_tell_whether_it_is_enrolled() {
    let mut federation = Federation::start();
    let node = federation.joined("new", &["aa"]);
    federation.registry.stop();
    node.init("aa", 1, "test@1:B", &[])
        .expect_code(1)
        .complains(&["cannot tell whether aa is enrolled"]);
    let mut served = federation_node(&mut federation);
    served
        .init("bb", 1, "test@1:B", &[])
        .expect_code(1)
        .complains(&["in use"]);
    served.stop();
}

fn federation_node(federation: &mut Federation) -> Node {
    federation.registry.start();
    federation.node("served", &["bb"])
}

#[test]
fn names_and_ancestors_are_asked_for_at_once() {
    let federation = Federation::start();
    let above = federation.node("above", &["fr"]);
    let below = Node::new(federation.dir.path(), "below");
    let named = |name: &str| {
        let more = ["--level", "2", "--territory", "test@1:B"];
        let agency = ["init", "--agency", "fr.bre", "--name", name];
        below.run(&[&agency[..], &more[..]].concat())
    };
    for empty in ["", "  ", "two\nlines"] {
        named(empty).expect_code(2).complains(&["--name"]);
    }
    named("Bretagne")
        .ok()
        .prints(&["B stands alone", "test@1:B<ANCESTOR"]);
    let files = || {
        let entries = std::fs::read_dir(&below.dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    };
    let before = files();
    federation.join(&below).expect_code(2).complains(&[
        "‘B’ ends in none of its codes, A",
        "nothing was written",
        "test@1:B<A",
        "jingwei init",
    ]);
    assert_eq!(files(), before);
    below.init("fr.bre", 2, "test@1:B<A", &[]).ok();
    federation.join(&below).ok();
    // Once it has joined, a correction is checked as well.
    below
        .init("fr.bre", 2, "test@1:B", &[])
        .expect_code(2)
        .complains(&["nothing was written"]);
    let proposal = below.proposal("fr.bre").display().to_string();
    above.run(&["enrol", &proposal, "--yes"]).ok();
    let dir = federation.dir.path().join("other").display().to_string();
    federation
        .registry
        .run(&["init", "--dir", &dir, "--name", "My Land"])
        .expect_code(2)
        .complains(&["My Land", "a-z, 0-9 and inner dashes", "my-land"]);
}

#[test]
fn the_next_step_is_named() {
    let federation = Federation::start();
    let registry = &federation.registry;
    let mut node = Node::new(federation.dir.path(), "new");
    for command in [&["serve"][..], &["sql", "SELECT 1"]] {
        std::fs::create_dir_all(&node.dir).unwrap();
        node.run(command)
            .expect_code(2)
            .complains(&["holds no agency yet", "jingwei init"]);
    }
    let more = [
        "--name",
        "A",
        "--level",
        "national",
        "--territory",
        "test@1:A",
    ];
    node.run(&[&["init", "--agency", "aa"][..], &more].concat())
        .expect_code(2)
        .complains(&["1 national"]);
    node.init("aa", 1, "test@1:A", &[]).ok();
    let began = std::time::Instant::now();
    node.run(&["doctor", "--wait", "600"])
        .expect_code(2)
        .complains(&["joined no federation yet"]);
    assert!(began.elapsed().as_secs() < 300, "it waited for nothing");
    node.run(&["find"])
        .expect_code(2)
        .complains(&["joined no federation yet", "jingwei join"]);
    federation.join(&node).ok();
    let start = format!("start it: jingwei serve --dir {}", node.dir.display());
    for command in [
        &["find"][..],
        &["describe", "aa/places"],
        &["sql", "SELECT 1"],
    ] {
        node.run(command)
            .expect_code(1)
            .complains(&["does not run", &start]);
    }
    let began = std::time::Instant::now();
    node.run(&["doctor", "--wait", "3"])
        .expect_code(1)
        .complains(&["does not run: waiting up to 3 s", "start it: jingwei serve"]);
    assert!(began.elapsed().as_secs() >= 3);
    let proposal = node.proposal("aa").display().to_string();
    let (right, wrong) = (
        registry.dir.display().to_string(),
        node.dir.display().to_string(),
    );
    registry
        .run(&["enrol", "--dir", &wrong, &proposal])
        .expect_code(2)
        .complains(&["holds no registry"]);
    node.start();
    let keepers = "the registry's keepers, who run ‘jingwei-registry enrol’";
    node.run(&["doctor"]).expect_code(1).prints(&[keepers]);
    let (file, schema) = node.places("early", PLACES);
    node.publish(&file, "aa", "early", &schema, "public")
        .expect_code(4)
        .complains(&["not enrolled yet", keepers]);
    // The same command is right with the right directory.
    let address = registry.address.to_string();
    registry
        .run(&[
            "enrol",
            "--dir",
            &right,
            &proposal,
            "--registry",
            &address,
            "--yes",
        ])
        .ok();
    node.run(&["doctor", "--wait", "60"]).ok();
}

/// Who names a wrong address is told which, and how to name another.
#[test]
fn a_registry_that_is_not_there_is_named() {
    let (federation, other) = (Federation::start(), Federation::start());
    let registry = &federation.registry;
    let dir = registry.dir.display().to_string();
    let status = |address: &str| {
        let status = ["status", "--dir", &dir, "--registry", address];
        registry.run(&status)
    };
    let nobody = free_address().to_string();
    status(&nobody)
        .expect_code(1)
        .complains(&[&nobody, "see that the registry runs"]);
    let elsewhere = other.registry.address.to_string();
    status(&elsewhere)
        .expect_code(3)
        .complains(&[&elsewhere, "another registry", "--registry"]);
    std::fs::write(
        registry.dir.join("registry.toml"),
        format!("listen = \"{nobody}\"\n"),
    )
    .unwrap();
    registry
        .run(&["status", "--dir", &dir])
        .expect_code(1)
        .complains(&[&nobody, "--registry HOST:PORT names another"]);
}

/// What no root can have is refused where it is typed, with what it looks like.
#[test]
fn what_a_root_cannot_have_is_not_proposed() {
    let dir = tempfile::tempdir().unwrap();
    let propose = |option: &str, value: &str| {
        let propose = ["root", "propose", "--dir", "registry", option, value];
        run_in(dir.path(), "jingwei-registry", propose).expect_code(2)
    };
    propose("--rules", "7").complains(&["this program knows rules up to 1"]);
    let init = ["init", "--dir", "new", "--name", "a", "--recovery-delay"];
    let init = [&init[..], &["7d"]].concat();
    for ran in [
        propose("--recovery-delay", "7d"),
        run_in(dir.path(), "jingwei-registry", init).expect_code(2),
    ] {
        ran.complains(&["whole number of seconds, such as 604800 for a week"]);
    }
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_key_that_others_can_read_is_told_of_a_node_that_does_not_run() {
    let federation = Federation::start();
    let node = federation.joined("new", &["aa"]);
    let stopped = || {
        let ran = node.run(&["doctor"]).expect_code(1);
        ran.complains(&["does not run"])
    };
    stopped().prints(&["keys        private; agencies hosted: 1"]);
    let keys = ["agencies/aa/journal.pem", "keys/tls.key.pem"];
    for key in keys {
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(node.dir.join(key), open).unwrap();
    }
    let told = stopped();
    assert!(!told.stdout.contains("keys        private"), "{told}");
    for key in keys {
        let path = node.dir.join(key).display().to_string();
        let problem =
            format!("problem     the key file {path} has mode 0644, so others may read it");
        let lines = told.stdout.lines();
        assert_eq!(
            lines.filter(|line| line.starts_with(&problem)).count(),
            1,
            "{told}"
        );
        assert!(told.stdout.contains(&format!("chmod 600 {path}")), "{told}");
    }
}

#[test]
fn another_file_is_not_called_damaged_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let root = Pair::shared().federation.registry.fingerprint.clone();
    for bytes in ["code,name\n".to_owned(), "code,name\n".repeat(1_000)] {
        std::fs::write(dir.path().join("a.csv"), bytes).unwrap();
        let ran = run_in(dir.path(), "jingwei-verify", ["a.csv", "--root", &root]);
        let ran = ran.expect_code(3).prints(&["INVALID", "another file"]);
        assert!(!ran.stdout.contains("at byte"), "{ran}");
    }
}

#[test]
fn the_owner_finds_what_it_withholds() {
    let pair = Pair::shared();
    let found = pair.a.run(&["find", "secret"]).ok();
    found.prints(&["aa/secret@1", "withheld"]);
    let described = pair.a.run(&["describe", "aa/secret"]).ok();
    described.prints(&["aa/secret@1", "withheld", "people", "rows        3"]);
    pair.a.run(&["describe", "aa/secret@1"]).ok();
    pair.a.run(&["describe", "aa/secret@2"]).expect_code(2);
    let found = pair.b.run(&["find"]).ok();
    assert!(!found.stdout.contains("secret"), "{found}");
    let described = pair.b.run(&["describe", "aa/secret"]).expect_code(2);
    assert!(!described.stdout.contains("people"), "{described}");
    // Its own, and only its own.
    pair.b.run(&["find", "own"]).ok().prints(&["bb/own@1"]);
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let pair = Pair::shared();
    let describe = |dataset: &str, words: &[&str]| {
        let ran = pair.b.run(&["describe", dataset]).expect_code(2);
        ran.complains(words);
    };
    for whole in ["places", "places@9", "bb/plases", "zz/places@1"] {
        describe(whole, &["the nearest: ", "aa/places"]);
    }
    describe("nothing_like_it", &["‘jingwei find’"]);
    describe(
        "zb/places",
        &[
            "there is no agency zb in this federation",
            "the nearest agencies: bb; datasets: the nearest: ",
            "aa/places",
        ],
    );
    let found = |word: &str| pair.b.run(&["find", word]).ok();
    found("zb").prints(&["nothing found; the nearest: bb; ‘jingwei find’"]);
    found("plases").prints(&["nothing found; the nearest: aa/places"]);
    found("nothing_like_it").prints(&["nothing found; ‘jingwei find’"]);
    let suspended = pair.b.run(&["suspend", "zb", "--yes"]).expect_code(2);
    suspended.complains(&["there is no agency zb", "the nearest agencies: bb"]);
    let newest = "its newest version is aa/places@2; ‘jingwei describe aa/places’";
    describe("aa/places@9", &["there is no aa/places@9", newest]);
    describe("bb/open@2", &["its only version is bb/open@1"]);
}

#[test]
fn a_description_has_all_that_the_schema_states() {
    let pair = Pair::shared();
    pair.b
        .run(&["describe", "aa/places"])
        .ok()
        .prints(&["version", "published"]);
    let described = pair.b.run(&["describe", "aa/places"]).ok().stdout;
    let rows = |version: &str, rows: &str| {
        described.lines().any(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            cells.first() == Some(&version) && cells.last() == Some(&rows)
        })
    };
    assert!(rows("2", "4") && rows("1", "3"), "{described}");
    let schema = r#"{"type": "object", "properties": {
        "code": {"type": "string", "x-key": true, "x-territory": true, "x-codes": "insee@2024"},
        "day": {"type": "string", "format": "date"},
        "land": {"type": "number", "x-unit": "har/15", "x-concept": "farmland",
            "x-definition": "farmland/registered", "x-reference": "day", "x-grain": "instant",
            "x-additive": ["territory"]}}}"#;
    let stated = pair.a.write("stated.schema.json", schema);
    let file = pair
        .a
        .write("stated.csv", "code,day,land\n1,2024-01-01,2\n");
    pair.a
        .publish(&file, "aa", "stated", &stated, "public")
        .ok();
    pair.a.run(&["describe", "aa/stated"]).ok().prints(&[
        "har/15",
        "key",
        "codes insee@2024",
        "concept farmland",
        "definition farmland/registered",
        "reference day",
        "grain instant",
        "adds up territory",
    ]);
}

#[test]
fn units_are_those_of_ucum_and_dates_are_explained() {
    let pair = Pair::shared();
    let publish = |unit: &str, day: &str| {
        let schema = format!(
            r#"{{"type": "object", "properties": {{"day": {{"type": "string", "format": "date"}},
            "high": {{"type": "number", "x-unit": "{unit}"}}}}}}"#
        );
        let schema = pair.a.write("unit.schema.json", schema);
        let file = pair.a.write("unit.csv", format!("day,high\n{day},2\n"));
        pair.a.publish(&file, "aa", "never", &schema, "public")
    };
    publish("°C", "2024-01-01")
        .expect_code(1)
        .complains(&["high", "x-unit", "‘Cel’"]);
    publish("Cel", "01/02/2024")
        .expect_code(1)
        .complains(&["line 2", "‘day’", "YYYY-MM-DD"]);
    publish("Cel", "1998-13-01").expect_code(1).complains(&[
        "line 2",
        "‘day’",
        "month is 13",
        "YYYY-MM-DD",
    ]);
}

#[test]
fn nothing_is_not_everything() {
    let pair = Pair::shared();
    for option in ["--timeout", "--max-rows"] {
        pair.b
            .sql("SELECT 1", &[option, "0"])
            .expect_code(2)
            .complains(&[option, "1 or more"]);
    }
    pair.b
        .run(&["find", "--limit", "0"])
        .expect_code(2)
        .complains(&["1 or more"]);
    let mut strict = Node::new(pair.federation.dir.path(), "strict");
    strict.init("zz", 1, "test@1:A", &[]).ok();
    strict
        .settings
        .push(("JINGWEI_NODE_QUERY_SECONDS".into(), "0".into()));
    strict
        .run(&["serve"])
        .expect_code(2)
        .complains(&["query.seconds"]);
}

#[test]
fn what_is_wrong_with_the_sql_is_told_and_has_one_exit_code() {
    let pair = Pair::shared();
    let wrong = |sql: &str, words: &[&str]| {
        let ran = pair.b.sql(sql, &["--format", "csv"]);
        ran.expect_code(2).complains(words);
    };
    wrong(
        "SELECT * FROM aa.places WHERE name = \"Hill School\"",
        &["Hill School", "single quotes", "'Hill School'"],
    );
    wrong("SELECT sum(name) FROM aa.places", &["sum", "text"]);
    wrong("SELECT avg(name) FROM aa.places", &["avg", "text"]);
    wrong("SELECT nosuch(code) FROM aa.places", &["nosuch"]);
    wrong("SELECT substr(people) FROM aa.places", &["substr"]);
    wrong("SELECT code + FROM aa.places", &["column"]);
    wrong(
        "SELECT * FROM aa.places WHERE name = Acigne_town",
        &["single quotes", "'Acigne_town'"],
    );
    wrong(
        "SELECT * FROM aa.places WHERE people > 'many'",
        &["the text 'many' cannot be read as integer"],
    );
    wrong(
        "SELECT DATE '1990'",
        &["'1990' cannot be read as date, like '2025-10-01'"],
    );
    wrong(
        "SELECT name, sum(people) FROM aa.places",
        &["‘aa.places.name’", "GROUP BY"],
    );
}

#[test]
fn only_files_are_published() {
    let pair = Pair::shared();
    let (_, schema) = pair.a.places("fifo", PLACES);
    let pipe = pair.a.work.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let publish = |file: &std::path::Path| pair.a.publish(file, "aa", "fifo", &schema, "public");
    publish(&pipe)
        .expect_code(2)
        .complains(&["pipe", "not a file"]);
    publish(&pair.a.work)
        .expect_code(2)
        .complains(&["a directory"]);
    let by_name = |schema: &str| {
        let (file, _) = pair.a.places("fifo", PLACES);
        pair.a
            .publish(&file, "aa", "fifo", schema.as_ref(), "public")
    };
    by_name("missing.schema.json")
        .expect_code(2)
        .complains(&["missing.schema.json"]);
    by_name("comunes").expect_code(2).complains(&["communes"]);
    by_name("aa/none").expect_code(2).complains(&["aa/none"]);
}

#[test]
fn a_node_is_no_registry_and_localhost_is_an_address() {
    let pair = Pair::shared();
    let mut newcomer = Node::new(pair.federation.dir.path(), "lost");
    newcomer.init("zz", 1, "test@1:A", &[]).ok();
    let join = |address: &str| {
        let root = &pair.federation.registry.fingerprint;
        newcomer.run(&["join", &format!("http://{address}"), "--root", root])
    };
    join(&pair.a.listen.to_string())
        .expect_code(1)
        .complains(&["no registry", "a node's port"]);
    join(&pair.federation.registry.address.to_string()).ok();
    for program in ["jingwei", "jingwei-registry"] {
        let dir = pair.federation.dir.path().join("nowhere");
        let listen = [
            "serve",
            "--dir",
            &dir.display().to_string(),
            "--listen",
            "7100",
        ]
        .map(str::to_owned);
        run_in(&pair.a.work, program, listen)
            .expect_code(2)
            .complains(&["localhost:7100"]);
    }
    newcomer.listen = ([127, 0, 0, 1], 0).into();
    let mut serve = newcomer.command(&["serve", "--listen", "localhost:0"]);
    let child = jingwei_tests::child::Child::start("lost", &mut serve);
    let place = child.line("node of ");
    assert!(place.contains("https://127.0.0.1:"), "{place}");
    assert!(child.stop("TERM").success());
}

#[test]
fn who_stops_reading_is_not_an_error() {
    let pair = Pair::shared();
    for format in ["csv", "json", "table", "parquet"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut sql = pair
            .b
            .command(&["sql", "SELECT * FROM aa.places", "--format", format]);
        let output = sql
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{format}: {said}");
        assert!(!said.contains("error"), "{format}: {said}");
    }
    let left = std::fs::read_dir(pair.b.dir.join("staging")).unwrap();
    let left: Vec<_> = left
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    let tables = left
        .iter()
        .any(|name| name.to_string_lossy().starts_with("table-"));
    assert!(!tables, "{left:?}");
}

/// Something that listens where the node would, takes a request in, and is gone.
#[test]
fn a_node_that_dies_under_a_command_is_called_that() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("node.sock")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    let dying = std::thread::spawn(move || {
        for connection in listener.incoming() {
            if told.load(Ordering::Relaxed) {
                return;
            }
            // The first bytes of HTTP/2: the command has begun.
            let _ = connection.unwrap().read(&mut [0; 64]);
        }
    });
    std::fs::create_dir(dir.path().join("staging")).unwrap();
    std::fs::write(dir.path().join("a.csv"), PLACES).unwrap();
    let here = dir.path().display().to_string();
    let run = |arguments: &[&str]| -> Ran {
        let all = [arguments, &["--dir", &here]].concat();
        run_in(dir.path(), "jingwei", all)
    };
    for arguments in [
        &[
            "publish",
            "a.csv",
            "--as",
            "a",
            "--schema",
            "communes",
            "--sharing",
            "public",
        ][..],
        &["sql", "SELECT 1"],
    ] {
        run(arguments)
            .expect_code(1)
            .complains(&["the node stopped", "jingwei serve"]);
    }
    over.store(true, Ordering::Relaxed);
    let _ = UnixStream::connect(dir.path().join("node.sock"));
    dying.join().unwrap();
}

#[test]
fn what_is_over_is_no_problem_any_more() {
    let mut pair = Pair::bare();
    pair.federation.registry.stop();
    pair.a
        .until("troubled", |status| !status.problem.is_empty());
    pair.a
        .run(&["doctor"])
        .expect_code(1)
        .prints(&["cannot be read"]);
    pair.federation.registry.start();
    pair.a.run(&["doctor"]).ok().prints(&["all is well"]);
}
