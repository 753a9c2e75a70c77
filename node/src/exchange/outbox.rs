//! Acknowledgements on their way to their providers.
//!
//! While one call to a provider is under way, further acknowledgements to it wait, and then
//! share the next: the more there is to do, the more of them share a call and the fsync behind
//! it, and nothing ever waits for a timer. A provider that says so has them in its journal.
//!
//! An acknowledgement is durable in the asker's journal before it comes here, so the question is
//! answered whether it arrives or not. What could not be delivered is sent again after a pause,
//! or together with the next one, until the provider forgets what it waited for ([`WAIT`]). A
//! restart sends the newest in the journal again, since it does not know which have arrived; a
//! provider that has one says that nothing waits for it any more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::{Predicate, Statement};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::parcel::fitting;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::{ACKNOWLEDGE, bundle};
use crate::journal::{Record, WAIT};
use crate::node::Node;

/// How long a provider may take for one call.
const CALL: Duration = Duration::from_secs(10);
/// Between two attempts, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Acknowledgements that may wait for one provider. It stops answering at far fewer.
const WAITING: usize = 4_096;

/// What waits, by provider. A provider is listed while a task works for it.
#[derive(Default)]
pub struct Outbox {
    lines: Mutex<HashMap<AgencyId, Line>>,
}

#[derive(Default)]
struct Line {
    letters: VecDeque<Letter>,
    /// Told when there is a new one.
    posted: Arc<Notify>,
}

struct Letter {
    bytes: Bytes,
    since: Instant,
    /// Whether it may have come before.
    again: bool,
    /// Who waits for the provider's confirmation, until the first attempt has failed.
    sender: Option<oneshot::Sender<()>>,
}

impl Outbox {
    /// Posts an acknowledgement. The answer comes when the provider has confirmed that it is
    /// durable there; the channel closes when an attempt has failed.
    pub fn post(
        &self,
        node: &Arc<Node>,
        provider: &AgencyId,
        acknowledgement: Bytes,
    ) -> oneshot::Receiver<()> {
        self.add(node, provider, acknowledgement, false)
    }

    fn add(
        &self,
        node: &Arc<Node>,
        provider: &AgencyId,
        acknowledgement: Bytes,
        again: bool,
    ) -> oneshot::Receiver<()> {
        let (sender, confirmed) = oneshot::channel();
        let letter = Letter {
            bytes: acknowledgement,
            since: Instant::now(),
            again,
            sender: Some(sender),
        };
        let mut lines = self.lock();
        let carried = lines.contains_key(provider);
        let line = lines.entry(provider.clone()).or_default();
        if line.letters.len() == WAITING {
            line.letters.pop_front();
            tracing::warn!(%provider, "too many acknowledgements wait for this provider: the oldest is given up");
        }
        line.letters.push_back(letter);
        line.posted.notify_one();
        if !carried {
            tokio::spawn(carry(node.clone(), provider.clone()));
        }
        confirmed
    }

    /// Posts those acknowledgements in the journal of `agency` that are its own.
    pub fn resume(&self, node: &Arc<Node>, agency: &AgencyId, acknowledgements: &[Record]) {
        for record in acknowledgements {
            if let Some(provider) = addressee(agency, &record.body) {
                drop(self.add(node, &provider, record.body.clone(), true));
            }
        }
    }

    /// What goes into the next call; with nothing left, the provider is struck off.
    fn take(&self, provider: &AgencyId) -> Vec<Letter> {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(provider) else {
            return Vec::new();
        };
        let life = Duration::from_secs(WAIT.unsigned_abs());
        line.letters.retain(|letter| letter.since.elapsed() < life);
        let sizes = line.letters.iter();
        let sizes = sizes.map(|letter| letter.bytes.len() + bundle::PREFIX);
        let count = fitting(sizes, bundle::MOST, bundle::MOST_BYTES);
        let taken: Vec<Letter> = line.letters.drain(..count).collect();
        if taken.is_empty() {
            lines.remove(provider);
        }
        taken
    }

    /// Keeps what was not delivered, before everything else that waits.
    fn put_back(&self, provider: &AgencyId, letters: Vec<Letter>) {
        let mut lines = self.lock();
        let line = lines.entry(provider.clone()).or_default();
        for mut letter in letters.into_iter().rev() {
            letter.sender = None;
            letter.again = true;
            line.letters.push_front(letter);
        }
    }

