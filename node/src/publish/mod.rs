//! Publishing: from an upload to an entry in the registry, all or nothing.
//!
//! ```text
//! upload ─► same as before? ─► salt staged ─► every row validated ─► Parquet in the store
//!        ─► manifest signed and staged ─► registry ─► replica has it ─► recorded
//! ```
//!
//! After a crash the same command goes on where it was: the staged salt makes the same file
//! again, and a staged manifest is submitted again, which the registry enters once. A node that
//! starts finishes what was signed by itself.

mod record;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, DatasetId, DatasetName, VersionId};
use jingwei_proto::json;
use jingwei_proto::statement::{
    Dataset, DatasetFile, Head, Predicate, Sharing, Source as Origin, Statement,
};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_schemas::TableSchema;
use serde_json::json;

pub use record::{PublishedVersion, Record, Staged, WithheldVersion};

use crate::agency::HostedAgency;
use crate::ingest::{
    self, IngestError, Limits, Progress, Sameness, Source, Spooled, Target, Written,
};
use crate::node::{Node, index_fault};

/// Between two attempts while the registry is down.
const PAUSE: Duration = Duration::from_secs(5);

/// What somebody wants to publish.
pub struct Publication {
    /// By whom.
    pub agency: Arc<HostedAgency>,
    /// As what.
    pub name: DatasetName,
    /// For whom.
    pub sharing: Sharing,
    /// The schema of its rows.
    pub schema: TableSchema,
    /// A title for people.
    pub title: Option<String>,
    /// What it holds.
    pub description: Option<String>,
    /// The file's name, as the publisher calls it.
    pub file: String,
    /// Where the list of rejects goes, if there are any.
    pub rejects: PathBuf,
    /// Becomes true when the publisher gives up.
    pub cancelled: Arc<AtomicBool>,
}

/// A publication that is in the registry.
#[derive(Debug, Clone)]
pub struct Published {
    /// The version, under the name that its publisher knows.
    pub version: VersionId,
    /// What is known of it.
    pub record: PublishedVersion,
    /// Whether it was there before.
    pub existed: bool,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file did not become a dataset.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Everything else, by blame.
    #[error("{0}")]
    Fault(Fault),
}

impl From<Fault> for PublishError {
    fn from(fault: Fault) -> PublishError {
        PublishError::Fault(fault)
    }
}

/// As long as it is there, the node says that somebody publishes a dataset.
struct UnderWay<'a>(&'a Node);

impl<'a> UnderWay<'a> {
    fn begin(node: &'a Node, agency: &AgencyId, name: &DatasetName) -> UnderWay<'a> {
        *node.under_way() = Some(DatasetId {
            agency: agency.clone(),
            name: name.clone(),
        });
        UnderWay(node)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way() = None;
    }
}

impl Node {
    /// The dataset that somebody publishes right now.
    pub(crate) fn under_way(&self) -> MutexGuard<'_, Option<DatasetId>> {
        let locked = self.under_way.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an upload, or says that it is published already.
    pub async fn publish(
        self: &Arc<Node>,
        publication: Publication,
        upload: Spooled,
        progress: impl Fn(Progress) + Send + 'static,
    ) -> Result<Published, PublishError> {
        let _one_at_a_time = self.publishing.lock().await;
        let id = publication.agency.id().clone();
        let _under_way = UnderWay::begin(self, &id, &publication.name);
        self.enrolled(&id)?;
        self.in_force(&id)?;
        let publication = Publication {
            schema: publication
                .schema
                .with_order()
                .map_err(|error| Fault::new(Blame::Malformed, error.to_string()))?,
            ..publication
        };
        let mut record = Record::load(&self.home, &id, &publication.name)?;
        let sameness = self.sameness(&publication, &upload);
        record = self.settle(&publication, sameness, record).await?;
        self.one_meaning(&publication)?;
        if let Some(published) = &record.published
            && published.sameness == sameness
            && self.newest_version(&publication)? == published.version
        {
            return Ok(published_as(&publication, published.clone(), true));
        }
        let salt = self.stage(&publication, &mut record, sameness)?;
        let publication = Arc::new(publication);
        let manifest = self
            .write_data(&publication, upload, salt, progress)
            .await?;
        self.sign(&publication, manifest, &mut record)?;
        self.finish_or_go_on(&publication, record).await
    }

