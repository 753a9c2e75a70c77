//! A node as a process, and commands run against it as from a terminal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jingwei_proto::wire::node::StatusResponse;
use jingwei_registry::fault::Fault;

use crate::child::Child;
use crate::local::{Local, runtime};
use crate::programs::{Ran, command, free_address};

/// How long a node may take to see what the registry has already acknowledged.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node, running or not.
pub struct Node {
    /// Its name in logs.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Where commands run: rejects and exported files land here.
    pub work: PathBuf,
    /// Where it listens; the same after every start.
    pub listen: SocketAddr,
    /// Settings as environment variables, for the node and the commands.
    pub settings: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node whose directory will be `parent/name`.
    pub fn new(parent: &Path, name: &str) -> Node {
        let work = parent.join(format!("{name}-work"));
        std::fs::create_dir_all(&work).expect("a directory for the test");
        Node {
            name: name.to_owned(),
            dir: parent.join(name),
            work,
            listen: free_address(),
            settings: vec![("JINGWEI_NODE_LOG_FORMAT".into(), "json".into())],
            child: None,
        }
    }

    /// `jingwei` with `arguments` and this node's directory, not run yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command("jingwei");
        command
            .current_dir(&self.work)
            .envs(self.settings.iter().cloned());
        command.args(arguments).arg("--dir").arg(&self.dir);
        command
    }

    /// Runs `jingwei` with `arguments` and this node's directory.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::run(&mut self.command(arguments))
    }

    /// `jingwei init` of one more agency.
    pub fn init(&self, agency: &str, level: u8, territory: &str, more: &[&str]) -> Ran {
        let (name, level) = (format!("Agency {agency}"), level.to_string());
        let mut arguments = vec![
            "init",
            "--agency",
            agency,
            "--name",
            &name,
            "--level",
            &level,
            "--territory",
            territory,
        ];
        arguments.extend(more);
        self.run(&arguments)
    }

    /// The enrolment proposal of a hosted agency, as `jingwei join` writes it.
    pub fn proposal(&self, agency: &str) -> PathBuf {
        self.dir.join(format!("{agency}.enrolment"))
    }

    /// Starts it and waits until it serves.
    pub fn start(&mut self) {
        self.spawn();
        self.child
            .as_mut()
            .expect("it was just started")
            .line("node of ");
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let mut serve = self.command(&["serve", "--listen", &self.listen.to_string()]);
        self.child = Some(Child::start(&self.name, &mut serve));
    }

    /// Ends it at once; does nothing if it does not run.
    pub fn kill9(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill9();
        }
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            assert!(
                child.stop("TERM").success(),
                "{} did not stop well",
                self.name
            );
        }
    }

    /// What it has printed since its start.
    pub fn log(&self) -> Vec<String> {
        self.child.as_ref().map(Child::log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Asks in SQL on the command line, with further options.
    pub fn sql(&self, sql: &str, more: &[&str]) -> Ran {
        let mut arguments = vec!["sql", sql];
        arguments.extend(more);
        self.run(&arguments)
    }

    /// The answer as CSV lines below the header, sorted, which must be had.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let ran = self.sql(sql, &["--format", "csv"]).ok();
        let mut rows: Vec<String> = ran.stdout.lines().skip(1).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// `jingwei publish` of a file under `name`.
    pub fn publish(
        &self,
        file: &Path,
        agency: &str,
        name: &str,
        schema: &Path,
        sharing: &str,
    ) -> Ran {
        let (file, schema) = (file.display().to_string(), schema.display().to_string());
        self.run(&[
            "publish",
            &file,
            "--as",
            name,
            "--schema",
            &schema,
            "--sharing",
            sharing,
            "--agency",
            agency,
        ])
    }

    /// Publishes `csv` with [`SCHEMA`], which must succeed.
    #[track_caller]
    pub fn publish_places(&self, agency: &str, name: &str, sharing: &str, csv: &str) -> Ran {
        let (file, schema) = self.places(name, csv);
        self.publish(&file, agency, name, &schema, sharing).ok()
    }

    /// Writes `csv` and [`SCHEMA`] as files to publish.
    pub fn places(&self, name: &str, csv: &str) -> (PathBuf, PathBuf) {
        (
            self.write(&format!("{name}.csv"), csv),
            self.write("places.schema.json", SCHEMA),
        )
    }

    /// Writes a file where commands run.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work.join(name);
        std::fs::write(&path, content).expect("the test's directory can be written");
        path
    }

    /// A connection to its socket.
    pub fn local(&self) -> Local {
        runtime()
            .block_on(Local::connect(&self.dir))
            .unwrap_or_else(|fault| panic!("{}: {fault}", self.name))
    }

    /// How things stand with it.
    pub fn status(&self) -> Result<StatusResponse, Fault> {
        runtime().block_on(async { Local::connect(&self.dir).await?.status().await })
    }

    /// Waits until its status is as `wanted`, and returns it.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            match status {
                Ok(status) if wanted(&status) => return status,
                other if Instant::now() > deadline => {
                    panic!(
                        "{} was not {what} within {PATIENCE:?}: {other:?}\n{}",
                        self.name,
                        self.log().join("\n")
                    )
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Waits until it has logged a line with these words, and returns it.
    #[track_caller]
    pub fn until_log(&self, words: &str) -> String {
        self.child.as_ref().expect("it runs").logged(words)
    }

    /// Waits until it has verified more than `index` entries of the log.
    #[track_caller]
    pub fn until_entry(&self, index: u64) {
        self.until(&format!("at entry {index}"), |status| {
            status.log_size > index
        });
    }

    /// Waits until the registry lists its address and keys for each of its agencies.
    #[track_caller]
    pub fn until_announced(&self) {
        self.until("announced", |status| {
            !status.agencies.is_empty()
                && status
                    .agencies
                    .iter()
                    .all(|agency| agency.enrolled && agency.announced)
        });
    }
}

/// The schema of small test tables.
pub const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "code": {"type": "string", "pattern": "^[0-9]{5}$"},
    "name": {"type": "string", "minLength": 1},
    "people": {"type": "integer", "minimum": 0}
  },
  "required": ["code", "name"]
}
"#;

/// Rows under [`SCHEMA`].
pub const PLACES: &str =
    "code,name,people\n35001,Acigné,6930\n35002,Amanlis,1763\n35003,Andouillé-Neuville,879\n";
