//! What each program says of each of its commands, found by walking from its own `--help`.

use std::path::Path;

use jingwei_tests::programs::run_in;

/// The commands that a page of help lists.
fn listed(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// The help of a command, and of all below it, by the words that are typed for it.
fn walk(command: &str, found: &mut Vec<(String, String)>) {
    let (program, words) = command.split_once(' ').unwrap_or((command, ""));
    let arguments = words.split_whitespace().chain(["--help"]);
    let help = run_in(Path::new("/"), program, arguments).ok().stdout;
    found.push((command.to_owned(), help.clone()));
    for name in listed(&help) {
        walk(&format!("{command} {name}"), found);
    }
}

#[test]
fn every_command_shows_an_example_of_itself() {
    for (program, least) in [
        ("jingwei", 20),
        ("jingwei-registry", 18),
        ("jingwei-verify", 1),
    ] {
        let mut found = Vec::new();
        walk(program, &mut found);
        assert!(found.len() >= least, "{program} lists {}", found.len());
        for (command, help) in found {
            // The verifier is explained once, by its own name.
            let typed = command.replace("jingwei verify", "jingwei-verify");
            let shown = |line: &str| line.starts_with(&format!("  {typed} "));
            assert!(
                help.lines().any(shown),
                "no example of ‘{command}’ in\n{help}"
            );
        }
    }
}
