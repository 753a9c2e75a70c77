//! The provider's side of acknowledgements: they strike off answers that wait for them.

use std::collections::BTreeMap;

use bytes::Bytes;
use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::Acknowledgement;
use jingwei_registry::fault::Fault;
use jingwei_registry::serve::PeerKey;

use super::ledger::Waiting;
use super::messages::{self, Message, Unverified};
use super::provider::{Provider, connected_as};
use crate::journals::{Entry, Kind};

impl Provider {
    /// Takes acknowledgements that came together. What became of each, in their order.
    pub(super) async fn acknowledge(
        &self,
        peer: PeerKey,
        bodies: Vec<Bytes>,
    ) -> Vec<Result<(), Fault>> {
        let node = &self.0;
        let messages: Vec<_> = bodies.into_iter().map(Unverified::read).collect();
        self.verify(peer, messages.iter().flatten()).await;
        let mut outcomes = Vec::with_capacity(messages.len());
        let mut taken: BTreeMap<AgencyId, Vec<Taken>> = BTreeMap::new();
        for (place, message) in messages.into_iter().enumerate() {
            let one = message.and_then(|message| self.take(peer, place, message));
            outcomes.push(one.map(|(provider, one)| {
                taken.entry(provider).or_default().push(one);
            }));
        }
        for (provider, taken) in taken {
            let entries: Vec<Entry<'_>> = taken.iter().map(Taken::entry).collect();
            let Err(fault) = node.journals.enter(&provider, &entries).await else {
                continue;
            };
            for one in taken {
                let nonce = &one.message.body.nonce;
                node.ledger.sent(&one.requester, nonce, one.waiting);
                outcomes[one.place] = Err(fault.clone());
            }
        }
        outcomes
    }

    /// Finds out in one go which signatures hold, of messages that come over their sender's own
    /// connection.
    async fn verify<'a>(&self, peer: PeerKey, messages: impl Iterator<Item = &'a Unverified>) {
        let signed = messages.filter_map(|message| {
            let sender = message.sender().ok()?;
            let member = self.0.member(sender).ok()?;
            connected_as(&self.0, sender, peer).ok()?;
            Some((message.envelope().clone(), member.key.clone()))
        });
        self.0.verifier.verify(signed.collect()).await;
    }

    /// Verifies an acknowledgement and strikes its answer off, for the provider that gave it.
    fn take(
        &self,
        peer: PeerKey,
        place: usize,
        message: Unverified,
    ) -> Result<(AgencyId, Taken), Fault> {
        let node = &self.0;
        let requester = message.sender()?.clone();
        let member = node.member(&requester)?;
        connected_as(node, &requester, peer)?;
        let provider = self.hosted(message.audience()?)?.id().clone();
        let message = messages::verify_acknowledgement(
            message,
            &node.membership.federation,
            &provider,
            &requester,
            &member.key,
            |nonce| node.ledger.expected(&requester, nonce),
        )?;
        let waiting = node
            .ledger
            .acknowledged(&requester, &message.body.nonce)
            .ok_or_else(|| messages::nothing_waits(&requester))?;
        let taken = Taken {
            place,
            requester,
            message,
            waiting,
        };
        Ok((provider, taken))
    }
}

/// An acknowledgement that fits, on its way into the journal.
struct Taken {
    place: usize,
    requester: AgencyId,
    message: Message<Acknowledgement>,
    waiting: Waiting,
}

impl Taken {
    fn entry(&self) -> Entry<'_> {
        let nonce = self.message.body.nonce.as_str();
        (Kind::Acknowledgement, nonce, &self.message.bytes)
    }
}