    /// A withheld dataset and one that others may see have names of their own: what was published
    /// stays as it is, and a question by one name must not be about two tables.
    fn one_meaning(&self, publication: &Publication) -> Result<(), Fault> {
        if self.newest_version(publication)? > 0 {
            return Ok(());
        }
        let (other, what, advice) = match publication.sharing {
            Sharing::Withheld => (
                Sharing::Public,
                "a dataset that others may see",
                "its versions stay as they were shared; choose another name for what is to be withheld",
            ),
            _ => (
                Sharing::Withheld,
                "a withheld dataset",
                "choose another name for what others may see",
            ),
        };
        let (agency, name) = (publication.agency.id(), &publication.name);
        let index = self.replica.index();
        let entered = index.newest(&self.entered_as(agency, name, other));
        match entered.map_err(index_fault)? {
            None => Ok(()),
            Some(_) => Err(Fault::new(
                Blame::WrongUse,
                format!("{agency}/{name} is {what} already"),
            )
            .advise(advice)),
        }
    }

    /// Makes durable what is to be published and the salt of its file, which an earlier attempt
    /// may have done.
    fn stage(
        &self,
        publication: &Publication,
        record: &mut Record,
        sameness: Digest,
    ) -> Result<[u8; 32], Fault> {
        match &record.staged {
            Some(staged) if staged.sameness == sameness => Ok(staged.salt),
            _ => {
                let staged = Staged::new(sameness);
                let salt = staged.salt;
                record.staged = Some(staged);
                record.store(self, publication.agency.id(), &publication.name)?;
                Ok(salt)
            }
        }
    }

    /// Validates every row and stores the file; its manifest.
    async fn write_data(
        self: &Arc<Node>,
        publication: &Arc<Publication>,
        upload: Spooled,
        salt: [u8; 32],
        progress: impl Fn(Progress) + Send + 'static,
    ) -> Result<Dataset, PublishError> {
        let bytes = upload.bytes;
        let (node, ours) = (self.clone(), publication.clone());
        let ingesting =
            tokio::task::spawn_blocking(move || node.ingest(&ours, &upload, salt, &progress));
        let (written, format) = ingesting.await.map_err(|error| {
            Fault::new(
                Blame::Internal,
                format!("the publication ended unexpectedly: {error}"),
            )
        })??;
        let rows = written.rows;
        let file = DatasetFile {
            name: format!("{}.parquet", written.digest),
            digest: written.digest,
            bytes: written.bytes,
        };
        self.store.put(written).map_err(|error| {
            Fault::new(Blame::Internal, error.to_string())
                .advise("free some space and publish again")
        })?;
        Ok(Dataset {
            name: publication.name.clone(),
            sharing: publication.sharing,
            title: publication.title.clone(),
            description: publication.description.clone(),
            schema: Some(schema_text(&publication.schema)),
            rows: Some(rows),
            files: vec![file],
            source: Some(Origin { format, bytes }),
            commitment: None,
        })
    }

    /// Enters what is signed; if that fails now, it goes on in the background.
    async fn finish_or_go_on(
        &self,
        publication: &Publication,
        record: Record,
    ) -> Result<Published, PublishError> {
        let finished = self
            .finish(&publication.agency, &publication.name, record)
            .await;
        if finished.is_err() {
            self.unfinished.notify_one();
        }
        Ok(published_as(publication, finished?, false))
    }

    /// Submits what was signed and not seen entered: after a start, and as long as the registry
    /// was down when somebody published. Ends with the node.
    pub(crate) async fn keep_resuming(self: Arc<Node>) {
        loop {
            let waits = self.resume_publications().await;
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.unfinished.notified() => {}
                () = tokio::time::sleep(PAUSE), if waits => {}
            }
        }
    }

    /// Whether some publication still waits.
    async fn resume_publications(&self) -> bool {
        let mut waits = false;
        for (agency, name) in Record::all(&self.home) {
            let Some(agency) = self.agencies.get(&agency).cloned() else {
                continue;
            };
            let _one_at_a_time = self.publishing.lock().await;
            let Ok(record) = Record::load(&self.home, agency.id(), &name) else {
                continue;
            };
            if !record.waits() {
                continue;
            }
            match self.finish(&agency, &name, record).await {
                Ok(published) => {
                    tracing::info!(agency = %agency.id(), %name, version = published.version, "a publication was finished");
                }
                Err(fault) => {
                    tracing::warn!(agency = %agency.id(), %name, %fault, "a publication is not entered");
                    // Anything else does not mend itself; the officer publishes again.
                    waits |= matches!(fault.blame, Blame::Unavailable | Blame::Overloaded);
                }
            }
        }
        waits
    }

