//! The submitter's side: enters statements in a registry that is named by its TLS key.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::KeyId;
use jingwei_proto::wire::registry::SubmitRequest;
use tonic::Request;

use crate::connect::{Link, Patience, Target};
use crate::fault::Fault;
use crate::keyfile::TlsIdentity;
use crate::sequencer::Accepted;
use crate::service::stubs::registry_client::RegistryClient;

/// A way into a registry. Connects when it is first used and again when it was cut off.
#[derive(Clone)]
pub struct Submitter {
    client: RegistryClient<Link>,
}

impl Submitter {
    /// To the registry at `address` (`host:port`) whose TLS key is `tls`.
    pub fn new(
        address: &str,
        tls: KeyId,
        identity: Option<&TlsIdentity>,
        patience: Patience,
    ) -> Result<Submitter, Fault> {
        let target = Target::new(address, [tls], identity, patience)?;
        Ok(Submitter {
            client: RegistryClient::new(target.connect_lazy()?),
        })
    }

    /// Enters a statement and waits until the registry has made it durable. Safe to repeat:
    /// the same statement is entered once.
    pub async fn submit(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        let request = Request::new(SubmitRequest {
            envelope: envelope.to_bytes(),
        });
        let response = self
            .client
            .clone()
            .submit(request)
            .await
            .map_err(|status| Fault::from_status(&status))?
            .into_inner();
        Ok(Accepted {
            index: response.index,
            checkpoint: response.checkpoint.into(),
        })
    }
}
