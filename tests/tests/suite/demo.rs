//! The demo as a newcomer has it: its tour, what it keeps, what it leaves, and the commands that
//! it prints.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use jingwei_tests::Ran;
use jingwei_tests::child::Child;
use jingwei_tests::programs::{command, program};

/// `jingwei demo`, whose temporary files go to `dir`.
fn demo<S: AsRef<OsStr>>(dir: &Path, arguments: &[S]) -> Command {
    let mut demo = command("jingwei");
    demo.arg("demo").args(arguments);
    demo.env("TMPDIR", dir).current_dir(dir);
    demo
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn the_tour_ends_well_and_what_it_keeps_proves_itself() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let options = ["--once", "--quiet", "--dir"].map(OsStr::new);
    let options = [&options[..], &[kept.as_os_str()]].concat();
    let ran = Ran::run(&mut demo(dir.path(), &options)).ok();
    let plain = format!("{}{}", ran.stdout, ran.stderr).replace(['\u{202f}', ','], "");
    for words in [
        "2826",
        "152",
        "20",
        "VALID",
        "INVALID",
        "audit-office and university have co-signed the log's head in it",
        "audit-office does not co-sign it",
        "university does not co-sign it",
        "MISBEHAVIOUR PROVED",
    ] {
        assert!(plain.contains(words), "‘{words}’ is missing in\n{ran}");
    }
    let verdict = plain.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("All ")?;
        rest.strip_suffix(" checks of the tour came out as they must.")
    });
    let checks: usize = verdict.expect("a verdict").parse().unwrap();
    assert!(checks >= 15, "only {checks} checks");
    // What is kept is proof for anybody.
    let verify = |file: &str, root: &str| {
        let mut verify = command("jingwei-verify");
        Ran::run(verify.arg(kept.join(file)).args(["--root", root]))
    };
    let root = fingerprint(&kept);
    let lied = verify("lying-registry.misbehaviour", &root).ok();
    lied.prints(&["MISBEHAVIOUR PROVED"]);
    let wrong = verify("lying-registry.misbehaviour", &"A".repeat(52));
    wrong.expect_code(3).prints(&["NOTHING PROVED"]);
}

/// The fingerprint of the demo's root, from the document that its registry's log begins with.
fn fingerprint(kept: &Path) -> String {
    let log = jingwei_tests::reading::LogFiles::read(&kept.join("registry/log"));
    let envelope = jingwei_proto::dsse::Envelope::parse(&log.envelopes[0]).unwrap();
    jingwei_proto::statement::fingerprint(&envelope.payload_digest())
}

#[test]
fn the_commands_work_as_they_are_printed_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    commands_work(demo::<&str>(dir.path(), &[]));
    assert!(is_empty(dir.path()), "the temporary directory is removed");
}

/// Quotes, spaces and what is not ASCII in the directory's name.
#[test]
fn the_commands_survive_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("it's 中 d");
    commands_work(demo(dir.path(), &[OsStr::new("--dir"), kept.as_os_str()]));
    assert!(!is_empty(&kept), "--dir keeps the federation");
}

/// Starts a demo, types what it prints into another terminal, and ends it with Ctrl-C.
fn commands_work(mut demo: Command) {
    let demo = Child::start("demo", &mut demo);
    demo.logged("Ctrl-C ends the demo");
    let typed = format!("{} ", program("jingwei").display());
    let log = demo.log();
    let commands: Vec<&String> = log.iter().filter(|line| line.starts_with(&typed)).collect();
    assert_eq!(commands.len(), 3, "{}", log.join("\n"));
    for line in commands {
        // Another terminal, somewhere else.
        let ran = Ran::run(Command::new("bash").args(["-c", line]).current_dir("/")).ok();
        assert!(!ran.stdout.trim().is_empty(), "{ran}");
    }
    assert!(demo.stop("INT").success(), "Ctrl-C is how the demo ends");
}

#[test]
fn an_interrupted_tour_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Child::start("demo", &mut demo::<&str>(dir.path(), &[]));
    // The first title of the tour: everything runs.
    demo.logged("1  Publishing");
    assert!(!is_empty(dir.path()));
    assert!(!demo.stop("INT").success(), "the tour was not given");
    assert!(is_empty(dir.path()), "the temporary directory is removed");
}
