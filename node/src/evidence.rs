//! Building the evidence of one answer, in the order that the verifier reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read};

use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::evidence::{
    self, ANSWER, CHECKPOINT, INDEX, MESSAGES, SNAPSHOT, Writer, exchange_name, proof_name,
    statement_name,
};
use jingwei_proto::id::AgencyId;
use jingwei_proto::note::Note;
use jingwei_proto::statement::{
    AnswerDigest, EvidenceExport, EvidenceIndex, EvidenceMember, Head, MAX_QUERY, Predicate,
    Statement,
};
use jingwei_proto::tlog_proof::TlogProof;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::log::LogError;

use crate::exchange::ask::{Exchanged, Question, TempFile};
use crate::node::{Node, index_fault};

/// An answer to be proved.
pub struct Answer<'a> {
    /// The asker's SQL.
    pub sql: &'a str,
    /// The asker's table as an Arrow IPC stream.
    pub table: &'a TempFile,
    /// Its digest.
    pub digest: AnswerDigest,
    /// The exchanges that it rests on.
    pub exchanges: &'a [Exchanged],
    /// Files that the table was exported to.
    pub exports: Vec<EvidenceExport>,
}

/// A member before it is written: its bytes, or the file that holds them.
enum Content<'a> {
    Bytes(Vec<u8>),
    File(&'a TempFile, AnswerDigest),
}

/// Writes the evidence of an answer into a temporary file of the node.
pub fn build(question: &Question, answer: &Answer<'_>) -> Result<TempFile, Fault> {
    let node = &question.node;
    if answer.sql.len() > MAX_QUERY {
        return Err(Fault::new(
            Blame::LimitExceeded,
            format!("SQL longer than {MAX_QUERY} bytes is not put into evidence"),
        ));
    }
    let members = collect(question, answer)?;
    let listed = members
        .iter()
        .map(|(name, content)| {
            let (digest, bytes) = match content {
                Content::Bytes(bytes) => (Digest::of(bytes), bytes.len() as u64),
                Content::File(_, answer) => (answer.digest, answer.bytes),
            };
            EvidenceMember {
                name: name.clone(),
                digest,
                bytes,
            }
        })
        .collect();
    let index = Statement {
        head: Head {
            federation: node.membership.federation.clone(),
            agency: Some(question.agency.id().clone()),
            time: (node.clock)(),
            sequence: 1,
            previous: None,
        },
        predicate: Predicate::Evidence(EvidenceIndex {
            sql: answer.sql.to_owned(),
            answer: answer.digest.clone(),
            exchanges: answer.exchanges.len() as u64,
            members: listed,
            exports: answer.exports.clone(),
        }),
    }
    .sign(&question.agency.signing)
    .to_bytes();
    if index.len() > jingwei_proto::dsse::MAX_ENVELOPE {
        return Err(Fault::new(
            Blame::LimitExceeded,
            "the answer rests on too many exchanges for one evidence file",
        ));
    }
    write(node, &index, &members).map_err(|error| {
        Fault::new(
            Blame::Internal,
            format!("the evidence cannot be written: {error}"),
        )
        .advise("free some space and ask again")
    })
}

