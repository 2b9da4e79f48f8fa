//! The HTTP client.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answer;
use crate::model::{PeerAnswer, PeerIdentity};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;

/// Old members look for Patroni's name at the beginning.
const AGENT: &str = concat!("Patroni/4 Matriarch/", env!("CARGO_PKG_VERSION"));
/// More than the largest answer of a member.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// A machine that does not accept a connection within this time is unreachable, whatever the caller's limit.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The client for other members. Cheap to clone.
#[derive(Clone, Default)]
pub struct Peers {
    tls: Arc<RwLock<Option<Arc<rustls::ClientConfig>>>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("tls", &self.tls().is_some()).finish()
    }
}

/// One call to a member.
#[derive(Clone)]
pub struct Call {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The URL.
    pub url: String,
    /// Sent as JSON.
    pub body: Option<Value>,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// The limit from now to the end of the answer.
    pub within: Duration,
}

impl fmt::Debug for Call {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} within {:?}", self.method, self.url, self.within)
    }
}

/// Why a member gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The URL cannot be called.
    #[error("`{url}` cannot be called: {why}")]
    Url {
        /// The URL.
        url: String,
        /// The fault.
        why: &'static str,
    },
    /// No connection.
    #[error("cannot connect to {url}")]
    Connect {
        /// The URL.
        url: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("{url} did not answer within {within:?}")]
    Timeout {
        /// The URL.
        url: String,
        /// The limit.
        within: Duration,
    },
    /// The connection broke, or the answer was not HTTP.
    #[error("the conversation with {url} broke")]
    Broken {
        /// The URL.
        url: String,
        /// The error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not answer this call.
    #[error("{url} refused: {why}")]
    Refused {
        /// The URL.
        url: String,
        /// Its reason.
        why: String,
    },
    /// Something answers there that is not the member.
    #[error("{url} does not prove that a member of the cluster answers there")]
    Unproved {
        /// The URL.
        url: String,
    },
}

impl Peers {
    /// A client with TLS; without it `https` URLs are refused.
    pub fn with_tls(tls: Arc<rustls::ClientConfig>) -> Peers {
        let peers = Peers::default();
        peers.replace_tls(tls);
        peers
    }

    /// Replaces the certificates of this client and all its clones.
    pub fn replace_tls(&self, tls: Arc<rustls::ClientConfig>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the member at `api_url` for its state. Never fails: a missing answer is a result, too.
    /// [`PeerAnswer::identity`] shows whether it was the intended member.
    pub async fn ask(&self, api_url: &str, within: Duration) -> PeerAnswer {
        let asked_at = clock::now();
        let call = Call { method: "GET".into(), url: api_url.into(), body: None, credentials: None, within };
        match self.call(call).await {
            Ok((_, text)) => answer::read(asked_at, &text),
            Err(error) => PeerAnswer::unreachable(asked_at, error.chain()),
        }
    }

    /// The process that gave this body of `/patroni`, or of a health check.
    pub fn identity(body: &Value) -> PeerIdentity {
        answer::identity(body)
    }

    /// Sends one request and reads the whole answer: status and body, whatever the status.
    pub async fn call(&self, call: Call) -> Result<(u16, String), PeerError> {
        let timeout = || PeerError::Timeout { url: call.url.clone(), within: call.within };
        tokio::time::timeout(call.within, self.converse(&call)).await.map_err(|_| timeout())?
    }

    async fn converse(&self, call: &Call) -> Result<(u16, String), PeerError> {
        let uri = parsed(&call.url)?;
        let request = request(call, &uri).map_err(|_| unusable(&call.url, "its parts make no request"))?;
        let stream = self.connect(&call.url, &uri, call.within, &[]).await?;
        exchange(stream, request, &call.url).await
    }

    /// Connects to the host of `uri`, with TLS where it says so. `protocols`: those that TLS offers to the server.
    pub(super) async fn connect(
        &self,
        url: &str,
        uri: &Uri,
        within: Duration,
        protocols: &[&[u8]],
    ) -> Result<Box<dyn ByteStream>, PeerError> {
        let fault = |why| unusable(url, why);
        let host = uri.host().ok_or_else(|| fault("it names no host"))?.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(fault("it is neither http nor https")),
        };
        let tls =
            if secure {
                Some(self.tls().ok_or_else(|| {
                    fault("TLS is not set up here: name a file of authorities in `ctl.cacert`")
                })?)
            } else {
                None
            };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let failed = |source| PeerError::Connect { url: url.to_owned(), source };
        let stream =
            tokio::time::timeout(CONNECT_WITHIN.min(within), TcpStream::connect((host.as_str(), port)))
                .await
                .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
                .map_err(failed)?;
        let Some(mut tls) = tls else {
            return Ok(Box::new(stream));
        };
        if !protocols.is_empty() {
            Arc::make_mut(&mut tls).alpn_protocols =
                protocols.iter().map(|protocol| protocol.to_vec()).collect();
        }
        let name = ServerName::try_from(host).map_err(|_| fault("its host cannot be verified"))?;
        Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await.map_err(failed)?))
    }
}

/// A connection, with TLS or without.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

fn unusable(url: &str, why: &'static str) -> PeerError {
    PeerError::Url { url: url.to_owned(), why }
}

pub(super) fn parsed(url: &str) -> Result<Uri, PeerError> {
    url.parse().map_err(|_| unusable(url, "it is no URL"))
}

fn request(call: &Call, uri: &Uri) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let method = Method::from_bytes(call.method.as_bytes())?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close");
    if let Some((user, password)) = &call.credentials {
        request =
            request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    }
    match &call.body {
        Some(body) => {
            request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body.to_string())))
        }
        None => request.body(Full::default()),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    url: &str,
) -> Result<(u16, String), PeerError> {
    let broken =
        |source: Box<dyn std::error::Error + Send + Sync>| PeerError::Broken { url: url.to_owned(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.into()))?;
    let conversation = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    // Both in this task: nothing remains when the caller stops waiting.
    let mut conversation = std::pin::pin!(conversation);
    tokio::select! {
        biased;
        outcome = &mut conversation => outcome,
        _ = connection => conversation.await,
    }
}

/// The URL of `endpoint` (such as `/switchover`) at the host of a member's `api_url`, which ends in `/patroni`.
pub fn endpoint_url(api_url: &str, endpoint: &str) -> String {
    let (scheme, rest) = api_url.split_once("://").unwrap_or(("http", api_url));
    let host = rest.split('/').next().unwrap_or(rest);
    format!("{scheme}://{host}{endpoint}")
}

#[cfg(test)]
mod tests;
