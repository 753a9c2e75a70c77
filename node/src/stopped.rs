//! An agency that takes no part, in words for its own people.

use std::sync::Arc;

use jingwei_proto::state::{AgencyRecord, Authority, Status, authority};
use jingwei_registry::history::Stopped;
use jingwei_registry::standing;

use crate::node::Node;

impl Node {
    /// Since when and why an agency takes no part; `None` if it does.
    pub(crate) fn stopped(&self, record: &AgencyRecord) -> Option<Arc<Stopped>> {
        if record.is_active() {
            return None;
        }
        let stopped = self.known.stopped(self.replica.log(), &record.id);
        stopped.ok().flatten()
    }

    /// The same as a sentence for the agency's own people: what they can do about it, too.
    pub(crate) fn stopped_alarm(&self, record: &AgencyRecord) -> Option<String> {
        let stopped = self.stopped(record)?;
        let id = &record.id;
        let advice = match (record.status, &record.successor) {
            (_, Some(successor)) => format!("its tasks are those of {successor} now"),
            (Status::Suspended, None) => match authority(self.replica.index(), id) {
                Ok(Authority::Agency(superior)) => format!(
                    "ask {}, which lets it go on with ‘jingwei resume {id}’",
                    superior.id
                ),
                _ => format!(
                    "ask the keepers of the root keys, who let it go on with ‘jingwei-registry agency resume {id}’"
                ),
            },
            _ => format!(
                "that is for good: {} can say who has its tasks",
                standing::above(self.replica.index(), id)
            ),
        };
        Some(format!(
            "{id} is {stopped}; it takes no part, and other nodes refuse it: {advice}"
        ))
    }
}
