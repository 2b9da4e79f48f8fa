//! REST over HTTP/2: by prior knowledge, at the same port.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Rig, primary, rig, rig_with};
use crate::api::ApiSetup;
use crate::os::clock;

type Client = SendRequest<Full<Bytes>>;

/// A connection, and the task that ends with it.
async fn connect(rig: &Rig) -> (Client, JoinHandle<Result<(), hyper::Error>>) {
    let stream = TcpStream::connect(rig.address).await.expect("it listens");
    let (client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("it speaks HTTP/2");
    (client, tokio::spawn(connection))
}

async fn call(mut client: Client, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://member{path}"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.version(), Version::HTTP_2);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn every_route_answers_over_http2() {
    let rig = rig(primary(clock::now())).await;
    let (client, _connection) = connect(&rig).await;
    for (method, path, body, status, text) in [
        ("GET", "/primary", "", 200, r#""state": "running""#),
        ("GET", "//leader", "", 200, r#""role": "primary""#),
        ("GET", "/replica?lag=1", "", 503, "running"),
        ("HEAD", "/primary", "", 200, ""),
        ("OPTIONS", "/replica", "", 503, ""),
        ("GET", "/cluster", "", 200, r#""scope": "c""#),
        ("GET", "/metrics", "", 200, "patroni_primary{"),
        ("PATCH", "/config", r#"{"ttl": 40}"#, 200, r#""ttl": 40"#),
        // Frames have a length, so none is demanded.
        ("POST", "/switchover", "", 400, "Bad request syntax"),
        ("POST", "/reload", "", 202, "reload scheduled"),
        ("BREW", "/pot", "", 501, "Unsupported method"),
    ] {
        let answer = call(client.clone(), method, path, body).await;
        assert!(answer.0 == status && answer.1.contains(text), "{method} {path}: {answer:?}");
    }
    let together = (0..50).map(|_| call(client.clone(), "GET", "/primary", ""));
    let answers = futures::future::join_all(together).await;
    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
}

/// The first bytes may arrive one by one. HTTP/1 with a method that begins alike stays HTTP/1.
#[tokio::test]
async fn only_the_whole_preface_means_http2() {
    let rig = rig(primary(clock::now())).await;
    let answer = rig.raw("PRI /primary HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 501"), "{answer}");
    let answer = rig.raw("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nmore bytes").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn changes_need_the_same_access() {
    let credentials = Some(("admin".to_owned(), "s3cret".to_owned()));
    let rig = rig_with(primary(clock::now()), ApiSetup { credentials, ..ApiSetup::default() }).await;
    let (client, _connection) = connect(&rig).await;
    assert_eq!(call(client, "POST", "/reload", "").await, (401, "no auth header received".to_owned()));
    assert_eq!(rig.world().reloads, 0);
}

/// A connection that idles gets a notice before the limit for connections that wait would cut it, and one that never
/// sends a request is closed as well.
#[tokio::test]
async fn an_idle_connection_is_closed_with_a_notice() {
    let rig = rig(primary(clock::now())).await;
    let (client, connection) = connect(&rig).await;
    assert_eq!(call(client.clone(), "GET", "/primary", "").await.0, 200);
    let mut silent = TcpStream::connect(rig.address).await.expect("it listens");
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("an open connection");
    let ended = tokio::time::timeout(Duration::from_secs(20), connection).await;
    let ended = ended.expect("it ends").expect("it does not panic");
    assert!(ended.is_ok(), "with a notice: {ended:?}");
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest);
    let closed = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(closed.is_ok(), "it is closed");
}
