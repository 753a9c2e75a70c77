//! Building and checking the four messages, the same for both sides.

use std::sync::Arc;

use bytes::Bytes;
use jingwei_proto::border::GRAMMAR;
use jingwei_proto::digest::{Digest, to_hex};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{AgencyId, FederationId};
use jingwei_proto::key::{PublicKey, Signer};
use jingwei_proto::statement::{
    Acceptance, Acknowledgement, AnswerDigest, Head, Outcome, Predicate, Receipt, Request, Seen,
    Statement, Used,
};
use jingwei_proto::time::Time;
use jingwei_registry::fault::{Blame, Fault};

use super::ledger::Waiting;

/// How long a request may be under way, in seconds: clocks of offices differ by minutes.
pub const REQUEST_LIFE: i64 = 300;
/// How far a request's time may lie in the future, in seconds.
const CLOCK_SKEW: i64 = 300;

/// A signed message, with what it says.
#[derive(Debug, Clone)]
pub struct Message<T> {
    /// Its envelope, as it is sent and kept.
    pub bytes: Bytes,
    /// The digest of what was signed, by which the next message names it.
    pub digest: Digest,
    /// Its head.
    pub head: Head,
    /// What it says.
    pub body: T,
}

/// One party of exchanges: who signs, and in which federation.
pub struct Party<'a> {
    /// The federation.
    pub federation: &'a FederationId,
    /// Who signs.
    pub agency: &'a AgencyId,
    /// With which key.
    pub key: &'a dyn Signer,
}

impl Party<'_> {
    fn first(&self, now: Time) -> Head {
        Head {
            federation: self.federation.clone(),
            agency: Some(self.agency.clone()),
            time: now,
            sequence: 1,
            previous: None,
        }
    }

    fn after<T>(&self, now: Time, before: &Message<T>) -> Head {
        Head {
            sequence: before.head.sequence + 1,
            previous: Some(before.digest),
            ..self.first(now)
        }
    }

    fn sign<T: Clone>(&self, head: Head, body: T, wrap: impl Fn(T) -> Predicate) -> Message<T> {
        let statement = Statement {
            head,
            predicate: wrap(body.clone()),
        };
        let envelope = statement.sign(self.key);
        Message {
            bytes: envelope.to_bytes().into(),
            digest: envelope.payload_digest(),
            head: statement.head,
            body,
        }
    }

    /// A request to `audience`.
    pub fn request(
        &self,
        now: Time,
        audience: &AgencyId,
        query: String,
        seen: Seen,
        purpose: Option<String>,
        legal_basis: Option<String>,
    ) -> Message<Request> {
        let body = Request {
            nonce: to_hex(&rand::random::<[u8; 16]>()),
            audience: audience.clone(),
            expires: now.plus(REQUEST_LIFE),
            grammar: u64::from(GRAMMAR),
            query,
            purpose,
            legal_basis,
            seen,
        };
        self.sign(self.first(now), body, Predicate::Request)
    }

    /// The acceptance of `request`, to be answered from `dataset`.
    pub fn acceptance(
        &self,
        now: Time,
        request: &Message<Request>,
        requester: &AgencyId,
        dataset: Used,
        seen: Seen,
    ) -> Message<Acceptance> {
        let body = Acceptance {
            nonce: request.body.nonce.clone(),
            audience: requester.clone(),
            dataset,
            seen,
        };
        self.sign(self.after(now, request), body, Predicate::Acceptance)
    }

    /// The receipt of what was sent after `acceptance`.
    pub fn receipt(
        &self,
        now: Time,
        acceptance: &Message<Acceptance>,
        outcome: Outcome,
        answer: AnswerDigest,
    ) -> Message<Receipt> {
        let body = Receipt {
            nonce: acceptance.body.nonce.clone(),
            audience: acceptance.body.audience.clone(),
            outcome,
            answer,
        };
        self.sign(self.after(now, acceptance), body, Predicate::Receipt)
    }

    /// The acknowledgement of `receipt` to its provider.
    pub fn acknowledgement(
        &self,
        now: Time,
        receipt: &Message<Receipt>,
        provider: &AgencyId,
    ) -> Message<Acknowledgement> {
        let body = Acknowledgement {
            nonce: receipt.body.nonce.clone(),
            audience: provider.clone(),
            answer: receipt.body.answer.clone(),
        };
        self.sign(self.after(now, receipt), body, Predicate::Acknowledgement)
    }
}

