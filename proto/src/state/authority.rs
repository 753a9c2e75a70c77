//! Who may change an agency: its superior, or whoever stands in for one that cannot act.
//!
//! An agency's superior is the agency whose id is one label shorter. Where that one was ended,
//! its successor acts; where it is suspended, or ended without a successor in force, the next
//! one above does, and above the last the root. So no agency is ever left without an authority,
//! and a suspension does not reach below the agency that it names.

use super::*;

/// Who may enrol, change and end an agency.
#[derive(Debug, Clone)]
pub enum Authority {
    /// k of n root keys; the root holds every level, territory and role.
    Root,
    /// An agency in force.
    Agency(Box<AgencyRecord>),
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authority::Root => f.write_str("the root"),
            Authority::Agency(agency) => agency.id.fmt(f),
        }
    }
}

/// The authority over `id`, whether it is enrolled yet or not.
pub fn authority<L: Lookup>(state: &L, id: &AgencyId) -> Result<Authority, ApplyError<L::Error>> {
    let mut above = id.superior();
    while let Some(next) = above {
        let superior = member(state, &next)?;
        if superior.is_active() {
            return Ok(Authority::Agency(Box::new(superior)));
        }
        if let Some(successor) = last_successor(state, superior)?
            && !lies_below(&successor.id, id)
        {
            return Ok(Authority::Agency(Box::new(successor)));
        }
        above = next.superior();
    }
    Ok(Authority::Root)
}

/// The one in force at the end of the successors. They never come round in a circle: a
/// successor is in force when it is named, and one who was ended never is again.
fn last_successor<L: Lookup>(
    state: &L,
    ended: AgencyRecord,
) -> Result<Option<AgencyRecord>, ApplyError<L::Error>> {
    let mut next = ended.successor;
    while let Some(id) = next {
        let record = member(state, &id)?;
        if record.is_active() {
            return Ok(Some(record));
        }
        next = record.successor;
    }
    Ok(None)
}

impl<L: Lookup> Entry<'_, L> {
    /// Checks that the authority signed.
    pub(super) fn signed_by_authority(
        &self,
        authority: &Authority,
        root: &RootRecord,
    ) -> Result<PublicKey, Rejection> {
        match authority {
            Authority::Root => self.signed_by_thresholds(&[(&root.keys, root.threshold)]),
            Authority::Agency(superior) => {
                self.signed_by(&superior.key)?;
                Ok(superior.key.clone())
            }
        }
    }
}

/// Whether `id` is `top` or below it: nobody is its own authority, nor its superior's.
fn lies_below(id: &AgencyId, top: &AgencyId) -> bool {
    let rest = id.as_str().strip_prefix(top.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// An agency's level, territory and roles lie within its authority's.
pub(super) fn within(
    id: &AgencyId,
    child: &Attributes,
    authority: &Authority,
) -> Result<(), Rejection> {
    let refuse = |reason: String| Err(reject(Blame::Unauthorised, reason));
    if id.superior().is_none() && child.level != 1 {
        return refuse(format!(
            "{id} stands directly below the root, and such an agency is national (level 1)"
        ));
    }
    let Authority::Agency(superior) = authority else {
        return Ok(());
    };
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
    if child.roles.contains(&Role::Standards) {
        return refuse("only the root grants the standards role".to_owned());
    }
    Ok(())
}
