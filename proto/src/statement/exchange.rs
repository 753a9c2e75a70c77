//! The four messages of an exchange, and the index of an evidence file.
//!
//! ```text
//! requester                                   provider
//!   request ────────────────────────────────►          in the requester's journal first
//!           ◄──────────────────────────────── acceptance   in the provider's, before row one
//!           ◄═══════════ rows ═══════════════
//!           ◄──────────────────────────────── receipt      with the digest of what was sent
//!   acknowledgement ────────────────────────►          the same digest, as received
//! ```
//!
//! Each names the one before by the digest of its payload. Delivery itself cannot be proved:
//! without an acknowledgement there is only the provider's word.

use serde::{Deserialize, Serialize};

use super::{Sharing, StatementError, check_text, rule};
use crate::digest::Digest;
use crate::id::{AgencyId, VersionId};
use crate::time::Time;

/// The longest query that crosses the border, in bytes.
pub const MAX_QUERY: usize = 64 * 1024;

/// A question to one agency about one version of one of its datasets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// 16 random bytes in hex; names the exchange and is accepted once.
    pub nonce: String,
    /// The agency that is asked; nobody else may accept.
    pub audience: AgencyId,
    /// After this time the request is refused.
    pub expires: Time,
    /// The version of the border grammar.
    pub grammar: u64,
    /// The question in the border grammar, in its canonical printing.
    pub query: String,
    /// What the answer is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The rule that allows asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legal_basis: Option<String>,
    /// The newest registry checkpoint that the requester has verified.
    pub seen: Seen,
}

/// A state of the registry's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seen {
    /// Entries in the log.
    pub size: u64,
    /// Its Merkle root.
    pub root: Digest,
}

/// The provider's decision to answer, made before the first row leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acceptance {
    /// The exchange.
    pub nonce: String,
    /// The requester.
    pub audience: AgencyId,
    /// The dataset version that answers.
    pub dataset: Used,
    /// The newest registry checkpoint that the provider has verified.
    pub seen: Seen,
}

/// A dataset version that an answer was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Used {
    /// `agency/name@version`, as text.
    #[serde(with = "crate::text")]
    pub version: VersionId,
    /// Its sharing class, on which the decision rests.
    pub sharing: Sharing,
    /// The digest of its manifest's payload.
    pub manifest: Digest,
    /// The manifest's index in the registry's log.
    pub index: u64,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// The exchange.
    pub nonce: String,
    /// The requester.
    pub audience: AgencyId,
    /// Whether all of it was sent.
    pub outcome: Outcome,
    /// The rows that were sent.
    pub answer: AnswerDigest,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every row was sent.
    Complete,
    /// The stream was cut off after the rows counted.
    Aborted,
}

/// An answer: the SHA-256 of its Arrow IPC stream, and how much it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerDigest {
    /// SHA-256 of the stream: schema and batches as sent, metadata padded to 8, end mark.
    pub digest: Digest,
    /// Rows.
    pub rows: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// The requester's word that it received what the receipt says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acknowledgement {
    /// The exchange.
    pub nonce: String,
    /// The provider.
    pub audience: AgencyId,
    /// What was received.
    pub answer: AnswerDigest,
}

/// The first member of an evidence file: what the file holds, signed by the asker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceIndex {
    /// The asker's SQL.
    pub sql: String,
    /// The asker's table, as computed from the answers.
    pub answer: AnswerDigest,
    /// How many exchanges the answer rests on.
    pub exchanges: u64,
    /// Every other member of the file, in its order there.
    pub members: Vec<EvidenceMember>,
    /// Files outside the evidence that hold the same table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<EvidenceExport>,
}

/// A member of an evidence file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceMember {
    /// Its path in the archive.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A file that the asker exported the answer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceExport {
    /// `csv`, `json` or `parquet`.
    pub format: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

fn check_nonce(nonce: &str) -> Result<(), StatementError> {
    if nonce.len() != 32 || !crate::digest::is_hex(nonce) {
        return rule("a nonce is 32 lower-case hexadecimal digits");
    }
    Ok(())
}

impl Request {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_nonce(&self.nonce)?;
        if self.query.len() > MAX_QUERY {
            return rule(format!("a query longer than {MAX_QUERY} bytes"));
        }
        check_text("purpose", self.purpose.as_deref().unwrap_or(""), 1_000)?;
        check_text(
            "legalBasis",
            self.legal_basis.as_deref().unwrap_or(""),
            1_000,
        )
    }
}

impl Acceptance {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_nonce(&self.nonce)
    }
}

impl Receipt {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_nonce(&self.nonce)
    }
}

impl Acknowledgement {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_nonce(&self.nonce)
    }
}

impl EvidenceIndex {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        if self.exchanges > 1_000 || self.members.len() > 20_000 || self.exports.len() > 16 {
            return rule("an evidence file holds at most 1000 exchanges and 20000 members");
        }
        if self.sql.len() > MAX_QUERY {
            return rule(format!("SQL longer than {MAX_QUERY} bytes"));
        }
        for export in &self.exports {
            check_text("format", &export.format, 32)?;
        }
        Ok(())
    }
}
