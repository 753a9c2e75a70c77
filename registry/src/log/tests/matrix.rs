//! The fault matrix by name: each file of a commit, each way to fail, once and twice in a row, at
//! the sizes where tiles fill. Every run ends with the files of a log that had no fault.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::log::storage::memory::{Failing, Fault, Memory};

/// All that a commit writes. `tile/2/` only at the larger of the two sizes.
const WRITES: [&str; 8] = [
    "staged/",
    "commit/",
    "tile/0/",
    "tile/1/",
    "tile/2/",
    "tile/entries/",
    "tile/envelopes/",
    "checkpoint",
];
const FAULTS: [Fault; 3] = [Fault::Lost, Fault::Persisted, Fault::Torn];

type Files = BTreeMap<String, Arc<[u8]>>;

/// A log of `size` entries in memory.
fn base(size: u64) -> Memory {
    let memory = Arc::new(Memory::default());
    let mut log = open_memory(&memory).unwrap();
    while log.size() < size {
        let count = (size - log.size()).min(MAX_BATCH as u64);
        log.append_and_publish(&entries(log.size(), count), seal)
            .unwrap();
    }
    memory.copy()
}

fn open_memory(memory: &Arc<Memory>) -> Result<Log, LogError> {
    Log::open_in(memory.clone(), ORIGIN)
}

/// One run: the fault that is to come, and what the caller does about a failure.
#[derive(Debug, Clone)]
struct Case {
    failing: Failing,
    /// It is killed and starts again, instead of going on.
    restarts: bool,
    /// A witness adds its signature before publication.
    cosigned: bool,
}

/// The caller of a log that appends batches of the given sizes, whatever happens.
struct Writer<'a> {
    memory: Arc<Memory>,
    case: &'a Case,
    log: Option<Log>,
    attempts: u32,
}

impl Writer<'_> {
    /// The open log; `None` if it refuses to open because of damage.
    fn log(&mut self) -> Option<&mut Log> {
        while self.log.is_none() {
            self.attempt();
            match open_memory(&self.memory) {
                Ok(log) => self.log = Some(log),
                Err(LogError::Corrupt { .. }) => return None,
                Err(LogError::Io { .. }) => {}
                Err(other) => panic!("{:?}: {other}", self.case),
            }
        }
        self.log.as_mut()
    }

    fn attempt(&mut self) {
        self.attempts += 1;
        assert!(self.attempts < 20, "{:?}: it never recovers", self.case);
    }

    /// Appends and publishes until the log has `end` entries that readers see; whether it could.
    fn reach(&mut self, end: u64) -> bool {
        loop {
            self.attempt();
            let cosigns = self.case.cosigned;
            let restarts = self.case.restarts;
            let Some(log) = self.log() else { return false };
            let (size, published) = (log.size(), log.reader().size());
            // A fenced writer has to start again, as one does that was killed.
            let (failed, fenced) = if size < end {
                let appended = log.append(&entries(size, end - size), seal);
                let fenced = matches!(appended, Err(AppendError::Fenced(_)));
                (appended.is_err(), fenced)
            } else if published < end {
                let note = log.unpublished().unwrap();
                let note = if cosigns { cosigned(&note) } else { note };
                let published = log.publish(&note);
                let fenced = matches!(published, Err(LogError::Fenced { .. }));
                (published.is_err(), fenced)
            } else {
                return true;
            };
            if fenced || failed && (restarts || log.complete().is_err()) {
                self.log = None;
            }
        }
    }
}

/// Runs `script` on a copy of `base`; returns the files, or `None` where the log refused to go on.
fn run(base: &Memory, script: &[u64], case: &Case) -> Option<Files> {
    let memory = Arc::new(base.copy());
    memory.fail(case.failing.clone());
    let mut writer = Writer {
        memory: memory.clone(),
        case,
        log: None,
        attempts: 0,
    };
    let mut end = writer.log()?.size();
    for count in script {
        end += count;
        writer.attempts = 0;
        if !writer.reach(end) {
            return None;
        }
        // What was acknowledged is there, for whoever reads now.
        let reader = LogReader::of(memory.clone()).unwrap();
        assert_eq!(reader.size(), end, "{case:?}");
        let last = entry(&(end - 1).to_string(), true);
        assert_eq!(reader.leaf(end - 1).unwrap(), last.leaf, "{case:?}");
    }
    if memory.failures_left() == 0 {
        // The next start finds nothing to do and nothing wrong.
        let log = open_memory(&memory).unwrap();
        assert_eq!((log.size(), log.unpublished()), (end, None), "{case:?}");
    }
    let fired = memory.failures_left() < case.failing.times;
    fired.then(|| memory.files())
}

