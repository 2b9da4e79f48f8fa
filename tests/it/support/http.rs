//! The smallest HTTP client that can use Patroni's REST API: one request for each connection, HTTP/1.0.

use std::time::Duration;

use base64::Engine;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Head, as sent.
    pub(crate) head: String,
    /// Body, as text.
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; `Null` if it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends one request to a port on loopback. `None`: no answer in that time.
pub(crate) async fn request(
    port: u16,
    method: &str,
    path: &str,
    credentials: Option<(&str, &str)>,
    body: Option<&Value>,
    within: Duration,
) -> Option<Answer> {
    timeout(within, exchange(port, method, path, credentials, body)).await.ok()?.ok()
}

async fn exchange(
    port: u16,
    method: &str,
    path: &str,
    credentials: Option<(&str, &str)>,
    body: Option<&Value>,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    if let Some((user, password)) = credentials {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        head.push_str(&format!("Authorization: Basic {token}\r\n"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    let text = String::from_utf8_lossy(&raw).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.as_str(), ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no status line"))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
