//! Cuts a stream of text into blocks of whole rows, so that threads can share the parsing.
//!
//! Only as much is understood here as it takes to see where a row ends. A row above the limit
//! is refused as soon as the limit is passed: however long it is, no more than the limit and
//! one block of it are ever in memory.

use std::io::Read;
use std::ops::Range;

use super::error::{Place, SourceFault};

pub(super) use super::frame_array::ArrayCut;
pub(super) use super::frame_csv::CsvCut;

/// Whole rows of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The rows as they stand in the source.
    pub bytes: Vec<u8>,
    /// The line of the first byte, counted from 1.
    pub line: u64,
    /// Where the elements of a JSON array stand in `bytes`; empty for the other formats.
    pub elements: Vec<Range<usize>>,
    /// The number of the first element, counted from 1.
    pub first_element: u64,
}

impl Block {
    /// Counts the lines of the block.
    pub fn lines(&self) -> Lines<'_> {
        Lines {
            bytes: &self.bytes,
            counted: 0,
            line: self.line,
        }
    }
}

/// Tells on which line of a block a byte stands. Asked in order, it counts each line once: a
/// file may be wrong in every row.
pub(super) struct Lines<'b> {
    bytes: &'b [u8],
    counted: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the byte at `offset`, which is not before the last one asked about.
    pub fn at(&mut self, offset: usize) -> u64 {
        self.line += newlines(&self.bytes[self.counted..offset]);
        self.counted = offset;
        self.line
    }
}

/// Sees where rows end, for one format. Offsets count from the start of the buffer, which is
/// always the start of a row or of the space before one.
pub(super) trait Cut: Send {
    /// Looks at `buffer[from..]`, which it has not seen yet.
    fn scan(&mut self, buffer: &[u8], from: usize) -> Result<Seen, Fault>;

    /// Says whether the input may end here.
    fn finish(&mut self, buffer: &[u8]) -> Result<(), Fault>;

    /// The elements before `end`, which leave the buffer now.
    fn take(&mut self, _end: usize) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// The place of the row that begins at `start`, which is on `line`.
    fn place(&self, line: u64, _start: usize) -> Place {
        Place::Line(line)
    }

    /// The error for a fault that was seen on `line`, after `text` of that line.
    fn fault(&self, line: u64, text: &[u8], message: &'static str) -> SourceFault;
}

/// What a scan found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The length of the first row of the buffer, which may have begun in an earlier scan; 0 if
    /// it has not ended yet.
    pub first: usize,
    /// The end of the last whole row.
    pub last: usize,
}

/// A fault that makes all that follows unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where in the buffer.
    pub at: usize,
    /// What is wrong.
    pub message: &'static str,
}

/// The blocks of a source.
pub(super) struct Frames<C> {
    reader: Box<dyn Read + Send>,
    cut: C,
    buffer: Vec<u8>,
    line: u64,
    element: u64,
    limit: usize,
    ended: bool,
}

/// How much is read at once: enough that handing a block to another thread costs nothing
/// beside parsing it, little enough that a dozen blocks in flight do not count.
const BLOCK: usize = 256 << 10;

/// A failed read, or a source that is at fault.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The reader failed.
    Read(std::io::Error),
    /// The text is at fault.
    Fault(SourceFault),
}

impl<C: Cut> Frames<C> {
    /// The blocks of `reader`, whose rows have at most `limit` bytes.
    pub fn new(reader: Box<dyn Read + Send>, cut: C, limit: usize) -> Frames<C> {
        Frames {
            reader,
            cut,
            buffer: Vec::new(),
            line: 1,
            element: 1,
            limit,
            ended: false,
        }
    }

    /// The next block, `None` at the end of the source.
    pub fn next(&mut self) -> Result<Option<Block>, FrameError> {
        while !self.ended {
            let from = self.buffer.len();
            let end = self.fill(from)?;
            if end > 0 {
                return Ok(Some(self.emit(end)));
            }
        }
        Ok(None)
    }

