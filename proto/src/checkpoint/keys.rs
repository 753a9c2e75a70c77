//! Whose signatures make a checkpoint of the registry count, as the root document names them.

use super::*;
use crate::key::PublicKey;
use crate::state::RootRecord;
use crate::statement::Witness;

/// The keys by which checkpoints of one log are verified.
#[derive(Debug, Clone)]
pub struct CheckpointKeys<'a> {
    /// The log's name.
    pub origin: &'a str,
    /// Signs as the log.
    pub log: &'a PublicKey,
    /// Dates checkpoints where no witness has to, under the log's name.
    pub cosigner: &'a PublicKey,
    /// Who else may date them.
    pub witnesses: &'a [Witness],
    /// How many witnesses have to; with 0 the cosigner does.
    pub quorum: u64,
}

impl<'a> CheckpointKeys<'a> {
    /// The keys that a root document names.
    pub fn of_root(root: &'a RootRecord) -> CheckpointKeys<'a> {
        CheckpointKeys {
            origin: &root.registry.origin,
            log: &root.registry.log,
            cosigner: &root.registry.cosigner,
            witnesses: &root.witnesses,
            quorum: root.quorum,
        }
    }

    /// The log's key, with which [`Checkpoint::open`] reads a checkpoint without a quorum yet.
    pub fn log_key(&self) -> Result<NoteKey, NoteError> {
        NoteKey::new(self.origin, Algorithm::Ed25519, self.log.clone())
    }

    /// The key that dates checkpoints where no witness has to.
    pub fn cosigner_key(&self) -> Result<NoteKey, NoteError> {
        NoteKey::new(self.origin, Algorithm::CosignatureV1, self.cosigner.clone())
    }

    /// Checks a signed checkpoint: the log's signature and a quorum of cosignatures.
    ///
    /// Returns the time at which, or after which, a whole quorum had seen it: with a quorum of
    /// 2 and three cosignatures, the second latest time.
    pub fn verify(&self, note: &str) -> Result<(Checkpoint, Time), CheckpointError> {
        let (checkpoint, note) = Checkpoint::open(note.as_bytes(), &self.log_key()?)?;
        if self.quorum == 0 {
            let time = verify_cosignature(&note, &self.cosigner_key()?)?;
            return Ok((checkpoint, time));
        }
        let cosigners = self.cosigners(&note)?;
        let mut times: Vec<Time> = cosigners.into_iter().filter_map(|(_, time)| time).collect();
        times.sort_by(|a, b| b.cmp(a));
        let quorum = usize::try_from(self.quorum).unwrap_or(usize::MAX);
        match times.get(quorum - 1) {
            Some(time) => Ok((checkpoint, *time)),
            None => Err(CheckpointError::Quorum {
                found: times.len(),
                needed: self.quorum,
            }),
        }
    }

    /// The keys of the witnesses that count for this log.
    pub fn witness_keys(&self) -> Result<Vec<NoteKey>, NoteError> {
        let mut keys: Vec<NoteKey> = Vec::new();
        for witness in self.witnesses {
            // However often a key is listed, it is one witness.
            if keys.iter().any(|other| *other.public() == witness.key)
                || is_own(self.origin, &witness.name)
            {
                continue;
            }
            let public = witness.key.clone();
            let name = &*witness.name;
            keys.push(NoteKey::new(name, Algorithm::CosignatureV1, public)?);
        }
        Ok(keys)
    }

    /// Who has to co-sign, and when each has that did: the witnesses, or the cosigner where none
    /// has to. A false signature refuses the whole note.
    pub fn cosigners(&self, note: &Note) -> Result<Vec<(NoteKey, Option<Time>)>, NoteError> {
        let keys = match self.quorum {
            0 => vec![self.cosigner_key()?],
            _ => self.witness_keys()?,
        };
        let time = |key: NoteKey| match verify_cosignature(note, &key) {
            Ok(time) => Ok((key, Some(time))),
            Err(NoteError::Unsigned(_)) => Ok((key, None)),
            Err(error) => Err(error),
        };
        keys.into_iter().map(time).collect()
    }
}

/// Whether a witness is run by the agency whose log it is, by their names: it does not count there.
///
/// Journals are `jingwei/<federation>/journal/<agency>/<year>`, and an agency's witness is
/// `jingwei/<federation>/witness/<agency>`.
pub fn is_own(origin: &str, witness: &str) -> bool {
    let owner = |text: &str, kind: &str| -> Option<(String, String)> {
        let mut parts = text.split('/');
        let ours = parts.next() == Some("jingwei");
        let (federation, found) = (parts.next()?, parts.next()?);
        let agency = parts.next()?;
        (ours && found == kind).then(|| (federation.to_owned(), agency.to_owned()))
    };
    owner(origin, "journal").is_some_and(|log| owner(witness, "witness") == Some(log))
}
