//! The dispatch of a request to its route, and the shared checks of all routes: freshness, access, bodies.
//!
//! A health check is answered at once, from the published status: it waits neither for PostgreSQL nor for etcd nor for
//! the loop. PostgreSQL is asked beside them, however many they are, and each check judges how old the answer is.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request, Version};
use serde_json::{Map, Value};
use tokio::runtime;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::HttpAnswer;
use super::query::Query;
use super::request_limits::{RequestClass, RequestLimits};
use super::sentences::answer_of;
use super::ui::UiFacts;
use super::{
    ApiSetup, access, cluster, config, failsafe, metrics, operate, operations, origin, preflight, probes,
    switchover, ui, wire,
};
use crate::agent::{Handle, Status};
use crate::model::json_spaced;
use crate::os::clock;

/// The interval between the queries of Postgres behind health checks. An answer may take as long as the rest of
/// [`PROOF_AGE_MAX`](super::PROOF_AGE_MAX) before a check finds the last one too old.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A query that was made for another reason and is no older than this counts as one.
const LOOK_AGE_MAX: Duration = Duration::from_millis(200);
/// The limit for a query that a member waits for.
const LOOK_WITHIN: Duration = Duration::from_millis(800);
/// More than any legitimate request: etcd refuses values beyond 1.5 MiB.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// The limit for a client to send its body.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The sender of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    /// Whether the connection never left this machine.
    pub(super) is_local: bool,
    /// Whether it came from the address of a member, as far as known.
    pub(super) is_member: bool,
    /// Whether it presented a certificate that TLS verified.
    pub(super) certified: bool,
}

impl Caller {
    /// The request with who asked in it: what the caller says of itself, and where it called from.
    pub(super) fn signed(self, mut body: Map<String, Value>, way: &str) -> Map<String, Value> {
        let from = format!("{way} from {}", self.address);
        let by = match body.get("requested_by").and_then(Value::as_str) {
            Some(who) => format!("{who}, {from}"),
            None => from,
        };
        body.insert("requested_by".to_owned(), by.into());
        body
    }
}

/// All routes, over one handle to the loop.
pub(super) struct Routes {
    pub(super) handle: Handle,
    /// Where gRPC calls run.
    pub(super) calls: runtime::Handle,
    /// The body of health checks, with the status that it was written from.
    body: Mutex<Option<(Arc<Status>, Bytes)>>,
    /// What the web page shows.
    pub(super) ui: Arc<UiFacts>,
    request_limits: RequestLimits,
}

impl Routes {
    pub(super) fn new(handle: Handle, calls: runtime::Handle) -> Routes {
        let ui = Arc::new(UiFacts::new(handle.clone()));
        Routes { handle, calls, body: Mutex::default(), ui, request_limits: RequestLimits::new() }
    }

