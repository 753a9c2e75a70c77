//! What a stranger, or one agency, can do to the rest: be slow, be many, flood.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::StreamBody;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::json;
use jingwei_registry::connect::{Link, Patience, Target};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::keyfile::TlsIdentity;
use jingwei_registry::submit::Submitter;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::eventually;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::{Federation, Registry};
use tempfile::TempDir;
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

/// A registry with settings of its own.
pub fn registry(settings: &str) -> (Registry, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::found(&dir.path().join("registry"), "limits");
    std::fs::write(registry.dir.join("registry.toml"), settings).unwrap();
    registry.start();
    (registry, dir)
}

/// An agency of the registry's federation, enrolled.
pub fn enrolled(registry: &Registry, id: &str, seed: u8) -> Agent {
    let agent = Agent::new(registry, id, seed);
    submit(&registry.submitter(), &agent.enrolment(registry)).unwrap();
    agent
}

fn submit(submitter: &Submitter, envelope: &Envelope) -> Result<u64, Fault> {
    let accepted = runtime().block_on(submitter.submit_once(envelope))?;
    Ok(accepted.index)
}

fn target(registry: &Registry) -> Target {
    let tls = TlsIdentity::load(&registry.dir.join("keys")).unwrap().id;
    let address = registry.address.to_string();
    Target::new(&address, [tls], None, Patience::default()).unwrap()
}

