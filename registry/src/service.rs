//! Submission over gRPC, with health and reflection beside it.

use axum::Router;
use jingwei_proto::dsse::{Envelope, EnvelopeError, MAX_ENVELOPE};
use jingwei_proto::wire::registry::{SubmitRequest, SubmitResponse};
use tonic::{Request, Response, Status};

use crate::fault::{Blame, Fault};
use crate::sequencer::Sequencer;
use crate::serve::{PeerAddress, Secure};

/// Stubs of `jingwei.registry.v1`.
pub mod stubs {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("jingwei.registry.v1");
}

use stubs::registry_server::{Registry, RegistryServer};

/// The service's description, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/registry.fds"));

/// Bytes of a message around its envelope: tag and length.
const MESSAGE_OVERHEAD: usize = 64;

struct Service {
    sequencer: Sequencer,
}

/// The registry's gRPC services as routes.
pub async fn router(sequencer: Sequencer) -> Router {
    let registry = RegistryServer::new(Service { sequencer })
        .max_decoding_message_size(MAX_ENVELOPE + MESSAGE_OVERHEAD);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RegistryServer<Service>>().await;
    let mut routes = tonic::service::Routes::new(registry).add_service(health_service);
    match tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
    {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "reflection is not served"),
    }
    routes.into_axum_router()
}

#[tonic::async_trait]
impl Registry for Service {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        if !matches!(request.extensions().get(), Some(Secure(true))) {
            return Err(
                Fault::new(Blame::Unauthorised, "statements are submitted over TLS")
                    .advise("connect with TLS to the same port")
                    .into(),
            );
        }
        let envelope = Envelope::parse(&request.get_ref().envelope).map_err(malformed)?;
        let Some(PeerAddress(from)) = request.extensions().get() else {
            return Err(Fault::new(Blame::Internal, "a submission from nowhere").into());
        };
        let network = from.ip().into();
        let accepted = self.sequencer.submit_from(network, envelope).await?;
        Ok(Response::new(SubmitResponse {
            index: accepted.index,
            checkpoint: accepted.checkpoint.to_string(),
        }))
    }
}

fn malformed(error: EnvelopeError) -> Status {
    Fault::new(Blame::Malformed, error.to_string()).into()
}
