//! A node in its directory: opened, served, stopped.
//!
//! One process hosts any number of agencies. What they share is here: the replica of the
//! registry's log, the data, the TLS identity, the connections to others. What is each one's
//! own, keys and journal, is looked up by its id.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use std::time::Duration;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, DatasetId, VersionId};
use jingwei_proto::key::KeyId;
use jingwei_proto::state::{AgencyRecord, NodeRecord, VersionRecord};
use jingwei_proto::statement::{Dataset, Seen};
use jingwei_registry::clock::Clock;
use jingwei_registry::connect::{Link, Patience, Target};
use jingwei_registry::disk::{DirLock, Disk, LockError};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::index::IndexError;
use jingwei_registry::keyfile::{self, KeyFileError, TlsIdentity};
use jingwei_registry::replica::{Misbehaviour, Replica, ReplicaError};
use jingwei_registry::source::{Source, SourceError};
use jingwei_registry::submit::Submitter;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agency::{AgencyError, HostedAgency};
use crate::config::Config;
use crate::exchange::ledger::Ledger;
use crate::exchange::messages::Party;
use crate::exchange::outbox::Outbox;
use crate::exchange::verifier::Verifier;
use crate::greet::Greeter;
use crate::home::Home;
use crate::journals::{Journals, JournalsError};
use crate::known::Known;
use crate::membership::{Membership, MembershipError};
use crate::query::file::{DataFile, FileCache};
use crate::query::seats::Seats;
use crate::store::{DatasetStore, StoreError};

/// Parquet footers kept in memory; a footer of a small table takes a few kilobytes.
const FOOTERS: usize = 256;

/// How long a statement may take from here into this node's replica.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts while the node goes over to another registry.
const PAUSE: Duration = Duration::from_millis(200);

/// A node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// It has joined no federation.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// An agency's files are broken.
    #[error(transparent)]
    Agency(#[from] AgencyError),
    /// It hosts none.
    #[error(
        "{0} holds no agency yet, and so no node: begin with ‘jingwei init --dir {0} --agency ID …’"
    )]
    NoAgency(std::path::PathBuf),
    /// A key file is missing or not private.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The replica cannot be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The registry's address is none.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The dataset store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal cannot be opened.
    #[error(transparent)]
    Journals(#[from] JournalsError),
    /// The directory cannot be written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The membership of the node in `home`, or what is still to be done before it can be served.
pub(crate) fn ready(home: &Home) -> Result<Membership, OpenError> {
    if !HostedAgency::any(home) {
        return Err(OpenError::NoAgency(home.dir().to_owned()));
    }
    Ok(Membership::load(home)?)
}

/// Who enrols the agency, and how.
pub(crate) fn enroller(id: &AgencyId) -> String {
    match id.superior() {
        Some(superior) => format!("{superior}, which runs ‘jingwei enrol’"),
        None => "the registry's keepers, who run ‘jingwei-registry enrol’".to_owned(),
    }
}

/// An open node.
pub struct Node {
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) membership: Membership,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) agencies: BTreeMap<AgencyId, Arc<HostedAgency>>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) known: Arc<Known>,
    pub(crate) store: DatasetStore,
    pub(crate) journals: Journals,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) outbox: Outbox,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) seats: Seats,
    pub(crate) identity: TlsIdentity,
    pub(crate) secret: [u8; 32],
    /// Where the registry is.
    pub(crate) source: watch::Sender<Source>,
    /// One publication at a time: each uses all cores while it validates.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    /// The dataset that somebody publishes right now.
    pub(crate) under_way: Mutex<Option<DatasetId>>,
    /// Told when a signed publication could not be entered.
    pub(crate) unfinished: tokio::sync::Notify,
    pub(crate) address: OnceLock<String>,
    /// The sequence of each agency's announcement by this process; 0 once it is contested.
    pub(crate) announced: Mutex<BTreeMap<AgencyId, u64>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) greeter: Greeter,
    files: FileCache,
    /// Files are opened for the first time one after the other.
    opening: tokio::sync::Mutex<()>,
    links: Mutex<HashMap<String, (Vec<KeyId>, Link)>>,
    _lock: DirLock,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.home.dir().display())
    }
}

