//! The listening side of a leader's heartbeats: one connection, one session, one stream.

use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use matriarch_proto::Message;
use matriarch_proto::v1::peer_client::PeerClient;
use matriarch_proto::v1::{HeartbeatsRequest, HeartbeatsResponse, HelloRequest};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status, Streaming};

use super::client::parsed;
use super::mac::{MacKey, MacLabel};
use super::sessions::{HelloCall, PeerCall};
use super::{PeerError, PeerKeys, Peers, endpoint_url, heartbeat};
use crate::model::Heartbeat;
use crate::os::random;

/// The method that streams heartbeats.
const HEARTBEATS: &str = "/matriarch.v1.Peer/Heartbeats";
/// The limit from the beginning to the beginning of the stream.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);
/// A stream without a heartbeat for this long is given up: after a break in the network a new connection may be there
/// sooner than the old one finds out.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(1);

/// The leader to listen to, and the member that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatSource {
    /// The cluster's name.
    pub scope: String,
    /// The member that listens.
    pub from: String,
    /// The leader.
    pub leader: String,
    /// The leader's `api_url`.
    pub api_url: String,
}

/// The heartbeats of one leader over one connection, which ends with this.
pub struct HeartbeatStream {
    url: String,
    heartbeats: Streaming<HeartbeatsResponse>,
    key: MacKey,
}

impl HeartbeatStream {
    /// The next heartbeat.
    ///
    /// # Errors
    /// Why there are no more.
    pub async fn next(&mut self) -> Result<Heartbeat, PeerError> {
        let HeartbeatStream { url, heartbeats, key } = self;
        match tokio::time::timeout(HEARTBEAT_WITHIN, heartbeats.message()).await {
            Ok(Ok(Some(response))) => {
                heartbeat::opened(&response, key).ok_or_else(|| PeerError::Unproved { url: url.clone() })
            }
            Ok(Ok(None)) => Err(refused(url, &Status::ok("the stream has ended"))),
            Ok(Err(status)) => Err(refused(url, &status)),
            Err(_) => Err(PeerError::Timeout { url: url.clone(), within: HEARTBEAT_WITHIN }),
        }
    }
}

impl Peers {
    /// Begins to listen.
    ///
    /// # Errors
    /// Why that is not possible.
    pub async fn listen(
        &self,
        source: &HeartbeatSource,
        keys: &PeerKeys,
    ) -> Result<HeartbeatStream, PeerError> {
        let late = || PeerError::Timeout { url: source.api_url.clone(), within: BEGIN_WITHIN };
        tokio::time::timeout(BEGIN_WITHIN, self.subscribe(source, keys)).await.map_err(|_| late())?
    }

    async fn subscribe(
        &self,
        source: &HeartbeatSource,
        keys: &PeerKeys,
    ) -> Result<HeartbeatStream, PeerError> {
        let url = source.api_url.as_str();
        let mut client = self.client(url).await?;
        let (session, key) = begin(&mut client, source, keys).await?;
        let message = HeartbeatsRequest {};
        let encoded = message.encode_to_vec();
        let call = PeerCall { session, counter: 1, path: HEARTBEATS, message: &encoded };
        let mac: String = call.mac(&key).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut request = tonic::Request::new(message);
        for (name, value) in [
            ("matriarch-session", session.to_string()),
            ("matriarch-counter", call.counter.to_string()),
            ("matriarch-mac", mac),
        ] {
            request.metadata_mut().insert(name, value.parse().expect("digits"));
        }
        let heartbeats = client.heartbeats(request).await.map_err(|status| refused(url, &status))?;
        Ok(HeartbeatStream { url: url.to_owned(), heartbeats: heartbeats.into_inner(), key })
    }

    /// A client over a new connection, which ends with it.
    async fn client(&self, url: &str) -> Result<PeerClient<Http2Sender>, PeerError> {
        let uri = parsed(url)?;
        let origin: Uri = parsed(&endpoint_url(url, "/"))?;
        let stream = self.connect(url, &uri, BEGIN_WITHIN, &[b"h2"]).await?;
        let begun = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) =
            begun.map_err(|error| PeerError::Broken { url: url.to_owned(), source: error.into() })?;
        tokio::spawn(connection);
        Ok(PeerClient::with_origin(Http2Sender(sender), origin))
    }
}

/// Begins a session, with the first of the keys that the server knows as well.
async fn begin(
    client: &mut PeerClient<Http2Sender>,
    source: &HeartbeatSource,
    keys: &PeerKeys,
) -> Result<(u64, MacKey), PeerError> {
    let url = source.api_url.as_str();
    let mut unknown = PeerError::Unproved { url: url.to_owned() };
    for key in &keys.keys {
        let nonce: [u8; 16] = random::bytes();
        let HeartbeatSource { scope, from, leader, .. } = source;
        let hello = HelloCall { scope, from, to: leader, nonce: &nonce };
        let request = HelloRequest {
            scope: scope.clone(),
            from: from.clone(),
            to: leader.clone(),
            nonce: nonce.to_vec(),
            mac: hello.mac(key).to_vec(),
        };
        let welcome = match client.hello(request).await {
            Ok(welcome) => welcome.into_inner(),
            Err(status) if status.code() == Code::Unauthenticated => {
                unknown = refused(url, &status);
                continue;
            }
            Err(status) => return Err(refused(url, &status)),
        };
        let session_key = hello.session_key(key, &welcome.nonce, welcome.session);
        return match session_key.confirms(MacLabel::Welcome, &[], &welcome.mac) {
            true => Ok((welcome.session, session_key)),
            false => Err(PeerError::Unproved { url: url.to_owned() }),
        };
    }
    Err(unknown)
}

/// A refusal of the member, or an error of the connection.
fn refused(url: &str, status: &Status) -> PeerError {
    let url = url.to_owned();
    match status.code() {
        Code::Unauthenticated | Code::Unimplemented | Code::FailedPrecondition | Code::ResourceExhausted => {
            PeerError::Refused { url, why: status.message().to_owned() }
        }
        _ => PeerError::Broken { url, source: status.message().into() },
    }
}

/// A connection with HTTP/2, as the generated client wants it.
struct Http2Sender(SendRequest<Body>);

impl Service<Request<Body>> for Http2Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Response<Incoming>, hyper::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