    fn ingest(
        &self,
        publication: &Publication,
        upload: &Spooled,
        salt: [u8; 32],
        progress: &dyn Fn(Progress),
    ) -> Result<(Written, String), IngestError> {
        let source = Source::open(upload.path(), &publication.file, Limits::default())?;
        let staging = self.home.data();
        let target = Target {
            disk: &self.disk,
            staging: &staging,
            rejects: &publication.rejects,
            salt,
        };
        let written = ingest::ingest(
            &source,
            &publication.schema,
            &target,
            progress,
            &publication.cancelled,
        )?;
        Ok((written, source.format_name().to_owned()))
    }

    fn sameness(&self, publication: &Publication, upload: &Spooled) -> Digest {
        let options = json!({
            "agency": publication.agency.id(),
            "name": publication.name,
            "sharing": publication.sharing,
            "title": publication.title,
            "description": publication.description,
        });
        Sameness::of(
            &self.secret,
            &upload.digest,
            &publication.schema.digest(),
            &json::canonical(&options),
        )
        .0
    }

    fn newest_version(&self, publication: &Publication) -> Result<u64, Fault> {
        let chain = self
            .replica
            .index()
            .newest(&self.entered_as(
                publication.agency.id(),
                &publication.name,
                publication.sharing,
            ))
            .map_err(index_fault)?;
        Ok(chain.map_or(0, |chain| chain.sequence))
    }

    /// The name under which a dataset is in the registry: a withheld one has a name there that
    /// means nothing to anybody without the node's secret.
    pub(crate) fn entered_as(
        &self,
        agency: &AgencyId,
        name: &DatasetName,
        sharing: Sharing,
    ) -> DatasetId {
        let plain = DatasetId {
            agency: agency.clone(),
            name: name.clone(),
        };
        if sharing != Sharing::Withheld {
            return plain;
        }
        let hidden = Digest::keyed(&self.secret, format!("withheld {plain}").as_bytes());
        let name = format!("w_{}", &hidden.to_string()[..32]);
        // ‘w_’ and 32 hexadecimal digits are a dataset name.
        name.parse().map_or(plain, |name| DatasetId {
            agency: agency.clone(),
            name,
        })
    }

    fn sign(
        &self,
        publication: &Publication,
        manifest: Dataset,
        record: &mut Record,
    ) -> Result<(), PublishError> {
        let entered = self.entered_as(
            publication.agency.id(),
            &publication.name,
            publication.sharing,
        );
        let chain = self.replica.index().newest(&entered).map_err(index_fault)?;
        let (dataset, withheld) = if publication.sharing == Sharing::Withheld {
            let hidden = WithheldVersion::new(manifest);
            (hidden.entry(entered.name.clone()), Some(hidden))
        } else {
            (manifest, None)
        };
        let files = withheld
            .as_ref()
            .map_or(&dataset, |hidden| &hidden.manifest)
            .files
            .clone();
        let rows = withheld
            .as_ref()
            .map_or(&dataset, |hidden| &hidden.manifest)
            .rows
            .unwrap_or(0);
        let statement = Statement {
            head: Head {
                federation: self.membership.federation.clone(),
                agency: Some(publication.agency.id().clone()),
                time: (self.clock)(),
                sequence: chain.map_or(1, |chain| chain.sequence + 1),
                previous: chain.map(|chain| chain.payload),
            },
            predicate: Predicate::Dataset(Box::new(dataset)),
        };
        let envelope = statement.sign(&publication.agency.signing);
        Envelope::parse(&envelope.to_bytes())
            .map_err(|error| Fault::new(Blame::Malformed, format!("the manifest: {error}")))?;
        if let Some(staged) = &mut record.staged {
            staged.envelope = Some(envelope);
            staged.rows = rows;
            staged.files = files;
            staged.withheld = withheld;
        }
        record.store(self, publication.agency.id(), &publication.name)?;
        Ok(())
    }

