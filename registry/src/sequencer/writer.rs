//! The one writer of the log: admits statements by the rules, in batches that the committer
//! brings into the log.
//!
//! ```text
//! batch k    admitted ─► committing: waits for the disk ─► answered
//! batch k+1              admitted on top of k ───────────► committing ─► …
//! ```
//!
//! A batch that was admitted on top of one that then could not be committed is admitted again, of
//! what the log then holds. Until then nobody hears what was found about its statements.

use std::collections::VecDeque;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::leaf::leaf;
use jingwei_proto::state::{self, ApplyError, KeyRecord, keys};
use jingwei_proto::statement::Snapshot;
use jingwei_proto::tile::WIDTH;

use super::committer::{Committer, NewRoot, Prepared, Working};
use super::{Place, Submission, Work, from_rejection, root_in, too_old, unreadable};
use crate::fault::Fault;
use crate::index::{Batch, IndexError};
use crate::log::Entry;
use crate::queue;
use crate::quota::Payer;

/// Statements in one commit; a larger batch would make the first wait for the last.
const BATCH: usize = 1_024;
/// Bytes of statements in one commit, which are in memory a few times over.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often the writer lets others have the processor before it takes what waits. Where nobody
/// wants it that takes no time; where all are busy, more statements come along, and share a commit.
const GIVES_WAY: usize = 4;

type Submissions = queue::Receiver<Payer, Submission>;

/// The thread's state.
pub(super) struct Writer {
    committer: Working,
    /// What is admitted next, on top of the batch that was sent to the committer last; none where
    /// the next one has to begin with what the log holds.
    ahead: Option<Batch>,
}

impl Writer {
    pub fn new(committer: Committer) -> std::io::Result<Writer> {
        Ok(Writer {
            committer: Working::start(committer)?,
            ahead: None,
        })
    }

    /// Works until all senders are gone.
    pub fn run(mut self, mut submissions: Submissions) {
        while let Some(first) = submissions.blocking_recv() {
            for _ in 0..GIVES_WAY {
                std::thread::yield_now();
            }
            let mut waiting = VecDeque::from([first]);
            while !waiting.is_empty() {
                self.take(&mut waiting, &mut submissions);
            }
        }
    }

    /// Admits the first of those that wait, and what else there is, and sends them to the committer.
    fn take(&mut self, waiting: &mut VecDeque<Submission>, submissions: &mut Submissions) {
        let ahead = self.ahead.take();
        let on_the_way = ahead.is_some();
        let batch = match ahead.map_or_else(|| self.committer.home().catch_up(), Ok) {
            Ok(batch) => batch,
            Err(fault) => return refuse(waiting, &fault),
        };
        let mut admission = Admission::new(batch);
        admission.take(waiting, submissions);
        if admission.judged.is_empty() {
            return self.take_alone(waiting);
        }
        if on_the_way {
            if !self.committer.landed() {
                // What was found is void.
                for (submission, _) in admission.judged.into_iter().rev() {
                    waiting.push_front(submission);
                }
                return;
            }
            // Those that came meanwhile come along.
            admission.take(waiting, submissions);
        }
        if let Some(prepared) = admission.prepared() {
            self.ahead = Some(prepared.batch.ahead(prepared.size()));
            self.committer.send(prepared);
        }
    }

    /// Commits a statement after which other keys may sign, or one that is about all before it.
    fn take_alone(&mut self, waiting: &mut VecDeque<Submission>) {
        self.ahead = None;
        let committer = self.committer.home();
        let batch = match committer.catch_up().and_then(|_| committer.settled()) {
            Ok(batch) => batch,
            Err(fault) => return refuse(waiting, &fault),
        };
        let Some(submission) = waiting.pop_front() else {
            return;
        };
        let mut admission = Admission::new(batch);
        let verdict = committer.envelope(&submission.work).and_then(|envelope| {
            // Before the batch takes it in: a registry that could sign nothing after it would be
            // at its end.
            let root = committer.new_root(&envelope)?;
            admission.admit(&envelope, root)
        });
        admission.judged.push((submission, verdict));
        if let Some(prepared) = admission.prepared() {
            committer.commit(prepared);
        }
    }
}

fn refuse(waiting: &mut VecDeque<Submission>, fault: &Fault) {
    for Submission { reply, .. } in waiting.drain(..) {
        let _ = reply.send(Err(fault.clone()));
    }
}

/// What was found about a statement.
enum Admitted {
    New {
        entry: Entry,
        root: Option<Box<NewRoot>>,
    },
    Old {
        index: u64,
    },
}

/// Statements while they are admitted.
struct Admission {
    batch: Batch,
    /// How many entries the log has with those that are new.
    next: u64,
    bytes: usize,
    judged: Vec<(Submission, Result<Admitted, Fault>)>,
}

