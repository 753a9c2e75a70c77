//! Who belonged when, as far as the evidence shows: roots, agencies and their keys, admitted in
//! the log's order by the rules that the registry admits by.

use std::collections::BTreeMap;

use super::statement_name;
use super::verify::{Invalid, Manifest, invalid};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::id::{AgencyId, DatasetId, VersionId};
use crate::key::PublicKey;
use crate::state::{self, AgencyRecord, ApplyError, Chain, RootRecord, TimeRecord, keys};
use crate::statement::{Predicate, Statement};
use crate::time::Time;

/// Members of the federation, statement by statement.
#[derive(Default)]
pub(super) struct Members {
    state: BTreeMap<String, Vec<u8>>,
    /// Each agency's keys, with the log index from which each was in force.
    keys: BTreeMap<AgencyId, Vec<(u64, PublicKey)>>,
    /// The newest snapshot among the statements: its place, its time, and the state it names.
    pub(super) snapshot: Option<(u64, Time, Digest)>,
}

impl Members {
    /// A root document, a statement about an agency, or a snapshot that ended a delay.
    pub(super) fn admit(
        &mut self,
        index: u64,
        envelope: &Envelope,
        statement: &Statement,
    ) -> Result<PublicKey, Invalid> {
        if let Predicate::Snapshot(snapshot) = &statement.predicate {
            self.stand_in_for_snapshots_before(index, statement);
            self.snapshot = Some((index, statement.head.time, snapshot.state));
        }
        let change = match state::apply(&self.state, index, envelope) {
            Ok(change) => change,
            Err(ApplyError::Storage(never)) => match never {},
            Err(error) => return invalid(format!("{}: {error}", statement_name(index))),
        };
        change.write_to(&mut self.state);
        for (_, record) in change
            .writes
            .iter()
            .filter(|(key, _)| key.starts_with("agency/"))
        {
            let record: Option<AgencyRecord> = record.as_deref().and_then(state::record);
            if let Some(record) = record {
                self.note_key(index, record);
            }
        }
        Ok(change.signer)
    }

    fn note_key(&mut self, index: u64, record: AgencyRecord) {
        let keys = self.keys.entry(record.id).or_default();
        if keys.last().is_none_or(|(_, key)| *key != record.key) {
            keys.push((index, record.key));
        }
    }

    /// Earlier snapshots are not needed: the registry admitted this one only as the next one.
    fn stand_in_for_snapshots_before(&mut self, index: u64, statement: &Statement) {
        let Some(previous) = statement.head.previous else {
            return;
        };
        let before = TimeRecord {
            chain: Chain {
                sequence: statement.head.sequence - 1,
                payload: previous,
                index: index - 1,
            },
            time: statement.head.time.plus(-1),
        };
        let record = crate::json::canonical(&before);
        self.state.insert(keys::TIME.to_owned(), record);
    }

    /// A manifest. Its place among the dataset's versions is its sequence; earlier versions are
    /// not needed, because the registry admitted it only as the next one.
    pub(super) fn manifest(
        &self,
        index: u64,
        envelope: &Envelope,
        statement: &Statement,
    ) -> Result<(VersionId, Manifest, PublicKey), Invalid> {
        let name = statement_name(index);
        let (Predicate::Dataset(dataset), Some(agency)) =
            (&statement.predicate, &statement.head.agency)
        else {
            return invalid(format!("{name} is not a manifest"));
        };
        if statement.head.federation != self.root()?.federation {
            return invalid(format!("{name} belongs to another federation"));
        }
        let Some(record) = self.agency(agency) else {
            return invalid(format!("{name}: the enrolment of {agency} is missing"));
        };
        if !record.is_active() {
            return invalid(format!("{name}: {agency} was {} then", record.status));
        }
        if envelope.verify(&record.key).is_err() {
            return invalid(format!("{name}: the signature is not that of {agency}"));
        }
        let id = VersionId {
            dataset: DatasetId {
                agency: agency.clone(),
                name: dataset.name.clone(),
            },
            version: statement.head.sequence,
        };
        let manifest = Manifest {
            payload: envelope.payload_digest(),
            index,
            sharing: dataset.sharing,
        };
        Ok((id, manifest, record.key))
    }

    /// The root in force.
    pub(super) fn root(&self) -> Result<RootRecord, Invalid> {
        self.record(keys::ROOT)
            .ok_or_else(|| Invalid("there is no root document".into()))
    }

    fn agency(&self, id: &AgencyId) -> Option<AgencyRecord> {
        self.record(&keys::agency(id))
    }

    pub(super) fn agencies(&self) -> impl Iterator<Item = AgencyRecord> {
        let records = self.state.iter();
        let records = records.filter(|(key, _)| key.starts_with("agency/"));
        records.filter_map(|(_, bytes)| state::record(bytes))
    }

    pub(super) fn record<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.bytes(key).and_then(state::record)
    }

    /// A record as the state has it.
    pub(super) fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.state.get(key).map(Vec::as_slice)
    }

    /// The keys of an agency that were in force at some time after `seen` entries of the log.
    pub(super) fn keys_since(&self, agency: &AgencyId, seen: u64) -> Vec<&PublicKey> {
        let keys = self.keys.get(agency).map_or(&[][..], Vec::as_slice);
        let replaced = keys.iter().skip(1).map(|(index, _)| *index);
        keys.iter()
            .zip(replaced.chain([u64::MAX]))
            .filter(|(_, replaced)| *replaced >= seen)
            .map(|((_, key), _)| key)
            .collect()
    }
}
