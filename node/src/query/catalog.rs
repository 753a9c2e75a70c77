//! The catalogue of one query: the tables it names and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::Result;

/// The one catalogue's name. Agencies are its schemas.
pub const CATALOG: &str = "jingwei";

/// Tables by agency and name, fixed before planning starts: planning asks nobody anything.
#[derive(Debug, Clone, Default)]
pub struct QueryCatalog {
    agencies: HashMap<String, AgencyTables>,
}

#[derive(Debug, Clone, Default)]
struct AgencyTables {
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

impl QueryCatalog {
    /// Adds a table.
    pub fn add(&mut self, agency: &str, name: &str, table: Arc<dyn TableProvider>) {
        let agency = self.agencies.entry(agency.to_owned()).or_default();
        agency.tables.insert(name.to_owned(), table);
    }
}

impl CatalogProviderList for QueryCatalog {
    fn register_catalog(
        &self,
        _: String,
        _: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for QueryCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.agencies.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let agency = self.agencies.get(name)?;
        Some(Arc::new(agency.clone()))
    }
}

#[async_trait]
impl SchemaProvider for AgencyTables {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.get(name).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}
