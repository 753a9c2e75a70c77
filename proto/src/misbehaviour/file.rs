//! The file of a proof: written and read in one byte form.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::{CLAIM, Kind, Lie, Logged, Misbehaviour, NotProved, Since, TYPE, not_proved, text};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::evidence::{Member, Writer, read_archive};
use crate::json;
use crate::tile::{TileKind, encode_bundle};
use crate::tlog_proof::TlogProof;

/// The most bytes of statements before an entry that the rules reject, and of what a snapshot before
/// them says.
pub const MAX_BEFORE: usize = 64 * 1024 * 1024;
/// The most bytes of a file: those statements, and room for all else.
const MAX_FILE: u64 = 80 * 1024 * 1024;
/// The most root documents in a file.
const MAX_ROOTS: u64 = 256;

/// The member of what a snapshot says.
const STATE: &str = "state.json";

/// The first member.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Claim {
    #[serde(rename = "type")]
    of_type: String,
    kind: Kind,
    roots: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Vec<Digest>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Before>,
}

/// The log before the snapshot that the statements begin with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    size: u64,
    peaks: Vec<Digest>,
}

impl Misbehaviour {
    /// Writes the file.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut writer = Writer::new(out);
        let mut put = |name: &str, bytes: &[u8]| writer.member(name, bytes.len() as u64, bytes);
        put(CLAIM, &json::canonical(&self.claim()))?;
        for (n, root) in (1u64..).zip(&self.roots) {
            put(&root_name(n), &root.to_bytes())?;
        }
        match &self.lie {
            Lie::TwoHistories { older, newer, .. } => {
                put("older.checkpoint", older.as_bytes())?;
                put("newer.checkpoint", newer.as_bytes())?;
            }
            Lie::ShrunkLog { larger, smaller } => {
                put("larger.checkpoint", larger.as_bytes())?;
                put("smaller.checkpoint", smaller.as_bytes())?;
            }
            Lie::MalformedEntry { leaf, proof } => {
                put("entry.leaf", leaf)?;
                put("entry.tlog-proof", proof.to_string().as_bytes())?;
            }
            Lie::ForgedEntry(entry) => put_logged(&mut put, "entry", entry)?,
            Lie::RepeatedEntry {
                leaf,
                first,
                second,
            } => {
                put("entry.leaf", leaf)?;
                put("first.tlog-proof", first.to_string().as_bytes())?;
                put("second.tlog-proof", second.to_string().as_bytes())?;
            }
            Lie::ConflictingEntries(entries) => {
                let [first, second] = &**entries;
                put_logged(&mut put, "first", first)?;
                put_logged(&mut put, "second", second)?;
            }
            Lie::RejectedEntry {
                since,
                before,
                leaf,
                payload,
                checkpoint,
                ..
            } => {
                if let Some(since) = since {
                    put(STATE, &json::canonical(&since.state))?;
                }
                let before =
                    encode_bundle(TileKind::Envelopes, before).map_err(io::Error::other)?;
                put("before.envelopes", &before)?;
                put("entry.leaf", leaf)?;
                put("entry.payload", payload)?;
                put("checkpoint", checkpoint.as_bytes())?;
            }
        }
        writer.finish().map(drop)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a file; nothing is verified by this.
    pub fn read(input: impl Read) -> Result<Misbehaviour, NotProved> {
        let members = read_archive(input.take(MAX_FILE)).map_err(text)?;
        let mut members = Members(members.into_iter());
        let claim = read_claim(&members.take(CLAIM)?)?;
        let mut roots = Vec::new();
        for n in 1..=claim.roots {
            let bytes = members.take(&root_name(n))?;
            roots.push(Envelope::parse(&bytes).map_err(text)?);
        }
        let lie = members.lie(claim)?;
        match members.0.next() {
            Some(member) => not_proved(format!("{} has no place in this proof", member.name)),
            None => Ok(Misbehaviour { roots, lie }),
        }
    }

    fn claim(&self) -> Claim {
        let (root, path) = match &self.lie {
            Lie::TwoHistories { root, path, .. } => (Some(*root), Some(path.clone())),
            Lie::RejectedEntry { path, .. } => (None, Some(path.clone())),
            _ => (None, None),
        };
        let since = match &self.lie {
            Lie::RejectedEntry { since, .. } => since.as_ref().map(|since| Before {
                size: since.size,
                peaks: since.peaks.clone(),
            }),
            _ => None,
        };
        Claim {
            of_type: TYPE.to_owned(),
            kind: self.lie.kind(),
            roots: self.roots.len() as u64,
            root,
            path,
            since,
        }
    }
}

fn root_name(n: u64) -> String {
    format!("roots/{n}.json")
}

fn put_logged(
    put: &mut impl FnMut(&str, &[u8]) -> io::Result<()>,
    name: &str,
    entry: &Logged,
) -> io::Result<()> {
    put(&format!("{name}.leaf"), &entry.leaf)?;
    put(&format!("{name}.payload"), &entry.payload)?;
    let proof = entry.proof.to_string();
    put(&format!("{name}.tlog-proof"), proof.as_bytes())
}