fn write(node: &Node, index: &[u8], members: &[(String, Content<'_>)]) -> io::Result<TempFile> {
    let (temp, file) = TempFile::create(node)?;
    let mut writer = Writer::new(BufWriter::new(file));
    writer.member(INDEX, index.len() as u64, index)?;
    for (name, content) in members {
        match content {
            Content::Bytes(bytes) => writer.member(name, bytes.len() as u64, &bytes[..])?,
            Content::File(file, answer) => {
                let file: Box<dyn Read> = Box::new(File::open(file.path())?);
                writer.member(name, answer.bytes, file)?;
            }
        }
    }
    writer.finish()?;
    Ok(temp)
}

fn collect<'a>(
    question: &Question,
    answer: &'a Answer<'a>,
) -> Result<Vec<(String, Content<'a>)>, Fault> {
    let node = &question.node;
    let log = node.replica.log();
    let unreadable = |error: LogError| {
        tracing::error!(%error, "the replica's log cannot be read");
        Fault::new(
            Blame::Internal,
            "the node cannot read its replica of the log",
        )
    };
    let rests = Rests::of(question, answer)?;
    let note = log.checkpoint_note().map_err(unreadable)?;
    // From the note itself: the replica may go on between two looks at it.
    let size = Note::parse(note.as_bytes())
        .ok()
        .and_then(|note| note.text.parse::<Checkpoint>().ok())
        .map_or(0, |checkpoint| checkpoint.size);
    let mut members = vec![(
        CHECKPOINT.to_owned(),
        Content::Bytes(note.clone().into_bytes()),
    )];
    for index in rests.places {
        let envelope = log.envelope(index).map_err(unreadable)?;
        let proof = TlogProof {
            index,
            hashes: log.inclusion_proof(index, size).map_err(unreadable)?,
            checkpoint: note.clone(),
            extra: None,
        };
        members.push((statement_name(index), Content::Bytes(envelope)));
        members.push((
            proof_name(index),
            Content::Bytes(proof.to_string().into_bytes()),
        ));
    }
    if let Some(proofs) = rests.proofs {
        members.push((SNAPSHOT.to_owned(), Content::Bytes(proofs)));
    }
    for (n, exchanged) in (0..).zip(answer.exchanges) {
        for (part, message) in MESSAGES.iter().zip(&exchanged.messages) {
            members.push((exchange_name(n, part), Content::Bytes(message.to_vec())));
        }
        let file = exchanged
            .file
            .as_ref()
            .ok_or_else(|| Fault::new(Blame::Internal, "an answer was not kept"))?;
        members.push((
            exchange_name(n, ANSWER),
            Content::File(file, exchanged.answer.clone()),
        ));
    }
    members.push((
        ANSWER.to_owned(),
        Content::File(answer.table, answer.digest.clone()),
    ));
    Ok(members)
}

/// What of the log the answer rests on.
#[derive(Default)]
struct Rests {
    /// Places of every version of the root, of what made the parties and their superiors what
    /// they are, of the manifests, and of the newest snapshot.
    places: BTreeSet<u64>,
    roots: Vec<u64>,
    /// Those agencies, with the places of what happened to each.
    changes: BTreeMap<AgencyId, Vec<u64>>,
    /// Proofs by that snapshot that nothing else happened before it.
    proofs: Option<Vec<u8>>,
}

impl Rests {
    fn of(question: &Question, answer: &Answer<'_>) -> Result<Rests, Fault> {
        let node = &question.node;
        let mut rests = Rests::default();
        rests.add_roots(node)?;
        rests.add_agency(node, question.agency.id())?;
        for exchanged in answer.exchanges {
            rests.add_agency(node, &exchanged.version.dataset.agency)?;
            rests.places.insert(exchanged.index);
        }
        rests.prove(node)?;
        Ok(rests)
    }

    fn add_roots(&mut self, node: &Node) -> Result<(), Fault> {
        let index = node.replica.index();
        let newest = index.root().map_err(index_fault)?;
        for version in 1..=newest.map_or(0, |root| root.chain.sequence) {
            let root = index.root_version(version).map_err(index_fault)?;
            self.roots.extend(root.map(|root| root.chain.index));
        }
        self.places.extend(&self.roots);
        Ok(())
    }

    /// An agency, and whoever had or has authority over it.
    fn add_agency(&mut self, node: &Node, agency: &AgencyId) -> Result<(), Fault> {
        let index = node.replica.index();
        let mut left = vec![agency.clone()];
        while let Some(id) = left.pop() {
            left.extend(id.superior());
            if self.changes.contains_key(&id) {
                continue;
            }
            if let Some(record) = index.agency(&id).map_err(index_fault)? {
                let changes = index.changes_of(&record).map_err(index_fault)?;
                self.places.extend(&changes);
                self.changes.insert(id, changes);
                left.extend(record.successor);
            }
        }
        Ok(())
    }

    /// By the newest snapshot, if there has been one.
    fn prove(&mut self, node: &Node) -> Result<(), Fault> {
        let index = node.replica.index();
        let wanted = |snapshot| {
            let changes = self.changes.iter().map(|(id, places)| (id, places.clone()));
            let wanted = evidence::wanted(snapshot, &self.roots, changes);
            wanted.into_keys().collect()
        };
        let Some((snapshot, proofs)) = index.prove(wanted).map_err(index_fault)? else {
            return Ok(());
        };
        self.places.insert(snapshot);
        self.proofs = Some(jingwei_proto::json::canonical(&proofs));
        Ok(())
    }
}
