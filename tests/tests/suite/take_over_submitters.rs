//! What the lost registry has acknowledged and nobody has read is entered again by those who have
//! signed it, in the command that was waiting.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jingwei_tests::node::PLACES;
use jingwei_tests::programs::copy_dir;
use jingwei_tests::reading::{LogFiles, parse_checkpoint};
use jingwei_tests::{Federation, Node, Ran};

use crate::take_over::{path, signed_by, take_over, texts};

/// A way to a registry on which statements reach it, and what it has can be read or not.
struct Way {
    address: SocketAddr,
    readable: Arc<AtomicBool>,
}

impl Way {
    fn to(registry: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let readable = Arc::new(AtomicBool::new(true));
        let open = readable.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let open = open.clone();
                std::thread::spawn(move || drop(carry(client, registry, &open)));
            }
        });
        Way { address, readable }
    }
}

/// Carries one connection, unless it is for reading and that is not allowed: the first byte of a
/// submission is that of a TLS handshake.
fn carry(
    mut client: TcpStream,
    registry: SocketAddr,
    open: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    let mut first = [0; 1];
    client.read_exact(&mut first)?;
    let reads = first[0] != 0x16;
    if reads && !open.load(Ordering::SeqCst) {
        return Ok(());
    }
    let mut server = TcpStream::connect(registry)?;
    server.write_all(&first)?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let open = open.clone();
    let back = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            // A request that was on its way is not answered either.
            if reads && !open.load(Ordering::SeqCst) || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}

fn begun(node: &Node, arguments: &[&str]) -> Child {
    let mut command = node.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

#[test]
fn what_only_the_lost_registry_had_is_entered_again_by_those_who_signed_it() {
    let mut federation = Federation::start();
    let agencies = ["aa", "bb", "cc"];
    let mut node = federation.joined("a", &agencies);
    for agency in agencies {
        federation.registry.enrol(&node.proposal(agency)).ok();
    }
    let filter = ("JINGWEI_NODE_LOG_FILTER", "info,jingwei::node=debug");
    node.settings.push((filter.0.into(), filter.1.into()));
    node.start();
    node.until_announced();
    let child = federation.joined_below("child", "aa.x");
    federation.settle(&[&node]);
    let safe = federation.dir.path().join("safe");
    std::fs::rename(federation.registry.dir.join("root-keys"), &safe).unwrap();
    let way = Way::to(federation.registry.address);
    node.run(&["follow", &format!("http://{}", way.address)])
        .ok();
    let copy = federation.dir.path().join("copy");
    copy_dir(&node.dir.join("replica"), &copy.join("replica"));
    let size = || {
        let note = std::fs::read_to_string(federation.registry.dir.join("log/checkpoint")).unwrap();
        parse_checkpoint(&note).1
    };
    let before = size();
    way.readable.store(false, Ordering::SeqCst);
    let (file, schema) = node.places("places", PLACES);
    let publish = [
        "publish",
        path(&file),
        "--as",
        "places",
        "--schema",
        path(&schema),
        "--sharing",
        "public",
        "--agency",
        "bb",
    ];
    let proposal = child.proposal("aa.x");
    let commands = [
        begun(&node, &publish),
        begun(&node, &["rotate", "--agency", "cc", "--yes"]),
        begun(&node, &["enrol", path(&proposal), "--yes"]),
    ];
    for index in before..before + 3 {
        node.until_log(&format!("\"message\":\"acknowledged\",\"index\":{index},"));
    }
    assert_eq!(size(), before + 3);
    federation.registry.kill9();
    let lost = LogFiles::read(&federation.registry.dir.join("log"));
    std::fs::remove_dir_all(&federation.registry.dir).unwrap();
    assert_eq!(node.status().unwrap().log_size, before);
    let new = federation.dir.path().join("new");
    let keys = signed_by(&safe, 2);
    Ran::run(&mut take_over(&copy, &new, &texts(&keys))).ok();
    let mut registry = federation.registry.successor(&new);
    registry.start();
    node.run(&["follow", &registry.url()]).ok();
    // Nobody has repeated a command.
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let log = LogFiles::read(&new.join("log"));
    assert!(!log.repeats());
    for envelope in &lost.envelopes[before as usize..] {
        assert_eq!(
            log.envelopes
                .iter()
                .filter(|held| *held == envelope)
                .count(),
            1
        );
    }
    node.run(&["doctor", "--wait", "60"]).ok();
}
