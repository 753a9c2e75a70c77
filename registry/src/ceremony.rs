//! What k of n root keys sign together, as a file that travels between their keepers.
//!
//! The file holds the proposed statement and the signatures over it so far. It holds nothing
//! secret: whoever changes it breaks the signatures, and every keeper is shown what the file
//! says before signing. The last keeper signs the statement with the others' envelopes inside.
//!
//! The root document in force travels beside it, so that a keeper who is offline sees how many must
//! sign, and what a next one would change. Nobody need believe that: a next root names its digest,
//! and whose signatures count is for the registry to say.

use std::fmt;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::json;
use jingwei_proto::key::{KeyId, PublicKey, Signer};
use jingwei_proto::state::RootRecord;
use jingwei_proto::statement::{Agency, Predicate, Root, Statement};
use serde::{Deserialize, Serialize};

use crate::fault::{Blame, Fault};
use jingwei_proto::words::root_keys;

/// A statement on its way from keeper to keeper.
#[derive(Debug, Clone)]
pub struct Proposal {
    statement: Statement,
    signatures: Vec<Envelope>,
    before: Option<Before>,
}

/// The root document that was in force when the statement was proposed.
#[derive(Debug, Clone)]
struct Before {
    text: String,
    root: Root,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    statement: String,
    signatures: Vec<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

impl Proposal {
    /// A proposal that only those have signed whose consents the statement carries.
    pub fn new(statement: &Statement) -> Proposal {
        Proposal {
            signatures: statement.consents().to_vec(),
            statement: statement.proposal(),
            before: None,
        }
    }

    /// The same, with the root document in force beside it.
    ///
    /// # Errors
    /// If it is another statement, or the proposed root follows another one.
    pub fn after(self, root: &Envelope) -> Result<Proposal, Fault> {
        let text = String::from_utf8_lossy(root.payload()).into_owned();
        let before = Before::of(&self.statement, text)
            .map_err(|reason| Fault::new(Blame::Internal, reason))?;
        Ok(Proposal {
            before: Some(before),
            ..self
        })
    }

    /// Reads a proposal. Whose the signatures are is for the rules to say.
    pub fn parse(bytes: &[u8]) -> Result<Proposal, Fault> {
        let bad = |reason: String| {
            Fault::new(
                Blame::Malformed,
                format!("not a proposal for root keys: {reason}"),
            )
            .advise("take the file that ‘jingwei-registry root propose’ or ‘… sign’ wrote")
        };
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let statement =
            Statement::parse(wire.statement.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let payload = statement.proposal().payload();
        if payload != wire.statement.as_bytes() {
            return Err(bad("the statement is not in its proposed form".into()));
        }
        if wire
            .signatures
            .iter()
            .any(|envelope| envelope.payload() != payload)
        {
            return Err(bad("a signature is over another statement".into()));
        }
        let before = wire.before.map(|text| Before::of(&statement, text));
        Ok(Proposal {
            before: before.transpose().map_err(bad)?,
            statement,
            signatures: wire.signatures,
        })
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            statement: String::from_utf8_lossy(&self.statement.payload()).into_owned(),
            signatures: self.signatures.clone(),
            before: self.before.as_ref().map(|before| before.text.clone()),
        };
        let mut bytes = json::canonical(&wire);
        bytes.push(b'\n');
        bytes
    }

    /// What is proposed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The root document in force, as far as the file says it: the one that a proposed root follows.
    pub fn before(&self) -> Option<&Root> {
        self.before.as_ref().map(|before| &before.root)
    }

    /// The keys that have signed.
    pub fn signers(&self) -> impl Iterator<Item = KeyId> {
        self.signatures.iter().map(Envelope::key)
    }

    /// Refuses a key whose signature would count for nothing.
    pub fn accepts(&self, key: &PublicKey, in_force: &[PublicKey]) -> Result<(), Fault> {
        let proposed = match &self.statement.predicate {
            Predicate::Root(next) => &next.keys[..],
            _ => &[],
        };
        if in_force.contains(key) || proposed.contains(key) {
            return Ok(());
        }
        let reason = match proposed {
            [] => format!("{} is no root key in force", key.id()),
            _ => format!("{} is no root key, in force or proposed", key.id()),
        };
        Err(Fault::new(Blame::Unauthorised, reason)
            .advise("‘jingwei-registry root show’ lists the keys in force: sign with one of them"))
    }

