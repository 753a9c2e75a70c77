//! Submission over gRPC, with health and reflection beside it.

use axum::Router;
use jingwei_proto::dsse::{Envelope, EnvelopeError, MAX_ENVELOPE};
use jingwei_proto::wire::registry::{
    Outcome, SubmitAllRequest, SubmitAllResponse, SubmitRequest, SubmitResponse, outcome,
};
use tonic::{Request, Response, Status};

use crate::fault::{Blame, Fault};
use crate::sequencer::{Accepted, Sequencer};
use crate::serve::{PeerAddress, Secure};
use crate::visitors::Network;

/// Stubs of `jingwei.registry.v1`.
pub mod stubs {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("jingwei.registry.v1");
}

use stubs::registry_server::{Registry, RegistryServer};

/// The service's description, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/registry.fds"));

/// Statements in one call.
pub const MOST: usize = 128;
/// Bytes that each envelope takes in a message besides its own: tag and length.
pub const PREFIX: usize = 8;

struct Service {
    sequencer: Sequencer,
}

/// The registry's gRPC services as routes.
pub async fn router(sequencer: Sequencer) -> Router {
    let registry = RegistryServer::new(Service { sequencer })
        .max_decoding_message_size(MAX_ENVELOPE + MOST * PREFIX);
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
        let from = submitter(&request)?;
        let envelope = Envelope::parse(&request.get_ref().envelope).map_err(malformed)?;
        let accepted = self.sequencer.submit_from(from, envelope).await?;
        Ok(Response::new(SubmitResponse {
            index: accepted.index,
            checkpoint: accepted.checkpoint.to_string(),
        }))
    }

    async fn submit_all(
        &self,
        request: Request<SubmitAllRequest>,
    ) -> Result<Response<SubmitAllResponse>, Status> {
        let from = submitter(&request)?;
        let SubmitAllRequest { envelopes } = request.into_inner();
        if envelopes.len() > MOST {
            let reason = format!("{} statements in one call, at most {MOST}", envelopes.len());
            return Err(Fault::new(Blame::Malformed, reason).into());
        }
        let envelopes = envelopes
            .into_iter()
            .map(|envelope| Envelope::parse(&envelope).map_err(malformed))
            .collect();
        let (mut outcomes, mut checkpoint) = (Vec::new(), String::new());
        for accepted in self.sequencer.submit_all_from(from, envelopes).await {
            outcomes.push(to_wire(accepted.map(
                |Accepted {
                     index,
                     checkpoint: note,
                 }| {
                    checkpoint = note.to_string();
                    index
                },
            )));
        }
        Ok(Response::new(SubmitAllResponse {
            outcomes,
            checkpoint,
        }))
    }
}

/// Whence a submission comes; statements come over TLS only.
fn submitter<T>(request: &Request<T>) -> Result<Network, Fault> {
    let extensions = request.extensions();
    if !matches!(extensions.get(), Some(Secure(true))) {
        return Err(
            Fault::new(Blame::Unauthorised, "statements are submitted over TLS")
                .advise("connect with TLS to the same port"),
        );
    }
    match extensions.get() {
        Some(PeerAddress(from)) => Ok(from.ip().into()),
        None => Err(Fault::new(Blame::Internal, "a submission from nowhere")),
    }
}

fn to_wire(outcome: Result<u64, Fault>) -> Outcome {
    let outcome = match outcome {
        Ok(index) => outcome::Outcome::Index(index),
        Err(fault) => outcome::Outcome::Refusal(fault.to_bytes()),
    };
    Outcome {
        outcome: Some(outcome),
    }
}

fn malformed(error: EnvelopeError) -> Fault {
    Fault::new(Blame::Malformed, error.to_string())
}
