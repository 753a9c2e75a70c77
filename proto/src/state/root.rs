//! The root document: what starts a federation, and each later version of it.

use super::*;
use crate::words::entries;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn root(
        &self,
        body: &Root,
        current: Option<RootRecord>,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        if body.version != self.head.sequence {
            return Err(reject(Blame::Malformed, "the root's version is not its sequence").into());
        }
        let mut sets: Vec<(&[PublicKey], u64)> = vec![(&body.keys, body.threshold)];
        if let Some(current) = &current {
            self.follows(body, current)?;
            sets.push((&current.keys, current.threshold));
        } else if self.index != 0 || body.continues.is_some() {
            let reason = "the first root document is the log's first entry";
            return Err(reject(Blame::Inconsistent, reason).into());
        }
        let signer = self.signed_by_thresholds(&sets)?;
        let chain = self.continues(current.map(|root| root.chain))?;
        let mut writes = self.root_keys(body)?;
        // Last of all: only a root that counts can ask for anything.
        if body.rules > RULES {
            return Err(ApplyError::RulesTooNew(body.rules));
        }
        let record = RootRecord::of(self.head, body, chain);
        writes.push(put(keys::ROOT.to_owned(), &record));
        writes.push(put(keys::root_version(body.version), &record));
        Ok((writes, signer))
    }

    /// What a later version may change, and what only a take-over may.
    fn follows(&self, body: &Root, current: &RootRecord) -> Result<(), Rejection> {
        let refuse = |reason: String| Err(reject(Blame::Inconsistent, reason));
        if self.head.federation != current.federation {
            return refuse("it belongs to another federation".into());
        }
        if body.rules < current.rules {
            return refuse(format!("rules {} are in force already", current.rules));
        }
        match &body.continues {
            None if body.registry.origin != current.registry.origin => refuse(format!(
                "a log with another name says which log it continues, and this one is {}",
                current.registry.origin
            )),
            Some(before) if before.origin != current.registry.origin => refuse(format!(
                "it continues {}, and this log is {}",
                before.origin, current.registry.origin
            )),
            Some(before) if before.size != self.index => refuse(format!(
                "it continues {}, and stands after {}",
                entries(before.size),
                self.index
            )),
            _ => Ok(()),
        }
    }

    /// Every key that the root names has this one purpose, now and ever.
    fn root_keys(&self, body: &Root) -> Result<Writes, ApplyError<L::Error>> {
        let registry = [
            (&body.registry.log, Purpose::Log),
            (&body.registry.cosigner, Purpose::Cosigner),
        ];
        let roots = body.keys.iter().map(|key| (key, Purpose::Root));
        let witnesses = body.witnesses.iter();
        let witnesses = witnesses.map(|witness| (&witness.key, Purpose::Witness));
        let mut writes = Writes::new();
        for (key, purpose) in registry.into_iter().chain(roots).chain(witnesses) {
            writes.extend(self.use_key(key, purpose)?);
        }
        Ok(writes)
    }
}
