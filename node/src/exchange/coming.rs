//! The frames of an answer as they come, of which those that are there already may be looked at.

use std::collections::VecDeque;

use arrow_flight::FlightData;
use futures::{FutureExt as _, Stream, StreamExt as _};
use jingwei_proto::id::AgencyId;
use jingwei_registry::fault::{Blame, Fault};
use tonic::Status;

use super::SHORT;
use super::messages::Unverified;

/// Frames that are looked at before their turn: an answer that is short has a batch or two after its
/// schema, and its end.
const FRAMES: usize = 3;

/// The frames that a provider sends.
pub(super) struct Coming<'a, S> {
    stream: S,
    /// What came before its turn.
    ahead: VecDeque<Result<FlightData, Fault>>,
    provider: &'a AgencyId,
}

impl<'a, S: Stream<Item = Result<FlightData, Status>> + Unpin> Coming<'a, S> {
    /// Of an answer of `provider`.
    pub fn new(stream: S, provider: &'a AgencyId) -> Coming<'a, S> {
        Coming {
            stream,
            ahead: VecDeque::new(),
            provider,
        }
    }

    /// The next frame, once it has come.
    pub async fn next(&mut self) -> Result<FlightData, Fault> {
        match self.ahead.pop_front() {
            Some(frame) => frame,
            None => self.receive().await,
        }
    }

    /// The message of what may be the closing frame, if that has come already. Nothing waits for it,
    /// and every frame is still handed out in its turn.
    pub fn peek_closing(&mut self) -> Option<Unverified> {
        let mut bytes = 0;
        while self.ahead.len() < FRAMES && bytes <= SHORT {
            let frame = self.receive().now_or_never()?;
            bytes += frame.as_ref().map_or(0, |frame| frame.data_body.len());
            // Batches carry no message.
            let stop = frame
                .as_ref()
                .map_or(true, |frame| !frame.app_metadata.is_empty());
            self.ahead.push_back(frame);
            if stop {
                break;
            }
        }
        let closing = self.ahead.back()?.as_ref().ok()?;
        Unverified::reply(closing.app_metadata.clone(), self.provider).ok()
    }

    async fn receive(&mut self) -> Result<FlightData, Fault> {
        match self.stream.next().await {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(status)) => Err(Fault::from_status(&status)),
            None => Err(
                Fault::new(Blame::Unverified, "the answer ended without a receipt")
                    .at(self.provider),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;
    use jingwei_proto::id::FederationId;
    use jingwei_proto::key::SecretKey;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::super::messages::Party;
    use super::*;

    fn provider() -> AgencyId {
        "aa".parse().unwrap()
    }

    /// A message, as the closing frame has one.
    fn message() -> Bytes {
        let federation = FederationId::new("test", [0; 8]).unwrap();
        let key = SecretKey::from_seed(&[1; 32]);
        let party = Party {
            federation: &federation,
            agency: &provider(),
            key: &key,
        };
        let seen = jingwei_proto::statement::Seen {
            size: 0,
            root: jingwei_proto::digest::Digest::of(b""),
        };
        let now = "2024-06-01T12:00:00Z".parse().unwrap();
        let request = party.request(now, &provider(), "SELECT 1".into(), seen, None, None);
        request.bytes
    }

    fn batch(n: u8, bytes: usize) -> FlightData {
        FlightData {
            data_body: vec![n; bytes].into(),
            ..FlightData::default()
        }
    }

    fn closing() -> FlightData {
        FlightData {
            app_metadata: message(),
            ..FlightData::default()
        }
    }

    /// What is handed out: the first byte of each batch, 0 for a frame without, and the first
    /// failure.
    async fn handed<S>(coming: &mut Coming<'_, S>) -> (Vec<u8>, Fault)
    where
        S: Stream<Item = Result<FlightData, Status>> + Unpin,
    {
        let mut all = Vec::new();
        loop {
            match coming.next().await {
                Ok(frame) => all.push(frame.data_body.first().copied().unwrap_or(0)),
                Err(fault) => return (all, fault),
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_there_shows_its_end_and_loses_nothing() {
        let provider = provider();
        let last = closing();
        let all = [batch(1, 10), batch(2, 10), last.clone()].map(Ok);
        let mut coming = Coming::new(stream::iter(all), &provider);
        let found = coming.peek_closing().expect("it is there");
        assert_eq!(*found.bytes(), last.app_metadata);
        let (frames, fault) = handed(&mut coming).await;
        assert_eq!(frames, [1, 2, 0]);
        assert!(fault.message.contains("without a receipt"), "{fault}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_waited_for() {
        let provider = provider();
        let (sender, receiver) = mpsc::channel(9);
        let mut coming = Coming::new(ReceiverStream::new(receiver), &provider);
        assert!(coming.peek_closing().is_none());
        sender.send(Ok(batch(1, 10))).await.unwrap();
        assert!(coming.peek_closing().is_none());
        sender.send(Ok(batch(2, 10))).await.unwrap();
        sender.send(Ok(closing())).await.unwrap();
        assert!(coming.peek_closing().is_some());
        drop(sender);
        assert_eq!(handed(&mut coming).await.0, [1, 2, 0]);
    }

    #[tokio::test]
    async fn long_answers_and_failures_come_in_their_order() {
        let provider = provider();
        let failed = Status::unavailable("it went away");
        let cases = [
            (vec![Ok(batch(1, 10)), Err(failed.clone())], 1),
            (vec![Ok(batch(1, SHORT + 1)), Ok(closing())], 1),
            ((1..9).map(|n| Ok(batch(n, 10))).collect(), FRAMES),
            (vec![], 0),
        ];
        for (frames, ahead) in cases {
            let expected: Vec<u8> = frames
                .iter()
                .flatten()
                .map(|frame: &FlightData| frame.data_body.first().copied().unwrap_or(0))
                .collect();
            let mut coming = Coming::new(stream::iter(frames), &provider);
            assert!(coming.peek_closing().is_none());
            let read = coming.ahead.iter().filter(|frame| frame.is_ok());
            assert_eq!(read.count(), ahead);
            assert_eq!(handed(&mut coming).await.0, expected);
        }
    }
}