/// A message as it came: read, and nothing of it verified.
pub struct Unverified {
    bytes: Bytes,
    envelope: Arc<Envelope>,
    statement: Statement,
}

impl Unverified {
    /// Reads a message.
    pub fn read(bytes: Bytes) -> Result<Unverified, Fault> {
        let malformed = |reason: String| Fault::new(Blame::Malformed, reason);
        let envelope = Envelope::parse(&bytes).map_err(|error| malformed(error.to_string()))?;
        let statement =
            Statement::parse(envelope.payload()).map_err(|error| malformed(error.to_string()))?;
        Ok(Unverified {
            bytes,
            envelope: Arc::new(envelope),
            statement,
        })
    }

    /// Reads what a provider sent back. Bytes that are no message do not verify, whereas a provider
    /// that calls a request malformed speaks of the question.
    pub fn reply(bytes: Bytes, from: &AgencyId) -> Result<Unverified, Fault> {
        Unverified::read(bytes).map_err(|fault| reply_fault(fault.at(from)))
    }

    /// As it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// As it was signed, or is said to be.
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.envelope
    }

    /// Who says that it sent the message.
    pub fn sender(&self) -> Result<&AgencyId, Fault> {
        self.statement
            .head
            .agency
            .as_ref()
            .ok_or_else(|| Fault::new(Blame::Malformed, "the message names no agency"))
    }

    /// To whom it is, as far as it is one that a provider takes.
    pub fn audience(&self) -> Result<&AgencyId, Fault> {
        match &self.statement.predicate {
            Predicate::Request(Request { audience, .. })
            | Predicate::Acknowledgement(Acknowledgement { audience, .. }) => Ok(audience),
            _ => Err(Fault::new(
                Blame::Malformed,
                "the message is neither a request nor an acknowledgement",
            )),
        }
    }

    /// Checks that `from` signed it in this federation, and takes it apart.
    fn verify(
        self,
        federation: &FederationId,
        from: &AgencyId,
        key: &PublicKey,
    ) -> Result<(Message<()>, Predicate), Fault> {
        let Statement { head, predicate } = self.statement;
        if head.federation != *federation {
            return Err(Fault::new(
                Blame::Malformed,
                "the message belongs to another federation",
            )
            .at(from));
        }
        if head.agency.as_ref() != Some(from) {
            return Err(
                Fault::new(Blame::Unverified, format!("the message is not from {from}")).at(from),
            );
        }
        self.envelope.verify(key).map_err(|_| {
            Fault::new(
                Blame::Forged,
                format!("the message is not signed with the key of {from}"),
            )
            .at(from)
        })?;
        let message = Message {
            digest: self.envelope.payload_digest(),
            // What came is part of a larger buffer, which would be held for as long as this is.
            bytes: Bytes::copy_from_slice(&self.bytes),
            head,
            body: (),
        };
        Ok((message, predicate))
    }

    /// The same for what a provider sent back.
    fn verify_reply(
        self,
        federation: &FederationId,
        from: &AgencyId,
        key: &PublicKey,
    ) -> Result<(Message<()>, Predicate), Fault> {
        self.verify(federation, from, key).map_err(reply_fault)
    }
}

impl Message<()> {
    /// The same with what it says.
    fn saying<T>(self, body: T) -> Message<T> {
        Message {
            bytes: self.bytes,
            digest: self.digest,
            head: self.head,
            body,
        }
    }
}

fn reply_fault(fault: Fault) -> Fault {
    match fault.blame {
        Blame::Malformed => Fault {
            blame: Blame::Unverified,
            ..fault
        },
        _ => fault,
    }
}

