//! The program `jingwei-verify` as built: it explains itself, and its exit code is the verdict.

use std::process::{Command, Output};

const ROOT: &str = "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jingwei-verify"))
        .args(arguments)
        .output()
        .expect("the program was just built")
}

#[test]
fn exit_codes() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Example"));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(
        run(&["/nonexistent.evidence", "--root", ROOT])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        run(&["Cargo.toml", "--root", "short"]).status.code(),
        Some(2)
    );
    let other = run(&[
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        "--root",
        ROOT,
    ]);
    assert_eq!(other.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&other.stdout).starts_with("INVALID: "));
}
