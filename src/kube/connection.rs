//! Requests to the API server over connections that are kept.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{AsyncBufReadExt, Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::{Method, Request, Response, StatusCode, header};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Mutex;

use super::access::{Access, Authorization};
use super::failure::KubeFailure;
use crate::model::{Moment, PodFailure};
use crate::os::clock;

/// An API server in the same cluster accepts a connection within milliseconds.
const CONNECT_WITHIN: Duration = Duration::from_millis(900);
const AGENT: &str = concat!("matriarch/", env!("CARGO_PKG_VERSION"));

/// A kubelet replaces a token long before it expires.
const TOKEN_READ_EVERY: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Connection {
    client: legacy::Client<TimeoutConnector<HttpsConnector<HttpConnector>>, Full<Bytes>>,
    identity: Arc<CallerIdentity>,
}

struct CallerIdentity {
    server: String,
    authorization: Authorization,
    token: Mutex<Option<(Moment, String)>>,
    refused: AtomicBool,
}

/// One request, without what is sent with each.
pub(super) struct Call {
    pub(super) method: Method,
    /// With the query.
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Connection {
    /// Connects when something is sent.
    pub(super) fn new(access: Access) -> Connection {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let https = HttpsConnectorBuilder::new().with_tls_config(access.tls).https_or_http();
        let https = match access.server_name {
            Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
            None => https,
        };
        let mut connector = TimeoutConnector::new(https.enable_http1().wrap_connector(http));
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        let identity = CallerIdentity {
            server: access.server.to_string().trim_end_matches('/').to_owned(),
            authorization: access.authorization,
            token: Mutex::default(),
            refused: AtomicBool::new(false),
        };
        Connection {
            client: legacy::Client::builder(TokioExecutor::new()).build(connector),
            identity: Arc::new(identity),
        }
    }

    /// The server does not know this caller, or shows a certificate that this caller does not believe: what the
    /// connection was made from may be outdated.
    pub(super) fn was_refused(&self) -> bool {
        self.identity.refused.load(Ordering::Relaxed)
    }

    /// The answer's head has come, whatever it says.
    pub(super) async fn send(&self, call: Call) -> Result<Response<Incoming>, KubeFailure> {
        let unfit = |error: hyper::http::Error| KubeFailure::new(PodFailure::Other, error.to_string());
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.identity.server, call.path))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, AGENT);
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        if let Some(authorization) = self.authorization().await? {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::from(call.body)).map_err(unfit)?;
        let answer = self.client.request(request).await;
        let is_refused = match &answer {
            Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
            Err(error) => causes(error).any(is_untrusted),
        };
        self.identity.refused.fetch_or(is_refused, Ordering::Relaxed);
        answer.map_err(|error| KubeFailure::unreachable(&error))
    }

    async fn authorization(&self) -> Result<Option<String>, KubeFailure> {
        let path = match &self.identity.authorization {
            Authorization::None => return Ok(None),
            Authorization::Header(header) => return Ok(Some(header.clone())),
            Authorization::TokenFile(path) => path,
        };
        let mut kept = self.identity.token.lock().await;
        let now = clock::now();
        if let Some((read_at, token)) = &*kept
            && now < *read_at + TOKEN_READ_EVERY
        {
            return Ok(Some(token.clone()));
        }
        let unread =
            |error| KubeFailure::new(PodFailure::Unconfigured, format!("{}: {error}", path.display()));
        let token = format!("Bearer {}", tokio::fs::read_to_string(path).await.map_err(unread)?.trim());
        *kept = Some((now, token.clone()));
        Ok(Some(token))
    }
}

/// The whole body.
pub(super) async fn body(body: Incoming) -> Result<Bytes, KubeFailure> {
    Ok(body.collect().await.map_err(|error| KubeFailure::unreachable(&error))?.to_bytes())
}

/// The lines of a body, each when it has come. A body that breaks off is at its end: who watches begins again there.
pub(super) fn lines(body: Incoming) -> impl Stream<Item = Result<String, KubeFailure>> + Send {
    let lines = body.into_data_stream().map_err(io::Error::other).into_async_read().lines();
    let goes_on = |line: &io::Result<String>| match line {
        Ok(_) => true,
        Err(error) => !causes(error).any(breaks_off),
    };
    lines
        .take_while(move |line| std::future::ready(goes_on(line)))
        .map_err(|error| KubeFailure::unreachable(&error))
}

/// The error and all that it comes from: one that is wrapped by [`io::Error`] is not its source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as _),
            None => error.source(),
        }
    })
}

fn breaks_off(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}
