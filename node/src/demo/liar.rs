//! Sixth stop: a registry that lies, made from the real one with its own keys, is caught by a node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jingwei_proto::checkpoint::CheckpointKeys;
use jingwei_proto::note::Note;
use jingwei_proto::state::RootRecord;
use jingwei_registry::clock;
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::Fault;
use jingwei_registry::http;
use jingwei_registry::keyring::Ring;
use jingwei_registry::log::{Entry, Log, LogReader};
use jingwei_registry::registry::{Paths, newest_record};
use jingwei_registry::replica::ReplicaError;
use jingwei_registry::serve::{ServeLimits, TlsMode, serve};
use jingwei_registry::source::Source;
use jingwei_registry::witness::client::{Remote, Target};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::proof;
use super::registry::{blocking, failed};
use super::tour::Tour;

/// The agency whose node is lied to.
const LIED_TO: &str = "fr.bre";

/// Forges a log, has it refused by the witnesses, shows it to a node, and verifies its proof.
pub async fn stop(tour: &mut Tour<'_>) -> Result<(), Fault> {
    tour.screen
        .title("6  A registry that lies: its true keys, and another past");
    tour.screen.gap();
    let registry = tour.federation.registry.dir().to_owned();
    let forged = tour.federation.dir().join("lying-registry");
    let record = newest_record(&Paths::new(&registry)).map_err(failed)?;
    let lie = {
        let (registry, record, forged) = (registry, record.clone(), forged);
        blocking(move || forge(&registry, &record, &forged)).await?
    };
    tour.screen.say(&format!(
        "it strikes the last entry but one out of its log, signs the {} that are left, and serves them",
        lie.size()
    ));
    refused_by_witnesses(tour, &record, &lie).await?;
    let file = refused_by_a_node(tour, &lie).await?;
    let verdict = proof::verify(tour, &file);
    tour.check(
        "anyone can verify that it lied, offline",
        &verdict,
        &"MISBEHAVIOUR PROVED".to_owned(),
    );
    Ok(())
}

/// The log of the registry in `registry` without its last entry but one, sealed with its keys.
fn forge(registry: &Path, record: &RootRecord, forged: &Path) -> Result<LogReader, Fault> {
    let paths = Paths::new(registry);
    let keys = Ring::new(&paths).find(&record.registry).map_err(failed)?;
    let honest = LogReader::open(&paths.log()).map_err(failed)?;
    let struck = honest.size().saturating_sub(2);
    let kept = (0..honest.size()).filter(|index| *index != struck);
    let entries = kept
        .map(|index| {
            Ok(Entry {
                leaf: honest.leaf(index).map_err(failed)?,
                envelope: Some(honest.envelope(index).map_err(failed)?),
            })
        })
        .collect::<Result<Vec<Entry>, Fault>>()?;
    let mut log = Log::open(forged, Disk::new(), &keys.origin).map_err(failed)?;
    let clock = clock::system();
    log.append_and_publish(&entries, |checkpoint| keys.seal(checkpoint, &clock))
        .map_err(failed)?;
    Ok(log.reader())
}

/// The witnesses remember what they signed, and sign nothing that does not continue it.
async fn refused_by_witnesses(
    tour: &mut Tour<'_>,
    record: &RootRecord,
    lie: &LogReader,
) -> Result<(), Fault> {
    let keys = CheckpointKeys::of_root(record);
    let log_key = keys.log_key().map_err(failed)?;
    let witness_keys = keys.witness_keys().map_err(failed)?;
    let note = lie.checkpoint_note().map_err(failed)?;
    let target = Target {
        checkpoint: lie.checkpoint(),
        note: Note::parse(note.as_bytes()).map_err(failed)?,
    };
    let addresses: Vec<_> = tour.federation.registry.witnesses().cloned().collect();
    for (address, key) in addresses.iter().zip(witness_keys) {
        let mut witness = Remote::new(key, log_key.clone(), address.url.clone()).map_err(failed)?;
        let answer = witness.ask(&target, lie).await;
        if let Err(reason) = &answer {
            tour.screen.aside(&format!("{}: {reason}", address.name));
        }
        let what = format!("{} does not co-sign it", address.name);
        tour.check(&what, &answer.is_err(), &true);
    }
    Ok(())
}

/// A node that follows it notices, keeps what it has, and holds the proof.
async fn refused_by_a_node(tour: &mut Tour<'_>, lie: &LogReader) -> Result<PathBuf, Fault> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(failed)?;
    let address = format!("http://{}", listener.local_addr().map_err(failed)?);
    let shutdown = CancellationToken::new();
    let (_size, sizes) = watch::channel(lie.size());
    let router = http::router(lie.clone(), sizes, None, shutdown.clone());
    let limits = ServeLimits::default();
    let serving = tokio::spawn(serve(
        listener,
        router,
        TlsMode::Plain,
        limits,
        shutdown.clone(),
    ));
    let replica = &tour.federation.node(LIED_TO)?.replica;
    let before = replica.log().checkpoint();
    let source = Source::new(&address).map_err(failed)?;
    let followed = replica
        .advance(&source, Duration::ZERO, &clock::system())
        .await;
    shutdown.cancel();
    let _ = serving.await;
    let caught = matches!(followed, Err(ReplicaError::Misbehaviour(_)));
    if let Err(error) = &followed {
        tour.screen.aside(&format!("{LIED_TO}: {error}"));
    }
    let after = replica.log().checkpoint();
    let alarms = replica.alarms();
    tour.check(
        &format!("the node of {LIED_TO} refuses it and raises an alarm"),
        &(caught, alarms.len()),
        &(true, 1),
    );
    tour.check("and keeps the log that it has verified", &after, &before);
    // In the node's directory it would stand for as long as the demo does.
    let file = tour.federation.dir().join("lying-registry.misbehaviour");
    for alarm in alarms {
        let proof = alarm
            .proof
            .ok_or_else(|| failed("the alarm comes without a proof"))?;
        std::fs::rename(proof, &file).map_err(failed)?;
        std::fs::remove_file(alarm.file).map_err(failed)?;
    }
    Ok(file)
}
