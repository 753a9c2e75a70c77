//! A server as a process: started, awaited, killed, and never left behind.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::programs::signal;

/// How long a server may take to start or to stop, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub struct Child {
    name: String,
    process: Process,
    // Only so that servers can be shared between tests; one at a time waits for lines.
    lines: Mutex<Receiver<String>>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
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
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let readers = vec![
            follow(stdout, log.clone(), Some(sender)),
            follow(stderr, log.clone(), None),
        ];
        Child {
            name: name.to_owned(),
            process,
            lines: Mutex::new(lines),
            log,
            readers,
        }
    }

    /// Waits for a line on standard output that begins with `prefix`, and returns the rest.
    pub fn line(&mut self, prefix: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
            match lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return rest.trim().to_owned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "{} did not say ‘{prefix}’ within {PATIENCE:?}:\n{}",
                        self.name,
                        self.log().join("\n")
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait();
                    panic!(
                        "{} ended ({status:?}) before it said ‘{prefix}’:\n{}",
                        self.name,
                        self.log().join("\n")
                    )
                }
            }
        }
    }

    /// Everything it has printed so far, on both outputs.
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as a power cut would for this process.
    pub fn kill9(mut self) {
        self.end();
    }

    /// Asks it to stop with the signal `name` (`TERM`, `INT`) and waits until it has.
    pub fn stop(mut self, name: &str) -> ExitStatus {
        signal(name, self.process.id());
        let deadline = Instant::now() + PATIENCE;
        // Its outputs end when it does.
        for reader in self.readers.drain(..) {
            while !reader.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(
                reader.is_finished(),
                "{} did not stop within {PATIENCE:?}",
                self.name
            );
        }
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
    log: Arc<Mutex<Vec<String>>>,
    lines: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Some(output) = output else { return };
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line.clone());
            if let Some(lines) = &lines {
                let _ = lines.send(line);
            }
        }
    })
}
