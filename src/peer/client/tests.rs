use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers one connection with `answer`, and returns the request.
async fn once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/patroni?x=1", listener.local_addr().expect("bound"));
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a caller");
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.expect("a request");
        stream.write_all(answer.as_bytes()).await.expect("a listener");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (url, task)
}

#[tokio::test]
async fn reads_an_answer_that_ends_with_the_connection() {
    let answer = "HTTP/1.0 503 Service Unavailable\r\nServer: x\r\n\r\n{\"role\": \"replica\", \"xlog\": {\"received_location\": 5}}";
    let (url, request) = once(answer).await;
    let answer = Peers::default().ask(&url, Duration::from_secs(10)).await;
    assert!(answer.reachable && answer.in_recovery, "{answer:?}");
    let request = request.await.expect("asked").to_lowercase();
    assert!(request.starts_with("get /patroni?x=1 http/1.1\r\n"), "{request}");
    assert!(request.contains("host: 127.0.0.1:") && request.contains("user-agent: patroni/"), "{request}");
}

#[tokio::test]
async fn sends_a_body_with_credentials() {
    let (url, request) = once("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nOK").await;
    let call = Call {
        method: "POST".to_owned(),
        url,
        body: Some(serde_json::json!({"a": 1})),
        credentials: Some(("user".to_owned(), "pass".to_owned())),
        within: Duration::from_secs(10),
    };
    assert!(!format!("{call:?}").contains("pass"));
    assert_eq!(Peers::default().call(call).await.expect("an answer"), (202, "OK".to_owned()));
    let request = request.await.expect("asked").to_lowercase();
    for part in ["authorization: basic dxnlcjpwyxnz", "content-length: 7", "content-type: application/json"] {
        assert!(request.contains(part), "{part}: {request}");
    }
}

#[tokio::test]
async fn failures_are_reported_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = format!("http://{}/", listener.local_addr().expect("bound"));
    let refused = {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        format!("http://{}/", gone.local_addr().expect("bound"))
    };
    let cases = [
        (silent.as_str(), "did not answer within"),
        (refused.as_str(), "cannot connect"),
        ("https://localhost/", "TLS is not set up"),
        ("ftp://localhost/", "neither http nor https"),
        ("/patroni", "names no host"),
    ];
    for (url, expected) in cases {
        let answer = Peers::default().ask(url, Duration::from_millis(300)).await;
        let trouble = answer.trouble.expect("there is trouble");
        assert!(!answer.reachable && trouble.contains(expected), "{url}: {trouble}");
    }
}

#[test]
fn endpoint_urls_use_the_host_of_the_api_url() {
    assert_eq!(endpoint_url("https://a:8008/patroni", "/restart"), "https://a:8008/restart");
    assert_eq!(endpoint_url("http://[::1]:8008/patroni", "/"), "http://[::1]:8008/");
    assert_eq!(endpoint_url("https://a:8008/patroni", "/failsafe"), "https://a:8008/failsafe");
    assert_eq!(endpoint_url("http://[::1]:8008", "/failsafe"), "http://[::1]:8008/failsafe");
}
