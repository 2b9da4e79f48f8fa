//! The smallest HTTP client that can read a member's and etcd's answers: one request a connection, HTTP/1.0.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Body, as text.
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends one request to `host:port`. `None`: no answer in that time.
pub(crate) async fn request(
    address: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
    within: Duration,
) -> Option<Answer> {
    timeout(within, exchange(address, method, path, body)).await.ok()?.ok()
}

async fn exchange(address: &str, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n");
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    let text = String::from_utf8_lossy(&raw).into_owned();
    parse(&text).ok_or_else(|| std::io::Error::other("no status line"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse("HTTP/1.0 503 Away\r\nA: b\r\n\r\n{\"timeline\": 3}").expect("an answer");
        assert_eq!((answer.status, answer.json()["timeline"].as_u64()), (503, Some(3)));
        assert!(parse("").is_none());
    }
}
