//! `matriarch.v1.Admin`: each method is a request of REST in other words.

use std::sync::Arc;

use matriarch_proto::Timestamp;
use matriarch_proto::v1::admin_server::Admin;
use matriarch_proto::v1::*;
use serde_json::{Map, Value, json};
use tonic::{Request, Response, Status};

use super::progress::{self, ProgressReport};
use super::stream::{Messages, stream};
use super::{Admission, messages, operations, refusal, watching};
use crate::agent::{Handle, OrderError};
use crate::api::answer::HttpAnswer;
use crate::api::config::WrittenConfig;
use crate::api::switchover::LeadershipRequest;
use crate::api::{cluster, config, operate, operations as rest_operations, preflight, switchover};
use crate::model::MemberName;
use crate::os::clock;

/// The service of one call, over the loop.
pub(super) struct AdminService {
    pub(super) handle: Handle,
}

impl AdminService {
    async fn patch(
        &self,
        admission: &Admission,
        change: Map<String, Value>,
    ) -> Result<WrittenConfig, Status> {
        let check = admission.setup.parameter_check.as_ref();
        config::patch(&self.handle, check, change).await.map_err(|why| refusal::status(&why))
    }

    /// A change of leadership, as a stream of its phases.
    fn change<T: Send + 'static>(
        &self,
        admission: Arc<Admission>,
        kind: LeadershipRequest,
        body: Map<String, Value>,
        message: fn(LeadershipProgress) -> T,
    ) -> Response<Messages<T>> {
        let handle = self.handle.clone();
        let body = admission.caller.signed(body, "gRPC");
        stream(async move |sender| {
            let _admission = admission;
            progress::change(&handle, kind, &body, &ProgressReport::new(sender, message)).await;
        })
    }
}

/// What the call holds.
pub(super) fn admission<T>(request: &mut Request<T>) -> Result<Arc<Admission>, Status> {
    let found = request.extensions_mut().remove::<Arc<Admission>>();
    found.ok_or_else(|| Status::internal("the call was not admitted"))
}

fn unavailable(error: &OrderError) -> Status {
    refusal::status(&HttpAnswer::unavailable(error))
}

fn sentence(answer: Result<HttpAnswer, HttpAnswer>) -> Result<String, Status> {
    answer.map(|answer| refusal::sentence(&answer)).map_err(|why| refusal::status(&why))
}

/// The body of REST with these members, without those that are absent.
fn body<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn time(at: Option<&Timestamp>) -> Option<Value> {
    at.map(|at| messages::text_of(at).into())
}

fn json_text(config: Map<String, Value>) -> String {
    Value::Object(config).to_string()
}

