//! The catalogue: what there is, for people who look and for queries that name tables.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use jingwei_proto::id::{AgencyId, DatasetId, IdError, VersionId, parse_version};
use jingwei_proto::state::VersionRecord;
use jingwei_proto::statement::{Dataset, Sharing};
use jingwei_proto::wire::node::{
    DataFile, DatasetSummary, DatasetVersion, DescribeResponse, FindResponse,
};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::standing;
use jingwei_schemas::TableSchema;

use crate::exchange::ask::{Question, ThroughExchange};
use crate::node::{Node, index_fault};
use crate::publish::Record;
use crate::query::error::{QueryError, THIS_NODE};
use crate::query::guard::GuardedTable;
use crate::query::permit::Permit;
use crate::query::remote::RemoteTable;
use crate::query::session::Resolver;

/// Versions that ‘describe’ lists.
const HISTORY: usize = 20;

/// Datasets that are named to somebody who may have meant them.
const NEAREST: usize = 3;

impl Node {
    /// The newest version of every dataset that matches all words, best matches first.
    pub fn find(&self, words: &[String], limit: usize) -> Result<FindResponse, Fault> {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let mut found = Vec::new();
        for id in self.replica.index().datasets() {
            let Some((version, record)) = self.newest(&id)? else {
                continue;
            };
            if record.dataset.sharing == Sharing::Withheld {
                continue;
            }
            if let Some(score) = self.score(&id, &record.dataset, &words) {
                found.push((score, self.summary(&version, &record)));
            }
        }
        for (version, record) in self.own_withheld()? {
            if let Some(score) = self.score(&version.dataset, &record.dataset, &words) {
                found.push((score, self.summary(&version, &record)));
            }
        }
        found.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.dataset.cmp(&y.dataset)));
        let nearest = match found.is_empty() {
            true => words.iter().flat_map(|word| self.near_word(word)).collect(),
            false => BTreeSet::new(),
        };
        Ok(FindResponse {
            nearest: nearest.into_iter().collect(),
            total: found.len() as u64,
            datasets: found
                .into_iter()
                .take(limit)
                .map(|(_, summary)| summary)
                .collect(),
        })
    }

    /// The agencies, or else the datasets, that are called nearly as somebody wrote.
    fn near_word(&self, word: &str) -> Vec<String> {
        let agencies = self.near_agencies(word);
        match agencies.is_empty() {
            true => self.near(word),
            false => agencies,
        }
    }

    /// The newest version of every withheld dataset of the agencies hosted here. Nobody else
    /// learns of them: this is asked on the node's own socket alone.
    fn own_withheld(&self) -> Result<Vec<(VersionId, Arc<VersionRecord>)>, Fault> {
        let recorded = Record::all(&self.home).into_iter();
        recorded
            .map(|(agency, name)| DatasetId { agency, name })
            .filter_map(|id| self.withheld_version(&id, None).transpose())
            .collect()
    }

    /// A withheld version of a hosted agency, under the name and with the manifest that only its
    /// own people know.
    fn withheld_version(
        &self,
        id: &DatasetId,
        version: Option<u64>,
    ) -> Result<Option<(VersionId, Arc<VersionRecord>)>, Fault> {
        if !self.agencies.contains_key(&id.agency) {
            return Ok(None);
        }
        let Some((number, manifest)) = self.withheld(id, version) else {
            return Ok(None);
        };
        let of = |dataset: DatasetId| VersionId {
            dataset,
            version: number,
        };
        let entered = of(self.entered_as(&id.agency, &id.name, Sharing::Withheld));
        let record = self.known.version(&entered).map_err(index_fault)?;
        Ok(record.map(|record| {
            let known = VersionRecord {
                chain: record.chain,
                time: record.time,
                dataset: manifest,
            };
            (of(id.clone()), Arc::new(known))
        }))
    }

    /// A version, or the newest, of a dataset that this node's own people may know of.
    fn known_version(
        &self,
        id: &DatasetId,
        version: Option<u64>,
    ) -> Result<Option<(VersionId, Arc<VersionRecord>)>, Fault> {
        let found = match version {
            None => self.newest(id)?,
            Some(version) => {
                let id = VersionId {
                    dataset: id.clone(),
                    version,
                };
                let record = self.known.version(&id).map_err(index_fault)?;
                record.map(|record| (id, record))
            }
        };
        match found {
            Some(found) => Ok(Some(found)),
            None => self.withheld_version(id, version),
        }
    }

    /// The newest versions up to `newest`, newest first.
    fn history(&self, newest: &VersionId) -> Result<Vec<DatasetVersion>, Fault> {
        let numbers = (1..=newest.version).rev().take(HISTORY);
        let known = numbers.map(|number| self.known_version(&newest.dataset, Some(number)));
        known
            .filter_map(Result::transpose)
            .map(|found| {
                found.map(|(version, record)| DatasetVersion {
                    version: version.version,
                    time: record.time.to_string(),
                    rows: record.dataset.rows.unwrap_or(0),
                })
            })
            .collect()
    }

    /// How well a dataset matches: a word in its name counts most, then title, then the rest.
    fn score(&self, id: &DatasetId, dataset: &Dataset, words: &[String]) -> Option<u32> {
        let name = id.to_string();
        let title = dataset.title.as_deref().unwrap_or("").to_lowercase();
        let agency = self.replica.index().agency(&id.agency).ok().flatten();
        let rest = [
            dataset.description.as_deref().unwrap_or(""),
            dataset.schema.as_deref().unwrap_or(""),
            agency.as_ref().map_or("", |agency| agency.name.as_str()),
        ]
        .join("\n")
        .to_lowercase();
        words.iter().try_fold(0, |score, word| {
            let found = [
                (name.contains(word), 9),
                (title.contains(word), 3),
                (rest.contains(word), 1),
            ];
            let points: u32 = found
                .iter()
                .filter(|(found, _)| *found)
                .map(|(_, points)| points)
                .sum();
            (points > 0).then_some(score + points)
        })
    }

    fn newest(&self, id: &DatasetId) -> Result<Option<(VersionId, Arc<VersionRecord>)>, Fault> {
        let Some(chain) = self.known.newest(id).map_err(index_fault)? else {
            return Ok(None);
        };
        let version = VersionId {
            dataset: id.clone(),
            version: chain.sequence,
        };
        let record = self.known.version(&version).map_err(index_fault)?;
        Ok(record.map(|record| (version, record)))
    }

    /// Everything that the catalogue knows of `AGENCY/NAME` or `AGENCY/NAME@VERSION`.
    pub fn describe(&self, text: &str) -> Result<DescribeResponse, Fault> {
        let wrong = |error: IdError| {
            let name = text.split('@').next().unwrap_or(text);
            Fault::new(Blame::WrongUse, error.to_string()).advise(self.meant(name))
        };
        let (id, version) = match text.split_once('@') {
            Some(_) => {
                let version: VersionId = text.parse().map_err(wrong)?;
                (version.dataset.clone(), Some(version))
            }
            None => (text.parse().map_err(wrong)?, None),
        };
        let newest = self
            .known_version(&id, None)?
            .ok_or_else(|| self.unknown(&id))?;
        let versions = newest.0.version;
        let history = self.history(&newest.0)?;
        let (version, record) = match version {
            Some(version) => self
                .known_version(&id, Some(version.version))?
                .ok_or_else(|| {
                    let advice = match versions {
                        1 => format!("its only version is {id}@1"),
                        _ => format!(
                            "its newest version is {id}@{versions}; ‘jingwei describe {id}’ lists those before it"
                        ),
                    };
                    Fault::new(Blame::NotFound, format!("there is no {version}")).advise(advice)
                })?,
            None => newest,
        };
        let agency = self.member(&id.agency)?;
        let dataset = &record.dataset;
        Ok(DescribeResponse {
            summary: Some(self.summary(&version, &record)),
            description: dataset.description.clone().unwrap_or_default(),
            schema: dataset.schema.clone().unwrap_or_default(),
            files: dataset
                .files
                .iter()
                .map(|file| DataFile {
                    digest: file.digest.to_string(),
                    bytes: file.bytes,
                })
                .collect(),
            index: record.chain.index,
            manifest_digest: record.chain.payload.to_string(),
            agency_name: agency.name.clone(),
            agency_level: agency.level,
            agency_territory: agency.territory.to_string(),
            address: self
                .node_of(&id.agency)
                .map(|node| node.node.address.clone())
                .unwrap_or_default(),
            versions,
            source_format: dataset
                .source
                .as_ref()
                .map(|source| source.format.clone())
                .unwrap_or_default(),
            source_bytes: dataset.source.as_ref().map_or(0, |source| source.bytes),
            history,
        })
    }

    fn unknown(&self, id: &DatasetId) -> Fault {
        let meant = self.meant(&id.to_string());
        if !matches!(self.known.agency(&id.agency), Ok(None)) {
            return Fault::new(Blame::NotFound, format!("there is no dataset {id}")).advise(meant);
        }
        let fault = standing::unknown(self.replica.index(), &id.agency);
        let agencies = fault.advice.iter().map(|near| format!("{near}; "));
        let advice = format!("{}datasets: {meant}", agencies.collect::<String>());
        fault.advise(advice)
    }

    fn near_agencies(&self, id: &str) -> Vec<String> {
        let all = self.replica.index().agencies();
        let ids: Vec<String> = all.map(|record| record.id.to_string()).collect();
        jingwei_schemas::nearest(id, ids.iter().map(String::as_str))
    }

    /// Which datasets somebody may have meant who wrote `text`, or how to see all.
    fn meant(&self, text: &str) -> String {
        match self.near(text).as_slice() {
            [] => "‘jingwei find’ lists what there is".to_owned(),
            near => format!("the nearest: {}", near.join(", ")),
        }
    }

    /// The datasets that are called nearly so, nearest first: by their whole id, or else by their
    /// name at whichever agency.
    fn near(&self, text: &str) -> Vec<String> {
        let all: Vec<DatasetId> = self.replica.index().datasets().collect();
        let ids: Vec<String> = all.iter().map(ToString::to_string).collect();
        let near = jingwei_schemas::nearest(text, ids.iter().map(String::as_str));
        if !near.is_empty() {
            return near;
        }
        let name = text.rsplit('/').next().unwrap_or(text);
        let names = jingwei_schemas::nearest(name, all.iter().map(|id| id.name.as_str()));
        names
            .iter()
            .flat_map(|name| all.iter().filter(move |id| id.name.as_str() == name))
            .take(NEAREST)
            .map(ToString::to_string)
            .collect()
    }

    fn summary(&self, version: &VersionId, record: &VersionRecord) -> DatasetSummary {
        let agency = self.known.agency(&version.dataset.agency).ok().flatten();
        let stopped = agency.and_then(|agency| self.stopped(&agency));
        DatasetSummary {
            dataset: version.dataset.to_string(),
            version: version.version,
            title: record.dataset.title.clone().unwrap_or_default(),
            sharing: record.dataset.sharing.to_string(),
            rows: record.dataset.rows.unwrap_or(0),
            time: record.time.to_string(),
            agency_stopped: stopped.map_or_else(String::new, |stopped| stopped.to_string()),
        }
    }

    /// A schema by its name: one of the registry's (`AGENCY/NAME`) or one of the pack.
    pub fn schema_by_name(&self, name: &str) -> Result<TableSchema, Fault> {
        if let Ok(id) = name.parse::<DatasetId>() {
            let record = self.replica.index().schema(&id).map_err(index_fault)?;
            let record = record.ok_or_else(|| {
                Fault::new(
                    Blame::NotFound,
                    format!("the registry holds no schema {id}"),
                )
            })?;
            return TableSchema::parse_entered(record.schema.schema.as_bytes()).map_err(|error| {
                Fault::new(Blame::Malformed, format!("the schema {id}: {error}")).advise(format!(
                    "{} has entered it, and can enter it anew",
                    id.agency
                ))
            });
        }
        jingwei_schemas::pack::find(name).ok_or_else(|| {
            let known: Vec<&str> = jingwei_schemas::pack::names().collect();
            Fault::new(Blame::NotFound, format!("‘{name}’ is no file, no schema of the registry (AGENCY/NAME) and none of the program's own"))
                .advise(format!("the program's own are {}", known.join(", ")))
        })
    }
}

