//! Agencies: enrolled by their superior, within what it answers for.

use super::*;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn enrol(
        &self,
        body: &Agency,
        root: &RootRecord,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let id = self.agency_id()?;
        let signer = match id.superior() {
            None => self.signed_by_threshold(&root.keys, root.threshold)?,
            Some(superior) => {
                let superior = self.member(&superior)?;
                self.signed_by(&superior.key)?;
                within(body, &superior)?;
                superior.key
            }
        };
        if find::<AgencyRecord, L>(self.state, &keys::agency(id))?.is_some() {
            return Err(reject(
                Blame::Inconsistent,
                format!("{id} is enrolled; an id is given once"),
            )
            .into());
        }
        let chain = self.continues(None)?;
        self.consent_of(&body.key)?;
        let owner = keys::signer(body.key.id());
        let is_root_key = root.keys.contains(&body.key);
        if is_root_key || find::<AgencyId, L>(self.state, &owner)?.is_some() {
            return Err(reject(Blame::Inconsistent, "the key is in use already").into());
        }
        let record = AgencyRecord {
            chain,
            id: id.clone(),
            name: body.name.clone(),
            level: body.level,
            territory: body.territory.clone(),
            roles: body.roles.clone(),
            key: body.key.clone(),
        };
        Ok((vec![put(keys::agency(id), &record), put(owner, id)], signer))
    }
}

/// A child's level, territory and roles lie within its superior's.
fn within(child: &Agency, superior: &AgencyRecord) -> Result<(), Rejection> {
    let refuse = |reason: String| Err(reject(Blame::Unauthorised, reason));
    if child.level < superior.level {
        return refuse(format!(
            "level {} is above that of {} ({})",
            child.level, superior.id, superior.level
        ));
    }
    if !child.territory.lies_within(&superior.territory) {
        return refuse(format!(
            "{} does not lie within {} of {}",
            child.territory, superior.territory, superior.id
        ));
    }
    // Only the root grants roles so far, and standards always.
    if !child.roles.is_empty() {
        return refuse("only the root grants the standards role".to_owned());
    }
    Ok(())
}
