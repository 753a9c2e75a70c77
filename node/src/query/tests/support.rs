//! A dataset on disk, an exchange without a network, and the same rows in memory to compare.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::MemTable;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt, future};
use jingwei_proto::border::Query;
use jingwei_proto::id::{AgencyId, VersionId};
use jingwei_proto::statement::Sharing;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::super::error::QueryError;
use super::super::file::DataFile;
use super::super::frames::{Decoder, Encoder, Frame};
use super::super::guard::GuardedTable;
use super::super::limits::Limits;
use super::super::permit::Permit;
use super::super::provide::{ProvideError, provide};
use super::super::remote::{Asker, RemoteTable};
use super::super::seats::Seat;
use super::super::session::{Resolver, Session};

pub fn agency(id: &str) -> AgencyId {
    id.parse().unwrap()
}

/// `rows` rows of every kind of column, with nulls, odd texts and repeated values.
pub fn sample(rows: i64) -> RecordBatch {
    let texts = [
        "Rennes",
        "rennes",
        "海淀区",
        "",
        "a%b_c",
        "O'Brien",
        "Saint-Malo",
        "\\",
    ];
    let some = |i: i64, every: i64| i % every != 0;
    let all = || 0..rows;
    let code: ArrayRef = Arc::new(StringArray::from_iter_values(
        all().map(|i| format!("{i:05}")),
    ));
    let nom: ArrayRef = Arc::new(StringArray::from_iter(
        all().map(|i| some(i, 7).then(|| texts[(i * 3 % 8) as usize])),
    ));
    let population: ArrayRef = Arc::new(Int64Array::from_iter(
        all().map(|i| some(i, 5).then_some((i * 7_919) % 10_007 - 50)),
    ));
    let area: ArrayRef = Arc::new(Float64Array::from_iter(
        all().map(|i| some(i, 11).then(|| (i % 97) as f64 / 4.0 - 3.0)),
    ));
    let founded: ArrayRef =
        Arc::new(Date32Array::from_iter(all().map(|i| {
            some(i, 6).then_some((i * 131 % 40_000 - 10_000) as i32)
        })));
    let seen: ArrayRef = Arc::new(
        TimestampMicrosecondArray::from_iter(
            all().map(|i| some(i, 9).then_some(i * 86_399_000_001 - 1_000_000_000)),
        )
        .with_timezone("UTC"),
    );
    let active: ArrayRef = Arc::new(BooleanArray::from_iter(
        all().map(|i| some(i, 4).then_some(i % 3 == 0)),
    ));
    RecordBatch::try_from_iter_with_nullable([
        ("code", code, true),
        ("NOM", nom, true),
        ("population", population, true),
        ("area", area, true),
        ("founded", founded, true),
        ("seen", seen, true),
        ("active", active, true),
    ])
    .unwrap()
}

/// A second table, with keys of the first.
pub fn groups() -> RecordBatch {
    let member: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..300).map(|i| format!("{:05}", i * 2)),
    ));
    let group: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..300).map(|i| format!("G{}", i % 7)),
    ));
    RecordBatch::try_from_iter_with_nullable([("member", member, true), ("grp", group, true)])
        .unwrap()
}

/// Writes `batch` as a published file, with salt and several row groups.
pub fn write(batch: &RecordBatch, path: &Path) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(250))
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "salt".into(),
            "pepper".to_owned(),
        )]))
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

pub fn guarded(
    version: &str,
    batch: &RecordBatch,
    directory: &Path,
    class: Sharing,
) -> GuardedTable {
    let version: VersionId = version.parse().unwrap();
    let path = directory.join(format!(
        "{}-{}.parquet",
        version.dataset.name, version.version
    ));
    write(batch, &path);
    let permit = Permit::of_class(agency("fr.bre.35"), &version.dataset.agency, class);
    GuardedTable::new(
        version,
        vec![Arc::new(DataFile::open(&path).unwrap())],
        permit,
    )
    .unwrap()
}

/// An exchange within the process: text over, frames back.
#[derive(Debug)]
pub struct LocalAsker {
    pub table: GuardedTable,
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Exchanges that came to their end, where the receipt is.
    pub ended: Arc<AtomicUsize>,
}

impl Asker for LocalAsker {
    fn ask(&self, query: Query, _: SchemaRef) -> BoxStream<'static, Result<RecordBatch>> {
        let text = query.to_string();
        self.asked.lock().unwrap().push(text.clone());
        let table = self.table.clone();
        let answer = async move {
            let query = Query::parse(&text).expect("what is pushed down is canonical");
            let agency = query.from.dataset.agency.to_string();
            let blame = move |error: ProvideError| QueryError::Refused {
                agency: agency.clone(),
                reason: error.to_string(),
            };
            let rows = provide(&query, table, &Limits::default(), Seat::alone())
                .await
                .map_err(blame.clone())?;
            let encoder = Encoder::new(rows.schema()).unwrap();
            let mut decoder = Decoder::new();
            decoder.frame(&encoder.schema_frame()).unwrap();
            let batches = rows.map(move |batch| match batch {
                Ok(batch) => {
                    let frames = encoder.batch_frames(&batch).unwrap();
                    assert_eq!(frames.len(), 1);
                    match decoder.frame(&frames[0]).unwrap() {
                        Frame::Batch(batch) => Ok(batch),
                        other => panic!("{other:?}"),
                    }
                }
                Err(error) => Err(blame(ProvideError::classify(&error)).into()),
            });
            Ok::<_, DataFusionError>(batches)
        };
        let ended = Arc::clone(&self.ended);
        let end = stream::once(async move {
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(None)
        });
        let batches = stream::once(answer).try_flatten().map_ok(Some);
        batches.chain(end).try_filter_map(future::ok).boxed()
    }
}

