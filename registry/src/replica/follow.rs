//! Following a registry: the loop, and one step of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jingwei_proto::checkpoint::{Checkpoint, CheckpointError, CheckpointKeys};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::merkle::Edge;
use jingwei_proto::misbehaviour::{Lie, Logged};
use jingwei_proto::note::Note;
use jingwei_proto::state::{self, RootRecord, TimeRecord};
use jingwei_proto::statement::{Continues, fingerprint};
use jingwei_proto::tile::{self, TileKind, TilePath};
use jingwei_proto::time::Time;
use jingwei_proto::tlog_proof::TlogProof;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::fetch::{self, Border, Checked, Doubt, Raw, Refused};
use super::newer_root::Newer;
use super::{Comparison, Misbehaviour, Replica, ReplicaError, lock, newer_root};
use crate::clock::Clock;
use crate::index::IndexError;
use crate::log::AppendError;
use crate::source::Source;

/// How long a request for a newer checkpoint may wait at the registry.
const WAIT: Duration = Duration::from_secs(25);
/// Between two looks at a registry that does not wait.
const POLL: Duration = Duration::from_secs(5);
/// A checkpoint is old when it was dated so many seconds ago: three days.
const STALE: i64 = 72 * 3600;
/// And for so many seconds the registry has shown nothing newer, though it dates its log anew
/// every five minutes: one that was down for long is given the time to do that.
const STALE_FOR: i64 = 15 * 60;
/// Seconds by which clocks that are set at all may differ.
const SKEW: i64 = 5 * 60;
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A checkpoint that the registry has signed, with its note.
#[derive(Clone)]
struct Signed {
    checkpoint: Checkpoint,
    note: Arc<str>,
}

