//! Reading and printing of policies, line by line.

use std::collections::BTreeSet;

use super::*;

/// Means that no cosignature is asked for; nothing else may have this name.
const NONE: &[u8] = b"none";

impl Name {
    /// The name in the given bytes; `none` is taken, and so is what would not be one word.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Name> {
        let bytes = bytes.into();
        let plain = |byte: &u8| *byte > 0x20 && *byte != 0x7f;
        (!bytes.is_empty() && bytes != NONE && bytes.iter().all(plain)).then_some(Name(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Policy {
    /// Reads a policy.
    pub fn parse(text: &[u8]) -> Result<Policy, PolicyError> {
        if text.len() > MAX_POLICY {
            return Err(PolicyError::Text("it is larger than 256 KiB"));
        }
        if !text.is_empty() && !text.ends_with(b"\n") {
            return Err(PolicyError::Text("its last line does not end in a newline"));
        }
        let bad = |byte: &u8| (*byte < 0x20 && !b"\t\n".contains(byte)) || *byte == 0x7f;
        if text.iter().any(bad) {
            return Err(PolicyError::Text(
                "it contains a control character other than tab and newline",
            ));
        }
        let mut reader = Reader::default();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let words: Vec<&[u8]> = line
                .split(|byte| b" \t".contains(byte))
                .filter(|word| !word.is_empty())
                .collect();
            if words.first().is_some_and(|first| !first.starts_with(b"#")) {
                reader.line(&words).map_err(|reason| PolicyError::Line {
                    line: at + 1,
                    reason,
                })?;
            }
        }
        reader.finish()
    }

    /// The policy's text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let url = |url: &Option<Vec<u8>>| url.clone().into_iter();
        for log in &self.logs {
            let words = [b"log".to_vec(), log.key.to_string().into_bytes()];
            lines.push(spaced(words.into_iter().chain(url(&log.url))));
        }
        for witness in &self.witnesses {
            let words = [
                b"witness".to_vec(),
                witness.name.0.clone(),
                witness.key.to_string().into_bytes(),
            ];
            lines.push(spaced(words.into_iter().chain(url(&witness.url))));
        }
        for group in &self.groups {
            let threshold = group.threshold.to_string().into_bytes();
            let words = [b"group".to_vec(), group.name.0.clone(), threshold];
            let members = group.members.iter().map(|name| name.0.clone());
            lines.push(spaced(words.into_iter().chain(members)));
        }
        let quorum = match &self.quorum {
            Some(name) => name.0.clone(),
            None => NONE.to_vec(),
        };
        lines.push(spaced([b"quorum".to_vec(), quorum].into_iter()));
        lines.concat()
    }
}

fn spaced(words: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut line = words.collect::<Vec<_>>().join(&b' ');
    line.push(b'\n');
    line
}

#[derive(Default)]
struct Reader {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Option<Option<Name>>,
    defined: BTreeSet<Name>,
    used: BTreeSet<Name>,
}

impl Reader {
    fn line(&mut self, words: &[&[u8]]) -> Result<(), String> {
        match words {
            [b"log", key] => self.log(key, None),
            [b"log", key, url] => self.log(key, Some(url)),
            [b"witness", name, key] => self.witness(name, key, None),
            [b"witness", name, key, url] => self.witness(name, key, Some(url)),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members),
            [b"quorum", name] => self.quorum(name),
            _ => Err(
                "expected log VKEY [URL], witness NAME VKEY [URL], group NAME K NAME…, or quorum NAME"
                    .into(),
            ),
        }
    }

    fn log(&mut self, key: &[u8], url: Option<&[u8]>) -> Result<(), String> {
        let key = vkey(key, Algorithm::Ed25519, "a log")?;
        if self.logs.iter().any(|log| log.key.public() == key.public()) {
            return Err("a log with this public key stands above".into());
        }
        room(self.logs.len())?;
        let url = url.map(<[u8]>::to_vec);
        self.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8], url: Option<&[u8]>) -> Result<(), String> {
        let name = self.define(name)?;
        let key = vkey(key, Algorithm::CosignatureV1, "a witness")?;
        let same = |witness: &PolicyWitness| witness.key.public() == key.public();
        if self.witnesses.iter().any(same) {
            return Err("a witness with this public key stands above".into());
        }
        room(self.witnesses.len())?;
        let url = url.map(<[u8]>::to_vec);
        self.witnesses.push(PolicyWitness { name, key, url });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), String> {
        let members: Vec<Name> = members
            .iter()
            .map(|member| {
                let member = self.known(member)?;
                match self.used.insert(member.clone()) {
                    true => Ok(member),
                    false => Err(format!("{member:?} is a member already")),
                }
            })
            .collect::<Result<_, String>>()?;
        let threshold = match threshold {
            b"all" => Some(members.len()),
            b"any" => Some(1),
            digits => std::str::from_utf8(digits)
                .ok()
                .and_then(number)
                .and_then(|k| usize::try_from(k).ok()),
        };
        let Some(threshold) = threshold.filter(|k| (1..=members.len()).contains(k)) else {
            return Err(format!(
                "of {} members a group needs ‘any’, ‘all’ or a number that lies between",
                members.len()
            ));
        };
        room(self.groups.len())?;
        let name = self.define(name)?;
        self.groups.push(Group {
            name,
            threshold,
            members,
        });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), String> {
        let quorum = match name {
            NONE => None,
            name => Some(self.known(name)?),
        };
        match self.quorum.replace(quorum) {
            None => Ok(()),
            Some(_) => Err("a second quorum".into()),
        }
    }

    fn define(&mut self, name: &[u8]) -> Result<Name, String> {
        let name = Name::new(name).ok_or("‘none’ names no witness and no group")?;
        match self.defined.insert(name.clone()) {
            true => Ok(name),
            false => Err(format!("{name:?} is defined above")),
        }
    }

    fn known(&self, name: &[u8]) -> Result<Name, String> {
        let found = Name::new(name).filter(|name| self.defined.contains(name));
        found.ok_or_else(|| {
            let name = crate::excerpt(&String::from_utf8_lossy(name));
            format!("‘{name}’ is not defined above")
        })
    }

    fn finish(self) -> Result<Policy, PolicyError> {
        let quorum = self
            .quorum
            .ok_or(PolicyError::Text("it has no quorum line"))?;
        Ok(Policy {
            logs: self.logs,
            witnesses: self.witnesses,
            groups: self.groups,
            quorum,
        })
    }
}

fn room(count: usize) -> Result<(), String> {
    match count < MAX_ITEMS {
        true => Ok(()),
        false => Err(format!("more than {MAX_ITEMS} of a kind")),
    }
}

fn vkey(word: &[u8], algorithm: Algorithm, whose: &str) -> Result<NoteKey, String> {
    let key = std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse::<NoteKey>().ok())
        .filter(|key| key.algorithm() == algorithm);
    key.ok_or_else(|| {
        let kind = match algorithm {
            Algorithm::Ed25519 => "an Ed25519 key (01)",
            Algorithm::CosignatureV1 => "an Ed25519 cosignature key (04)",
        };
        format!("not a key of {whose}: expected {kind} as NAME+HASH+KEY")
    })
}