/// Tables by agency and name.
#[derive(Debug, Default)]
pub struct Tables(pub HashMap<(String, String), Arc<dyn TableProvider>>);

impl Tables {
    pub fn with(mut self, agency: &str, table: &str, provider: Arc<dyn TableProvider>) -> Tables {
        self.0
            .insert((agency.to_owned(), table.to_owned()), provider);
        self
    }

    pub fn memory(self, agency: &str, table: &str, batch: &RecordBatch) -> Tables {
        let memory = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).unwrap();
        self.with(agency, table, Arc::new(memory))
    }
}

#[async_trait]
impl Resolver for Tables {
    async fn table(
        &self,
        agency: &str,
        table: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        Ok(self.0.get(&(agency.to_owned(), table.to_owned())).cloned())
    }

    fn agencies(&self) -> Vec<String> {
        let mut agencies: Vec<String> = self.0.keys().map(|(agency, _)| agency.clone()).collect();
        agencies.sort();
        agencies.dedup();
        agencies
    }

    fn tables(&self, agency: &str) -> Vec<String> {
        let own = self
            .0
            .keys()
            .filter(|(of, table)| of == agency && !table.contains('@'));
        own.map(|(_, table)| table.clone()).collect()
    }

    fn newest(&self, agency: &str, table: &str) -> Option<u64> {
        let all = self.0.keys().filter(|(of, _)| of == agency);
        let versions = all.filter_map(|(_, name)| name.split_once('@'));
        let own = versions.filter(|(name, _)| *name == table);
        own.filter_map(|(_, version)| version.parse().ok()).max()
    }
}

/// The same tables reached over the border and held in memory.
pub struct Pair {
    pub remote: Session,
    pub memory: Session,
    pub asked: Arc<Mutex<Vec<String>>>,
    pub ended: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

impl Pair {
    pub fn new(rows: i64) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicUsize::new(0));
        let (communes, groups) = (sample(rows), groups());
        let ask = |table: &GuardedTable| -> Arc<dyn TableProvider> {
            let asker = LocalAsker {
                table: table.clone(),
                asked: Arc::clone(&asked),
                ended: Arc::clone(&ended),
            };
            let schema = Arc::clone(table.schema());
            Arc::new(RemoteTable::new(
                table.version().clone(),
                schema,
                Arc::new(asker),
            ))
        };
        let first = guarded(
            "fr.insee/communes@3",
            &communes,
            directory.path(),
            Sharing::Public,
        );
        let second = guarded(
            "fr.dgcl/groups@1",
            &groups,
            directory.path(),
            Sharing::Unconditional,
        );
        let closed = guarded(
            "fr.dgcl/grants@1",
            &groups,
            directory.path(),
            Sharing::Conditional,
        );
        let remote = Tables::default()
            .with("fr.insee", "communes", ask(&first))
            .with("fr.insee", "communes@3", ask(&first))
            .with("fr.dgcl", "groups", ask(&second))
            .with("fr.dgcl", "grants", ask(&closed));
        let memory = Tables::default()
            .memory("fr.insee", "communes", &communes)
            .memory("fr.insee", "communes@3", &communes)
            .memory("fr.dgcl", "groups", &groups);
        Pair {
            remote: Session::new(Arc::new(remote), Limits::default()),
            memory: Session::new(Arc::new(memory), Limits::default()),
            asked,
            ended,
            _directory: directory,
        }
    }

    /// Runs `sql` on both, checks that they agree, and says what crossed the border.
    pub async fn agree(&self, sql: &str) -> Vec<String> {
        self.asked.lock().unwrap().clear();
        let remote = run(&self.remote, sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let memory = run(&self.memory, sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(lines(&remote), lines(&memory), "{sql}");
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }

    /// The error of `sql` over the border.
    pub async fn error(&self, sql: &str) -> QueryError {
        match run(&self.remote, sql).await {
            Ok(batches) => panic!("{sql} has an answer: {:?}", lines(&batches)),
            Err(error) => error,
        }
    }
}

pub async fn run(session: &Session, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    let (_, rows) = session.run(sql, Seat::alone()).await?;
    Ok(rows.try_collect().await?)
}

/// The rows as text in a fixed order.
pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let batches: Vec<RecordBatch> = batches
        .iter()
        .filter(|batch| batch.num_rows() > 0)
        .cloned()
        .collect();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('+'))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}