    /// Whether this is the agency's own key, by which it agrees: no root key's signature.
    pub fn is_own_key(&self, signer: KeyId) -> bool {
        match &self.statement.predicate {
            Predicate::Agency(Agency { action, .. }) => {
                action.key().is_some_and(|key| key.id() == signer)
            }
            _ => false,
        }
    }

    /// How many root keys have signed, of those in force, and for a next root document of its own
    /// too.
    pub fn counts(&self, in_force: &[PublicKey], threshold: u64) -> Vec<Count> {
        let mut counts = vec![self.count("in force", in_force, threshold)];
        if let Predicate::Root(next) = &self.statement.predicate {
            counts.push(self.count("proposed", &next.keys, next.threshold));
        }
        counts
    }

    /// How many more keys must sign at least: one may count for both roots.
    pub fn missing(&self, in_force: &[PublicKey], threshold: u64) -> u64 {
        let counts = self.counts(in_force, threshold);
        let missing: u64 = counts.iter().map(Count::missing).sum();
        let Predicate::Root(next) = &self.statement.predicate else {
            return missing;
        };
        let unsigned = in_force.iter().filter(|key| !self.has_signed(key));
        let both = unsigned.filter(|key| next.keys.contains(key)).count() as u64;
        let least = counts.iter().map(Count::missing).min().unwrap_or(0);
        missing - least.min(both)
    }

    fn count(&self, which: &'static str, keys: &[PublicKey], threshold: u64) -> Count {
        Count {
            which,
            signed: keys.iter().filter(|key| self.has_signed(key)).count() as u64,
            threshold,
            keys: keys.len() as u64,
        }
    }

    fn has_signed(&self, key: &PublicKey) -> bool {
        self.signers().any(|signer| signer == key.id())
    }

    /// Checks that enough root keys have signed, by [`Proposal::counts`].
    ///
    /// # Errors
    /// If they have not.
    pub fn check_signatures(&self, in_force: &RootRecord) -> Result<(), Fault> {
        let counts = self.counts(&in_force.keys, in_force.threshold);
        match counts.into_iter().find(|count| count.missing() > 0) {
            None => Ok(()),
            Some(few) => Err(Fault::new(Blame::Unauthorised, few.complaint())),
        }
    }

    /// Adds a signature; a key signs once.
    pub fn sign(&mut self, key: &dyn Signer) {
        if !self.signers().any(|signer| signer == key.public().id()) {
            self.signatures.push(self.statement.sign(key));
        }
    }

    /// The statement with all signatures, signed by the last keeper.
    pub fn finish(&self, last: &dyn Signer) -> Envelope {
        let own = last.public().id();
        let others = self
            .signatures
            .iter()
            .filter(|envelope| envelope.key() != own);
        self.statement
            .with_consents(others.cloned().collect())
            .sign(last)
    }
}

/// How many root keys of one root have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    which: &'static str,
    signed: u64,
    threshold: u64,
    keys: u64,
}

impl Count {
    /// How many more of them must sign.
    pub fn missing(&self) -> u64 {
        self.threshold.saturating_sub(self.signed)
    }

    fn complaint(&self) -> String {
        let have = if self.signed == 1 { "has" } else { "have" };
        format!(
            "{} of the {} {} must sign, and {} {have}",
            self.threshold,
            root_keys(self.keys),
            self.which,
            self.signed
        )
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (signed, threshold, which) = (self.signed, self.threshold, self.which);
        let keys = root_keys(self.keys);
        if signed > threshold {
            return write!(
                f,
                "{signed}, where {threshold} of the {keys} {which} suffice"
            );
        }
        write!(
            f,
            "{signed} of {threshold} that the {keys} {which} must give"
        )?;
        match self.missing() {
            0 => Ok(()),
            missing => write!(f, ": {missing} missing"),
        }
    }
}