    fn posted(&self, provider: &AgencyId) -> Arc<Notify> {
        self.lock()
            .entry(provider.clone())
            .or_default()
            .posted
            .clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgencyId, Line>> {
        // Queues are whole after every step, whoever panicked between two.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To whom the agency sends this acknowledgement; `None` if it received it.
fn addressee(agency: &AgencyId, bytes: &[u8]) -> Option<AgencyId> {
    let envelope = Envelope::parse(bytes).ok()?;
    let statement = Statement::parse(envelope.payload()).ok()?;
    match statement.predicate {
        Predicate::Acknowledgement(body) if statement.head.agency.as_ref() == Some(agency) => {
            Some(body.audience)
        }
        _ => None,
    }
}

/// Works until nothing waits for the provider any more, or the node stops.
async fn carry(node: Arc<Node>, provider: AgencyId) {
    let posted = node.outbox.posted(&provider);
    let mut pause = PAUSE;
    loop {
        let letters = node.outbox.take(&provider);
        if letters.is_empty() {
            return;
        }
        let undelivered = match call(&node, &provider, &letters).await {
            Ok(outcomes) => settle(&provider, letters, outcomes),
            Err(fault) => {
                tracing::warn!(%provider, %fault, count = letters.len(), "acknowledgements were not delivered; they will be sent again");
                letters
            }
        };
        if undelivered.is_empty() {
            pause = PAUSE;
            continue;
        }
        node.outbox.put_back(&provider, undelivered);
        tokio::select! {
            () = node.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = posted.notified() => {}
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Delivers letters in one call; what became of each.
async fn call(
    node: &Node,
    provider: &AgencyId,
    letters: &[Letter],
) -> Result<Vec<Result<(), Fault>>, Fault> {
    let mut client = FlightServiceClient::new(node.link(provider)?);
    let action = Action {
        r#type: ACKNOWLEDGE.to_owned(),
        body: bundle::pack(letters.iter().map(|letter| &letter.bytes[..])).into(),
    };
    let calling = async {
        let mut results = client.do_action(action).await?.into_inner();
        let mut outcomes = Vec::with_capacity(letters.len());
        while outcomes.len() < letters.len() {
            let Some(result) = results.message().await? else {
                return Err(Fault::new(
                    Blame::Unverified,
                    "it did not say what became of every acknowledgement",
                ));
            };
            outcomes.push(bundle::read_outcome(&result.body));
        }
        Ok(outcomes)
    };
    timeout(CALL, calling).await.unwrap_or_else(|_| {
        Err(Fault::new(
            Blame::Unavailable,
            format!("it did not take acknowledgements within {CALL:?}"),
        ))
    })
}

/// Tells those who wait. Returns what may be taken another time.
fn settle(
    provider: &AgencyId,
    letters: Vec<Letter>,
    outcomes: Vec<Result<(), Fault>>,
) -> Vec<Letter> {
    let mut again = Vec::new();
    for (letter, outcome) in letters.into_iter().zip(outcomes) {
        match outcome {
            // Whoever asked may have gone.
            Ok(()) => drop(letter.sender.map(|sender| sender.send(()))),
            Err(fault) if matches!(fault.blame, Blame::Unavailable | Blame::Overloaded) => {
                again.push(letter);
            }
            // It has come before, and only the confirmation was lost.
            Err(fault) if fault.blame == Blame::NotFound && letter.again => {}
            Err(fault) => {
                tracing::warn!(%provider, %fault, "an acknowledgement was refused");
            }
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(bytes: usize) -> Letter {
        Letter {
            bytes: vec![b'{'; bytes].into(),
            since: Instant::now(),
            again: false,
            sender: None,
        }
    }

    #[test]
    fn one_call_takes_what_fits_and_the_next_the_rest() {
        let provider: AgencyId = "fr.bre".parse().unwrap();
        let outbox = Outbox::default();
        let sizes = |letters: &[Letter]| -> Vec<usize> {
            letters.iter().map(|letter| letter.bytes.len()).collect()
        };
        let all: Vec<usize> = (1..=bundle::MOST + 2).collect();
        outbox.put_back(&provider, all.iter().map(|size| letter(*size)).collect());
        let first = outbox.take(&provider);
        assert_eq!(sizes(&first), all[..bundle::MOST]);
        // What could not be delivered comes first again.
        outbox.put_back(&provider, first);
        assert_eq!(sizes(&outbox.take(&provider)), all[..bundle::MOST]);
        assert_eq!(sizes(&outbox.take(&provider)), all[bundle::MOST..]);
        let large = bundle::MOST_BYTES / 2;
        outbox.put_back(&provider, vec![letter(large), letter(large), letter(1)]);
        assert_eq!(sizes(&outbox.take(&provider)), [large]);
        assert_eq!(sizes(&outbox.take(&provider)), [large, 1]);
        assert!(outbox.take(&provider).is_empty());
        assert!(outbox.lock().is_empty(), "nobody is listed for nothing");
    }

    #[test]
    fn who_waits_is_told_by_the_outcome() {
        let provider: AgencyId = "fr.bre".parse().unwrap();
        let fault = |blame| Err(Fault::new(blame, "x"));
        let outcomes = [
            Ok(()),
            fault(Blame::Unavailable),
            fault(Blame::NotFound),
            fault(Blame::Overloaded),
        ];
        let (letters, mut told): (Vec<_>, Vec<_>) = (1..=4)
            .map(|size| {
                let (sender, told) = oneshot::channel();
                let sender = Some(sender);
                (
                    Letter {
                        sender,
                        ..letter(size)
                    },
                    told,
                )
            })
            .unzip();
        let again = settle(&provider, letters, outcomes.into());
        let sizes: Vec<usize> = again.iter().map(|letter| letter.bytes.len()).collect();
        assert_eq!(sizes, [2, 4]);
        let outbox = Outbox::default();
        outbox.put_back(&provider, again);
        let told: Vec<bool> = told
            .iter_mut()
            .map(|told| told.try_recv().is_ok())
            .collect();
        assert_eq!(told, [true, false, false, false]);
    }
}
