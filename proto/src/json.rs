//! JSON as signed things need it: strict when read (no duplicate member, no float, bounded
//! depth), RFC 8785 canonical when written.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Number, Value};

mod write;

pub use write::Unusual;

/// Objects and arrays may nest this deep; no statement needs more, and a stack is finite.
pub const MAX_DEPTH: usize = 64;

/// The largest integer that every JSON implementation keeps exactly (RFC 8785, I-JSON).
const MAX_INTEGER: u64 = 1 << 53;

/// JSON that is broken, or that a signed thing may not contain.
#[derive(Debug, thiserror::Error)]
#[error("not acceptable JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Reads one JSON value strictly: duplicate members, floats, integers beyond ±2^53 and
/// nesting deeper than [`MAX_DEPTH`] are errors.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    read(
        bytes,
        Strict {
            depth: 0,
            floats: false,
        },
    )
}

/// As [`parse`], but lets floats through: for JSON Schemas, whose bounds may be fractions.
pub fn parse_with_floats(bytes: &[u8]) -> Result<Value, JsonError> {
    read(
        bytes,
        Strict {
            depth: 0,
            floats: true,
        },
    )
}

/// Reads one JSON value strictly and turns it into `T`.
pub fn parse_into<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    Ok(serde_json::from_value(parse(bytes)?)?)
}

/// The RFC 8785 canonical form of `value`.
///
/// # Panics
/// Never for JSON values and the types of this project: their maps have text keys, and they hold no
/// floats that JSON cannot write.
pub fn canonical<T: Serialize>(value: &T) -> Vec<u8> {
    write::value(value).expect("types of this project are always valid JSON")
}

/// The RFC 8785 canonical form of one object with the members of both structures; they have none of
/// the same name.
///
/// # Panics
/// As [`canonical`].
pub fn canonical_joined<A: Serialize, B: Serialize>(a: &A, b: &B) -> Vec<u8> {
    write::joined(a, b, false).expect("types of this project are always valid JSON")
}

/// As [`canonical_joined`], unless [`parse`] would refuse it.
///
/// # Errors
/// If there is a float or an integer beyond 2^53 in it.
pub fn strict_joined<A: Serialize, B: Serialize>(a: &A, b: &B) -> Result<Vec<u8>, Unusual> {
    write::joined(a, b, true)
}

fn read(bytes: &[u8], strict: Strict) -> Result<Value, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
    floats: bool,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Strict, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Strict {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_INTEGER {
            return Err(E::custom("an integer beyond 2^53"));
        }
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_INTEGER {
            return Err(E::custom("an integer beyond 2^53"));
        }
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if !self.floats {
            return Err(E::custom("a number with a fraction or exponent"));
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that JSON cannot write"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if members.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!(
                    "member ‘{key}’ stands twice"
                )));
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strictness() {
        assert!(parse(br#"{"a":1,"b":[null,true,"x",-5]}"#).is_ok());
        for bad in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"x":{"a":1,"a":2}}"#,
            b"1.5",
            b"1e3",
            b"9007199254740993",
            b"-9007199254740993",
            b"{} {}",
            b"\xff",
            b"",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(parse_with_floats(b"1.5").is_ok());
        let deep = |n| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has no such float", |float| float.is_finite())
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            prop::collection::vec(any::<char>(), 0..5)
                .prop_map(|text| Value::from(String::from_iter(text))),
        ];
        scalar.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        /// Another implementation of RFC 8785 writes the same bytes.
        #[test]
        fn canonical_as_elsewhere(value in any_value()) {
            let elsewhere = serde_json_canonicalizer::to_vec(&value).unwrap();
            prop_assert_eq!(canonical(&value), elsewhere);
        }
    }

    #[test]
    fn what_is_shown_is_escaped_as_a_text_is() {
        struct Shown(&'static str);
        impl Serialize for Shown {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self.0)
            }
        }
        for text in [
            "", "plain é", "a\"b", "a\\b", "\n", "\u{1}", "\u{7f}", "é\u{1f}",
        ] {
            let elsewhere = serde_json_canonicalizer::to_vec(&text).unwrap();
            assert_eq!(canonical(&Shown(text)), elsewhere);
            assert_eq!(
                canonical(&vec![Shown(text)])[1..=elsewhere.len()],
                elsewhere
            );
        }
    }

    #[test]
    fn members_stand_in_the_order_of_utf_16() {
        // U+FF5E is one unit of 16 bits, U+1F600 two that begin lower: not the order of UTF-8.
        let value = parse("{\"～\":1,\"😀\":2}".as_bytes()).unwrap();
        assert_eq!(canonical(&value), "{\"😀\":2,\"～\":1}".as_bytes());
    }

    #[test]
    fn canonical_form() {
        let value = parse(r#"{ "é": 1, "a": [ true ], "A": "\u0041" }"#.as_bytes()).unwrap();
        assert_eq!(
            canonical(&value),
            r#"{"A":"A","a":[true],"é":1}"#.as_bytes()
        );
    }
}