    /// Reads once more and says where the last whole row ends.
    fn fill(&mut self, from: usize) -> Result<usize, FrameError> {
        // No row that both begins and ends within one read can pass the limit, so only the
        // first row of the buffer needs measuring.
        let wanted = BLOCK.min(self.limit) as u64;
        let read = self
            .reader
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.buffer);
        let count = read.map_err(FrameError::Read)?;
        let seen = self
            .cut
            .scan(&self.buffer, from)
            .map_err(|fault| self.blame(fault))?;
        let pending = self.buffer.len() - seen.last;
        if seen.first > self.limit {
            return Err(self.too_long(0));
        }
        if pending > self.limit {
            return Err(self.too_long(seen.last));
        }
        if (count as u64) < wanted {
            self.ended = true;
            self.cut
                .finish(&self.buffer)
                .map_err(|fault| self.blame(fault))?;
            return Ok(self.buffer.len());
        }
        Ok(seen.last)
    }

    fn emit(&mut self, end: usize) -> Block {
        let rest = self.buffer[end..].to_vec();
        self.buffer.truncate(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let elements = self.cut.take(end);
        let block = Block {
            line: self.line,
            first_element: self.element,
            elements,
            bytes,
        };
        self.line += newlines(&block.bytes);
        self.element += block.elements.len() as u64;
        block
    }

    fn too_long(&self, start: usize) -> FrameError {
        let line = self.line + newlines(&self.buffer[..start]);
        FrameError::Fault(SourceFault::RowTooLong {
            place: self.cut.place(line, start),
            limit: self.limit,
        })
    }

    fn blame(&self, fault: Fault) -> FrameError {
        let before = &self.buffer[..fault.at];
        let line = self.line + newlines(before);
        let start = before.iter().rposition(|byte| *byte == b'\n');
        let start = start.map_or(0, |end| end + 1);
        let end = self.buffer.len().min(fault.at + 1);
        let text = &self.buffer[start..end];
        FrameError::Fault(self.cut.fault(line, text, fault.message))
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Rows that end with the line: NDJSON, and CSV where nothing is quoted.
pub(super) struct LineCut;

impl LineCut {
    /// The ends of the first and the last line that end in `buffer[from..]`.
    pub fn ends(buffer: &[u8], from: usize) -> Seen {
        let end = |at: Option<usize>| at.map_or(0, |at| from + at + 1);
        let new = &buffer[from..];
        Seen {
            first: end(new.iter().position(|byte| *byte == b'\n')),
            last: end(new.iter().rposition(|byte| *byte == b'\n')),
        }
    }
}

impl Cut for LineCut {
    fn scan(&mut self, buffer: &[u8], from: usize) -> Result<Seen, Fault> {
        Ok(LineCut::ends(buffer, from))
    }

    fn finish(&mut self, _buffer: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    fn fault(&self, line: u64, _text: &[u8], message: &'static str) -> SourceFault {
        SourceFault::Json {
            place: Place::Line(line),
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All blocks of `text`, read with a limit of `limit` bytes a row.
    pub(in crate::ingest) fn blocks<C: Cut>(
        text: &'static [u8],
        cut: C,
        limit: usize,
    ) -> Result<Vec<Block>, SourceFault> {
        let mut frames = Frames::new(Box::new(text), cut, limit);
        let mut blocks = Vec::new();
        loop {
            match frames.next() {
                Ok(Some(block)) => blocks.push(block),
                Ok(None) => return Ok(blocks),
                Err(FrameError::Fault(fault)) => return Err(fault),
                Err(FrameError::Read(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn lines_are_kept_whole_and_counted() {
        let found = blocks(b"1234567\n\n12\n4567\nlast", LineCut, 8).unwrap();
        let found: Vec<(u64, &[u8])> = found.iter().map(|b| (b.line, &b.bytes[..])).collect();
        assert_eq!(
            found,
            [(1, &b"1234567\n"[..]), (2, b"\n12\n"), (4, b"4567\nlast")]
        );
    }

    #[test]
    fn a_line_above_the_limit_is_refused_wherever_it_begins() {
        for (text, line) in [
            (&b"123456789\n"[..], 1),
            (b"1\n2\n123456789\n", 3),
            (b"1\n123456789", 2),
        ] {
            assert_eq!(
                blocks(text, LineCut, 8),
                Err(SourceFault::RowTooLong {
                    place: Place::Line(line),
                    limit: 8
                })
            );
        }
    }

    /// A row of 100 MB that exists nowhere; counts what is asked of it.
    struct Endless(std::sync::Arc<std::sync::atomic::AtomicU64>);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            let before = self
                .0
                .fetch_add(buffer.len() as u64, std::sync::atomic::Ordering::Relaxed);
            assert!(before < 100 << 20, "the whole row was read");
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_row_of_100_mb_is_refused_after_little_more_than_one() {
        fn refused<C: Cut>(cut: C, start: &'static [u8]) {
            let asked = std::sync::Arc::default();
            let reader = Box::new(start.chain(Endless(std::sync::Arc::clone(&asked))));
            let mut frames = Frames::new(reader, cut, 1 << 20);
            let error = loop {
                match frames.next() {
                    Ok(block) => assert!(block.is_some()),
                    Err(error) => break error,
                }
            };
            assert!(matches!(
                error,
                FrameError::Fault(SourceFault::RowTooLong { .. })
            ));
            assert!(frames.buffer.capacity() < 4 << 20);
            assert!(asked.load(std::sync::atomic::Ordering::Relaxed) < 2 << 20);
        }
        refused(LineCut, b"{}\n{\"a\":\"");
        refused(CsvCut::new(b','), b"a,b\n1,\"");
        refused(CsvCut::new(b','), b"a,b\n1,");
        refused(ArrayCut::default(), b"[{}, {\"a\":\"");
    }
}
