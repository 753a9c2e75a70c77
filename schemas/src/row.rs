//! A row of cells as the `jsonschema` crate reads it, without JSON being built.
//!
//! The crate judges any representation that can tell its members and their types. Ours is a
//! slice of [`Cell`]s beside the slice of the columns' names; numbers are `serde_json`'s own, so
//! that both representations compare in the same code.

use std::borrow::Cow;
use std::iter::{Empty, Zip};
use std::slice::Iter;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use serde_json::{Map, Number, Value};

use crate::cell::Cell;

/// The representation: flat rows.
pub(crate) struct Rows;

/// A row: names and cells in the same order, of the same length.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub names: &'a [String],
    pub cells: &'a [Cell<'a>],
}

/// What the judge may hold in its hand.
#[derive(Clone, Copy)]
pub(crate) enum RowNode<'a> {
    Row(Row<'a>),
    Cell(&'a Cell<'a>),
    /// A member's name, which `propertyNames` judges like a string.
    Name(&'a str),
}

/// A column's name in a compiled schema, with the place where it was found last: rows of one
/// table have it at the same place every time.
pub(crate) struct Key {
    name: String,
    place: AtomicUsize,
}

impl Json for Rows {
    type Node<'a> = RowNode<'a>;
    type PreparedKey = Key;
    type StringBuffer = ();

    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Key {
        Key {
            name: key.to_owned(),
            place: AtomicUsize::new(0),
        }
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(RowNode<'_>) -> T) -> T {
        f(RowNode::Name(string))
    }
}

impl<'a> RowNode<'a> {
    fn text(&self) -> Option<&'a str> {
        match self {
            RowNode::Cell(Cell::Text(text)) | RowNode::Name(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Node<'a, Rows> for RowNode<'a> {
    type Object = Row<'a>;
    type Array = NoArray;
    type Number = Number;

    fn as_object(&self) -> Option<Row<'a>> {
        match self {
            RowNode::Row(row) => Some(*row),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<NoArray> {
        None
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.text().map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<Number> {
        match self {
            RowNode::Cell(Cell::Integer(integer)) => Some((*integer).into()),
            RowNode::Cell(Cell::Number(number)) => Number::from_f64(*number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            RowNode::Cell(Cell::Boolean(boolean)) => Some(*boolean),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.json_type() == JsonType::Null
    }

    fn json_type(&self) -> JsonType {
        match self {
            RowNode::Row(_) => JsonType::Object,
            RowNode::Name(_) | RowNode::Cell(Cell::Text(_)) => JsonType::String,
            RowNode::Cell(Cell::Boolean(_)) => JsonType::Boolean,
            RowNode::Cell(Cell::Integer(_)) => JsonType::Number,
            // JSON has no infinities: they are written as null (see `Cell::to_json`).
            RowNode::Cell(Cell::Number(number)) if number.is_finite() => JsonType::Number,
            RowNode::Cell(Cell::Number(_) | Cell::Null | Cell::Absent) => JsonType::Null,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let text = self.text()?;
        // A character takes one to four bytes, which decides most cases without counting.
        let (fewest, most) = (text.len().div_ceil(4) as u64, text.len() as u64);
        if min <= fewest && most <= max {
            return Some(true);
        }
        Some((min..=max).contains(&(text.chars().count() as u64)))
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self.text(), expected) {
            (Some(text), Value::String(expected)) => text == expected,
            (Some(_), _) => false,
            (None, _) => cmp::equal(&self.to_value(), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            RowNode::Row(row) => row.to_json(),
            RowNode::Cell(cell) => cell.to_json().unwrap_or(Value::Null),
            RowNode::Name(name) => Value::String((*name).to_owned()),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        // A row stands at the address of its first cell, hence the tags.
        Some(match self {
            RowNode::Row(row) => NodeIdentity::tagged(row.cells.as_ptr().addr(), 1),
            RowNode::Cell(cell) => NodeIdentity::tagged(std::ptr::from_ref(*cell).addr(), 2),
            RowNode::Name(name) => NodeIdentity::tagged(name.as_ptr().addr(), 3),
        })
    }
}

impl Row<'_> {
    /// The row as JSON; absent members are left out.
    pub fn to_json(self) -> Value {
        let members: Map<String, Value> = self
            .names
            .iter()
            .zip(self.cells)
            .filter_map(|(name, cell)| Some((name.clone(), cell.to_json()?)))
            .collect();
        Value::Object(members)
    }
}

impl<'a> Object<'a, Rows> for Row<'a> {
    type Node = RowNode<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.cells
            .iter()
            .filter(|cell| **cell != Cell::Absent)
            .count()
    }

    fn get(&self, key: &Key) -> Option<RowNode<'a>> {
        let guess = key.place.load(Ordering::Relaxed);
        let place = if self.names.get(guess) == Some(&key.name) {
            guess
        } else {
            let found = self.names.iter().position(|name| *name == key.name)?;
            key.place.store(found, Ordering::Relaxed);
            found
        };
        match self.cells.get(place)? {
            Cell::Absent => None,
            cell => Some(RowNode::Cell(cell)),
        }
    }

    fn members(&self) -> Members<'a> {
        Members(self.names.iter().zip(self.cells))
    }
}

/// The members of a row that are there.
pub(crate) struct Members<'a>(Zip<Iter<'a, String>, Iter<'a, Cell<'a>>>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, RowNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, cell) = self.0.find(|(_, cell)| **cell != Cell::Absent)?;
        Some((name, RowNode::Cell(cell)))
    }
}

/// A flat row has no arrays; the representation must still name a type for them.
pub(crate) struct NoArray;

impl<'a> Array<'a, Rows> for NoArray {
    type Node = RowNode<'a>;
    type ElementsIter = Empty<RowNode<'a>>;

    fn len(&self) -> usize {
        0
    }

    fn elements(&self) -> Empty<RowNode<'a>> {
        std::iter::empty()
    }
}
