//! Proofs of logging as one text (C2SP tlog-proof, `c2sp.org/tlog-proof@v1`): an entry's index,
//! the path from its hash to the root, and the signed checkpoint with that root.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError, hash, number};
use crate::digest::Digest;
use crate::merkle::{self, ProofError};
use crate::note::{MAX_NOTE, Note, NoteKey};

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The most bytes of opaque data beside a proof, so that a whole proof stays near the size of
/// its checkpoint.
const MAX_EXTRA: usize = 64 * 1024;

/// The longest path in a tree of 64-bit size.
const MAX_HASHES: usize = 64;

/// A proof that an entry is in a log, verifiable without the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's index in the log.
    pub index: u64,
    /// The hashes from the entry's sibling up to the root's child.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint, byte for byte as the log published it.
    pub checkpoint: String,
    /// Data for the application, which nothing authenticates. Empty data is not written.
    pub extra: Option<Vec<u8>>,
}

/// Why a proof of logging is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// The text is not a proof in this format.
    #[error("not a tlog-proof: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is malformed, another log's, unsigned or forged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The path does not lead from the entry to the checkpoint's root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

fn malformed<T>(reason: &'static str) -> Result<T, TlogProofError> {
    Err(TlogProofError::Malformed(reason))
}

impl TlogProof {
    /// Reads a proof; nothing is verified by this.
    pub fn parse(bytes: &[u8]) -> Result<TlogProof, TlogProofError> {
        if bytes.len() > MAX_NOTE + 2 * MAX_EXTRA {
            return malformed("it is larger than any proof");
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => read(text),
            Err(_) => malformed("it is not UTF-8"),
        }
    }

