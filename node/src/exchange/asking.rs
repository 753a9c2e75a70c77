//! One exchange, step by step, from the asker's side.

use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use bytes::Bytes;
use jingwei_proto::border::Query;
use jingwei_proto::id::AgencyId;
use jingwei_proto::key::PublicKey;
use jingwei_proto::statement::{Acceptance, AnswerDigest, Outcome, Receipt, Request};
use jingwei_registry::fault::{Blame, Fault};
use tokio::sync::oneshot;
use tonic::Streaming;

use super::ask::{Exchanged, Question, Rows, TempFile};
use super::coming::Coming;
use super::incoming::Incoming;
use super::messages::{self, Message, Unverified};
use super::same_history;
use crate::journals::Kind;
use crate::node::Node;

/// A frame is about a mebibyte, unless a single row has more; no row has more than this.
const MAX_FRAME: usize = 64 * 1024 * 1024;

/// An exchange whose request is on its way.
pub(super) struct Asking<'a> {
    question: &'a Question,
    query: &'a Query,
    key: PublicKey,
    request: Message<Request>,
    began: Instant,
}

/// What the provider answered, verified.
struct Answered {
    acceptance: Message<Acceptance>,
    receipt: Message<Receipt>,
    digest: AnswerDigest,
    file: Option<TempFile>,
}

