//! The decision whether one asker may read one dataset, which travels into the plan's leaf.

use jingwei_proto::id::AgencyId;
use jingwei_proto::statement::Sharing;

/// What policy decided about one asker and one dataset. The leaf of the plan holds it and
/// refuses to read without it, so a door left open elsewhere opens nothing.
///
/// Without a decision nothing is allowed. Row filters and masked columns that a decision is
/// bound to belong here too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    asker: AgencyId,
    decision: Result<(), Denial>,
}

/// Why an asker may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody decided.
    #[error("no decision allows it")]
    Undecided,
    /// The dataset is conditional, and no grant was shown.
    #[error(
        "it is shared on condition, and a grant is needed, which nobody can give yet; ask its agency to publish it as ‘unconditional’, or another version of it that can be shared so"
    )]
    GrantNeeded,
    /// The dataset is withheld.
    #[error("it is withheld")]
    Withheld,
}

impl Permit {
    /// No permission: where every request starts.
    pub fn none(asker: AgencyId) -> Permit {
        Permit {
            asker,
            decision: Err(Denial::Undecided),
        }
    }

    /// The permission that a dataset's sharing class gives of itself to an agency of the
    /// federation. The `owner` may read all that is its own.
    pub fn of_class(asker: AgencyId, owner: &AgencyId, class: Sharing) -> Permit {
        let decision = match class {
            _ if asker == *owner => Ok(()),
            Sharing::Public | Sharing::Unconditional => Ok(()),
            Sharing::Conditional => Err(Denial::GrantNeeded),
            Sharing::Withheld => Err(Denial::Withheld),
        };
        Permit { asker, decision }
    }

    /// The agency that asks.
    pub fn asker(&self) -> &AgencyId {
        &self.asker
    }

    /// Whether rows may be read.
    pub fn check(&self) -> Result<(), Denial> {
        self.decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_decide() {
        let asker: AgencyId = "fr.bre".parse().unwrap();
        let owner: AgencyId = "fr.communes".parse().unwrap();
        let check =
            |asker: &AgencyId, class| Permit::of_class(asker.clone(), &owner, class).check();
        assert_eq!(check(&asker, Sharing::Public), Ok(()));
        assert_eq!(check(&asker, Sharing::Unconditional), Ok(()));
        assert_eq!(
            check(&asker, Sharing::Conditional),
            Err(Denial::GrantNeeded)
        );
        assert_eq!(check(&asker, Sharing::Withheld), Err(Denial::Withheld));
        assert_eq!(check(&owner, Sharing::Withheld), Ok(()));
        assert_eq!(Permit::none(asker).check(), Err(Denial::Undecided));
    }
}
