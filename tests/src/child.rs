//! A server as a process: started, awaited, killed, and never left behind.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::programs::signal;

/// How long a server may take to start or to stop, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long an interrupt may take to end a program that is not told to ignore it.
const INTERRUPTED: Duration = Duration::from_secs(10);

/// A running server.
pub struct Child {
    name: String,
    process: Process,
    heard: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
}

/// What a server has printed, and the news that it has printed more.
#[derive(Default)]
struct Heard {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    /// Of both outputs, and whether it was standard output.
    all: Vec<(String, bool)>,
    /// Outputs that have ended.
    ended: usize,
}

impl Heard {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Child {
    /// Starts a server; `name` stands before its lines where they are shown.
    pub fn start(name: &str, command: &mut Command) -> Child {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let heard = Arc::new(Heard::default());
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let readers = vec![
            follow(stdout, heard.clone(), true),
            follow(stderr, heard.clone(), false),
        ];
        Child {
            name: name.to_owned(),
            process,
            heard,
            readers,
        }
    }

    /// Waits for a line on standard output that begins with `prefix`, and returns the rest.
    #[track_caller]
    pub fn line(&self, prefix: &str) -> String {
        self.until(prefix, |line, stdout| {
            let rest = line.strip_prefix(prefix).filter(|_| stdout)?;
            Some(rest.trim().to_owned())
        })
    }

    /// Waits for a line with `words` in it, on either output, and returns it.
    #[track_caller]
    pub fn logged(&self, words: &str) -> String {
        self.until(words, |line, _| {
            line.contains(words).then(|| line.to_owned())
        })
    }

    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&str, bool) -> Option<String>) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.heard.lines();
        let mut seen = 0;
        loop {
            let fresh = &lines.all[seen..];
            if let Some(found) = fresh
                .iter()
                .find_map(|(line, stdout)| wanted(line, *stdout))
            {
                return found;
            }
            seen = lines.all.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended == 2 || left.is_zero() {
                // Dropping this prints what it has said.
                let why = if left.is_zero() {
                    "in time"
                } else {
                    "before it ended"
                };
                panic!("{} did not say ‘{what}’ {why}", self.name);
            }
            lines = match self.heard.more.wait_timeout(lines, left) {
                Ok((lines, _)) => lines,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Everything it has printed so far, on both outputs.
    pub fn log(&self) -> Vec<String> {
        self.heard
            .lines()
            .all
            .iter()
            .map(|(line, _)| line.clone())
            .collect()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it has ended by itself, and returns all that it has printed.
    #[track_caller]
    pub fn ended(mut self) -> Vec<String> {
        assert!(
            self.ends_within(PATIENCE),
            "{} did not end in time",
            self.name
        );
        let _ = self.process.wait();
        self.log()
    }

    fn ends_within(&self, time: Duration) -> bool {
        let running = |lines: &mut Lines| lines.ended < 2;
        let lines = self.heard.lines();
        let waited = self.heard.more.wait_timeout_while(lines, time, running);
        let late = waited.map_or_else(|poisoned| poisoned.into_inner().1, |(_, late)| late);
        !late.timed_out()
    }

    /// Ends it at once, as a power cut would for this process.
    pub fn kill9(mut self) {
        self.end();
    }

    /// Asks it to stop with the signal `name` (`TERM`, `INT`) and waits until it has.
    #[track_caller]
    pub fn stop(mut self, name: &str) -> ExitStatus {
        signal(name, self.process.id());
        assert!(
            self.ends_within(PATIENCE),
            "{} did not stop in time",
            self.name
        );
        self.process.wait().expect("it was started here")
    }

    /// Interrupts a program that does nothing about it, as Ctrl-C does, and waits until it has
    /// ended. Where the tests themselves ignore interrupts, as what a shell runs in the
    /// background does, so do their children: then it is terminated.
    #[track_caller]
    pub fn interrupt(mut self) -> ExitStatus {
        signal("INT", self.process.id());
        if !self.ends_within(INTERRUPTED) {
            signal("TERM", self.process.id());
        }
        assert!(
            self.ends_within(PATIENCE),
            "{} did not end in time",
            self.name
        );
        self.process.wait().expect("it was started here")
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            for line in self.log() {
                eprintln!("[{}] {line}", self.name);
            }
        }
    }
}

fn follow<R: Read + Send + 'static>(
    output: Option<R>,
    heard: Arc<Heard>,
    stdout: bool,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output.expect("both outputs are pipes"));
        let mut bytes = Vec::new();
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            heard.lines().all.push((line, stdout));
            heard.more.notify_all();
        }
        heard.lines().ended += 1;
        heard.more.notify_all();
    })
}
