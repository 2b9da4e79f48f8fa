//! Too many connections, and slow clients: members and health checks still get answers.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Rig, primary, rig};
use crate::os::clock;
use crate::peer::Peers;

/// No member of the view has this address.
const STRANGER: &str = "127.0.0.9:0";
/// The limit of a load balancer.
const SOON: Duration = Duration::from_secs(1);

/// A connection from elsewhere that has sent `text`.
async fn connected(rig: &Rig, text: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(STRANGER.parse::<SocketAddr>().expect("an address")).expect("it is loopback");
    let mut stream = socket.connect(rig.address).await.expect("it listens");
    stream.write_all(text.as_bytes()).await.expect("an open connection");
    stream
}

/// The answer to its end; empty when the connection was only closed.
async fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset may discard the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn allow_files(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).expect("below the hard limit");
    }
}

#[tokio::test]
async fn idle_and_slow_connections_delay_neither_probes_nor_members() {
    allow_files(4096);
    let rig = rig(primary(clock::now())).await;
    let mut crowd = Vec::new();
    for index in 0..600 {
        crowd.push(connected(&rig, if index % 2 == 0 { "" } else { "GET /primary HTTP/1.1\r\nX: " }).await);
    }
    for _ in 0..20 {
        let probe = connected(&rig, "GET /primary HTTP/1.0\r\n\r\n").await;
        let answered = tokio::time::timeout(SOON, answer(probe)).await.expect("a probe is answered at once");
        assert!(answered.starts_with("HTTP/1.0 200"), "{answered}");
        let url = format!("http://{}/patroni", rig.address);
        let peer = Peers::default().ask(&url, SOON).await;
        assert!(peer.reachable, "{peer:?}");
    }
    // The first connection was closed to make room; the last one was not.
    let last = crowd.pop().expect("there are many");
    tokio::time::timeout(SOON * 10, answer(crowd.remove(0))).await.expect("it was cut");
    let still_open = last.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(still_open, Err(std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn slow_clients_are_disconnected() {
    let rig = rig(primary(clock::now())).await;
    let within = Duration::from_secs(20);
    // One sends nothing, one stops in its head, one sends it endlessly, one leaves its connection open afterwards, and
    // one never sends its announced body.
    let silent = connected(&rig, "").await;
    let partial = connected(&rig, "GET /primary HTTP/1.1\r\nHost").await;
    let idle = connected(&rig, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let bodiless = connected(&rig, "PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await;
    let mut dripping = connected(&rig, "GET /primary HTTP/1.1\r\n").await;
    let drip = async {
        while dripping.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let all = async {
        let answers = [answer(silent), answer(partial), answer(idle), answer(bodiless)];
        let (answers, ()) = tokio::join!(futures::future::join_all(answers), drip);
        answers
    };
    let answers = tokio::time::timeout(within, all).await.expect("all are cut");
    assert_eq!(answers[..2], ["", ""]);
    assert!(answers[2].starts_with("HTTP/1.1 200"), "{}", answers[2]);
    assert!(answers[3].starts_with("HTTP/1.1 400"), "{}", answers[3]);
}

/// Readers that use up their limit do not affect members or health checks.
#[tokio::test]
async fn many_readers_do_not_affect_members_and_probes() {
    allow_files(4096);
    let rig = rig(primary(clock::now())).await;
    // etcd is slow.
    rig.world().held_reads = Some(Vec::new());
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(connected(&rig, "GET /cluster HTTP/1.0\r\n\r\n").await);
    }
    let refused = readers.split_off(64);
    for reader in refused {
        let answered = tokio::time::timeout(SOON * 10, answer(reader)).await.expect("it is refused at once");
        assert!(answered.starts_with("HTTP/1.0 503") && answered.contains("too many requests that read"));
    }
    let probe = connected(&rig, "GET /primary HTTP/1.0\r\n\r\n").await;
    let answered = tokio::time::timeout(SOON, answer(probe)).await.expect("a probe is answered at once");
    assert!(answered.starts_with("HTTP/1.0 200"), "{answered}");
    // The view has members on 127.0.0.1; the server may not have looked them up yet.
    let url = format!("http://{}/patroni", rig.address);
    let deadline = clock::now() + SOON * 10;
    while !Peers::default().ask(&url, SOON).await.reachable {
        assert!(clock::now() < deadline, "a member is answered");
    }
    assert_eq!(rig.call("POST", "/reload", None).await.0, 202);
    rig.world().held_reads = None;
    for reader in readers {
        let answered = tokio::time::timeout(SOON * 10, answer(reader)).await.expect("it is answered");
        assert!(answered.starts_with("HTTP/1.0 503"), "{answered}");
    }
}
