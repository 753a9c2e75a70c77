//! A source: the file that a publisher hands over, its format, and its bytes unpacked.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

use super::error::{IngestError, SourceFault};

/// The formats that a table can be published from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values after RFC 4180 with a header line; semicolon and tab also serve.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    Json,
    /// Apache Parquet.
    Parquet,
}

/// How much of a source this node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the source when unpacked. A gzip file can unpack to a thousand times its size,
    /// and the rows are checked as a stream: the limit bounds time rather than memory.
    pub unpacked: u64,
    /// Bytes of one row. No honest row of figures comes near 1 MiB; a missing quotation mark
    /// turns the rest of a file into one cell.
    pub row: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            unpacked: 64 << 30,
            row: 1 << 20,
        }
    }
}

/// An opened source whose format is known.
#[derive(Debug)]
pub struct Source {
    file: File,
    name: String,
    format: Format,
    gzip: bool,
    state: State,
    limits: Limits,
    read: Arc<AtomicU64>,
}

/// What changes when somebody writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    length: u64,
    modified: Option<SystemTime>,
}

impl State {
    fn of(metadata: &Metadata) -> State {
        State {
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

impl Source {
    /// Opens the file at `path`, which the publisher calls `name`, and finds out its format
    /// from that name and the first bytes.
    pub fn open(path: &Path, name: &str, limits: Limits) -> Result<Source, IngestError> {
        let read_error = |error| IngestError::Read {
            file: name.to_owned(),
            error,
        };
        let mut file = File::open(path).map_err(read_error)?;
        let state = State::of(&file.metadata().map_err(read_error)?);
        let mut start = Vec::new();
        (&file)
            .take(HEAD as u64)
            .read_to_end(&mut start)
            .map_err(read_error)?;
        file.seek(SeekFrom::Start(0)).map_err(read_error)?;

        let gzip = start.starts_with(&[0x1f, 0x8b]);
        if gzip {
            let mut unpacked = Vec::new();
            // A damaged stream is reported when it is read in earnest.
            let _ = MultiGzDecoder::new(&start[..])
                .take(HEAD as u64)
                .read_to_end(&mut unpacked);
            start = unpacked;
        }
        let fault = |fault| IngestError::Source {
            file: name.to_owned(),
            fault,
        };
        let format = detect(name, &start).map_err(fault)?;
        if gzip && format == Format::Parquet {
            return Err(fault(SourceFault::Format(
                "a gzipped Parquet file; unpack it first",
            )));
        }
        Ok(Source {
            file,
            name: name.to_owned(),
            format,
            gzip,
            state,
            limits,
            read: Arc::default(),
        })
    }

    /// The format as manifests name it.
    pub fn format_name(&self) -> &'static str {
        match (self.format, self.gzip) {
            (Format::Csv, false) => "csv",
            (Format::Csv, true) => "csv.gz",
            (Format::Ndjson, false) => "ndjson",
            (Format::Ndjson, true) => "ndjson.gz",
            (Format::Json, false) => "json",
            (Format::Json, true) => "json.gz",
            (Format::Parquet, _) => "parquet",
        }
    }

    /// The format found.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The name the publisher gave.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limits it was opened with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The file's size in bytes, as stored.
    pub fn bytes_total(&self) -> u64 {
        self.state.length
    }

    /// The counter of bytes read so far, as stored.
    pub(super) fn bytes_read(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// The text of the source, unpacked, up to the limit and without a byte order mark; and a
    /// look at its start.
    pub(super) fn text(&self) -> Result<(Vec<u8>, Box<dyn Read + Send>), IngestError> {
        self.read.store(0, Ordering::Relaxed);
        let counted = Counted {
            inner: self.handle()?,
            read: self.read.clone(),
        };
        let limit = self.limits.unpacked;
        let capped: Box<dyn Read + Send> = if self.gzip {
            Box::new(Capped {
                inner: Unpacked(MultiGzDecoder::new(BufReader::new(counted))),
                limit,
                left: limit,
            })
        } else {
            Box::new(Capped {
                inner: counted,
                limit,
                left: limit,
            })
        };
        let mut reader = BufReader::with_capacity(128 << 10, capped);
        if reader
            .fill_buf()
            .map_err(|error| self.blame(error))?
            .starts_with(MARK)
        {
            reader.consume(MARK.len());
        }
        let start = reader.buffer().to_vec();
        Ok((start, Box::new(reader)))
    }

    /// A handle of its own on the file, at its start.
    pub(super) fn handle(&self) -> Result<File, IngestError> {
        let mut file = self.file.try_clone().map_err(|error| self.blame(error))?;
        file.seek(SeekFrom::Start(0))
            .map_err(|error| self.blame(error))?;
        Ok(file)
    }

    /// Fails if the file was written to since it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), IngestError> {
        let metadata = self.file.metadata().map_err(|error| self.blame(error))?;
        if State::of(&metadata) != self.state {
            return Err(self.fault(SourceFault::Changed));
        }
        Ok(())
    }

    /// The error for a fault of this source.
    pub(super) fn fault(&self, fault: SourceFault) -> IngestError {
        IngestError::Source {
            file: self.name.clone(),
            fault,
        }
    }

    /// The error for a failed read: the source's where a reader of this module says so, else
    /// the machine's.
    pub(super) fn blame(&self, error: io::Error) -> IngestError {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<SourceFault>())
        {
            Some(fault) => self.fault(fault.clone()),
            None => IngestError::Read {
                file: self.name.clone(),
                error,
            },
        }
    }
}

/// UTF-8's byte order mark, which some programs put before a text.
const MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Bytes looked at to find out the format.
const HEAD: usize = 4096;

fn detect(name: &str, start: &[u8]) -> Result<Format, SourceFault> {
    if start.starts_with(b"PAR1") {
        return Ok(Format::Parquet);
    }
    if start.starts_with(b"PK\x03\x04") {
        return Err(SourceFault::Format(
            "a ZIP archive or a spreadsheet; unpack or export it first",
        ));
    }
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        return Err(SourceFault::Format("UTF-16 text; save the file as UTF-8"));
    }
    if start.contains(&0) {
        return Err(SourceFault::Format("not a text file"));
    }
    let text = start.strip_prefix(MARK).unwrap_or(start);
    let Some(first) = text.iter().find(|byte| !byte.is_ascii_whitespace()) else {
        return Err(SourceFault::Empty);
    };
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with(".parquet") {
        return Err(SourceFault::Parquet(
            "the name ends in .parquet, the file does not start so".to_owned(),
        ));
    }
    // `.json` is written on either kind, so there the first character decides.
    match (name.rsplit_once('.').map(|(_, extension)| extension), first) {
        (Some("csv" | "tsv" | "txt"), _) => Ok(Format::Csv),
        (_, b'[') => Ok(Format::Json),
        (_, b'{') => Ok(Format::Ndjson),
        (Some("json"), _) => Err(SourceFault::Format("neither a JSON array nor an object")),
        (Some("ndjson" | "jsonl"), _) => Ok(Format::Ndjson),
        _ => Ok(Format::Csv),
    }
}

