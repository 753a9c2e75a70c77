//! Signatures of messages, verified together where several wait for it.
//!
//! What comes while the processors are busy with other exchanges is verified in one go, at less than
//! half of the time for each. Where nobody else has anything to do a message is verified at once.

use std::sync::{Arc, Mutex, PoisonError};

use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::PublicKey;
use tokio::sync::oneshot;

/// A message's envelope, and the key of its sender.
pub type Signed = (Arc<Envelope>, PublicKey);

/// Signatures that are verified in one go: more gain little, and others wait for the processor.
const TOGETHER: usize = 64;

/// Verifies for all exchanges of a node.
#[derive(Default)]
pub struct Verifier {
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
        let (done, verified) = oneshot::channel();
        let first = {
            let mut waiting = self.lock();
            waiting.push(Job { signed, done });
            waiting.len() == 1
        };
        if first {
            // By itself, for whoever asked may go away, and the others would wait for ever.
            tokio::spawn(self.clone().work());
        }
        // If nobody answers, `Envelope::verify` finds it out.
        let _ = verified.await;
    }

    /// Verifies all that waits once everybody else has had the processor.
    async fn work(self: Arc<Self>) {
        tokio::task::yield_now().await;
        let jobs = std::mem::take(&mut *self.lock());
        let signed: Vec<_> = jobs.iter().flat_map(|job| &job.signed).collect();
        for some in signed.chunks(TOGETHER) {
            let pairs: Vec<_> = some
                .iter()
                .map(|(envelope, key)| (&**envelope, key))
                .collect();
            Envelope::verify_together(&pairs);
        }
        for job in jobs {
            // Whoever asked may have gone.
            let _ = job.done.send(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use jingwei_proto::key::{SecretKey, Signer as _};

    use super::*;

    fn signed(n: u8) -> (SecretKey, Arc<Envelope>) {
        let key = SecretKey::from_seed(&[n % 3; 32]);
        let envelope = Envelope::sign(vec![n], &key);
        (key, Arc::new(envelope))
    }

    #[tokio::test]
    async fn what_comes_together_is_verified_together_and_forgeries_are_told_apart() {
        let verifier = Arc::new(Verifier::default());
        let all: Vec<_> = (0..200).map(signed).collect();
        let stranger = SecretKey::from_seed(&[9; 32]);
        let asked = all.iter().enumerate().map(|(n, (key, envelope))| {
            let key = if n == 7 { &stranger } else { key };
            // A forged signature among the others.
            let envelope = match n {
                70 => {
                    let parts = (envelope.payload().to_vec(), envelope.key());
                    Arc::new(Envelope::from_parts(parts.0, parts.1, [1; 64]))
                }
                _ => envelope.clone(),
            };
            let verifier = verifier.clone();
            async move {
                let public = key.public().clone();
                verifier.verify(vec![(envelope.clone(), public)]).await;
                envelope.verify(key.public()).is_ok()
            }
        });
        let held = join_all(asked).await;
        for (n, held) in held.into_iter().enumerate() {
            assert_eq!(held, n != 7 && n != 70, "{n}");
        }
        assert!(verifier.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_goes_away_leaves_nobody_waiting() {
        let verifier = Arc::new(Verifier::default());
        let (key, envelope) = signed(1);
        let ask = || verifier.verify(vec![(envelope.clone(), key.public().clone())]);
        let mut first = Box::pin(ask());
        assert!(futures::poll!(&mut first).is_pending());
        let second = ask();
        drop(first);
        second.await;
        assert!(verifier.lock().is_empty());
    }
}
