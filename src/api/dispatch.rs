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
use hyper::{HeaderMap, Method, Request};
use serde_json::{Map, Value};

use super::answer::HttpAnswer;
use super::query::Query;
use super::request_limits::{RequestClass, RequestLimits};
use super::{ApiSetup, access, cluster, config, failsafe, metrics, operate, probes, switchover, wire};
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
const BODY_BYTES_MAX: usize = 1 << 20;
/// The limit for a client to send its body.
const BODY_WITHIN: Duration = Duration::from_secs(10);

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

/// All routes, over one handle to the loop.
pub(super) struct Routes {
    handle: Handle,
    /// The body of health checks, with the status that it was written from.
    body: Mutex<Option<(Arc<Status>, Bytes)>>,
    request_limits: RequestLimits,
}

impl Routes {
    pub(super) fn new(handle: Handle) -> Routes {
        Routes { handle, body: Mutex::default(), request_limits: RequestLimits::new() }
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
            Method::GET => match RequestClass::of_read(&first, caller) {
                None => self.at_once(&first, &path, &query),
                Some(class) => match self.request_limits.take(class) {
                    // Boxed, as every rare and large future here: it would be moved with each health check.
                    Some(_place) => Box::pin(self.patiently(self.get(&first))).await,
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

    /// 503 when the loop does not answer at all. The loop has its own deadline for etcd, `retry_timeout`, for each of
    /// the at most two operations of a request.
    async fn patiently(&self, answer: impl Future<Output = HttpAnswer>) -> HttpAnswer {
        let patience = self.handle.status().settings.retry_timeout * 2 + BODY_WITHIN;
        let stuck = |_| HttpAnswer::text(503, "not possible now: the supervisor's loop does not answer");
        tokio::time::timeout(patience, answer).await.unwrap_or_else(stuck)
    }

    /// Answers from the published status alone.
    fn at_once(&self, first: &str, path: &str, query: &Query) -> HttpAnswer {
        let (status, now) = (self.handle.status(), clock::now());
        match first {
            "liveness" => HttpAnswer::bare(probes::liveness(&status, now)),
            "startup" => HttpAnswer::bare(probes::startup(&status, now)),
            "readiness" => HttpAnswer::bare(probes::readiness(&status, query, now)),
            "failsafe" => failsafe::get(&status),
            "metrics" => HttpAnswer::metrics(metrics::text(&status, now)),
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

    async fn get(&self, first: &str) -> HttpAnswer {
        match first {
            "cluster" => cluster::cluster(&self.handle).await,
            "history" => cluster::history(&self.handle).await,
            "config" => config::get(&self.handle).await,
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
        let status = self.handle.status();
        let credentials = access::RequestCredentials {
            caller,
            authorization: head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()),
            members_welcome: route != MutatingRoute::Failsafe,
            is_passed_on: access::is_passed_on(&head.headers),
        };
        let place = |class| self.request_limits.take(class).ok_or_else(|| HttpAnswer::too_many(class));
        if caller.is_local || caller.is_member {
            access::check(setup, &credentials, status.last_view.as_deref()).await?;
        } else {
            // A lookup of names may be necessary: requests from elsewhere wait for it in a class of their own.
            let _place = place(RequestClass::Access)?;
            access::check(setup, &credentials, status.last_view.as_deref()).await?;
        }
        let _place = place(route.class())?;
        let handle = &self.handle;
        match route {
            MutatingRoute::PatchConfig => {
                config::patch(handle, setup.parameter_check.as_ref(), required(&head.headers, body).await?)
                    .await
            }
            MutatingRoute::PutConfig => {
                config::put(handle, setup.parameter_check.as_ref(), required(&head.headers, body).await?)
                    .await
            }
            MutatingRoute::Restart => operate::restart(handle, optional(body).await?).await,
            MutatingRoute::CancelRestart => Ok(operate::cancel_restart(handle).await),
            MutatingRoute::Reload => operate::reload(handle).await,
            MutatingRoute::Reinitialize => operate::reinitialize(handle, optional(body).await?).await,
            MutatingRoute::Switchover => {
                let body = required(&head.headers, body).await?;
                switchover::request(handle, switchover::LeadershipRequest::Switchover, &body).await
            }
            MutatingRoute::Failover => {
                let body = required(&head.headers, body).await?;
                switchover::request(handle, switchover::LeadershipRequest::Failover, &body).await
            }
            MutatingRoute::CancelSwitchover => switchover::cancel(handle).await,
            MutatingRoute::Failsafe => failsafe::post(handle, &required(&head.headers, body).await?).await,
        }
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
async fn required(headers: &HeaderMap, body: Incoming) -> Result<Map<String, Value>, HttpAnswer> {
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
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
