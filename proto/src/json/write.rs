//! RFC 8785 straight from Rust values: every statement that is read is written again to compare, and
//! a tree of JSON values in between would take longer than the writing.
//!
//! ```text
//! "b":1 "a":2      members as they come, with the place of each
//! {"a":2,"b":1}    in the order of their names at the end
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::io::Write as _;
use std::ops::Range;

use serde::Serialize;
use serde::ser::{self, Impossible};

use super::MAX_INTEGER;

/// A value that has no JSON form here: bytes, tuples, a float that is no number, or an enum with data
/// of more than one member; and in a strict one, a float or an integer beyond 2^53.
#[derive(Debug)]
pub struct Unusual;

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that canonical JSON cannot write")
    }
}

impl std::error::Error for Unusual {}

impl ser::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Unusual {
        Unusual
    }
}

/// The canonical form of a value.
pub(super) fn value<T: Serialize>(value: &T) -> Result<Vec<u8>, Unusual> {
    let mut out = Vec::with_capacity(1_024);
    value.serialize(Writer {
        out: &mut out,
        outer: None,
        strict: false,
    })?;
    Ok(out)
}

/// The canonical form of one object with the members of both.
pub(super) fn joined<A: Serialize, B: Serialize>(
    a: &A,
    b: &B,
    strict: bool,
) -> Result<Vec<u8>, Unusual> {
    let mut out = Vec::with_capacity(1_024);
    let mut members = Vec::with_capacity(16);
    a.serialize(Writer {
        out: &mut out,
        outer: Some(&mut members),
        strict,
    })?;
    b.serialize(Writer {
        out: &mut out,
        outer: Some(&mut members),
        strict,
    })?;
    let mut object = Vec::with_capacity(out.len() + members.len() + 2);
    assemble(&out, &mut members, &mut object);
    Ok(object)
}

/// A member of an object: its name, and where it is written, name and value.
type Member = (Cow<'static, str>, Range<usize>);

/// Writes an object of members that stand in `written`, in the order of their names.
fn assemble(written: &[u8], members: &mut [Member], out: &mut Vec<u8>) {
    members.sort_by(|(a, _), (b, _)| order(a, b));
    out.push(b'{');
    for (place, (_, range)) in members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&written[range.clone()]);
    }
    out.push(b'}');
}

/// The order of members: that of their names in UTF-16, which for ASCII is that of the bytes.
fn order(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        return a.cmp(b);
    }
    a.encode_utf16().cmp(b.encode_utf16())
}

fn text(text: &str, out: &mut Vec<u8>) -> Result<(), Unusual> {
    serde_json::to_writer(out, text).map_err(|_| Unusual)
}

/// Whether a byte of a text stands for itself in JSON (RFC 8259 §7).
fn plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The object whose members are to be this one's, if it is part of another.
    outer: Option<&'a mut Vec<Member>>,
    strict: bool,
}

