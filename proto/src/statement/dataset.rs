//! What is published: dataset versions and schemas.

use serde::{Deserialize, Serialize};

use super::{StatementError, check_text, rule};
use crate::digest::Digest;
use crate::id::DatasetName;

/// Who may read a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Anyone.
    Public,
    /// 无条件共享: any agency of the federation.
    Unconditional,
    /// 有条件共享: agencies with a grant.
    Conditional,
    /// 不予共享: nobody else; the registry holds a salted commitment only.
    Withheld,
}

impl Sharing {
    /// All classes, from the most open.
    pub const ALL: [Sharing; 4] = [
        Sharing::Public,
        Sharing::Unconditional,
        Sharing::Conditional,
        Sharing::Withheld,
    ];

    /// The name in statements and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Sharing::Public => "public",
            Sharing::Unconditional => "unconditional",
            Sharing::Conditional => "conditional",
            Sharing::Withheld => "withheld",
        }
    }
}

impl std::fmt::Display for Sharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Sharing {
    type Err = String;

    fn from_str(text: &str) -> Result<Sharing, String> {
        Sharing::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| {
                "a sharing class is public, unconditional, conditional or withheld".to_owned()
            })
    }
}

/// The manifest: one immutable version of a dataset. Its number is the statement's sequence.
///
/// A withheld dataset has a name without meaning, a commitment, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// The dataset's name within its agency.
    pub name: DatasetName,
    /// Who may read it.
    pub sharing: Sharing,
    /// A title for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it holds, where it comes from, its licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema that every row was checked against, as RFC 8785 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Rows in all files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The data files; each is a subject of the statement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<DatasetFile>,
    /// What was handed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// For a withheld dataset: HMAC-SHA256 of its manifest under a random salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<Digest>,
}

/// A Parquet file of a dataset version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatasetFile {
    /// `<sha256>.parquet`.
    pub name: String,
    /// SHA-256 of its bytes, which hold a random salt.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The file that the version was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// `csv`, `csv.gz`, `ndjson`, `json` or `parquet`.
    pub format: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Dataset {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        if self.sharing == Sharing::Withheld {
            let bare = self.title.is_none()
                && self.description.is_none()
                && self.schema.is_none()
                && self.rows.is_none()
                && self.files.is_empty()
                && self.source.is_none();
            if !bare || self.commitment.is_none() {
                return rule("a withheld dataset enters as a commitment and nothing else");
            }
            return Ok(());
        }
        if self.commitment.is_some() {
            return rule("only a withheld dataset has a commitment");
        }
        check_text("title", self.title.as_deref().unwrap_or(""), 200)?;
        check_text(
            "description",
            self.description.as_deref().unwrap_or(""),
            4_000,
        )?;
        let Some(schema) = &self.schema else {
            return rule("a dataset names the schema of its rows");
        };
        check_schema(schema)?;
        if self.rows.is_none() || self.files.is_empty() || self.files.len() > 1_000 {
            return rule("a dataset counts its rows and has 1 to 1000 files");
        }
        if self
            .files
            .iter()
            .any(|file| file.name != format!("{}.parquet", file.digest))
        {
            return rule("a data file is named by its SHA-256");
        }
        Ok(())
    }
}

/// A schema that others may conform to, entered by an agency with the standards role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schema {
    /// Its name within its agency.
    pub name: DatasetName,
    /// The JSON Schema 2020-12, as RFC 8785 text.
    pub schema: String,
}

impl Schema {
    pub(super) fn check(&self) -> Result<(), StatementError> {
        check_schema(&self.schema)
    }
}

/// The largest JSON Schema accepted, in bytes of its RFC 8785 text.
const MAX_SCHEMA: usize = 64 * 1024;

fn check_schema(text: &str) -> Result<(), StatementError> {
    if text.len() > MAX_SCHEMA {
        return rule(format!("a schema larger than {MAX_SCHEMA} bytes"));
    }
    let value = crate::json::parse_with_floats(text.as_bytes())?;
    if !value.is_object() || crate::json::canonical(&value) != text.as_bytes() {
        return rule("the schema is not a JSON object in RFC 8785 form");
    }
    Ok(())
}
