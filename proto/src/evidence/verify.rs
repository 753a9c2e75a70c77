//! From an evidence file and a root's fingerprint to a verdict.
//!
//! The path is short on purpose: archive → index → root and enrolments (through the same
//! `apply` that the registry admits by) → checkpoint → manifests → exchanges → answer. The
//! first thing that does not hold ends it, with its name.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Read;

use super::archive::{self, Member};
use super::members::Members;
use super::settled::{self, Settled};
use super::{ANSWER, CHECKPOINT, INDEX, SNAPSHOT, exchange, proof_name, statement_name};
use crate::checkpoint::{Checkpoint, CheckpointKeys};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::id::{AgencyId, FederationId, VersionId};
use crate::key::PublicKey;
use crate::leaf::leaf;
use crate::merkle;
use crate::note::{Note, NoteError, NoteKey};
use crate::statement::{
    AnswerDigest, EvidenceIndex, EvidenceMember, Predicate, Sharing, Statement,
};
use crate::time::Time;
use crate::tlog_proof::TlogProof;

/// The evidence does not hold, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

pub(super) fn invalid<T>(reason: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(reason.into()))
}

/// What valid evidence shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The federation.
    pub federation: FederationId,
    /// Who asked.
    pub asker: AgencyId,
    /// When the asker signed the evidence.
    pub time: Time,
    /// What was asked.
    pub sql: String,
    /// The asker's table.
    pub answer: AnswerDigest,
    /// The answers that it rests on.
    pub exchanges: Vec<ExchangeReport>,
    /// Digests of files that the asker exported the table to, with their formats.
    pub exports: Vec<(String, Digest)>,
    /// The key of the registry's log.
    pub log: NoteKey,
    /// The head of the log that the proofs lead to.
    pub checkpoint: Checkpoint,
    /// When that log head was co-signed: a whole quorum had seen it then, or later.
    pub log_time: Time,
    /// Who has co-signed it, and when; nobody where the root asks for no witness.
    pub cosigners: Vec<(String, Time)>,
    /// The statements that the answer rests on.
    pub logged: Vec<Logged>,
    /// Up to where they are proved to be all there is of the root and the agencies.
    pub settled: Option<Settled>,
}

/// A statement that the log holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// Its index in the log.
    pub index: u64,
    /// The statement as it was signed.
    pub envelope: Envelope,
    /// The key that signed it.
    pub signer: PublicKey,
    /// The proof that it is in the log.
    pub proof: TlogProof,
}

/// One exchange of valid evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeReport {
    /// What names it.
    pub nonce: String,
    /// The version that answered.
    pub version: VersionId,
    /// Its sharing class.
    pub sharing: Sharing,
    /// What was asked of the provider.
    pub query: String,
    /// What the request gives as its purpose.
    pub purpose: Option<String>,
    /// What the request gives as its legal basis.
    pub legal_basis: Option<String>,
    /// What was sent and acknowledged.
    pub answer: AnswerDigest,
    /// When the provider signed the receipt.
    pub time: Time,
}

/// Verifies an evidence file against the fingerprint of the federation's first root.
pub fn verify(input: impl Read, root: &Digest) -> Result<Report, Invalid> {
    let members = archive::read(input).map_err(|error| Invalid(error.to_string()))?;
    let (first, rest) = members
        .split_first()
        .ok_or_else(|| Invalid("the archive is empty".into()))?;
    if first.name != INDEX {
        return invalid(format!("the first member is not {INDEX}"));
    }
    let envelope = parse_envelope(first)?;
    let statement = open(&envelope, INDEX)?;
    let Predicate::Evidence(index) = &statement.predicate else {
        return invalid(format!("{INDEX} is not an evidence statement"));
    };
    let mut file = File::new(rest, index)?;
    let log = Log::read(&mut file, root)?;
    let asker = log.signer(&statement, &envelope, INDEX, log.checkpoint.size)?;
    if statement.head.sequence != 1 {
        return invalid(format!("{INDEX} stands alone: its sequence is 1"));
    }
    let mut exchanges: Vec<ExchangeReport> = Vec::new();
    for n in 0..index.exchanges {
        let exchange = exchange::verify(&mut file, &log, n, asker)?;
        if exchanges.iter().any(|other| other.nonce == exchange.nonce) {
            return invalid(format!("exchange {n} stands twice"));
        }
        if exchange.time > statement.head.time {
            return invalid(format!("exchange {n} is later than the evidence of it"));
        }
        exchanges.push(exchange);
    }
    let answer = file.take(ANSWER)?;
    same_answer(answer, &index.answer, ANSWER)?;
    file.finish()?;
    Ok(Report {
        federation: statement.head.federation.clone(),
        asker: asker.clone(),
        time: statement.head.time,
        sql: index.sql.clone(),
        answer: index.answer.clone(),
        exchanges,
        exports: index
            .exports
            .iter()
            .map(|export| (export.format.clone(), export.digest))
            .collect(),
        log: log.key,
        checkpoint: log.checkpoint,
        log_time: log.time,
        cosigners: log.cosigners,
        logged: log.logged,
        settled: log.settled,
    })
}

