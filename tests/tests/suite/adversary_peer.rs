//! A provider that lies, with the provider's own keys: the asker notices, says what is wrong, and
//! counts nothing as answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arrow_flight::FlightData;
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::statement::{Outcome, Predicate, Statement};
use jingwei_registry::connect::{Patience, Target};
use jingwei_registry::fault::Blame;
use jingwei_registry::keyfile::{self, TlsIdentity};
use jingwei_tests::local::runtime;
use jingwei_tests::lying_peer::{LyingPeer, identity};
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::{eventually, free_address};
use jingwei_tests::{Federation, Node, journal};

const SQL: &str = "SELECT code, name, people FROM aa.places";

/// `bb` asks `aa`, and what it reaches at the address of `aa` is a liar.
struct Stage {
    a: Node,
    b: Node,
    announced: SocketAddr,
    liar: LyingPeer,
    signing: Arc<SecretKey>,
    _federation: Federation,
}

impl Stage {
    fn new() -> Stage {
        let federation = Federation::start();
        let announced = free_address();
        let mut a = federation.joined("a", &["aa"]);
        a.settings
            .push(("JINGWEI_NODE_ADDRESS".into(), announced.to_string()));
        federation.registry.enrol(&a.proposal("aa")).ok();
        a.start();
        a.until_announced();
        let b = federation.node("b", &["bb"]);
        a.publish_places("aa", "places", "public", PLACES);
        a.publish_places(
            "aa",
            "places",
            "public",
            &format!("{PLACES}35004,Antrain,1300\n"),
        );
        federation.settle(&[&b]);
        let liar = LyingPeer::start(announced, &a.dir, a.listen, &b.dir);
        let signing = keyfile::load(&a.dir.join("agencies/aa/signing.pem")).unwrap();
        let stage = Stage {
            a,
            b,
            announced,
            liar,
            signing: Arc::new(signing),
            _federation: federation,
        };
        assert_eq!(stage.b.rows(SQL).len(), 4, "the truth passes");
        stage
    }

    /// Lies, and checks that the question fails with `code`, saying `words`.
    fn caught(
        &self,
        code: i32,
        words: &[&str],
        lie: impl Fn(&mut Vec<FlightData>) + Send + Sync + 'static,
    ) {
        let acknowledged = self.acknowledged();
        self.liar.lie(lie);
        for more in [
            &["--format", "csv", "--output", "lie.csv"][..],
            &["--save", "lie.evidence"],
            &["--format", "csv"],
            &["--format", "parquet"],
        ] {
            let ran = self
                .b
                .sql(SQL, more)
                .expect_code(code)
                .complains(words)
                .complains(&["aa"]);
            assert!(!ran.stderr.contains("answered with"), "{ran}");
            assert_eq!(ran.stdout, "", "nothing unverified is printed: {ran}");
        }
        for left in ["lie.csv", "lie.evidence"] {
            assert!(!self.b.work.join(left).exists(), "{left} was written");
        }
        assert_eq!(self.acknowledged(), acknowledged, "a lie was acknowledged");
        self.liar.lie(|_| {});
        assert_eq!(self.b.rows(SQL).len(), 4, "the truth passes again");
    }

    /// Exchanges that the asker counts as answered.
    fn acknowledged(&self) -> usize {
        let exchanges = journal::exchanges(&self.b.dir, "bb");
        exchanges
            .values()
            .filter(|(_, counts)| counts[3] > 0)
            .count()
    }
}

fn open(frame: &FlightData) -> Statement {
    let envelope = Envelope::parse(&frame.app_metadata).unwrap();
    Statement::parse(envelope.payload()).unwrap()
}

fn put(frame: &mut FlightData, statement: &Statement, key: &dyn Signer) -> Digest {
    let envelope = statement.sign(key);
    frame.app_metadata = envelope.to_bytes().into();
    envelope.payload_digest()
}

/// The provider signs another acceptance and a receipt that follows it.
fn resign(frames: &mut [FlightData], key: &dyn Signer, change: impl Fn(&mut Statement)) {
    let mut acceptance = open(&frames[0]);
    change(&mut acceptance);
    let digest = put(&mut frames[0], &acceptance, key);
    let last = frames.last_mut().unwrap();
    let mut receipt = open(last);
    receipt.head.previous = Some(digest);
    change(&mut receipt);
    put(last, &receipt, key);
}

#[test]
fn altered_answers_are_noticed() {
    let stage = Stage::new();
    stage.caught(3, &["receipt", "rows"], |frames| {
        let body = frames[1].data_body.to_vec();
        // A character of a name.
        let at = body
            .windows(5)
            .position(|window| window == b"Acign")
            .unwrap();
        let mut body = body;
        body[at] = b'B';
        frames[1].data_body = body.into();
    });
    stage.caught(3, &["receipt", "rows"], |frames| {
        frames.remove(1);
    });
    stage.caught(3, &["receipt", "rows"], |frames| {
        let again = frames[1].clone();
        frames.insert(1, again);
    });
    stage.caught(3, &["malformed"], |frames| {
        frames[1].data_header = vec![7; 40].into()
    });
    stage.caught(3, &[], |frames| frames.swap(0, 1));
}

