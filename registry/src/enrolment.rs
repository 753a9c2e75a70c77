//! Enrolling an agency: it proposes and proves that it holds its key, its superior agrees.
//!
//! The proposal is the agency's own envelope over the enrolment. It is a small file that may
//! travel by any means: it holds nothing secret, and whoever changes it breaks its signature.

use jingwei_proto::dsse::Envelope;
use std::collections::BTreeSet;

use jingwei_proto::evidence::command::printable;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::state::AgencyRecord;
use jingwei_proto::statement::{
    Action, Agency, Enrolment, Head, Predicate, Role, Statement, Territory,
};
use jingwei_proto::time::Time;

use crate::fault::{Blame, Fault};
use crate::history;
use crate::index::{Index, IndexError};
use crate::log::LogReader;
use crate::standing;

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

    /// Refuses a proposal for another federation than this one.
    pub fn check_federation(&self, here: &FederationId) -> Result<(), Fault> {
        if self.federation() == here {
            return Ok(());
        }
        let reason = format!(
            "{} asks to be enrolled in the federation {}, and this one is {here}",
            self.id,
            self.federation()
        );
        Err(Fault::new(Blame::Inconsistent, reason)
            .advise("let it join this one with ‘jingwei join’, and take the file that this writes"))
    }

    /// The entry by which the agency was enrolled as proposed here, if it was. An id is given once:
    /// an agency of this id that was enrolled otherwise is an error.
    pub fn entered(&self, index: &Index, log: &LogReader) -> Result<Option<u64>, Fault> {
        let internal = |error: IndexError| Fault::new(Blame::Internal, error.to_string());
        let Some(record) = index.agency(&self.id).map_err(internal)? else {
            return Ok(None);
        };
        let changes = index.changes_of(&record).map_err(internal)?;
        let Some(first) = changes.first() else {
            return Ok(None);
        };
        if history::statement(log, *first)?.proposal() == self.statement.proposal() {
            return Ok(Some(*first));
        }
        Err(enrolled_otherwise(index, &self.id, *first))
    }

    /// As [`explain`].
    pub fn explain(&self, by: &str) -> Vec<String> {
        explain(&self.id, &self.agency, by)
    }
}

/// An agency of this id was enrolled by the entry `first`, and as another one.
pub fn enrolled_otherwise(index: &Index, id: &AgencyId, first: u64) -> Fault {
    let reason =
        format!("{id} is enrolled already (entry {first}), by another proposal than this one");
    Fault::new(Blame::Inconsistent, reason).advise(format!(
        "an id is given once: {} can update it or recover its key; another agency needs another id",
        standing::above(index, id)
    ))
}

/// Who is enrolled as what, from when it holds and what follows from it, line by line, for
/// whoever is about to sign; `by` whom.
pub fn explain(id: &AgencyId, agency: &Enrolment, by: &str) -> Vec<String> {
    let roles = agency.roles.iter().map(|role| match role {
        Role::Standards => "standards: it enters schemas that others conform to",
    });
    let mut told = vec![
        ("agency", format!("{id} ({})", printable(&agency.name))),
        ("action", format!("enrol, signed by {by}")),
        ("level", agency.level.to_string()),
        ("territory", agency.territory.to_string()),
    ];
    told.extend(roles.map(|role| ("role", role.to_owned())));
    told.extend([
        ("key", agency.key.id().to_string()),
        ("from when", "the log entry on, for good".to_owned()),
        (
            "follows",
            "it publishes, asks and enrols agencies below it; its id is never given again"
                .to_owned(),
        ),
    ]);
    told.into_iter()
        .map(|(label, text)| format!("{label:<12}{text}"))
        .collect()
}

