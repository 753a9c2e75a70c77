//! The answer's table on its way from the node to a file or to standard output.
//!
//! Rows arrive while the question runs, before anybody can know whether the providers' receipts
//! will verify. They wait in a file, which gets its name or is printed only when the node has
//! said that all is well: nothing unverified is ever taken for an answer. Memory stays small
//! whatever the table's size. (A table for the screen holds its few rows itself until then.)

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use arrow::ipc::reader::StreamDecoder;
use jingwei_proto::digest::{HashingWriter, to_hex};
use jingwei_proto::wire::node::Export;
use jingwei_registry::command::{failed, wrong_use};
use jingwei_registry::fault::{Blame, Fault};

use super::client::START_AGAIN;
use crate::home::Home;
use crate::output::{Format, Output, OutputError, TABLE_ROWS};

type Writer = HashingWriter<Box<dyn Write + Send>>;

/// The table as it comes in: an Arrow IPC stream in pieces.
pub struct Table {
    format: Format,
    decoder: StreamDecoder,
    place: Place,
    output: Option<Output<Writer>>,
}

/// Where the rows wait.
enum Place {
    /// Beside the file that they become.
    File { path: PathBuf, partial: PathBuf },
    /// In a file without a name, to be printed.
    Spool(File),
    /// In memory: the few rows of a table for people.
    Screen,
}

impl Table {
    /// A table that goes to the file `output`, or to standard output by way of `home`.
    ///
    /// # Errors
    /// If the file cannot be made. Nothing has been asked then.
    pub fn new(home: &Home, format: Format, output: Option<&Path>) -> Result<Table, Fault> {
        let place = match (output, format) {
            (Some(path), _) => Place::File {
                path: path.to_owned(),
                partial: partial(path),
            },
            (None, Format::Table) => Place::Screen,
            (None, _) => Place::Spool(spool(home).map_err(|error| {
                failed(format!(
                    "cannot write to {}: {error}",
                    home.staging().display()
                ))
            })?),
        };
        Ok(Table {
            format,
            decoder: StreamDecoder::new(),
            place,
            output: None,
        })
    }

    /// Takes in the next piece.
    pub fn take(&mut self, bytes: Vec<u8>) -> Result<(), Fault> {
        let mut buffer = arrow::buffer::Buffer::from_vec(bytes);
        while !buffer.is_empty() {
            let batch = self.decoder.decode(&mut buffer).map_err(failed)?;
            if self.output.is_none() && self.decoder.schema().is_some() {
                self.output = Some(self.begin()?);
            }
            if let (Some(output), Some(batch)) = (&mut self.output, batch) {
                output.batch(&batch).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<Output<Writer>, Fault> {
        let schema = self
            .decoder
            .schema()
            .ok_or_else(|| failed("the table has no columns"))?;
        let out: Box<dyn Write + Send> = match &self.place {
            Place::File { path, partial } => Box::new(BufWriter::new(
                File::create(partial).map_err(|error| cannot_write(path, &error))?,
            )),
            Place::Spool(file) => Box::new(BufWriter::new(file.try_clone().map_err(failed)?)),
            Place::Screen => Box::new(io::stdout()),
        };
        let width = match io::stdout().is_terminal() {
            true => comfy_table::Table::new().width(),
            false => None,
        };
        Output::new(
            self.format,
            schema,
            HashingWriter::new(out),
            TABLE_ROWS,
            width,
        )
        .map_err(failed)
    }

    /// Lets the verified table out; names the export if it is one that evidence can bind.
    pub fn finish(mut self) -> Result<Option<Export>, Fault> {
        let Some(output) = self.output.take() else {
            return Err(Fault::new(Blame::Incomplete, "no table came").advise(START_AGAIN));
        };
        let (_, written) = match output.finish() {
            // Whoever has closed standard output, as ‘head’ does, has seen enough.
            Err(OutputError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(None);
            }
            result => result.map_err(failed)?,
        };
        let (out, digest, bytes) = written.finish();
        drop(out);
        match &mut self.place {
            Place::File { path, partial } => {
                std::fs::rename(partial, &path).map_err(|error| cannot_write(path, &error))?;
            }
            Place::Spool(file) => print(file).map_err(failed)?,
            Place::Screen => {}
        }
        let format = match self.format {
            Format::Table => return Ok(None),
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        };
        Ok(Some(Export {
            format: format.to_owned(),
            digest: digest.to_string(),
            bytes,
        }))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // An answer that broke off leaves no file that could be taken for a whole one. One that
        // was finished has its name by now.
        if let Place::File { partial, .. } = &self.place {
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// A file in the node's own staging directory that nobody else can open, and that is gone with
/// this process however it ends.
fn spool(home: &Home) -> io::Result<File> {
    let name = format!("table-{}", to_hex(&rand::random::<[u8; 8]>()));
    let path = home.staging().join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn print(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    let mut out = io::stdout().lock();
    let printed = io::copy(file, &mut out).and_then(|_| out.flush());
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Fault {
    wrong_use(format!("cannot write {}: {error}", path.display()))
}

/// A file under way, beside the one that it becomes.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}
