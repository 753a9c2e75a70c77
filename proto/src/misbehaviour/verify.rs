//! From a proof of misbehaviour and a root's fingerprint to a verdict.
//!
//! What counts is what the registry's own key has signed. Witnesses' signatures are not asked
//! for: a checkpoint that the log signed is a lie also if nobody has co-signed it.

use super::known::Known;
use super::{Lie, Logged, Misbehaviour, NotProved, Since, not_proved, signed_only_by, text};
use crate::checkpoint::{Checkpoint, CheckpointKeys, verify_cosignature};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::id::FederationId;
use crate::key::PublicKey;
use crate::leaf::Leaf;
use crate::merkle::{leaf_hash, verify_consistency};
use crate::note::{Algorithm, Note, NoteKey};
use crate::state::RootRecord;
use crate::statement::{Predicate, Statement};
use crate::tlog_proof::TlogProof;
use crate::words::entries;

/// Who lied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liar {
    /// What the key is, such as "the registry's log key".
    pub role: String,
    /// The key.
    pub key: PublicKey,
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The federation.
    pub federation: FederationId,
    /// The log.
    pub origin: String,
    /// Who lied.
    pub liar: Liar,
    /// What was done, as one sentence.
    pub lie: String,
    /// What can be compared with other files, by name.
    pub details: Vec<(&'static str, String)>,
}

impl Misbehaviour {
    /// A proof of what the given lie shows; the notes keep those signatures only that matter.
    /// What does not verify is never made.
    pub fn new(
        roots: Vec<Envelope>,
        lie: Lie,
        pinned: &Digest,
    ) -> Result<(Misbehaviour, Verdict), NotProved> {
        let mut made = Misbehaviour { roots, lie };
        let judge = Judge::new(made.records(pinned)?)?;
        judge.strip(&mut made.lie)?;
        let verdict = made.verify(pinned)?;
        Ok((made, verdict))
    }

    /// Confirms the proof against the fingerprint of the federation's first root.
    pub fn verify(&self, pinned: &Digest) -> Result<Verdict, NotProved> {
        let judge = Judge::new(self.records(pinned)?)?;
        let found = judge.judge(&self.lie)?;
        Ok(Verdict {
            federation: judge.federation.clone(),
            origin: found.origin,
            liar: found.liar,
            lie: found.lie,
            details: found.details,
        })
    }

    /// The roots that name the keys: a chain that begins with the pinned one.
    fn records(&self, pinned: &Digest) -> Result<Vec<RootRecord>, NotProved> {
        let first = self.roots.first().map(Envelope::payload_digest);
        if first != Some(*pinned) {
            return not_proved(
                "it is about another federation than the fingerprint given; check what you typed against what the root's keepers gave you",
            );
        }
        let mut known = Known::nothing();
        let mut records = Vec::new();
        for (n, root) in (0u64..).zip(&self.roots) {
            let wrong = |NotProved(reason)| NotProved(format!("root document {}: {reason}", n + 1));
            // A root that takes a log over says at which size; for others the place is nothing
            // that their rules ask for.
            let index = taken_over_at(root).unwrap_or(n);
            records.push(known.admit_root(index, root).map_err(wrong)?);
        }
        Ok(records)
    }
}

/// The size of the log that a root document takes over.
fn taken_over_at(root: &Envelope) -> Option<u64> {
    match Statement::parse(root.payload()).ok()?.predicate {
        Predicate::Root(root) => root.continues.map(|before| before.size),
        _ => None,
    }
}

struct Found {
    origin: String,
    liar: Liar,
    lie: String,
    details: Vec<(&'static str, String)>,
}

/// The keys by which a lie is judged: all that the registry ever had, for what it signed with
/// the one it cannot take back with the next.
struct Judge {
    federation: FederationId,
    logs: Vec<NoteKey>,
    /// Everybody who may date checkpoints, and what their keys are.
    cosigners: Vec<(NoteKey, String)>,
}

/// A checkpoint that the log has signed.
struct Signed<'a> {
    checkpoint: Checkpoint,
    note: Note,
    key: &'a NoteKey,
}

