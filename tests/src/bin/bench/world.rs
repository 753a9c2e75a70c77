//! What the benchmarks run in: a registry, a provider and an asker below it, as processes.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use jingwei_proto::id::VersionId;
use jingwei_tests::programs::signal;
use jingwei_tests::{Federation, Node};

use crate::Failure;

/// The national agency that publishes.
pub const PROVIDER: &str = "aa";
/// The agency one level below that asks.
pub const ASKER: &str = "aa.bb";
/// Rows of the dataset that small queries are asked of.
pub const PLACES: usize = 1_000;
/// Rows of each small answer.
pub const ANSWER: usize = 10;

/// A federation whose provider has published a small table, and runs.
pub struct World {
    /// The registry and the directory.
    pub federation: Federation,
    /// The provider.
    pub provider: Node,
    /// Its process.
    pub provider_process: Server,
    /// The asker, enrolled, not running.
    pub asker: Node,
}

impl World {
    /// Founds it. Panics with what went wrong if a command fails.
    pub fn found() -> Result<World, Failure> {
        build_programs()?;
        let federation = Federation::start();
        let provider = federation.joined("provider", &[PROVIDER]);
        federation.registry.enrol(&provider.proposal(PROVIDER)).ok();
        let provider_process = serve(&provider)?;
        provider.until_announced();
        provider.publish_places(PROVIDER, "places", "unconditional", &places());
        let asker = Node::new(federation.dir.path(), "asker");
        asker.init(ASKER, 2, "test@1:B<A", &[]).ok();
        federation.join(&asker).ok();
        let proposal = asker.proposal(ASKER).display().to_string();
        provider.run(&["enrol", &proposal, "--yes"]).ok();
        Ok(World {
            federation,
            provider,
            provider_process,
            asker,
        })
    }

    /// The baseline's server over the provider's data, and where it listens.
    pub fn serve_plain(&self) -> Result<(Server, std::net::SocketAddr), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("plain-serve");
        command.arg("--provider").arg(&self.provider.dir);
        command.arg("--asker").arg(&self.asker.dir);
        let server = Server::start(&mut command, &self.log("plain"), "plain at ")?;
        let address = server.said.parse()?;
        Ok((server, address))
    }

    /// A file for what a process says about itself.
    pub fn log(&self, name: &str) -> PathBuf {
        self.federation.dir.path().join(format!("{name}.log"))
    }
}

/// Starts a node as people do, and waits until it is ready. It says about itself what a node
/// says by default, into a file: reading that is not what is measured.
pub fn serve(node: &Node) -> Result<Server, Failure> {
    let mut command = node.command(&["serve", "--listen", &node.listen.to_string()]);
    Server::start(&mut command, &node.dir.with_extension("log"), "node of ")
}

/// A server as a process; it is killed when dropped.
pub struct Server {
    process: Child,
    /// What it said on its standard output when it was ready.
    pub said: String,
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server and waits for its first line, which must begin with `ready`.
    pub fn start(command: &mut Command, log: &Path, ready: &str) -> Result<Server, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::options().create(true).append(true).open(log)?);
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or("a process without output")?;
        let mut server = Server {
            process,
            said: String::new(),
            _output: BufReader::new(output),
        };
        let mut line = String::new();
        server._output.read_line(&mut line)?;
        match line.trim().strip_prefix(ready) {
            Some(rest) => server.said = rest.to_owned(),
            None => {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{command:?} did not start: {line}{log}").into());
            }
        }
        Ok(server)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its resident memory, in bytes.
    pub fn memory(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let kibibytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .ok_or("a process without VmRSS")?
            .trim()
            .parse()?;
        Ok(kibibytes * 1_024.0)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> Result<(), Failure> {
        signal("TERM", self.process.id());
        match self.process.wait()?.success() {
            true => Ok(()),
            false => Err("a server did not stop well".into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs no ending.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The small query with this number: each is over other rows than those before it.
pub fn question(number: u64) -> String {
    let first = number as usize * 7 % (PLACES - ANSWER);
    format!(
        "SELECT \"code\", \"name\", \"people\" FROM \"{PROVIDER}\".\"places@1\" WHERE (\"code\" >= '{:05}') AND (\"code\" < '{:05}')",
        first,
        first + ANSWER
    )
}

/// The table that is asked.
pub fn version() -> Result<VersionId, Failure> {
    Ok(format!("{PROVIDER}/places@1").parse()?)
}

fn places() -> String {
    let rows = (0..PLACES).map(|row| format!("{row:05},Place {row},{}\n", row * 37 % 5_000));
    std::iter::once("code,name,people\n".to_owned())
        .chain(rows)
        .collect()
}

/// `cargo run` builds this program and what it links, and not the programs that it starts; the
/// cargo that runs it does so here. Without a cargo they are taken as they stand beside it.
pub fn build_programs() -> Result<(), Failure> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return Ok(());
    };
    let own = std::env::current_exe()?;
    let directory = own.parent().ok_or("a program without a directory")?;
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--bins"])
        .args(["-p", "jingwei-tests", "-p", "jingwei"])
        .args(["-p", "jingwei-registry", "-p", "jingwei-proto"]);
    if directory.ends_with("release") {
        build.arg("--release");
    }
    build.arg("--target-dir");
    build.arg(directory.parent().unwrap_or(directory));
    build.arg("--manifest-path");
    build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    match build.status()?.success() {
        true => Ok(()),
        false => Err("the programs to be measured do not build".into()),
    }
}
