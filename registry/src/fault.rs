//! Errors that cross the wire, sorted by who is at fault, with what to do next.
//!
//! A [`Fault`] travels in a gRPC status: its blame decides the code, and an `ErrorInfo` of domain
//! `jingwei` (google.rpc, `error_details.proto`) carries blame, agency, subject and advice, so
//! that the other side gets back the very fault that was sent. No data of an agency's rows
//! belongs into one.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use jingwei_proto::id::AgencyId;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of our `ErrorInfo`.
const DOMAIN: &str = "jingwei";

/// Longest text of a fault on the wire, in bytes. All of it goes into one HTTP/2 header block,
/// for which 16 KiB is a usual limit, and percent-encoding may treble the message.
const LONGEST: usize = 1024;

/// Bytes of a fault that are looked at: more than four such texts and their names.
const MOST_BYTES: usize = 8 * LONGEST;

/// How rustls words the alerts of a server that does not accept the client's certificate.
const REFUSALS: [&str; 2] = [
    "received fatal alert: AccessDenied",
    "received fatal alert: CertificateRequired",
];

/// Who or what is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The bytes are not what they must be: a statement, a request, a query.
    Malformed,
    /// A signature does not match.
    Forged,
    /// The signer or the connection may not do this.
    Unauthorised,
    /// It contradicts what is already there: another statement, another log.
    Inconsistent,
    /// What is known is too old to answer by.
    Stale,
    /// Too much at once; later it will go.
    Overloaded,
    /// The other side, or something it needs, cannot be reached.
    Unavailable,
    /// There is no such agency, dataset, version or table.
    NotFound,
    /// Policy refuses it, and nothing can be applied for.
    Refused,
    /// Conditional data: a grant must be applied for first.
    NeedsGrant,
    /// The question goes beyond a limit of the one asked: rows, bytes, time.
    LimitExceeded,
    /// An answer misses some members.
    Incomplete,
    /// What the other side sent does not verify.
    Unverified,
    /// The asker gave up.
    Cancelled,
    /// The time for it is over.
    TimedOut,
    /// A command or an option was used wrongly.
    WrongUse,
    /// A defect or a broken disk, here or there.
    Internal,
}

impl Blame {
    const ALL: [Blame; 17] = [
        Blame::Malformed,
        Blame::Forged,
        Blame::Unauthorised,
        Blame::Inconsistent,
        Blame::Stale,
        Blame::Overloaded,
        Blame::Unavailable,
        Blame::NotFound,
        Blame::Refused,
        Blame::NeedsGrant,
        Blame::LimitExceeded,
        Blame::Incomplete,
        Blame::Unverified,
        Blame::Cancelled,
        Blame::TimedOut,
        Blame::WrongUse,
        Blame::Internal,
    ];

