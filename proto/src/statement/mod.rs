//! Statements: everything that is signed, as in-toto Statements v1.
//!
//! ```text
//! {"_type": "https://in-toto.io/Statement/v1",
//!  "subject": [{"name": "agency/fr.bre", "digest": {"sha256": …}}],
//!  "predicateType": "urn:jingwei:agency:v1",
//!  "predicate": {federation, agency, time, sequence, previous,   ← the head, always
//!                …}}                                              ← the body, by type
//! ```
//!
//! Statements about one subject form a chain: `sequence` counts from 1 and `previous` is the
//! SHA-256 of the payload before, so that nothing is lost, replayed or reordered. The four
//! messages of an exchange are a chain too: request, acceptance, receipt, acknowledgement.
//!
//! Where a subject has no files of its own its digest is that of the predicate's RFC 8785 form
//! without `consents`; where it has, every file is a subject, so that stock in-toto tools can
//! check them.

mod agency;
mod dataset;
mod exchange;
mod membership;
mod snapshot;
mod spelt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use agency::{
    Action, Agency, Attributes, Enrolment, NewKey, Reason, Role, Successor, Territory,
};
pub use dataset::{Dataset, DatasetFile, Schema, Sharing, Source};
pub use exchange::{
    Acceptance, Acknowledgement, AnswerDigest, EvidenceExport, EvidenceIndex, EvidenceMember,
    MAX_QUERY, Outcome, Receipt, Request, Seen, Used,
};
pub use membership::{
    Continues, LONGEST_DELAY, Node, RECOVERY_DELAY, RegistryKeys, Root, Witness, fingerprint,
    parse_fingerprint,
};
pub use snapshot::Snapshot;

use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::id::{AgencyId, FederationId};
use crate::json::{self as strict, JsonError};
use crate::key::Signer;
use crate::time::Time;

const TYPE: &str = "https://in-toto.io/Statement/v1";

/// What every statement says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The federation it belongs to; it means nothing in another.
    pub federation: FederationId,
    /// The agency it is about; root documents and snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agency: Option<AgencyId>,
    /// When the signer says it was made.
    pub time: Time,
    /// Its place in the chain of its subject, from 1.
    pub sequence: u64,
    /// The digest of the payload before it in the chain; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
}

/// The body of a statement, by its predicate type.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// `urn:jingwei:root:v1`
    Root(Root),
    /// `urn:jingwei:agency:v1`
    Agency(Agency),
    /// `urn:jingwei:node:v1`
    Node(Node),
    /// `urn:jingwei:dataset:v1`
    Dataset(Box<Dataset>),
    /// `urn:jingwei:schema:v1`
    Schema(Schema),
    /// `urn:jingwei:snapshot:v1`
    Snapshot(Snapshot),
    /// `urn:jingwei:request:v1`
    Request(Request),
    /// `urn:jingwei:acceptance:v1`
    Acceptance(Acceptance),
    /// `urn:jingwei:receipt:v1`
    Receipt(Receipt),
    /// `urn:jingwei:acknowledgement:v1`
    Acknowledgement(Acknowledgement),
    /// `urn:jingwei:evidence:v1`
    Evidence(EvidenceIndex),
}

/// A statement: head and body; its subjects follow from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What every statement says.
    pub head: Head,
    /// What this one says.
    pub predicate: Predicate,
}

/// A payload that is not a statement of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not JSON as signed things need it.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The JSON does not have the members of a statement of its type.
    #[error("not a {kind} statement: {source}")]
    Shape {
        /// The predicate type, or `head`.
        kind: String,
        /// What serde found.
        source: serde_json::Error,
    },
    /// A rule that holds within one statement is broken.
    #[error("not an acceptable statement: {0}")]
    Rule(String),
}

