//! Who belongs: the root document, agencies, and the nodes that act for them.

use serde::{Deserialize, Serialize};

use super::{StatementError, check_text, rule};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::key::{KeyId, PublicKey};

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
        check_text("origin", &self.registry.origin, 255)
    }
}

/// What an agency may do beyond publishing and asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May enter schemas that others conform to; only the root grants it.
    Standards,
}

/// The divisions that an agency answers for, as chains from a code up to its superior's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Territory {
    /// The code list, such as `insee` or `gb2260`.
    pub list: String,
    /// Its edition, such as `2024`.
    pub edition: String,
    /// Each `[code, …, ancestor]`; the last is a code of the superior's territory.
    pub chains: Vec<Vec<String>>,
}

impl Territory {
    /// The codes that the agency answers for.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.chains
            .iter()
            .filter_map(|chain| chain.first())
            .map(String::as_str)
    }

    /// Whether every chain ends in a code of `superior`, of the same list.
    pub fn lies_within(&self, superior: &Territory) -> bool {
        self.list == superior.list
            && self.chains.iter().all(|chain| {
                chain
                    .last()
                    .is_some_and(|last| superior.codes().any(|code| code == last))
            })
    }

    fn check(&self) -> Result<(), StatementError> {
        let short =
            |text: &str| !text.is_empty() && text.len() <= 32 && !text.contains(char::is_control);
        if !short(&self.list) || !short(&self.edition) {
            return rule("a territory names a code list and its edition, each of 1 to 32 bytes");
        }
        if self.chains.is_empty() || self.chains.len() > 4_000 {
            return rule("a territory has 1 to 4000 chains");
        }
        let ok =
            |chain: &Vec<String>| (1..=8).contains(&chain.len()) && chain.iter().all(|c| short(c));
        if !self.chains.iter().all(ok) {
            return rule("a chain has 1 to 8 codes of 1 to 32 bytes");
        }
        Ok(())
    }
}

impl std::fmt::Display for Territory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:", self.list, self.edition)?;
        let chains: Vec<String> = self.chains.iter().map(|chain| chain.join("<")).collect();
        f.write_str(&chains.join(","))
    }
}

/// The enrolment of an agency by its superior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agency {
    /// What is done; so far only `enrol`.
    pub action: Action,
    /// Its name for people.
    pub name: String,
    /// 1 national, 2 regional, 3 prefectural, 4 county, 5 township.
    pub level: u64,
    /// What it answers for.
    pub territory: Territory,
    /// What it may do beyond publishing and asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// Its signing key.
    pub key: PublicKey,
    /// The agency's own envelope over this statement without this member (proof of
    /// possession), and for level 1 the root keys'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<Envelope>,
}

/// What a statement about an agency does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Enters the agency.
    Enrol,
}

impl Agency {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_text("name", &self.name, 200)?;
        if !(1..=5).contains(&self.level) {
            return rule("level lies between 1 (national) and 5 (township)");
        }
        if self.consents.len() > 33 {
            return rule("more consents than keys can be needed");
        }
        if !self.roles.is_sorted_by(|a, b| a < b) {
            return rule("roles are listed once each, in order");
        }
        self.territory.check()
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

    #[test]
    fn territories() {
        let territory = |chains: &[&[&str]]| Territory {
            list: "insee".into(),
            edition: "2024".into(),
            chains: chains
                .iter()
                .map(|chain| chain.iter().map(|c| (*c).to_owned()).collect())
                .collect(),
        };
        let bre = territory(&[&["53", "FR"]]);
        assert!(territory(&[&["35", "53"]]).lies_within(&bre));
        assert!(!territory(&[&["35", "53"], &["44", "52"]]).lies_within(&bre));
        assert_eq!(bre.to_string(), "insee@2024:53<FR");
    }
}