impl Writer<'_> {
    fn bytes(self, bytes: &[u8]) -> Result<(), Unusual> {
        match self.outer {
            Some(_) => Err(Unusual),
            None => {
                self.out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn integer(self, magnitude: u64, shown: impl fmt::Display) -> Result<(), Unusual> {
        if self.strict && magnitude > MAX_INTEGER {
            return Err(Unusual);
        }
        if self.outer.is_some() {
            return Err(Unusual);
        }
        write!(self.out, "{shown}").map_err(|_| Unusual)
    }
}

impl<'a> Writer<'a> {
    fn object(self) -> Object<'a> {
        if self.outer.is_none() {
            self.out.push(b'{');
        }
        Object {
            start: self.out.len(),
            out: self.out,
            outer: self.outer,
            strict: self.strict,
            members: Vec::new(),
            name: None,
        }
    }
}

macro_rules! integers {
    ($($method:ident $type:ty)*) => {
        $(fn $method(self, value: $type) -> Result<(), Unusual> {
            self.integer(u64::try_from(i128::from(value).unsigned_abs()).unwrap_or(u64::MAX), value)
        })*
    };
}

macro_rules! unusual {
    ($($method:ident($($argument:ty),*) -> $result:ty)*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$result, Unusual> {
            Err(Unusual)
        })*
    };
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unusual;
    type SerializeSeq = List<'a>;
    type SerializeTuple = Impossible<(), Unusual>;
    type SerializeTupleStruct = Impossible<(), Unusual>;
    type SerializeTupleVariant = Impossible<(), Unusual>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Impossible<(), Unusual>;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    unusual! {
        serialize_f32(f32) -> ()
        serialize_bytes(&[u8]) -> ()
        serialize_unit_struct(&'static str) -> ()
        serialize_tuple(usize) -> Self::SerializeTuple
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant
    }

    fn serialize_bool(self, value: bool) -> Result<(), Unusual> {
        self.bytes(if value { b"true" } else { b"false" })
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unusual> {
        if self.strict || !value.is_finite() {
            return Err(Unusual);
        }
        let number = serde_json_canonicalizer::to_vec(&value).map_err(|_| Unusual)?;
        self.bytes(&number)
    }

    fn serialize_char(self, value: char) -> Result<(), Unusual> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Unusual> {
        match self.outer {
            Some(_) => Err(Unusual),
            None => text(value, self.out),
        }
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Unusual> {
        if self.outer.is_some() {
            return Err(Unusual);
        }
        // Most need no escapes, and are written where they are to stand.
        let start = self.out.len();
        self.out.push(b'"');
        write!(self.out, "{value}").map_err(|_| Unusual)?;
        if self.out[start + 1..].iter().copied().all(plain) {
            self.out.push(b'"');
            return Ok(());
        }
        self.out.truncate(start);
        text(&value.to_string(), self.out)
    }

    fn serialize_none(self) -> Result<(), Unusual> {
        self.serialize_unit()
    }

    fn serialize_unit(self) -> Result<(), Unusual> {
        self.bytes(b"null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unusual> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Unusual> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unusual> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unusual> {
        let mut object = self.object();
        object.member(Cow::Borrowed(variant), value)?;
        object.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Unusual> {
        if self.outer.is_some() {
            return Err(Unusual);
        }
        self.out.push(b'[');
        Ok(List {
            out: self.out,
            strict: self.strict,
            empty: true,
        })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'a>, Unusual> {
        Ok(self.object())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'a>, Unusual> {
        Ok(self.object())
    }
}

struct List<'a> {
    out: &'a mut Vec<u8>,
    strict: bool,
    empty: bool,
}

impl ser::SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Unusual;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unusual> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        value.serialize(Writer {
            out: &mut *self.out,
            outer: None,
            strict: self.strict,
        })
    }

    fn end(self) -> Result<(), Unusual> {
        self.out.push(b']');
        Ok(())
    }
}

struct Object<'a> {
    out: &'a mut Vec<u8>,
    outer: Option<&'a mut Vec<Member>>,
    strict: bool,
    /// Where its members begin.
    start: usize,
    members: Vec<Member>,
    /// The name of a map's member whose value comes next.
    name: Option<String>,
}

impl Object<'_> {
    fn member<T: Serialize + ?Sized>(
        &mut self,
        name: Cow<'static, str>,
        value: &T,
    ) -> Result<(), Unusual> {
        if self.outer.is_none() && !self.members.is_empty() {
            self.out.push(b',');
        }
        let start = self.out.len();
        text(&name, self.out)?;
        self.out.push(b':');
        value.serialize(Writer {
            out: &mut *self.out,
            outer: None,
            strict: self.strict,
        })?;
        self.members.push((name, start..self.out.len()));
        Ok(())
    }

    fn close(mut self) -> Result<(), Unusual> {
        if let Some(outer) = self.outer {
            outer.append(&mut self.members);
            return Ok(());
        }
        if self
            .members
            .is_sorted_by(|(a, _), (b, _)| order(a, b).is_lt())
        {
            self.out.push(b'}');
            return Ok(());
        }
        let written = self.out.split_off(self.start);
        self.out.pop();
        for (_, range) in &mut self.members {
            *range = range.start - self.start..range.end - self.start;
        }
        assemble(&written, &mut self.members, self.out);
        Ok(())
    }
}

impl ser::SerializeStruct for Object<'_> {
    type Ok = ();
    type Error = Unusual;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unusual> {
        self.member(Cow::Borrowed(name), value)
    }

    fn end(self) -> Result<(), Unusual> {
        self.close()
    }
}

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = Unusual;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unusual> {
        // Whatever is written as a text may be a name.
        match serde_json::to_value(key) {
            Ok(serde_json::Value::String(name)) => self.name = Some(name),
            _ => return Err(Unusual),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unusual> {
        let name = self.name.take().ok_or(Unusual)?;
        self.member(Cow::Owned(name), value)
    }

    fn end(self) -> Result<(), Unusual> {
        self.close()
    }
}
