//! One year of a journal: the segment that is written, and the log behind it.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use jingwei_proto::digest::Digest;
use jingwei_proto::words;
use jingwei_registry::disk::{Appender, Disk};
use jingwei_registry::log::{Log, LogReader};

use super::read::{
    check_leaf, log_dir, records_dir, segment, segment_path, segments, whole_segment,
};
use super::recent::Recent;
use super::record::Stored;
use super::sequencer::{Order, Sequencer};
use super::{JournalError, Setup};

/// A segment file is closed when it has this many bytes: small enough to be read whole at a
/// restart, large enough that a busy year makes thousands of files and not millions.
const SEGMENT: u64 = 8 << 20;

/// Orders that may wait for the sequencer while it commits; it takes them in between commits
/// even when the log's disk is full, so the writer of records hardly ever waits for it.
const ORDERS: usize = 1_024;

/// The open journal of one year.
pub(super) struct Year {
    pub year: i32,
    dir: PathBuf,
    disk: Disk,
    appender: Appender,
    /// Index of the next record.
    next: u64,
    orders: mpsc::SyncSender<Order>,
    pub reader: LogReader,
}

impl Year {
    /// Opens or creates a year's journal: cuts a torn tail, tells `recent` what the newest
    /// records say, and lets its sequencer catch up.
    pub fn open(
        setup: &Setup,
        year: i32,
        recent: &mut Recent<'_>,
    ) -> Result<(Year, JoinHandle<()>), JournalError> {
        let dir = setup.year_dir(year);
        let disk = setup.disk.clone().private();
        let records = records_dir(&dir);
        disk.create_dir_all(&records)
            .map_err(|error| JournalError::disk(&records, error))?;
        let origin = setup.federation.journal_origin(&setup.agency, year);
        let mut log = Log::open(&log_dir(&dir), disk.clone(), &origin)?;
        log.publish_sealed()?;
        let reader = log.reader();
        let firsts = segments(&dir)?;
        let last = firsts.last().copied().unwrap_or(0);
        let (appender, tail) = open_tail(&dir, &disk, last)?;
        let next = last + tail.len() as u64;
        let waiting = read_back(&dir, &reader, &firsts, tail, recent)?;
        let (orders, received) = mpsc::sync_channel(ORDERS);
        let sequencer = Sequencer {
            log,
            signer: setup.signer.clone(),
            next: next - waiting.len() as u64,
            waiting: waiting.into(),
        };
        let thread = std::thread::Builder::new()
            .name("journal-log".into())
            .spawn(move || sequencer.run(received))
            .map_err(|error| JournalError::disk(&dir, error))?;
        let year = Year {
            year,
            dir,
            disk,
            appender,
            next,
            orders,
            reader,
        };
        Ok((year, thread))
    }

    /// Makes frames durable; returns the index of the first. On error none of them counts.
    pub fn append(&mut self, frames: &[u8], leaves: Vec<Digest>) -> Result<u64, JournalError> {
        let first = self.next;
        self.appender
            .append(frames)
            .and_then(|()| self.appender.sync())
            .map_err(|error| JournalError::disk(&self.dir, error))?;
        self.next += leaves.len() as u64;
        // The sequencer lives as long as this, unless it panicked; a restart catches up then.
        let _ = self.orders.send(Order::Leaves(leaves));
        if self.appender.length() >= SEGMENT {
            // Only after a sync, so that the closed segment's length is durable. Without space
            // for another file, this one goes on.
            if let Ok(fresh) = self.disk.append(&segment_path(&self.dir, self.next)) {
                self.appender = fresh;
            }
        }
        Ok(first)
    }

    /// Passes an order on to the sequencer.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// Opens the last segment for appending, without its torn tail.
fn open_tail(dir: &Path, disk: &Disk, first: u64) -> Result<(Appender, Vec<Stored>), JournalError> {
    let path = segment_path(dir, first);
    let failed = |error| JournalError::disk(&path, error);
    let mut appender = disk.append(&path).map_err(failed)?;
    let tail = segment(dir, first)?;
    if tail.whole < tail.length {
        let torn = tail.length - tail.whole;
        tracing::warn!(path = %path.display(), torn, "cut off bytes of records that were never acknowledged");
        appender.truncate(tail.whole).map_err(failed)?;
    }
    Ok((appender, tail.records))
}

/// Reads the newest records, of which `tail` are the last segment's, as far back as the log lacks
/// them or `recent` wants them. Each is checked against the log. Returns the leaves it lacks.
fn read_back(
    dir: &Path,
    log: &LogReader,
    firsts: &[u64],
    tail: Vec<Stored>,
    recent: &mut Recent<'_>,
) -> Result<Vec<Digest>, JournalError> {
    check_against(dir, log, &tail)?;
    let next = firsts.last().copied().unwrap_or(0) + tail.len() as u64;
    if log.size() > next {
        let reason = format!(
            "the log has {}, the records end at {next}",
            words::entries(log.size())
        );
        return Err(JournalError::corrupt(&records_dir(dir), reason));
    }
    let mut waiting = tail_leaves(&tail, log.size());
    let mut wanted = recent.take(tail);
    for pair in firsts.windows(2).rev() {
        let unsequenced = pair[1] > log.size();
        if !unsequenced && !wanted {
            break;
        }
        let older = whole_segment(dir, pair[0], pair[1])?;
        check_against(dir, log, &older)?;
        let mut leaves = tail_leaves(&older, log.size());
        leaves.append(&mut waiting);
        waiting = leaves;
        wanted = recent.take(older);
    }
    Ok(waiting)
}

fn check_against(dir: &Path, log: &LogReader, records: &[Stored]) -> Result<(), JournalError> {
    let (Some(first), size) = (records.first(), log.size()) else {
        return Ok(());
    };
    let end = size.min(first.index + records.len() as u64);
    for (stored, entry) in records.iter().zip(log.leaves(first.index..end)?) {
        check_leaf(dir, stored.index, &stored.leaf, &entry?)?;
    }
    Ok(())
}

/// The leaves that a log of `size` entries lacks.
fn tail_leaves(records: &[Stored], size: u64) -> Vec<Digest> {
    records
        .iter()
        .filter(|stored| stored.index >= size)
        .map(|stored| stored.leaf)
        .collect()
}
