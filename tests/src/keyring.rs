//! Agencies without nodes: keys held by the test, and statements signed with them.

use std::path::Path;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::statement::{Dataset, Head, Predicate, Sharing, Statement};
use jingwei_proto::time::Time;
use jingwei_registry::enrolment::{Profile, Proposal, parse_territory, propose};
use jingwei_registry::found::sign_together;
use jingwei_registry::keyfile;

use crate::registry::Registry;

/// A fixed time: what a test signs is the same on every day.
pub fn noon() -> Time {
    Time::from_seconds(1_750_000_000).expect("a time of this century")
}

/// An agency whose key the test holds.
pub struct Agent {
    /// Its id.
    pub id: AgencyId,
    /// Its federation.
    pub federation: FederationId,
    /// Its signing key.
    pub key: SecretKey,
}

impl Agent {
    /// A national agency of the registry's federation, not enrolled yet.
    pub fn new(registry: &Registry, id: &str, seed: u8) -> Agent {
        Agent {
            id: id.parse().expect("an agency id"),
            federation: registry.federation.parse().expect("init prints an id"),
            key: SecretKey::from_seed(&[seed; 32]),
        }
    }

    /// Its enrolment, signed by the registry's root keys.
    pub fn enrolment(&self, registry: &Registry) -> Envelope {
        self.enrolment_by(&registry.dir.join("root-keys"))
    }

    /// Its enrolment, signed by the root keys in a directory.
    pub fn enrolment_by(&self, root_keys: &Path) -> Envelope {
        let profile = Profile {
            id: self.id.clone(),
            name: format!("Agency {}", self.id),
            level: 1,
            territory: parse_territory("test@1:A").expect("a territory"),
            roles: Vec::new(),
        };
        let proposal = propose(&profile, &self.federation, &self.key, noon());
        let proposal = Proposal::parse(&proposal.to_bytes()).expect("it was just made");
        let keys: Vec<SecretKey> = (1..=2)
            .map(|n| {
                keyfile::load(&root_keys.join(format!("{n}.pem"))).expect("init makes root keys")
            })
            .collect();
        let signers: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
        sign_together(&proposal.statement(), &signers, 2)
    }

    /// The first version of a withheld dataset: the smallest statement that needs no other.
    pub fn dataset(&self, name: &str) -> Envelope {
        self.version(name, None).1
    }

    /// The next version of a withheld dataset after `before`.
    pub fn version(&self, name: &str, before: Option<(u64, Digest)>) -> (Statement, Envelope) {
        let statement = Statement {
            head: Head {
                federation: self.federation.clone(),
                agency: Some(self.id.clone()),
                time: noon(),
                sequence: before.map_or(1, |(sequence, _)| sequence + 1),
                previous: before.map(|(_, digest)| digest),
            },
            predicate: Predicate::Dataset(Box::new(Dataset {
                name: name.parse().expect("a dataset name"),
                sharing: Sharing::Withheld,
                title: None,
                description: None,
                schema: None,
                rows: None,
                files: Vec::new(),
                source: None,
                commitment: Some(Digest::of(format!("{} {name}", self.id).as_bytes())),
            })),
        };
        let envelope = statement.sign(&self.key);
        (statement, envelope)
    }
}
