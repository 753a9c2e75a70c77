//! Evidence by an asker who holds every key and signs every file again: what is wrong in it must
//! be found by the rules, since no digest gives it away.

mod settled;

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;
use crate::checkpoint::{Checkpoint, cosign};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::id::AgencyId;
use crate::key::{SecretKey, Signer};
use crate::leaf::leaf;
use crate::merkle::{self, HashReader};
use crate::snapshot::Proof;
use crate::statement::*;
use crate::time::Time;
use crate::tlog_proof::TlogProof;

const FEDERATION: &str = "test-0123456789abcdef";
const ORIGIN: &str = "jingwei/test-0123456789abcdef/registry/1";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn agency(id: &str) -> AgencyId {
    id.parse().unwrap()
}

fn at(seconds: i64) -> Time {
    Time::from_seconds(1_700_000_000 + seconds).unwrap()
}

fn head(id: Option<&str>, time: Time, previous: Option<(&Head, &Envelope)>) -> Head {
    Head {
        federation: FEDERATION.parse().unwrap(),
        agency: id.map(agency),
        time,
        sequence: previous.map_or(1, |(head, _)| head.sequence + 1),
        previous: previous.map(|(_, envelope)| envelope.payload_digest()),
    }
}

struct Leaves(Vec<Digest>);

impl HashReader for Leaves {
    type Error = Infallible;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Infallible> {
        Ok(match level {
            0 => self.0[usize::try_from(index).unwrap()],
            _ => merkle::node_hash(
                &self.hash(level - 1, 2 * index)?,
                &self.hash(level - 1, 2 * index + 1)?,
            ),
        })
    }
}

/// A piece of evidence before it is signed, each part of which a test may falsify.
struct Draft {
    statements: Vec<(Statement, u8)>,
    exchange: [Statement; 4],
    signers: [u8; 4],
    rows: Vec<u8>,
    copies: u64,
    time: Time,
    log_key: u8,
    /// Who co-signs the log's head, by name and key.
    cosigners: Vec<(String, u8)>,
    /// Places of statements that are in the log and not in the file.
    hidden: Vec<u64>,
    /// What the member with the snapshot's proofs says, if there is one.
    proofs: Option<BTreeMap<String, Proof>>,
}

impl Draft {
    /// Honest evidence: `aa` asked `bb` for one version, and `bb` answered.
    fn honest() -> Draft {
        let root = Statement {
            head: head(None, at(0), None),
            predicate: Predicate::Root(Root {
                version: 1,
                keys: vec![key(1).public().clone()],
                threshold: 1,
                registry: RegistryKeys {
                    origin: ORIGIN.into(),
                    log: key(90).public().clone(),
                    cosigner: key(91).public().clone(),
                    tls: key(92).public().id(),
                },
                witnesses: vec![],
                quorum: 0,
                rules: 1,
                recovery_delay: 600,
                continues: None,
                consents: vec![],
            }),
        };
        let statements = vec![
            (root, 1),
            enrolment("aa", 10),
            enrolment("bb", 20),
            manifest("bb", 20),
        ];
        let rows = b"rows".to_vec();
        Draft {
            exchange: exchange(&statements[3].0, 20, &rows),
            statements,
            signers: [10, 20, 20, 10],
            rows,
            copies: 1,
            time: at(100),
            log_key: 90,
            cosigners: vec![(ORIGIN.into(), 91)],
            hidden: vec![],
            proofs: None,
        }
    }

    /// Honest but for the witnesses: the root asks for two of three, and those of `signed` have.
    fn witnessed(signed: &[u8]) -> Draft {
        let mut draft = Draft::honest();
        let named = |n: &u8| (format!("w{n}.example"), 100 + n);
        let Predicate::Root(root) = &mut draft.statements[0].0.predicate else {
            unreachable!("the first statement is the root");
        };
        root.quorum = 2;
        root.witnesses = [1, 2, 3]
            .iter()
            .map(named)
            .map(|(name, seed)| Witness {
                name,
                key: key(seed).public().clone(),
            })
            .collect();
        draft.cosigners = signed.iter().map(named).collect();
        draft
    }

    fn envelopes(&self) -> Vec<Envelope> {
        self.statements
            .iter()
            .map(|(statement, seed)| statement.sign(&key(*seed)))
            .collect()
    }

    /// The fingerprint that an auditor was given.
    fn pinned() -> Digest {
        Draft::honest().envelopes()[0].payload_digest()
    }

    fn verify(&self) -> Result<Report, Invalid> {
        let file = self.write();
        verify(&file[..], &Draft::pinned())
    }

