//! What a federation stands on: the root document, and the nodes that act for agencies.

use serde::{Deserialize, Serialize};

use super::{StatementError, check_text, rule};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::key::{KeyId, PublicKey};

/// A week: long enough for an agency to notice that somebody else is recovering its key.
pub const RECOVERY_DELAY: u64 = 7 * 24 * 3600;

/// The longest delay, in seconds: a year. A longer one is a mistake.
pub const LONGEST_DELAY: u64 = 366 * 24 * 3600;

/// The document that starts a federation, and each later version of it (TUF 1.0 §5.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// Counted from 1; equal to the statement's sequence.
    pub version: u64,
    /// The root keys.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: u64,
    /// The registry that this root trusts to order statements.
    pub registry: RegistryKeys,
    /// Who may co-sign the log's checkpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
    /// How many witnesses a checkpoint needs. With 0 the registry's own cosigner dates it.
    pub quorum: u64,
    /// The rules of `apply` that hold from this entry on.
    pub rules: u64,
    /// Seconds of log time between a superior's recovery of an agency's key and its effect.
    pub recovery_delay: u64,
    /// The log that this version's log goes on from, where another registry has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<Continues>,
    /// Other root keys' envelopes over this statement without this member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<Envelope>,
}

/// The registry's keys and the name of its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryKeys {
    /// The log's origin (C2SP tlog-checkpoint).
    pub origin: String,
    /// Signs checkpoints.
    pub log: PublicKey,
    /// Co-signs and dates them where no witness does.
    pub cosigner: PublicKey,
    /// The key of the registry's TLS certificate.
    pub tls: KeyId,
}

/// A log that another one goes on from: what its last entries are, so that none can be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Continues {
    /// The origin of the log before.
    pub origin: String,
    /// How many of its entries the new log holds: the root that says so is the next one.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Digest,
}

/// A witness of the log (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Witness {
    /// Its name in cosignature lines.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
}

impl Root {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        if self.keys.is_empty() || self.keys.len() > 32 {
            return rule("a root has 1 to 32 keys");
        }
        if self.threshold == 0 || self.threshold > self.keys.len() as u64 {
            return rule("threshold lies between 1 and the number of root keys");
        }
        let mut ids: Vec<KeyId> = self.keys.iter().map(PublicKey::id).collect();
        ids.extend([self.registry.log.id(), self.registry.cosigner.id()]);
        ids.extend(self.witnesses.iter().map(|witness| witness.key.id()));
        let count = ids.len();
        ids.sort();
        ids.dedup();
        if ids.len() != count {
            return rule("one key serves two purposes");
        }
        if self.quorum > self.witnesses.len() as u64 {
            return rule("the quorum is larger than the number of witnesses");
        }
        if self.recovery_delay > LONGEST_DELAY {
            return rule("a recovery is delayed by a year at most");
        }
        if let Some(before) = &self.continues {
            check_text("origin", &before.origin, 255)?;
            if before.origin == self.registry.origin {
                return rule("a log that goes on from another has a name of its own");
            }
        }
        // The outer signer of two sets of keys needs the consents of all others.
        if self.consents.len() > 64 {
            return rule("more consents than root keys can be needed");
        }
        check_text("origin", &self.registry.origin, 255)
    }
}

/// Where an agency can be reached and which keys its node uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// `host:port` of its node's gRPC over mTLS.
    pub address: String,
    /// Keys of the node's TLS certificates.
    pub tls: Vec<KeyId>,
    /// Signs the checkpoints of the agency's journal.
    pub journal: PublicKey,
    /// Co-signs others' logs as a witness.
    pub witness: PublicKey,
}

impl Node {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("address", &self.address, 255)?;
        let valid = self.address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        if !valid {
            return rule("address is not host:port");
        }
        if self.tls.is_empty() || self.tls.len() > 4 {
            return rule("a node lists 1 to 4 TLS keys");
        }
        if self.journal == self.witness {
            return rule("journal and witness need keys of their own");
        }
        Ok(())
    }
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A digest for people: all 256 bits as 52 base32 characters (RFC 4648 §6) in groups of four.
pub fn fingerprint(digest: &Digest) -> String {
    let mut text = String::with_capacity(64);
    for group in 0..52 {
        if group > 0 && group % 4 == 0 {
            text.push('-');
        }
        let value = (0..5).fold(0, |value, bit| {
            let at = group * 5 + bit;
            let byte = digest.as_bytes().get(at / 8).copied().unwrap_or(0);
            value << 1 | usize::from(byte >> (7 - at % 8) & 1)
        });
        text.push(char::from(BASE32[value]));
    }
    text
}

/// Reads a fingerprint back. Groups, spaces and letter case are as the person wrote them.
pub fn parse_fingerprint(text: &str) -> Option<Digest> {
    let mut bits = Vec::with_capacity(260);
    for c in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
        let c = u8::try_from(c.to_ascii_uppercase()).ok()?;
        let value = BASE32.iter().position(|b| *b == c)?;
        bits.extend((0..5).rev().map(|bit| (value >> bit & 1) as u8));
    }
    if bits.len() != 260 || bits[256..].iter().any(|bit| *bit != 0) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, bit) in bits[..256].iter().enumerate() {
        digest[at / 8] |= bit << (7 - at % 8);
    }
    Some(Digest(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        // RFC 4648 base32 of the bytes, padding removed.
        assert!(fingerprint(&Digest([0; 32])).starts_with("AAAA-AAAA-"));
        let digest = Digest::of(b"jingwei");
        let text = fingerprint(&digest);
        assert_eq!(text.len(), 52 + 12);
        assert_eq!(parse_fingerprint(&text), Some(digest));
        assert_eq!(
            parse_fingerprint(&text.to_lowercase().replace('-', " ")),
            Some(digest)
        );
        assert_eq!(parse_fingerprint(&text[1..]), None);
        assert_eq!(parse_fingerprint(&format!("{}B", &text[..63])), None);
        assert_eq!(parse_fingerprint(&text.replace(&text[..1], "1")), None);
    }
}
