//! `replica`: a new member reads the whole log, verifies all of it, and opens it again.
//!
//! The log is made with the registry's own code and keys, without the network for each
//! statement, and its files are served as any web server would. The replica is a process of its
//! own, so that its memory is its alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::Signer as _;
use jingwei_registry::clock::system;
use jingwei_registry::disk::Disk;
use jingwei_registry::keyfile;
use jingwei_registry::log::{Entry, Log, LogReader, MAX_BATCH};
use jingwei_registry::registry::{Paths, first_root};
use jingwei_registry::replica::Replica;
use jingwei_registry::sequencer::LogKeys;
use jingwei_registry::source::Source;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::lying_registry::{Files, LyingRegistry, entry};
use jingwei_tests::registry::Registry;

use crate::Failure;
use crate::figure::Figure;
use crate::strict;

/// Versions of each dataset: chains are as long as those of datasets that live for a while.
const VERSIONS: u64 = 10;
/// Signatures of the baseline.
const VERIFICATIONS: u64 = 100_000;

/// How long a log.
#[derive(clap::Args)]
pub struct Arguments {
    /// Statements in the log
    #[arg(long, default_value_t = 1_000_000)]
    statements: u64,
}

/// One process that holds a replica.
#[derive(clap::Args)]
pub struct ChildArguments {
    /// The replica's directory
    #[arg(long)]
    dir: PathBuf,
    /// The log's name
    #[arg(long)]
    origin: String,
    /// The digest of its root document
    #[arg(long)]
    root: Digest,
    /// Where to read the log; nothing is read without it
    #[arg(long)]
    url: Option<String>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::Builder::new().prefix("jingwei-").tempdir()?;
    let registry = Registry::found(&dir.path().join("registry"), "bench");
    let log = registry.dir.join("log");
    let began = Instant::now();
    let size = write_log(&registry, arguments.statements)?;
    eprintln!("{size} statements written in {:?}", began.elapsed());
    let verified = verifications(&registry)?;
    let began = Instant::now();
    let bytes = copy(&log, &dir.path().join("copy"))?;
    let copied = began.elapsed().as_secs_f64();

    let served = LyingRegistry::start(([127, 0, 0, 1], 0).into(), Files::of(&log));
    let replica = dir.path().join("replica");
    let cold = child(&registry, &replica, Some(served.url()), size)?;
    let again = child(&registry, &replica, None, size)?;
    let statements = size as f64;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let figure = |figure, value, unit, against, baseline| {
        Figure {
            bench: "replica",
            figure,
            value,
            unit,
            against,
            baseline,
        }
        .print();
    };
    figure(
        "statements read and verified a second, from nothing",
        statements / cold.seconds,
        "1/s",
        verified,
        strict::BASELINE,
    );
    figure(
        "from nothing to a verified replica",
        cold.seconds,
        "s",
        copied,
        "copying the log's files",
    );
    figure(
        "most memory on the way",
        megabytes(cold.memory),
        "MB",
        megabytes(bytes),
        "bytes of the log",
    );
    figure(
        "disk",
        megabytes(size_of(&replica)?),
        "MB",
        megabytes(bytes),
        "bytes of the log",
    );
    figure(
        "opening it again",
        again.seconds,
        "s",
        cold.seconds,
        "the cold start of this run",
    );
    Ok(())
}

/// Enters an agency and its statements with the registry's own code; returns the log's size.
fn write_log(registry: &Registry, statements: u64) -> Result<u64, Failure> {
    let paths = Paths::new(&registry.dir);
    let keys = LogKeys {
        origin: first_root(&paths)?.1,
        log: keyfile::load(&paths.log_key())?,
        cosigner: keyfile::load(&paths.cosigner_key())?,
    };
    let agent = Agent::new(registry, "aa", 7);
    let root_key = keyfile::load(&registry.dir.join("root-keys/1.pem"))?;
    let mut log = Log::open(&paths.log(), Disk::new(), &keys.origin)?;
    let clock = system();
    let mut append = |entries: &[Entry]| {
        let sealed = log.append_and_publish(entries, |checkpoint| keys.seal(checkpoint, &clock));
        sealed.map_err(|error| Failure::from(error.to_string()))
    };
    let enrolment = entry(&agent.enrolment(registry), root_key.public());
    let mut size = append(&[enrolment])?.size;
    let mut dataset = 0;
    let batch = MAX_BATCH as u64 / VERSIONS;
    while dataset * VERSIONS < statements {
        let end = (dataset + batch).min(statements.div_ceil(VERSIONS));
        size = append(&chains(&agent, dataset, end))?.size;
        dataset = end;
    }
    Ok(size)
}

