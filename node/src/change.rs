//! Changing an agency: what a hosted agency does with itself, or with one below it.

use std::sync::Arc;

use jingwei_proto::id::AgencyId;
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::state::{AgencyRecord, ApplyError, Authority, authority};
use jingwei_proto::statement::{
    Action, Attributes, NewKey, Predicate, Reason, Statement, Successor,
};
use jingwei_proto::wire::node::{ChangeAgencyRequest, ChangeAgencyResponse};
use jingwei_registry::enrolment::parse_territory;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::history;
use jingwei_registry::lifecycle::{self, RecoveryProposal};
use jingwei_registry::rehearsal;
use jingwei_registry::standing;

use crate::agency::{AgencyError, HostedAgency};
use crate::node::{Node, index_fault};

/// A change before it is signed.
struct Change {
    statement: Statement,
    signer: Arc<HostedAgency>,
    record: Arc<AgencyRecord>,
}

impl Node {
    /// Explains a change of an agency, or makes it, unless the agency is already what it is to be.
    pub async fn change_agency(
        &self,
        request: &ChangeAgencyRequest,
    ) -> Result<ChangeAgencyResponse, Fault> {
        self.knows_the_rules()?;
        let change = self.planned(request)?;
        let Predicate::Agency(agency) = &change.statement.predicate else {
            return Err(Fault::new(Blame::Internal, "a change is about an agency"));
        };
        let record = &change.record;
        let (index, log) = (self.replica.index(), self.replica.log());
        if let Some(already) = history::already(index, log, record, &agency.action) {
            return Ok(ChangeAgencyResponse {
                agency: record.id.to_string(),
                already,
                ..ChangeAgencyResponse::default()
            });
        }
        let root = index.root().map_err(index_fault)?;
        let root = root.ok_or_else(|| Fault::new(Blame::Unavailable, "the replica is empty"))?;
        let by = change.signer.id().as_str();
        let stopped = self.stopped(record);
        let because = stopped.as_ref().and_then(|stopped| stopped.reason());
        let mut response = ChangeAgencyResponse {
            agency: record.id.to_string(),
            explanation: lifecycle::explain(record, &agency.action, by, &root, because),
            ..ChangeAgencyResponse::default()
        };
        // Refused here before anybody is asked, and not only by the registry afterwards.
        let envelope = change.statement.sign(&change.signer.signing);
        rehearsal::judge(index, &envelope)?;
        if request.enter {
            response.index = self.enter(&envelope).await.map_err(made_anew)?;
            self.settle_keys();
        }
        Ok(response)
    }

    /// Each hosted agency signs with the key that the log shows in force, if the node has it.
    pub(crate) fn settle_keys(&self) {
        for agency in self.agencies.values() {
            let Ok(Some(record)) = self.known.agency(agency.id()) else {
                continue;
            };
            match agency.signing.settle(&record.key) {
                Ok(true) => {}
                Ok(false) => tracing::error!(
                    agency = %agency.id(),
                    in_force = %record.key.id(),
                    own = %agency.signing.public().id(),
                    "the agency's key in the registry is another one than this node has"
                ),
                Err(error) => {
                    tracing::error!(agency = %agency.id(), %error, "the agency's new key is not in its place");
                }
            }
        }
    }