/// The tables that one question may name: the asker's own are read here, others' are asked for.
#[derive(Debug)]
pub struct Tables(pub Arc<Question>);

impl Tables {
    async fn own(
        &self,
        version: VersionId,
        dataset: &Dataset,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let owner = self.0.agency.id();
        let here = |reason: String| QueryError::Incomplete {
            agency: THIS_NODE.to_owned(),
            reason,
        };
        let files = self
            .0
            .node
            .data_files(dataset)
            .await
            .map_err(|fault| here(fault.to_string()))?;
        let permit = Permit::of_class(owner.clone(), owner, dataset.sharing);
        let table =
            GuardedTable::new(version, files, permit).map_err(|error| here(error.to_string()))?;
        Ok(Arc::new(table))
    }

    fn remote(
        &self,
        version: VersionId,
        dataset: &Dataset,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let agency = &version.dataset.agency;
        self.take_part(self.0.agency.id())?;
        self.take_part(agency)?;
        if dataset.sharing == Sharing::Withheld {
            let reason = format!("{agency} withholds {version}, and is not asked for it");
            return Err(QueryError::refused_here(reason));
        }
        let columns = self.0.node.known.columns(&version, dataset);
        let columns = columns.map_err(|error| QueryError::Incomplete {
            agency: agency.to_string(),
            reason: format!("the schema of {version} cannot be used: {error}"),
        })?;
        let asker = Arc::new(ThroughExchange(self.0.clone()));
        Ok(Arc::new(RemoteTable::new(version, columns, asker)))
    }

