//! However many come from however many addresses and take up what they can: a registry needs no
//! more memory than ARCHITECTURE's table says, and goes on entering what others submit.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use http_body_util::StreamBody;
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::KeyId;
use jingwei_proto::statement::{Dataset, DatasetFile, Predicate, Sharing};
use jingwei_registry::connect::{Patience, Target};
use jingwei_registry::keyfile::TlsIdentity;
use jingwei_registry::submit::Submitter;
use jingwei_tests::Registry;
use jingwei_tests::keyring::Agent;
use jingwei_tests::local::runtime;
use jingwei_tests::programs::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tonic::body::Body;

use crate::limits::{enrolled, registry, submit_body};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const CONNECTIONS: u64 = 384;
const REQUESTS: u64 = 2_048;
const SETTINGS: &str = r#"
[clients]
connections = 384
requests = 2048
memory = "128MiB"
head = "10m"
body = "10m"

[submit]
queue_bytes = "2MiB"
"#;

/// The table's lines for [`SETTINGS`], one by one.
const BOUND: u64 = CONNECTIONS * (256 + 100) * KIB
    + REQUESTS * 16 * KIB
    + 128 * MIB
    + 4 * 256 * 256 * KIB
    + (2 + 4 * 8) * MIB
    + 25 * MIB;

/// Addresses that each kind of trouble comes from, and how many connections from each.
const ADDRESSES: u8 = 16;
const HEADS_EACH: usize = 10;
const READERS_EACH: usize = 4;
const BODIES_EACH: usize = 100;
/// Of the flood alone, since the agency is one.
const FLOODS: u8 = 4;

/// In all far more than [`BOUND`] would be taken if nothing were refused.
#[test]
fn memory_is_bounded_whatever_comes() {
    let (registry, _dir) = registry(SETTINGS);
    let (aa, bb) = (enrolled(&registry, "aa", 1), enrolled(&registry, "bb", 2));
    let submitter = registry.submitter();
    fill_a_bundle(&aa, &registry);
    let idle = registry.most_memory();
    let siege = Siege::begin(&registry, &Arc::new(aa));
    eventually("all of it is under way", || siege.stands());
    // What is entered meanwhile is entered as ever.
    for n in 0..20 {
        let statement = bb.dataset(&format!("meanwhile{n}"));
        runtime().block_on(submitter.submit(&statement)).unwrap();
    }
    assert!(siege.stands());
    let used = registry.most_memory();
    println!(
        "{} MiB idle, {} MiB at most, {} MiB allowed",
        idle / MIB,
        used / MIB,
        BOUND / MIB
    );
    assert!(used < idle + BOUND, "{} MiB", used / MIB);
}