    /// The name on the wire, as `ErrorInfo.reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Blame::Malformed => "MALFORMED",
            Blame::Forged => "FORGED",
            Blame::Unauthorised => "UNAUTHORISED",
            Blame::Inconsistent => "INCONSISTENT",
            Blame::Stale => "STALE",
            Blame::Overloaded => "OVERLOADED",
            Blame::Unavailable => "UNAVAILABLE",
            Blame::NotFound => "NOT_FOUND",
            Blame::Refused => "REFUSED",
            Blame::NeedsGrant => "NEEDS_GRANT",
            Blame::LimitExceeded => "LIMIT_EXCEEDED",
            Blame::Incomplete => "INCOMPLETE",
            Blame::Unverified => "UNVERIFIED",
            Blame::Cancelled => "CANCELLED",
            Blame::TimedOut => "TIMED_OUT",
            Blame::WrongUse => "WRONG_USE",
            Blame::Internal => "INTERNAL",
        }
    }

    /// The blame with this name.
    pub fn from_reason(reason: &str) -> Option<Blame> {
        Blame::ALL
            .into_iter()
            .find(|blame| blame.reason() == reason)
    }

    /// The gRPC code that ordinary clients act on.
    pub fn code(self) -> Code {
        match self {
            Blame::Malformed | Blame::WrongUse => Code::InvalidArgument,
            Blame::Forged => Code::Unauthenticated,
            Blame::Unauthorised | Blame::Refused | Blame::NeedsGrant => Code::PermissionDenied,
            Blame::Inconsistent => Code::Aborted,
            Blame::Stale => Code::FailedPrecondition,
            Blame::Overloaded => Code::ResourceExhausted,
            Blame::LimitExceeded => Code::OutOfRange,
            Blame::Unavailable => Code::Unavailable,
            Blame::NotFound => Code::NotFound,
            Blame::Incomplete | Blame::Unverified => Code::DataLoss,
            Blame::Cancelled => Code::Cancelled,
            Blame::TimedOut => Code::DeadlineExceeded,
            Blame::Internal => Code::Internal,
        }
    }

    /// The nearest blame for a status that is not from this software.
    fn from_code(code: Code) -> Blame {
        match code {
            Code::InvalidArgument => Blame::Malformed,
            Code::Unauthenticated | Code::PermissionDenied => Blame::Unauthorised,
            Code::Aborted | Code::AlreadyExists => Blame::Inconsistent,
            Code::FailedPrecondition => Blame::Stale,
            Code::ResourceExhausted => Blame::Overloaded,
            Code::OutOfRange => Blame::LimitExceeded,
            Code::Unavailable => Blame::Unavailable,
            Code::NotFound => Blame::NotFound,
            Code::DataLoss => Blame::Unverified,
            Code::Cancelled => Blame::Cancelled,
            Code::DeadlineExceeded => Blame::TimedOut,
            Code::Ok | Code::Unknown | Code::Internal | Code::Unimplemented => Blame::Internal,
        }
    }

    /// How a command line program ends; the one place that says so (0 is: done).
    ///
    /// | code | meaning | such as |
    /// |---|---|---|
    /// | 1 | failed | a port or directory in use, a registry that is down, rows that break a schema |
    /// | 2 | used wrongly | an option, the configuration, wrong SQL, a file, table or schema that is not there |
    /// | 3 | verification failed | bytes that are not what was signed |
    /// | 4 | refused | by policy, or by the federation's rules |
    /// | 5 | answer incomplete | a member that cannot be reached |
    pub fn exit_code(self) -> u8 {
        match self {
            Blame::WrongUse | Blame::NotFound => 2,
            Blame::Forged | Blame::Unverified => 3,
            Blame::Unauthorised | Blame::Refused | Blame::NeedsGrant => 4,
            Blame::Incomplete => 5,
            _ => 1,
        }
    }
}