fn read_claim(bytes: &[u8]) -> Result<Claim, NotProved> {
    let claim: Claim = serde_json::from_slice(bytes).map_err(text)?;
    if claim.of_type != TYPE {
        return not_proved(format!("{CLAIM} is not of the type {TYPE}"));
    }
    if json::canonical(&claim) != bytes {
        return not_proved(format!("{CLAIM} is not in RFC 8785 form"));
    }
    if !(1..=MAX_ROOTS).contains(&claim.roots) {
        return not_proved(format!("a proof has 1 to {MAX_ROOTS} root documents"));
    }
    Ok(claim)
}

/// The envelopes of a bundle of any width.
fn split_envelopes(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, NotProved> {
    let mut envelopes = Vec::new();
    while !bytes.is_empty() {
        let split = bytes
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_be_bytes(*length) as usize));
        let Some((envelope, rest)) = split else {
            return not_proved("before.envelopes ends within an envelope");
        };
        envelopes.push(envelope.to_vec());
        bytes = rest;
    }
    Ok(envelopes)
}

/// The members, each of which must be used, in order.
struct Members(std::vec::IntoIter<Member>);

impl Members {
    fn take(&mut self, name: &str) -> Result<Vec<u8>, NotProved> {
        match self.0.next() {
            Some(member) if member.name == name => Ok(member.bytes),
            Some(member) => not_proved(format!("{} stands where {name} belongs", member.name)),
            None => not_proved(format!("{name} is missing")),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, NotProved> {
        String::from_utf8(self.take(name)?).map_err(|_| NotProved(format!("{name} is not text")))
    }

    /// A proof of logging, in the one form that it is written in.
    fn proof(&mut self, name: &str) -> Result<TlogProof, NotProved> {
        let bytes = self.take(name)?;
        let proof = TlogProof::parse(&bytes).map_err(text)?;
        if proof.to_string().as_bytes() != bytes || proof.extra.is_some() {
            return not_proved(format!("{name} says more than a proof has to"));
        }
        Ok(proof)
    }

    fn logged(&mut self, name: &str) -> Result<Logged, NotProved> {
        Ok(Logged {
            leaf: self.take(&format!("{name}.leaf"))?,
            payload: self.take(&format!("{name}.payload"))?,
            proof: self.proof(&format!("{name}.tlog-proof"))?,
        })
    }

    /// What a snapshot says of some records, in the one form that it is written in.
    fn since(&mut self, before: Before) -> Result<(usize, Box<Since>), NotProved> {
        let bytes = self.take(STATE)?;
        let state = serde_json::from_slice(&bytes).map_err(text)?;
        if json::canonical(&state) != bytes {
            return not_proved(format!("{STATE} is not in RFC 8785 form"));
        }
        let Before { size, peaks } = before;
        let since = Box::new(Since { size, peaks, state });
        Ok((bytes.len(), since))
    }

    fn lie(&mut self, mut claim: Claim) -> Result<Lie, NotProved> {
        let since = match claim.since.take() {
            Some(before) if claim.kind == Kind::RejectedEntry => Some(self.since(before)?),
            Some(_) => return not_proved(format!("{CLAIM} has a member too many")),
            None => None,
        };
        let (stated, since) = since.unzip();
        Ok(match (claim.kind, claim.root, claim.path) {
            (Kind::TwoHistories, Some(root), Some(path)) => Lie::TwoHistories {
                older: self.text("older.checkpoint")?,
                newer: self.text("newer.checkpoint")?,
                root,
                path,
            },
            (Kind::ShrunkLog, None, None) => Lie::ShrunkLog {
                larger: self.text("larger.checkpoint")?,
                smaller: self.text("smaller.checkpoint")?,
            },
            (Kind::MalformedEntry, None, None) => Lie::MalformedEntry {
                leaf: self.take("entry.leaf")?,
                proof: self.proof("entry.tlog-proof")?,
            },
            (Kind::ForgedEntry, None, None) => Lie::ForgedEntry(self.logged("entry")?),
            (Kind::RepeatedEntry, None, None) => Lie::RepeatedEntry {
                leaf: self.take("entry.leaf")?,
                first: self.proof("first.tlog-proof")?,
                second: self.proof("second.tlog-proof")?,
            },
            (Kind::ConflictingEntries, None, None) => {
                Lie::ConflictingEntries(Box::new([self.logged("first")?, self.logged("second")?]))
            }
            (Kind::RejectedEntry, None, Some(path)) => {
                let before = self.take("before.envelopes")?;
                if before.len() + stated.unwrap_or(0) > MAX_BEFORE {
                    return not_proved("more than 64 MiB of statements before the entry");
                }
                Lie::RejectedEntry {
                    since,
                    before: split_envelopes(&before)?,
                    leaf: self.take("entry.leaf")?,
                    payload: self.take("entry.payload")?,
                    checkpoint: self.text("checkpoint")?,
                    path,
                }
            }
            _ => return not_proved(format!("{CLAIM} lacks a member or has one too many")),
        })
    }
}
