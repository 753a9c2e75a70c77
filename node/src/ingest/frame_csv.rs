//! Where CSV rows end: the quotation rules of RFC 4180, checked strictly.
//!
//! A lenient reader guesses at a stray quotation mark and may swallow the rest of the file
//! into one cell. Published figures must not rest on a guess.

use super::error::SourceFault;
use super::frame::{Cut, Fault, LineCut, Seen};

/// Sees where CSV rows end.
pub(in crate::ingest) struct CsvCut {
    delimiter: u8,
    state: State,
    /// Where the quoted cell that is open began.
    opened: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a cell.
    Start,
    /// Within a cell without quotation marks.
    Plain,
    /// Within a quoted cell.
    Quoted,
    /// After a quotation mark within a quoted cell: its end, or the first of two.
    Closing,
    /// After a carriage return that must be followed by a line feed.
    Return,
}

const STRAY: &str = "a quotation mark within a cell; put the whole cell in quotation marks and write the inner one twice";
const AFTER: &str =
    "text after a closing quotation mark; write a quotation mark within a cell twice";
const RETURN: &str = "a carriage return without a line feed; save the file with LF or CRLF line ends, and put a cell that holds one in quotation marks";
const OPEN: &str = "the quotation mark that opens here is never closed";

impl CsvCut {
    /// For rows whose cells are separated by `delimiter`.
    pub fn new(delimiter: u8) -> CsvCut {
        CsvCut {
            delimiter,
            state: State::Start,
            opened: 0,
        }
    }

    fn step(&mut self, byte: u8, at: usize) -> Result<State, Fault> {
        let fault = |message| Err(Fault { at, message });
        match (self.state, byte) {
            (State::Quoted, b'"') => Ok(State::Closing),
            (State::Quoted, _) => Ok(State::Quoted),
            (State::Closing, b'"') => Ok(State::Quoted),
            (State::Start, b'"') => {
                self.opened = at;
                Ok(State::Quoted)
            }
            (State::Return, b'\n') => Ok(State::Start),
            (State::Return, _) => fault(RETURN),
            (_, b'\n') => Ok(State::Start),
            (_, b'\r') => Ok(State::Return),
            (_, byte) if byte == self.delimiter => Ok(State::Start),
            (State::Closing, _) => fault(AFTER),
            (_, b'"') => fault(STRAY),
            _ => Ok(State::Plain),
        }
    }

    /// Looks at bytes that hold neither quotation marks nor carriage returns.
    fn scan_plain(&mut self, buffer: &[u8], from: usize) -> Seen {
        if let Some(last) = buffer[from..].last() {
            let starts = *last == b'\n' || *last == self.delimiter;
            self.state = if starts { State::Start } else { State::Plain };
        }
        LineCut::ends(buffer, from)
    }

    fn scan_closely(&mut self, buffer: &[u8], from: usize) -> Result<Seen, Fault> {
        let mut seen = Seen::default();
        for (at, byte) in buffer.iter().enumerate().skip(from) {
            let quoted = self.state == State::Quoted;
            self.state = self.step(*byte, at)?;
            if *byte == b'\n' && !quoted {
                seen.last = at + 1;
                if seen.first == 0 {
                    seen.first = seen.last;
                }
            }
        }
        Ok(seen)
    }
}

impl Cut for CsvCut {
    fn scan(&mut self, buffer: &[u8], from: usize) -> Result<Seen, Fault> {
        let new = &buffer[from..];
        let outside = matches!(self.state, State::Start | State::Plain);
        if outside && !new.contains(&b'"') && !new.contains(&b'\r') {
            Ok(self.scan_plain(buffer, from))
        } else {
            self.scan_closely(buffer, from)
        }
    }

    fn finish(&mut self, buffer: &[u8]) -> Result<(), Fault> {
        match self.state {
            State::Quoted => Err(Fault {
                at: self.opened,
                message: OPEN,
            }),
            State::Return => Err(Fault {
                at: buffer.len() - 1,
                message: RETURN,
            }),
            State::Start | State::Plain | State::Closing => Ok(()),
        }
    }

    fn take(&mut self, end: usize) -> Vec<std::ops::Range<usize>> {
        self.opened = self.opened.saturating_sub(end);
        Vec::new()
    }

    fn fault(&self, line: u64, text: &[u8], message: &'static str) -> SourceFault {
        SourceFault::Quotes {
            line,
            text: last_of(text),
            fault: message,
        }
    }
}

/// The end of a text, as long as a report repeats values.
fn last_of(text: &[u8]) -> String {
    const CHARACTERS: usize = 80;
    let text = String::from_utf8_lossy(text);
    let cut = text.chars().count().saturating_sub(CHARACTERS);
    match cut {
        0 => text.into_owned(),
        _ => std::iter::once('…')
            .chain(text.chars().skip(cut + 1))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::frame::tests::blocks;

    fn fault(text: &'static [u8]) -> (u64, &'static str, String) {
        // Whether the fault is seen must not depend on where the reads fall.
        let faults: Vec<_> = [12, 13, 17, 1000]
            .map(|limit| blocks(text, CsvCut::new(b','), limit).unwrap_err())
            .into();
        assert!(
            faults.windows(2).all(|pair| pair[0] == pair[1]),
            "{faults:?}"
        );
        match &faults[0] {
            SourceFault::Quotes { line, text, fault } => (*line, *fault, text.clone()),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn rows_may_span_lines() {
        let text = b"a,b\r\n1,\"x\ny\"\r\n2,\"\"\"\"\n3,\n";
        for limit in 10..40 {
            let found = blocks(text, CsvCut::new(b','), limit).unwrap();
            let joined: Vec<u8> = found.iter().flat_map(|block| block.bytes.clone()).collect();
            assert_eq!(joined, text);
            assert!(found.iter().all(|block| !block.bytes.starts_with(b"y")));
            let last = found.last().unwrap();
            assert_eq!(last.lines().at(last.bytes.len() - 1), 5);
        }
    }

    #[test]
    fn broken_quotes_are_found() {
        for (text, line, wrong, before) in [
            (&b"a,b\n1,x\"y\n"[..], 2, STRAY, "1,x\""),
            (b"a,b\n1,\"x\"y\n", 2, AFTER, "1,\"x\"y"),
            (b"a,b\n1,x\n2,\"x\n", 3, OPEN, "2,\""),
            (b"a,b\r1,x\r", 1, RETURN, "a,b\r1"),
        ] {
            assert_eq!(fault(text), (line, wrong, before.to_owned()));
        }
    }

    #[test]
    fn of_a_long_line_the_end_is_told() {
        assert_eq!(last_of("é".repeat(80).as_bytes()), "é".repeat(80));
        let long = last_of(format!("{}\"", "é".repeat(80)).as_bytes());
        assert!(long.starts_with('…') && long.ends_with("é\""), "{long}");
        assert_eq!(long.chars().count(), 80);
    }
}
