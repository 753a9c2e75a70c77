//! From what was seen to a proof that convinces others: the registry's own signatures, held
//! against each other or against what they cover.

use jingwei_proto::checkpoint::{Checkpoint, CheckpointKeys};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{DatasetId, DatasetName, VersionId};
use jingwei_proto::leaf::Leaf;
use jingwei_proto::misbehaviour::{Lie, Logged, MAX_BEFORE, Misbehaviour as Proof, Since};
use jingwei_proto::state::Chain;
use jingwei_proto::statement::{Predicate, Statement};
use jingwei_proto::tlog_proof::TlogProof;

use super::alarms::Raised;
use super::{Misbehaviour, Replica, lock};
use crate::index::{IndexError, Rejected};
use crate::log::LogError;

/// Entries that a proof is sought for at once; who has lied so often needs no more proofs.
const MOST_TRIED: usize = 16;

/// A checkpoint and the note of it.
pub(super) type SignedHead = (Checkpoint, String);

/// How somebody else's checkpoint compares with this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// It is of the same history, with this many entries.
    Same(u64),
    /// It has more entries than this replica: only the other side can compare.
    Larger(u64),
    /// The registry has not signed it: anybody can show anything.
    Unsigned,
    /// It is of a log that another has taken over from, with entries that the other has not.
    Former {
        /// The entries that it has, acknowledged or not.
        size: u64,
        /// Those that count.
        ended: u64,
    },
    /// It is of another history.
    Different {
        /// What the registry did.
        misbehaviour: Misbehaviour,
        /// The proof, for the other side.
        proof: Option<Vec<u8>>,
    },
}

impl Replica {
    /// A checkpoint that a peer shows: the same registry must not have told it another history.
    pub fn compare(&self, note: &str) -> Comparison {
        let Ok(Some(root)) = self.index.root() else {
            return Comparison::Unsigned;
        };
        // Only what the registry signed counts against it, and that whoever has co-signed it.
        let versions = (1..=root.chain.sequence).rev();
        let roots = versions.filter_map(|version| self.index.root_version(version).ok().flatten());
        let mut opened = roots.filter_map(|root| {
            let key = CheckpointKeys::of_root(&root).log_key().ok()?;
            Checkpoint::open(note.as_bytes(), &key).ok()
        });
        let Some((shown, _)) = opened.next() else {
            return Comparison::Unsigned;
        };
        if let Some(former) = self.former(note).filter(|former| former.ended < shown.size) {
            if let Some(misbehaviour) = self.left_out(&former, note) {
                self.raise(&misbehaviour, None);
            }
            return Comparison::Former {
                size: shown.size,
                ended: former.ended,
            };
        }
        if let Some(misbehaviour) = self.differs(&shown) {
            let proof = self.two_histories(&shown, note);
            self.raise(&misbehaviour, proof.as_deref());
            return Comparison::Different {
                misbehaviour,
                proof,
            };
        }
        if shown.size > self.committed.size() {
            return Comparison::Larger(shown.size);
        }
        Comparison::Same(shown.size)
    }

    /// A proof of misbehaviour from somebody else. It counts if it holds, whoever it is from.
    pub fn take_proof(&self, bytes: &[u8]) -> bool {
        let proof = Proof::read(bytes);
        let Ok((kind, verdict)) =
            proof.and_then(|proof| Ok((proof.lie.kind(), proof.verify(&self.pinned)?)))
        else {
            return false;
        };
        let misbehaviour = Misbehaviour::Proved {
            kind: kind.name(),
            lie: verdict.lie,
        };
        self.raise(&misbehaviour, Some(bytes));
        true
    }

    /// Raises an alarm and gives the misbehaviour back, as the error that it is.
    pub(super) fn accuse(
        &self,
        misbehaviour: Misbehaviour,
        proof: Option<Vec<u8>>,
    ) -> Misbehaviour {
        self.raise(&misbehaviour, proof.as_deref());
        misbehaviour
    }

    pub(super) fn raise(&self, misbehaviour: &Misbehaviour, proof: Option<&[u8]>) -> Raised {
        let text = misbehaviour.to_string();
        self.alarms
            .raise(misbehaviour.kind(), misbehaviour.place(), &text, proof)
    }

    /// A checkpoint of a size that was reached here has to have the root that it has here.
    pub(super) fn differs(&self, shown: &Checkpoint) -> Option<Misbehaviour> {
        let verified = match lock(&self.highest).checkpoint() {
            Some((highest, _)) if highest.size == shown.size => highest.root,
            _ => self.committed.root_at(shown.size).ok()?,
        };
        (verified != shown.root).then_some(Misbehaviour::Forked {
            size: shown.size,
            shown: shown.root,
            verified,
        })
    }

