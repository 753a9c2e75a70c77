//! The submitter's side: enters statements in a registry that is named by its TLS key.

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jingwei_proto::dsse::{Envelope, MAX_ENVELOPE};
use jingwei_proto::key::KeyId;
use jingwei_proto::wire::registry::{Outcome, SubmitAllRequest, outcome};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tonic::{Request, Status};

use crate::connect::{Link, Patience, Target};
use crate::fault::{Blame, Fault};
use crate::keyfile::TlsIdentity;
use crate::parcel::fitting;
use crate::request_id::RequestId;
use crate::sequencer::Accepted;
use crate::service::stubs::registry_client::RegistryClient;
use crate::service::{MOST, PREFIX};

/// How long an overloaded registry is asked again: less than a person waits, or than a node gives
/// a statement to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a registry may take for one statement. It gives up by itself when no quorum of witnesses
/// has signed after a third of that.
const ANSWER: Duration = Duration::from_secs(30);

/// However soon a registry says that it has room again.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// Calls at once of one submitter. What is submitted beyond that waits, and shares the next call.
const CALLS: usize = 4;

/// A way into a registry. Connects when it is first used and again when it was cut off.
///
/// Statements that are submitted side by side share calls: the more there are, the more of them,
/// and none ever waits for a timer.
#[derive(Clone)]
pub struct Submitter(Arc<Shared>);

struct Shared {
    address: String,
    client: RegistryClient<Link>,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    letters: VecDeque<Letter>,
    /// Tasks that carry letters to the registry.
    carriers: usize,
}

/// A statement on its way.
struct Letter {
    envelope: Vec<u8>,
    request: Option<RequestId>,
    reply: oneshot::Sender<Result<Accepted, Fault>>,
}

impl Submitter {
    /// To the registry at `address` (`host:port`) whose TLS key is `tls`.
    pub fn new(
        address: &str,
        tls: KeyId,
        identity: Option<&TlsIdentity>,
        patience: Patience,
    ) -> Result<Submitter, Fault> {
        let target = Target::new(address, [tls], identity, patience)?;
        Ok(Submitter(Arc::new(Shared {
            address: address.to_owned(),
            client: RegistryClient::new(target.connect_lazy()?),
            line: Mutex::default(),
        })))
    }

    /// Enters a statement and waits until the registry has made it durable. Safe to repeat:
    /// the same statement is entered once. A registry that is overloaded is asked again when it
    /// says so, for half a minute in all; if it says later than that, this is its answer.
    pub async fn submit(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            let fault = match self.submit_once(envelope).await {
                Err(fault) if fault.blame == Blame::Overloaded => fault,
                done => return done,
            };
            let Some(pause) = fault.retry_after.map(|pause| pause.max(LEAST_PAUSE)) else {
                return Err(fault);
            };
            // Those who were refused together need not all come back together.
            let pause = pause.mul_f64(1.0 + rand::random::<f64>() / 4.0);
            if Instant::now() + pause.min(PATIENCE * 2) > until {
                return Err(fault);
            }
            tracing::debug!(%fault, ?pause, "submitting again");
            tokio::time::sleep(pause).await;
        }
    }

    /// As [`Submitter::submit`], without asking again. A registry that says nothing for half a
    /// minute is given up.
    pub async fn submit_once(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            envelope: envelope.to_bytes(),
            request: RequestId::current(),
            reply,
        };
        if self.0.post(letter) {
            tokio::spawn(carry(self.0.clone()));
        }
        match timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Fault::new(Blame::Internal, "the submission was given up")),
            Err(_) => Err(self.0.silent()),
        }
    }
}

impl Shared {
    /// Puts a letter in line; says whether one more task is to carry.
    fn post(&self, letter: Letter) -> bool {
        let mut line = self.line();
        line.letters.push_back(letter);
        let more = line.carriers < CALLS;
        line.carriers += usize::from(more);
        more
    }

    /// What goes into the next call; with nothing left, its carrier is struck off.
    fn take(&self) -> Vec<Letter> {
        let mut line = self.line();
        // Who has given up, or gone, wants no answer.
        line.letters.retain(|letter| !letter.reply.is_closed());
        let sizes = line.letters.iter();
        let sizes = sizes.map(|letter| letter.envelope.len() + PREFIX);
        // One that is too large by itself is the registry's to refuse.
        let count = fitting(sizes, MOST, MAX_ENVELOPE + PREFIX);
        let taken: Vec<Letter> = line.letters.drain(..count).collect();
        line.carriers -= usize::from(taken.is_empty());
        taken
    }

    fn silent(&self) -> Fault {
        let message = format!(
            "the registry at {} has not said within {} s what became of the statement",
            self.address,
            ANSWER.as_secs()
        );
        Fault::new(Blame::Unavailable, message)
            .advise("do the same again: the same statement is never entered twice")
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // It is whole after every step, whoever panicked between two.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever carries letters. If that ends before nothing waits any more, with the runtime or by a
/// panic, the next letter gets another one.
struct Carrier {
    shared: Arc<Shared>,
    struck_off: bool,
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if !self.struck_off {
            self.shared.line().carriers -= 1;
        }
    }
}

/// Works until nothing waits any more.
async fn carry(shared: Arc<Shared>) {
    let mut carrier = Carrier {
        shared: shared.clone(),
        struck_off: false,
    };
    loop {
        // Others who have just been answered, or are about to submit, come along.
        tokio::task::yield_now().await;
        let letters = shared.take();
        let request = match &letters[..] {
            [] => {
                carrier.struck_off = true;
                return;
            }
            [only] => only.request.clone(),
            // They are of several requests.
            _ => None,
        };
        let request = request.unwrap_or_else(RequestId::random);
        let (envelopes, replies): (Vec<_>, Vec<_>) = letters
            .into_iter()
            .map(|letter| (letter.envelope, letter.reply))
            .unzip();
        let calling = call(shared.client.clone(), envelopes);
        let outcomes = match request.scope(timeout(ANSWER, calling)).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(fault)) => vec![Err(fault); replies.len()],
            Err(_) => vec![Err(shared.silent()); replies.len()],
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            let _ = reply.send(outcome);
        }
    }
}