impl Judge {
    fn new(records: Vec<RootRecord>) -> Result<Judge, NotProved> {
        let mut judge = Judge {
            federation: match records.first() {
                Some(record) => record.federation.clone(),
                None => return not_proved("there is no root document"),
            },
            logs: Vec::new(),
            cosigners: Vec::new(),
        };
        for record in &records {
            let keys = CheckpointKeys::of_root(record);
            let log = keys.log_key().map_err(text)?;
            if !judge.logs.contains(&log) {
                judge.logs.push(log);
            }
            judge.cosigner(
                keys.cosigner_key().map_err(text)?,
                "the registry's cosigner key".into(),
            );
            for witness in &record.witnesses {
                let public = witness.key.clone();
                let key = NoteKey::new(&*witness.name, Algorithm::CosignatureV1, public);
                judge.cosigner(
                    key.map_err(text)?,
                    format!("the witness key {}", witness.name),
                );
            }
        }
        Ok(judge)
    }

    fn cosigner(&mut self, key: NoteKey, role: String) {
        if !self.cosigners.iter().any(|(known, _)| *known == key) {
            self.cosigners.push((key, role));
        }
    }

    fn judge(&self, lie: &Lie) -> Result<Found, NotProved> {
        match lie {
            Lie::TwoHistories {
                older,
                newer,
                root,
                path,
            } => self.two_histories(older, newer, root, path),
            Lie::ShrunkLog { larger, smaller } => self.shrunk(larger, smaller),
            Lie::MalformedEntry { leaf, proof } => self.malformed(leaf, proof),
            Lie::ForgedEntry(entry) => self.forged(entry),
            Lie::RepeatedEntry {
                leaf,
                first,
                second,
            } => self.repeated(leaf, first, second),
            Lie::ConflictingEntries(entries) => self.conflicting(entries),
            Lie::RejectedEntry {
                since,
                before,
                leaf,
                payload,
                checkpoint,
                path,
            } => self.rejected(since.as_deref(), before, leaf, payload, checkpoint, path),
        }
    }