/// A request, verified as one from `from` to `audience` that is in time.
pub fn verify_request(
    message: Unverified,
    federation: &FederationId,
    from: &AgencyId,
    key: &PublicKey,
    now: Time,
) -> Result<Message<Request>, Fault> {
    let (message, predicate) = message.verify(federation, from, key)?;
    let head = &message.head;
    let Predicate::Request(body) = predicate else {
        return Err(Fault::new(Blame::Malformed, "the ticket is not a request").at(from));
    };
    if head.sequence != 1 {
        return Err(Fault::new(Blame::Malformed, "a request begins its exchange").at(from));
    }
    if body.grammar != u64::from(GRAMMAR) {
        return Err(Fault::new(
            Blame::Malformed,
            format!(
                "border grammar {} is not known here; {GRAMMAR} is",
                body.grammar
            ),
        )
        .at(from));
    }
    let lasts = body.expires.seconds() - head.time.seconds();
    if body.expires < now
        || head.time > now.plus(CLOCK_SKEW)
        || !(0..=2 * REQUEST_LIFE).contains(&lasts)
    {
        return Err(Fault::new(
            Blame::Stale,
            format!(
                "the request is from {} and expires at {}; here it is {now}",
                head.time, body.expires
            ),
        )
        .at(from)
        .advise("set the clocks of both machines"));
    }
    Ok(message.saying(body))
}

fn follows<T>(head: &Head, before: &Message<T>) -> bool {
    head.previous == Some(before.digest) && head.sequence == before.head.sequence + 1
}

/// An acceptance, verified as the answer of `provider` to `request`.
pub fn verify_acceptance(
    message: Unverified,
    request: &Message<Request>,
    requester: &AgencyId,
    key: &PublicKey,
) -> Result<Message<Acceptance>, Fault> {
    let provider = &request.body.audience;
    let (message, predicate) = message.verify_reply(&request.head.federation, provider, key)?;
    match predicate {
        Predicate::Acceptance(body)
            if follows(&message.head, request)
                && body.nonce == request.body.nonce
                && body.audience == *requester =>
        {
            Ok(message.saying(body))
        }
        _ => Err(unfit(provider, "acceptance")),
    }
}

/// A receipt, verified as what `provider` says it sent after `acceptance`.
pub fn verify_receipt(
    message: Unverified,
    acceptance: &Message<Acceptance>,
    provider: &AgencyId,
    key: &PublicKey,
) -> Result<Message<Receipt>, Fault> {
    let (message, predicate) = message.verify_reply(&acceptance.head.federation, provider, key)?;
    let before = &acceptance.body;
    match predicate {
        Predicate::Receipt(body)
            if follows(&message.head, acceptance)
                && body.nonce == before.nonce
                && body.audience == before.audience =>
        {
            Ok(message.saying(body))
        }
        _ => Err(unfit(provider, "receipt")),
    }
}

/// An acknowledgement, verified as that of `requester` for an answer that waits for it.
pub fn verify_acknowledgement(
    message: Unverified,
    federation: &FederationId,
    provider: &AgencyId,
    requester: &AgencyId,
    key: &PublicKey,
    expected: impl Fn(&str) -> Option<Waiting>,
) -> Result<Message<Acknowledgement>, Fault> {
    let (message, predicate) = message.verify(federation, requester, key)?;
    let Predicate::Acknowledgement(body) = predicate else {
        return Err(unfit(requester, "acknowledgement"));
    };
    let Some(waiting) = expected(&body.nonce) else {
        return Err(nothing_waits(requester));
    };
    let fits = message.head.previous == Some(waiting.receipt) && body.answer == waiting.answer;
    if !fits || body.audience != *provider {
        return Err(unfit(requester, "acknowledgement"));
    }
    Ok(message.saying(body))
}

/// The acknowledgement of an answer that has been acknowledged, or forgotten, or never given.
pub fn nothing_waits(requester: &AgencyId) -> Fault {
    Fault::new(Blame::NotFound, "no answer waits for this acknowledgement").at(requester)
}

fn unfit(agency: &AgencyId, what: &str) -> Fault {
    Fault::new(
        Blame::Unverified,
        format!("the {what} of {agency} does not continue the exchange"),
    )
    .at(agency)
    .advise("keep the journal; it shows what was sent")
}