    /// Answers any request. Never fails: every failure is an answer.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        caller: Caller,
        setup: &ApiSetup,
    ) -> HttpAnswer {
        let path = format!("/{}", request.uri().path().trim_start_matches('/'));
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let first = path[1..].split('/').next().unwrap_or_default().to_owned();
        match *request.method() {
            Method::GET if first == "ui" => Box::pin(self.patiently(ui::get(self, &path, setup))).await,
            Method::POST if first == "ui" => Box::pin(ui::post(self, &path, request, caller, setup)).await,
            Method::GET => match RequestClass::of_read(&path, caller) {
                None => self.at_once(&first, &path, &query),
                Some(class) => match self.request_limits.take(class) {
                    // Boxed, as every rare and large future here: it would be moved with each health check.
                    Some(_place) => Box::pin(self.patiently(self.get(&first, &path, &query))).await,
                    None => HttpAnswer::too_many(class),
                },
            },
            Method::HEAD | Method::OPTIONS => {
                HttpAnswer::bare(probes::health(&self.handle.status(), &path, &query, clock::now()))
            }
            _ => match MutatingRoute::named(request.method(), &first) {
                Some(route) => {
                    let act = Box::pin(self.act(route, request, caller, setup));
                    let act = async { act.await.unwrap_or_else(|refusal| refusal) };
                    if route.has_own_deadlines() { act.await } else { self.patiently(act).await }
                }
                None => HttpAnswer::unsupported(request.method().as_str()),
            },
        }
    }

    /// The answer, or that the loop does not answer at all.
    pub(super) async fn patiently(&self, answer: impl Future<Output = HttpAnswer>) -> HttpAnswer {
        tokio::time::timeout(self.patience(), answer).await.unwrap_or_else(|_| HttpAnswer::stuck())
    }

    /// How long a request may take until the loop counts as one that does not answer at all. The loop has its own
    /// deadline for etcd, `retry_timeout`, for each of the at most two operations of a request.
    pub(super) fn patience(&self) -> Duration {
        self.handle.status().settings.retry_timeout * 2 + BODY_WITHIN
    }

    /// Answers from the published status alone.
    fn at_once(&self, first: &str, path: &str, query: &Query) -> HttpAnswer {
        let (status, now) = (self.handle.status(), clock::now());
        match first {
            "liveness" => HttpAnswer::bare(probes::liveness(&status, now)),
            "startup" => HttpAnswer::bare(probes::startup(&status, now)),
            "readiness" => HttpAnswer::bare(probes::readiness(&status, query, now)),
            "failsafe" => failsafe::get(&status),
            "metrics" => HttpAnswer::metrics(metrics::text(&status, &self.handle.channel().facts(now), now)),
            _ => HttpAnswer::written_json(probes::health(&status, path, query, now), self.body(&status)),
        }
    }

    /// The body of a health check. It depends on the status alone, so each status is written once.
    fn body(&self, status: &Arc<Status>) -> Bytes {
        let mut written = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        match &*written {
            Some((of, body)) if Arc::ptr_eq(of, status) => body.clone(),
            Some(_) | None => {
                let body = Bytes::from(json_spaced(&wire::patroni_body(status)));
                *written = Some((status.clone(), body.clone()));
                body
            }
        }
    }

    async fn get(&self, first: &str, path: &str, query: &Query) -> HttpAnswer {
        match first {
            "cluster" => cluster::cluster(&self.handle).await,
            "history" => cluster::history(&self.handle).await,
            "operations" => operations::get(&self.handle, path).await,
            "preflight" => preflight::facts(&self.handle).await,
            "switchover" => preflight::check(&self.handle, query).await,
            "config" => match config::get(&self.handle).await {
                Ok(config) => HttpAnswer::json(200, &Value::Object(config)),
                Err(refusal) => refusal,
            },
            _patroni => HttpAnswer::json(200, &self.patroni_body().await),
        }
    }

    /// Has Postgres queried again and again, for the health checks, for as long as it is polled.
    pub(super) async fn keep_looking(&self) {
        loop {
            // Without an answer the status shows its age.
            self.handle.look(LOOK_AGE_MAX).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The body after a query that begins now: members choose a leader by it. If that takes too long, the last facts
    /// are returned, with the position marked as not exact.
    async fn patroni_body(&self) -> Value {
        let looked = tokio::time::timeout(LOOK_WITHIN, self.handle.look(Duration::ZERO)).await;
        let mut body = wire::patroni_body(&self.handle.status());
        if let Some(exact) = body.get_mut("position_is_exact").filter(|_| looked != Ok(true)) {
            *exact = false.into();
        }
        body
    }

    async fn act(
        &self,
        route: MutatingRoute,
        request: Request<Incoming>,
        caller: Caller,
        setup: &ApiSetup,
    ) -> Result<HttpAnswer, HttpAnswer> {
        let (head, body) = request.into_parts();
        self.admit(&head, caller, setup, route != MutatingRoute::Failsafe).await?;
        let _place = self.place(route.class())?;
        let handle = &self.handle;
        match route {
            MutatingRoute::PatchConfig => {
                let body = required(&head, body).await?;
                Ok(config::patch(handle, setup.parameter_check.as_ref(), body).await?.answer())
            }
            MutatingRoute::PutConfig => {
                let body = required(&head, body).await?;
                Ok(config::put(handle, setup.parameter_check.as_ref(), body).await?.answer())
            }
            MutatingRoute::Restart => Ok(answer_of(&operate::restart(handle, &optional(body).await?).await?)),
            MutatingRoute::CancelRestart => Ok(answer_of(&operate::cancel_restart(handle).await)),
            MutatingRoute::Reload => operate::reload(handle).await,
            MutatingRoute::Reinitialize => {
                Ok(answer_of(&operate::reinitialize(handle, &optional(body).await?).await))
            }
            MutatingRoute::Switchover => {
                let body = caller.signed(required(&head, body).await?, "REST");
                switchover::request(handle, switchover::LeadershipRequest::Switchover, &body).await
            }
            MutatingRoute::Failover => {
                let body = caller.signed(required(&head, body).await?, "REST");
                switchover::request(handle, switchover::LeadershipRequest::Failover, &body).await
            }
            MutatingRoute::CancelSwitchover => switchover::cancel(handle).await,
            MutatingRoute::Failsafe => failsafe::post(handle, &required(&head, body).await?).await,
        }
    }
}

impl Routes {
    /// Whether the caller may change something. `members_welcome`: also as a member, by its address.
    pub(super) async fn admit(
        &self,
        head: &Parts,
        caller: Caller,
        setup: &ApiSetup,
        members_welcome: bool,
    ) -> Result<(), HttpAnswer> {
        origin::check(head)?;
        let (status, headers) = (self.handle.status(), &head.headers);
        if setup.names_nobody() && !setup.allow_unauthenticated_writes {
            origin::check_name(head, status.last_view.as_deref())?;
        }
        let credentials = access::RequestCredentials {
            caller,
            authorization: headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()),
            members_welcome,
            is_passed_on: access::is_passed_on(headers),
        };
        // A lookup of names may be necessary: requests from elsewhere wait for it in a class of their own.
        let near = caller.is_local || caller.is_member;
        let _place = if near { None } else { Some(self.place(RequestClass::Access)?) };
        access::check(setup, &credentials, status.last_view.as_deref()).await
    }

    /// A place for one request of this class.
    pub(super) fn place(&self, class: RequestClass) -> Result<OwnedSemaphorePermit, HttpAnswer> {
        self.request_limits.take(class).ok_or_else(|| HttpAnswer::too_many(class))
    }
}

