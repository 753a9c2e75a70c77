//! Tests of TLS, serving and connecting together: real sockets on loopback.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use jingwei_proto::key::KeyId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::connect::{Link, Patience, Target, uds};
use crate::fault::{Blame, Fault};
use crate::keyfile::TlsIdentity;
use crate::request_id::{self, RequestId, with_request_ids};
use crate::serve::{PeerKey, Secure, ServeLimits, TlsMode, members_only, serve, serve_unix};
use crate::tls::{ClientKeys, server_config};
use crate::unix_socket;

struct Running {
    address: SocketAddr,
    id: KeyId,
    shutdown: CancellationToken,
    done: JoinHandle<()>,
}

fn identity() -> TlsIdentity {
    TlsIdentity::generate().unwrap().0
}

/// gRPC health, and a page that says what the server knows of its client.
fn router() -> Router {
    let (_, health) = tonic_health::server::health_reporter();
    let about = |Extension(peer): Extension<PeerKey>, Extension(secure): Extension<Secure>| async move {
        let key = peer.0.map_or("none".to_owned(), |key| key.to_string());
        format!("{key} {}", secure.0)
    };
    let pages = Routes::new(health)
        .into_axum_router()
        .route("/about", get(about));
    with_request_ids(pages)
}

async fn start(plain: bool, clients: ClientKeys, router: Router) -> Running {
    start_with(ServeLimits::default(), plain, clients, router).await
}

