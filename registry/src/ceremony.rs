//! What k of n root keys sign together, as a file that travels between their keepers.
//!
//! The file holds the proposed statement and the signatures over it so far. It holds nothing
//! secret: whoever changes it breaks the signatures, and every keeper is shown what the file
//! says before signing. The last keeper signs the statement with the others' envelopes inside.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::json;
use jingwei_proto::key::{KeyId, Signer};
use jingwei_proto::statement::Statement;
use serde::{Deserialize, Serialize};

use crate::fault::{Blame, Fault};

/// A statement on its way from keeper to keeper.
#[derive(Debug, Clone)]
pub struct Proposal {
    statement: Statement,
    signatures: Vec<Envelope>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    statement: String,
    signatures: Vec<Envelope>,
}

impl Proposal {
    /// A proposal that only those have signed whose consents the statement carries.
    pub fn new(statement: &Statement) -> Proposal {
        Proposal {
            signatures: statement.consents().to_vec(),
            statement: statement.proposal(),
        }
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
        Ok(Proposal {
            statement,
            signatures: wire.signatures,
        })
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            statement: String::from_utf8_lossy(&self.statement.payload()).into_owned(),
            signatures: self.signatures.clone(),
        };
        let mut bytes = json::canonical(&wire);
        bytes.push(b'\n');
        bytes
    }

    /// What is proposed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The keys that have signed.
    pub fn signers(&self) -> impl Iterator<Item = KeyId> {
        self.signatures.iter().map(Envelope::key)
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

#[cfg(test)]
mod tests {
    use jingwei_proto::key::SecretKey;
    use jingwei_proto::statement::{Action, Head, Predicate, Reason};
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
}