/// An error with its blame: what, where, what next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who is at fault.
    pub blame: Blame,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// The agency that it is about, or that said so.
    pub agency: Option<AgencyId>,
    /// The dataset, statement or file that it is about.
    pub subject: Option<String>,
    /// What to do next.
    pub advice: Option<String>,
    /// When to try again, where trying again helps.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with its blame and message.
    pub fn new(blame: Blame, message: impl Into<String>) -> Fault {
        Fault {
            blame,
            message: message.into(),
            agency: None,
            subject: None,
            advice: None,
            retry_after: None,
        }
    }

    /// Names the agency that it is about.
    pub fn at(mut self, agency: &AgencyId) -> Fault {
        self.agency = Some(agency.clone());
        self
    }

    /// Names the dataset, statement or file that it is about.
    pub fn about(mut self, subject: impl Into<String>) -> Fault {
        self.subject = Some(subject.into());
        self
    }

    /// Says what to do next.
    pub fn advise(mut self, advice: impl Into<String>) -> Fault {
        self.advice = Some(advice.into());
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, pause: Duration) -> Fault {
        self.retry_after = Some(pause);
        self
    }

    /// How a command line program ends with this fault.
    pub fn exit_code(&self) -> u8 {
        self.blame.exit_code()
    }

    /// The fault in a status: the one that was sent, or the nearest one for a foreign status.
    pub fn from_status(status: &Status) -> Fault {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let Some((info, blame)) = info.and_then(|i| Some((i, Blame::from_reason(&i.reason)?)))
        else {
            return Fault::from_foreign(status);
        };
        let text = |key: &str| info.metadata.get(key).cloned();
        Fault {
            blame,
            message: status.message().to_owned(),
            agency: text("agency").and_then(|id| id.parse().ok()),
            subject: text("subject"),
            advice: text("advice"),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// The bytes of a google.rpc.Status, for an answer that reports on several things at once.
    pub fn to_bytes(self) -> Vec<u8> {
        Status::from(self).details().to_vec()
    }

    /// The fault in such bytes. What is not understood is the sender's fault.
    pub fn from_bytes(bytes: &[u8]) -> Fault {
        let read = (bytes.len() <= MOST_BYTES)
            .then(|| tonic_types::Status::decode(bytes))
            .and_then(Result::ok)
            .filter(|status| status.code != Code::Ok as i32);
        match read {
            Some(status) => Fault::from_status(&Status::with_details(
                Code::from(status.code),
                status.message,
                bytes.to_vec().into(),
            )),
            None => Fault::new(Blame::Unverified, "it does not say what became of this"),
        }
    }

    /// The fault in an error of the transport: our own if it holds one, else 'unavailable'.
    pub fn from_transport(error: &(dyn Error + 'static)) -> Fault {
        if let Some(fault) = Fault::within(error) {
            return fault;
        }
        let text = chain(error);
        // In TLS 1.3 the server's verdict on a client's certificate comes after the handshake,
        // and HTTP/2 passes it on as text only.
        match REFUSALS.iter().any(|alert| text.contains(alert)) {
            true => Fault::new(
                Blame::Unauthorised,
                "the server refused our TLS certificate",
            )
            .advise("its replica of the log must list this node's TLS key"),
            false => Fault::new(Blame::Unavailable, text),
        }
    }

    fn from_foreign(status: &Status) -> Fault {
        let blame = Blame::from_code(status.code());
        match status.source() {
            // A connection that could not be made or broke: the cause says more than the status.
            // ‘Cancelled’ with a cause is such a break, too, and nobody's change of mind.
            Some(source)
                if matches!(
                    blame,
                    Blame::Internal | Blame::Unavailable | Blame::Cancelled
                ) =>
            {
                Fault::from_transport(source)
            }
            _ => Fault::new(blame, status.message()),
        }
    }

    /// Whether an error, or what caused it, is a fault of our own.
    pub(crate) fn is_in(error: &(dyn Error + 'static)) -> bool {
        Fault::within(error).is_some()
    }

    fn within(error: &(dyn Error + 'static)) -> Option<Fault> {
        let mut causes = std::iter::successors(Some(error), |error| (*error).source());
        causes.find_map(|cause| {
            let inner = cause
                .downcast_ref::<std::io::Error>()
                .and_then(|io| io.get_ref());
            let nested = inner.and_then(|inner| inner.downcast_ref::<Fault>());
            cause.downcast_ref::<Fault>().or(nested).cloned()
        })
    }
}

/// An error with all its causes in one line, each said once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    for cause in causes.map(|cause| cause.to_string()) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(agency) = &self.agency {
            write!(f, "{agency}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(subject) = self.subject.as_ref().filter(|s| !self.message.contains(*s)) {
            write!(f, " ({subject})")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "; {advice}")?;
        }
        match self.retry_after {
            Some(pause) => write!(f, "; try again in {} s", pause.as_secs_f64().ceil()),
            None => Ok(()),
        }
    }
}

impl Error for Fault {}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        let texts = [
            ("agency", fault.agency.map(|id| id.to_string())),
            ("subject", fault.subject),
            ("advice", fault.advice),
        ];
        let metadata: HashMap<String, String> = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key.to_owned(), shorten(text?))))
            .collect();
        let mut details = ErrorDetails::new();
        details.set_error_info(fault.blame.reason(), DOMAIN, metadata);
        if fault.retry_after.is_some() {
            details.set_retry_info(fault.retry_after);
        }
        Status::with_error_details(fault.blame.code(), shorten(fault.message), details)
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Fault {
        Fault::from_status(&status)
    }
}

