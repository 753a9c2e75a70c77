//! The program `jingwei` as built: it tells wrong use from failure.

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jingwei"))
        .args(arguments)
        .env_remove("JINGWEI_DIR")
        .output()
        .expect("the program was just built")
}

#[test]
fn exit_codes() {
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["sql", "SELECT 1"]).status.code(), Some(2));
    let nowhere = run(&["find", "--dir", "/nonexistent/jingwei"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).starts_with("error: "));
}

#[test]
fn the_doctor_says_where_there_is_no_node() {
    let told = |dir: &Path, words: &[&str]| {
        for command in [&["doctor"][..], &["doctor", "--wait", "600"], &["find"]] {
            let dir = dir.display().to_string();
            let output = run(&[command, &["--dir", &dir]].concat());
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
            let complaint = String::from_utf8_lossy(&output.stderr);
            for word in words {
                assert!(complaint.contains(word), "‘{word}’ is not in {complaint}");
            }
        }
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = dir.path().join("missing");
    told(&missing, &["there is no directory", "‘jingwei init’"]);
    told(dir.path(), &["no node", "‘jingwei init --dir"]);
    let keys = dir.path().join("keys");
    std::fs::create_dir(&keys).expect("the directory is ours");
    std::fs::write(keys.join("log.pem"), "").expect("the directory is ours");
    told(
        dir.path(),
        &["holds a registry, and no node", "‘jingwei init’"],
    );
}

#[test]
fn the_shipped_settings_are_in_order() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/node.toml");
    let settings = dir.path().join("node.toml");
    std::fs::copy(sample, &settings).expect("the sample is shipped");
    let doctor = || run(&["doctor", "--dir", &dir.path().display().to_string()]);
    let output = doctor();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("settings    in order"),
        "{output:?}"
    );
    std::fs::write(&settings, "lisen = \"127.0.0.1:7100\"\n").expect("the directory is ours");
    let output = doctor();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("lisen"),
        "{output:?}"
    );
}