async fn start_with(
    limits: ServeLimits,
    plain: bool,
    clients: ClientKeys,
    router: Router,
) -> Running {
    let own = identity();
    let config = server_config(&own, clients).unwrap();
    let mode = match plain {
        true => TlsMode::PlainAndTls(config),
        false => TlsMode::Required(config),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let done = tokio::spawn(serve(listener, router, mode, limits, shutdown.clone()));
    Running {
        address,
        id: own.id,
        shutdown,
        done,
    }
}

fn only(known: KeyId) -> ClientKeys {
    ClientKeys::Required(Arc::new(move |key: &KeyId| *key == known))
}

fn anyone() -> ClientKeys {
    ClientKeys::Optional(Arc::new(|_: &KeyId| true))
}

fn target(server: &Running, expected: KeyId, own: Option<&TlsIdentity>) -> Target {
    let address = server.address.to_string();
    Target::new(&address, [expected], own, Patience::default()).unwrap()
}

/// What comes in a time in which everything comes, however busy the machine is.
async fn within<F: Future>(coming: F) -> Result<F::Output, tokio::time::error::Elapsed> {
    tokio::time::timeout(Duration::from_secs(60), coming).await
}

async fn check(link: Link) -> Result<(), Fault> {
    let mut client = HealthClient::new(link);
    client.check(HealthCheckRequest::default()).await?;
    Ok(())
}

/// One request on a connection of its own, everything that comes back.
async fn plain_http(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_known_client_gets_in_and_is_known_by_its_key() {
    let own = identity();
    let server = start(false, only(own.id), router()).await;
    let mut link = target(&server, server.id, Some(&own))
        .connect()
        .await
        .unwrap();
    check(link.clone()).await.unwrap();
    let uri = format!("https://{}/about", server.address);
    let request = http::Request::get(uri)
        .body(tonic::body::Body::empty())
        .unwrap();
    let answer = tower::ServiceExt::ready(&mut link).await.unwrap();
    let answer = tower::Service::call(answer, request).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, format!("{} true", own.id));
}

#[tokio::test]
async fn a_stranger_and_a_client_without_certificate_are_refused() {
    let server = start(false, only(identity().id), router()).await;
    let stranger = identity();
    for own in [Some(&stranger), None].repeat(20) {
        // In TLS 1.3 a client has finished before the server has looked at its certificate.
        let refused = match target(&server, server.id, own).connect().await {
            Ok(link) => check(link).await.unwrap_err(),
            Err(fault) => fault,
        };
        assert_eq!(refused.blame, Blame::Unauthorised, "{refused}");
    }
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let own = identity();
    let server = start(false, only(own.id), router()).await;
    let expected = identity().id;
    let fault = target(&server, expected, Some(&own))
        .connect()
        .await
        .unwrap_err();
    assert_eq!(fault.blame, Blame::Unverified);
    assert!(fault.message.contains(&server.id.to_string()), "{fault}");
    assert!(fault.message.contains(&expected.to_string()), "{fault}");
}

#[tokio::test]
async fn a_certificate_without_its_private_key_is_worth_nothing() {
    let (own, thief) = (identity(), identity());
    let stolen = TlsIdentity {
        cert: own.cert.clone(),
        key: thief.key.clone_key(),
        id: own.id,
    };
    // rustls refuses to build a server or a client from such a pair.
    assert!(server_config(&stolen, anyone()).is_err());
    assert!(Target::new("localhost:1", [own.id], Some(&stolen), Patience::default()).is_err());
}

#[tokio::test]
async fn plain_and_tls_on_one_port() {
    let server = start(true, anyone(), router()).await;
    let answer = plain_http(server.address, "/about", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("none false"), "{answer}");
    check(target(&server, server.id, None).connect().await.unwrap())
        .await
        .unwrap();
    check(
        target(&server, server.id, Some(&identity()))
            .connect()
            .await
            .unwrap(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn plain_http_is_refused_where_tls_is_required() {
    let server = start(false, anyone(), router()).await;
    let answer = plain_http(server.address, "/about", "")
        .await
        .unwrap_or_default();
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn a_request_id_is_echoed_and_sent_on() {
    let server = start(true, anyone(), router()).await;
    let answer = plain_http(server.address, "/about", "x-request-id: abc-1\r\n")
        .await
        .unwrap();
    assert!(answer.contains("x-request-id: abc-1\r\n"), "{answer}");
    let link = target(&server, server.id, None).connect().await.unwrap();
    let id: RequestId = "from-the-caller".parse().unwrap();
    let call = async {
        let mut client = HealthClient::new(link);
        client.check(HealthCheckRequest::default()).await.unwrap()
    };
    let answer = id.scope(call).await;
    let echoed = answer.metadata().get(request_id::HEADER.as_str()).unwrap();
    assert_eq!(echoed, "from-the-caller");
}

#[tokio::test]
async fn membership_is_checked_again_on_each_request() {
    let own = identity();
    let member = Arc::new(AtomicBool::new(true));
    let asked = member.clone();
    let members = Arc::new(move |_: &KeyId| asked.load(Ordering::SeqCst));
    let routes = members_only(router(), members.clone());
    let server = start(false, ClientKeys::Required(members), routes).await;
    let link = target(&server, server.id, Some(&own))
        .connect()
        .await
        .unwrap();
    check(link.clone()).await.unwrap();
    member.store(false, Ordering::SeqCst);
    let fault = check(link).await.unwrap_err();
    assert_eq!(fault.blame, Blame::Unauthorised);
    assert!(fault.advice.is_some());
}

#[tokio::test]
async fn silent_clients_are_dropped() {
    let short = ServeLimits {
        handshake: Duration::from_millis(300),
        header: Duration::from_millis(300),
        ..ServeLimits::default()
    };
    let server = start_with(short, true, anyone(), router()).await;
    for opening in [
        &b""[..],
        b"\x16",
        b"P",
        b"PRI * HT",
        b"GET / HTTP/1.1\r\nHos",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        let mut rest = Vec::new();
        let ended = within(stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "{opening:?}");
    }
}

#[tokio::test]
async fn shutdown_refuses_new_connections_and_ends_requests_in_flight() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        || async move {
            begun.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let router = router().route("/slow", get(slow));
    let server = start(true, anyone(), router).await;
    let idle = target(&server, server.id, None).connect().await.unwrap();
    check(idle.clone()).await.unwrap();
    let slow = tokio::spawn(plain_http(server.address, "/slow", ""));
    within(begun.notified()).await.unwrap();
    server.shutdown.cancel();
    let refused = async {
        loop {
            match TcpStream::connect(server.address).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                // It was let in, or was waiting to be when the port was closed.
                _ => tokio::task::yield_now().await,
            }
        }
    };
    within(refused).await.unwrap();
    go_on.notify_one();
    assert!(slow.await.unwrap().unwrap().ends_with("done"));
    server.done.await.unwrap();
    let fault = check(idle).await.unwrap_err();
    assert_eq!(fault.blame, Blame::Unavailable, "{fault}");
}

#[tokio::test]
async fn a_lazy_link_connects_when_the_server_is_there() {
    let own = identity();
    let server = start(false, only(own.id), router()).await;
    let link = target(&server, server.id, Some(&own))
        .connect_lazy()
        .unwrap();
    check(link).await.unwrap();
    let wrong = target(&server, own.id, Some(&own)).connect_lazy().unwrap();
    assert_eq!(check(wrong).await.unwrap_err().blame, Blame::Unverified);
}

#[tokio::test]
async fn grpc_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(150));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("node.sock");
    let listener = unix_socket::bind(&path).await.unwrap();
    let shutdown = CancellationToken::new();
    let limits = ServeLimits::default();
    let done = tokio::spawn(serve_unix(listener, router(), limits, shutdown.clone()));
    check(uds(&path).await.unwrap()).await.unwrap();
    shutdown.cancel();
    done.await.unwrap();
    assert!(uds(&path).await.is_err());
}