/// The members after the index, each of which must be used exactly once and in order.
pub(super) struct File<'a> {
    left: std::slice::Iter<'a, Member>,
}

impl<'a> File<'a> {
    fn new(members: &'a [Member], index: &EvidenceIndex) -> Result<File<'a>, Invalid> {
        if members.len() != index.members.len() {
            return invalid(format!(
                "{INDEX} lists {} members and the file has {}",
                index.members.len(),
                members.len()
            ));
        }
        for (found, signed) in members.iter().zip(&index.members) {
            let found = EvidenceMember {
                name: found.name.clone(),
                digest: found.digest,
                bytes: found.size,
            };
            if found != *signed {
                return invalid(format!(
                    "member {} is not what the asker signed (found {}, signed {})",
                    signed.name, found.digest, signed.digest
                ));
            }
        }
        Ok(File {
            left: members.iter(),
        })
    }

    pub(super) fn take(&mut self, name: &str) -> Result<&'a Member, Invalid> {
        match self.left.next() {
            Some(member) if member.name == name => Ok(member),
            Some(member) => invalid(format!("{} stands where {name} belongs", member.name)),
            None => invalid(format!("{name} is missing")),
        }
    }

    fn take_optional(&mut self, name: &str) -> Option<&'a Member> {
        let next = self.left.as_slice().first()?;
        if next.name == name {
            self.left.next();
            return Some(next);
        }
        None
    }

    pub(super) fn take_envelope(&mut self, name: &str) -> Result<(Envelope, Statement), Invalid> {
        let envelope = parse_envelope(self.take(name)?)?;
        let statement = open(&envelope, name)?;
        Ok((envelope, statement))
    }

    /// The log index of the next member, if it is a statement.
    fn next_statement(&self) -> Option<u64> {
        let name = &self.left.as_slice().first()?.name;
        let index = name.strip_prefix("statements/")?.strip_suffix(".json")?;
        index.parse().ok()
    }

    fn finish(mut self) -> Result<(), Invalid> {
        match self.left.next() {
            Some(member) => invalid(format!("{} has no place in evidence", member.name)),
            None => Ok(()),
        }
    }
}

fn parse_envelope(member: &Member) -> Result<Envelope, Invalid> {
    Envelope::parse(&member.bytes).map_err(|error| Invalid(format!("{}: {error}", member.name)))
}

fn open(envelope: &Envelope, name: &str) -> Result<Statement, Invalid> {
    Statement::parse(envelope.payload()).map_err(|error| Invalid(format!("{name}: {error}")))
}

fn text(member: &Member) -> Result<&str, Invalid> {
    std::str::from_utf8(&member.bytes).map_err(|_| Invalid(format!("{} is not text", member.name)))
}

/// What the file shows of the registry's log.
pub(super) struct Log {
    federation: FederationId,
    members: Members,
    pub(super) manifests: HashMap<VersionId, Manifest>,
    key: NoteKey,
    checkpoint: Checkpoint,
    time: Time,
    cosigners: Vec<(String, Time)>,
    logged: Vec<Logged>,
    settled: Option<Settled>,
}

pub(super) struct Manifest {
    pub(super) payload: Digest,
    pub(super) index: u64,
    pub(super) sharing: Sharing,
}

