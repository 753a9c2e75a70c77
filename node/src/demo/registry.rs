//! The demo's registry: founded, served, stopped and served again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::statement::fingerprint;
use jingwei_registry::clock;
use jingwei_registry::connect::Patience;
use jingwei_registry::disk::Disk;
use jingwei_registry::enrolment::Proposal;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::found::{Plan, found, sign_together};
use jingwei_registry::keyfile;
use jingwei_registry::registry::{Paths, Registry};
use jingwei_registry::serve::ServeLimits;
use jingwei_registry::submit::Submitter;
use jingwei_registry::view::View;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A registry that can be stopped alone.
pub struct RunningRegistry {
    dir: PathBuf,
    root: Digest,
    root_keys: Vec<PathBuf>,
    address: SocketAddr,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl RunningRegistry {
    /// Founds a federation in `dir` and serves its registry on a free port.
    pub async fn found(dir: PathBuf) -> Result<RunningRegistry, Fault> {
        let founding = dir.clone();
        let founded = blocking(move || {
            let plan = Plan::new("demo", 3, 2);
            found(&founding, &plan, clock::system()(), Disk::new())
        })
        .await?;
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let settings = format!("# As the demo served it.\nlisten = \"{address}\"\n");
        std::fs::write(Paths::new(&dir).settings(), settings).map_err(failed)?;
        let mut registry = RunningRegistry {
            dir,
            root: founded.root,
            root_keys: founded.root_keys,
            address,
            running: None,
        };
        registry.serve(listener).await?;
        Ok(registry)
    }

    async fn serve(&mut self, listener: TcpListener) -> Result<(), Fault> {
        let dir = self.dir.clone();
        let registry = blocking(move || Registry::open(&dir, clock::system(), Disk::new())).await?;
        let shutdown = CancellationToken::new();
        let limits = ServeLimits::default();
        let serving = registry.serve(listener, None, limits, shutdown.clone());
        let task = tokio::spawn(async move {
            if let Err(halted) = serving.await {
                tracing::error!(%halted, "the demo's registry");
            }
        });
        self.running = Some((shutdown, task));
        Ok(())
    }

    /// The digest of the federation's root.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The root as people compare it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.root)
    }

    /// Where it listens, or did.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has the holders of the root keys enrol a national government.
    pub async fn enrol(&self, proposal: &[u8]) -> Result<(), Fault> {
        let proposal = Proposal::parse(proposal)?;
        let paths = Paths::new(&self.dir);
        let view = View::of_registry(&paths, &self.address.to_string()).await?;
        let root = view.root()?;
        let keys: Vec<SecretKey> = self
            .root_keys
            .iter()
            .map(|path| keyfile::load(path).map_err(failed))
            .collect::<Result<_, _>>()?;
        let signers: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
        let envelope = sign_together(&proposal.statement(), &signers, root.threshold);
        Submitter::new(
            &self.address.to_string(),
            root.registry.tls,
            None,
            Patience::default(),
        )?
        .submit(&envelope)
        .await
        .map(|_| ())
    }

    /// Stops it; when this returns its port is closed.
    pub async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            // It ends at the latest when its drain is over.
            let _ = task.await;
        }
    }

    /// Whether it is served.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Serves it again where it was.
    pub async fn start_again(&mut self) -> Result<(), Fault> {
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        self.serve(listener).await
    }

    /// What the system says to an attempt to connect: an error if nothing listens.
    pub async fn knock(&self) -> std::io::Result<()> {
        TcpStream::connect(self.address).await.map(|_| ())
    }
}

/// Runs what waits for the disk on a thread of its own.
pub async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// The demo cannot go on, and whoever gave it cannot help that.
pub fn failed(error: impl std::fmt::Display) -> Fault {
    Fault::new(Blame::Internal, error.to_string())
}