/// All cases at one size; returns how many ran into their fault.
fn matrix(begin: u64, script: &[u64]) -> usize {
    let base = base(begin);
    let mut hit = 0;
    for cosigned in [false, true] {
        let clean = clean(&base, script, cosigned);
        for prefix in WRITES {
            for fault in FAULTS {
                for times in [1, 2] {
                    for restarts in [false, true] {
                        let case = Case {
                            failing: Failing {
                                prefix,
                                fault,
                                times,
                            },
                            restarts,
                            cosigned,
                        };
                        hit += usize::from(compare(&base, script, &case, &clean));
                    }
                }
            }
        }
    }
    hit
}

fn clean(base: &Memory, script: &[u64], cosigned: bool) -> Files {
    let none = Case {
        failing: Failing {
            prefix: "",
            fault: Fault::Lost,
            times: 0,
        },
        restarts: false,
        cosigned,
    };
    let memory = Arc::new(base.copy());
    let mut writer = Writer {
        memory: memory.clone(),
        case: &none,
        log: None,
        attempts: 0,
    };
    let mut end = writer.log().unwrap().size();
    for count in script {
        end += count;
        writer.attempts = 0;
        assert!(writer.reach(end));
    }
    memory.files()
}

/// Whether the case met its fault; that it then left no trace is asserted.
fn compare(base: &Memory, script: &[u64], case: &Case, clean: &Files) -> bool {
    let torn_record = case.failing.prefix == "commit/" && case.failing.fault == Fault::Torn;
    match run(base, script, case) {
        Some(files) => {
            let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&files), names(clean), "{case:?}");
            for (name, bytes) in &files {
                assert_eq!(bytes, &clean[name], "{case:?}: {name}");
            }
            assert!(!torn_record, "{case:?}: a torn record was passed over");
            true
        }
        // No storage that keeps its promises tears a commit record. If one does, the log stays
        // closed: whether it was the record that counted cannot be known.
        None => torn_record,
    }
}

#[test]
fn every_write_fails_in_every_way_around_256() {
    // 2 (plain, co-signed) × 8 writes × 3 faults × 2 × 2, less tile/2, which is not written.
    assert_eq!(matrix(250, &[5, 1, 1, 3]), 2 * 7 * 3 * 2 * 2);
}

#[test]
fn every_write_fails_in_every_way_around_65_536() {
    assert_eq!(matrix(65_530, &[5, 1, 1]), 2 * 8 * 3 * 2 * 2);
}

/// The seal fails before it signed, after it signed, and with half a note; once and twice.
#[test]
fn the_seal_fails_in_every_way() {
    let base = base(255);
    for fault in FAULTS {
        for times in [1, 2] {
            for restarts in [false, true] {
                let memory = Arc::new(base.copy());
                let mut log = open_memory(&memory).unwrap();
                for _ in 0..times {
                    let refused = log.append_and_publish(&entries(255, 2), |checkpoint| {
                        let note = seal(checkpoint).unwrap();
                        match fault {
                            Fault::Torn => Ok(note[..note.len() / 2].to_owned()),
                            Fault::Lost | Fault::Persisted => Err("the token was pulled out"),
                        }
                    });
                    let expected = match fault {
                        Fault::Torn => matches!(refused, Err(AppendError::Refused(_))),
                        _ => matches!(refused, Err(AppendError::Seal(_))),
                    };
                    assert!(expected, "{fault:?}: {refused:?}");
                    if restarts {
                        drop(log);
                        log = open_memory(&memory).unwrap();
                    }
                }
                log.append_and_publish(&entries(255, 2), seal).unwrap();
                let clean = Arc::new(base.copy());
                let mut other = open_memory(&clean).unwrap();
                other.append_and_publish(&entries(255, 2), seal).unwrap();
                assert_eq!(memory.files(), clean.files(), "{fault:?}");
            }
        }
    }
}

