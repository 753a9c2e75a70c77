//! A registry that is lost is taken over: its log goes on under another name, from a replica, as
//! k of n root keys decide.
//!
//! ```text
//! replica ─► copied, hashed, `apply` of each ─► root N+1 proposed: continues (origin, n, root)
//!         ─► signed by k of n ─► entry n of the new log ─► `serve`: witnesses co-sign from 0 on
//! ```
//!
//! The new log's first n entries are the old one's, byte for byte; entry n is the root document that
//! says so. Nothing is published before it is there. Copying may be broken off at any time and begun
//! again; what was copied is held against the replica.
//!
//! What the lost registry has acknowledged and no replica holds cannot be copied: its submitters have
//! it. [`heard`] finds out from what witnesses and nodes have seen how much that is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::Signer as _;
use jingwei_proto::leaf::leaf;
use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::{Continues, Predicate, RegistryKeys, Root, Statement};
use jingwei_proto::time::Time;

use crate::clock::Clock;
use crate::disk::{DirLock, Disk};
use crate::fault::{Blame, Fault};
use crate::index::{Batch, Index};
use crate::keyfile::{self, TlsIdentity};
use crate::keyring::Ring;
use crate::log::{Entry, Local, Log, LogReader, Stored};
use crate::paths::Paths;
use crate::registry::audit;
use crate::rehearsal::refused;
use crate::sequencer::{KeyRing as _, LogKeys};
use jingwei_proto::words::entries;

pub mod heard;

/// Entries that are copied in one commit.
const CHUNK: u64 = 4_096;

/// A replica of the lost log, with all that it has stored: a node that was stopped on its way to a
/// signed checkpoint has seen that its entries lead there, and shows them later.
pub struct Replica {
    log: Stored,
    /// The checkpoints that its node has verified: the one that it shows, and the highest.
    notes: Vec<String>,
}

/// A new log with the replica's entries, which nobody has signed yet.
pub struct Copied {
    /// The root in force.
    pub root: RootRecord,
    /// The new log's name and keys.
    pub registry: RegistryKeys,
    /// What it goes on from.
    pub continues: Continues,
    /// When the replica's newest checkpoint was co-signed.
    pub dated: Time,
    /// The replica's checkpoints that count.
    pub shown: Vec<String>,
    /// The copied entries.
    pub log: LogReader,
}

fn internal(error: impl std::fmt::Display) -> Fault {
    Fault::new(Blame::Internal, error.to_string())
}

