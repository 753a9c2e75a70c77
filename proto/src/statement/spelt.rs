//! Reading a statement in one pass, without a tree of JSON values: what is spelt as this program
//! spells it, and nearly every statement is.
//!
//! What comes out counts only once it is written again and is the payload, byte for byte. Whatever
//! else there may be is read the strict way, which can say what is wrong.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::{Head, Predicate, Statement};
use crate::digest::Digest;
use crate::id::{AgencyId, FederationId};
use crate::time::Time;

const BEFORE: &[u8] = br#"{"_type":"https://in-toto.io/Statement/v1","predicate":"#;
const BETWEEN: &[u8] = br#","predicateType":""#;

/// What a payload seems to say.
pub(super) fn read(payload: &[u8]) -> Option<Statement> {
    let rest = payload.strip_prefix(BEFORE)?;
    let end = rest
        .windows(BETWEEN.len())
        .rposition(|window| window == BETWEEN)?;
    let (predicate, kind) = (&rest[..end], &rest[end + BETWEEN.len()..]);
    let kind = kind.split(|byte| *byte == b'"').next()?;
    let members = Members {
        kind: std::str::from_utf8(kind).ok()?,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(predicate);
    let statement = members.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(statement)
}

/// The members of a predicate of this type: those of the head among those of the body.
struct Members<'k> {
    kind: &'k str,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Statement;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Statement, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Statement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a predicate")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Statement, A::Error> {
        let mut head = Parts::default();
        let body = MapAccessDeserializer::new(Rest {
            map,
            head: &mut head,
        });
        let predicate = Predicate::read(self.kind, body)
            .unwrap_or_else(|| Err(A::Error::custom("an unknown type")))?;
        let head = head
            .whole()
            .ok_or_else(|| A::Error::custom("half a head"))?;
        Ok(Statement { head, predicate })
    }
}

/// A head, member by member.
#[derive(Default)]
struct Parts {
    federation: Option<FederationId>,
    agency: Option<AgencyId>,
    time: Option<Time>,
    sequence: Option<u64>,
    previous: Option<Digest>,
}

impl Parts {
    fn whole(self) -> Option<Head> {
        Some(Head {
            federation: self.federation?,
            agency: self.agency,
            time: self.time?,
            sequence: self.sequence?,
            previous: self.previous,
        })
    }
}

/// The members that are left for the body once the head has taken its own.
struct Rest<'a, A> {
    map: A,
    head: &'a mut Parts,
}

impl<'de, A: MapAccess<'de>> Rest<'_, A> {
    fn value<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, A::Error> {
        self.map.next_value().map(Some)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.map.next_key::<&'de str>()? {
            match name {
                "federation" => self.head.federation = self.value()?,
                "agency" => self.head.agency = self.value()?,
                "time" => self.head.time = self.value()?,
                "sequence" => self.head.sequence = self.value()?,
                "previous" => self.head.previous = self.value()?,
                name => {
                    let name = BorrowedStrDeserializer::new(name);
                    return seed.deserialize(name).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