    fn write(&self) -> Vec<u8> {
        let envelopes = self.envelopes();
        let leaves: Vec<Digest> = envelopes
            .iter()
            .zip(&self.statements)
            .map(|(envelope, (_, seed))| merkle::leaf_hash(&leaf(envelope, key(*seed).public())))
            .collect();
        let size = leaves.len() as u64;
        let leaves = Leaves(leaves);
        let checkpoint = Checkpoint::new(ORIGIN, size, merkle::root(&leaves, size).unwrap());
        let mut note = checkpoint.sign(&key(self.log_key)).unwrap();
        for (n, (name, seed)) in (0..).zip(&self.cosigners) {
            let line = cosign(&note.text, name, &key(*seed), at(50 + n)).unwrap();
            note.signatures.push(line);
        }
        let note = note.to_string();
        let mut members = vec![(CHECKPOINT.to_owned(), note.clone().into_bytes())];
        for (index, envelope) in (0..).zip(&envelopes) {
            if self.hidden.contains(&index) {
                continue;
            }
            let proof = TlogProof {
                index,
                hashes: merkle::inclusion_proof(&leaves, index, size).unwrap(),
                checkpoint: note.clone(),
                extra: None,
            };
            members.push((statement_name(index), envelope.to_bytes()));
            members.push((proof_name(index), proof.to_string().into_bytes()));
        }
        if let Some(proofs) = &self.proofs {
            members.push((SNAPSHOT.to_owned(), crate::json::canonical(proofs)));
        }
        for n in 0..self.copies {
            for ((part, statement), seed) in MESSAGES.iter().zip(&self.exchange).zip(self.signers) {
                members.push((
                    exchange_name(n, part),
                    statement.sign(&key(seed)).to_bytes(),
                ));
            }
            members.push((exchange_name(n, ANSWER), self.rows.clone()));
        }
        members.push((ANSWER.to_owned(), b"table".to_vec()));
        archive(&self.index(&members), &members)
    }

    fn index(&self, members: &[(String, Vec<u8>)]) -> Envelope {
        Statement {
            head: head(Some("aa"), self.time, None),
            predicate: Predicate::Evidence(EvidenceIndex {
                sql: "SELECT 1".into(),
                answer: answer(b"table"),
                exchanges: self.copies,
                members: members
                    .iter()
                    .map(|(name, bytes)| EvidenceMember {
                        name: name.clone(),
                        digest: Digest::of(bytes),
                        bytes: bytes.len() as u64,
                    })
                    .collect(),
                exports: vec![],
            }),
        }
        .sign(&key(10))
    }

    fn refused(&self, because: &str) {
        let reason = self.verify().expect_err(because).to_string();
        assert!(
            reason.contains(because),
            "‘{reason}’ does not say ‘{because}’"
        );
    }
}

