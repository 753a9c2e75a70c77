//! The program `jingwei-registry` as built: it founds, and refuses to found twice.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jingwei-registry"))
        .args(arguments)
        .env_remove("JINGWEI_DIR")
        .output()
        .expect("the program was just built")
}

#[test]
fn exit_codes() {
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&[]).status.code(), Some(2));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("registry").display().to_string();
    assert_eq!(run(&["serve", "--dir", &path]).status.code(), Some(2));
    assert_eq!(
        run(&["init", "--dir", &path, "--name", "Not A Name"])
            .status
            .code(),
        Some(2)
    );
    let founded = run(&["init", "--dir", &path, "--name", "land"]);
    assert_eq!(founded.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&founded.stdout).contains("federation  land-"));
    assert_eq!(
        run(&["init", "--dir", &path, "--name", "land"])
            .status
            .code(),
        Some(2)
    );
}
