//! Agencies: enrolled, changed and ended by their authority; their keys replaced by themselves,
//! or by their authority after a delay.
//!
//! | action | signed by | when |
//! |---|---|---|
//! | enrol | the authority, and the agency's key | never before |
//! | update | the authority | not revoked |
//! | rotate | the agency's key, and the new one | active |
//! | recover | the authority, and the new key | not revoked; takes effect after the delay |
//! | contest | the agency's key | a recovery is pending, even while suspended |
//! | suspend, resume | the authority | active, suspended |
//! | revoke | the authority | not revoked |
//! | successor | the authority | none named yet; it revokes too |

use super::authority::within;
use super::*;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn agency(
        &self,
        body: &Agency,
        root: &RootRecord,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        if let Action::Enrol(enrolment) = &body.action {
            return self.enrol(enrolment, root);
        }
        let record = self.member(self.agency_id()?)?;
        let signer = self.signer_of(&body.action, &record, root)?;
        let chain = self.continues(Some(record.chain))?;
        let mut writes = Writes::new();
        let had_recovery = record.recovery.is_some();
        let mut record = AgencyRecord { chain, ..record };
        match &body.action {
            Action::Enrol(_) => {}
            Action::Update(attributes) => update(&mut record, attributes.clone()),
            Action::Rotate(new) => {
                writes.push(self.take_key(new, &record.id)?);
                record.key = new.key.clone();
                record.recovery = None;
            }
            Action::Recover(new) => {
                writes.push(self.take_key(new, &record.id)?);
                record.recovery = Some(Recovery {
                    key: new.key.clone(),
                    due: None,
                });
            }
            Action::Contest(_) => contest(&mut record)?,
            Action::Suspend(_) => turn(&mut record, Status::Active, Status::Suspended)?,
            Action::Resume(_) => turn(&mut record, Status::Suspended, Status::Active)?,
            Action::Revoke(_) => end(&mut record),
            Action::Successor(named) => self.succeed(&mut record, named)?,
        }
        if had_recovery != record.recovery.is_some() {
            writes.extend(self.list_recovery(&record)?);
        }
        writes.extend(changed(&mut record, self.index));
        Ok((writes, signer))
    }

    fn enrol(
        &self,
        body: &Enrolment,
        root: &RootRecord,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let id = self.agency_id()?;
        let above = authority(self.state, id)?;
        let signer = self.signed_by_authority(&above, root)?;
        let attributes = body.attributes();
        within(id, &attributes, &above)?;
        if self
            .state
            .find::<AgencyRecord>(&keys::agency(id))?
            .is_some()
        {
            let reason = format!("{id} is enrolled; an id is given once");
            return Err(reject(Blame::Inconsistent, reason).into());
        }
        let chain = self.continues(None)?;
        self.consent_of(&body.key)?;
        let mut writes = vec![self.use_new_key(&body.key, id)?];
        let mut record = AgencyRecord {
            chain,
            id: id.clone(),
            name: attributes.name,
            level: attributes.level,
            territory: attributes.territory,
            roles: attributes.roles,
            key: body.key.clone(),
            status: Status::Active,
            successor: None,
            recovery: None,
            changes: 0,
        };
        writes.extend(changed(&mut record, self.index));
        Ok((writes, signer))
    }

    /// Who must sign the action, seen to have signed it, and that the agency is still there.
    fn signer_of(
        &self,
        action: &Action,
        record: &AgencyRecord,
        root: &RootRecord,
    ) -> Result<PublicKey, ApplyError<L::Error>> {
        let signer = match action {
            Action::Rotate(_) => self.signing_agency()?.key,
            // The old key's objection counts while the agency is suspended too; otherwise a
            // suspension would take the delay away.
            Action::Contest(_) => {
                self.signed_by(&record.key)?;
                record.key.clone()
            }
            _ => {
                let above = authority(self.state, &record.id)?;
                let signer = self.signed_by_authority(&above, root)?;
                if let Action::Update(attributes) = action {
                    within(&record.id, attributes, &above)?;
                }
                signer
            }
        };
        let ended = record.status == Status::Revoked;
        if ended && !matches!(action, Action::Successor(_)) {
            let reason = format!("{} was revoked, and that is final", record.id);
            return Err(reject(Blame::Inconsistent, reason).into());
        }
        Ok(signer)
    }

    /// The new key has never been used, and somebody holds it.
    fn take_key(&self, new: &NewKey, id: &AgencyId) -> Result<Write, ApplyError<L::Error>> {
        self.consent_of(&new.key)?;
        self.use_new_key(&new.key, id)
    }

    fn succeed(
        &self,
        record: &mut AgencyRecord,
        named: &Successor,
    ) -> Result<(), ApplyError<L::Error>> {
        if let Some(known) = &record.successor {
            let reason = format!("{} has a successor already: {known}", record.id);
            return Err(reject(Blame::Inconsistent, reason).into());
        }
        let successor: Option<AgencyRecord> = self.state.find(&keys::agency(&named.successor))?;
        let fits = successor.is_some_and(|successor| successor.is_active());
        if !fits || named.successor == record.id {
            let reason = format!("{} is no other agency in force", named.successor);
            return Err(reject(Blame::Inconsistent, reason).into());
        }
        record.successor = Some(named.successor.clone());
        end(record);
        Ok(())
    }

    /// Enters the agency in the list of recoveries that the next snapshots look at, or strikes
    /// it out.
    fn list_recovery(&self, record: &AgencyRecord) -> Result<Writes, ApplyError<L::Error>> {
        let mut listed: Vec<AgencyId> = self.state.find(keys::RECOVERIES)?.unwrap_or_default();
        listed.retain(|id| *id != record.id);
        if record.recovery.is_some() {
            listed.push(record.id.clone());
        }
        if listed.len() > MOST_RECOVERIES {
            let reason = format!("{MOST_RECOVERIES} recoveries are under way already");
            return Err(reject(Blame::Inconsistent, reason).into());
        }
        Ok(vec![recoveries(&listed)])
    }
}

/// Recoveries that may be under way at one time: each snapshot looks at all of them.
const MOST_RECOVERIES: usize = 1_000;

/// The record of the recoveries that are under way; there is none when none is.
pub(super) fn recoveries(listed: &[AgencyId]) -> Write {
    let record = (!listed.is_empty()).then(|| canonical(&listed));
    (keys::RECOVERIES.to_owned(), record)
}

/// The record as the entry at `index` leaves it, and that it was this entry.
pub(super) fn changed(record: &mut AgencyRecord, index: u64) -> Writes {
    record.changes += 1;
    vec![
        put(keys::agency(&record.id), record),
        put(keys::change(&record.id, record.changes), &index),
    ]
}

fn update(record: &mut AgencyRecord, attributes: Attributes) {
    record.name = attributes.name;
    record.level = attributes.level;
    record.territory = attributes.territory;
    record.roles = attributes.roles;
}

fn contest(record: &mut AgencyRecord) -> Result<(), Rejection> {
    if record.recovery.take().is_none() {
        let reason = format!("no recovery of the key of {} is under way", record.id);
        return Err(reject(Blame::Inconsistent, reason));
    }
    Ok(())
}

fn turn(record: &mut AgencyRecord, from: Status, to: Status) -> Result<(), Rejection> {
    if record.status != from {
        let reason = format!("{} is {}, not {from}", record.id, record.status);
        return Err(reject(Blame::Inconsistent, reason));
    }
    record.status = to;
    Ok(())
}

fn end(record: &mut AgencyRecord) {
    record.status = Status::Revoked;
    record.recovery = None;
}
