//! The frames of an answer in their order, of which some may be there before they are asked for.

use std::collections::VecDeque;

use arrow_flight::FlightData;
use futures::FutureExt as _;
use jingwei_proto::id::AgencyId;
use jingwei_registry::fault::{Blame, Fault};
use tonic::Streaming;

use super::messages::Unverified;

/// Frames that are looked at ahead: a short answer has its schema, a batch or two, and its end.
const AHEAD: usize = 4;

/// The frames that a provider sends.
pub(super) struct Frames<'a> {
    coming: Streaming<FlightData>,
    /// What came, and was looked at already.
    ahead: VecDeque<Result<FlightData, Fault>>,
    provider: &'a AgencyId,
}

impl<'a> Frames<'a> {
    /// Of an answer of `provider`.
    pub fn of(coming: Streaming<FlightData>, provider: &'a AgencyId) -> Frames<'a> {
        Frames {
            coming,
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

    /// What may be the receipt, if it has come already.
    pub fn receipt(&mut self) -> Option<Unverified> {
        while self.ahead.len() < AHEAD {
            let frame = self.receive().now_or_never()?;
            let last = frame
                .as_ref()
                .map_or(true, |frame| !frame.app_metadata.is_empty());
            self.ahead.push_back(frame);
            if last {
                break;
            }
        }
        let closing = self.ahead.back()?.as_ref().ok()?;
        Unverified::reply(closing.app_metadata.clone(), self.provider).ok()
    }

    async fn receive(&mut self) -> Result<FlightData, Fault> {
        match self.coming.message().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(
                Fault::new(Blame::Unverified, "the answer ended without a receipt")
                    .at(self.provider),
            ),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }
}
