//! The demo's registry with its witnesses: founded, served, stopped and served again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use jingwei_proto::checkpoint::CheckpointKeys;
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
use jingwei_registry::registry::{Paths, Registry, newest_record};
use jingwei_registry::sequencer::Sequencer;
use jingwei_registry::serve::ServeLimits;
use jingwei_registry::submit::Submitter;
use jingwei_registry::view::View;
use jingwei_registry::witness::client::WitnessAddress;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::witnesses::{Running, WITNESSES, Witness, append};

/// For the witnesses to sign what is in the log at its start.
const CONFIRMING: Duration = Duration::from_secs(60);

/// A registry that can be stopped alone.
pub struct RunningRegistry {
    dir: PathBuf,
    root: Digest,
    root_keys: Vec<PathBuf>,
    address: SocketAddr,
    running: Option<Serving>,
    witnesses: Vec<Running>,
}

struct Serving {
    sequencer: Sequencer,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningRegistry {
    /// Founds a federation in `dir`, and serves its witnesses and its registry on free ports.
    pub async fn found(dir: &Path) -> Result<RunningRegistry, Fault> {
        let begin = |name: &'static str| Witness::begin(dir.join(name), name);
        let witnesses = try_join_all(WITNESSES.map(begin)).await?;
        let dir = dir.join("registry");
        let mut plan = Plan::new("demo", 3, 2);
        for witness in &witnesses {
            let url = witness.address.url.clone();
            plan.witnesses.push((witness.key.clone(), url));
        }
        plan.quorum = plan.witnesses.len() as u64;
        let founding = dir.clone();
        let founded =
            blocking(move || found(&founding, &plan, clock::system()(), Disk::new())).await?;
        let record = newest_record(&Paths::new(&dir)).map_err(failed)?;
        let log = CheckpointKeys::of_root(&record).log_key().map_err(failed)?;
        let serve = |witness: Witness| witness.serve(log.clone());
        let witnesses = try_join_all(witnesses.into_iter().map(serve)).await?;
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let settings = format!("# As the demo served it.\nlisten = \"{address}\"\n");
        append(&Paths::new(&dir).settings(), &settings)?;
        let mut registry = RunningRegistry {
            dir,
            root: founded.root,
            root_keys: founded.root_keys,
            address,
            running: None,
            witnesses,
        };
        registry.serve(listener).await?;
        Ok(registry)
    }

    async fn serve(&mut self, listener: TcpListener) -> Result<(), Fault> {
        let dir = self.dir.clone();
        let witnesses = self.witnesses.iter();
        let witnesses = witnesses.map(|witness| witness.address.clone()).collect();
        let opening = move || Registry::open_with(&dir, clock::system(), Disk::new(), witnesses);
        let registry = blocking(opening).await?;
        registry.confirmed(CONFIRMING).await.map_err(failed)?;
        let shutdown = CancellationToken::new();
        let limits = ServeLimits::default();
        let sequencer = registry.sequencer().clone();
        let serving = registry.serve(listener, None, limits, shutdown.clone());
        let task = tokio::spawn(async move {
            if let Err(halted) = serving.await {
                tracing::error!(%halted, "the demo's registry");
            }
        });
        self.running = Some(Serving {
            sequencer,
            shutdown,
            task,
        });
        Ok(())
    }

    /// Its witnesses' names, and where they are.
    pub fn witnesses(&self) -> impl Iterator<Item = &WitnessAddress> {
        self.witnesses.iter().map(|witness| &witness.address)
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

    /// Has it enter a snapshot now, and not after its interval; returns its place in the log.
    pub async fn snapshot(&self) -> Result<u64, Fault> {
        match &self.running {
            Some(serving) => serving.sequencer.snapshot().await,
            None => Err(failed("the registry is stopped")),
        }
    }

    /// Stops it; when this returns its port is closed.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.running.take() {
            serving.shutdown.cancel();
            // The writer ends when nobody can submit to it any more.
            drop(serving.sequencer);
            // It ends at the latest when its drain is over.
            let _ = serving.task.await;
        }
    }

    /// Stops it, and its witnesses after it.
    pub async fn stop_all(mut self) {
        self.stop().await;
        for witness in self.witnesses {
            witness.stop().await;
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