/// The tiles are the same however the log grew: in a few large batches, or step by step.
#[test]
fn growth_in_one_go_and_step_by_step() {
    let tiles = |memory: &Memory| -> Files {
        let files = memory.files().into_iter();
        files
            .filter(|(name, _)| name.starts_with("tile/"))
            .collect()
    };
    let stepwise = Arc::new(Memory::default());
    let mut log = open_memory(&stepwise).unwrap();
    for size in [255, 256, 257, 65_535, 65_536, 65_537] {
        while log.size() < size {
            let left = size - log.size();
            // Single steps near the edge of a tile, large uneven ones on the way.
            let step = if left > 260 { 251 } else { 1 };
            log.append_and_publish(&entries(log.size(), step), seal)
                .unwrap();
        }
        let at_once = base(size);
        let (grown, expected) = (tiles(&stepwise), tiles(&at_once));
        for (name, bytes) in &expected {
            assert_eq!(grown.get(name), Some(bytes), "{size}: {name}");
        }
        let checkpoint = |memory: &Memory| memory.files()["checkpoint"].clone();
        assert_eq!(checkpoint(&stepwise), checkpoint(&at_once), "{size}");
        // Partial forms stand only beside each other, never beside the full tile.
        for name in grown.keys() {
            let full = name.split(".p/").next().unwrap();
            assert!(full == name || !grown.contains_key(full), "{name}");
        }
        log.reader().audit().unwrap();
        drop(log);
        log = open_memory(&stepwise).unwrap();
        assert_eq!(
            log.checkpoint(),
            open_memory(&Arc::new(at_once)).unwrap().checkpoint()
        );
    }
}

/// One bit is flipped in any file of a log: it is found when the log is opened and audited, which
/// the registry does before it signs anything; or the file is one that a log can do without.
#[test]
fn a_flipped_bit_in_any_file_is_found() {
    let base = base(520);
    let plain = base.files();
    for (name, bytes) in &plain {
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let memory = Arc::new(base.copy());
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            memory.set(name, &flipped);
            let found = open_memory(&memory).and_then(|log| log.committed().audit());
            // What an envelope says is the state's matter: the registry compares it with the leaf.
            let sealed = !name.starts_with("tile/envelopes/");
            // A checkpoint file that is no note any more is published anew, from the commit record.
            let spare = name == "checkpoint" && found.is_ok();
            if spare {
                let mut log = open_memory(&memory).unwrap();
                log.publish_sealed().unwrap();
                let shown = String::from_utf8(memory.files()[name].to_vec()).unwrap();
                assert_eq!(shown, seal(&log.checkpoint()).unwrap());
            }
            assert!(found.is_err() || !sealed || spare, "{name}, byte {at}");
        }
    }
    // While the log runs, nothing that flips gets into what it signs next.
    let memory = Arc::new(base.copy());
    let mut log = open_memory(&memory).unwrap();
    for (name, bytes) in plain.iter().filter(|(name, _)| name.starts_with("tile/")) {
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] ^= 1;
        memory.set(name, &flipped);
    }
    log.append_and_publish(&entries(520, 9), seal).unwrap();
    let clean = Arc::new(base.copy());
    let mut other = open_memory(&clean).unwrap();
    other.append_and_publish(&entries(520, 9), seal).unwrap();
    let (written, expected) = (memory.files(), clean.files());
    for (name, bytes) in expected
        .iter()
        .filter(|(name, _)| !plain.contains_key(*name))
    {
        assert_eq!(written.get(name), Some(bytes), "{name}");
    }
}

/// Two writers that both believe to be the one: the slower is fenced off at its next commit, and
/// its publication does not take back what the other has shown.
#[test]
fn of_two_writers_one_is_fenced_off() {
    let dir = directory();
    drop(grown(dir.path(), &[250]));
    // Without its lock, as on a volume whose locks another machine does not see.
    let unlocked = || -> Arc<dyn Storage> { Arc::new(Local::reader(dir.path())) };
    two_writers(unlocked(), unlocked());
    let memory = Arc::new(base(250));
    two_writers(memory.clone(), memory);
}

fn two_writers(first: Arc<dyn Storage>, second: Arc<dyn Storage>) {
    let mut slow = Log::open_in(first.clone(), ORIGIN).unwrap();
    let mut quick = Log::open_in(second, ORIGIN).unwrap();
    let committed = slow.append(&entries(250, 3), seal).unwrap();
    let late = quick.append(&entries(250, 8), seal);
    assert!(matches!(late, Err(AppendError::Fenced(_))), "{late:?}");
    let mut quick = Log::open_in(first.clone(), ORIGIN).unwrap();
    quick.append_and_publish(&entries(253, 8), seal).unwrap();
    // The slow one comes back with a quorum for its own commit.
    let note = cosigned(&seal(&committed).unwrap());
    let refused = slow.publish(&note);
    assert!(
        matches!(refused, Err(LogError::Fenced { .. })),
        "{refused:?}"
    );
    for _ in 0..2 {
        let refused = slow.append(&entries(253, 8), seal);
        assert!(
            matches!(refused, Err(AppendError::Fenced(_))),
            "{refused:?}"
        );
    }
    assert_eq!(slow.size(), 253);
    drop(slow);
    check(&quick, 261);
    drop(quick);
    let log = Log::open_in(first, ORIGIN).unwrap();
    assert_eq!(log.unpublished(), None);
    check(&log, 261);
}
