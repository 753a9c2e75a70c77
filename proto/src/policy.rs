//! Which signatures make a checkpoint count, as a text that stock tools read (C2SP tlog-policy).
//!
//! ```text
//! log     <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group   <name> <k>|any|all <name>…
//! quorum  <name>|none
//! ```
//!
//! Names are bytes that mean nothing outside the text. A group may only name what stands above
//! it, and each name stands in one group at most: the groups form trees, so that the policy is
//! evaluated in one pass from top to bottom, whatever its depth.

use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointKeys, number, verify_cosignature};
use crate::note::{Algorithm, Note, NoteError, NoteKey};
use crate::time::Time;

mod parse;
#[cfg(test)]
mod tests;

/// The most bytes of a policy.
pub const MAX_POLICY: usize = 256 * 1024;

/// The most logs, the most witnesses and the most groups of a policy; the specification asks for
/// 32 of each at least.
pub const MAX_ITEMS: usize = 256;

/// A name of a witness or a group: bytes, of which none is a control character or a space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// A log that the policy trusts to sign checkpoints of its own origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key, whose name is the log's origin.
    pub key: NoteKey,
    /// Where to find it.
    pub url: Option<Vec<u8>>,
}

/// A witness that the policy knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWitness {
    /// Its name in this policy.
    pub name: Name,
    /// Its key.
    pub key: NoteKey,
    /// Where to submit checkpoints to it.
    pub url: Option<Vec<u8>>,
}

/// A number of members of which enough must have witnessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name in this policy.
    pub name: Name,
    /// How many of the members must have.
    pub threshold: usize,
    /// Witnesses and groups that stand above it.
    pub members: Vec<Name>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Logs of which each may have signed.
    pub logs: Vec<PolicyLog>,
    /// Witnesses.
    pub witnesses: Vec<PolicyWitness>,
    /// Groups in their order.
    pub groups: Vec<Group>,
    /// The witness or group that must have witnessed; `None` asks for no cosignature.
    pub quorum: Option<Name>,
}

/// The text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A line breaks a rule.
    #[error("line {line} of the policy: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The rule.
        reason: String,
    },
    /// The text as a whole does.
    #[error("not a policy: {0}")]
    Text(&'static str),
}

/// What a policy says of a checkpoint that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The time at which, or after which, a whole quorum had seen it; `None` where the policy
    /// asks for no witness.
    pub time: Option<Time>,
}

impl Policy {
    /// The policy of a registry's log. Where no witness has to date it, its own cosigner does.
    pub fn of_log(keys: &CheckpointKeys<'_>) -> Result<Policy, NoteError> {
        let log = PolicyLog {
            key: keys.log_key()?,
            url: None,
        };
        let mut policy = Policy {
            logs: vec![log],
            witnesses: Vec::new(),
            groups: Vec::new(),
            quorum: None,
        };
        if keys.quorum == 0 {
            let name = Name(b"cosigner".to_vec());
            policy.witnesses.push(PolicyWitness {
                name: name.clone(),
                key: keys.cosigner_key()?,
                url: None,
            });
            policy.quorum = Some(name);
            return Ok(policy);
        }
        for (i, key) in keys.witness_keys()?.into_iter().enumerate() {
            policy.witnesses.push(PolicyWitness {
                name: Name(format!("w{}", i + 1).into_bytes()),
                key,
                url: None,
            });
        }
        let quorum = Name(b"witnesses".to_vec());
        policy.groups.push(Group {
            name: quorum.clone(),
            threshold: usize::try_from(keys.quorum).unwrap_or(usize::MAX),
            members: policy.witnesses.iter().map(|w| w.name.clone()).collect(),
        });
        policy.quorum = Some(quorum);
        Ok(policy)
    }

    /// Checks a signed checkpoint: the signature of one of the logs and the quorum.
    pub fn verify(&self, note: &[u8]) -> Result<Accepted, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint: Checkpoint = note.text.parse()?;
        self.check_log(&checkpoint, &note)?;
        let Some(quorum) = &self.quorum else {
            return Ok(Accepted {
                checkpoint,
                time: None,
            });
        };
        let times = self.times(&note)?;
        let found = self.witnessed(quorum, &times);
        match found {
            Some(time) => Ok(Accepted {
                checkpoint,
                time: Some(time),
            }),
            None => Err(CheckpointError::Policy {
                found: times.iter().flatten().count(),
                quorum: quorum.to_string(),
            }),
        }
    }

    /// One of the logs has signed, under its own origin. A false signature refuses the note.
    fn check_log(&self, checkpoint: &Checkpoint, note: &Note) -> Result<(), CheckpointError> {
        let mut verdict = Err(CheckpointError::UnknownLog(crate::excerpt(
            &checkpoint.origin,
        )));
        for log in &self.logs {
            if log.key.name() != checkpoint.origin {
                continue;
            }
            match note.verify(&log.key) {
                Ok(()) => verdict = Ok(()),
                Err(error @ NoteError::Unsigned(_)) => verdict = verdict.or(Err(error.into())),
                Err(error) => return Err(error.into()),
            }
        }
        verdict
    }

    /// When each witness has co-signed. A false signature refuses the note.
    fn times(&self, note: &Note) -> Result<Vec<Option<Time>>, NoteError> {
        let time = |witness: &PolicyWitness| match verify_cosignature(note, &witness.key) {
            Ok(time) => Ok(Some(time)),
            Err(NoteError::Unsigned(_)) => Ok(None),
            Err(error) => Err(error),
        };
        self.witnesses.iter().map(time).collect()
    }

    /// Since when a witness or group counts as having witnessed: of a group of threshold k, the
    /// k-th latest of its members' times.
    fn witnessed(&self, quorum: &Name, times: &[Option<Time>]) -> Option<Time> {
        let single = self.witnesses.iter().zip(times);
        let mut known: std::collections::BTreeMap<&Name, Option<Time>> = single
            .map(|(witness, time)| (&witness.name, *time))
            .collect();
        for group in &self.groups {
            let of = |name| known.get(name).copied().flatten();
            let mut members: Vec<Time> = group.members.iter().filter_map(of).collect();
            members.sort_by(|a, b| b.cmp(a));
            let time = members.get(group.threshold.wrapping_sub(1)).copied();
            known.insert(&group.name, time);
        }
        known.get(quorum).copied().flatten()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "‘{self}’")
    }
}
