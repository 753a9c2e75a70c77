//! Where the elements of a JSON array begin and end: brackets and strings, nothing more.

use std::ops::Range;

use super::error::{Place, SourceFault};
use super::frame::{Cut, Fault, Seen};

/// Sees where the objects of one top-level array end. What stands between their braces is
/// checked when they are parsed.
#[derive(Debug, Default)]
pub(in crate::ingest) struct ArrayCut {
    state: State,
    /// Where the open element began.
    start: usize,
    elements: Vec<Range<usize>>,
    /// Elements that have left the buffer.
    taken: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the array.
    #[default]
    Before,
    /// After the opening bracket.
    First,
    /// After a comma.
    Next,
    /// Within an element, this many brackets deep, outside of a string.
    Within(usize),
    /// Within a string of an element.
    Text(usize),
    /// After a backslash in a string.
    Escape(usize),
    /// After an element.
    After,
    /// After the closing bracket.
    Done,
}

impl ArrayCut {
    fn step(&mut self, byte: u8, at: usize) -> Result<State, &'static str> {
        Ok(match (self.state, byte) {
            (State::Escape(depth), _) => State::Text(depth),
            (State::Text(depth), b'\\') => State::Escape(depth),
            (State::Text(depth), b'"') => State::Within(depth),
            (State::Within(depth), b'"') => State::Text(depth),
            (State::Within(depth), b'{' | b'[') => State::Within(depth + 1),
            (State::Within(1), b'}' | b']') => {
                self.elements.push(self.start..at + 1);
                State::After
            }
            (State::Within(depth), b'}' | b']') => State::Within(depth - 1),
            (State::Text(_) | State::Within(_), _) => self.state,
            (state, b' ' | b'\t' | b'\r' | b'\n') => state,
            (State::Before, b'[') => State::First,
            (State::First | State::Next, b'{') => {
                self.start = at;
                State::Within(1)
            }
            (State::First | State::After, b']') => State::Done,
            (State::After, b',') => State::Next,
            (State::Before, _) => return Err("expected an array of objects"),
            (State::First | State::Next, _) => {
                return Err("expected an object: a row is written {\"column\": value, …}");
            }
            (State::After, _) => {
                return Err("expected a comma or the closing bracket after the element");
            }
            (State::Done, _) => return Err("text after the closing bracket"),
        })
    }

    fn is_open(&self) -> bool {
        matches!(
            self.state,
            State::Within(_) | State::Text(_) | State::Escape(_)
        )
    }
}

impl Cut for ArrayCut {
    fn scan(&mut self, buffer: &[u8], from: usize) -> Result<Seen, Fault> {
        for (at, byte) in buffer.iter().enumerate().skip(from) {
            self.state = self
                .step(*byte, at)
                .map_err(|message| Fault { at, message })?;
        }
        // Space between elements goes with the element before it.
        let last = if self.is_open() {
            self.start
        } else {
            buffer.len()
        };
        let first = self.elements.first().map_or(0, |range| range.len());
        Ok(Seen { first, last })
    }

    fn finish(&mut self, buffer: &[u8]) -> Result<(), Fault> {
        if self.state == State::Done {
            return Ok(());
        }
        Err(Fault {
            at: buffer.len(),
            message: "the file ends within the array; was it cut off?",
        })
    }

    fn take(&mut self, end: usize) -> Vec<Range<usize>> {
        self.start = self.start.saturating_sub(end);
        self.taken += self.elements.len() as u64;
        std::mem::take(&mut self.elements)
    }

    fn place(&self, line: u64, start: usize) -> Place {
        let before = self
            .elements
            .iter()
            .filter(|range| range.start < start)
            .count();
        Place::Element {
            number: self.taken + before as u64 + 1,
            line,
        }
    }

    fn fault(&self, line: u64, _text: &[u8], message: &'static str) -> SourceFault {
        let number = self.taken + self.elements.len() as u64 + 1;
        SourceFault::Json {
            place: Place::Element { number, line },
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::frame::tests::blocks;

    #[test]
    fn elements_are_found_wherever_the_reads_fall() {
        let text = br#" [ {"a":"]}\"{"} ,
            {"b":{"c":[1]}},{},
            {"d":2}
        ] "#;
        for limit in 20..80 {
            let found = blocks(text, ArrayCut::default(), limit).unwrap();
            let mut elements = Vec::new();
            for block in &found {
                for (number, range) in (block.first_element..).zip(&block.elements) {
                    let text = std::str::from_utf8(&block.bytes[range.clone()]).unwrap();
                    elements.push((number, block.lines().at(range.start), text));
                }
            }
            assert_eq!(
                elements,
                [
                    (1, 1, r#"{"a":"]}\"{"}"#),
                    (2, 2, r#"{"b":{"c":[1]}}"#),
                    (3, 2, "{}"),
                    (4, 3, r#"{"d":2}"#)
                ]
            );
        }
    }

    #[test]
    fn what_is_no_array_of_objects_is_refused() {
        for (text, number) in [
            (&b"{}"[..], 1),
            (b"[1]", 1),
            (b"[{},]", 2),
            (b"[{} {}]", 2),
            (b"[{}", 2),
            (b"[{}, {\"a\":1", 2),
            (b"[{}] []", 2),
        ] {
            match blocks(text, ArrayCut::default(), 100) {
                Err(SourceFault::Json {
                    place: Place::Element { number: found, .. },
                    ..
                }) => {
                    assert_eq!(found, number, "{}", String::from_utf8_lossy(text));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
