//! A key has one purpose for ever: nobody can be taken for another by a key that changed hands.

use super::*;

impl<L: Lookup> Entry<'_, L> {
    /// Notes a key's purpose. It may have had the same one before, and no other.
    pub(super) fn use_key(
        &self,
        key: &PublicKey,
        purpose: Purpose,
    ) -> Result<Option<Write>, ApplyError<L::Error>> {
        match self.state.find::<KeyRecord>(&keys::signer(key.id()))? {
            None => Ok(Some(self.note_key(key, purpose))),
            Some(known) if known.purpose == purpose => Ok(None),
            Some(known) => Err(in_use(key, &known).into()),
        }
    }

    /// Notes the key of an agency: it must never have been used at all.
    pub(super) fn use_new_key(
        &self,
        key: &PublicKey,
        id: &AgencyId,
    ) -> Result<Write, ApplyError<L::Error>> {
        if let Some(known) = self.state.find::<KeyRecord>(&keys::signer(key.id()))? {
            return Err(in_use(key, &known).into());
        }
        Ok(self.note_key(key, Purpose::Agency(id.clone())))
    }

    /// A key that its holder has not proved to hold is not noted, only compared: otherwise
    /// anybody could take another's key out of use by naming it.
    pub(super) fn compare_key(
        &self,
        key: &PublicKey,
        fits: impl Fn(&Purpose) -> bool,
    ) -> Result<(), ApplyError<L::Error>> {
        match self.state.find::<KeyRecord>(&keys::signer(key.id()))? {
            Some(known) if !fits(&known.purpose) => Err(in_use(key, &known).into()),
            _ => Ok(()),
        }
    }

    fn note_key(&self, key: &PublicKey, purpose: Purpose) -> Write {
        let record = KeyRecord {
            key: key.clone(),
            purpose,
        };
        put(keys::signer(key.id()), &record)
    }
}

fn in_use(key: &PublicKey, known: &KeyRecord) -> Rejection {
    let reason = format!(
        "the key {} is or was that of {}; a key is used once",
        key.id(),
        known.purpose
    );
    reject(Blame::Inconsistent, reason)
}