impl Before {
    fn of(proposed: &Statement, text: String) -> Result<Before, String> {
        let follows = proposed.head.previous == Some(Digest::of(text.as_bytes()));
        if matches!(proposed.predicate, Predicate::Root(_)) && !follows {
            return Err(
                "the root that is beside the proposed one is not the one it follows".into(),
            );
        }
        let statement = Statement::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        match statement.predicate {
            Predicate::Root(root) => Ok(Before { text, root }),
            other => Err(format!("a {} stands where a root is to be", other.kind())),
        }
    }
}

#[cfg(test)]
mod tests {
    use jingwei_proto::key::SecretKey;
    use jingwei_proto::state::{Chain, RULES};
    use jingwei_proto::statement::{Action, Head, NewKey, Reason, RegistryKeys};
    use jingwei_proto::time::Time;

    use super::*;

    #[test]
    fn it_travels_and_cannot_be_changed_on_the_way() {
        let statement = Statement {
            head: Head {
                federation: "test-0123456789abcdef".parse().unwrap(),
                agency: Some("fr".parse().unwrap()),
                time: Time::from_seconds(1).unwrap(),
                sequence: 1,
                previous: None,
            },
            predicate: Predicate::Agency(Action::Suspend(Reason::default()).proposed()),
        };
        let keys: Vec<SecretKey> = (1..=3).map(|n| SecretKey::from_seed(&[n; 32])).collect();
        let mut proposal = Proposal::new(&statement);
        proposal.sign(&keys[0]);
        let mut proposal = Proposal::parse(&proposal.to_bytes()).unwrap();
        proposal.sign(&keys[1]);
        proposal.sign(&keys[1]);
        assert_eq!(proposal.signers().count(), 2);
        let envelope = proposal.finish(&keys[2]);
        let read = Statement::parse(envelope.payload()).unwrap();
        assert_eq!(read.consents().len(), 2);
        assert_eq!(read.proposal(), statement);
        // Whoever has signed before may be the last as well.
        let read = Statement::parse(proposal.finish(&keys[0]).payload()).unwrap();
        assert_eq!(read.consents().len(), 1);
        let text = String::from_utf8(proposal.to_bytes()).unwrap();
        for (from, to) in [
            ("suspend", "revoke"),
            ("\\\"sequence\\\":1", "\\\"sequence\\\":2"),
        ] {
            assert!(text.contains(from), "{text}");
            assert!(
                Proposal::parse(text.replace(from, to).as_bytes()).is_err(),
                "{from}"
            );
        }
    }

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn public(n: u8) -> PublicKey {
        key(n).public().clone()
    }

    /// A root document of these keys, of which two must sign.
    fn root(version: u64, previous: Option<Digest>, keys: &[u8]) -> Statement {
        let federation: jingwei_proto::id::FederationId = "test-0123456789abcdef".parse().unwrap();
        Statement {
            head: Head {
                federation: federation.clone(),
                agency: None,
                time: Time::from_seconds(1).unwrap(),
                sequence: version,
                previous,
            },
            predicate: Predicate::Root(Root {
                version,
                keys: keys.iter().map(|n| public(*n)).collect(),
                threshold: 2,
                registry: RegistryKeys {
                    origin: federation.registry_origin(1),
                    log: public(90),
                    cosigner: public(91),
                    tls: public(92).id(),
                },
                witnesses: Vec::new(),
                quorum: 0,
                rules: RULES,
                recovery_delay: 1,
                continues: None,
                consents: Vec::new(),
            }),
        }
    }

    fn in_force(first: &Statement) -> RootRecord {
        let Predicate::Root(body) = &first.predicate else {
            panic!("a root");
        };
        let chain = Chain {
            sequence: 1,
            payload: Digest::of(&first.payload()),
            index: 0,
        };
        RootRecord::of(&first.head, body, chain)
    }