    /// Declines for an agency that is suspended or has ended: that it takes no part is what this
    /// node knows, and nobody is asked. What else hinders an exchange, the exchange finds.
    fn take_part(&self, agency: &AgencyId) -> Result<(), QueryError> {
        match self.0.node.in_force(agency) {
            Err(fault) if fault.blame == Blame::Unauthorised => {
                let advice = fault.advice.unwrap_or_default();
                let reason = format!("{}; {advice}", fault.message);
                Err(QueryError::refused_here(reason))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Resolver for Tables {
    async fn table(
        &self,
        agency: &str,
        table: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        let (name, version) = match table.split_once('@') {
            Some((name, version)) => match parse_version(version) {
                Some(version) => (name, Some(version)),
                None => return Ok(None),
            },
            None => (table, None),
        };
        let (Ok(agency), Ok(name)) = (agency.parse::<AgencyId>(), name.parse()) else {
            return Ok(None);
        };
        let node = &self.0.node;
        let dataset = DatasetId { agency, name };
        let own = dataset.agency == *self.0.agency.id();
        let internal = |fault: Fault| QueryError::Internal(fault.to_string());
        let number = match version {
            Some(number) => Some(number),
            None => node
                .known
                .newest(&dataset)
                .map_err(|error| internal(index_fault(error)))?
                .map(|chain| chain.sequence),
        };
        if let Some(number) = number {
            let id = VersionId {
                dataset: dataset.clone(),
                version: number,
            };
            if let Some(record) = node
                .known
                .version(&id)
                .map_err(|error| internal(index_fault(error)))?
            {
                return if own {
                    self.own(id, &record.dataset).await
                } else {
                    self.remote(id, &record.dataset)
                }
                .map(Some);
            }
        }
        // A withheld dataset is known by its name to its own agency alone.
        match node.withheld(&dataset, version).filter(|_| own) {
            Some((version, manifest)) => self
                .own(VersionId { dataset, version }, &manifest)
                .await
                .map(Some),
            None => Ok(None),
        }
    }

    fn agencies(&self) -> Vec<String> {
        let mut agencies: Vec<String> = self
            .0
            .node
            .replica
            .index()
            .datasets()
            .map(|id| id.agency.to_string())
            .collect();
        agencies.dedup();
        agencies
    }

    fn tables(&self, agency: &str) -> Vec<String> {
        let Ok(agency) = agency.parse() else {
            return Vec::new();
        };
        self.0
            .node
            .replica
            .index()
            .datasets_of(&agency)
            .map(|id| id.name.to_string())
            .collect()
    }

    fn newest(&self, agency: &str, table: &str) -> Option<u64> {
        let (agency, name) = (agency.parse().ok()?, table.parse().ok()?);
        let dataset = DatasetId { agency, name };
        let node = &self.0.node;
        let known = node.known.newest(&dataset).ok().flatten();
        let own = || {
            let own = dataset.agency == *self.0.agency.id();
            node.withheld(&dataset, None).filter(|_| own)
        };
        known
            .map(|chain| chain.sequence)
            .or_else(|| own().map(|(version, _)| version))
    }
}
