//! The subresource `exec` of the double. The programs of all containers are in one folder of the test; a command runs
//! as a process, with the name of its pod in `POD`. Missing here, unlike in a real one: terminals.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// The channels of the protocol: the first byte of each message.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// The client has closed the channel in the second byte.
const CLOSED: u8 = 255;
/// The version in which a client can close its channel.
const PROTOCOL: &str = "v5.channel.k8s.io";

/// A command for a pod.
pub(super) struct Exec {
    /// The pod.
    pub(super) pod: String,
    /// The query's values of `command`.
    pub(super) words: Vec<String>,
}

impl Exec {
    /// Accepts the WebSocket; the command runs with the programs of `programs`.
    pub(super) fn start(self, programs: &Path, headers: &HeaderMap, upgrade: Option<OnUpgrade>) -> Response {
        let (Some(key), Some(upgrade)) = (headers.get(header::SEC_WEBSOCKET_KEY), upgrade) else {
            let response = Response::builder().status(StatusCode::BAD_REQUEST);
            return response.body(Body::from("Upgrade request required")).expect("is well-formed");
        };
        let accepted = derive_accept_key(key.as_bytes());
        let mut command = Command::new(programs.join(&self.words[0]));
        command.args(&self.words[1..]).env("POD", self.pod).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                converse(socket, command.spawn()).await;
            }
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
        let response = response.header(header::SEC_WEBSOCKET_ACCEPT, accepted);
        response.header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL).body(Body::empty()).expect("is well-formed")
    }
}

async fn converse(mut socket: WebSocketStream<TokioIo<Upgraded>>, started: std::io::Result<Child>) {
    let status = match started {
        Ok(child) => match run(&mut socket, child).await {
            Some(exit) => ended(exit),
            // The client has gone away.
            None => return,
        },
        Err(error) => {
            failed("InternalError", &format!("error executing command in container: {error}"), Value::Null)
        }
    };
    let _ = socket.send(message(STATUS, status.to_string().as_bytes())).await;
    let _ = socket.close(None).await;
}

/// Passes the streams on until the command has ended.
async fn run(socket: &mut WebSocketStream<TokioIo<Upgraded>>, mut child: Child) -> Option<ExitStatus> {
    let (sender, mut output) = mpsc::channel(1);
    let mut stdin = child.stdin.take();
    tokio::spawn(read(STDOUT, child.stdout.take().expect("is piped"), sender.clone()));
    tokio::spawn(read(STDERR, child.stderr.take().expect("is piped"), sender));
    loop {
        tokio::select! {
            piece = output.recv() => match piece {
                Some(piece) => socket.send(piece).await.ok()?,
                None => return child.wait().await.ok(),
            },
            received = socket.next() => match received?.ok()?.into_data().as_ref() {
                [STDIN, bytes @ ..] => if let Some(stdin) = &mut stdin {
                    // A command may end without reading everything.
                    let _ = stdin.write_all(bytes).await;
                },
                [CLOSED, STDIN] => stdin = None,
                _ => {}
            },
        }
    }
}

async fn read(channel: u8, mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Message>) {
    let mut piece = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if to.send(message(channel, &piece[..length])).await.is_err() {
            return;
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}

fn ended(exit: ExitStatus) -> Value {
    if exit.success() {
        return json!({ "metadata": {}, "status": "Success" });
    }
    let code = exit.code().unwrap_or(137).to_string();
    let text = format!("command terminated with non-zero exit code: exit status {code}");
    failed("NonZeroExitCode", &text, json!({ "causes": [{ "reason": "ExitCode", "message": code }] }))
}

fn failed(reason: &str, message: &str, details: Value) -> Value {
    json!({ "metadata": {}, "status": "Failure", "reason": reason, "message": message, "details": details })
}
