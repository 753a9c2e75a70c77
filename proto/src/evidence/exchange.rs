//! One exchange of an evidence file: four messages that continue each other, between the right
//! parties, about what was asked, for the answer that is there.

use super::verify::{ExchangeReport, File, Invalid, Log, invalid, same_answer};
use super::{ANSWER, MESSAGES, exchange_name};
use crate::border::{GRAMMAR, Query};
use crate::dsse::Envelope;
use crate::id::AgencyId;
use crate::statement::{
    Acceptance, Acknowledgement, Outcome, Predicate, Receipt, Request, Statement,
};

/// Verifies the `n`-th exchange, which `asker` began.
pub(super) fn verify(
    file: &mut File<'_>,
    log: &Log,
    n: u64,
    asker: &AgencyId,
) -> Result<ExchangeReport, Invalid> {
    let messages = read(file, n)?;
    continue_each_other(&messages)?;
    let said = Said::in_messages(&messages, n)?;
    said.is_between_the_parties(&messages, log, asker)?;
    said.is_about_what_was_asked(&messages, log)?;
    let name = exchange_name(n, ANSWER);
    same_answer(file.take(&name)?, &said.receipt.answer, &name)?;
    Ok(ExchangeReport {
        nonce: said.request.nonce.clone(),
        version: said.acceptance.dataset.version.clone(),
        sharing: said.acceptance.dataset.sharing,
        query: said.request.query.clone(),
        purpose: said.request.purpose.clone(),
        legal_basis: said.request.legal_basis.clone(),
        answer: said.receipt.answer.clone(),
        time: messages[2].statement.head.time,
    })
}

/// A message as it stands in the file.
struct Message {
    name: String,
    envelope: Envelope,
    statement: Statement,
}

fn read(file: &mut File<'_>, n: u64) -> Result<Vec<Message>, Invalid> {
    MESSAGES
        .iter()
        .map(|part| {
            let name = exchange_name(n, part);
            let (envelope, statement) = file.take_envelope(&name)?;
            Ok(Message {
                name,
                envelope,
                statement,
            })
        })
        .collect()
}

fn continue_each_other(messages: &[Message]) -> Result<(), Invalid> {
    if messages[0].statement.head.sequence != 1 {
        return invalid(format!("{} does not begin the exchange", messages[0].name));
    }
    for pair in messages.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let follows = after.statement.head.previous == Some(before.envelope.payload_digest())
            && after.statement.head.sequence == before.statement.head.sequence + 1
            && after.statement.chain() == before.statement.chain();
        if !follows {
            return invalid(format!(
                "{} does not follow the message before it",
                after.name
            ));
        }
    }
    Ok(())
}

/// What the messages say.
struct Said<'a> {
    request: &'a Request,
    acceptance: &'a Acceptance,
    receipt: &'a Receipt,
    acknowledgement: &'a Acknowledgement,
}

impl<'a> Said<'a> {
    fn in_messages(messages: &'a [Message], n: u64) -> Result<Said<'a>, Invalid> {
        let mut predicates = messages.iter().map(|message| &message.statement.predicate);
        match (
            predicates.next(),
            predicates.next(),
            predicates.next(),
            predicates.next(),
        ) {
            (
                Some(Predicate::Request(request)),
                Some(Predicate::Acceptance(acceptance)),
                Some(Predicate::Receipt(receipt)),
                Some(Predicate::Acknowledgement(acknowledgement)),
            ) => Ok(Said {
                request,
                acceptance,
                receipt,
                acknowledgement,
            }),
            _ => invalid(format!("exchange {n}: the messages are not of their types")),
        }
    }

    /// Each message is signed by the one whose it is, and addressed to the other.
    fn is_between_the_parties(
        &self,
        messages: &[Message],
        log: &Log,
        asker: &AgencyId,
    ) -> Result<(), Invalid> {
        let provider = &self.request.audience;
        // How much of the log each side had seen says which of its keys were still in force.
        let (asked, accepted) = (self.request.seen.size, self.acceptance.seen.size);
        let expected = [
            (asker, provider, provider, asked),
            (provider, &self.acceptance.audience, asker, accepted),
            (provider, &self.receipt.audience, asker, accepted),
            (asker, &self.acknowledgement.audience, provider, asked),
        ];
        for (message, (from, to, addressee, seen)) in messages.iter().zip(expected) {
            let signer = log.signer(&message.statement, &message.envelope, &message.name, seen)?;
            if signer != from || to != addressee {
                return invalid(format!(
                    "{} is not from and to the parties of the exchange",
                    message.name
                ));
            }
        }
        Ok(())
    }

    /// The version that was asked for answered, as the log knows it, in time and to the end.
    fn is_about_what_was_asked(&self, messages: &[Message], log: &Log) -> Result<(), Invalid> {
        let [request, acceptance, receipt, acknowledgement] = messages else {
            return invalid("an exchange has four messages");
        };
        if self.request.grammar != u64::from(GRAMMAR) {
            return invalid(format!("{} is in another border grammar", request.name));
        }
        let used = &self.acceptance.dataset;
        let query = Query::parse(&self.request.query)
            .map_err(|error| Invalid(format!("{}: {error}", request.name)))?;
        if query.from != used.version || used.version.dataset.agency != self.request.audience {
            return invalid(format!(
                "{}: {} is not what was asked for",
                acceptance.name, used.version
            ));
        }
        let Some(manifest) = log.manifests.get(&used.version) else {
            return invalid(format!("the manifest of {} is missing", used.version));
        };
        if (manifest.payload, manifest.index, manifest.sharing)
            != (used.manifest, used.index, used.sharing)
        {
            return invalid(format!(
                "{} names another manifest of {}",
                acceptance.name, used.version
            ));
        }
        if acceptance.statement.head.time > self.request.expires {
            return invalid(format!(
                "{} was made after the request had expired",
                acceptance.name
            ));
        }
        if self.receipt.outcome != Outcome::Complete {
            return invalid(format!("{}: the answer was cut off", receipt.name));
        }
        if self.acknowledgement.answer != self.receipt.answer {
            return invalid(format!(
                "{} is for another answer than the receipt",
                acknowledgement.name
            ));
        }
        Ok(())
    }
}
