//! Agencies: what they are, and everything that can be done with one.
//!
//! All statements about one agency are one chain, whoever signs them, so that a superior and an
//! agency that act at the same time cannot overlook each other.

use serde::{Deserialize, Serialize};

use super::{StatementError, check_text, rule};
use crate::dsse::Envelope;
use crate::id::AgencyId;
use crate::key::PublicKey;

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

    /// Whether every chain ends in a code of `superior`, of the same edition of the same list.
    pub fn lies_within(&self, superior: &Territory) -> bool {
        self.list == superior.list
            && self.edition == superior.edition
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

/// A statement about an agency: what is done, and who else agrees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agency {
    /// What is done, in the member `action` and those that belong to it.
    #[serde(flatten)]
    pub action: Action,
    /// Envelopes over this statement without this member: of a new key (proof of possession),
    /// and for a national agency those of the root keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<Envelope>,
}

/// What is done with an agency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Its superior enters it, and it agrees with its own key.
    Enrol(Enrolment),
    /// Its superior changes what it is.
    Update(Attributes),
    /// It replaces its key, signing with the old one.
    Rotate(NewKey),
    /// Its superior replaces its key, after a delay in which the old key may contest it.
    Recover(NewKey),
    /// The old key cancels a recovery.
    Contest(Reason),
    /// Its superior stops it for a time.
    Suspend(Reason),
    /// Its superior lets it go on.
    Resume(Reason),
    /// Its superior ends it.
    Revoke(Reason),
    /// Its superior ends it, and names who has its tasks from now on.
    Successor(Successor),
}

/// A new agency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
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
}

/// What an agency is from now on: all of it, not the difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attributes {
    /// Its name for people.
    pub name: String,
    /// 1 national, 2 regional, 3 prefectural, 4 county, 5 township.
    pub level: u64,
    /// What it answers for.
    pub territory: Territory,
    /// What it may do beyond publishing and asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
}

/// Another key for an agency, which proves by a consent that somebody holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// The new signing key.
    pub key: PublicKey,
}

/// Why something was done, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reason {
    /// In words that all may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who has an ended agency's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Successor {
    /// An agency that is in force.
    pub successor: AgencyId,
    /// In words that all may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Action {
    /// The action as statements write it.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Enrol(_) => "enrol",
            Action::Update(_) => "update",
            Action::Rotate(_) => "rotate",
            Action::Recover(_) => "recover",
            Action::Contest(_) => "contest",
            Action::Suspend(_) => "suspend",
            Action::Resume(_) => "resume",
            Action::Revoke(_) => "revoke",
            Action::Successor(_) => "successor",
        }
    }

    /// The key that the agency has by it, now or later.
    pub fn key(&self) -> Option<&PublicKey> {
        match self {
            Action::Enrol(enrolment) => Some(&enrolment.key),
            Action::Rotate(new) | Action::Recover(new) => Some(&new.key),
            _ => None,
        }
    }

    /// An action of this kind without consents.
    pub fn proposed(self) -> Agency {
        Agency {
            action: self,
            consents: Vec::new(),
        }
    }
}

impl Enrolment {
    /// What the agency is, but for its key.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            name: self.name.clone(),
            level: self.level,
            territory: self.territory.clone(),
            roles: self.roles.clone(),
        }
    }
}

impl Attributes {
    fn check(&self) -> Result<(), StatementError> {
        check_text("name", &self.name, 200)?;
        if !(1..=5).contains(&self.level) {
            return rule("level lies between 1 (national) and 5 (township)");
        }
        if !self.roles.is_sorted_by(|a, b| a < b) {
            return rule("roles are listed once each, in order");
        }
        self.territory.check()
    }
}

impl Agency {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        if self.consents.len() > 33 {
            return rule("more consents than keys can be needed");
        }
        match &self.action {
            Action::Enrol(enrolment) => enrolment.attributes().check(),
            Action::Update(attributes) => attributes.check(),
            Action::Rotate(_) | Action::Recover(_) => Ok(()),
            Action::Contest(Reason { reason })
            | Action::Suspend(Reason { reason })
            | Action::Resume(Reason { reason })
            | Action::Revoke(Reason { reason })
            | Action::Successor(Successor { reason, .. }) => {
                check_text("reason", reason.as_deref().unwrap_or_default(), 1_000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (list, edition) in [("insee", "2025"), ("gb2260", "2024")] {
            let other = Territory {
                list: list.into(),
                edition: edition.into(),
                ..territory(&[&["35", "53"]])
            };
            assert!(!other.lies_within(&bre), "{list}@{edition}");
        }
        assert!(!territory(&[&["35", "53"], &["44", "52"]]).lies_within(&bre));
        assert_eq!(bre.to_string(), "insee@2024:53<FR");
    }
}