#[test]
fn withheld_and_false_receipts_are_noticed() {
    let stage = Stage::new();
    stage.caught(3, &["without a receipt"], |frames| {
        frames.pop();
    });
    let key = stage.signing.clone();
    stage.caught(3, &["receipt", "rows"], move |frames| {
        resign(frames, &*key, |statement| {
            if let Predicate::Receipt(receipt) = &mut statement.predicate {
                receipt.answer.rows += 1;
            }
        });
    });
    let key = stage.signing.clone();
    stage.caught(3, &["receipt"], move |frames| {
        resign(frames, &*key, |statement| {
            if let Predicate::Receipt(receipt) = &mut statement.predicate {
                receipt.outcome = Outcome::Aborted;
            }
        });
    });
    let stranger = SecretKey::from_seed(&[42; 32]);
    stage.caught(3, &["signed", "aa"], move |frames| {
        let last = frames.last_mut().unwrap();
        let receipt = open(last);
        put(last, &receipt, &stranger);
    });
    stage.caught(3, &[], |frames| {
        frames.last_mut().unwrap().app_metadata = vec![b'{'; 50].into()
    });
    // The true one comes before its place, where it says nothing.
    let early = |frames: &mut Vec<FlightData>| {
        frames[1].app_metadata = frames[frames.len() - 1].app_metadata.clone();
    };
    stage.caught(3, &["without a receipt"], move |frames| {
        early(frames);
        frames.pop();
    });
    let stranger = SecretKey::from_seed(&[42; 32]);
    stage.caught(3, &["signed", "aa"], move |frames| {
        early(frames);
        let last = frames.last_mut().unwrap();
        let receipt = open(last);
        put(last, &receipt, &stranger);
    });
    // A signature that the provider's key has not made, verified together with a true one.
    for which in [0, 2] {
        stage.caught(3, &["signed", "aa"], move |frames| {
            let true_one = Envelope::parse(&frames[which].app_metadata).unwrap();
            let payload = true_one.payload().to_vec();
            let forged = Envelope::from_parts(payload, true_one.key(), [1; 64]);
            frames[which].app_metadata = forged.to_bytes().into();
        });
    }
}

#[test]
fn another_version_key_or_exchange_is_noticed() {
    let stage = Stage::new();
    let key = stage.signing.clone();
    stage.caught(3, &["aa/places@1", "aa/places@2"], move |frames| {
        resign(frames, &*key, |statement| {
            if let Predicate::Acceptance(acceptance) = &mut statement.predicate {
                acceptance.dataset.version.version = 1;
            }
        });
    });
    let key = stage.signing.clone();
    stage.caught(3, &["aa/places@2"], move |frames| {
        resign(frames, &*key, |statement| {
            if let Predicate::Acceptance(acceptance) = &mut statement.predicate {
                acceptance.dataset.manifest = Digest::of(b"another manifest");
            }
        });
    });
    let stranger = SecretKey::from_seed(&[42; 32]);
    stage.caught(3, &["signed", "aa"], move |frames| {
        resign(frames, &stranger, |_| {})
    });
    // An answer that was true for another question.
    let recorded: Arc<Mutex<Vec<FlightData>>> = Arc::default();
    let tape = recorded.clone();
    stage
        .liar
        .lie(move |frames| *tape.lock().unwrap() = frames.clone());
    stage.b.sql(SQL, &[]).ok();
    let tape = recorded.lock().unwrap().clone();
    stage.caught(3, &["continue"], move |frames| *frames = tape.clone());
}

#[test]
fn a_stranger_at_the_provider_s_address_is_not_asked() {
    let stage = Stage::new();
    let Stage {
        a,
        b,
        announced,
        liar,
        ..
    } = stage;
    drop(liar);
    // The same address, another TLS key.
    let stranger = TlsIdentity::generate().unwrap().0;
    eventually("the liar has left its port", || {
        std::net::TcpListener::bind(announced).is_ok()
    });
    let _liar = LyingPeer::start_as(announced, &stranger, &a.dir, a.listen, &b.dir);
    let before = journal::exchanges(&a.dir, "aa").len();
    let ran = b.sql(SQL, &["--format", "csv"]);
    assert!(ran.code == 3 || ran.code == 5, "{ran}");
    ran.complains(&["aa", "TLS key"]);
    assert_eq!(journal::exchanges(&a.dir, "aa").len(), before);
}

#[test]
fn a_stranger_s_certificate_is_refused() {
    let pair = crate::pair::Pair::shared();
    let known = identity(&pair.a.dir).id;
    let stranger = TlsIdentity::generate().unwrap().0;
    let address = pair.a.listen.to_string();
    for own in [Some(&stranger), None] {
        let target = Target::new(&address, [known], own, Patience::default()).unwrap();
        let fault = runtime().block_on(async {
            let link = match target.connect().await {
                Ok(link) => link,
                Err(fault) => return fault,
            };
            let mut grpc = tonic::client::Grpc::new(link);
            if let Err(error) = grpc.ready().await {
                return jingwei_registry::fault::Fault::from_transport(&error);
            }
            let path = http::uri::PathAndQuery::from_static("/jingwei.node.v1.Peer/Greet");
            let codec = tonic_prost::ProstCodec::<
                jingwei_proto::wire::node::GreetRequest,
                jingwei_proto::wire::node::GreetResponse,
            >::default();
            let request = tonic::Request::new(jingwei_proto::wire::node::GreetRequest::default());
            let status = grpc
                .unary(request, path, codec)
                .await
                .expect_err("a stranger was let in");
            jingwei_registry::fault::Fault::from_status(&status)
        });
        // The alert may be overtaken by the end of the connection that follows it.
        assert!(
            matches!(
                fault.blame,
                Blame::Unauthorised | Blame::Unavailable | Blame::Cancelled
            ),
            "{fault}"
        );
    }
    pair.a.until_log(&stranger.id.to_string());
}