    /// Finishes what was signed before and is not known to be entered. It may well be: then a
    /// second manifest in its place would enter the same file twice, or lose a withheld one.
    async fn settle(
        &self,
        publication: &Publication,
        sameness: Digest,
        record: Record,
    ) -> Result<Record, Fault> {
        let Some(staged) = record.staged.as_ref().filter(|_| record.waits()) else {
            return Ok(record);
        };
        let same = staged.sameness == sameness;
        let (agency, name) = (&publication.agency, &publication.name);
        let Err(fault) = self.finish(agency, name, record).await else {
            return Record::load(&self.home, agency.id(), name);
        };
        if for_good(&fault) {
            // And so not entered: it is made anew.
            return Record::load(&self.home, agency.id(), name);
        }
        // Everything else leaves open whether it was entered.
        if same || !matches!(fault.blame, Blame::Unavailable | Blame::Overloaded) {
            return Err(fault);
        }
        let message = format!(
            "another publication of {}/{name} has to be entered first, and waits: {}",
            agency.id(),
            fault.message
        );
        Err(Fault { message, ..fault }.advise("this file was not looked at and is not kept: publish it again when ‘jingwei doctor’ says that nothing waits any more"))
    }

    /// Submits the staged manifest, waits until the replica shows it, and records it.
    async fn finish(
        &self,
        agency: &HostedAgency,
        name: &DatasetName,
        mut record: Record,
    ) -> Result<PublishedVersion, Fault> {
        let Some(staged) = record.staged.clone() else {
            return Err(Fault::new(Blame::Internal, "nothing is staged"));
        };
        let Some(envelope) = &staged.envelope else {
            return Err(Fault::new(Blame::Internal, "nothing is signed"));
        };
        let index = match self.enter(envelope).await {
            Ok(index) => index,
            Err(fault) if for_good(&fault) => {
                // This manifest can never be entered.
                record.staged = None;
                record.store(self, agency.id(), name)?;
                return Err(match fault.blame {
                    // Somebody else continued the chain.
                    Blame::Stale => fault.advise("publish again"),
                    _ => fault,
                });
            }
            Err(fault) if fault.blame == Blame::Unavailable || fault.advice.is_none() => {
                return Err(fault.advise("the checked data are kept here; publish the same file again, or wait: the node submits it when the registry is back"));
            }
            Err(fault) => return Err(fault),
        };
        let sequence =
            Statement::parse(envelope.payload()).map_or(0, |statement| statement.head.sequence);
        let published = PublishedVersion {
            sameness: staged.sameness,
            version: sequence,
            rows: staged.rows,
            index,
            file: staged
                .files
                .first()
                .map_or(Digest::of(b""), |file| file.digest),
            bytes: staged.files.iter().map(|file| file.bytes).sum(),
        };
        if let Some(withheld) = staged.withheld {
            record.withheld.insert(sequence, withheld);
        }
        record.published = Some(published.clone());
        record.staged = None;
        record.store(self, agency.id(), name)?;
        metrics::counter!("jingwei_published_total").increment(1);
        Ok(published)
    }

    /// A version of a withheld dataset of a hosted agency, by the name that its officers know.
    pub(crate) fn withheld(&self, id: &DatasetId, version: Option<u64>) -> Option<(u64, Dataset)> {
        let record = Record::load(&self.home, &id.agency, &id.name).ok()?;
        let (number, withheld) = match version {
            Some(number) => record.withheld.get_key_value(&number)?,
            None => record.withheld.last_key_value()?,
        };
        Some((*number, withheld.manifest.clone()))
    }
}

/// Whether the rules refuse a statement, now and whenever it is submitted again.
fn for_good(fault: &Fault) -> bool {
    matches!(
        fault.blame,
        Blame::Malformed | Blame::Forged | Blame::Unauthorised | Blame::Inconsistent | Blame::Stale
    )
}

fn published_as(publication: &Publication, record: PublishedVersion, existed: bool) -> Published {
    let dataset = DatasetId {
        agency: publication.agency.id().clone(),
        name: publication.name.clone(),
    };
    Published {
        version: VersionId {
            dataset,
            version: record.version,
        },
        record,
        existed,
    }
}

fn schema_text(schema: &TableSchema) -> String {
    String::from_utf8_lossy(&json::canonical(schema.json())).into_owned()
}
