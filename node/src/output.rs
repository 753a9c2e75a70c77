//! Answers for people and other programs: a table on the screen, CSV, JSON, Parquet.

use std::io::{self, Write};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use jingwei_proto::words;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people, cut after some rows.
    Table,
    /// CSV (RFC 4180) with a header line.
    Csv,
    /// One JSON array of objects.
    Json,
    /// JSON objects, one on each line.
    Ndjson,
    /// Parquet with zstd.
    Parquet,
}

/// Rows that a table shows: more scroll away what one wanted to see.
pub const TABLE_ROWS: usize = 50;

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The place that it is written to.
    #[error("cannot write the answer: {0}")]
    Write(#[from] io::Error),
    /// The values do not fit the format.
    #[error("cannot write the answer: {0}")]
    Arrow(#[from] ArrowError),
    /// As before, for Parquet.
    #[error("cannot write the answer: {0}")]
    Parquet(#[from] ParquetError),
}

/// Writes an answer batch by batch.
pub struct Output<W: Write + Send> {
    rows: u64,
    kind: Kind<W>,
}

enum Kind<W: Write + Send> {
    Table(Sketch<W>),
    Csv(Box<arrow::csv::Writer<W>>),
    Json(arrow::json::ArrayWriter<W>),
    Ndjson(arrow::json::LineDelimitedWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> Output<W> {
    /// Starts to write an answer with `schema` to `out`. A table shows at most `table_rows`
    /// rows and keeps within `width` columns of the screen, if that is known.
    ///
    /// # Errors
    /// [`OutputError`] if not even the header can be written.
    pub fn new(
        format: Format,
        schema: SchemaRef,
        out: W,
        table_rows: usize,
        width: Option<u16>,
    ) -> Result<Output<W>, OutputError> {
        let kind = match format {
            Format::Table => Kind::Table(Sketch::new(&schema, out, table_rows, width)),
            Format::Csv => Kind::Csv(Box::new(csv(&schema, out)?)),
            Format::Json => Kind::Json(arrow::json::ArrayWriter::new(out)),
            Format::Ndjson => Kind::Ndjson(arrow::json::LineDelimitedWriter::new(out)),
            Format::Parquet => {
                let level = ZstdLevel::try_new(3)?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .build();
                Kind::Parquet(Box::new(ArrowWriter::try_new(
                    out,
                    schema,
                    Some(properties),
                )?))
            }
        };
        Ok(Output { rows: 0, kind })
    }

    /// Writes the next rows.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        self.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Table(table) => table.add(batch)?,
            Kind::Csv(writer) => writer.write(batch)?,
            Kind::Json(writer) => writer.write(batch)?,
            Kind::Ndjson(writer) => writer.write(batch)?,
            Kind::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    /// Ends the answer; says how many rows it has and hands back what it was written to.
    pub fn finish(self) -> Result<(u64, W), OutputError> {
        let out = match self.kind {
            Kind::Table(table) => table.finish(self.rows)?,
            Kind::Csv(writer) => writer.into_inner(),
            Kind::Json(mut writer) => {
                writer.finish()?;
                let mut out = writer.into_inner();
                out.write_all(b"\n")?;
                out
            }
            Kind::Ndjson(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Kind::Parquet(writer) => writer.into_inner()?,
        };
        let mut out = out;
        out.flush()?;
        Ok((self.rows, out))
    }
}

/// A CSV writer that has written its header, which an empty answer has too.
fn csv<W: Write>(schema: &SchemaRef, out: W) -> Result<arrow::csv::Writer<W>, ArrowError> {
    let mut writer = arrow::csv::WriterBuilder::new()
        .with_header(true)
        .build(out);
    writer.write(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
    Ok(writer)
}

/// A table that grows up to some rows and then only counts.
struct Sketch<W> {
    out: W,
    table: Table,
    room: usize,
}

impl<W: Write> Sketch<W> {
    fn new(schema: &SchemaRef, out: W, rows: usize, width: Option<u16>) -> Sketch<W> {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        table.set_header(
            schema
                .fields()
                .iter()
                .map(|field| Cell::new(printable(field.name())).add_attribute(Attribute::Bold)),
        );
        for (place, field) in schema.fields().iter().enumerate() {
            let numeric = field.data_type().is_numeric();
            if let Some(column) = table.column_mut(place).filter(|_| numeric) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Sketch {
            out,
            table,
            room: rows,
        }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let rows = batch.num_rows().min(self.room);
        self.room -= rows;
        let options = FormatOptions::default();
        let columns = batch
            .columns()
            .iter()
            .map(|column| Shown::new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows {
            self.table
                .add_row(columns.iter().map(|column| column.cell(row)));
        }
        Ok(())
    }

    fn finish(mut self, rows: u64) -> Result<W, OutputError> {
        writeln!(self.out, "{}", self.table)?;
        let shown = self.table.row_count() as u64;
        let counted = words::rows(rows);
        if shown < rows {
            writeln!(
                self.out,
                "{counted}, of which the first {shown} are shown; the other formats have them all"
            )?;
        } else {
            writeln!(self.out, "{counted}")?;
        }
        Ok(self.out)
    }
}

struct Shown<'a> {
    formatter: ArrayFormatter<'a>,
    is_text: bool,
}

impl<'a> Shown<'a> {
    fn new(column: &'a ArrayRef, options: &FormatOptions<'a>) -> Result<Shown<'a>, ArrowError> {
        let is_text = *column.data_type() == DataType::Utf8;
        Ok(Shown {
            formatter: ArrayFormatter::try_new(column.as_ref(), options)?,
            is_text,
        })
    }

    fn cell(&self, row: usize) -> String {
        let text = self.formatter.value(row).to_string();
        if self.is_text { printable(&text) } else { text }
    }
}

/// `text` without characters that would steer the terminal: it may come from a stranger.
fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let shown = |c: char| match c {
        '\n' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let codes: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![
            Some("海淀区"),
            Some("a,\"b\""),
            Some("\u{1b}[31m"),
        ]));
        RecordBatch::try_from_iter_with_nullable([("code", codes, true), ("名", names, true)])
            .unwrap()
    }

    fn write(format: Format, rows: usize) -> Vec<u8> {
        let batch = batch();
        let mut output = Output::new(format, batch.schema(), Vec::new(), rows, Some(60)).unwrap();
        output.batch(&batch).unwrap();
        let (counted, bytes) = output.finish().unwrap();
        assert_eq!(counted, 3);
        bytes
    }

    fn text(format: Format, rows: usize) -> String {
        String::from_utf8(write(format, rows)).unwrap()
    }

    #[test]
    fn csv_and_json() {
        assert_eq!(
            text(Format::Csv, 9),
            "code,名\n1,海淀区\n,\"a,\"\"b\"\"\"\n3,\u{1b}[31m\n"
        );
        assert_eq!(
            text(Format::Ndjson, 9).lines().next(),
            Some(r#"{"code":1,"名":"海淀区"}"#)
        );
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json, 9)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_table_is_cut_aligned_and_harmless() {
        let shown = text(Format::Table, 2);
        assert!(shown.contains("海淀区"), "{shown}");
        assert!(
            shown.ends_with(
                "3 rows, of which the first 2 are shown; the other formats have them all\n"
            ),
            "{shown}"
        );
        assert!(!text(Format::Table, 9).contains('\u{1b}'));
    }

    #[test]
    fn parquet_reads_back() {
        let bytes = bytes::Bytes::from(write(Format::Parquet, 9));
        let mut reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes, 10).unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), batch());
    }

    #[test]
    fn an_empty_answer_has_a_header_or_brackets() {
        let empty = |format| {
            let output = Output::new(format, batch().schema(), Vec::new(), 9, None).unwrap();
            String::from_utf8(output.finish().unwrap().1).unwrap()
        };
        assert_eq!(empty(Format::Csv), "code,名\n");
        assert_eq!(empty(Format::Json), "[]\n");
        assert_eq!(empty(Format::Ndjson), "");
        assert!(empty(Format::Table).contains("0 rows"));
    }
}