fn rule<T>(message: impl Into<String>) -> Result<T, StatementError> {
    Err(StatementError::Rule(message.into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    #[serde(rename = "_type")]
    type_: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Map<String, Value>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: Digest,
}

const HEAD: [&str; 5] = ["federation", "agency", "time", "sequence", "previous"];

impl Statement {
    /// Reads a statement strictly and checks every rule that can be seen in it alone.
    ///
    /// A statement has one spelling, its RFC 8785 form without members that say nothing: two
    /// payloads never mean the same, and what was signed holds nothing that is not read here.
    pub fn parse(payload: &[u8]) -> Result<Statement, StatementError> {
        match spelt::read(payload) {
            Some(statement) if statement.is_spelt(payload) => {
                statement.check()?;
                Ok(statement)
            }
            _ => Statement::parse_strictly(payload),
        }
    }

    /// Whether this is the payload of the statement, and the strict way would read it as this.
    fn is_spelt(&self, payload: &[u8]) -> bool {
        let predicate = strict::strict_joined(&self.head, &Body(&self.predicate));
        predicate
            .is_ok_and(|predicate| self.spell(&predicate, &self.subjects(&predicate)) == payload)
    }

    /// As [`Statement::parse`], the long way, on which everything that is wrong can be named.
    fn parse_strictly(payload: &[u8]) -> Result<Statement, StatementError> {
        let wire: Wire = shape("in-toto", strict::parse(payload)?)?;
        if wire.type_ != TYPE {
            return rule(format!("_type is not {TYPE}"));
        }
        let (mut head, mut body) = (Map::new(), Map::new());
        for (name, value) in wire.predicate {
            let part = if HEAD.contains(&name.as_str()) {
                &mut head
            } else {
                &mut body
            };
            part.insert(name, value);
        }
        let statement = Statement {
            head: shape("head", Value::Object(head))?,
            predicate: Predicate::parse(&wire.predicate_type, Value::Object(body))?,
        };
        statement.check()?;
        let predicate = statement.predicate_bytes();
        let subjects = statement.subjects(&predicate);
        if wire.subject != subjects {
            return rule("the subjects do not match the predicate");
        }
        if statement.spell(&predicate, &subjects) != payload {
            return rule(
                "it is not spelt in RFC 8785 form, or has a member that is null or an empty list",
            );
        }
        Ok(statement)
    }

    /// The bytes to sign: RFC 8785.
    pub fn payload(&self) -> Vec<u8> {
        let predicate = self.predicate_bytes();
        self.spell(&predicate, &self.subjects(&predicate))
    }

    fn spell(&self, predicate: &[u8], subjects: &[Subject]) -> Vec<u8> {
        let subjects = strict::canonical(&subjects);
        // The members in their order; neither type needs an escape.
        let kind = self.predicate.kind();
        let parts: [&[u8]; 9] = [
            br#"{"_type":""#,
            TYPE.as_bytes(),
            br#"","predicate":"#,
            predicate,
            br#","predicateType":""#,
            kind.as_bytes(),
            br#"","subject":"#,
            &subjects,
            b"}",
        ];
        parts.concat()
    }

    /// This statement, signed.
    pub fn sign(&self, signer: &dyn Signer) -> Envelope {
        Envelope::sign(self.payload(), signer)
    }

    /// The name of the chain that this statement belongs to, such as `dataset/fr.bre/communes`.
    pub fn chain(&self) -> String {
        let agency = self.head.agency.as_ref().map_or("", AgencyId::as_str);
        match &self.predicate {
            Predicate::Root(_) => "root".to_owned(),
            Predicate::Snapshot(_) => "snapshot".to_owned(),
            Predicate::Agency(_) => format!("agency/{agency}"),
            Predicate::Node(_) => format!("node/{agency}"),
            Predicate::Dataset(dataset) => format!("dataset/{agency}/{}", dataset.name),
            Predicate::Schema(schema) => format!("schema/{agency}/{}", schema.name),
            Predicate::Request(Request { nonce, .. })
            | Predicate::Acceptance(Acceptance { nonce, .. })
            | Predicate::Receipt(Receipt { nonce, .. })
            | Predicate::Acknowledgement(Acknowledgement { nonce, .. }) => {
                format!("exchange/{nonce}")
            }
            Predicate::Evidence(_) => format!("evidence/{agency}"),
        }
    }

    /// The agency, for statements that must have one.
    pub fn agency(&self) -> Result<&AgencyId, StatementError> {
        match &self.head.agency {
            Some(agency) => Ok(agency),
            None => rule("the member agency is missing"),
        }
    }

    /// The consents of others that the statement carries.
    pub fn consents(&self) -> &[Envelope] {
        match &self.predicate {
            Predicate::Root(root) => &root.consents,
            Predicate::Agency(agency) => &agency.consents,
            _ => &[],
        }
    }

    /// The statement that consents are given to: the same without `consents`.
    pub fn proposal(&self) -> Statement {
        self.with_consents(Vec::new())
    }

    /// The same statement carrying `consents`.
    pub fn with_consents(&self, consents: Vec<Envelope>) -> Statement {
        let mut statement = self.clone();
        match &mut statement.predicate {
            Predicate::Root(root) => root.consents = consents,
            Predicate::Agency(agency) => agency.consents = consents,
            _ => {}
        }
        statement
    }

    fn check(&self) -> Result<(), StatementError> {
        if self.head.sequence == 0 {
            return rule("sequence counts from 1");
        }
        if (self.head.sequence == 1) != self.head.previous.is_none() {
            return rule("previous is absent for the first of a chain, and only for it");
        }
        if !matches!(self.predicate, Predicate::Root(_) | Predicate::Snapshot(_)) {
            self.agency()?;
        }
        self.predicate.check()
    }

    /// The predicate's RFC 8785 form: the members of the head among those of the body.
    fn predicate_bytes(&self) -> Vec<u8> {
        strict::canonical_joined(&self.head, &Body(&self.predicate))
    }

    /// The subjects, given the canonical form of the predicate's members.
    fn subjects(&self, predicate: &[u8]) -> Vec<Subject> {
        if let Predicate::Dataset(dataset) = &self.predicate
            && !dataset.files.is_empty()
        {
            return dataset
                .files
                .iter()
                .map(|file| Subject {
                    name: file.name.clone(),
                    digest: SubjectDigest {
                        sha256: file.digest,
                    },
                })
                .collect();
        }
        let digest = if self.consents().is_empty() {
            Digest::of(predicate)
        } else {
            Digest::of(&self.proposal().predicate_bytes())
        };
        vec![Subject {
            name: self.chain(),
            digest: SubjectDigest { sha256: digest },
        }]
    }
}

macro_rules! predicate_types {
    ($($variant:ident = $uri:literal),* $(,)?) => {
        impl Predicate {
            /// The predicate type URI.
            pub fn kind(&self) -> &'static str {
                match self { $(Predicate::$variant(_) => $uri,)* }
            }

            /// Reads a body of this type; `None` if there is no such type.
            fn read<'de, D: Deserializer<'de>>(
                kind: &str,
                body: D,
            ) -> Option<Result<Predicate, D::Error>> {
                match kind {
                    $($uri => Some(Deserialize::deserialize(body).map(Predicate::$variant)),)*
                    _ => None,
                }
            }

            fn check(&self) -> Result<(), StatementError> {
                match self { $(Predicate::$variant(body) => body.check(),)* }
            }
        }

        impl Serialize for Body<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 { $(Predicate::$variant(body) => body.serialize(serializer),)* }
            }
        }
    };
}

