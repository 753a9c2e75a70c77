//! Statements that the registry must refuse, sent as a program of somebody else's would.

use http::uri::PathAndQuery;
use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::SecretKey;
use jingwei_proto::note::Note;
use jingwei_proto::wire::registry::outcome::Outcome;
use jingwei_proto::wire::registry::{
    SubmitAllRequest, SubmitAllResponse, SubmitRequest, SubmitResponse,
};
use jingwei_registry::connect::{Patience, Target};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::keyfile::TlsIdentity;
use jingwei_tests::Federation;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::shared::Shared;
use tonic_prost::ProstCodec;

struct Stage {
    federation: Federation,
    agent: Agent,
}

fn stage() -> std::sync::Arc<Stage> {
    static STAGE: Shared<Stage> = Shared::new();
    STAGE.get(|| {
        let federation = Federation::start();
        let agent = Agent::new(&federation.registry, "aa", 1);
        let enrolment = agent.enrolment(&federation.registry);
        runtime()
            .block_on(federation.registry.submitter().submit(&enrolment))
            .unwrap();
        Stage { federation, agent }
    })
}

impl Stage {
    fn submit(&self, envelope: &Envelope) -> Result<u64, Fault> {
        let accepted = runtime().block_on(self.federation.registry.submitter().submit(envelope));
        accepted.map(|accepted| accepted.index)
    }

    fn refused(&self, envelope: &Envelope, blame: Blame, words: &[&str]) {
        let fault = self
            .submit(envelope)
            .expect_err("a bad statement was entered");
        assert_eq!(fault.blame, blame, "{fault}");
        let text = fault.to_string().to_lowercase();
        for word in words {
            assert!(text.contains(word), "‘{word}’ is missing in: {text}");
        }
        let log = LogFiles::read(&self.federation.registry.dir.join("log"));
        assert!(!log.envelopes.contains(&envelope.to_bytes()));
    }

    /// Submits bytes that need not be an envelope.
    fn submit_bytes(&self, envelope: Vec<u8>) -> Fault {
        let called: Result<SubmitResponse, Fault> = self.call("Submit", SubmitRequest { envelope });
        called.expect_err("bad bytes were entered")
    }

    /// Calls the registry as a program of somebody else's would.
    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Fault>
    where
        Q: prost::Message + Send + 'static,
        A: prost::Message + Default + Send + 'static,
    {
        let registry = &self.federation.registry;
        let tls = TlsIdentity::load(&registry.dir.join("keys")).unwrap().id;
        let target = Target::new(
            &registry.address.to_string(),
            [tls],
            None,
            Patience::default(),
        )
        .unwrap();
        let path = format!("/jingwei.registry.v1.Registry/{method}");
        runtime().block_on(async {
            let mut grpc = tonic::client::Grpc::new(target.connect().await.unwrap());
            grpc.ready().await.unwrap();
            let path = PathAndQuery::try_from(path).unwrap();
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
            Ok(answer
                .map_err(|status| Fault::from_status(&status))?
                .into_inner())
        })
    }
}

#[test]
fn a_bad_signature() {
    let stage = stage();
    let good = stage.agent.dataset("forged");
    let other = stage.agent.dataset("other");
    let text = String::from_utf8(good.to_bytes()).unwrap();
    let signature = |envelope: &Envelope| {
        let value = jingwei_proto::json::parse(&envelope.to_bytes()).unwrap();
        value["signatures"][0]["sig"].as_str().unwrap().to_owned()
    };
    let forged = text.replace(&signature(&good), &signature(&other));
    let forged = Envelope::parse(forged.as_bytes()).unwrap();
    stage.refused(&forged, Blame::Forged, &["signature"]);
    // The true one is still welcome afterwards.
    stage.submit(&good).unwrap();
}

#[test]
fn an_unknown_key() {
    let stage = stage();
    let mut stranger = Agent::new(&stage.federation.registry, "aa", 2);
    stranger.key = SecretKey::generate();
    let fault = stage
        .submit(&stranger.dataset("stolen"))
        .expect_err("a stranger was let in");
    assert!(
        matches!(fault.blame, Blame::Unauthorised | Blame::Forged),
        "{fault}"
    );
    let nobody = Agent::new(&stage.federation.registry, "nobody", 3);
    let fault = stage
        .submit(&nobody.dataset("anything"))
        .expect_err("an unknown agency was let in");
    assert!(
        matches!(fault.blame, Blame::Unauthorised | Blame::Inconsistent),
        "{fault}"
    );
    assert!(fault.to_string().contains("nobody"), "{fault}");
}

#[test]
fn another_agency_s_dataset() {
    let stage = stage();
    let other = Agent::new(&stage.federation.registry, "bb", 4);
    stage
        .submit(&other.enrolment(&stage.federation.registry))
        .unwrap();
    // Signed by a member, but in another's name.
    let thief = Agent {
        id: stage.agent.id.clone(),
        federation: other.federation.clone(),
        key: SecretKey::from_seed(&[4; 32]),
    };
    let envelope = thief.dataset("taken");
    let fault = stage
        .submit(&envelope)
        .expect_err("a dataset was taken over");
    assert!(
        matches!(fault.blame, Blame::Unauthorised | Blame::Forged),
        "{fault}"
    );
}

