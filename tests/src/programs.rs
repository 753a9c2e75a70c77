//! The three programs as built, and one run of one of them.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// No command of a test takes longer; one that hangs is killed after this time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The path of a program that stands beside the running test, as `cargo test --workspace` puts it.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{name} stands neither beside nor above {}: ‘cargo test --workspace’ builds it",
                own.display()
            )
        })
}

/// A program of the product, without settings that the environment of the test may hold.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("JINGWEI_") {
            command.env_remove(&variable);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Copies a directory and all that is in it, modes included.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a directory entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("room for a copy")),
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was run.
    pub what: String,
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn run(command: &mut Command) -> Ran {
        let what = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let pid = child.id();
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = match receiver.recv_timeout(PATIENCE) {
            Ok(output) => output.unwrap_or_else(|error| panic!("{what}: {error}")),
            Err(_) => {
                signal("KILL", pid);
                panic!("{what} did not end within {PATIENCE:?}");
            }
        };
        Ran {
            what,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, which must have ended with this exit code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "the exit code of\n{self}");
        self
    }

    /// The same, which must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.expect_code(0)
    }

    /// The same, which must say each of `words` on standard error, in any letter case.
    #[track_caller]
    pub fn complains(self, words: &[&str]) -> Ran {
        let text = self.stderr.to_lowercase();
        for word in words {
            assert!(
                text.contains(&word.to_lowercase()),
                "‘{word}’ is missing on the standard error of\n{self}"
            );
        }
        self
    }

    /// The same, which must print each of `words`.
    #[track_caller]
    pub fn prints(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(
                self.stdout.contains(word),
                "‘{word}’ is missing on the standard output of\n{self}"
            );
        }
        self
    }

    /// What follows `label` on a line of standard output.
    #[track_caller]
    pub fn field(&self, label: &str) -> String {
        self.stdout
            .lines()
            .find_map(|line| line.strip_prefix(label))
            .unwrap_or_else(|| panic!("no line begins with ‘{label}’ in\n{self}"))
            .trim()
            .to_owned()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nexit code {}\n--- stdout\n{}--- stderr\n{}",
            self.what, self.code, self.stdout, self.stderr
        )
    }
}

/// Waits until something is so that no event tells of.
#[track_caller]
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to one process.
pub fn signal(name: &str, pid: u32) {
    // The process may have ended by itself meanwhile, which is what was wanted.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid} 2>/dev/null")])
        .status();
}

/// An address on this machine that nobody else is given: a registry or node that is killed must
/// find its own port free again. It lies below the range from which the kernel gives ports to
/// outgoing connections.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of several programs may run at once.
    let base = 10_000 + (std::process::id() % 200) as u16 * 100;
    for _ in 0..20_000 {
        let port = 10_000 + (base - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port between 10000 and 30000 is free");
}

/// Runs `name` with `arguments` in `dir`.
pub fn run_in<S: AsRef<OsStr>>(
    dir: &Path,
    name: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Ran {
    Ran::run(command(name).args(arguments).current_dir(dir))
}