    /// The proof that a checkpoint is of another history than the entries held here.
    pub(super) fn two_histories(&self, shown: &Checkpoint, note: &str) -> Option<Vec<u8>> {
        let (highest, newer) = self.highest()?;
        let (root, path) = if highest.size == shown.size {
            (highest.root, Vec::new())
        } else {
            let root = self.committed.root_at(shown.size).ok()?;
            let path = self.committed.consistency_proof(shown.size, highest.size);
            (root, path.ok()?)
        };
        self.prove(Lie::TwoHistories {
            older: note.to_owned(),
            newer,
            root,
            path,
        })
    }

    /// The proof that a log has shrunk, from the dates of two checkpoints.
    pub(super) fn shrunk(&self, smaller: &str) -> Option<Vec<u8>> {
        let (_, larger) = self.highest()?;
        let smaller = smaller.to_owned();
        self.prove(Lie::ShrunkLog { larger, smaller })
    }

    pub(super) fn highest(&self) -> Option<SignedHead> {
        let highest = lock(&self.highest);
        let (checkpoint, note) = highest.checkpoint()?;
        Some((checkpoint.clone(), note.to_owned()))
    }

    /// The file that proves a lie; `None` where it does not.
    pub(super) fn prove(&self, lie: Lie) -> Option<Vec<u8>> {
        let kind = lie.kind().name();
        match Proof::new(self.roots().ok()?, lie, &self.pinned) {
            Ok((proof, _)) => proof.to_bytes().ok(),
            Err(reason) => {
                tracing::debug!(kind, %reason, "no proof of misbehaviour");
                None
            }
        }
    }

    /// Entries that the rules reject change nothing; that the log has them is an alarm. Proofs
    /// are sought once the log stands at a signed checkpoint, and until then, or until the alarm
    /// stands on the disk, the index keeps account of them.
    pub(super) fn report_rejected(&self) -> Result<(), IndexError> {
        let size = self.committed.size();
        let head = self.highest().filter(|(highest, _)| highest.size == size);
        let mut unread = false;
        for (n, entry) in self.index.rejected().enumerate() {
            let index = entry.index;
            // A registry that logs a million of them fills no log of ours.
            let raised = match unread {
                true => Raised::TooMany,
                false => self.report(n, entry, head.as_ref()),
            };
            unread = raised == Raised::TooMany;
            if raised != Raised::Failed {
                self.index.settle(index)?;
            }
        }
        Ok(())
    }

    /// Raises the alarm about an entry, which does not wait for its proof.
    fn report(&self, n: usize, entry: Rejected, head: Option<&SignedHead>) -> Raised {
        let Rejected { index, reason } = entry;
        let misbehaviour = Misbehaviour::Rejected { index, reason };
        let raised = self.raise(&misbehaviour, None);
        match (raised, head) {
            (Raised::TooMany | Raised::Failed, _) => raised,
            // Nothing covers the entry yet that could be shown.
            (_, None) => Raised::Failed,
            (_, Some(head)) => match self.proof_about(n, index, head) {
                Some(proof) => self.raise(&misbehaviour, Some(&proof)),
                None => raised,
            },
        }
    }

    /// A proof about the `n`-th rejected entry of those that were found together.
    fn proof_about(&self, n: usize, index: u64, head: &SignedHead) -> Option<Vec<u8>> {
        if n >= MOST_TRIED {
            return None;
        }
        let short = self.about_entry(index, head).ok().flatten();
        if short.is_some() || n > 0 {
            // Whatever the rules reject after the first is shown by the first already.
            return short;
        }
        let since = self.with_all_since(index, head).ok().flatten();
        since.or_else(|| self.with_all_before(index, head).ok().flatten())
    }

    /// A proof that needs no more than the entry, or one more.
    fn about_entry(&self, index: u64, head: &SignedHead) -> Result<Option<Vec<u8>>, LogError> {
        let entry = self.logged(index, head)?;
        let Some(read) = Leaf::parse(&entry.leaf) else {
            let Logged { leaf, proof, .. } = entry;
            return Ok(self.prove(Lie::MalformedEntry { leaf, proof }));
        };
        if read.verify(&entry.payload).is_err() {
            return Ok(self.prove(Lie::ForgedEntry(entry)));
        }
        let envelope = read.envelope(entry.payload.clone());
        let place = self.index.place(&envelope, &read.key).ok().flatten();
        if let Some(first) = place.filter(|first| *first < index) {
            let first = self.logged(first, head)?;
            if first.leaf == entry.leaf {
                return Ok(self.prove(Lie::RepeatedEntry {
                    first: first.proof,
                    leaf: entry.leaf,
                    second: entry.proof,
                }));
            }
        }
        for other in self.of_its_chain(&entry.payload) {
            if other < index {
                let pair = Box::new([self.logged(other, head)?, entry.clone()]);
                let proof = self.prove(Lie::ConflictingEntries(pair));
                if proof.is_some() {
                    return Ok(proof);
                }
            }
        }
        Ok(None)
    }

