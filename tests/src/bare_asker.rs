//! An agency that speaks the messages of an exchange by itself, with its node's own keys: it asks
//! when it likes, breaks off when it likes, and acknowledges when it likes.

use std::net::SocketAddr;
use std::path::Path;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, Ticket};
use bytes::Bytes;
use jingwei::exchange::ACKNOWLEDGE;
use jingwei::exchange::bundle;
use jingwei::exchange::messages::{Message, Party, Unverified, verify_acceptance, verify_receipt};
use jingwei::home::Home;
use jingwei::membership::Membership;
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::{PublicKey, SecretKey, Signer as _};
use jingwei_proto::statement::{Receipt, Request, Seen};
use jingwei_registry::clock;
use jingwei_registry::connect::{Link, Patience, Target};
use jingwei_registry::fault::Fault;
use jingwei_registry::keyfile;

use crate::local::runtime;
use crate::lying_peer::identity;

/// The agency, and the provider that it asks.
pub struct BareAsker {
    federation: FederationId,
    own: AgencyId,
    key: SecretKey,
    provider: AgencyId,
    provider_key: PublicKey,
}

impl BareAsker {
    /// The agency `own` of the node in `dir`, which asks `provider` of the node in `at`.
    pub fn new(dir: &Path, own: &str, at: &Path, provider: &str) -> BareAsker {
        let membership = Membership::load(&Home::new(dir)).expect("a node that has joined");
        let key = |dir: &Path, agency: &str| {
            keyfile::load(&dir.join(format!("agencies/{agency}/signing.pem"))).expect("a key")
        };
        BareAsker {
            federation: membership.federation,
            own: own.parse().expect("an id"),
            key: key(dir, own),
            provider: provider.parse().expect("an id"),
            provider_key: key(at, provider).public().clone(),
        }
    }

    fn party(&self) -> Party<'_> {
        Party {
            federation: &self.federation,
            agency: &self.own,
            key: &self.key,
        }
    }

    /// A request of its own for a border query.
    pub fn request(&self, query: &str) -> Message<Request> {
        // Whoever has seen nothing of the log contradicts nobody.
        let seen = Seen {
            size: 0,
            root: Digest::of(b""),
        };
        let now = clock::system()();
        self.party()
            .request(now, &self.provider, query.to_owned(), seen, None, None)
    }

    /// The receipt of a whole answer, both of its messages verified.
    pub fn receipt(&self, request: &Message<Request>, frames: &[FlightData]) -> Message<Receipt> {
        let [first, last] = [0, frames.len() - 1].map(|at| {
            Unverified::reply(frames[at].app_metadata.clone(), &self.provider).expect("a message")
        });
        let acceptance =
            verify_acceptance(first, request, &self.own, &self.provider_key).expect("acceptance");
        verify_receipt(last, &acceptance, &self.provider, &self.provider_key).expect("a receipt")
    }

    /// Its acknowledgement of an answer.
    pub fn acknowledgement(&self, receipt: &Message<Receipt>) -> Envelope {
        let now = clock::system()();
        let message = self.party().acknowledgement(now, receipt, &self.provider);
        Envelope::parse(&message.bytes).expect("an envelope")
    }
}

/// A connection that shows the TLS key of one node to another.
#[derive(Clone)]
pub struct Wire(Link);

impl Wire {
    /// From the node in `own` to the one in `provider`, which listens at `address`.
    pub fn new(own: &Path, provider: &Path, address: SocketAddr) -> Wire {
        let target = Target::new(
            &address.to_string(),
            [identity(provider).id],
            Some(&identity(own)),
            Patience::default(),
        );
        let _runtime = runtime().enter();
        let link = target.expect("an address").connect_lazy();
        Wire(link.expect("TLS can be set up"))
    }

    /// Sends a request, and reads the first `most` frames of the answer before it breaks off.
    pub fn ask_for(&self, request: &Bytes, most: usize) -> Result<Vec<FlightData>, Fault> {
        let mut client = FlightServiceClient::new(self.0.clone());
        let ticket = request.clone();
        runtime().block_on(async {
            let mut answer = client.do_get(Ticket { ticket }).await?.into_inner();
            let mut frames = Vec::new();
            while frames.len() < most
                && let Some(frame) = answer.message().await?
            {
                frames.push(frame);
            }
            Ok(frames)
        })
    }

    /// Sends a request and reads its whole answer.
    pub fn ask(&self, request: &Bytes) -> Result<Vec<FlightData>, Fault> {
        self.ask_for(request, usize::MAX)
    }

    /// Delivers one acknowledgement by itself.
    pub fn acknowledge(&self, envelope: &Envelope) -> Result<(), Fault> {
        self.act(envelope.to_bytes()).map(|_| ())
    }

    /// Delivers several together; what became of each.
    pub fn acknowledge_all(
        &self,
        envelopes: &[&Envelope],
    ) -> Result<Vec<Result<(), Fault>>, Fault> {
        let bytes: Vec<Vec<u8>> = envelopes.iter().map(|one| one.to_bytes()).collect();
        let results = self.act(bundle::pack(bytes.iter().map(Vec::as_slice)))?;
        Ok(results
            .iter()
            .map(|one| bundle::read_outcome(one))
            .collect())
    }

    /// The action `acknowledge` with any body; the bodies of its results.
    pub fn act(&self, body: Vec<u8>) -> Result<Vec<Vec<u8>>, Fault> {
        let mut client = FlightServiceClient::new(self.0.clone());
        let action = Action {
            r#type: ACKNOWLEDGE.to_owned(),
            body: body.into(),
        };
        runtime().block_on(async {
            let mut answer = client.do_action(action).await?.into_inner();
            let mut results = Vec::new();
            while let Some(result) = answer.message().await? {
                results.push(result.body.to_vec());
            }
            Ok(results)
        })
    }
}