impl Node {
    /// Opens the node in `home`. A normal start and recovery after a crash are the same.
    pub fn open(
        home: Home,
        config: Config,
        clock: Clock,
        disk: Disk,
    ) -> Result<Arc<Node>, OpenError> {
        let membership = ready(&home)?;
        let lock = DirLock::acquire(home.dir())?;
        let hosted = HostedAgency::load_all(&home)?;
        let agencies: BTreeMap<AgencyId, Arc<HostedAgency>> = hosted
            .into_iter()
            .map(|agency| (agency.id().clone(), Arc::new(agency)))
            .collect();
        let identity = TlsIdentity::load_or_create(&home.keys())?;
        let secret = load_secret(&home)?;
        disk.create_dir_all(&home.staging())?;
        empty(&home.staging());
        let replica = Replica::open(
            &home.replica(),
            &membership.origin,
            membership.root,
            disk.clone(),
        )?;
        let store = DatasetStore::open(&home.data(), disk.clone())?;
        disk.clean(&home.data())?;
        let journals = Journals::open(
            &home,
            &membership.federation,
            agencies.values(),
            &clock,
            &disk,
        )?;
        let node = Arc::new(Node {
            source: watch::Sender::new(Source::new(&membership.registry)?),
            seats: Seats::new(&config.seats),
            home,
            config,
            membership,
            clock,
            disk,
            agencies,
            known: Arc::new(Known::new(replica.index().clone())),
            replica,
            store,
            journals,
            ledger: Arc::default(),
            outbox: Outbox::default(),
            verifier: Arc::default(),
            identity,
            secret,
            publishing: tokio::sync::Mutex::new(()),
            under_way: Mutex::default(),
            unfinished: tokio::sync::Notify::new(),
            address: OnceLock::new(),
            announced: Mutex::default(),
            shutdown: CancellationToken::new(),
            greeter: Greeter::default(),
            files: FileCache::new(FOOTERS),
            opening: tokio::sync::Mutex::new(()),
            links: Mutex::default(),
            _lock: lock,
        });
        // Of two keys of an agency, one was staged for a change that may have been entered.
        node.settle_keys();
        Ok(node)
    }

    /// The verified replica of the registry's log.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The agencies that it hosts.
    pub fn hosted(&self) -> impl Iterator<Item = &AgencyId> {
        self.agencies.keys()
    }