impl Replica {
    /// The replica in `dir`: a node's directory, its `replica`, or a copy of that.
    pub fn open(dir: &Path) -> Result<Replica, Fault> {
        let places = [dir.join("replica"), dir.to_owned()];
        let found = places.iter().find(|place| place.join("log").is_dir());
        let place = found.ok_or_else(|| {
            let message = format!("{} holds no replica of a log", dir.display());
            Fault::new(Blame::WrongUse, message)
                .advise("name a node's directory with --from, or a copy of what it has in replica/")
        })?;
        let log = Stored::open(Arc::new(Local::reader(&place.join("log")))).map_err(internal)?;
        let log = log.ok_or_else(|| {
            let message = format!("the replica in {} is empty", place.display());
            Fault::new(Blame::WrongUse, message)
        })?;
        let notes = [place.join("log").join("checkpoint"), place.join("highest")];
        let notes = notes
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok());
        Ok(Replica {
            log,
            notes: notes.collect(),
        })
    }

    /// Copies it into a new registry at `paths`, with keys of its own.
    pub fn copy_to(&self, paths: &Paths, disk: Disk) -> Result<Copied, Fault> {
        let before = self.log.checkpoint().clone();
        let origin = next_origin(&before.origin)?;
        keyfile::create_private_dir(paths.dir()).map_err(internal)?;
        keyfile::create_private_dir(&paths.keys()).map_err(internal)?;
        let _lock = DirLock::acquire(paths.dir()).map_err(internal)?;
        let key = |path: PathBuf| keyfile::load_or_create(&path).map_err(internal);
        let (log_key, cosigner) = (key(paths.log_key())?, key(paths.cosigner_key())?);
        let tls = TlsIdentity::load_or_create(&paths.keys()).map_err(internal)?;
        let mut log = paths.open_log(disk, &origin).map_err(internal)?;
        self.begun_here(paths, &log)?;
        while log.size() < before.size {
            let range = log.size()..before.size.min(log.size() + CHUNK);
            let entries = self.log.entries(range).map_err(internal)?;
            let seal = |own: &Checkpoint| own.sign(&log_key).map(|note| note.to_string());
            log.append(&entries, seal).map_err(internal)?;
        }
        audit(&log.committed()).map_err(internal)?;
        let tree = log.checkpoint().root;
        if tree != before.root {
            return Err(unverified(
                "its entries, as they are copied, do not yield its root",
            ));
        }
        let index = Index::open(&paths.index(), &log.committed()).map_err(internal)?;
        let root = index.root().map_err(internal)?;
        let root = root.ok_or_else(|| unverified("it does not begin with a root document"))?;
        let (shown, dated) = self.verified(&root, &log.committed())?;
        Ok(Copied {
            registry: RegistryKeys {
                origin,
                log: log_key.public().clone(),
                cosigner: cosigner.public().clone(),
                tls: tls.id,
            },
            continues: Continues {
                origin: before.origin,
                size: before.size,
                root: tree,
            },
            root,
            dated,
            shown,
            log: log.committed(),
        })
    }

    /// Whether what stands at `paths` already is the beginning of this.
    fn begun_here(&self, paths: &Paths, log: &Log) -> Result<(), Fault> {
        let dir = paths.dir().display();
        let size = self.log.checkpoint().size;
        if log.size() > size {
            let message = format!(
                "{dir} holds {} already, and this replica {size}",
                entries(log.size())
            );
            return Err(Fault::new(Blame::WrongUse, message)
                .advise("if the take-over is complete there, serve it; else take the longer replica, or another --dir"));
        }
        let here = log.checkpoint();
        let begins = self.log.root_at(here.size);
        if here.size > 0 && begins.is_some_and(|root| root != here.root) {
            let message = format!("{dir} holds the beginning of another log");
            return Err(Fault::new(Blame::WrongUse, message).advise("choose another --dir"));
        }
        Ok(())
    }

    /// Its checkpoints that the root in force has to do with, and the newest date of them. What they
    /// say of the copied entries has to be so.
    fn verified(&self, root: &RootRecord, log: &LogReader) -> Result<(Vec<String>, Time), Fault> {
        let keys = CheckpointKeys::of_root(root);
        let mut shown = Vec::new();
        let mut newest = None;
        for note in &self.notes {
            let Ok((checkpoint, dated)) = keys.verify(note) else {
                continue;
            };
            let here = checkpoint.size <= log.size();
            if here && log.root_at(checkpoint.size).map_err(internal)? != checkpoint.root {
                return Err(unverified("its checkpoint is of other entries"));
            }
            shown.push(note.clone());
            newest = newest.max(Some(dated));
        }
        let dated = newest.ok_or_else(|| unverified("its checkpoint does not verify"))?;
        Ok((shown, dated))
    }
}

fn unverified(reason: &str) -> Fault {
    Fault::new(
        Blame::Unverified,
        format!("the replica is damaged: {reason}"),
    )
    .advise("take another agency's replica, and another --dir")
}

/// The name of the registry's next log: `jingwei/<federation>/registry/<n+1>`.
fn next_origin(origin: &str) -> Result<String, Fault> {
    let next = origin.rsplit_once('/').and_then(|(name, number)| {
        let number: u64 = number.parse().ok()?;
        Some(format!("{name}/{}", number.checked_add(1)?))
    });
    next.ok_or_else(|| internal(format!("the log's name ‘{origin}’ has no number")))
}

/// A new log that is to be completed by a root document.
struct Begun {
    log: Log,
    index: Index,
    body: Root,
    // Given up last of all.
    _lock: DirLock,
}

impl Begun {
    /// Where that root stands, if it was entered before.
    fn entered(&self, envelope: &Envelope) -> Result<Option<u64>, Fault> {
        let version = self.index.root_version(self.body.version);
        let entered = version.map_err(internal)?;
        let entered = entered.filter(|root| root.chain.payload == envelope.payload_digest());
        Ok(entered.map(|root| root.chain.index))
    }
}

/// Opens the new log at `paths`, which the root in `envelope` is about.
fn begun(paths: &Paths, envelope: &Envelope, disk: Disk) -> Result<Begun, Fault> {
    let body = take_over_in(envelope)?;
    let _lock = DirLock::acquire(paths.dir()).map_err(internal)?;
    let storage = paths.log_storage().map_err(internal)?;
    let origin = Log::origin_of(&storage).map_err(internal)?;
    if origin.as_ref() != Some(&body.registry.origin) {
        let message = format!(
            "the proposal is about {}, which is not the log in {}",
            body.registry.origin,
            paths.dir().display()
        );
        return Err(Fault::new(Blame::WrongUse, message).advise(
            "give the proposal that ‘jingwei-registry take-over --from’ wrote for this directory",
        ));
    }
    let log = paths
        .open_log(disk, &body.registry.origin)
        .map_err(internal)?;
    let index = Index::open(&paths.index(), &log.committed()).map_err(internal)?;
    Ok(Begun {
        log,
        index,
        body,
        _lock,
    })
}