impl Log {
    fn read(file: &mut File<'_>, pinned: &Digest) -> Result<Log, Invalid> {
        let note = text(file.take(CHECKPOINT)?)?;
        let mut members = Members::default();
        let mut manifests = HashMap::new();
        let mut proofs = Vec::new();
        let mut last = None;
        while let Some(index) = file.next_statement() {
            let name = statement_name(index);
            let (envelope, statement) = file.take_envelope(&name)?;
            if last.is_some_and(|last| index <= last) || (last.is_none() && index != 0) {
                return invalid(format!("{name} stands out of order; the root comes first"));
            }
            if last.is_none() && envelope.payload_digest() != *pinned {
                return invalid(
                    "it belongs to another root than the fingerprint given; check what you typed against what the root's keepers gave you",
                );
            }
            last = Some(index);
            let signer = match &statement.predicate {
                Predicate::Root(_) | Predicate::Agency(_) | Predicate::Snapshot(_) => {
                    members.admit(index, &envelope, &statement)?
                }
                Predicate::Dataset(_) => {
                    let (id, manifest, signer) = members.manifest(index, &envelope, &statement)?;
                    manifests.insert(id, manifest);
                    signer
                }
                other => return invalid(format!("{name}: {} is not evidence", other.kind())),
            };
            let proof = text(file.take(&proof_name(index))?)?;
            proofs.push((index, envelope, signer, proof));
        }
        let settled = match file.take_optional(SNAPSHOT) {
            Some(member) => Some(settled::check(&members, member)?),
            None => None,
        };
        let root = members.root()?;
        let keys = CheckpointKeys::of_root(&root);
        let refused = |error: &dyn Display| Invalid(format!("{CHECKPOINT}: {error}"));
        let (checkpoint, time) = keys.verify(note).map_err(|error| refused(&error))?;
        let cosigners = witnesses(&keys, note).map_err(|error| refused(&error))?;
        let key = keys.log_key().map_err(|error| refused(&error))?;
        let mut logged = Vec::new();
        for (index, envelope, signer, proof) in proofs {
            let proof = included(note, &checkpoint, index, &leaf(&envelope, &signer), proof)
                .map_err(|reason| Invalid(format!("{}: {reason}", proof_name(index))))?;
            logged.push(Logged {
                index,
                envelope,
                signer,
                proof,
            });
        }
        Ok(Log {
            federation: root.federation,
            members,
            manifests,
            key,
            checkpoint,
            time,
            cosigners,
            logged,
            settled,
        })
    }

    /// Checks that the statement belongs here and is signed by the agency it names, with a key
    /// that was still in force when its signer had seen `seen` entries of the log.
    pub(super) fn signer<'a>(
        &self,
        statement: &'a Statement,
        envelope: &Envelope,
        name: &str,
        seen: u64,
    ) -> Result<&'a AgencyId, Invalid> {
        let agency = statement
            .agency()
            .map_err(|error| Invalid(format!("{name}: {error}")))?;
        if statement.head.federation != self.federation {
            return invalid(format!("{name} belongs to another federation"));
        }
        let keys = self.members.keys_since(agency, seen);
        if keys.is_empty() {
            return invalid(format!("{name}: the enrolment of {agency} is missing"));
        }
        if !keys.iter().any(|key| envelope.verify(key).is_ok()) {
            return invalid(format!("{name}: the signature is not that of {agency}"));
        }
        Ok(agency)
    }
}

/// Which witnesses have co-signed the checkpoint, and when.
fn witnesses(keys: &CheckpointKeys<'_>, note: &str) -> Result<Vec<(String, Time)>, NoteError> {
    if keys.quorum == 0 {
        return Ok(Vec::new());
    }
    let cosigners = keys.cosigners(&Note::parse(note.as_bytes())?)?;
    let signed = |(key, time): (NoteKey, Option<Time>)| Some((key.name().to_owned(), time?));
    Ok(cosigners.into_iter().filter_map(signed).collect())
}

fn included(
    note: &str,
    checkpoint: &Checkpoint,
    index: u64,
    entry: &[u8],
    proof: &str,
) -> Result<TlogProof, String> {
    let proof = TlogProof::parse(proof.as_bytes()).map_err(|error| error.to_string())?;
    if proof.index != index || proof.checkpoint != note {
        return Err("it is a proof for another entry or checkpoint".to_owned());
    }
    merkle::verify_inclusion(
        &merkle::leaf_hash(entry),
        index,
        checkpoint.size,
        &proof.hashes,
        &checkpoint.root,
    )
    .map_err(|error| error.to_string())?;
    Ok(proof)
}

pub(super) fn same_answer(
    member: &Member,
    signed: &AnswerDigest,
    name: &str,
) -> Result<(), Invalid> {
    if member.digest != signed.digest || member.size != signed.bytes {
        return invalid(format!(
            "{name} has SHA-256 {}, and {} was signed",
            member.digest, signed.digest
        ));
    }
    Ok(())
}
