//! What the README says, done word for word.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use jingwei_tests::Ran;
use jingwei_tests::programs::{free_address, program};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of `language` in the part of a page below a heading, up to the next of its level.
fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    let mut within = heading.is_empty();
    for line in page.lines() {
        match &mut open {
            Some(_) if line.trim_end() == "```" => blocks.extend(open.take()),
            Some(block) => *block += &format!("{line}\n"),
            None if line.starts_with("## ") && !heading.is_empty() => within = line == heading,
            None if within && line.trim_end() == format!("```{language}") => {
                open = Some(String::new())
            }
            // A block of another language, which may hold lines that look like headings.
            None if line.starts_with("```") && line.trim_end() != "```" => open = None,
            None => {}
        }
    }
    blocks
}

#[test]
fn run_your_own_works_word_for_word() {
    let blocks = blocks(&file("README.md"), "## Run your own", "sh");
    assert!(
        blocks.len() >= 6,
        "the README's section has {} blocks of sh",
        blocks.len()
    );
    // The page goes on where the README ends.
    let lost = self::blocks(&file("deploy/lost-registry.md"), "", "sh");
    assert_eq!(lost.len(), 3);
    let mut script = [blocks, lost].concat().join("\n");
    // The README's ports may be in use here.
    for port in [7000, 7001, 7101, 7102, 7201, 7202] {
        let here = free_address().port().to_string();
        assert!(
            script.contains(&format!("127.0.0.1:{port}")),
            "the README no longer uses port {port}"
        );
        script = script.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{here}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let own = program("jingwei");
    let path = format!(
        "{}:{}",
        own.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut bash = Command::new("bash");
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("JINGWEI_")) {
        bash.env_remove(variable);
    }
    bash.args(["-eu", "-c", &script])
        .env("PATH", path)
        .current_dir(dir.path())
        .stdin(std::process::Stdio::null());
    // A group of its own, so that servers that a failing script leaves behind can be ended.
    bash.process_group(0);
    let child = bash
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let group = Group(child.id());
    let output = child.wait_with_output().unwrap();
    drop(group);
    let ran = Ran {
        what: script,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    if ran.code != 0 {
        for log in [
            "registry.log",
            "national.log",
            "north.log",
            "watched.log",
            "w1.log",
            "w2.log",
        ] {
            let text = std::fs::read_to_string(dir.path().join(log)).unwrap_or_default();
            eprintln!("--- {log}\n{text}");
        }
    }
    let ran = ran.ok();
    let ran = ran.prints(&[
        "/registry/1\n",
        "all is well",
        "published   land.north/schools@1",
        "refused with exit code 1",
        "ninety-seven",
        "land.north/schools@1",
        "Harbour School",
        "School at the Old Mill",
        "VALID: land asked",
        "School buses 2026",
        "Transport Act, s. 12",
        "/registry/2\n",
        "continues   jingwei/my-land",
    ]);
    assert!(!ran.stdout.contains("INVALID"), "{ran}");
    assert!(
        !dir.path().join("north/node.sock").exists(),
        "the node has not stopped in order"
    );
}

/// A process group; all of it is ended when this is dropped.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("sh")
            .args(["-c", &format!("kill -KILL -- -{} 2>/dev/null", self.0)])
            .status();
    }
}

#[test]
fn both_languages_show_the_same_commands() {
    let (english, chinese) = (file("README.md"), file("README.zh-CN.md"));
    for language in ["sh", "bash", "python"] {
        let commands = |page: &str| -> Vec<String> {
            let blocks = blocks(page, "", language);
            let lines = blocks.iter().flat_map(|block| block.lines());
            lines
                .map(|line| {
                    line.split(" # ")
                        .next()
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                })
                .filter(|line| !line.starts_with('#'))
                .collect()
        };
        assert_eq!(
            commands(&chinese),
            commands(&english),
            "blocks of {language}"
        );
    }
}