    /// What the keeper of an agency's keys must know of them, in sentences.
    pub(crate) fn key_alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        for agency in self.agencies.values() {
            let Ok(Some(record)) = self.known.agency(agency.id()) else {
                continue;
            };
            let id = agency.id();
            if let Some(stopped) = self.stopped_alarm(&record) {
                alarms.push(stopped);
            } else if record.key != *agency.signing.public() {
                alarms.push(format!(
                    "the key of {id} in the registry is {}, which this node has not",
                    record.key.id()
                ));
            }
            if let Some(recovery) = &record.recovery {
                let due = recovery
                    .due
                    .map_or_else(String::new, |due| format!(" from {due} on"));
                alarms.push(format!(
                    "the key of {id} is replaced by {}{due}, by word of {}: if you did not ask for it, ‘jingwei contest --agency {id}’",
                    recovery.key.id(),
                    standing::above(self.replica.index(), id)
                ));
            }
        }
        alarms
    }

    fn planned(&self, request: &ChangeAgencyRequest) -> Result<Change, Fault> {
        match request.action.as_str() {
            "rotate" | "contest" => self.planned_by_itself(request),
            "recover" => self.planned_recovery(request),
            _ => self.planned_by_superior(request),
        }
    }

    fn planned_by_itself(&self, request: &ChangeAgencyRequest) -> Result<Change, Fault> {
        let signer = self.hosted_agency(&request.agency)?;
        let record = self.enrolled(signer.id())?;
        if request.action == "contest" {
            let above = standing::above(self.replica.index(), &record.id);
            contestable(&record, signer.signing.public(), &above)?;
            let action = Action::Contest(reason(request));
            let statement = self.change_of(&record, action);
            return Ok(Change {
                statement,
                signer,
                record,
            });
        }
        self.in_force(signer.id())?;
        let used = |key: &PublicKey| {
            let pending = record.recovery.as_ref();
            pending.is_none_or(|pending| pending.key != *key)
                && self
                    .replica
                    .index()
                    .key(key.id())
                    .is_ok_and(|known| known.is_some())
        };
        let key = signer
            .signing
            .stage(used)
            .map_err(|error| Fault::new(Blame::Internal, AgencyError::from(error).to_string()))?;
        let new = NewKey {
            key: key.public().clone(),
        };
        let statement = self.change_of(&record, Action::Rotate(new));
        let statement = statement.with_consents(vec![statement.sign(key)]);
        Ok(Change {
            statement,
            signer: signer.clone(),
            record,
        })
    }

    fn planned_recovery(&self, request: &ChangeAgencyRequest) -> Result<Change, Fault> {
        let proposal = RecoveryProposal::parse(&request.proposal)?;
        let record = self.named(proposal.agency()?)?;
        let signer = self.hosted_authority(&record.id, "recover")?;
        self.changeable(&record, &Action::Recover(proposal.new.clone()))?;
        Ok(Change {
            statement: proposal.statement(&record)?,
            signer,
            record,
        })
    }

    fn planned_by_superior(&self, request: &ChangeAgencyRequest) -> Result<Change, Fault> {
        let wrong = |error: String| Fault::new(Blame::WrongUse, error);
        let id: AgencyId = request
            .agency
            .parse()
            .map_err(|error| wrong(format!("{error}")))?;
        let record = self.named(&id)?;
        let action = match request.action.as_str() {
            "suspend" => Action::Suspend(reason(request)),
            "resume" => Action::Resume(reason(request)),
            "revoke" => Action::Revoke(reason(request)),
            "successor" => Action::Successor(Successor {
                successor: request
                    .successor
                    .parse()
                    .map_err(|error| wrong(format!("{error}")))?,
                reason: reason(request).reason,
            }),
            "update" => Action::Update(updated(request, &record).map_err(wrong)?),
            other => return Err(wrong(format!("there is no action ‘{other}’"))),
        };
        let signer = self.hosted_authority(&id, &request.action)?;
        self.changeable(&record, &action)?;
        Ok(Change {
            statement: self.change_of(&record, action),
            signer,
            record,
        })
    }

    /// The agency that somebody names who wants to change it.
    fn named(&self, id: &AgencyId) -> Result<Arc<AgencyRecord>, Fault> {
        let record = self.known.agency(id).map_err(index_fault)?;
        record.ok_or_else(|| standing::unknown(self.replica.index(), id))
    }

    fn changeable(&self, record: &AgencyRecord, action: &Action) -> Result<(), Fault> {
        standing::changeable(self.replica.index(), self.replica.log(), record, action)
    }

    fn change_of(&self, record: &AgencyRecord, action: Action) -> Statement {
        let federation = &self.membership.federation;
        lifecycle::statement(federation, record, action, (self.clock)())
    }

    /// Who may change an agency, if this node hosts it.
    fn hosted_authority(&self, id: &AgencyId, action: &str) -> Result<Arc<HostedAgency>, Fault> {
        let above = authority(self.replica.index(), id).map_err(|error| match error {
            ApplyError::Storage(error) => index_fault(error),
            error => Fault::new(Blame::NotFound, error.to_string()),
        })?;
        let refuse = |advice: String| {
            Fault::new(
                Blame::Unauthorised,
                format!("{id} is changed by {above}, which this node does not host"),
            )
            .advise(advice)
        };
        match &above {
            Authority::Root => Err(refuse(format!(
                "the root's keepers run ‘jingwei-registry agency {action}’"
            ))),
            Authority::Agency(superior) => self
                .agencies
                .get(&superior.id)
                .cloned()
                .ok_or_else(|| refuse(format!("{} runs this command", superior.id))),
        }
    }
}

/// What the registry has seen and this node has not yet is in the way once only.
fn made_anew(fault: Fault) -> Fault {
    match fault.blame {
        Blame::Stale => fault.advise("do the same again: it is made anew, after what is new"),
        _ => fault,
    }
}

/// Whether there is a recovery that the agency's own key can still cancel.
fn contestable(record: &AgencyRecord, own: &PublicKey, above: &str) -> Result<(), Fault> {
    let id = &record.id;
    if record.recovery.is_some() {
        return Ok(());
    }
    if record.key == *own {
        let reason =
            format!("no recovery of the key of {id} is under way: there is nothing to contest");
        return Err(Fault::new(Blame::Inconsistent, reason)
            .advise("its key stays as it is; ‘jingwei doctor’ tells when a recovery is begun"));
    }
    let reason = format!(
        "the key of {id} in the registry is {} now, which this node has not: the delay of a recovery is over, and it can be contested no longer",
        record.key.id()
    );
    Err(Fault::new(Blame::Unauthorised, reason).advise(format!(
        "if you did not ask for it, ask {above} to suspend {id}; a key of your own comes back by ‘jingwei recover --agency {id}’ with the node stopped, and by word of {above}"
    )))
}

fn reason(request: &ChangeAgencyRequest) -> Reason {
    Reason {
        reason: Some(request.reason.clone()).filter(|reason| !reason.is_empty()),
    }
}

/// What the agency is, with what the request changes of it.
fn updated(request: &ChangeAgencyRequest, record: &AgencyRecord) -> Result<Attributes, String> {
    let territory = match request.territory.as_str() {
        "" => record.territory.clone(),
        text => parse_territory(text)?,
    };
    Ok(Attributes {
        name: match request.name.as_str() {
            "" => record.name.clone(),
            name => name.to_owned(),
        },
        level: match request.level {
            0 => record.level,
            level => level,
        },
        territory,
        roles: record.roles.clone(),
    })
}
