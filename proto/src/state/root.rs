//! The root document: what starts a federation, and each later version of it.

use super::*;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn root(
        &self,
        body: &Root,
        current: Option<RootRecord>,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        if body.version != self.head.sequence {
            return Err(reject(Blame::Malformed, "the root's version is not its sequence").into());
        }
        if let Some(current) = &current {
            if self.head.federation != current.federation {
                return Err(reject(Blame::Inconsistent, "it belongs to another federation").into());
            }
            self.signed_by_threshold(&current.keys, current.threshold)?;
        } else if self.index != 0 {
            return Err(reject(
                Blame::Inconsistent,
                "the first root document is the log's first entry",
            )
            .into());
        }
        let signer = self.signed_by_threshold(&body.keys, body.threshold)?;
        let chain = self.continues(current.map(|root| root.chain))?;
        // Last of all: only a root that counts can ask for anything.
        if body.rules > RULES {
            return Err(ApplyError::RulesTooNew(body.rules));
        }
        let record = RootRecord {
            chain,
            federation: self.head.federation.clone(),
            keys: body.keys.clone(),
            threshold: body.threshold,
            registry: body.registry.clone(),
            witnesses: body.witnesses.clone(),
            quorum: body.quorum,
        };
        Ok((vec![put(keys::ROOT.to_owned(), &record)], signer))
    }
}
