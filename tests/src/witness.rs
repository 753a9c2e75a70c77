//! A witness as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jingwei_proto::note::NoteKey;

use crate::child::Child;
use crate::programs::{Ran, command, copy_dir, free_address, signal};

/// A witness, running or not.
pub struct Witness {
    /// Its directory.
    pub dir: PathBuf,
    /// Where it listens; the same after every start.
    pub address: SocketAddr,
    /// Verifies its cosignatures.
    pub key: NoteKey,
    child: Option<Child>,
}

impl Witness {
    /// Begins a witness with `jingwei-registry witness init`.
    pub fn begin(dir: &Path, name: &str) -> Witness {
        let mut init = command("jingwei-registry");
        init.args(["witness", "init", "--name", name, "--dir"])
            .arg(dir);
        let ran = Ran::run(&mut init).ok();
        Witness {
            dir: dir.to_owned(),
            address: free_address(),
            key: ran.field("witness").parse().expect("init prints a key"),
            child: None,
        }
    }

    /// The same witness with a copy of its memory in `dir`, at another address, not started.
    pub fn copied(&self, dir: &Path) -> Witness {
        copy_dir(&self.dir, dir);
        Witness {
            dir: dir.to_owned(),
            address: free_address(),
            key: self.key.clone(),
            child: None,
        }
    }

    /// Starts it for the logs of a policy file and waits until it serves.
    pub fn start(&mut self, policy: &Path) {
        self.start_with(&["--policy", &policy.display().to_string()]);
    }

    /// Starts it with these options and waits until it serves.
    pub fn start_with(&mut self, options: &[&str]) {
        assert!(self.child.is_none(), "the witness runs already");
        let mut serve = command("jingwei-registry");
        serve.arg("witness").arg("--dir").arg(&self.dir);
        serve.args(["--listen", &self.address.to_string()]);
        let child = Child::start("witness", serve.args(options));
        child.line("co-signs");
        self.child = Some(child);
    }

    /// Lets it read its policy again, and waits until it co-signs `origin`.
    pub fn told(&self, origin: &str) {
        let child = self.child.as_ref().expect("the witness runs");
        signal("HUP", child.id());
        child.logged(&format!("co-signs    {origin}"));
    }

    /// Ends it at once; does nothing if it does not run.
    pub fn kill9(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill9();
        }
    }

    /// Where checkpoints are submitted to it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