    /// The hosted agency with this id; with an empty text the only one.
    pub fn hosted_agency(&self, id: &str) -> Result<Arc<HostedAgency>, Fault> {
        let known = || {
            self.agencies
                .keys()
                .map(AgencyId::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        if id.is_empty() {
            let mut all = self.agencies.values();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(only.clone()),
                _ => Err(Fault::new(
                    Blame::WrongUse,
                    format!("this node hosts several agencies: {}", known()),
                )
                .advise("name one with --agency")),
            };
        }
        id.parse::<AgencyId>()
            .ok()
            .and_then(|id| self.agencies.get(&id).cloned())
            .ok_or_else(|| {
                Fault::new(Blame::NotFound, format!("this node does not host ‘{id}’"))
                    .advise(format!("it hosts {}", known()))
            })
    }

    /// The hosted agency as a party of exchanges.
    pub(crate) fn party<'a>(&'a self, agency: &'a HostedAgency) -> Party<'a> {
        Party {
            federation: &self.membership.federation,
            agency: agency.id(),
            key: &agency.signing,
        }
    }

    /// An agency of the federation.
    pub(crate) fn member(&self, id: &AgencyId) -> Result<Arc<AgencyRecord>, Fault> {
        self.known.agency(id).map_err(index_fault)?.ok_or_else(|| {
            Fault::new(
                Blame::NotFound,
                format!("there is no agency {id} in this federation"),
            )
            .at(id)
        })
    }

    /// An agency that may ask and answer, as far as this node can know.
    pub(crate) fn in_force(&self, id: &AgencyId) -> Result<Arc<AgencyRecord>, Fault> {
        self.knows_the_rules()?;
        let record = self.member(id)?;
        if record.is_active() {
            return Ok(record);
        }
        let stopped = self.stopped(&record);
        let stopped = stopped.map_or_else(|| record.status.to_string(), |how| how.to_string());
        let advice = match &record.successor {
            Some(successor) => format!("its successor is {successor}"),
            None => match id.superior() {
                Some(superior) => {
                    format!("{superior}, its superior, can say whether that will change")
                }
                None => "the keepers of the root keys can say whether that will change".to_owned(),
            },
        };
        let message = format!("{id} is {stopped}; it takes no part");
        Err(Fault::new(Blame::Unauthorised, message)
            .advise(advice)
            .at(id))
    }

    /// What this node holds may be out of date where the log goes on by newer rules.
    pub(crate) fn knows_the_rules(&self) -> Result<(), Fault> {
        let Some(rules) = self.replica.index().newer_rules() else {
            return Ok(());
        };
        Err(Fault::new(
            Blame::Stale,
            format!("the federation uses rules {rules} now, and this node's software is too old for them"),
        )
        .advise("install a newer jingwei; until then the node shows its catalogue and its own data only"))
    }

    /// A hosted agency can act only once its superior has enrolled it.
    pub(crate) fn enrolled(&self, id: &AgencyId) -> Result<Arc<AgencyRecord>, Fault> {
        self.member(id).map_err(|_| {
            Fault::new(Blame::Unauthorised, format!("{id} is not enrolled yet"))
                .advise(format!("give its .enrolment file to {}", enroller(id)))
        })
    }

    /// Where an agency's node is.
    pub(crate) fn node_of(&self, id: &AgencyId) -> Result<Arc<NodeRecord>, Fault> {
        self.known.node(id).map_err(index_fault)?.ok_or_else(|| {
            Fault::new(
                Blame::Unavailable,
                format!("{id} has announced no node yet"),
            )
            .at(id)
            .advise("its node announces itself when it is served after the enrolment")
        })
    }

    /// A version of a dataset.
    pub(crate) fn version(&self, id: &VersionId) -> Result<Arc<VersionRecord>, Fault> {
        self.known.version(id).map_err(index_fault)?.ok_or_else(|| {
            Fault::new(
                Blame::NotFound,
                format!("there is no {id} in the catalogue"),
            )
            .at(&id.dataset.agency)
        })
    }

    /// The state of the log that this node has verified.
    pub(crate) fn seen(&self) -> Seen {
        let checkpoint = self.replica.log().checkpoint();
        Seen {
            size: checkpoint.size,
            root: checkpoint.root,
        }
    }

    /// A connection to an agency's node, kept for the next time.
    pub(crate) fn link(&self, id: &AgencyId) -> Result<Link, Fault> {
        let record = self.node_of(id)?;
        let node = &record.node;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((keys, link)) = links.get(&node.address)
            && *keys == node.tls
        {
            return Ok(link.clone());
        }
        let target = Target::new(
            &node.address,
            node.tls.iter().copied(),
            Some(&self.identity),
            Patience::default(),
        )?;
        let link = target.connect_lazy()?;
        links.insert(node.address.clone(), (node.tls.clone(), link.clone()));
        self.greeter.soon(id);
        Ok(link)
    }

    /// The way to the registry, which the root names by its TLS key.
    pub(crate) fn submitter(&self) -> Result<Submitter, Fault> {
        let root = self
            .replica
            .index()
            .root()
            .map_err(index_fault)?
            .ok_or_else(|| Fault::new(Blame::Unavailable, "the replica is empty"))?;
        Submitter::new(
            &self.source.borrow().submit_address(),
            root.registry.tls,
            None,
            Patience::default(),
        )
    }

    /// Follows the registry at `address` from now on, if its log goes on from what is verified
    /// here; returns the log's name and size.
    pub(crate) async fn follow(&self, address: &str) -> Result<(String, u64), Fault> {
        let source =
            Source::new(address).map_err(|error| Fault::new(Blame::WrongUse, error.to_string()))?;
        let advanced = self.replica.advance(&source, Duration::ZERO, &self.clock);
        advanced.await.map_err(not_followed)?;
        let stored = Membership::follow(&self.home, &source, &self.disk);
        stored.map_err(|error| Fault::new(Blame::Internal, error.to_string()))?;
        self.source.send_replace(source);
        let checkpoint = self.replica.log().checkpoint();
        tracing::info!(log = checkpoint.origin, address, "following");
        // What was signed and did not reach the replica goes to the registry followed now.
        self.unfinished.notify_one();
        Ok((checkpoint.origin, checkpoint.size))
    }

    /// Submits a statement and waits until the replica shows it: the registry's word alone does
    /// not count. Where another registry takes over meanwhile, it is submitted there.
    pub(crate) async fn enter(&self, envelope: &Envelope) -> Result<u64, Fault> {
        let late = || {
            let message = match self.replica.alarms().is_empty() {
                true => "the registry did not enter the statement in time",
                false => {
                    "the registry did not enter the statement in time, and an alarm about it stands, of which ‘jingwei doctor’ says more"
                }
            };
            Fault::new(Blame::Unavailable, message)
                .advise("try again: the same statement is never entered twice")
        };
        let log = self.log_name();
        let entering = async {
            loop {
                let mut source = self.source.subscribe();
                let entered = tokio::select! {
                    entered = self.enter_here(envelope) => entered,
                    Ok(()) = source.changed() => continue,
                };
                match entered {
                    // The replica has gone over to another registry, and its address follows.
                    Err(fault) if on_the_way(&fault) && log != self.log_name() => {
                        let _ = tokio::time::timeout(PAUSE, source.changed()).await;
                    }
                    entered => return entered,
                }
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => Err(late()),
            entered = tokio::time::timeout(PATIENCE, entering) => entered.map_err(|_| late())?,
        }
    }

    /// The name of the log that the root in force is about.
    fn log_name(&self) -> Option<String> {
        let root = self.replica.index().root().ok().flatten();
        root.map(|root| root.registry.origin)
    }

    /// Enters a statement at the registry that is followed now.
    async fn enter_here(&self, envelope: &Envelope) -> Result<u64, Fault> {
        let accepted = self.submitter()?.submit(envelope).await?;
        let index = accepted.index;
        tracing::debug!(index, "acknowledged");
        self.replica.reached(index).await;
        match self.replica.log().envelope(index) {
            Ok(entry) if entry == envelope.to_bytes() => Ok(index),
            _ => Err(Fault::new(
                Blame::Unverified,
                format!(
                    "the registry says that the statement is entry {index}, and another one is"
                ),
            )),
        }
    }

    /// The data files of a manifest, with their footers read. The first use of a file in the
    /// life of a process hashes it, which may take long: on a thread that may wait, and one
    /// after the other, since it is the disk that it waits for.
    pub(crate) async fn data_files(
        self: &Arc<Node>,
        dataset: &Dataset,
    ) -> Result<Vec<Arc<DataFile>>, Fault> {
        if let Some(files) = self.files_at_hand(dataset) {
            return Ok(files);
        }
        let _turn = self.opening.lock().await;
        if let Some(files) = self.files_at_hand(dataset) {
            return Ok(files);
        }
        let (node, dataset) = (self.clone(), dataset.clone());
        tokio::task::spawn_blocking(move || node.open_files(&dataset))
            .await
            .map_err(|error| Fault::new(Blame::Internal, error.to_string()))?
    }

    /// The data files, if all have been used before and are still remembered.
    fn files_at_hand(&self, dataset: &Dataset) -> Option<Vec<Arc<DataFile>>> {
        let files = dataset.files.iter();
        files
            .map(|file| match self.store.is_verified(&file.digest) {
                true => self.files.recall(&file.digest),
                false => None,
            })
            .collect()
    }

    fn open_files(&self, dataset: &Dataset) -> Result<Vec<Arc<DataFile>>, Fault> {
        let broken = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "a data file cannot be used");
            Fault::new(
                Blame::Internal,
                "the provider cannot read its copy of the dataset",
            )
            .advise("its officer finds the reason with ‘jingwei doctor’")
        };
        dataset
            .files
            .iter()
            .map(|file| {
                let path = self
                    .store
                    .verified(&file.digest)
                    .map_err(|error| broken(&error))?;
                self.files
                    .open(&file.digest, &path)
                    .map_err(|error| broken(&error))
            })
            .collect()
    }
}