/// Submits envelopes with one call; what became of each.
async fn call(
    mut client: RegistryClient<Link>,
    envelopes: Vec<Vec<u8>>,
) -> Result<Vec<Result<Accepted, Fault>>, Fault> {
    let count = envelopes.len();
    let request = Request::new(SubmitAllRequest { envelopes });
    let answered = client.submit_all(request).await;
    let response = answered.map_err(|status| unanswered(&status))?.into_inner();
    if response.outcomes.len() != count {
        return Err(Fault::new(
            Blame::Unverified,
            "the registry does not say what became of each statement",
        ));
    }
    let checkpoint: Arc<str> = response.checkpoint.into();
    let read = |outcome: Outcome| match outcome.outcome {
        Some(outcome::Outcome::Index(index)) => Ok(Accepted {
            index,
            checkpoint: checkpoint.clone(),
        }),
        Some(outcome::Outcome::Refusal(fault)) => Err(Fault::from_bytes(&fault)),
        None => Err(Fault::from_bytes(&[])),
    };
    Ok(response.outcomes.into_iter().map(read).collect())
}

/// What came instead of an answer. Where the registry has not said what to do next, this does.
fn unanswered(status: &Status) -> Fault {
    let fault = Fault::from_status(status);
    if fault.blame != Blame::Unavailable || fault.advice.is_some() {
        return fault;
    }
    // Of what breaks on the way, only what is found out in connecting has a fault of its own.
    let unconnected = status.source().is_some_and(Fault::is_in);
    fault.advise(if unconnected {
        "nothing was entered: once the registry runs, which its engineer sees with ‘jingwei-registry status’, do the same again"
    } else {
        "see that the registry runs, and do the same again: the same statement is never entered twice"
    })
}

#[cfg(test)]
mod tests {
    use jingwei_proto::key::SecretKey;

    use super::*;

    type Answer = oneshot::Receiver<Result<Accepted, Fault>>;

    fn shared() -> Shared {
        let tls = KeyId(jingwei_proto::digest::Digest::of(b"a key"));
        let target = Target::new("127.0.0.1:1", [tls], None, Patience::default()).unwrap();
        Shared {
            address: "127.0.0.1:1".to_owned(),
            client: RegistryClient::new(target.connect_lazy().unwrap()),
            line: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn where_no_registry_is_reached_nothing_was_entered() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let tls = KeyId(jingwei_proto::digest::Digest::of(b"a key"));
        let submitter = Submitter::new(&closed.to_string(), tls, None, Patience::default());
        let envelope = Envelope::sign(b"{}".to_vec(), &SecretKey::from_seed(&[1; 32]));
        let fault = submitter.unwrap().submit_once(&envelope).await.unwrap_err();
        assert_eq!(fault.blame, Blame::Unavailable);
        assert!(fault.message.contains("refused"), "{fault}");
        let advice = fault.advice.unwrap_or_default();
        assert!(advice.starts_with("nothing was entered"), "{advice}");
    }

    fn post(shared: &Shared, bytes: usize) -> (bool, Answer) {
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            envelope: vec![b'{'; bytes],
            request: None,
            reply,
        };
        (shared.post(letter), answer)
    }

    fn taken(shared: &Shared) -> Vec<usize> {
        let letters = shared.take();
        letters.iter().map(|letter| letter.envelope.len()).collect()
    }

    #[tokio::test]
    async fn what_waits_shares_a_call_that_the_registry_takes() {
        let shared = shared();
        let sizes: Vec<usize> = (1..=MOST + CALLS).collect();
        let (more, answers): (Vec<bool>, Vec<Answer>) =
            sizes.iter().map(|size| post(&shared, *size)).unzip();
        assert_eq!(more.iter().filter(|more| **more).count(), CALLS);
        assert_eq!(taken(&shared), sizes[..MOST]);
        assert_eq!(taken(&shared), sizes[MOST..]);
        drop(answers);
        let half = MAX_ENVELOPE / 2;
        let sizes = [half, half - PREFIX, 1, MAX_ENVELOPE + 9, 2, 3];
        let (_, mut answers): (Vec<bool>, Vec<Answer>) =
            sizes.iter().map(|size| post(&shared, *size)).unzip();
        // Who has given up is left out.
        drop(answers.remove(4));
        assert_eq!(taken(&shared), sizes[..2]);
        assert_eq!(taken(&shared), [1]);
        assert_eq!(taken(&shared), [MAX_ENVELOPE + 9]);
        assert_eq!(taken(&shared), [3]);
        // Each carrier that finds nothing is struck off, and the next letter gets one again.
        assert!((0..CALLS).all(|_| taken(&shared).is_empty()));
        assert_eq!(shared.line().carriers, 0);
        assert!(post(&shared, 1).0);
    }
}
