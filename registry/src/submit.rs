//! The submitter's side: enters statements in a registry that is named by its TLS key.

use std::time::Duration;

use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::KeyId;
use jingwei_proto::wire::registry::SubmitRequest;
use tokio::time::{Instant, timeout};
use tonic::Request;

use crate::connect::{Link, Patience, Target};
use crate::fault::{Blame, Fault};
use crate::keyfile::TlsIdentity;
use crate::sequencer::Accepted;
use crate::service::stubs::registry_client::RegistryClient;

/// How long an overloaded registry is asked again: less than a person waits, or than a node gives
/// a statement to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a registry may take for one statement. It gives up by itself when no quorum of witnesses
/// has signed after a third of that.
const ANSWER: Duration = Duration::from_secs(30);

/// However soon a registry says that it has room again.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

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
    /// the same statement is entered once. A registry that is overloaded is asked again when it
    /// says so, for half a minute in all; if it says later than that, this is its answer.
    pub async fn submit(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            let fault = match self.submit_once(envelope).await {
                Err(fault) if fault.blame == Blame::Overloaded => fault,
                done => return done,
            };
            let Some(pause) = fault.retry_after.map(|pause| pause.max(LEAST_PAUSE)) else {
                return Err(fault);
            };
            // Those who were refused together need not all come back together.
            let pause = pause.mul_f64(1.0 + rand::random::<f64>() / 4.0);
            if Instant::now() + pause.min(PATIENCE * 2) > until {
                return Err(fault);
            }
            tracing::debug!(%fault, ?pause, "submitting again");
            tokio::time::sleep(pause).await;
        }
    }

    /// As [`Submitter::submit`], without asking again. A registry that says nothing for half a
    /// minute is given up.
    pub async fn submit_once(&self, envelope: &Envelope) -> Result<Accepted, Fault> {
        let request = Request::new(SubmitRequest {
            envelope: envelope.to_bytes(),
        });
        let mut client = self.client.clone();
        let response = timeout(ANSWER, client.submit(request))
            .await
            .map_err(|_| silent())?
            .map_err(|status| Fault::from_status(&status))?
            .into_inner();
        Ok(Accepted {
            index: response.index,
            checkpoint: response.checkpoint.into(),
        })
    }
}

fn silent() -> Fault {
    Fault::new(
        Blame::Unavailable,
        format!(
            "the registry has not said within {} s what became of the statement",
            ANSWER.as_secs()
        ),
    )
    .advise("do the same again: the same statement is never entered twice")
}