/// The root in force in the new log at `paths`, which the one in `envelope` is to follow; `None` if
/// that was entered before.
pub fn followed(
    paths: &Paths,
    envelope: &Envelope,
    disk: Disk,
) -> Result<Option<RootRecord>, Fault> {
    let begun = begun(paths, envelope, disk)?;
    match begun.entered(envelope)? {
        Some(_) => Ok(None),
        None => begun.index.root().map_err(internal),
    }
}

/// Checks all that [`finish`] does, and enters nothing.
pub fn rehearse(paths: &Paths, envelope: &Envelope, disk: Disk) -> Result<(), Fault> {
    let begun = begun(paths, envelope, disk)?;
    if begun.entered(envelope)?.is_none() {
        admitted(paths, envelope, &begun.body, &begun.log, &begun.index)?;
    }
    Ok(())
}

/// Enters the root that k of n keys have signed in the new log at `paths`, which is complete with it.
/// Returns its index; entering it once more does nothing.
pub fn finish(paths: &Paths, envelope: &Envelope, clock: &Clock, disk: Disk) -> Result<u64, Fault> {
    let mut begun = begun(paths, envelope, disk)?;
    let place = match begun.entered(envelope)? {
        Some(place) => place,
        None => append(paths, envelope, &mut begun, clock)?,
    };
    if begun.body.quorum == 0 {
        // Otherwise it is published when the registry is served and a quorum has signed.
        begun.log.publish_sealed().map_err(internal)?;
    }
    Ok(place)
}

/// The root document of a take-over.
fn take_over_in(envelope: &Envelope) -> Result<Root, Fault> {
    let statement = Statement::parse(envelope.payload());
    match statement.map(|statement| statement.predicate) {
        Ok(Predicate::Root(root)) if root.continues.is_some() => Ok(root),
        _ => Err(
            Fault::new(Blame::WrongUse, "the proposal is not about a take-over")
                .advise("‘jingwei-registry root submit’ enters other roots at a running registry"),
        ),
    }
}

fn append(
    paths: &Paths,
    envelope: &Envelope,
    begun: &mut Begun,
    clock: &Clock,
) -> Result<u64, Fault> {
    let Begun {
        log, index, body, ..
    } = begun;
    let place = log.size();
    let (keys, batch, entry) = admitted(paths, envelope, body, log, index)?;
    log.append(&[entry], |checkpoint| {
        keys.sign(checkpoint, body.quorum, clock)
    })
    .map_err(internal)?;
    batch.write(log.size()).map_err(internal)?;
    Ok(place)
}

/// The entry that completes the log, with the keys that sign from it on.
fn admitted(
    paths: &Paths,
    envelope: &Envelope,
    body: &Root,
    log: &Log,
    index: &Index,
) -> Result<(LogKeys, Batch, Entry), Fault> {
    let (place, tree): (u64, Digest) = (log.size(), log.checkpoint().root);
    let same = |before: &Continues| before.size == place && before.root == tree;
    if !body.continues.as_ref().is_some_and(same) {
        let message = format!(
            "the proposal does not continue the {} in {}",
            entries(place),
            paths.dir().display()
        );
        return Err(Fault::new(Blame::Inconsistent, message).advise(
            "more was copied since it was written: make a new one with ‘take-over --from’",
        ));
    }
    let keys = Ring::new(paths)
        .keys_of(&body.registry)
        .map_err(|missing| Fault::new(Blame::WrongUse, missing))?;
    let mut batch = Batch::new(index);
    let signer = batch.admit(place, envelope, None).map_err(refused)?;
    let entry = Entry {
        leaf: leaf(envelope, &signer),
        envelope: Some(envelope.to_bytes()),
    };
    Ok((keys, batch, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_numbered() {
        let next = |origin| next_origin(origin).ok();
        let one = "jingwei/test-0123456789abcdef/registry/9";
        let two = "jingwei/test-0123456789abcdef/registry/10";
        assert_eq!(next(one).as_deref(), Some(two));
        assert_eq!(next("jingwei/x/registry/last"), None);
        assert_eq!(next("elsewhere"), None);
    }
}