fn shorten(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_comes_back_as_it_was_sent() {
        for blame in Blame::ALL {
            let fault = Fault::new(blame, "the grant has ended 到期")
                .at(&"fr.bre.35".parse().unwrap())
                .about("fr.bre.35/communes@3")
                .advise("apply again")
                .retry_after(Duration::from_secs(7));
            let status = Status::from(fault.clone());
            assert_eq!(status.code(), blame.code());
            // As it is on the wire: in headers.
            let headers = status.into_http::<()>().into_parts().0.headers;
            let received = Status::from_header_map(&headers).unwrap();
            assert_eq!(Fault::from_status(&received), fault);
            let plain = Fault::new(blame, "short");
            assert_eq!(Fault::from_status(&Status::from(plain.clone())), plain);
            assert_eq!(Fault::from_bytes(&fault.clone().to_bytes()), fault);
        }
    }

    #[test]
    fn a_foreign_status_gets_the_nearest_blame() {
        let fault = Fault::from_status(&Status::not_found("no such method"));
        assert_eq!(fault, Fault::new(Blame::NotFound, "no such method"));
        let other = ErrorDetails::with_error_info("FORGED", "elsewhere.example", HashMap::new());
        let status = Status::with_error_details(Code::Aborted, "x", other);
        assert_eq!(Fault::from_status(&status).blame, Blame::Inconsistent);
        let garbage =
            Status::with_details(Code::DataLoss, "x", bytes::Bytes::from_static(&[255; 9]));
        assert_eq!(Fault::from_status(&garbage).blame, Blame::Unverified);
    }

    #[test]
    fn bytes_that_are_no_fault_are_no_success() {
        let fine = tonic_types::Status {
            code: 0,
            ..Default::default()
        };
        let long = Fault::new(Blame::Stale, "口".repeat(9_000)).to_bytes();
        assert_eq!(Fault::from_bytes(&long).blame, Blame::Stale);
        for garbage in [
            &b"OK"[..],
            b"",
            &[255; 9],
            &fine.encode_to_vec(),
            &[8; 9_000],
        ] {
            assert_eq!(Fault::from_bytes(garbage).blame, Blame::Unverified);
        }
    }

    #[test]
    fn a_fault_inside_a_transport_error_is_found() {
        let inner = Fault::new(Blame::Unverified, "wrong key");
        let outer = std::io::Error::other(inner.clone());
        assert_eq!(Fault::from_transport(&outer), inner);
        let status = Status::from_error(Box::new(outer));
        assert_eq!(Fault::from_status(&status), inner);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let fault = Fault::new(Blame::Malformed, "口".repeat(1000)).advise("径".repeat(1000));
        let back = Fault::from_status(&Status::from(fault));
        assert!(back.message.len() <= LONGEST + 3 && back.message.ends_with('…'));
        assert!(back.advice.unwrap().len() <= LONGEST + 3);
    }

    #[test]
    fn exit_codes_and_one_line() {
        assert_eq!(Fault::new(Blame::NeedsGrant, "x").exit_code(), 4);
        assert_eq!(Fault::new(Blame::Incomplete, "x").exit_code(), 5);
        assert_eq!(Fault::new(Blame::Unverified, "x").exit_code(), 3);
        let fault = Fault::new(Blame::NotFound, "no such dataset")
            .at(&"fr".parse().unwrap())
            .about("fr/x")
            .advise("see `jingwei find`");
        assert_eq!(
            fault.to_string(),
            "fr: no such dataset (fr/x); see `jingwei find`"
        );
    }
}