    /// Checks that the entry whose leaf hash is given stands at this index in the log, and that
    /// the log has signed the root. Returns the checkpoint, and its note with the cosignatures,
    /// which are left to the caller's rules.
    pub fn verify(
        &self,
        leaf: &Digest,
        log: &NoteKey,
    ) -> Result<(Checkpoint, Note), TlogProofError> {
        let (checkpoint, note) = Checkpoint::open(self.checkpoint.as_bytes(), log)?;
        let Checkpoint { size, root, .. } = &checkpoint;
        merkle::verify_inclusion(leaf, self.index, *size, &self.hashes, root)?;
        Ok((checkpoint, note))
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(text: &str) -> Result<TlogProof, TlogProofError> {
        TlogProof::parse(text.as_bytes())
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = self.extra.as_ref().filter(|extra| !extra.is_empty()) {
            writeln!(f, "extra {}", BASE64_STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64_STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

fn read(text: &str) -> Result<TlogProof, TlogProofError> {
    let Some((head, checkpoint)) = text.split_once("\n\n") else {
        return malformed("no empty line stands before the checkpoint");
    };
    let mut lines = head.split('\n').peekable();
    if lines.next() != Some(HEADER) {
        return malformed("its first line is not c2sp.org/tlog-proof@v1");
    }
    let extra = match lines.next_if(|line| line.starts_with("extra ")) {
        Some(line) => Some(read_extra(line)?),
        None => None,
    };
    let Some(index) = lines
        .next()
        .and_then(|line| number(line.strip_prefix("index ")?))
    else {
        return malformed("no line with the entry's index");
    };
    let hashes = lines
        .map(hash)
        .take(MAX_HASHES + 1)
        .collect::<Option<Vec<_>>>();
    let Some(hashes) = hashes.filter(|hashes| hashes.len() <= MAX_HASHES) else {
        return malformed("its path is not of at most 64 SHA-256 hashes in base64");
    };
    let note = Note::parse(checkpoint.as_bytes()).map_err(CheckpointError::from)?;
    note.text.parse::<Checkpoint>()?;
    Ok(TlogProof {
        index,
        hashes,
        checkpoint: checkpoint.to_owned(),
        extra,
    })
}

fn read_extra(line: &str) -> Result<Vec<u8>, TlogProofError> {
    match BASE64_STANDARD.decode(&line["extra ".len()..]) {
        Ok(extra) if (1..=MAX_EXTRA).contains(&extra.len()) => Ok(extra),
        Ok(_) => malformed("its extra data is empty or larger than 64 KiB"),
        Err(_) => malformed("its extra data is not base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{SecretKey, Signer as _};
    use crate::note::Algorithm;

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[7; 32])
    }

    fn log() -> NoteKey {
        NoteKey::new("log", Algorithm::Ed25519, secret().public().clone()).unwrap()
    }

    fn leaf(entry: &[u8]) -> Digest {
        merkle::leaf_hash(entry)
    }

    /// The proof of the last of the three entries a, b and c.
    fn proof() -> TlogProof {
        let left = merkle::node_hash(&leaf(b"a"), &leaf(b"b"));
        let root = merkle::node_hash(&left, &leaf(b"c"));
        let note = Checkpoint::new("log", 3, root).sign(&secret()).unwrap();
        TlogProof {
            index: 2,
            hashes: vec![left],
            checkpoint: note.to_string(),
            extra: None,
        }
    }

    #[test]
    fn verifies_only_what_was_logged() {
        let (checkpoint, _) = proof().verify(&leaf(b"c"), &log()).unwrap();
        assert_eq!(checkpoint.size, 3);
        assert!(matches!(
            proof().verify(&leaf(b"d"), &log()),
            Err(TlogProofError::Proof(ProofError::Root))
        ));
        let elsewhere = TlogProof {
            index: 1,
            ..proof()
        };
        assert!(elsewhere.verify(&leaf(b"c"), &log()).is_err());
        let stranger = SecretKey::from_seed(&[8; 32]).public().clone();
        let stranger = NoteKey::new("log", Algorithm::Ed25519, stranger).unwrap();
        assert!(matches!(
            proof().verify(&leaf(b"c"), &stranger),
            Err(TlogProofError::Checkpoint(_))
        ));
    }

    #[test]
    fn the_text_has_one_form() {
        let text = proof().to_string();
        assert_eq!(text.parse(), Ok(proof()));
        let extra = TlogProof {
            extra: Some(b"more".to_vec()),
            ..proof()
        };
        assert_eq!(extra.to_string().parse(), Ok(extra));
        let empty = TlogProof {
            extra: Some(Vec::new()),
            ..proof()
        };
        assert_eq!(empty.to_string(), text);
        let single = TlogProof {
            index: 0,
            hashes: Vec::new(),
            ..proof()
        };
        assert_eq!(single.to_string().parse(), Ok(single));

        for (from, to) in [
            ("@v1", "@v2"),
            ("c2sp", "\nc2sp"),
            ("index 2\n", ""),
            ("index 2", "index 02"),
            ("index 2", "index +2"),
            ("index 2", "index  2"),
            ("index 2", "index 2 "),
            ("index 2", "index -1"),
            ("index 2", "Index 2"),
            ("index 2", "extra \nindex 2"),
            ("index 2", "extra ?\nindex 2"),
            ("index 2", "extra AA==\nextra AA==\nindex 2"),
            ("index 2", "index 2\nAAAA"),
            ("index 2", "index 2\n"),
            ("\n\nlog", "\nlog"),
            ("\n\nlog", "\n\n\nlog"),
            ("\n3\n", "\n03\n"),
            ("\n", "\r\n"),
            // From here on what fuzzing took for new, and its like.
            ("@v1", "@v1\0"),
            ("index 2", "index 2\r"),
            ("index 2", "index 18446744073709551616"),
            ("index 2", "index 2\nextra AA=="),
            ("index 2", "extra AA==\n\nindex 2"),
            ("index 2", "extra AB==\nindex 2"),
            ("index 2", "extra _w==\nindex 2"),
            ("=\n\nlog", "\n\nlog"),
            ("\n\nlog", "\n\n\0log"),
            ("\n\nlog\n", "\n\n"),
            ("=\n\n— ", "\n\n— "),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text);
            assert!(bad.parse::<TlogProof>().is_err(), "{bad}");
        }
        assert!(text.trim_end().parse::<TlogProof>().is_err());
        let long = TlogProof {
            hashes: vec![leaf(b""); 65],
            ..proof()
        };
        assert!(long.to_string().parse::<TlogProof>().is_err());
        assert!(TlogProof::parse(b"\xff").is_err());
    }

    /// Inputs that fuzzing took for new, and their like: no more than a beginning, and a place in no tree.
    #[test]
    fn a_proof_is_whole_and_may_still_prove_nothing() {
        for bad in [
            "\n\n",
            "c2sp.org/tlog-proof@v1\nextra \n\n\n",
            "c2sp.org/tlog-proof@v1\nextra AAEC\n\nlog\n",
        ] {
            let error = bad.parse::<TlogProof>().unwrap_err();
            assert!(matches!(error, TlogProofError::Malformed(_)), "{bad:?}");
        }
        for bad in [
            "c2sp.org/tlog-proof@v1\nindex 0\n\n",
            "c2sp.org/tlog-proof@v1\nextra AAEC\nindex 0\n\n— log AAAAAAA=\n",
        ] {
            let error = bad.parse::<TlogProof>().unwrap_err();
            assert!(matches!(error, TlogProofError::Checkpoint(_)), "{bad:?}");
        }
        let text = proof().to_string();
        for (from, to) in [
            ("index 2", "index 18446744073709551615"),
            ("index 2", "extra AA==\nindex 3"),
            ("\n3\n", "\n18446744073709551615\n"),
        ] {
            let odd = text.replacen(from, to, 1);
            assert_ne!(odd, text);
            let read: TlogProof = odd.parse().unwrap();
            assert_eq!(read.to_string(), odd);
            assert!(read.verify(&leaf(b"c"), &log()).is_err(), "{odd}");
        }
    }
}
