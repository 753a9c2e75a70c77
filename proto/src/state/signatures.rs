//! Who signed an entry, who consented to it, and what it continues.

use super::*;
use crate::words::counted;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn agency_id(&self) -> Result<&AgencyId, Rejection> {
        self.statement
            .agency()
            .map_err(|error| reject(Blame::Malformed, error.to_string()))
    }

    pub(super) fn member(&self, id: &AgencyId) -> Result<AgencyRecord, ApplyError<L::Error>> {
        member(self.state, id)
    }

    /// The agency that the statement is about, once its own signature is seen to hold. It may
    /// act: neither is it suspended, nor was it ended.
    pub(super) fn signing_agency(&self) -> Result<AgencyRecord, ApplyError<L::Error>> {
        let agency = self.member(self.agency_id()?)?;
        self.signed_by(&agency.key)?;
        if !agency.is_active() {
            let reason = format!("{} is {}", agency.id, agency.status);
            return Err(reject(Blame::Unauthorised, reason).into());
        }
        Ok(agency)
    }

    pub(super) fn signed_by(&self, key: &PublicKey) -> Result<(), Rejection> {
        if self.envelope.key() != key.id() {
            let reason = format!(
                "it is signed with key {}, and {} must sign it",
                self.envelope.key(),
                key.id()
            );
            return Err(reject(Blame::Unauthorised, reason));
        }
        self.envelope
            .verify(key)
            .map_err(|_| reject(Blame::Forged, "the signature does not match"))
    }

    /// The outer signer is one of the keys, and with the consents each set has its threshold.
    ///
    /// A root document answers to two sets, the old and the new keys; its outer signer may be of
    /// either.
    pub(super) fn signed_by_thresholds(
        &self,
        sets: &[(&[PublicKey], u64)],
    ) -> Result<PublicKey, Rejection> {
        let outer = sets
            .iter()
            .flat_map(|(keys, _)| *keys)
            .find(|key| key.id() == self.envelope.key())
            .ok_or_else(|| reject(Blame::Unauthorised, "the signer is not a root key"))?;
        self.signed_by(outer)?;
        let proposal = self.statement.proposal().payload();
        for (keys, threshold) in sets {
            let mut agreed = 0;
            for key in *keys {
                if key == outer || self.consents_from(key, &proposal)? {
                    agreed += 1;
                }
            }
            if agreed < *threshold {
                let reason = format!("{agreed} root keys signed, and {threshold} must");
                return Err(reject(Blame::Unauthorised, reason));
            }
        }
        Ok(outer.clone())
    }

    /// The new key itself agrees: somebody holds it.
    pub(super) fn consent_of(&self, key: &PublicKey) -> Result<(), Rejection> {
        if !self.consents_from(key, &self.statement.proposal().payload())? {
            return Err(reject(
                Blame::Unauthorised,
                "the signature of the agency's new key (proof of possession) is missing",
            ));
        }
        Ok(())
    }

    /// Whether a consent by `key` is there; a broken one is a forgery, not an absence.
    pub(super) fn consents_from(
        &self,
        key: &PublicKey,
        proposal: &[u8],
    ) -> Result<bool, Rejection> {
        let id = key.id();
        let Some(consent) = self
            .statement
            .consents()
            .iter()
            .find(|consent| consent.key() == id)
        else {
            return Ok(false);
        };
        if consent.payload() != proposal {
            return Err(reject(
                Blame::Inconsistent,
                "a consent was given to another statement",
            ));
        }
        consent
            .verify(key)
            .map_err(|_| reject(Blame::Forged, "the signature of a consent does not match"))?;
        Ok(true)
    }

    /// The link that this statement adds to its chain, whose newest link is `current`.
    pub(super) fn continues(&self, current: Option<Chain>) -> Result<Chain, Rejection> {
        let expected = current.map_or(1, |chain| chain.sequence + 1);
        let previous = current.map(|chain| chain.payload);
        if self.head.sequence != expected || self.head.previous != previous {
            let (chain, sequence) = (self.statement.chain(), self.head.sequence);
            let reason = match current {
                Some(newest) if sequence > expected => format!(
                    "the one before this is not in the log: {chain} has {}, and this is number {sequence}",
                    counted(newest.sequence, "statement", "statements")
                ),
                Some(newest) => format!(
                    "{chain} has changed since this was made: its newest statement is number {}, and this, number {sequence}, does not follow that",
                    newest.sequence
                ),
                None => format!("{chain} has no statement yet, and this is number {sequence}"),
            };
            return Err(reject(Blame::Stale, reason));
        }
        Ok(Chain {
            sequence: expected,
            payload: self.envelope.payload_digest(),
            index: self.index,
        })
    }
}

/// An agency of the federation.
pub(super) fn member<L: Lookup>(
    state: &L,
    id: &AgencyId,
) -> Result<AgencyRecord, ApplyError<L::Error>> {
    state
        .find(&keys::agency(id))?
        .ok_or_else(|| reject(Blame::Unauthorised, format!("{id} is not enrolled")).into())
}