/// A request that makes a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MutatingRoute {
    PatchConfig,
    PutConfig,
    Restart,
    CancelRestart,
    Reload,
    Reinitialize,
    Switchover,
    CancelSwitchover,
    Failover,
    Failsafe,
}

impl MutatingRoute {
    /// Answered when it is done, with deadlines of its own.
    fn has_own_deadlines(self) -> bool {
        matches!(self, MutatingRoute::Restart | MutatingRoute::Switchover | MutatingRoute::Failover)
    }

    fn class(self) -> RequestClass {
        if self == MutatingRoute::Failsafe { RequestClass::Promise } else { RequestClass::Change }
    }

    fn named(method: &Method, first: &str) -> Option<MutatingRoute> {
        match (method.as_str(), first) {
            ("PATCH", "config") => Some(MutatingRoute::PatchConfig),
            ("PUT", "config") => Some(MutatingRoute::PutConfig),
            ("POST", "restart") => Some(MutatingRoute::Restart),
            ("DELETE", "restart") => Some(MutatingRoute::CancelRestart),
            ("POST", "reload") => Some(MutatingRoute::Reload),
            ("POST", "reinitialize") => Some(MutatingRoute::Reinitialize),
            ("POST", "switchover") => Some(MutatingRoute::Switchover),
            ("DELETE", "switchover") => Some(MutatingRoute::CancelSwitchover),
            ("POST", "failover") => Some(MutatingRoute::Failover),
            ("POST", "failsafe") => Some(MutatingRoute::Failsafe),
            _ => None,
        }
    }
}

/// A JSON object that is not empty.
async fn required(head: &Parts, body: Incoming) -> Result<Map<String, Value>, HttpAnswer> {
    // With HTTP/2 the frames tell the length.
    let length = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| head.headers.contains_key(name));
    if !length && head.version < Version::HTTP_2 {
        return Err(HttpAnswer::page(411, "Length Required", "Client must specify Content-Length"));
    }
    match object(&read(body).await?) {
        Some(object) if !object.is_empty() => Ok(object),
        Some(_) | None => Err(bad_request()),
    }
}

/// A JSON object; an empty one when there is no body.
async fn optional(body: Incoming) -> Result<Map<String, Value>, HttpAnswer> {
    let bytes = read(body).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    object(&bytes).ok_or_else(bad_request)
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(bytes).ok()
}

async fn read(body: Incoming) -> Result<Bytes, HttpAnswer> {
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) | Err(_) => Err(bad_request()),
    }
}

fn bad_request() -> HttpAnswer {
    HttpAnswer::page(400, "Bad Request", "Bad request syntax or unsupported method")
}