/// Sends bytes, and what comes back until the other side closes.
fn plain(registry: &Registry, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(registry.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &[u8] = b"GET /checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// The status of a submission whose body is `body`.
pub async fn submit_body(mut link: Link, to: SocketAddr, body: Body) -> Fault {
    let uri = format!("https://{to}/jingwei.registry.v1.Registry/Submit");
    let request = http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let response = link.ready().await.unwrap().call(request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers());
    Fault::from_status(&status.expect("an answer without rows is a status"))
}

#[test]
fn who_is_slow_is_cut_off() {
    let (registry, _dir) = registry("[clients]\nhead = \"1s\"\nbody = \"1s\"\nidle = \"1s\"\n");
    // Half a head; and a whole request, after which nothing more comes.
    assert_eq!(plain(&registry, b"GET /checkpoint HTTP/1.1\r\nhos"), "");
    let answer = plain(&registry, b"GET /checkpoint HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // A body of which the first bytes come and no others, ever.
    let fault = runtime().block_on(async {
        let first = futures::stream::once(async {
            Ok::<_, tonic::Status>(hyper::body::Frame::data(bytes::Bytes::from_static(
                b"\0\0\0\x10\0abc",
            )))
        });
        let never = futures::StreamExt::chain(first, futures::stream::pending());
        let link = target(&registry).connect().await.unwrap();
        submit_body(link, registry.address, Body::new(StreamBody::new(never))).await
    });
    assert_eq!(fault.blame, Blame::TimedOut, "{fault}");
    assert!(fault.message.contains("body"), "{fault}");
    // A connection that was idle is ended, and the next request makes another.
    let agent = Agent::new(&registry, "aa", 1);
    let submitter = registry.submitter();
    submit(&submitter, &agent.enrolment(&registry)).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    submit(&submitter, &agent.dataset("after")).unwrap();
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let (registry, _dir) = registry("");
    let head = "POST /checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n";
    let answer = plain(&registry, head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    let answer = plain(&registry, long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    // Not announced, and endless.
    let fault = runtime().block_on(async {
        let chunk = bytes::Bytes::from(vec![0; 16 * 1024]);
        let endless = futures::stream::repeat_with(move || {
            Ok::<_, tonic::Status>(hyper::body::Frame::data(chunk.clone()))
        });
        let link = target(&registry).connect().await.unwrap();
        submit_body(link, registry.address, Body::new(StreamBody::new(endless))).await
    });
    assert!(
        matches!(fault.blame, Blame::LimitExceeded | Blame::Malformed),
        "{fault:?}"
    );
    assert!(plain(&registry, GET).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn one_address_does_not_take_all_connections() {
    let (registry, _dir) = registry("[clients]\nconnections = 8\n");
    let mut held: Vec<TcpStream> = (0..4)
        .map(|_| TcpStream::connect(registry.address).unwrap())
        .collect();
    // They are in when the server has seen them; then this address has its half.
    eventually("the address is full", || {
        plain(&registry, GET).starts_with("HTTP/1.1 429")
    });
    let answer = plain(&registry, GET).to_lowercase();
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    let refused = runtime().block_on(target(&registry).connect());
    let fault = refused.map(|_| ()).unwrap_err();
    assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
    assert!(fault.retry_after.is_some());
    // Another address is let in meanwhile.
    let answer = runtime().block_on(from_elsewhere(registry.address));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // Whoever is patient gets in when there is room.
    let agent = Agent::new(&registry, "aa", 1);
    let enrolment = agent.enrolment(&registry);
    let submitter = registry.submitter();
    let waiting = runtime().spawn(async move { submitter.submit(&enrolment).await });
    held.pop();
    runtime().block_on(waiting).unwrap().unwrap();
}

async fn from_elsewhere(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let other = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    socket.bind(SocketAddr::from((other, 0))).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn requests_are_counted_by_address() {
    let (registry, _dir) = registry("[clients]\nrequests_each = 2\n");
    let request = b"GET /checkpoint HTTP/1.1\r\nhost: x\r\n\r\n".repeat(39);
    let last = b"GET /checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let began = Instant::now();
    let answers = plain(&registry, &[&request[..], last].concat());
    // Five seconds' worth at once, and what is earned while they come.
    let earned = (2.0 * began.elapsed().as_secs_f64()).ceil() as usize;
    let good = answers.matches("HTTP/1.1 200 OK").count();
    assert!((10..=10 + earned).contains(&good), "{good} of 40");
    let refused = answers.matches("HTTP/1.1 429").count();
    assert_eq!(good + refused, 40, "{answers}");
    assert!(refused > 0 || earned >= 30, "{answers}");
    // Over gRPC with the typed details that a submitter acts on.
    let agent = Agent::new(&registry, "aa", 1);
    let enrolment = agent.enrolment(&registry);
    let submitter = registry.submitter();
    let fault = std::iter::repeat_with(|| submit(&submitter, &enrolment))
        .take(20)
        .find_map(Result::err)
        .expect("twenty at once are too many");
    assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
    assert!(
        fault
            .retry_after
            .is_some_and(|pause| pause < Duration::from_secs(2))
    );
    runtime().block_on(submitter.submit(&enrolment)).unwrap();
}

#[test]
fn an_agency_s_quota_is_spent_by_nobody_else() {
    let (registry, _dir) = registry("[submit]\nstatements_a_day = 3\n");
    let (aa, bb) = (enrolled(&registry, "aa", 1), enrolled(&registry, "bb", 2));
    let submitter = registry.submitter();
    let of_aa: Vec<Envelope> = (0..4).map(|n| aa.dataset(&format!("d{n}"))).collect();
    for n in 0..10 {
        let forged = with_signature_of(&aa.dataset(&format!("forged{n}")), &of_aa[0]);
        let fault = submit(&submitter, &forged).unwrap_err();
        assert_eq!(fault.blame, Blame::Forged, "{fault}");
    }
    // What is refused by the rules costs nothing of the day either.
    let (statement, _) = aa.version("gap", None);
    let next = (statement.head.sequence, of_aa[0].payload_digest());
    for _ in 0..5 {
        submit(&submitter, &aa.version("gap", Some(next)).1).unwrap_err();
    }
    // Nor does what is in the log already.
    let first = submit(&submitter, &of_aa[0]).unwrap();
    for _ in 0..5 {
        assert_eq!(submit(&submitter, &of_aa[0]).unwrap(), first);
    }
    let places: Vec<u64> = of_aa[..3]
        .iter()
        .map(|envelope| submit(&submitter, envelope).unwrap())
        .collect();
    let began = Instant::now();
    let fault = runtime()
        .block_on(submitter.submit(&of_aa[3]))
        .expect_err("a fourth of three was entered");
    assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
    assert!(
        fault.to_string().contains("aa: its statements of this day"),
        "{fault}"
    );
    assert!(fault.retry_after.unwrap() > Duration::from_secs(3_600));
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "nobody waits for a day"
    );
    for (envelope, place) in of_aa.iter().zip(places) {
        assert_eq!(submit(&submitter, envelope).unwrap(), place);
    }
    submit(&submitter, &bb.dataset("free")).unwrap();
}

#[test]
fn an_agency_s_rate_is_its_own() {
    let (registry, _dir) = registry("[submit]\nrate = 2\n");
    let (aa, bb) = (enrolled(&registry, "aa", 1), enrolled(&registry, "bb", 2));
    let submitter = registry.submitter();
    let mut names = (0..).map(|n| format!("d{n}"));
    let mut next = || aa.dataset(&names.next().unwrap());
    // Five seconds of two may come at once; what was entered meanwhile flows back, and no more.
    let began = Instant::now();
    let (mut entered, fault) = (0, std::cell::Cell::new(None));
    while entered < 1_000 {
        match submit(&submitter, &next()) {
            Ok(_) => entered += 1,
            Err(refused) => {
                fault.set(Some(refused));
                break;
            }
        }
    }
    let fault = fault.take().expect("a thousand at once are too many");
    let most = 10 + 2 * began.elapsed().as_secs() + 2;
    assert!((10..=most).contains(&entered), "{entered} of {most}");
    assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
    let words = "aa: its statements of this second";
    assert!(fault.to_string().contains(words), "{fault}");
    let pause = fault.retry_after.expect("it is told when to come back");
    assert!(pause <= Duration::from_millis(500), "{pause:?}");
    // Another has its own.
    for n in 0..10 {
        submit(&submitter, &bb.dataset(&format!("d{n}"))).unwrap();
    }
    // Who waits as told is let in.
    runtime().block_on(submitter.submit(&next())).unwrap();
}

/// An envelope with the signature of another, by the same key.
fn with_signature_of(envelope: &Envelope, other: &Envelope) -> Envelope {
    let signature = |envelope: &Envelope| {
        let value = json::parse(&envelope.to_bytes()).unwrap();
        value["signatures"][0]["sig"].as_str().unwrap().to_owned()
    };
    let text = String::from_utf8(envelope.to_bytes()).unwrap();
    let forged = text.replace(&signature(envelope), &signature(other));
    Envelope::parse(forged.as_bytes()).unwrap()
}

#[test]
fn a_flood_neither_shuts_out_nor_delays_another_agency() {
    const AT_ONCE: usize = 400;
    let (registry, _dir) = registry("[submit]\nqueue = 64\n");
    let (aa, bb) = (enrolled(&registry, "aa", 1), enrolled(&registry, "bb", 2));
    let submitter = registry.submitter();
    submit(&submitter, &bb.dataset("before")).unwrap();
    let aa = Arc::new(aa);
    let over = Arc::new(AtomicBool::new(false));
    let submitters: Vec<Submitter> = (0..8).map(|_| registry.submitter()).collect();
    let began = Instant::now();
    let flooding: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let (aa, over) = (aa.clone(), over.clone());
            let submitter = submitters[task % submitters.len()].clone();
            runtime().spawn(async move {
                let (mut entered, mut refused) = (0_usize, 0_usize);
                while !over.load(Ordering::Relaxed) {
                    let envelope = aa.dataset(&format!("d{task}_{entered}"));
                    match submitter.submit_once(&envelope).await {
                        Ok(_) => entered += 1,
                        Err(fault) => {
                            assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
                            refused += 1;
                        }
                    }
                }
                (entered, refused)
            })
        })
        .collect();
    // The flood has filled its half of the queue when it is told so; then the other comes.
    let mut probe = 0;
    eventually("the flood is told to come back", || {
        probe += 1;
        submit(&submitter, &aa.dataset(&format!("probe{probe}"))).is_err()
    });
    const OTHERS: u32 = 20;
    let came = Instant::now();
    for n in 0..OTHERS {
        submit(&submitter, &bb.dataset(&format!("d{n}"))).unwrap();
    }
    let other = came.elapsed() / OTHERS;
    over.store(true, Ordering::Relaxed);
    let (entered, refused) = flooding
        .into_iter()
        .map(|task| runtime().block_on(task).unwrap())
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(entered > 0 && refused > 0);
    // In one line with the flood, the other would have waited as each of the flood does.
    let each = began.elapsed() * AT_ONCE as u32 / entered as u32;
    println!(
        "{entered} of the flood entered, {refused} refused: {each:?} for each of it, {other:?} for another"
    );
    assert!(other < each, "{other:?}, and {each:?} in the flood");
}

#[test]
fn a_full_queue_says_when_to_come_back_and_all_get_in() {
    const FLOOD: usize = 300;
    let (registry, _dir) = registry("[submit]\nqueue = 4\nqueue_bytes = \"2MiB\"\n");
    let aa = enrolled(&registry, "aa", 1);
    let submitters: Vec<Submitter> = (0..32).map(|_| registry.submitter()).collect();
    let asking: Vec<_> = (0..FLOOD)
        .map(|n| {
            let envelope = aa.dataset(&format!("d{n}"));
            let submitter = submitters[n % submitters.len()].clone();
            runtime().spawn(async move {
                let first = submitter.submit_once(&envelope).await.err();
                // Where all come back at once some wait longer than one submission does.
                while let Err(fault) = submitter.submit(&envelope).await {
                    assert!(
                        matches!(fault.blame, Blame::Overloaded | Blame::Unavailable),
                        "{fault}"
                    );
                }
                first.filter(|fault| fault.blame != Blame::Unavailable)
            })
        })
        .collect();
    let refused: Vec<Fault> = asking
        .into_iter()
        .filter_map(|task| runtime().block_on(task).unwrap())
        .collect();
    assert!(!refused.is_empty(), "the queue was never full");
    for fault in refused {
        assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
        let pause = fault.retry_after.unwrap();
        assert!(pause <= Duration::from_secs(30), "{pause:?}");
    }
    let log = LogFiles::read(&registry.dir.join("log"));
    assert_eq!(log.envelopes.len(), 2 + FLOOD);
}

#[test]
fn a_node_turns_queries_away_when_its_seats_are_taken() {
    let federation = Federation::start();
    let mut node = federation.joined("node", &["aa"]);
    // The endless query waits longer for the seat than the small ones that look for it sit there.
    for (key, value) in [("ASKED", "1"), ("WAIT", "3s"), ("SECONDS", "600")] {
        node.settings
            .push((format!("JINGWEI_NODE_QUERY_{key}"), value.into()));
    }
    federation.registry.enrol(&node.proposal("aa")).ok();
    node.start();
    node.until_announced();
    node.publish_places("aa", "places", "public", PLACES);
    // Three rows to the power of forty: it never ends by itself.
    let tables: Vec<String> = (0..40).map(|n| format!("\"aa\".places t{n}")).collect();
    let endless = format!("SELECT count(*) FROM {}", tables.join(" CROSS JOIN "));
    let mut first = node
        .command(&["sql", &endless])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let one = "SELECT count(*) FROM \"aa\".places";
    eventually("the seat is taken", || node.sql(one, &[]).code != 0);
    let busy = node.sql(one, &[]).expect_code(1);
    busy.complains(&["too many queries run at this node", "again"]);
    first.kill().unwrap();
    first.wait().unwrap();
    eventually("the seat is free", || node.sql(one, &[]).code == 0);
}