/// Signs the versions of some datasets on all cores.
fn chains(agent: &Agent, from: u64, to: u64) -> Vec<Entry> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = (to - from).div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let shares: Vec<_> = (from..to)
            .step_by(usize::try_from(share).unwrap_or(1))
            .map(|first| {
                scope.spawn(move || {
                    let datasets = first..(first + share).min(to);
                    datasets.flat_map(|n| chain(agent, n)).collect::<Vec<_>>()
                })
            })
            .collect();
        let signed = shares.into_iter().map(|share| share.join());
        signed.flat_map(|share| share.unwrap_or_default()).collect()
    })
}

fn chain(agent: &Agent, number: u64) -> Vec<Entry> {
    let name = format!("d{number}");
    let mut before = None;
    (0..VERSIONS)
        .map(|_| {
            let (statement, envelope) = agent.version(&name, before);
            before = Some((statement.head.sequence, envelope.payload_digest()));
            entry(&envelope, agent.key.public())
        })
        .collect()
}

/// Strict verifications a second of the log's own envelopes, on all cores.
fn verifications(registry: &Registry) -> Result<f64, Failure> {
    let agent = Agent::new(registry, "aa", 7);
    let log = LogReader::open(&registry.dir.join("log"))?;
    let end = log.size().min(VERIFICATIONS + 2);
    let envelopes = log
        .envelopes(2.min(end)..end)?
        .map(|bytes| Ok(Envelope::parse(&bytes?)?))
        .collect::<Result<Vec<_>, Failure>>()?;
    strict::verifications(
        envelopes
            .iter()
            .map(|envelope| (agent.key.public(), envelope)),
    )
}

/// Copies a directory and waits until the copy is on the disk; returns its bytes.
fn copy(from: &Path, to: &Path) -> Result<u64, Failure> {
    std::fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            bytes += copy(&entry.path(), &target)?;
        } else {
            bytes += std::fs::copy(entry.path(), &target)?;
            std::fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(bytes)
}

fn size_of(dir: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            size_of(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

/// What a process with a replica says of itself.
struct Said {
    seconds: f64,
    memory: u64,
}

fn child(registry: &Registry, dir: &Path, url: Option<String>, size: u64) -> Result<Said, Failure> {
    let (_, origin) = first_root(&Paths::new(&registry.dir))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("replica-child").arg("--dir").arg(dir);
    command.args(["--origin", &origin, "--root", &registry.root().to_string()]);
    command.args(url.iter().flat_map(|url| ["--url", url.as_str()]));
    let output = command.stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = said.split_whitespace();
    let mut next = || words.next().ok_or("the replica's process failed");
    let (seconds, memory) = (next()?.parse()?, next()?.parse()?);
    if next()?.parse::<u64>()? != size {
        return Err("the replica does not hold the whole log".into());
    }
    Ok(Said { seconds, memory })
}

/// Opens a replica, reads the log if told from where, and prints seconds, most memory in bytes,
/// and the size that was reached.
pub fn run_child(arguments: &ChildArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let replica = Replica::open(
        &arguments.dir,
        &arguments.origin,
        arguments.root,
        Disk::new(),
    )?;
    if let Some(url) = &arguments.url {
        let source = Source::new(url)?;
        let advance = async { replica.advance(&source, Duration::ZERO, &system()).await };
        runtime().block_on(advance)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let alarms = replica.alarms();
    if !alarms.is_empty() {
        return Err(format!("the replica raises alarms: {alarms:?}").into());
    }
    let index = replica.index().size()?;
    println!(
        "{seconds} {} {}",
        most_memory()?,
        index.min(replica.log().size())
    );
    Ok(())
}

/// The most memory that this process had so far (proc(5): VmHWM).
fn most_memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.ok_or("no VmHWM")?.trim().parse::<u64>()? * 1024)
}