/// Counts the bytes that pass, for the progress bar.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A gzip decoder that blames the stream for what is the stream's fault.
struct Unpacked<R>(MultiGzDecoder<R>);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof => {
                io::Error::other(SourceFault::Gzip(error.to_string()))
            }
            _ => error,
        })
    }
}

/// Fails when more than the limit comes out.
struct Capped<R> {
    inner: R,
    limit: u64,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(SourceFault::TooLarge {
                    limit: self.limit,
                }));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_detected() {
        for (name, start, format) in [
            ("a.csv", &b"x,y\n"[..], Format::Csv),
            ("a.csv", b"PAR1", Format::Parquet),
            ("a.json", b" [", Format::Json),
            ("a.json", b"{\"a\":1}", Format::Ndjson),
            ("a.NDJSON.GZ", b"{}", Format::Ndjson),
            ("data", b"\xef\xbb\xbf[", Format::Json),
            ("data", b"code,nom", Format::Csv),
        ] {
            assert_eq!(detect(name, start), Ok(format), "{name}");
        }
        assert_eq!(detect("a.csv", b" \n"), Err(SourceFault::Empty));
        for bad in [&b"PK\x03\x04"[..], b"\xff\xfea\0", b"a\0"] {
            assert!(matches!(detect("a.csv", bad), Err(SourceFault::Format(_))));
        }
        assert!(matches!(
            detect("a.parquet", b"x"),
            Err(SourceFault::Parquet(_))
        ));
        assert!(matches!(
            detect("a.json", b"x"),
            Err(SourceFault::Format(_))
        ));
    }

    #[test]
    fn unpacking_is_capped_and_damage_is_named() {
        use std::io::Write;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b'a'; 100_000]).unwrap();
        let packed = encoder.finish().unwrap();

        let read = |bytes: &[u8], unpacked| {
            std::fs::write(&path, bytes).unwrap();
            let source = Source::open(&path, "a.csv.gz", Limits { unpacked, row: 10 }).unwrap();
            let mut text = Vec::new();
            let (_, mut reader) = source.text().map_err(|error| error.to_string())?;
            let read = reader.read_to_end(&mut text);
            read.map_err(|error| source.blame(error).to_string())
        };
        assert_eq!(read(&packed, 100_000), Ok(100_000));
        assert!(read(&packed, 99_999).unwrap_err().contains("99999"));
        assert!(
            read(&packed[..packed.len() - 9], 1 << 20)
                .unwrap_err()
                .contains("damaged")
        );
    }
}