/// A statement whose envelope is nearly as large as one may be.
fn large(agent: &Agent, name: &str) -> Envelope {
    let (mut statement, _) = agent.version(name, None);
    let Predicate::Dataset(dataset) = &mut statement.predicate else {
        panic!("a dataset");
    };
    let file = |n: u16| {
        let digest = Digest::of(format!("{name} {n}").as_bytes());
        DatasetFile {
            name: format!("{digest}.parquet"),
            digest,
            bytes: 1,
        }
    };
    **dataset = Dataset {
        sharing: Sharing::Public,
        schema: Some(format!(r#"{{"description":"{}"}}"#, "x".repeat(65_000))),
        rows: Some(1),
        files: (0..360).map(file).collect(),
        commitment: None,
        ..(**dataset).clone()
    };
    let envelope = statement.sign(&agent.key);
    let size = envelope.to_bytes().len() as u64;
    assert!((240 * KIB..=256 * KIB).contains(&size), "{size} bytes");
    envelope
}

/// Enters so many large statements that the first bundle of envelopes is as large as one can be.
fn fill_a_bundle(agent: &Agent, registry: &Registry) {
    let submitter = registry.submitter();
    let entering = futures::stream::iter(0..256)
        .map(|n| {
            let (submitter, envelope) = (submitter.clone(), large(agent, &format!("large{n}")));
            async move { submitter.submit(&envelope).await }
        })
        .buffer_unordered(4)
        .collect::<Vec<_>>();
    for entered in runtime().block_on(entering) {
        entered.unwrap();
    }
}

/// All that is wanted of a registry at once, until it is dropped.
struct Siege {
    tasks: Vec<AbortHandle>,
    seen: Arc<Seen>,
}

/// What has come about so far.
#[derive(Default)]
struct Seen {
    heads: AtomicUsize,
    bodies_sent: AtomicUsize,
    bodies_refused: AtomicUsize,
    readers_served: AtomicUsize,
    readers_refused: AtomicUsize,
    statements_refused: AtomicUsize,
}

impl Siege {
    fn begin(registry: &Registry, agent: &Arc<Agent>) -> Siege {
        let mut siege = Siege {
            tasks: Vec::new(),
            seen: Arc::default(),
        };
        for host in 0..ADDRESSES {
            let [heads, readers, bodies, floods] =
                [1, 2, 3, 4].map(|kind| Ipv4Addr::new(127, 0, kind, 1 + host));
            for _ in 0..HEADS_EACH {
                siege.spawn(half_a_head(heads, registry.address, siege.seen.clone()));
            }
            for _ in 0..READERS_EACH {
                siege.spawn(no_reader(readers, registry.address, siege.seen.clone()));
            }
            siege.endless_bodies(bodies, registry);
            if host < FLOODS {
                siege.flood(floods, registry, agent);
            }
        }
        siege
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(runtime().spawn(work).abort_handle());
    }

    /// Whether everything that is to be held is held, and the rest has been refused.
    fn stands(&self) -> bool {
        let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        let (served, refused) = (&self.seen.readers_served, &self.seen.readers_refused);
        let (sent, turned_down) = (&self.seen.bodies_sent, &self.seen.bodies_refused);
        let hosts = usize::from(ADDRESSES);
        count(&self.seen.heads) == hosts * HEADS_EACH
            && count(served) + count(refused) == hosts * READERS_EACH
            && count(served) > 0
            && count(refused) > 0
            && count(sent) + count(turned_down) >= hosts * BODIES_EACH
            && count(turned_down) > 0
            && count(&self.seen.statements_refused) > 0
    }

    /// Submissions that announce a large statement, send nearly all of it, and then no more.
    fn endless_bodies(&mut self, from: Ipv4Addr, registry: &Registry) {
        let (target, address) = (target(registry, from), registry.address);
        let seen = self.seen.clone();
        self.spawn(async move {
            let link = target.connect().await.expect("there is room for it");
            let bodies = (0..BODIES_EACH).map(|_| async {
                let body = Body::new(StreamBody::new(never_all(seen.clone())));
                submit_body(link.clone(), address, body).await;
                seen.bodies_refused.fetch_add(1, Ordering::SeqCst);
            });
            futures::future::join_all(bodies).await;
        });
    }

    /// One agency that never waits, with the largest statements and the smallest.
    fn flood(&mut self, from: Ipv4Addr, registry: &Registry, agent: &Arc<Agent>) {
        let _runtime = runtime().enter();
        let door = door(registry.address, from).to_string();
        let submitter = Submitter::new(&door, tls(registry), None, Patience::default()).unwrap();
        let [.., host] = from.octets();
        for task in 0..64 {
            let (submitter, agent, seen) = (submitter.clone(), agent.clone(), self.seen.clone());
            self.spawn(async move {
                for n in 0_u64.. {
                    let name = format!("flood{host}_{task}_{n}");
                    let envelope = match task % 2 {
                        0 => large(&agent, &name),
                        _ => agent.dataset(&name),
                    };
                    if submitter.submit_once(&envelope).await.is_err() {
                        seen.statements_refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    }
}

/// The frames of a message of 256 KiB, but for its last 16.
fn never_all(
    seen: Arc<Seen>,
) -> impl futures::Stream<Item = Result<hyper::body::Frame<bytes::Bytes>, tonic::Status>> {
    let head = bytes::Bytes::from_static(&[0, 0, 4, 0, 0]);
    let chunk = bytes::Bytes::from_static(&[0; 16 * KIB as usize]);
    let sent = std::iter::once(head).chain(std::iter::repeat_n(chunk, 15));
    let rest = futures::stream::once(async move {
        seen.bodies_sent.fetch_add(1, Ordering::SeqCst);
        futures::future::pending().await
    });
    let all = futures::stream::iter(sent).chain(rest);
    all.map(|bytes| Ok(hyper::body::Frame::data(bytes)))
}

impl Drop for Siege {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A connection that is begun and says less than a request, for ever.
async fn half_a_head(from: Ipv4Addr, to: SocketAddr, seen: Arc<Seen>) {
    let mut stream = dial(from, to).await;
    let head = format!("GET /checkpoint HTTP/1.1\r\nx: {}", "x".repeat(15_000));
    stream
        .write_all(head.as_bytes())
        .await
        .expect("it is taken");
    seen.heads.fetch_add(1, Ordering::SeqCst);
    std::future::pending::<()>().await;
}

/// A reader that asks for the largest file there is and takes no more of it than its first line.
async fn no_reader(from: Ipv4Addr, to: SocketAddr, seen: Arc<Seen>) {
    let mut stream = dial(from, to).await;
    let ask = b"GET /tile/envelopes/000 HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(ask).await.expect("it is taken");
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.expect("an answer");
    let outcome = match &begun {
        b"HTTP/1.1 200" => &seen.readers_served,
        b"HTTP/1.1 503" => &seen.readers_refused,
        other => panic!("{}", String::from_utf8_lossy(other)),
    };
    outcome.fetch_add(1, Ordering::SeqCst);
    std::future::pending::<()>().await;
}

/// A connection from one of this machine's many addresses, which reads no more ahead than it must.
async fn dial(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.expect("there is room for it")
}

/// A port whose connections reach the registry from another address.
fn door(to: SocketAddr, from: Ipv4Addr) -> SocketAddr {
    let listener = runtime()
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut outside = dial(from, to).await;
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    address
}

fn target(registry: &Registry, from: Ipv4Addr) -> Target {
    let door = door(registry.address, from).to_string();
    Target::new(&door, [tls(registry)], None, Patience::default()).unwrap()
}

fn tls(registry: &Registry) -> KeyId {
    TlsIdentity::load(&registry.dir.join("keys")).unwrap().id
}