impl Admission {
    fn new(batch: Batch) -> Admission {
        Admission {
            next: batch.base(),
            batch,
            bytes: 0,
            judged: Vec::new(),
        }
    }

    /// Takes from those that wait, and then from the queue, until the batch is full, or ends with a
    /// tile, or nothing waits, or one comes that has to stand alone: that waits.
    fn take(&mut self, waiting: &mut VecDeque<Submission>, submissions: &mut Submissions) {
        let mut end = self.next;
        while self.judged.len() < BATCH && self.bytes < BATCH_BYTES {
            if self.next >= end {
                end = self.end_with(waiting.len() + submissions.waiting());
            }
            if self.next >= end {
                return;
            }
            let Some(submission) = waiting.pop_front().or_else(|| submissions.try_recv()) else {
                return;
            };
            let envelope = match &submission.work {
                Work::Statement(envelope) if !self.stands_alone(envelope) => envelope.clone(),
                _ => return waiting.push_front(submission),
            };
            self.bytes += submission.work.bytes();
            let verdict = self.admit(&envelope, None);
            self.judged.push((submission, verdict));
        }
    }

    /// Where the batch is to end when so many more wait: with a full tile, if it is of a tile's width
    /// or more then. So under load hardly a tile is written that is not full, and written again.
    fn end_with(&self, more: usize) -> u64 {
        let room = BATCH - self.judged.len();
        let all = self.next + more.min(room) as u64;
        let tiles = all - all % u64::from(WIDTH);
        let fills = tiles >= self.batch.base() + u64::from(WIDTH);
        if fills && tiles >= self.next {
            tiles
        } else {
            all
        }
    }

    /// Whether it is a new root or a snapshot, and one that the rules admit: of others anybody can
    /// make as many as he likes.
    fn stands_alone(&self, envelope: &Envelope) -> bool {
        let may = Snapshot::of(envelope).is_some() || root_in(envelope).is_some();
        may && state::apply(&self.batch, self.next, envelope).is_ok()
    }

    fn admit(
        &mut self,
        envelope: &Envelope,
        root: Option<Box<NewRoot>>,
    ) -> Result<Admitted, Fault> {
        let snapshot = Snapshot::of(envelope);
        match self.batch.admit(self.next, envelope, snapshot.as_ref()) {
            Ok(signer) => {
                self.next += 1;
                let entry = Entry {
                    leaf: leaf(envelope, &signer),
                    envelope: Some(envelope.to_bytes()),
                };
                Ok(Admitted::New { entry, root })
            }
            Err(ApplyError::Rejected(rejection)) => match known(&self.batch, envelope) {
                Ok(Some(index)) => Ok(Admitted::Old { index }),
                _ => Err(from_rejection(rejection)),
            },
            Err(ApplyError::RulesTooNew(rules)) => Err(too_old(rules)),
            Err(error @ (ApplyError::Storage(_) | ApplyError::Unreadable(_))) => {
                Err(unreadable(error))
            }
        }
    }

    /// What is to be committed, if anything is. What was found about a statement and rests on others
    /// of this batch, its submitter hears when they are in the log; the rest is told now.
    fn prepared(self) -> Option<Prepared> {
        let mut prepared = Prepared::new(self.batch);
        let base = prepared.batch.base();
        for (Submission { reply, .. }, verdict) in self.judged {
            match verdict {
                Ok(Admitted::New { entry, root }) => {
                    let (index, again) = (prepared.size(), false);
                    prepared.entries.push(entry);
                    prepared.waiting.push((reply, Ok(Place { index, again })));
                    prepared.next = prepared.next.or(root);
                }
                Ok(Admitted::Old { index }) => {
                    let place = Place { index, again: true };
                    if index < base {
                        let _ = reply.send(Ok(place));
                    } else {
                        prepared.waiting.push((reply, Ok(place)));
                    }
                }
                Err(fault) => {
                    metrics::counter!("jingwei_registry_rejected_total", "reason" => fault.blame.reason())
                        .increment(1);
                    if prepared.entries.is_empty() {
                        let _ = reply.send(Err(fault));
                    } else {
                        prepared.waiting.push((reply, Err(fault)));
                    }
                }
            }
        }
        (!prepared.entries.is_empty()).then_some(prepared)
    }
}

/// The place of a statement that is in the log already. It is known together with its signer's
/// key, which is in the state under its id, also when it is a former one.
fn known(batch: &Batch, envelope: &Envelope) -> Result<Option<u64>, IndexError> {
    let record = batch.read(&keys::signer(envelope.key()))?;
    let Some(KeyRecord { key, .. }) = record else {
        return Ok(None);
    };
    if envelope.verify(&key).is_err() {
        return Ok(None);
    }
    batch.place(envelope, &key)
}

#[cfg(test)]
mod tests;