/// Whether a statement may have been lost between here and the registry, or in its log.
fn on_the_way(fault: &Fault) -> bool {
    matches!(
        fault.blame,
        Blame::Unavailable | Blame::Cancelled | Blame::Internal | Blame::Unverified
    )
}

/// Why a registry is not followed.
pub(crate) fn not_followed(error: ReplicaError) -> Fault {
    let message = error.to_string();
    match error {
        ReplicaError::Source(SourceError::Address(_)) => Fault::new(Blame::WrongUse, message),
        ReplicaError::Source(ref error) => Fault::new(Blame::Unavailable, message).advise(format!(
            "{}; the node follows the one it followed before",
            error.advice()
        )),
        ReplicaError::Misbehaviour(Misbehaviour::ShortTakeOver { .. }) => {
            Fault::new(Blame::Unverified, message).advise("tell the keepers of the root keys: they must take over again, from a replica as long as this node's; the node goes on with what it has")
        }
        ReplicaError::Misbehaviour(_) => Fault::new(Blame::Unverified, message)
            .advise("is it a registry of this federation? The node follows the one it followed before"),
        ReplicaError::Former { .. } => Fault::new(Blame::Unverified, message)
            .advise("ask the registry's keepers for the address of the new one"),
        _ => Fault::new(Blame::Internal, message),
    }
}

/// The index failed: this node's own fault.
pub(crate) fn index_fault(error: IndexError) -> Fault {
    tracing::error!(%error, "the index cannot be read");
    Fault::new(Blame::Internal, "the node cannot read its index")
        .advise("stop the node, delete replica/index in its directory, and start it again: the index is rebuilt")
}

fn load_secret(home: &Home) -> Result<[u8; 32], KeyFileError> {
    let path = home.secret();
    if !path.exists() {
        keyfile::create_private_dir(&home.keys())?;
        keyfile::create_private(&path, &rand::random::<[u8; 32]>())?;
    }
    let bytes = keyfile::read_private(&path)?;
    Ok(bytes[..]
        .try_into()
        .unwrap_or_else(|_| *jingwei_proto::digest::Digest::of(&bytes).as_bytes()))
}

/// Removes what an earlier process left in the staging directory.
fn empty(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // What cannot be removed is only space, and is tried again at the next start.
        let _ = std::fs::remove_file(entry.path());
    }
}