#[tonic::async_trait]
impl Admin for AdminService {
    type WatchStatusStream = Messages<WatchStatusResponse>;
    type SwitchoverStream = Messages<SwitchoverResponse>;
    type FailoverStream = Messages<FailoverResponse>;

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let status = messages::status(&self.handle.status(), clock::now());
        Ok(Response::new(GetStatusResponse { status: Some(status) }))
    }

    async fn watch_status(
        &self,
        mut request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (admission, handle) = (admission(&mut request)?, self.handle.clone());
        let interval_min_ms = request.into_inner().interval_min_ms;
        Ok(stream(async move |sender| {
            let _admission = admission;
            watching::watch(handle, interval_min_ms, &sender).await;
        }))
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let view = self.handle.read_cluster().await.map_err(|error| unavailable(&error))?;
        let cluster = messages::cluster(&self.handle.status().scope, &view);
        Ok(Response::new(ListMembersResponse { cluster: Some(cluster) }))
    }

    async fn switchover(
        &self,
        mut request: Request<SwitchoverRequest>,
    ) -> Result<Response<Self::SwitchoverStream>, Status> {
        let admission = admission(&mut request)?;
        let wanted = request.into_inner();
        let body = body([
            ("leader", Some(wanted.leader.into())),
            ("candidate", Some(wanted.candidate.into())),
            ("scheduled_at", time(wanted.scheduled_at.as_ref())),
            ("confirm_down", Some(wanted.confirm_down.into())),
        ]);
        let message = |progress| SwitchoverResponse { progress: Some(progress) };
        Ok(self.change(admission, LeadershipRequest::Switchover, body, message))
    }

    async fn failover(
        &self,
        mut request: Request<FailoverRequest>,
    ) -> Result<Response<Self::FailoverStream>, Status> {
        let admission = admission(&mut request)?;
        let wanted = request.into_inner();
        let body = body([
            ("candidate", Some(wanted.candidate.into())),
            ("confirm_down", Some(wanted.confirm_down.into())),
            ("rebuild", Some(wanted.rebuild.into())),
        ]);
        let message = |progress| FailoverResponse { progress: Some(progress) };
        Ok(self.change(admission, LeadershipRequest::Failover, body, message))
    }

    async fn check_switchover(
        &self,
        request: Request<CheckSwitchoverRequest>,
    ) -> Result<Response<CheckSwitchoverResponse>, Status> {
        let candidate = Some(request.into_inner().candidate).filter(|name| !name.is_empty());
        let candidate = candidate.map(MemberName::new).transpose();
        let candidate = candidate.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found =
            preflight::findings(&self.handle, candidate).await.map_err(|why| refusal::status(&why))?;
        Ok(Response::new(CheckSwitchoverResponse {
            findings: found.iter().map(operations::finding).collect(),
        }))
    }

    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let bodies = rest_operations::listed(&self.handle).await.map_err(|why| refusal::status(&why))?;
        Ok(Response::new(ListOperationsResponse {
            operations: bodies.iter().map(operations::operation).collect(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        let body = rest_operations::one(&self.handle, request.into_inner().id).await;
        let body = body.map_err(|why| refusal::status(&why))?;
        Ok(Response::new(GetOperationResponse { operation: Some(operations::operation(&body)) }))
    }

    async fn cancel_switchover(
        &self,
        _: Request<CancelSwitchoverRequest>,
    ) -> Result<Response<CancelSwitchoverResponse>, Status> {
        let text = sentence(switchover::cancel(&self.handle).await)?;
        Ok(Response::new(CancelSwitchoverResponse { text }))
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Result<Response<RestartResponse>, Status> {
        let wanted = request.into_inner();
        let given = |text: String| (!text.is_empty()).then(|| text.into());
        let body = body([
            ("schedule", time(wanted.scheduled_at.as_ref())),
            ("role", given(wanted.role)),
            ("postgres_version", given(wanted.below_version)),
            ("restart_pending", wanted.pending_only.then(|| true.into())),
            ("timeout", (wanted.timeout_ms > 0).then(|| format!("{}ms", wanted.timeout_ms).into())),
        ]);
        let reply = operate::restart(&self.handle, &body).await.map_err(|why| refusal::status(&why))?;
        Ok(Response::new(RestartResponse { text: refusal::outcome(&reply)? }))
    }

    async fn cancel_restart(
        &self,
        _: Request<CancelRestartRequest>,
    ) -> Result<Response<CancelRestartResponse>, Status> {
        let text = refusal::outcome(&operate::cancel_restart(&self.handle).await)?;
        Ok(Response::new(CancelRestartResponse { text }))
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Result<Response<ReloadResponse>, Status> {
        let text = sentence(operate::reload(&self.handle).await)?;
        Ok(Response::new(ReloadResponse { text }))
    }

    async fn reinitialize(
        &self,
        request: Request<ReinitializeRequest>,
    ) -> Result<Response<ReinitializeResponse>, Status> {
        let wanted = request.into_inner();
        let body =
            body([("force", Some(wanted.force.into())), ("from_leader", Some(wanted.from_leader.into()))]);
        let text = refusal::outcome(&operate::reinitialize(&self.handle, &body).await)?;
        Ok(Response::new(ReinitializeResponse { text }))
    }

    async fn pause(&self, mut request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let admission = admission(&mut request)?;
        self.patch(&admission, body([("pause", Some(json!(true)))])).await?;
        Ok(Response::new(PauseResponse {}))
    }

    async fn resume(&self, mut request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let admission = admission(&mut request)?;
        self.patch(&admission, body([("pause", Some(Value::Null))])).await?;
        Ok(Response::new(ResumeResponse {}))
    }

    async fn get_config(&self, _: Request<GetConfigRequest>) -> Result<Response<GetConfigResponse>, Status> {
        let config = config::get(&self.handle).await.map_err(|why| refusal::status(&why))?;
        Ok(Response::new(GetConfigResponse { json: json_text(config) }))
    }

    async fn patch_config(
        &self,
        mut request: Request<PatchConfigRequest>,
    ) -> Result<Response<PatchConfigResponse>, Status> {
        let admission = admission(&mut request)?;
        let change: Map<String, Value> = serde_json::from_str(&request.into_inner().json)
            .map_err(|error| Status::invalid_argument(format!("`json` is no JSON object: {error}")))?;
        if change.is_empty() {
            return Err(Status::invalid_argument("`json` is an empty object: it changes nothing"));
        }
        let WrittenConfig { config, warnings } = self.patch(&admission, change).await?;
        Ok(Response::new(PatchConfigResponse { json: json_text(config), warnings }))
    }

    async fn get_history(
        &self,
        _: Request<GetHistoryRequest>,
    ) -> Result<Response<GetHistoryResponse>, Status> {
        let view = cluster::newest(&self.handle).await.map_err(|error| unavailable(&error))?;
        let lines = view.history.as_deref().unwrap_or_default();
        let entries = lines.iter().map(messages::history_entry).collect();
        Ok(Response::new(GetHistoryResponse { entries }))
    }
}