predicate_types! {
    Root = "urn:jingwei:root:v1",
    Agency = "urn:jingwei:agency:v1",
    Node = "urn:jingwei:node:v1",
    Dataset = "urn:jingwei:dataset:v1",
    Schema = "urn:jingwei:schema:v1",
    Snapshot = "urn:jingwei:snapshot:v1",
    Request = "urn:jingwei:request:v1",
    Acceptance = "urn:jingwei:acceptance:v1",
    Receipt = "urn:jingwei:receipt:v1",
    Acknowledgement = "urn:jingwei:acknowledgement:v1",
    Evidence = "urn:jingwei:evidence:v1",
}

/// A predicate without its type.
struct Body<'a>(&'a Predicate);

impl Predicate {
    fn parse(kind: &str, body: Value) -> Result<Predicate, StatementError> {
        match Predicate::read(kind, body) {
            Some(read) => read.map_err(|source| misshapen(kind, source)),
            None => rule(format!("unknown predicate type ‘{}’", crate::excerpt(kind))),
        }
    }
}

fn shape<T: DeserializeOwned>(kind: &str, value: Value) -> Result<T, StatementError> {
    serde_json::from_value(value).map_err(|source| misshapen(kind, source))
}

fn misshapen(kind: &str, source: serde_json::Error) -> StatementError {
    StatementError::Shape {
        kind: crate::excerpt(kind),
        source,
    }
}

/// A free text that people read: bounded, without control characters.
fn check_text(what: &str, text: &str, most: usize) -> Result<(), StatementError> {
    if text.len() > most {
        return rule(format!("{what} is longer than {most} bytes"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return rule(format!("{what} contains a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