fn archive(index: &Envelope, members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let index = index.to_bytes();
    writer
        .member(INDEX, index.len() as u64, &index[..])
        .unwrap();
    for (name, bytes) in members {
        writer.member(name, bytes.len() as u64, &bytes[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn enrolment(id: &str, seed: u8) -> (Statement, u8) {
    let proposal = Statement {
        head: head(Some(id), at(1), None),
        predicate: Predicate::Agency(
            Action::Enrol(Enrolment {
                name: id.to_owned(),
                level: 1,
                territory: Territory {
                    list: "l".into(),
                    edition: "1".into(),
                    chains: vec![vec!["X".into()]],
                },
                roles: vec![],
                key: key(seed).public().clone(),
            })
            .proposed(),
        ),
    };
    let consent = proposal.sign(&key(seed));
    (proposal.with_consents(vec![consent]), 1)
}

fn manifest(id: &str, seed: u8) -> (Statement, u8) {
    let digest = Digest::of(b"parquet");
    let statement = Statement {
        head: head(Some(id), at(2), None),
        predicate: Predicate::Dataset(Box::new(Dataset {
            name: "places".parse().unwrap(),
            sharing: Sharing::Public,
            title: None,
            description: None,
            schema: Some("{}".into()),
            rows: Some(1),
            files: vec![DatasetFile {
                name: format!("{digest}.parquet"),
                digest,
                bytes: 7,
            }],
            source: None,
            commitment: None,
        })),
    };
    (statement, seed)
}

fn answer(bytes: &[u8]) -> AnswerDigest {
    AnswerDigest {
        digest: Digest::of(bytes),
        rows: 1,
        bytes: bytes.len() as u64,
    }
}

/// The four honest messages about the manifest, which stands at entry 3.
fn exchange(manifest: &Statement, seed: u8, rows: &[u8]) -> [Statement; 4] {
    let nonce = "0123456789abcdef0123456789abcdef".to_owned();
    let seen = Seen {
        size: 4,
        root: Digest::of(b"root"),
    };
    let request = Statement {
        head: head(Some("aa"), at(10), None),
        predicate: Predicate::Request(Request {
            nonce: nonce.clone(),
            audience: agency("bb"),
            expires: at(60),
            grammar: 1,
            query: r#"SELECT "a" FROM "bb"."places@1""#.into(),
            purpose: None,
            legal_basis: None,
            seen: seen.clone(),
        }),
    };
    let acceptance = Statement {
        head: head(Some("bb"), at(11), None),
        predicate: Predicate::Acceptance(Acceptance {
            nonce: nonce.clone(),
            audience: agency("aa"),
            dataset: Used {
                version: "bb/places@1".parse().unwrap(),
                sharing: Sharing::Public,
                manifest: manifest.sign(&key(seed)).payload_digest(),
                index: 3,
            },
            seen,
        }),
    };
    let receipt = Statement {
        head: head(Some("bb"), at(12), None),
        predicate: Predicate::Receipt(Receipt {
            nonce: nonce.clone(),
            audience: agency("aa"),
            outcome: Outcome::Complete,
            answer: answer(rows),
        }),
    };
    let acknowledgement = Statement {
        head: head(Some("aa"), at(13), None),
        predicate: Predicate::Acknowledgement(Acknowledgement {
            nonce,
            audience: agency("bb"),
            answer: answer(rows),
        }),
    };
    chained([request, acceptance, receipt, acknowledgement])
}

/// The messages, each made to continue the one before it.
fn chained(mut messages: [Statement; 4]) -> [Statement; 4] {
    for n in 1..4 {
        let before = messages[n - 1].sign(&key(10));
        messages[n].head.sequence = messages[n - 1].head.sequence + 1;
        messages[n].head.previous = Some(before.payload_digest());
    }
    messages
}

/// Changes one message of honest evidence and chains the rest to it again.
fn with_message(n: usize, change: impl Fn(&mut Statement)) -> Draft {
    let mut draft = Draft::honest();
    change(&mut draft.exchange[n]);
    draft.exchange = chained(draft.exchange);
    draft
}

macro_rules! body {
    ($statement:expr, $kind:ident) => {
        match &mut $statement.predicate {
            Predicate::$kind(body) => body,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn honest_evidence_is_valid() {
    let report = Draft::honest().verify().unwrap();
    assert_eq!(report.asker, agency("aa"));
    assert_eq!(report.exchanges.len(), 1);
    assert_eq!(report.exchanges[0].version.to_string(), "bb/places@1");
    assert_eq!(report.checkpoint.size, 4);
}

#[test]
fn a_log_head_without_the_quorum_of_its_root_is_refused() {
    let verified = |draft: Draft| {
        let root = draft.envelopes()[0].payload_digest();
        verify(&draft.write()[..], &root)
    };
    let report = verified(Draft::witnessed(&[3, 1])).unwrap();
    let signed = |n: u8, seconds| (format!("w{n}.example"), at(seconds));
    assert_eq!(report.cosigners, [signed(1, 51), signed(3, 50)]);
    assert_eq!(report.log_time, at(50), "both had seen it from then on");
    for (signed, found) in [(&[][..], 0), (&[2], 1), (&[2, 2], 1)] {
        let refusal = verified(Draft::witnessed(signed)).unwrap_err().to_string();
        let reason = format!("checkpoint: {found} of 2 needed witnesses have co-signed");
        assert!(refusal.starts_with(&reason), "{refusal}");
    }
    // The registry's own cosigner does not count where witnesses have to sign, nor do strangers,
    // nor a witness under another's name.
    for (name, seed) in [(ORIGIN, 91), ("w4.example", 104), ("w2.example", 101)] {
        let mut draft = Draft::witnessed(&[1]);
        draft.cosigners.push((name.into(), seed));
        let refusal = verified(draft).unwrap_err().to_string();
        assert!(refusal.contains("1 of 2 needed witnesses"), "{refusal}");
    }
}

#[test]
fn messages_are_by_and_for_the_parties() {
    for (n, signer) in [(0, 20), (1, 10), (2, 10), (3, 20), (1, 99)] {
        let mut draft = Draft::honest();
        draft.signers[n] = signer;
        draft.refused("the signature is not that of");
    }
    with_message(1, |m| body!(m, Acceptance).audience = agency("bb")).refused("parties");
    with_message(2, |m| body!(m, Receipt).audience = agency("bb")).refused("parties");
    with_message(3, |m| body!(m, Acknowledgement).audience = agency("aa")).refused("parties");
    with_message(1, |m| m.head.agency = Some(agency("cc"))).refused("enrolment of cc is missing");
}

#[test]
fn messages_continue_each_other() {
    for n in 1..4 {
        let mut draft = Draft::honest();
        draft.exchange[n].head.previous = Some(Digest::of(b"another"));
        draft.refused("does not follow");
    }
    with_message(2, |m| body!(m, Receipt).nonce = "f".repeat(32)).refused("does not follow");
    let mut draft = Draft::honest();
    draft.exchange.swap(1, 2);
    draft.exchange = chained(draft.exchange);
    draft.refused("not of their types");
    let mut foreign = Draft::honest();
    foreign.exchange[0].head.federation = "other-0123456789abcdef".parse().unwrap();
    foreign.exchange = chained(foreign.exchange);
    foreign.refused("another federation");
}

#[test]
fn the_version_that_was_asked_for_answered() {
    with_message(0, |m| {
        body!(m, Request).query = r#"SELECT "a" FROM "bb"."places@2""#.into()
    })
    .refused("is not what was asked for");
    with_message(0, |m| {
        body!(m, Request).query = "SELECT 1; DROP TABLE x".into()
    })
    .refused("request.json");
    with_message(0, |m| body!(m, Request).grammar = 2).refused("another border grammar");
    with_message(1, |m| {
        body!(m, Acceptance).dataset.manifest = Digest::of(b"?")
    })
    .refused("another manifest");
    with_message(1, |m| body!(m, Acceptance).dataset.index = 2).refused("another manifest");
    with_message(1, |m| {
        body!(m, Acceptance).dataset.sharing = Sharing::Conditional
    })
    .refused("another manifest");
    with_message(1, |m| m.head.time = at(61)).refused("expired");
    let mut draft = Draft::honest();
    draft.statements.pop();
    draft.refused("the manifest of bb/places@1 is missing");
}

#[test]
fn the_answer_is_whole_and_the_one_that_was_receipted() {
    with_message(2, |m| body!(m, Receipt).outcome = Outcome::Aborted).refused("cut off");
    with_message(3, |m| body!(m, Acknowledgement).answer = answer(b"less"))
        .refused("another answer");
    let mut draft = Draft::honest();
    draft.rows = b"altered".to_vec();
    draft.refused("was signed");
}

#[test]
fn an_exchange_counts_once_and_before_its_evidence() {
    let mut twice = Draft::honest();
    twice.copies = 2;
    twice.refused("stands twice");
    let mut early = Draft::honest();
    early.time = at(5);
    early.refused("later than the evidence");
}

#[test]
fn the_log_is_the_roots_and_holds_what_is_shown() {
    let mut other_log = Draft::honest();
    other_log.log_key = 93;
    other_log.refused(CHECKPOINT);
    let mut forged_enrolment = Draft::honest();
    forged_enrolment.statements[2].1 = 20;
    forged_enrolment.refused("not a root key");
    let mut forged_manifest = Draft::honest();
    forged_manifest.statements[3].1 = 10;
    forged_manifest.refused("the signature is not that of bb");
    let mut foreign_manifest = Draft::honest();
    foreign_manifest.statements[3].0.head.federation = "other-0123456789abcdef".parse().unwrap();
    foreign_manifest.refused("another federation");
    let mut other_root = Draft::honest();
    other_root.statements[0].0.head.time = at(1);
    other_root.refused("another root");
}

#[test]
fn an_export_says_what_the_log_holds() {
    let report = Draft::honest().verify().unwrap();
    let files = sigstore::export(&report, &[3]).unwrap();
    let hint = key(20).public().id();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "3.sigstore.json",
            &format!("keys/{hint}.pem"),
            sigstore::TRUSTED_ROOT
        ]
    );
    let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&files[name]).unwrap();
    let (bundle, root) = (json("3.sigstore.json"), json(sigstore::TRUSTED_ROOT));
    let material = &bundle["verificationMaterial"];
    assert_eq!(material["publicKey"]["hint"], hint.to_string());
    let entry = &material["tlogEntries"][0];
    assert_eq!(entry["logId"], root["tlogs"][0]["logId"]);
    assert_eq!(entry["inclusionProof"]["treeSize"], "4");
    let logged = &report.logged[3];
    assert_eq!(
        bundle["dsseEnvelope"],
        serde_json::from_slice::<serde_json::Value>(&logged.envelope.to_bytes()).unwrap(),
        "a bundle holds the envelope as it is"
    );
    // Four statements, of which a root key signed three, and the log's key.
    assert_eq!(sigstore::export(&report, &[]).unwrap().len(), 4 + 2 + 1);
    assert_eq!(sigstore::export(&report, &[1, 4]), Err(4));
}
