//! Records of the replica's index, decoded once for each state of it.
//!
//! An exchange looks up the same few agencies, nodes and versions again and again, while the
//! log grows a few times an hour. What was read stays here until the index has moved on; then
//! everything is forgotten, so nothing stale is ever used.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use jingwei_proto::id::{AgencyId, DatasetId, VersionId};
use jingwei_proto::key::KeyId;
use jingwei_proto::state::{AgencyRecord, Chain, NodeRecord, VersionRecord};
use jingwei_proto::statement::Dataset;
use jingwei_registry::history::{self, Stopped};
use jingwei_registry::index::{Index, IndexError};
use jingwei_registry::log::LogReader;
use jingwei_registry::tls::Members;
use jingwei_schemas::{SchemaError, TableSchema};

use crate::ingest::arrow_schema;

/// Records of each kind that are kept; beyond it the kind begins anew. A version's record holds
/// its schema, of a few kilobytes.
const MOST: usize = 1_024;

/// The index of a replica, and what has been read from it.
pub struct Known {
    index: Index,
    agencies: Shelf<AgencyId, AgencyRecord>,
    nodes: Shelf<AgencyId, NodeRecord>,
    newest: Shelf<DatasetId, Chain>,
    versions: Shelf<VersionId, VersionRecord>,
    columns: Shelf<VersionId, Schema>,
    members: Shelf<KeyId, ()>,
    stopped: Shelf<AgencyId, Stopped>,
}

impl Known {
    /// Nothing has been read yet.
    pub fn new(index: Index) -> Known {
        Known {
            index,
            agencies: Shelf::default(),
            nodes: Shelf::default(),
            newest: Shelf::default(),
            versions: Shelf::default(),
            columns: Shelf::default(),
            members: Shelf::default(),
            stopped: Shelf::default(),
        }
    }

    /// An agency.
    pub fn agency(&self, id: &AgencyId) -> Result<Option<Arc<AgencyRecord>>, IndexError> {
        self.agencies.get(&self.index, id, Index::agency)
    }

    /// Since when and why an agency takes no part; `None` if it does.
    pub fn stopped(
        &self,
        log: &LogReader,
        id: &AgencyId,
    ) -> Result<Option<Arc<Stopped>>, IndexError> {
        let read = |index: &Index, id: &AgencyId| {
            let record = index.agency(id)?;
            Ok(record.and_then(|record| history::stopped(index, log, &record)))
        };
        self.stopped.get(&self.index, id, read)
    }

    /// An agency's node.
    pub fn node(&self, id: &AgencyId) -> Result<Option<Arc<NodeRecord>>, IndexError> {
        self.nodes.get(&self.index, id, Index::node)
    }

    /// A dataset's newest version.
    pub fn newest(&self, id: &DatasetId) -> Result<Option<Arc<Chain>>, IndexError> {
        self.newest.get(&self.index, id, Index::newest)
    }

    /// A version of a dataset.
    pub fn version(&self, id: &VersionId) -> Result<Option<Arc<VersionRecord>>, IndexError> {
        self.versions.get(&self.index, id, Index::version)
    }

    /// The columns of a version, as its manifest's schema says.
    pub fn columns(&self, id: &VersionId, dataset: &Dataset) -> Result<SchemaRef, SchemaError> {
        let read = |_: &Index, _: &VersionId| {
            let schema = dataset.schema.as_deref().unwrap_or_default();
            TableSchema::parse_entered(schema.as_bytes()).map(|schema| {
                let columns = Arc::unwrap_or_clone(arrow_schema(&schema));
                Some(columns)
            })
        };
        let columns = self.columns.get(&self.index, id, read)?;
        Ok(columns.unwrap_or_else(|| Arc::new(Schema::empty())))
    }
}

/// A connection's key is a member's if some agency's node lists it.
impl Members for Known {
    fn knows(&self, key: &KeyId) -> bool {
        let read = |index: &Index, key: &KeyId| Ok::<_, IndexError>(index.knows(key).then_some(()));
        matches!(self.members.get(&self.index, key, read), Ok(Some(_)))
    }
}

/// Records of one kind, as the index had them at one of its states.
struct Shelf<K, V>(Mutex<(u64, HashMap<K, Arc<V>>)>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Shelf(Mutex::new((0, HashMap::new())))
    }
}

impl<K: Hash + Eq + Clone, V> Shelf<K, V> {
    fn get<E>(
        &self,
        index: &Index,
        key: &K,
        read: impl Fn(&Index, &K) -> Result<Option<V>, E>,
    ) -> Result<Option<Arc<V>>, E> {
        // Taken before the record is read: if the index moves on meanwhile, the record is
        // forgotten with the rest at the next question.
        let state = index.writes();
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.0 != state || shelf.1.len() >= MOST {
            *shelf = (state, HashMap::new());
        }
        if let Some(record) = shelf.1.get(key) {
            return Ok(Some(record.clone()));
        }
        // What is not there may be asked for by anybody under any name, and is not kept.
        let Some(record) = read(index, key)? else {
            return Ok(None);
        };
        let record = Arc::new(record);
        shelf.1.insert(key.clone(), record.clone());
        Ok(Some(record))
    }
}
