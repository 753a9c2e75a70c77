//! CSV: the header, and the rows of a block.

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder, StringRecord};
use jingwei_proto::words::counted;
use jingwei_schemas::{Cell, TableSchema, Violation};

use super::error::{Place, SourceFault};
use super::frame::Block;
use super::rows::RowChecker;

/// What the header line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    delimiter: u8,
    /// The schema's column of each cell.
    columns: Vec<usize>,
    names: Vec<String>,
}

/// The separator of the file that begins with `start`: the comma, unless the header has none
/// and has semicolons or tabs.
pub(super) fn delimiter(start: &[u8]) -> u8 {
    let mut quoted = false;
    let mut found = [false; 3];
    const CANDIDATES: [u8; 3] = *b",;\t";
    for byte in start {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            byte if !quoted => {
                for (candidate, found) in CANDIDATES.iter().zip(&mut found) {
                    *found |= byte == candidate;
                }
            }
            _ => {}
        }
    }
    let first = found.iter().position(|found| *found);
    CANDIDATES[first.unwrap_or(0)]
}

impl Header {
    /// Takes the header off the first block.
    pub fn take(
        block: &mut Block,
        delimiter: u8,
        schema: &TableSchema,
    ) -> Result<Header, SourceFault> {
        let mut record = ByteRecord::new();
        let mut reader = reader(&block.bytes, delimiter);
        let found = reader.read_byte_record(&mut record);
        if !found.unwrap_or(false) {
            return Err(SourceFault::Empty);
        }
        let start = row_start(&block.bytes, &record);
        let end = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX);
        let record =
            StringRecord::from_byte_record(record).map_err(|error| SourceFault::NotUtf8 {
                place: Place::Line(block.lines().at(start)),
                column: Some((error.utf8_error().field() + 1).to_string()),
            })?;
        let names: Vec<&str> = record.iter().collect();
        let header = Header {
            delimiter,
            columns: schema.header(&names)?,
            names: names.into_iter().map(str::to_owned).collect(),
        };
        block.line = block.lines().at(end);
        block.bytes.drain(..end);
        Ok(header)
    }

    /// Reads the rows of a block into `rows`.
    pub fn read(&self, block: &Block, rows: &mut RowChecker<'_>) -> Result<(), SourceFault> {
        let schema = rows.schema();
        let mut reader = reader(&block.bytes, self.delimiter);
        let mut record = StringRecord::new();
        let mut lines = block.lines();
        loop {
            match reader.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(self.not_utf8(&error, block)),
            }
            let start = row_start(&block.bytes, record.as_byte_record());
            if record.len() != self.columns.len() {
                rows.unreadable(Place::Line(lines.at(start)), self.ragged(&record));
                continue;
            }
            let mut violations = Vec::new();
            let mut cells = vec![Cell::Absent; schema.columns().len()];
            for (column, text) in self.columns.iter().zip(&record) {
                match schema.read(*column, text) {
                    Ok(cell) => cells[*column] = cell,
                    Err(violation) => violations.push(violation),
                }
            }
            rows.row(&cells, violations, || Place::Line(lines.at(start)));
        }
    }

    /// A row with more or fewer cells than the header. Where rows end is certain, so that the
    /// others can be read all the same.
    fn ragged(&self, record: &StringRecord) -> Violation {
        let delimiter = char::from(self.delimiter).to_string();
        let cells: Vec<&str> = record.iter().collect();
        let message = format!(
            "{} where the header names {}",
            counted(cells.len() as u64, "cell", "cells"),
            counted(self.columns.len() as u64, "column", "columns")
        );
        Violation {
            column: None,
            value: cells.join(&delimiter).chars().take(80).collect(),
            rule: "one cell for each column".to_owned(),
            message,
        }
    }

    /// The one fault that a reader in memory, which takes rows of any length, can have.
    fn not_utf8(&self, error: &::csv::Error, block: &Block) -> SourceFault {
        let (offset, field) = match error.kind() {
            ErrorKind::Utf8 { pos, err } => (
                pos.as_ref().map_or(0, |position| position.byte()),
                Some(err.field()),
            ),
            _ => (0, None),
        };
        let offset = skip_line_ends(&block.bytes, offset);
        SourceFault::NotUtf8 {
            place: Place::Line(block.lines().at(offset)),
            column: field.and_then(|field| self.names.get(field).cloned()),
        }
    }
}

fn reader(bytes: &[u8], delimiter: u8) -> Reader<&[u8]> {
    ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(64 << 10)
        .from_reader(bytes)
}

/// Where a row begins. The reader's own position is the end of the row before, which leaves
/// out the second character of CRLF and blank lines.
fn row_start(bytes: &[u8], record: &ByteRecord) -> usize {
    skip_line_ends(
        bytes,
        record.position().map_or(0, |position| position.byte()),
    )
}

fn skip_line_ends(bytes: &[u8], from: u64) -> usize {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let blank = bytes[from..]
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'));
    from + blank.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters() {
        assert_eq!(delimiter(b"a,b;c\n"), b',');
        assert_eq!(delimiter(b"a;\"b,c\"\nd,e\n"), b';');
        assert_eq!(delimiter(b"a\tb"), b'\t');
        assert_eq!(delimiter(b"a"), b',');
    }
}