impl<'a> Asking<'a> {
    /// Makes the request and lets it count.
    pub async fn begin(question: &'a Question, query: &'a Query) -> Result<Asking<'a>, Fault> {
        let began = Instant::now();
        let node = &question.node;
        let provider = &query.from.dataset.agency;
        node.in_force(question.agency.id())?;
        let key = node.in_force(provider)?.key.clone();
        let request = node.party(&question.agency).request(
            (node.clock)(),
            provider,
            query.to_string(),
            node.seen(),
            question.purpose.clone(),
            question.legal_basis.clone(),
        );
        let opener = (Kind::Request, request.body.nonce.as_str(), &request.bytes);
        node.journals
            .enter_new(question.agency.id(), request.body.expires, &[opener])
            .await?;
        Ok(Asking {
            question,
            query,
            key,
            request,
            began,
        })
    }

    /// Sends the request and hands the rows on as they come. When this returns, all of it has
    /// been verified and the acknowledgement is durable here and on its way; the channel tells
    /// when the provider has confirmed it.
    pub async fn run(
        self,
        schema: SchemaRef,
        rows: &Rows,
    ) -> Result<(Exchanged, oneshot::Receiver<()>), Fault> {
        let node = &self.question.node;
        let link = node.link(self.provider())?;
        let mut client = FlightServiceClient::new(link).max_decoding_message_size(MAX_FRAME);
        let ticket = self.request.bytes.clone();
        let frames = client
            .do_get(Ticket { ticket })
            .await
            .map_err(|status| Fault::from_status(&status))?
            .into_inner();
        let mut frames = Coming::new(frames, self.provider());
        let answered = self.receive(&mut frames, schema, rows).await?;
        self.acknowledge(answered).await
    }

    async fn receive(
        &self,
        frames: &mut Coming<'_, Streaming<FlightData>>,
        schema: SchemaRef,
        rows: &Rows,
    ) -> Result<Answered, Fault> {
        let (question, provider) = (self.question, self.provider());
        let mut answer = Incoming::new(
            &question.node,
            provider,
            schema,
            self.query.limit,
            question.limits.clone(),
            question.keep,
        )
        .map_err(own_disk)?;
        let first = frames.next().await?;
        let acceptance = Unverified::reply(first.app_metadata.clone(), provider)?;
        // Of a short answer the receipt is there already.
        let mut receipt = frames.peek_closing();
        self.verify([&acceptance].into_iter().chain(&receipt)).await;
        let acceptance = messages::verify_acceptance(
            acceptance,
            &self.request,
            question.agency.id(),
            &self.key,
        )?;
        same_history(&question.node, &acceptance.body.seen, provider)?;
        check_manifest(&question.node, self.query, &acceptance)?;
        answer.schema(&first)?;
        let receipt = loop {
            let frame = frames.next().await?;
            match answer.rows(&frame)? {
                // A plan that has rows enough takes no more; see `Question::answer`.
                Some(batch) => drop(rows.send(Ok(batch)).await),
                None => break self.closing(frame.app_metadata, receipt.take()).await?,
            }
        };
        let receipt = messages::verify_receipt(receipt, &acceptance, provider, &self.key)?;
        let (digest, file) = answer.finish()?;
        if receipt.body.outcome != Outcome::Complete || receipt.body.answer != digest {
            return Err(Fault::new(
                Blame::Unverified,
                "the receipt is not for the rows that came",
            )
            .at(provider)
            .advise("the answer is not used"));
        }
        Ok(Answered {
            acceptance,
            receipt,
            digest,
            file,
        })
    }

    /// The receipt in the closing frame, which may have been read ahead.
    async fn closing(&self, bytes: Bytes, ahead: Option<Unverified>) -> Result<Unverified, Fault> {
        if let Some(receipt) = ahead.filter(|receipt| *receipt.bytes() == bytes) {
            return Ok(receipt);
        }
        let receipt = Unverified::reply(bytes, self.provider())?;
        self.verify([&receipt]).await;
        Ok(receipt)
    }

    /// Finds out in one go which signatures hold.
    async fn verify<'m>(&self, messages: impl IntoIterator<Item = &'m Unverified>) {
        let signed = messages
            .into_iter()
            .map(|message| (message.envelope().clone(), self.key.clone()));
        self.question.node.verifier.verify(signed.collect()).await;
    }

    async fn acknowledge(
        self,
        answered: Answered,
    ) -> Result<(Exchanged, oneshot::Receiver<()>), Fault> {
        let (question, provider) = (self.question, self.provider());
        let node = &question.node;
        let Answered {
            acceptance,
            receipt,
            digest,
            file,
        } = answered;
        let party = node.party(&question.agency);
        let acknowledgement = party.acknowledgement((node.clock)(), &receipt, provider);
        let nonce = self.request.body.nonce.as_str();
        let messages = [
            (Kind::Acceptance, nonce, &acceptance.bytes),
            (Kind::Receipt, nonce, &receipt.bytes),
            (Kind::Acknowledgement, nonce, &acknowledgement.bytes),
        ];
        node.journals.enter(question.agency.id(), &messages).await?;
        let confirmed = node
            .outbox
            .post(node, provider, acknowledgement.bytes.clone());
        let exchanged = Exchanged {
            version: self.query.from.clone(),
            query: self.request.body.query,
            index: acceptance.body.dataset.index,
            messages: [
                self.request.bytes,
                acceptance.bytes,
                receipt.bytes,
                acknowledgement.bytes,
            ],
            answer: digest,
            file,
            elapsed: self.began.elapsed(),
            confirmed: false,
        };
        Ok((exchanged, confirmed))
    }

    fn provider(&self) -> &'a AgencyId {
        &self.query.from.dataset.agency
    }
}

/// The provider must answer from the version that was asked for, as the log knows it.
fn check_manifest(
    node: &Node,
    query: &Query,
    acceptance: &Message<Acceptance>,
) -> Result<(), Fault> {
    let used = &acceptance.body.dataset;
    let known = node.version(&query.from)?;
    let same = used.version == query.from
        && used.manifest == known.chain.payload
        && used.index == known.chain.index
        && used.sharing == known.dataset.sharing;
    if !same {
        return Err(Fault::new(
            Blame::Unverified,
            format!(
                "it answered from {} and was asked for {}",
                used.version, query.from
            ),
        )
        .at(&query.from.dataset.agency));
    }
    Ok(())
}

fn own_disk(error: std::io::Error) -> Fault {
    Fault::new(
        Blame::Internal,
        format!("this node cannot keep the answer for evidence: {error}"),
    )
}
