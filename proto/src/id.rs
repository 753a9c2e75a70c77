//! Names of the parties and things of a federation, each parsed once and then trusted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not a valid name, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("‘{text}’ is not {what}: {rule}")]
pub struct IdError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

fn refuse<T>(text: &str, what: &'static str, rule: &'static str) -> Result<T, IdError> {
    // An error message never repeats more of a stranger's text than a person would read.
    let text = text.chars().take(130).collect();
    Err(IdError { text, what, rule })
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                crate::text::deserialize(deserializer)
            }
        }
    };
}

/// An agency's id: 1 to 8 dotted labels, at most 128 bytes, such as `fr.bre.35`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgencyId(String);
text_type!(AgencyId);

/// Names that no agency may start with, because SQL or the product uses them.
const RESERVED: [&str; 4] = ["std", "public", "information_schema", "jingwei"];

impl AgencyId {
    /// The id one label shorter: that of the superior at enrolment. `None` for a single label.
    pub fn superior(&self) -> Option<AgencyId> {
        let (superior, _) = self.0.rsplit_once('.')?;
        Some(AgencyId(superior.to_owned()))
    }

    /// How many labels the id has, 1 to 8.
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }
}

impl FromStr for AgencyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<AgencyId, IdError> {
        const WHAT: &str = "an agency id";
        if text.len() > 128 || text.split('.').count() > 8 {
            return refuse(text, WHAT, "at most 8 labels and 128 bytes");
        }
        if !text.split('.').all(is_label) {
            return refuse(
                text,
                WHAT,
                "labels of 1 to 32 of a-z, 0-9 and inner -, joined by dots, like fr.bre.35",
            );
        }
        if RESERVED.contains(&text) {
            return refuse(
                text,
                WHAT,
                "std, public, information_schema and jingwei are reserved",
            );
        }
        Ok(AgencyId(text.to_owned()))
    }
}

fn is_label(label: &str) -> bool {
    (1..=32).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A dataset's or schema's name within its agency: `[a-z][a-z0-9_]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName(String);
text_type!(DatasetName);

impl FromStr for DatasetName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<DatasetName, IdError> {
        let ok = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !ok {
            return refuse(
                text,
                "a dataset name",
                "a letter a-z, then up to 62 of a-z, 0-9 and _, like communes",
            );
        }
        Ok(DatasetName(text.to_owned()))
    }
}

/// A dataset of an agency, written `fr.bre.35/communes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetId {
    /// The agency that publishes it.
    pub agency: AgencyId,
    /// Its name there.
    pub name: DatasetName,
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.agency, self.name)
    }
}

impl FromStr for DatasetId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<DatasetId, IdError> {
        match text.split_once('/') {
            Some((agency, name)) => Ok(DatasetId {
                agency: agency.parse()?,
                name: name.parse()?,
            }),
            None => refuse(text, "a dataset", "AGENCY/NAME, like fr.bre.35/communes"),
        }
    }
}

/// One immutable version of a dataset, written `fr.bre.35/communes@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId {
    /// The dataset.
    pub dataset: DatasetId,
    /// Counted from 1.
    pub version: u64,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.version)
    }
}

impl FromStr for VersionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<VersionId, IdError> {
        const RULE: &str = "AGENCY/NAME@VERSION, like fr.bre.35/communes@3";
        let Some((dataset, version)) = text.split_once('@') else {
            return refuse(text, "a dataset version", RULE);
        };
        match parse_version(version) {
            Some(version) => Ok(VersionId {
                dataset: dataset.parse()?,
                version,
            }),
            None => refuse(text, "a dataset version", RULE),
        }
    }
}

/// A version number in its one spelling: decimal from 1 to 2^53, no sign, no leading zero.
pub fn parse_version(text: &str) -> Option<u64> {
    let version: u64 = text.parse().ok()?;
    ((1..=1 << 53).contains(&version) && version.to_string() == text).then_some(version)
}

/// A federation: a name and 8 random bytes in hex, such as `brittany-0123456789abcdef`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FederationId(String);
text_type!(FederationId);

impl FederationId {
    /// Joins a name (one label) and the random bytes that set it apart from namesakes.
    pub fn new(name: &str, random: [u8; 8]) -> Result<FederationId, IdError> {
        format!("{name}-{}", crate::digest::to_hex(&random)).parse()
    }

    /// The origin of this federation's registry log in its `n`-th incarnation.
    pub fn registry_origin(&self, n: u64) -> String {
        format!("jingwei/{self}/registry/{n}")
    }

    /// The origin of an agency's journal of one year.
    pub fn journal_origin(&self, agency: &AgencyId, year: i32) -> String {
        format!("jingwei/{self}/journal/{agency}/{year}")
    }

    /// The name under which an agency's witness co-signs others' logs.
    pub fn witness_name(&self, agency: &AgencyId) -> String {
        format!("jingwei/{self}/witness/{agency}")
    }
}

impl FromStr for FederationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<FederationId, IdError> {
        let ok = text.rsplit_once('-').is_some_and(|(name, random)| {
            is_label(name) && random.len() == 16 && crate::digest::is_hex(random)
        });
        if !ok {
            return refuse(
                text,
                "a federation id",
                "a name of 1 to 32 of a-z, 0-9 and inner -, then - and 16 hexadecimal digits",
            );
        }
        Ok(FederationId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agency_ids() {
        let id: AgencyId = "fr.bre.35".parse().unwrap();
        assert_eq!(id.superior().unwrap().as_str(), "fr.bre");
        assert_eq!(id.labels(), 3);
        for bad in [
            "",
            "fr.",
            "Fr",
            "fr..bre",
            "-a",
            "a-",
            "std",
            "a/b",
            "é",
            "a.b.c.d.e.f.g.h.i",
        ] {
            assert!(bad.parse::<AgencyId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn dataset_names_and_versions() {
        let version: VersionId = "fr.bre.35/communes@3".parse().unwrap();
        assert_eq!(version.to_string(), "fr.bre.35/communes@3");
        for bad in [
            "fr/communes",
            "fr/communes@0",
            "fr/communes@03",
            "fr/Communes@1",
            "fr/1a@1",
            "@1",
        ] {
            assert!(bad.parse::<VersionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn federation_ids() {
        let id = FederationId::new("my-land", [7; 8]).unwrap();
        assert_eq!(id.to_string(), "my-land-0707070707070707");
        assert_eq!(
            id.registry_origin(1),
            "jingwei/my-land-0707070707070707/registry/1"
        );
        assert!(FederationId::new("My land", [7; 8]).is_err());
    }
}
