//! Where an agency's node is, and which keys it uses.

use super::*;

impl<L: Lookup> Entry<'_, L> {
    pub(super) fn node(&self, body: &Node) -> Result<(Writes, PublicKey), ApplyError<L::Error>> {
        let agency = self.signing_agency()?;
        let id = &agency.id;
        if [&body.journal, &body.witness].contains(&&agency.key) {
            return Err(reject(
                Blame::Malformed,
                "journal and witness need keys of their own",
            )
            .into());
        }
        self.compare_key(&body.journal, |_| false)?;
        self.compare_key(&body.witness, |purpose| *purpose == Purpose::Witness)?;
        let current: Option<NodeRecord> = self.state.find(&keys::node(id))?;
        let chain = self.continues(current.as_ref().map(|record| record.chain))?;
        let mut writes = Vec::new();
        let old = current.map(|record| record.node.tls).unwrap_or_default();
        for key in old.iter().filter(|key| !body.tls.contains(key)) {
            let mut users: Vec<AgencyId> = self.state.find(&keys::tls(*key))?.unwrap_or_default();
            users.retain(|user| user != id);
            let record = (!users.is_empty()).then(|| canonical(&users));
            writes.push((keys::tls(*key), record));
        }
        for key in body.tls.iter().filter(|key| !old.contains(key)) {
            let mut users: Vec<AgencyId> = self.state.find(&keys::tls(*key))?.unwrap_or_default();
            users.push(id.clone());
            writes.push(put(keys::tls(*key), &users));
        }
        writes.push(put(
            keys::node(id),
            &NodeRecord {
                chain,
                node: body.clone(),
            },
        ));
        Ok((writes, agency.key))
    }
}