#[test]
fn statements_out_of_their_chain() {
    let stage = stage();
    let (statement, first) = stage.agent.version("chain", None);
    let next = (statement.head.sequence, first.payload_digest());
    let (_, second) = stage.agent.version("chain", Some(next));
    let fault = stage.submit(&second).expect_err("a gap was let in");
    assert!(
        matches!(fault.blame, Blame::Stale | Blame::Inconsistent),
        "{fault}"
    );
    let index = stage.submit(&first).unwrap();
    assert_eq!(
        stage.submit(&first).unwrap(),
        index,
        "the same statement has one place"
    );
    stage.submit(&second).unwrap();
    // A sequence that is taken, with other content.
    let mut other = statement.clone();
    other.head.time = other.head.time.plus(1);
    let fault = stage
        .submit(&other.sign(&stage.agent.key))
        .expect_err("a version was replaced");
    assert!(
        matches!(fault.blame, Blame::Stale | Blame::Inconsistent),
        "{fault}"
    );
}

#[test]
fn another_federation_s_statement() {
    let stage = stage();
    let mut astray = Agent::new(&stage.federation.registry, "aa", 1);
    astray.federation = "other-0123456789abcdef".parse().unwrap();
    stage.refused(
        &astray.dataset("astray"),
        Blame::Inconsistent,
        &["federation"],
    );
}

#[test]
fn bytes_that_are_no_statement() {
    let stage = stage();
    for bytes in [
        &b""[..],
        b"{}",
        b"\xff\xfe",
        b"{\"payload\":\"\",\"payloadType\":\"text/plain\",\"signatures\":[]}",
    ] {
        assert_eq!(stage.submit_bytes(bytes.to_vec()).blame, Blame::Malformed);
    }
    let nonsense = Envelope::sign(b"{\"_type\":\"x\"}".to_vec(), &stage.agent.key);
    stage.refused(&nonsense, Blame::Malformed, &[]);
}

#[test]
fn a_statement_of_10_mb() {
    let stage = stage();
    let huge = Envelope::sign(vec![b' '; 10 << 20], &stage.agent.key).to_bytes();
    let fault = stage.submit_bytes(huge);
    assert!(
        matches!(fault.blame, Blame::Malformed | Blame::LimitExceeded),
        "{fault:?}"
    );
    // Just above the limit of an envelope, below that of a message.
    let large = Envelope::sign(vec![b' '; 197 * 1024], &stage.agent.key).to_bytes();
    assert!(large.len() > 256 * 1024 && large.len() < 300 * 1024);
    let fault = stage.submit_bytes(large);
    assert!(
        matches!(fault.blame, Blame::Malformed | Blame::LimitExceeded),
        "{fault:?}"
    );
    stage.submit(&stage.agent.dataset("after")).unwrap();
}

#[test]
fn several_in_one_call_each_for_itself() {
    let stage = stage();
    let [first, second, other] = ["one", "two", "three"].map(|name| stage.agent.dataset(name));
    let mut signature = *other.signature();
    signature[0] ^= 1;
    let forged = Envelope::from_parts(other.payload().to_vec(), other.key(), signature);
    let old = stage.agent.dataset("old");
    let place = stage.submit(&old).unwrap();
    let envelopes = vec![
        first.to_bytes(),
        b"{}".to_vec(),
        forged.to_bytes(),
        old.to_bytes(),
        second.to_bytes(),
        first.to_bytes(),
        old.to_bytes(),
    ];
    let answer: SubmitAllResponse = stage
        .call("SubmitAll", SubmitAllRequest { envelopes })
        .unwrap();
    let outcomes: Vec<Result<u64, Blame>> = answer
        .outcomes
        .into_iter()
        .map(|outcome| match outcome.outcome.unwrap() {
            Outcome::Index(index) => Ok(index),
            Outcome::Refusal(fault) => Err(Fault::from_bytes(&fault).blame),
        })
        .collect();
    assert_eq!(outcomes[1], Err(Blame::Malformed));
    assert_eq!(outcomes[2], Err(Blame::Forged));
    assert_eq!(outcomes[3], Ok(place));
    assert_eq!(outcomes[5], outcomes[0], "the same statement has one place");
    let log = LogFiles::read(&stage.federation.registry.dir.join("log"));
    for (outcome, envelope) in [(outcomes[0], &first), (outcomes[4], &second)] {
        let index = outcome.unwrap() as usize;
        assert_eq!(log.envelopes[index], envelope.to_bytes());
        let covered = Note::parse(answer.checkpoint.as_bytes()).unwrap();
        let covered: Checkpoint = covered.text.parse().unwrap();
        assert!(covered.size > outcome.unwrap());
    }
    let empty: SubmitAllResponse = stage
        .call("SubmitAll", SubmitAllRequest::default())
        .unwrap();
    assert_eq!(empty, SubmitAllResponse::default());
    for (count, bytes, blame) in [
        (129, 2, Blame::Malformed),
        (2, 200 << 10, Blame::LimitExceeded),
    ] {
        let envelopes = vec![vec![b'{'; bytes]; count];
        let called: Result<SubmitAllResponse, Fault> =
            stage.call("SubmitAll", SubmitAllRequest { envelopes });
        assert_eq!(called.unwrap_err().blame, blame, "{count} of {bytes}");
    }
}

#[test]
fn submitted_side_by_side() {
    let stage = stage();
    let submitter = stage.federation.registry.submitter();
    let statements: Vec<Envelope> = (0..500)
        .map(|number| stage.agent.dataset(&format!("side{number}")))
        .collect();
    let submitting = statements.iter().map(|envelope| submitter.submit(envelope));
    let accepted = runtime().block_on(futures::future::join_all(submitting));
    let log = LogFiles::read(&stage.federation.registry.dir.join("log"));
    for (accepted, envelope) in accepted.into_iter().zip(&statements) {
        let index = accepted.unwrap().index as usize;
        assert_eq!(log.envelopes[index], envelope.to_bytes());
    }
}
