//! A registry as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use jingwei_proto::digest::Digest;
use jingwei_proto::statement::parse_fingerprint;
use jingwei_registry::connect::Patience;
use jingwei_registry::keyfile::TlsIdentity;
use jingwei_registry::submit::Submitter;

use crate::child::Child;
use crate::local::runtime;
use crate::programs::{self, Ran, command, copy_dir, free_address};

/// A founded registry, running or not.
pub struct Registry {
    /// Its directory.
    pub dir: PathBuf,
    /// Where it listens; the same after every start.
    pub address: SocketAddr,
    /// The fingerprint of the federation's root.
    pub fingerprint: String,
    /// The federation's id.
    pub federation: String,
    /// What its programs find in their environment.
    pub environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Registry {
    /// Founds a federation in `dir` with `jingwei-registry init`.
    pub fn found(dir: &Path, name: &str) -> Registry {
        Registry::found_with(dir, name, &[])
    }

    /// As [`Registry::found`], with further options of `init`.
    pub fn found_with(dir: &Path, name: &str, options: &[&str]) -> Registry {
        Registry::found_in(dir, name, options, Vec::new())
    }

    /// As [`Registry::found_with`], for a registry that is always run with these variables.
    pub fn found_in(
        dir: &Path,
        name: &str,
        options: &[&str],
        environment: Vec<(String, String)>,
    ) -> Registry {
        let mut init = command("jingwei-registry");
        init.envs(environment.iter().cloned());
        init.args(["init", "--name", name, "--dir"]).arg(dir);
        let ran = Ran::run(init.args(options)).ok();
        Registry {
            dir: dir.to_owned(),
            address: free_address(),
            fingerprint: ran.field("root"),
            federation: ran.field("federation"),
            environment,
            child: None,
        }
    }

    /// Starts it and waits until it serves.
    pub fn start(&mut self) {
        self.spawn();
        let child = self.child.as_ref().expect("it was just started");
        let place = child.line("registry of ");
        assert!(
            place.ends_with(&format!("at http://{}", self.address)),
            "{place}"
        );
        child.line("root");
    }

    /// Starts it where it must refuse to, and returns what it said.
    pub fn refuses_to_start(&self) -> Ran {
        Ran::run(&mut self.serve()).expect_code(1)
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the registry runs already");
        self.child = Some(Child::start("registry", &mut self.serve()));
    }

    fn serve(&self) -> Command {
        let mut serve = command("jingwei-registry");
        serve.envs(self.environment.iter().cloned());
        serve.arg("serve").arg("--dir").arg(&self.dir);
        serve.args(["--listen", &self.address.to_string()]);
        serve
    }

    /// Another registry with the same keys and configuration, as after a fail-over that was none:
    /// its directory is a copy, without what stands in `log/`, and it listens elsewhere.
    pub fn double(&self, dir: &Path) -> Registry {
        copy_dir(&self.dir.join("keys"), &dir.join("keys"));
        let settings = "registry.toml";
        if self.dir.join(settings).exists() {
            std::fs::copy(self.dir.join(settings), dir.join(settings)).expect("it is readable");
        }
        Registry {
            dir: dir.to_owned(),
            address: free_address(),
            fingerprint: self.fingerprint.clone(),
            federation: self.federation.clone(),
            environment: self.environment.clone(),
            child: None,
        }
    }

    /// The registry of the same federation in `dir`, which has taken over from this one.
    pub fn successor(&self, dir: &Path) -> Registry {
        Registry {
            dir: dir.to_owned(),
            address: free_address(),
            fingerprint: self.fingerprint.clone(),
            federation: self.federation.clone(),
            environment: self.environment.clone(),
            child: None,
        }
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
            assert!(child.stop("TERM").success());
        }
    }

    /// Waits until it has ended by itself, and returns all that it has printed.
    pub fn ended(&mut self) -> Vec<String> {
        self.child.take().map(Child::ended).unwrap_or_default()
    }

    /// What it has printed since its start.
    pub fn log(&self) -> Vec<String> {
        self.child.as_ref().map(Child::log).unwrap_or_default()
    }

    /// Waits until it logs a line with these words, and returns that.
    #[track_caller]
    pub fn logged(&self, words: &str) -> String {
        let child = self.child.as_ref().expect("the registry runs");
        child.logged(words)
    }

    /// The most memory, in bytes, that it has had since its start (proc(5): VmHWM).
    pub fn most_memory(&self) -> u64 {
        let child = self.child.as_ref().expect("the registry runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes.expect("VmHWM").parse::<u64>().expect("a number") * 1024
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The checkpoint that it shows its readers.
    pub fn checkpoint(&self) -> String {
        let url = format!("{}/checkpoint", self.url());
        let read = async { reqwest::get(url).await?.error_for_status()?.text().await };
        runtime().block_on(read).expect("it serves a checkpoint")
    }

    /// The digest of the root, from its fingerprint.
    pub fn root(&self) -> Digest {
        parse_fingerprint(&self.fingerprint).expect("init prints a fingerprint")
    }

    /// `jingwei-registry enrol` of a proposal, for national agencies; nobody is asked.
    pub fn enrol(&self, proposal: &Path) -> Ran {
        let mut enrol = command("jingwei-registry");
        enrol.arg("enrol").arg("--dir").arg(&self.dir).arg(proposal);
        Ran::run(enrol.args(["--yes", "--registry", &self.address.to_string()]))
    }

    /// A way to submit statements to it.
    pub fn submitter(&self) -> Submitter {
        let tls = TlsIdentity::load(&self.dir.join("keys")).expect("init makes the keys");
        // The connection's task is started here, before the first submission.
        let _runtime = runtime().enter();
        Submitter::new(&self.address.to_string(), tls.id, None, Patience::default())
            .expect("the address is one")
    }

    /// The policy that it prints, whether it runs or not.
    #[track_caller]
    pub fn policy(&self) -> String {
        let (place, address) = (self.dir.display().to_string(), self.address.to_string());
        let ran = self.run(&["policy", "--dir", &place, "--registry", &address]);
        ran.ok().stdout
    }

    /// Runs `jingwei-registry` with any arguments in its directory's parent.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        programs::run_in(
            self.dir.parent().unwrap_or(Path::new(".")),
            "jingwei-registry",
            arguments,
        )
    }
}