    /// A checkpoint that the log has signed, with no other signature but that of `also`.
    fn signed(&self, note: &str, also: Option<&NoteKey>) -> Result<Signed<'_>, NotProved> {
        let mut refusal = NotProved("no root names a log".into());
        for key in &self.logs {
            match Checkpoint::open(note.as_bytes(), key) {
                Ok((_, note)) if note.signatures.len() != 1 + usize::from(also.is_some()) => {
                    return not_proved(
                        "a checkpoint carries signatures that nothing here rests on",
                    );
                }
                Ok((checkpoint, note)) => {
                    return Ok(Signed {
                        checkpoint,
                        note,
                        key,
                    });
                }
                Err(error) => refusal = text(error),
            }
        }
        Err(refusal)
    }

    fn two_histories(
        &self,
        older: &str,
        newer: &str,
        root: &Digest,
        path: &[Digest],
    ) -> Result<Found, NotProved> {
        let Signed {
            checkpoint: older,
            key: first_key,
            ..
        } = self.signed(older, None)?;
        let Signed {
            checkpoint: newer,
            key,
            ..
        } = self.signed(newer, None)?;
        if first_key.name() != key.name() {
            return not_proved("the checkpoints are of two logs");
        }
        verify_consistency(older.size, newer.size, root, &newer.root, path).map_err(text)?;
        if *root == older.root {
            return not_proved("the newer checkpoint continues the older one: there is no lie");
        }
        let lie = if older.size == newer.size {
            format!("it signed two different logs of {}", entries(older.size))
        } else {
            format!(
                "it signed a log of {}, and one of {} that does not continue it",
                entries(older.size),
                entries(newer.size)
            )
        };
        let details = vec![
            (
                "signed",
                format!("{}, root {}", entries(older.size), older.root),
            ),
            (
                "and signed",
                format!("{}, root {}", entries(newer.size), newer.root),
            ),
            (
                "of which",
                format!("the first {} have root {root}", older.size),
            ),
        ];
        Ok(by_the_log(key, lie, details))
    }

    fn shrunk(&self, larger: &str, smaller: &str) -> Result<Found, NotProved> {
        for (key, role) in &self.cosigners {
            let (Ok(large), Ok(small)) = (
                self.signed(larger, Some(key)),
                self.signed(smaller, Some(key)),
            ) else {
                continue;
            };
            let (Ok(first), Ok(then)) = (
                verify_cosignature(&large.note, key),
                verify_cosignature(&small.note, key),
            ) else {
                continue;
            };
            let same_log = large.key.name() == small.key.name();
            let (large, small) = (large.checkpoint, small.checkpoint);
            if !same_log {
                return not_proved("the checkpoints are of two logs");
            }
            if small.size >= large.size || then <= first {
                return not_proved("the smaller log is not dated later than the larger one");
            }
            return Ok(Found {
                origin: large.origin,
                liar: Liar {
                    role: role.clone(),
                    key: key.public().clone(),
                },
                lie: format!(
                    "it dated a log of {} after it had dated one of {}",
                    entries(small.size),
                    large.size
                ),
                details: vec![
                    ("dated", format!("{} at {first}", entries(large.size))),
                    ("and dated", format!("{} at {then}", entries(small.size))),
                ],
            });
        }
        not_proved("no key has dated both checkpoints")
    }

    fn malformed(&self, leaf: &[u8], proof: &TlogProof) -> Result<Found, NotProved> {
        let key = self.included(leaf, proof)?;
        if Leaf::parse(leaf).is_some() {
            return not_proved("the entry is well-formed: there is no lie");
        }
        Ok(by_the_log(
            key,
            format!("its entry {} is not in the form of entries", proof.index),
            vec![("entry", format!("SHA-256 {}", Digest::of(leaf)))],
        ))
    }

    fn forged(&self, entry: &Logged) -> Result<Found, NotProved> {
        let (read, key) = self.logged(entry)?;
        if read.verify(&entry.payload).is_ok() {
            return not_proved("the entry's signature holds: there is no lie");
        }
        Ok(by_the_log(
            key,
            format!(
                "its entry {} is not signed by the key that it names",
                entry.proof.index
            ),
            vec![
                ("entry", format!("SHA-256 {}", Digest::of(&entry.leaf))),
                (
                    "statement",
                    format!("SHA-256 {}", Digest::of(&entry.payload)),
                ),
                ("named key", read.key.to_string()),
            ],
        ))
    }

    fn repeated(
        &self,
        leaf: &[u8],
        first: &TlogProof,
        second: &TlogProof,
    ) -> Result<Found, NotProved> {
        let key = self.included(leaf, first)?;
        self.included(leaf, second)?;
        same_log(first, second)?;
        if first.index >= second.index {
            return not_proved("the entry is not shown at two places, in order");
        }
        Ok(by_the_log(
            key,
            format!("its entry {} repeats entry {}", second.index, first.index),
            vec![("entry", format!("SHA-256 {}", Digest::of(leaf)))],
        ))
    }

    fn conflicting(&self, entries: &[Logged; 2]) -> Result<Found, NotProved> {
        let [first, second] = entries;
        let (_, key) = self.logged(first)?;
        self.logged(second)?;
        same_log(&first.proof, &second.proof)?;
        let [a, b] = [read(first)?, read(second)?];
        if first.proof.index >= second.proof.index
            || a.head.federation != b.head.federation
            || a.chain() != b.chain()
        {
            return not_proved("the two entries are not of one chain, in order");
        }
        let follows = b.head.sequence == a.head.sequence.saturating_add(1);
        let continues = b.head.previous == Some(Digest::of(&first.payload));
        // Between the two there may be others, which nothing here shows.
        if b.head.sequence > a.head.sequence && (!follows || continues) {
            return not_proved("the second entry can continue the first: there is no lie");
        }
        Ok(by_the_log(
            key,
            format!(
                "its entry {} cannot stand after entry {}: both are of the chain {}",
                second.proof.index,
                first.proof.index,
                a.chain()
            ),
            vec![
                (
                    "entry",
                    format!("sequence {} at {}", a.head.sequence, first.proof.index),
                ),
                (
                    "and entry",
                    format!("sequence {} at {}", b.head.sequence, second.proof.index),
                ),
            ],
        ))
    }

    fn rejected(
        &self,
        since: Option<&Since>,
        before: &[Vec<u8>],
        bytes: &[u8],
        payload: &[u8],
        checkpoint: &str,
        path: &[Digest],
    ) -> Result<Found, NotProved> {
        let Signed {
            checkpoint, key, ..
        } = self.signed(checkpoint, None)?;
        let mut known = match since {
            Some(since) => Known::from(since, before)?,
            None => Known::nothing(),
        };
        for envelope in before {
            let index = known.edge.size();
            let envelope = Envelope::parse(envelope).map_err(text)?;
            known.admit(&envelope).map_err(|NotProved(reason)| {
                NotProved(format!(
                    "the entry {index} before it is rejected too: {reason}"
                ))
            })?;
        }
        let (index, mut edge) = (known.edge.size(), known.edge.clone());
        edge.push(leaf_hash(bytes));
        let (size, root) = (checkpoint.size, &checkpoint.root);
        verify_consistency(edge.size(), size, &edge.root(), root, path).map_err(text)?;
        let read = over(bytes, payload)?;
        let Err(rejection) = known.judge(&read.envelope(payload.to_vec()))? else {
            return not_proved("the rules admit the entry: there is no lie");
        };
        if !known.is_used_up() {
            return not_proved("it shows records that nothing here rests on");
        }
        Ok(by_the_log(
            key,
            format!("its entry {index} is one that the rules reject: {rejection}"),
            vec![
                ("entry", format!("SHA-256 {}", Digest::of(bytes))),
                ("statement", format!("SHA-256 {}", Digest::of(payload))),
            ],
        ))
    }

    /// Checks that the log holds the leaf where the proof says; returns the key that says so.
    fn included(&self, leaf: &[u8], proof: &TlogProof) -> Result<&NoteKey, NotProved> {
        let Signed { key, .. } = self.signed(&proof.checkpoint, None)?;
        proof.verify(&leaf_hash(leaf), key).map_err(text)?;
        Ok(key)
    }

    /// Checks that the log holds the entry, and that it is over the payload given.
    fn logged(&self, entry: &Logged) -> Result<(Leaf, &NoteKey), NotProved> {
        let key = self.included(&entry.leaf, &entry.proof)?;
        Ok((over(&entry.leaf, &entry.payload)?, key))
    }

    /// Leaves those signatures only that the lie is judged by.
    fn strip(&self, lie: &mut Lie) -> Result<(), NotProved> {
        let log = |note: &mut String| -> Result<(), NotProved> {
            *note = signed_only_by(note, &[self.log_of(note)]).map_err(text)?;
            Ok(())
        };
        match lie {
            Lie::TwoHistories { older, newer, .. } => {
                log(older)?;
                log(newer)
            }
            Lie::ShrunkLog { larger, smaller } => self.strip_dates(larger, smaller),
            Lie::MalformedEntry { proof, .. } => log(&mut proof.checkpoint),
            Lie::ForgedEntry(entry) => log(&mut entry.proof.checkpoint),
            Lie::RepeatedEntry { first, second, .. } => {
                log(&mut first.checkpoint)?;
                log(&mut second.checkpoint)
            }
            Lie::ConflictingEntries(entries) => entries
                .iter_mut()
                .try_for_each(|entry| log(&mut entry.proof.checkpoint)),
            Lie::RejectedEntry { checkpoint, .. } => log(checkpoint),
        }
    }

    /// The log key that has signed the note; any other if none has.
    fn log_of(&self, note: &str) -> &NoteKey {
        let signed = |key: &&NoteKey| Checkpoint::open(note.as_bytes(), key).is_ok();
        let found = self.logs.iter().find(signed);
        found.unwrap_or(&self.logs[0])
    }

    /// Leaves the dates of the first key that dated the smaller log later than the larger.
    fn strip_dates(&self, larger: &mut String, smaller: &mut String) -> Result<(), NotProved> {
        for (key, _) in &self.cosigners {
            let only = |note: &str| signed_only_by(note, &[self.log_of(note), key]).map_err(text);
            let (large, small) = (only(larger)?, only(smaller)?);
            if self.shrunk(&large, &small).is_ok() {
                (*larger, *smaller) = (large, small);
                return Ok(());
            }
        }
        not_proved("no key has dated the smaller log later than the larger")
    }
}

fn by_the_log(key: &NoteKey, lie: String, details: Vec<(&'static str, String)>) -> Found {
    Found {
        origin: key.name().to_owned(),
        liar: Liar {
            role: "the registry's log key".into(),
            key: key.public().clone(),
        },
        lie,
        details,
    }
}

/// The entry, which has to be over this payload.
fn over(leaf: &[u8], payload: &[u8]) -> Result<Leaf, NotProved> {
    let read = Leaf::parse(leaf)
        .ok_or_else(|| NotProved("the entry is not in the form of entries".into()))?;
    if !read.is_over(payload) {
        return not_proved("the entry is over another statement than the one shown");
    }
    Ok(read)
}

fn read(entry: &Logged) -> Result<Statement, NotProved> {
    Statement::parse(&entry.payload).map_err(text)
}

fn same_log(first: &TlogProof, second: &TlogProof) -> Result<(), NotProved> {
    if first.checkpoint != second.checkpoint {
        return not_proved("the two entries are shown under different checkpoints");
    }
    Ok(())
}