/// Checks what the rules will check of a territory: each chain must end in a code of the
/// superior's. Asked before anybody signs, it can say what is missing and how that is written.
pub fn check_territory(
    id: &AgencyId,
    territory: &Territory,
    superior: &AgencyRecord,
) -> Result<(), Fault> {
    if territory.lies_within(&superior.territory) {
        return Ok(());
    }
    let codes: Vec<&str> = superior.territory.codes().collect();
    let strays = |chain: &&Vec<String>| {
        chain
            .last()
            .is_none_or(|last| !codes.contains(&last.as_str()))
    };
    let stray = territory.chains.iter().find(strays);
    let reason = match stray {
        Some(chain) if territory.list == superior.territory.list => format!(
            "‘{}’ ends in none of its codes, {}",
            chain.join("<"),
            codes[..codes.len().min(5)].join(", ")
        ),
        _ => format!(
            "its codes are of the list {}, not of {}",
            superior.territory.list, territory.list
        ),
    };
    let message = format!(
        "the territory {territory} of {id} does not lie within {} of {}: {reason}",
        superior.territory, superior.id
    );
    let fault = Fault::new(Blame::Unauthorised, message);
    let (Some(chain), Some(first)) = (stray, codes.first()) else {
        return Err(fault.advise(format!(
            "write codes of the list {}",
            superior.territory.list
        )));
    };
    Err(fault.advise(format!(
        "write each code with its ancestors up to {}'s and no further, such as {}@{}:{}; ‘jingwei init’ and ‘jingwei join’, run again by {id}, correct it",
        superior.id,
        superior.territory.list,
        superior.territory.edition,
        up_to(chain, &codes, first)
    )))
}

/// A chain that ends in one of `codes`: cut where it has one, or else with `first` at its end.
fn up_to(chain: &[String], codes: &[&str], first: &str) -> String {
    match chain.iter().position(|code| codes.contains(&code.as_str())) {
        Some(end) => chain[..=end].join("<"),
        None => format!("{}<{first}", chain.join("<")),
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
    let twice = |chain: &&Vec<String>| chain.iter().collect::<BTreeSet<_>>().len() < chain.len();
    if let Some(chain) = chains.iter().find(twice) {
        let chain = chain.join("<");
        return Err(format!(
            "‘{chain}’ names a code twice: nothing lies in itself"
        ));
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
    fn a_chain_ends_in_a_code_of_the_superior_s() {
        let chain = |text: &str| parse_territory(&format!("c@1:{text}")).unwrap().chains;
        let advised = |text| up_to(&chain(text)[0], &["NORTH", "EAST"], "NORTH");
        assert_eq!(advised("D1<NORTH<LAND"), "D1<NORTH");
        assert_eq!(advised("D1<EAST<LAND"), "D1<EAST");
        assert_eq!(advised("D1"), "D1<NORTH");
        let twice = parse_territory("c@1:D1<NORTH<LAND<NORTH").unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
    }

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
    fn a_missing_ancestor_is_named() {
        let territory = |text| parse_territory(text).unwrap();
        let superior = AgencyRecord {
            chain: jingwei_proto::state::Chain {
                sequence: 1,
                payload: jingwei_proto::digest::Digest::of(b""),
                index: 1,
            },
            id: "fr.bre".parse().unwrap(),
            name: "Bretagne".into(),
            level: 2,
            territory: territory("insee@2024:53<FR"),
            roles: vec![],
            key: SecretKey::from_seed(&[1; 32]).public().clone(),
            status: jingwei_proto::state::Status::Active,
            successor: None,
            recovery: None,
            changes: 1,
        };
        let id = "fr.bre.35".parse().unwrap();
        let check = |text| check_territory(&id, &territory(text), &superior);
        check("insee@2024:35<53").unwrap();
        check("insee@2024:53").unwrap();
        let fault = check("insee@2024:29<53,35").unwrap_err();
        assert!(fault.message.contains("‘35’ ends in none"), "{fault}");
        assert!(fault.advice.unwrap().contains("insee@2024:35<53"));
        let fault = check("gb2260@2023:35<53").unwrap_err();
        assert!(fault.message.contains("list insee"), "{fault}");
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