    #[test]
    fn the_root_in_force_travels_with_the_next_and_is_no_other() {
        let first = root(1, None, &[1, 2, 3]);
        let envelope = first.sign(&key(1));
        let next = root(2, Some(envelope.payload_digest()), &[1, 2]);
        let proposal = Proposal::new(&next).after(&envelope).unwrap();
        let read = Proposal::parse(&proposal.to_bytes()).unwrap();
        assert_eq!(read.before().unwrap().keys.len(), 3);
        let other = root(1, None, &[1, 2, 4]).sign(&key(1));
        assert!(Proposal::new(&next).after(&other).is_err());
        // Files without it are read as they were.
        let read = Proposal::parse(&Proposal::new(&next).to_bytes()).unwrap();
        assert!(read.before().is_none());
    }

    #[test]
    fn signatures_are_counted_before_anybody_is_asked() {
        let first = root(1, None, &[1, 2, 3]);
        let (record, digest) = (in_force(&first), Digest::of(&first.payload()));
        let mut proposal = Proposal::new(&root(2, Some(digest), &[3, 4]));
        proposal.accepts(&public(4), &record.keys).unwrap();
        let stranger = proposal.accepts(&public(5), &record.keys).unwrap_err();
        assert!(stranger.message.contains("no root key"), "{stranger}");
        proposal.sign(&key(3));
        let few = proposal.check_signatures(&record).unwrap_err();
        let words = "2 of the 3 root keys in force must sign, and 1 has";
        assert_eq!(few.message, words);
        proposal.sign(&key(1));
        let few = proposal.check_signatures(&record).unwrap_err();
        let words = "2 of the 2 root keys proposed must sign, and 1 has";
        assert_eq!(few.message, words);
        proposal.sign(&key(4));
        proposal.check_signatures(&record).unwrap();
        assert_eq!(proposal.missing(&record.keys, record.threshold), 0);
    }

    #[test]
    fn one_more_signature_may_count_for_both_roots() {
        let first = root(1, None, &[1, 2, 3]);
        let (record, digest) = (in_force(&first), Digest::of(&first.payload()));
        let missing = |proposal: &Proposal| proposal.missing(&record.keys, record.threshold);
        let mut proposal = Proposal::new(&root(2, Some(digest), &[3, 4]));
        // 1 or 2, and 3, and 4.
        assert_eq!(missing(&proposal), 3);
        proposal.sign(&key(3));
        assert_eq!(missing(&proposal), 2);
        proposal.sign(&key(1));
        assert_eq!(missing(&proposal), 1);
        let mut proposal = Proposal::new(&root(2, Some(digest), &[1, 2, 3]));
        assert_eq!(missing(&proposal), 2);
        proposal.sign(&key(2));
        assert_eq!(missing(&proposal), 1);
        let counts = proposal.counts(&record.keys, record.threshold);
        let told: Vec<String> = counts.iter().map(Count::to_string).collect();
        let words = [
            "1 of 2 that the 3 root keys in force must give: 1 missing",
            "1 of 2 that the 3 root keys proposed must give: 1 missing",
        ];
        assert_eq!(told, words);
    }

    /// The agency's own consent is no root key's signature.
    #[test]
    fn only_root_keys_count() {
        let first = root(1, None, &[1, 2, 3]);
        let (record, before) = (in_force(&first), first.sign(&key(1)));
        let recovery = Action::Recover(NewKey { key: public(7) });
        let statement = Statement {
            head: Head {
                agency: Some("fr".parse().unwrap()),
                ..first.head.clone()
            },
            predicate: Predicate::Agency(recovery.proposed()),
        };
        let agreed = statement.with_consents(vec![statement.sign(&key(7))]);
        let mut proposal = Proposal::new(&agreed).after(&before).unwrap();
        assert!(proposal.is_own_key(public(7).id()));
        let missing = |proposal: &Proposal| proposal.missing(&record.keys, record.threshold);
        assert_eq!(missing(&proposal), 2);
        proposal.sign(&key(3));
        assert!(!proposal.is_own_key(public(3).id()));
        assert_eq!((proposal.signers().count(), missing(&proposal)), (2, 1));
        let read = Proposal::parse(&proposal.to_bytes()).unwrap();
        assert_eq!(read.before().unwrap().threshold, 2);
    }
}
