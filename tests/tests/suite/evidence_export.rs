//! Evidence for tools that know nothing of Jingwei. That such tools accept it is tried in
//! `tests/interop`; here is what the command does with files and with what it is told.

use std::fs;
use std::path::Path;

use jingwei_tests::Ran;
use jingwei_tests::programs::command;
use serde_json::Value;

use crate::pair::Pair;

fn export(pair: &Pair, file: &str, root: &str, more: &[&str]) -> Ran {
    let mut jingwei = command("jingwei");
    jingwei.current_dir(&pair.b.work);
    jingwei.args(["evidence", "export", file, "--root", root]);
    Ran::run(jingwei.args(more))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn statements_are_exported_as_sigstore_bundles_after_they_were_verified() {
    let pair = Pair::shared();
    let sql = "SELECT code FROM aa.places";
    pair.b.sql(sql, &["--save", "exported.evidence"]).ok();
    let (root, work) = (&pair.federation.registry.fingerprint, &pair.b.work);
    export(&pair, "exported.evidence", root, &["--sigstore", "bundles"])
        .ok()
        .prints(&["trusted-root.json", "0.sigstore.json"]);
    let bundles = names(&work.join("bundles"));
    // The root, two enrolments and a manifest.
    assert_eq!(bundles.len(), 4 + 2, "{bundles:?}");
    let keys = names(&work.join("bundles/keys"));
    for name in bundles
        .iter()
        .filter(|name| name.ends_with(".sigstore.json"))
    {
        let bundle = fs::read(work.join("bundles").join(name)).unwrap();
        let bundle: Value = serde_json::from_slice(&bundle).unwrap();
        let hint = &bundle["verificationMaterial"]["publicKey"]["hint"];
        let key = format!("{}.pem", hint.as_str().unwrap());
        assert!(
            keys.contains(&key),
            "{name} names {key}, and there are {keys:?}"
        );
        let pem = fs::read_to_string(work.join("bundles/keys").join(key)).unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    }

    let one = ["--statement", "0", "--sigstore", "root"];
    export(&pair, "exported.evidence", root, &one).ok();
    assert_eq!(
        names(&work.join("root")),
        ["0.sigstore.json", "keys", "trusted-root.json"]
    );
}

#[test]
fn nothing_is_exported_that_does_not_hold_and_nothing_written_over() {
    let pair = Pair::shared();
    pair.b
        .sql("SELECT code FROM bb.open", &["--save", "own.evidence"])
        .ok();
    let (root, work) = (&pair.federation.registry.fingerprint, &pair.b.work);
    let mut bytes = fs::read(work.join("own.evidence")).unwrap();
    bytes[700] ^= 1;
    fs::write(work.join("changed.evidence"), bytes).unwrap();
    export(&pair, "changed.evidence", root, &["--sigstore", "refused"])
        .expect_code(3)
        .complains(&["changed.evidence", "INVALID"]);
    let other = root.replace(|c: char| c.is_ascii_alphabetic(), "A");
    export(&pair, "own.evidence", &other, &["--sigstore", "refused"]).expect_code(3);
    let missing = ["--sigstore", "refused", "--statement", "99999"];
    export(&pair, "own.evidence", root, &missing)
        .expect_code(2)
        .complains(&["no statement 99999", "it holds 0,"]);
    assert!(!work.join("refused").exists());

    fs::create_dir(work.join("full")).unwrap();
    fs::write(work.join("full/mine"), "mine").unwrap();
    export(&pair, "own.evidence", root, &["--sigstore", "full"])
        .expect_code(2)
        .complains(&["not empty"]);
    assert_eq!(names(&work.join("full")), ["mine"]);
    export(&pair, "none.evidence", root, &["--sigstore", "refused"]).expect_code(2);
}