impl Replica {
    /// Follows the registry until `shutdown`, wherever `source` says that it is. Failures are
    /// retried after a growing pause.
    pub async fn follow(
        self: Arc<Self>,
        mut source: watch::Receiver<Source>,
        clock: Clock,
        shutdown: CancellationToken,
    ) {
        let mut pause = Duration::from_millis(200);
        // The first look does not wait: it shows at once whether the registry is there.
        let mut wait = Duration::ZERO;
        loop {
            let began = Instant::now();
            let before = self.committed.size();
            let here = source.borrow_and_update().clone();
            let shown = tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = source.changed() => {
                    wait = Duration::ZERO;
                    continue;
                }
                shown = self.shown(&here, wait) => shown,
            };
            let taken = async { self.take(&here, &shown?, &clock).await };
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = taken => result,
            };
            let rest = match result {
                Ok(()) => {
                    pause = Duration::from_millis(200);
                    if std::mem::replace(&mut wait, WAIT).is_zero() {
                        continue;
                    }
                    let quick = began.elapsed() < Duration::from_secs(1);
                    if quick && self.committed.size() == before {
                        POLL
                    } else {
                        continue;
                    }
                }
                Err(error) => {
                    wait = Duration::ZERO;
                    self.note_failure(&error);
                    let rest = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = source.changed() => wait = Duration::ZERO,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// The registry's newest checkpoint, waiting up to `wait` for one that is new here.
    async fn shown(&self, source: &Source, wait: Duration) -> Result<String, ReplicaError> {
        let size = self.committed.size();
        let wait = if size == 0 { Duration::ZERO } else { wait };
        Ok(source.checkpoint(size, wait).await?)
    }

    /// Brings the replica to the registry's newest checkpoint, waiting up to `wait` for one.
    pub async fn advance(
        self: &Arc<Self>,
        source: &Source,
        wait: Duration,
        clock: &Clock,
    ) -> Result<(), ReplicaError> {
        self.knows_the_rules()?;
        let note = self.shown(source, wait).await?;
        self.take(source, &note, clock).await
    }

    /// Brings the replica to the checkpoint that the registry has shown.
    async fn take(
        self: &Arc<Self>,
        source: &Source,
        note: &str,
        clock: &Clock,
    ) -> Result<(), ReplicaError> {
        let _turn = self.turn.lock().await;
        self.knows_the_rules()?;
        let Newer {
            checkpoint,
            time,
            taken_over,
        } = self.verified(source, note).await?;
        self.not_short(&taken_over)?;
        if !self.given_up(&taken_over) {
            self.not_behind(&checkpoint, note)?;
        }
        let signed = Signed {
            checkpoint,
            note: note.into(),
        };
        if signed.checkpoint.size > self.committed.size() {
            self.grow(source, &signed, &taken_over).await?;
        } else {
            self.index_the_rest().await?;
        }
        self.knows_the_rules()?;
        let now = clock();
        self.look_at_age(time, now);
        self.look_ahead(time, now)?;
        self.standing.send_modify(|standing| {
            standing.size = signed.checkpoint.size;
            standing.log_time = Some(time);
            standing.registry_seen = Some(now);
            standing.problem = None;
        });
        metrics::gauge!("jingwei_replica_entries").set(signed.checkpoint.size as f64);
        Ok(())
    }

    /// The checkpoint, verified by the root in force, or by a later one that stands in the log.
    async fn verified(&self, source: &Source, note: &str) -> Result<Newer, ReplicaError> {
        let root = match self.index.root()? {
            Some(root) => root,
            None => self.first_root(source, note).await?,
        };
        let error = match CheckpointKeys::of_root(&root).verify(note) {
            Ok((checkpoint, time)) => {
                return Ok(Newer {
                    checkpoint,
                    time,
                    taken_over: Vec::new(),
                });
            }
            Err(error) => error,
        };
        if let Some(former) = self.former(note) {
            let (origin, ended) = (former.root.registry.origin.clone(), former.ended);
            return Err(match self.left_out(&former, note) {
                Some(misbehaviour) => self.accuse(misbehaviour, None).into(),
                None => ReplicaError::Former { origin, ended },
            });
        }
        match newer_root::verify(&self.index, self.pinned, source, note).await? {
            Some(newer) => Ok(newer),
            None => Err(self.unverified(source, note, &error).await?.into()),
        }
    }

    /// A checkpoint that does not count. If the registry has signed it, as it does before the
    /// witnesses do, it may still show another history.
    async fn unverified(
        &self,
        source: &Source,
        note: &str,
        error: &CheckpointError,
    ) -> Result<Misbehaviour, ReplicaError> {
        if let Comparison::Different { misbehaviour, .. } = self.compare(note) {
            return Ok(misbehaviour);
        }
        let short = self.taken_over_too_early(source, note).await?;
        let misbehaviour = short.unwrap_or_else(|| Misbehaviour::Checkpoint(error.to_string()));
        Ok(self.accuse(misbehaviour, None))
    }

    /// Beyond an entry that asks for newer rules nothing is followed: what it means is unknown.
    fn knows_the_rules(&self) -> Result<(), IndexError> {
        match self.index.newer_rules() {
            Some(rules) => Err(IndexError::RulesTooNew(rules)),
            None => Ok(()),
        }
    }

    fn note_failure(&self, error: &ReplicaError) {
        let text = error.to_string();
        if self.standing.borrow().problem.as_ref() != Some(&text) {
            tracing::warn!(error = %text, "the registry is not followed");
        }
        self.standing
            .send_modify(|standing| standing.problem = Some(text));
    }

    /// The first root, by which everything else is checked, before anything is stored.
    async fn first_root(&self, source: &Source, note: &str) -> Result<RootRecord, ReplicaError> {
        let size = Note::parse(note.as_bytes())
            .map_err(CheckpointError::from)
            .and_then(|note| note.text.parse::<Checkpoint>())
            .map_err(|error| Misbehaviour::Checkpoint(error.to_string()))?
            .size;
        let path = TilePath::in_log(TileKind::Envelopes, 0, size)
            .ok_or_else(|| Misbehaviour::Checkpoint("the log is empty".into()))?;
        let (bundle, width) = source.tile(&path).await?;
        let bytes = *tile::decode_bundle(TileKind::Envelopes, &bundle, width)
            .map_err(|error| bad_entry(0, error.to_string()))?
            .first()
            .ok_or_else(|| bad_entry(0, "it is missing".into()))?;
        let envelope = Envelope::parse(bytes).map_err(|error| bad_entry(0, error.to_string()))?;
        if envelope.payload_digest() != self.pinned {
            return Err(Misbehaviour::OtherRoot(fingerprint(&envelope.payload_digest())).into());
        }
        let mut memory = std::collections::BTreeMap::new();
        let change = state::apply(&memory, 0, &envelope)
            .map_err(|error| bad_entry(0, format!("{error:?}")))?;
        change.write_to(&mut memory);
        *lock(&self.first_root) = Some(envelope);
        memory
            .get(state::keys::ROOT)
            .and_then(|bytes| state::record(bytes))
            .ok_or_else(|| bad_entry(0, "it is no root document".into()).into())
    }

    /// A log never has fewer entries than were verified, nor others.
    fn not_behind(&self, shown: &Checkpoint, note: &str) -> Result<(), Misbehaviour> {
        if let Some(misbehaviour) = self.differs(shown) {
            return Err(self.accuse(misbehaviour, self.two_histories(shown, note)));
        }
        match self.highest() {
            Some((highest, _)) if shown.size < highest.size => {
                let misbehaviour = Misbehaviour::Shrunk {
                    shown: shown.size,
                    verified: highest.size,
                };
                Err(self.accuse(misbehaviour, self.shrunk(note)))
            }
            _ => Ok(()),
        }
    }

    /// A registry that shows what it once signed, and nothing newer, tells no lie that a file can
    /// show; so it is an alarm by its date. What it shows is true, and is taken in.
    fn look_at_age(&self, dated: Time, now: Time) {
        let mut since = lock(&self.stale_since);
        if now.seconds() - dated.seconds() <= STALE {
            *since = None;
            return;
        }
        let first = *since.get_or_insert(now);
        drop(since);
        if now.seconds() - first.seconds() >= STALE_FOR {
            self.raise(&Misbehaviour::Stale { dated }, None);
        }
    }

    /// Delays go by log time, which is the registry's word alone. What holds it down is the date of
    /// the checkpoints over it, and what holds these down is the clock here: a registry that skips
    /// a week is not believed less, but is seen.
    fn look_ahead(&self, dated: Time, now: Time) -> Result<(), IndexError> {
        let ahead = |time: Time, of: Time| time.seconds() - of.seconds() > SKEW;
        if ahead(dated, now) {
            self.raise(&Misbehaviour::Ahead { dated, now }, None);
        }
        if let Some(TimeRecord { chain, time }) = self.index.log_time()?
            && ahead(time, dated)
        {
            let index = chain.index;
            self.raise(&Misbehaviour::LogTimeAhead { index, time, dated }, None);
        }
        Ok(())
    }

    /// Takes in what is new up to the signed checkpoint. Reading, checking, storing and indexing go
    /// on side by side, each on the chunk after the one that the next is busy with.
    async fn grow(
        self: &Arc<Self>,
        source: &Source,
        signed: &Signed,
        taken_over: &[Continues],
    ) -> Result<(), ReplicaError> {
        let edge = self.committed.edge()?;
        let borders = self.borders(source, &edge, signed, taken_over).await?;
        let from = edge.size();
        let (to_check, raw) = mpsc::channel(1);
        let (to_store, checked) = mpsc::channel(1);
        let reading = fetch::chunks(source, from, borders, signed.checkpoint.size, to_check);
        let checking = tokio::task::spawn_blocking(move || check_all(raw, &to_store, edge));
        let (to_index, entered) = mpsc::channel(1);
        let (replica, signed_too) = (self.clone(), signed.clone());
        let storing =
            tokio::task::spawn_blocking(move || replica.store_all(checked, &to_index, &signed_too));
        let replica = self.clone();
        let indexing = tokio::task::spawn_blocking(move || replica.index_all(entered));
        let (read, checked, stored, indexed) = tokio::join!(reading, checking, storing, indexing);
        // The first in the order of work is the cause of the others.
        read?;
        if let Err(refused) = checked.map_err(panicked)? {
            return Err(self.explain(source, signed, refused).await);
        }
        stored.map_err(panicked)??;
        indexed.map_err(panicked)?
    }

    /// Where each bundle ends. If more than one is new, the leaf hashes are read first, so that
    /// nothing is ever stored that does not lead to the signed root.
    async fn borders(
        &self,
        source: &Source,
        edge: &Edge,
        signed: &Signed,
        taken_over: &[Continues],
    ) -> Result<Vec<Border>, ReplicaError> {
        let end = (signed.checkpoint.size, signed.checkpoint.root);
        let from = edge.size();
        // Reached again, if the log was lost; and where other registries have taken over.
        let highest = self.highest().filter(|_| !self.given_up(taken_over));
        let highest = highest.map(|(known, _)| (known.size, known.root));
        let others = taken_over.iter().map(|before| (before.size, before.root));
        let mut known: Vec<Border> = highest.into_iter().chain(others).collect();
        if known
            .iter()
            .any(|(size, root)| *size == from && *root != edge.root())
        {
            return Err(self.explain(source, signed, Refused::Root).await);
        }
        known.retain(|(size, _)| (from + 1..end.0).contains(size));
        known.push(end);
        known.sort();
        known.dedup();
        if fetch::within_one_bundle(from, end.0) {
            return Ok(known);
        }
        let borders = fetch::borders(source, edge.clone(), &signed.checkpoint, &known).await?;
        if !known.iter().all(|border| borders.contains(border)) {
            return Err(self.explain(source, signed, Refused::Root).await);
        }
        let mut highest = lock(&self.highest);
        highest.keep(&signed.checkpoint, &signed.note)?;
        Ok(borders)
    }

    /// Why a chunk was refused, as an alarm, and with a proof where the registry's own signature
    /// shows it.
    async fn explain(&self, source: &Source, signed: &Signed, refused: Refused) -> ReplicaError {
        match refused {
            Refused::Root => match self.other_history(source, signed).await {
                Ok(misbehaviour) => misbehaviour.into(),
                Err(error) => error,
            },
            Refused::Bundle(reason) => {
                let reason = format!("a bundle of entries cannot be read: {reason}");
                self.accuse(Misbehaviour::Unmatched(reason), None).into()
            }
            Refused::Entry { index, leaf, doubt } => {
                let (reason, payload) = match doubt {
                    Doubt::Malformed => ("it has not the form of entries".into(), None),
                    Doubt::Forged(payload) => (
                        "it is not signed by the key that it names".into(),
                        Some(payload),
                    ),
                    Doubt::Unmatched(reason) => {
                        let reason = format!("the envelope of entry {index}: {reason}");
                        return self.accuse(Misbehaviour::Unmatched(reason), None).into();
                    }
                };
                let proof = match fetch::inclusion(source, index, &signed.checkpoint).await {
                    Ok(Some(hashes)) => self.prove_entry(index, leaf, payload, hashes, signed),
                    _ => None,
                };
                self.accuse(bad_entry(index, reason), proof).into()
            }
        }
    }

    fn prove_entry(
        &self,
        index: u64,
        leaf: Vec<u8>,
        payload: Option<Vec<u8>>,
        hashes: Vec<jingwei_proto::digest::Digest>,
        signed: &Signed,
    ) -> Option<Vec<u8>> {
        let proof = TlogProof {
            index,
            hashes,
            checkpoint: signed.note.to_string(),
            extra: None,
        };
        self.prove(match payload {
            None => Lie::MalformedEntry { leaf, proof },
            Some(payload) => Lie::ForgedEntry(Logged {
                leaf,
                payload,
                proof,
            }),
        })
    }

    /// Entries that do not lead to the signed root: either the signed log is of another history
    /// than the one verified before, or these are not its entries.
    async fn other_history(
        &self,
        source: &Source,
        signed: &Signed,
    ) -> Result<Misbehaviour, ReplicaError> {
        let unmatched = || {
            let reason = "the entries do not lead to the signed root".to_owned();
            self.accuse(Misbehaviour::Unmatched(reason), None)
        };
        let Some((highest, older)) = self.highest() else {
            return Ok(unmatched());
        };
        let shown = fetch::history(source, highest.size, &signed.checkpoint).await?;
        let Some((root, path)) = shown.filter(|(root, _)| *root != highest.root) else {
            return Ok(unmatched());
        };
        let misbehaviour = Misbehaviour::Forked {
            size: highest.size,
            shown: root,
            verified: highest.root,
        };
        let proof = self.prove(Lie::TwoHistories {
            older,
            newer: signed.note.to_string(),
            root,
            path,
        });
        Ok(self.accuse(misbehaviour, proof))
    }

    /// Stores chunks that were checked, until there are no more.
    fn store_all(
        &self,
        mut checked: mpsc::Receiver<Checked>,
        to_index: &mpsc::Sender<(u64, Checked)>,
        signed: &Signed,
    ) -> Result<(), ReplicaError> {
        while let Some(mut chunk) = checked.blocking_recv() {
            let from = self.committed.size();
            let entries = std::mem::take(&mut chunk.entries);
            let last = from + entries.len() as u64 == signed.checkpoint.size;
            if last {
                lock(&self.highest).keep(&signed.checkpoint, &signed.note)?;
            }
            let mut log = lock(&self.log);
            log.continue_as(&signed.checkpoint.origin);
            let sealed = log.append(&entries, |own| match last {
                true => Ok::<_, std::convert::Infallible>(signed.note.to_string()),
                // On the way to the signed size, which these entries were seen to lead to.
                false => Ok(on_the_way(own, &signed.note)),
            });
            sealed.map_err(|error: AppendError<_>| ReplicaError::Append(error.to_string()))?;
            if last {
                log.publish(&signed.note)?;
            }
            drop(log);
            drop(entries);
            if to_index.blocking_send((from, chunk)).is_err() {
                // Indexing failed, and says why itself.
                break;
            }
        }
        Ok(())
    }

    /// Indexes chunks that were stored, each with the place of its first entry, as far as the index
    /// may follow; what it passes over here it takes from the log at the end.
    fn index_all(&self, mut stored: mpsc::Receiver<(u64, Checked)>) -> Result<(), ReplicaError> {
        while let Some((from, chunk)) = stored.blocking_recv() {
            let to = from + chunk.envelopes.len() as u64;
            if self.index.size()? == from && self.followed().size() >= to {
                self.index.fold(from, &chunk.envelopes)?;
            }
        }
        self.catch_up()
    }

    /// Brings the index to the log's size, whatever kept it behind.
    fn catch_up(&self) -> Result<(), ReplicaError> {
        if self.index.size()? < self.followed().size() {
            self.index.catch_up(self.followed())?;
        }
        Ok(self.report_rejected()?)
    }

    async fn index_the_rest(self: &Arc<Self>) -> Result<(), ReplicaError> {
        let settled = self.index.rejected().next().is_none();
        if settled && self.index.size()? == self.followed().size() {
            return Ok(());
        }
        let replica = self.clone();
        let indexed = tokio::task::spawn_blocking(move || replica.catch_up()).await;
        indexed.map_err(panicked)?
    }
}

/// Checks chunks as they come, until there are no more or one is refused.
fn check_all(
    mut raw: mpsc::Receiver<Raw>,
    to_store: &mpsc::Sender<Checked>,
    mut edge: Edge,
) -> Result<(), Refused> {
    while let Some(raw) = raw.blocking_recv() {
        let checked = fetch::check(raw, &mut edge)?;
        if to_store.blocking_send(checked).is_err() {
            // Storing failed, and says why itself.
            break;
        }
    }
    Ok(())
}

fn panicked(panic: tokio::task::JoinError) -> ReplicaError {
    ReplicaError::Append(panic.to_string())
}

fn bad_entry(index: u64, reason: String) -> Misbehaviour {
    Misbehaviour::Entry { index, reason }
}

/// A note for a size between two that the registry signed. It carries the signatures over the
/// later one, which do not verify over this: nobody can take it for a signed checkpoint.
fn on_the_way(own: &Checkpoint, note: &str) -> String {
    let signatures = note
        .split_once("\n\n")
        .map_or("", |(_, signatures)| signatures);
    format!("{own}\n{signatures}")
}
