//! Snapshots: log time goes on, and with it the delays that wait for it.
//!
//! A delay begins with the first snapshot after the statement that it belongs to. Log time may
//! lie well behind at that statement, and nobody shall gain the difference.

use super::agency::{changed, recoveries};
use super::*;
use crate::words::entries;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn snapshot(
        &self,
        body: &Snapshot,
        root: &RootRecord,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        if self.head.agency.is_some() {
            return Err(reject(Blame::Malformed, "a snapshot is about no agency").into());
        }
        let signer = root.registry.log.clone();
        self.signed_by(&signer)?;
        let last: Option<TimeRecord> = self.state.find(keys::TIME)?;
        let chain = self.continues(last.map(|last| last.chain))?;
        if last.is_some_and(|last| self.head.time <= last.time) {
            return Err(reject(Blame::Stale, "log time never goes back").into());
        }
        if body.size != self.index {
            let reason = format!(
                "it is of {}, and stands after {}",
                entries(body.size),
                self.index
            );
            return Err(reject(Blame::Stale, reason).into());
        }
        let mut writes = self.recover(root)?;
        let record = TimeRecord {
            chain,
            time: self.head.time,
        };
        writes.push(put(keys::TIME.to_owned(), &record));
        Ok((writes, signer))
    }

    /// Starts the delay of new recoveries, and ends those whose delay has passed: the new key
    /// holds from here on.
    fn recover(&self, root: &RootRecord) -> Result<Writes, ApplyError<L::Error>> {
        let listed: Vec<AgencyId> = self.state.find(keys::RECOVERIES)?.unwrap_or_default();
        let delay = i64::try_from(root.recovery_delay).unwrap_or(i64::MAX);
        let mut left = Vec::new();
        let mut writes = Writes::new();
        for id in &listed {
            let mut record = self.member(id)?;
            let Some(recovery) = record.recovery.take() else {
                continue;
            };
            let due = recovery.due.unwrap_or_else(|| self.head.time.plus(delay));
            if due <= self.head.time {
                record.key = recovery.key;
            } else {
                left.push(id.clone());
                if recovery.due.is_some() {
                    continue;
                }
                record.recovery = Some(Recovery {
                    due: Some(due),
                    ..recovery
                });
            }
            writes.extend(changed(&mut record, self.index));
        }
        if left.len() != listed.len() {
            writes.push(recoveries(&left));
        }
        Ok(writes)
    }
}
