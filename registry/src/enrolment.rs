//! Enrolling an agency: it proposes and proves that it holds its key, its superior agrees.
//!
//! The proposal is the agency's own envelope over the enrolment. It is a small file that may
//! travel by any means: it holds nothing secret, and whoever changes it breaks its signature.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::statement::{
    Action, Agency, Enrolment, Head, Predicate, Role, Statement, Territory,
};
use jingwei_proto::time::Time;

use crate::fault::{Blame, Fault};

/// What an agency says of itself when it asks to be enrolled.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its id.
    pub id: AgencyId,
    /// Its name for people.
    pub name: String,
    /// 1 national to 5 township.
    pub level: u64,
    /// What it answers for.
    pub territory: Territory,
    /// The roles it asks for.
    pub roles: Vec<Role>,
}

/// The agency's proposal, signed by its own key.
pub fn propose(
    profile: &Profile,
    federation: &FederationId,
    key: &dyn Signer,
    now: Time,
) -> Envelope {
    Statement {
        head: Head {
            federation: federation.clone(),
            agency: Some(profile.id.clone()),
            time: now,
            sequence: 1,
            previous: None,
        },
        predicate: Predicate::Agency(
            Action::Enrol(Enrolment {
                name: profile.name.clone(),
                level: profile.level,
                territory: profile.territory.clone(),
                roles: profile.roles.clone(),
                key: key.public().clone(),
            })
            .proposed(),
        ),
    }
    .sign(key)
}

/// A proposal whose own signature has been checked.
#[derive(Debug, Clone)]
pub struct Proposal {
    envelope: Envelope,
    statement: Statement,
    /// Who asks to be enrolled.
    pub id: AgencyId,
    /// What it says of itself.
    pub agency: Enrolment,
}

impl Proposal {
    /// Reads a proposal and checks that the agency holds the key that it names.
    pub fn parse(bytes: &[u8]) -> Result<Proposal, Fault> {
        let bad = |reason: String| {
            Fault::new(
                Blame::Malformed,
                format!("not an enrolment proposal: {reason}"),
            )
            .advise("ask the agency for the .enrolment file that ‘jingwei join’ wrote")
        };
        let envelope =
            Envelope::parse(bytes.trim_ascii_end()).map_err(|error| bad(error.to_string()))?;
        let statement =
            Statement::parse(envelope.payload()).map_err(|error| bad(error.to_string()))?;
        let (
            Predicate::Agency(Agency {
                action: Action::Enrol(agency),
                ..
            }),
            Some(id),
        ) = (&statement.predicate, &statement.head.agency)
        else {
            return Err(bad("it is another statement".into()));
        };
        check_possession(&envelope, &agency.key)?;
        Ok(Proposal {
            id: id.clone(),
            agency: agency.clone(),
            envelope,
            statement,
        })
    }

    /// The federation that the agency wants to join.
    pub fn federation(&self) -> &FederationId {
        &self.statement.head.federation
    }

    /// The enrolment as its superior, or a root key, signs it: it carries the agency's consent.
    pub fn statement(&self) -> Statement {
        self.statement.with_consents(vec![self.envelope.clone()])
    }
}

fn check_possession(envelope: &Envelope, key: &PublicKey) -> Result<(), Fault> {
    envelope.verify(key).map_err(|_| {
        Fault::new(
            Blame::Forged,
            "the proposal was changed after the agency signed it",
        )
    })
}

/// Reads `LIST@EDITION:CODE<ANCESTOR<…,CODE…`, such as `insee@2024:35<53` or `gb2260@2023:11`.
///
/// Each code may name its ancestors up to one of the superior's codes; a code alone is its own.
pub fn parse_territory(text: &str) -> Result<Territory, String> {
    const FORM: &str = "a territory looks like insee@2024:35<53 (list@edition:code<ancestor; several codes joined by commas)";
    let (list, rest) = text.split_once('@').ok_or(FORM)?;
    let (edition, codes) = rest.split_once(':').ok_or(FORM)?;
    let chains: Vec<Vec<String>> = codes
        .split(',')
        .map(|chain| chain.split('<').map(str::to_owned).collect())
        .collect();
    let whole =
        ![list, edition].contains(&"") && chains.iter().flatten().all(|code| !code.is_empty());
    if !whole {
        return Err(FORM.to_owned());
    }
    Ok(Territory {
        list: list.to_owned(),
        edition: edition.to_owned(),
        chains,
    })
}

#[cfg(test)]
mod tests {
    use jingwei_proto::key::SecretKey;

    use super::*;

    #[test]
    fn a_changed_proposal_is_refused() {
        let key = SecretKey::from_seed(&[1; 32]);
        let profile = Profile {
            id: "fr.bre".parse().unwrap(),
            name: "Bretagne".into(),
            level: 2,
            territory: parse_territory("insee@2024:53<FR").unwrap(),
            roles: vec![],
        };
        let federation = "test-0123456789abcdef".parse().unwrap();
        let envelope = propose(&profile, &federation, &key, Time::from_seconds(1).unwrap());
        let proposal = Proposal::parse(&envelope.to_bytes()).unwrap();
        assert_eq!(proposal.id, profile.id);
        assert_eq!(
            proposal.statement().consents(),
            std::slice::from_ref(&envelope)
        );
        let other = Envelope::sign(envelope.payload().to_vec(), &SecretKey::from_seed(&[2; 32]));
        assert_eq!(
            Proposal::parse(&other.to_bytes()).unwrap_err().blame,
            Blame::Forged
        );
        assert_eq!(Proposal::parse(b"{}").unwrap_err().blame, Blame::Malformed);
    }

    #[test]
    fn territories() {
        let territory = parse_territory("insee@2024:35<53,29<53").unwrap();
        assert_eq!(territory.chains, [["35", "53"], ["29", "53"]]);
        for bad in [
            "",
            "insee",
            "insee@2024",
            "insee@2024:",
            "@2024:35",
            "insee@2024:35,,29",
        ] {
            assert!(parse_territory(bad).is_err(), "{bad}");
        }
    }
}
