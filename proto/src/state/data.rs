//! What agencies publish: versions of datasets, and schemas that others conform to.

use super::*;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn dataset(
        &self,
        body: &Dataset,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let agency = self.signing_agency()?;
        let dataset = DatasetId {
            agency: agency.id,
            name: body.name.clone(),
        };
        let chain = self.continues(self.state.find(&keys::dataset(&dataset))?)?;
        let version = VersionId {
            dataset: dataset.clone(),
            version: chain.sequence,
        };
        let record = VersionRecord {
            chain,
            time: self.head.time,
            dataset: body.clone(),
        };
        let writes = vec![
            put(keys::dataset(&dataset), &chain),
            put(keys::version(&version), &record),
        ];
        Ok((writes, agency.key))
    }

    pub(super) fn schema(
        &self,
        body: &Schema,
    ) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let agency = self.signing_agency()?;
        if !agency.roles.contains(&Role::Standards) {
            let reason = format!(
                "{} has not the standards role, which the root grants",
                agency.id
            );
            return Err(reject(Blame::Unauthorised, reason).into());
        }
        let id = DatasetId {
            agency: agency.id,
            name: body.name.clone(),
        };
        let current: Option<SchemaRecord> = self.state.find(&keys::schema(&id))?;
        let chain = self.continues(current.map(|record| record.chain))?;
        let record = SchemaRecord {
            chain,
            schema: body.clone(),
        };
        Ok((vec![put(keys::schema(&id), &record)], agency.key))
    }
}
