//! Signatures of messages, verified together where several wait for it.
//!
//! What comes while the processors are busy with other exchanges is verified in one go, which takes
//! half of the time for each of eight. Who comes alone waits only until whoever was ready before has
//! had the processor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::future;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::PublicKey;
use tokio::sync::oneshot;

/// A message's envelope, and the key of its sender.
pub type Signed = (Arc<Envelope>, PublicKey);

/// Signatures that are verified before others have the processor again: about a millisecond, and
/// more gain little.
const TOGETHER: usize = 64;

/// Verifies for all exchanges of a node.
#[derive(Default)]
pub struct Verifier {
    /// Not empty only while a worker is on its way to take what is there.
    waiting: Mutex<Vec<Job>>,
}

struct Job {
    signed: Vec<Signed>,
    done: oneshot::Sender<()>,
}

impl Verifier {
    /// Finds out whether these signatures hold. Each envelope remembers it, so that
    /// [`Envelope::verify`], which decides, costs nothing afterwards.
    pub async fn verify(self: &Arc<Self>, signed: Vec<Signed>) {
        if signed.is_empty() {
            return;
        }
        let (done, verified) = oneshot::channel();
        let first = {
            let mut waiting = self.lock();
            waiting.push(Job { signed, done });
            waiting.len() == 1
        };
        if first {
            // By itself, for whoever asked may go away, and the others would wait for ever.
            tokio::spawn(Worker(Some(self.clone())).work());
        }
        // If nobody answers, `Envelope::verify` finds it out.
        let _ = verified.await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On its way to take what waits. Where it never comes to that, as in a process that ends, nobody
/// goes on waiting for it.
struct Worker(Option<Arc<Verifier>>);

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(verifier) = self.0.take() {
            verifier.lock().clear();
        }
    }
}

impl Worker {
    async fn work(mut self) {
        give_way().await;
        let Some(verifier) = self.0.take() else {
            return;
        };
        let mut jobs = std::mem::take(&mut *verifier.lock()).into_iter().peekable();
        while jobs.peek().is_some() {
            let (mut some, mut signatures) = (Vec::new(), 0);
            while let Some(job) = jobs.next_if(|_| signatures < TOGETHER) {
                // Whoever has gone away needs no verdict.
                if !job.done.is_closed() {
                    signatures += job.signed.len();
                    some.push(job);
                }
            }
            let signed = some.iter().flat_map(|job| &job.signed);
            let pairs: Vec<_> = signed.map(|(envelope, key)| (&**envelope, key)).collect();
            Envelope::verify_together(&pairs);
            for job in some {
                let _ = job.done.send(());
            }
            give_way().await;
        }
    }
}

/// Lets everybody have the processor who is ready for it. Unlike [`tokio::task::yield_now`] this
/// waits for no thread in particular.
async fn give_way() {
    let mut given = false;
    future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use jingwei_proto::key::{SecretKey, Signer as _};
    use tokio::time::timeout;

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n % 3; 32])
    }

    /// The envelope `n`; those of `forged` have a signature that their key has not made.
    fn envelope(n: u8, forged: &[u8]) -> Arc<Envelope> {
        let (key, payload) = (key(n), vec![n]);
        Arc::new(match forged.contains(&n) {
            true => Envelope::from_parts(payload, key.public().id(), [1; 64]),
            false => Envelope::sign(payload, &key),
        })
    }

    #[tokio::test]
    async fn what_comes_together_is_verified_together_and_forgeries_are_told_apart() {
        let verifier = Arc::new(Verifier::default());
        let forged = [0, 70, 199];
        let all: Vec<_> = (0..200).map(|n| envelope(n, &forged)).collect();
        let mut asked: Vec<_> = (0..)
            .zip(&all)
            .map(|(n, envelope)| {
                let signed = vec![(envelope.clone(), key(n).public().clone())];
                Box::pin(verifier.verify(signed))
            })
            .collect();
        for asking in &mut asked {
            assert!(futures::poll!(asking).is_pending());
        }
        assert_eq!(verifier.lock().len(), all.len());
        let answered = timeout(Duration::from_secs(60), join_all(asked)).await;
        assert_eq!(answered.unwrap().len(), all.len());
        for (n, envelope) in (0..).zip(&all) {
            let holds = envelope.verify(key(n).public()).is_ok();
            assert_eq!(holds, !forged.contains(&n), "{n}");
        }
        assert!(verifier.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_goes_away_leaves_nobody_waiting() {
        let verifier = Arc::new(Verifier::default());
        let ask = |n| verifier.verify(vec![(envelope(n, &[]), key(n).public().clone())]);
        let mut first = Box::pin(ask(1));
        assert!(futures::poll!(&mut first).is_pending());
        let second = ask(2);
        drop(first);
        timeout(Duration::from_secs(60), second).await.unwrap();
        assert!(verifier.lock().is_empty());
    }

    #[test]
    fn a_runtime_that_ends_leaves_nobody_waiting() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
        };
        let verifier = Arc::new(Verifier::default());
        let signed = || vec![(envelope(1, &[]), key(1).public().clone())];
        let (ending, other) = (runtime(), runtime());
        ending.block_on(async {
            let mut asking = Box::pin(verifier.verify(signed()));
            assert!(futures::poll!(&mut asking).is_pending());
            assert_eq!(verifier.lock().len(), 1);
        });
        drop(ending);
        assert!(verifier.lock().is_empty());
        other.block_on(verifier.verify(signed()));
    }
}