    /// The proof that needs every statement before the entry.
    fn with_all_before(&self, index: u64, head: &SignedHead) -> Result<Option<Vec<u8>>, LogError> {
        let mut before = Vec::new();
        let mut bytes = 0;
        for envelope in self.committed.envelopes(0..index)? {
            let envelope = envelope?;
            bytes += envelope.len() + 4;
            if bytes > MAX_BEFORE {
                return Ok(None);
            }
            before.push(envelope);
        }
        self.rejected(self.logged(index, head)?, head, None, before)
    }

    /// The proof that the rules reject an entry after those `before` it.
    pub(super) fn rejected(
        &self,
        entry: Logged,
        head: &SignedHead,
        since: Option<Box<Since>>,
        before: Vec<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, LogError> {
        let path = self
            .committed
            .consistency_proof(entry.proof.index + 1, head.0.size)?;
        Ok(self.prove(Lie::RejectedEntry {
            since,
            before,
            leaf: entry.leaf,
            payload: entry.payload,
            checkpoint: entry.proof.checkpoint,
            path,
        }))
    }

    /// An entry with the proof that a checkpoint covers it.
    pub(super) fn logged(
        &self,
        index: u64,
        (covering, note): &SignedHead,
    ) -> Result<Logged, LogError> {
        let envelope = Envelope::parse(&self.committed.envelope(index)?);
        Ok(Logged {
            leaf: self.committed.leaf(index)?,
            payload: envelope.map_or_else(|_| Vec::new(), |found| found.payload().to_vec()),
            proof: TlogProof {
                index,
                hashes: self.committed.inclusion_proof(index, covering.size)?,
                checkpoint: note.clone(),
                extra: None,
            },
        })
    }

    /// Places of admitted entries that this statement may be in conflict with.
    fn of_its_chain(&self, payload: &[u8]) -> Vec<u64> {
        let Ok(statement) = Statement::parse(payload) else {
            return Vec::new();
        };
        let newest = |chain: Option<Chain>| chain.map(|chain| chain.index);
        let Some(agency) = &statement.head.agency else {
            let root = self.index.root().ok().flatten();
            return newest(root.map(|root| root.chain)).into_iter().collect();
        };
        let named = |name: &DatasetName| DatasetId {
            agency: agency.clone(),
            name: name.clone(),
        };
        let found = match &statement.predicate {
            Predicate::Agency(_) => {
                let record = self.index.agency(agency).ok().flatten();
                vec![newest(record.map(|record| record.chain))]
            }
            Predicate::Node(_) => {
                let record = self.index.node(agency).ok().flatten();
                vec![newest(record.map(|record| record.chain))]
            }
            Predicate::Schema(schema) => {
                let record = self.index.schema(&named(&schema.name)).ok().flatten();
                vec![newest(record.map(|record| record.chain))]
            }
            Predicate::Dataset(dataset) => {
                let sequence = statement.head.sequence;
                let dataset = named(&dataset.name);
                let version = |version| {
                    let dataset = dataset.clone();
                    let id = VersionId { dataset, version };
                    let record = self.index.version(&id).ok().flatten();
                    newest(record.map(|record| record.chain))
                };
                vec![version(sequence), version(sequence.saturating_sub(1))]
            }
            _ => Vec::new(),
        };
        found.into_iter().flatten().collect()
    }

    /// The root documents, from the first on.
    fn roots(&self) -> Result<Vec<Envelope>, LogError> {
        let Ok(Some(newest)) = self.index.root() else {
            return Ok(lock(&self.first_root).iter().cloned().collect());
        };
        let versions = 1..=newest.chain.sequence;
        versions
            .filter_map(|version| self.index.root_version(version).ok().flatten())
            .filter_map(|root| {
                let bytes = self.committed.envelope(root.chain.index);
                bytes.map(|bytes| Envelope::parse(&bytes).ok()).transpose()
            })
            .collect()
    }
}
