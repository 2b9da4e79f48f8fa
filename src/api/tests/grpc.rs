//! gRPC calls over the fake loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use matriarch_proto::Timestamp;
use matriarch_proto::v1::admin_client::AdminClient;
use matriarch_proto::v1::*;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::{Rig, name, primary, replica, rig, rig_with};
use crate::agent::HandOverStatus;
use crate::api::ApiSetup;
use crate::model::{
    self, Ask, FailoverKey, HandOverStep, LeaderKey, Reply, RestartFilter, RestartRefusal, Role, Term,
    WallTime,
};
use crate::os::clock;

async fn channel(rig: &Rig) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", rig.address)).expect("a URL");
    endpoint.connect().await.expect("it speaks gRPC")
}

async fn admin(rig: &Rig) -> AdminClient<Channel> {
    AdminClient::new(channel(rig).await)
}

#[tokio::test]
async fn reads_answer() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let status = admin.get_status(GetStatusRequest {}).await.expect("it answers").into_inner().status;
    assert_eq!(status.expect("always there").because, "all is well");
    let cluster = admin.list_members(ListMembersRequest {}).await.expect("it answers").into_inner().cluster;
    let members: Vec<_> = cluster.expect("always there").members.into_iter().map(|m| m.name).collect();
    assert_eq!(members, ["n1", "n2"]);
    let config = admin.get_config(GetConfigRequest {}).await.expect("it answers").into_inner().json;
    assert_eq!(config, r#"{"ttl":30,"postgresql":{}}"#);
    let history = admin.get_history(GetHistoryRequest {}).await.expect("it answers").into_inner().entries;
    assert_eq!((history.len(), history[0].leader.as_str()), (1, "n1"));
    rig.world().cluster = None;
    let refused = admin.list_members(ListMembersRequest {}).await.expect_err("etcd is away");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "not possible now: etcd: no endpoint answers")
    );
}

#[tokio::test]
async fn operations_are_rests() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let request = model::FailoverRequest {
        leader: Some(name("n1")),
        requested_by: Some("alice".to_owned()),
        ..Default::default()
    };
    rig.world().cluster.as_mut().expect("set").failover = Some(FailoverKey { request, mod_revision: 9 });
    let listed = admin.list_operations(ListOperationsRequest {}).await.expect("it answers").into_inner();
    assert_eq!(listed.operations.iter().map(|operation| operation.id).collect::<Vec<_>>(), [9]);
    let one = admin.get_operation(GetOperationRequest { id: 9 }).await.expect("it answers").into_inner();
    let one = one.operation.expect("always there");
    assert_eq!((one.state(), one.requested_by.as_str()), (OperationState::UnderWay, "alice"));
    let unknown = admin.get_operation(GetOperationRequest { id: 8 }).await.expect_err("there is none");
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "etcd knows no operation 8"));
}

#[tokio::test]
async fn a_check_is_rests() {
    let leader = rig(primary(clock::now())).await;
    leader.world().reply = Reply::CandidatesJudged { unfit: BTreeMap::new() };
    let check = CheckSwitchoverRequest::default();
    let found =
        admin(&leader).await.check_switchover(check.clone()).await.expect("it answers").into_inner().findings;
    assert_eq!((found[0].what.as_str(), found[0].member.as_str()), ("request", "n1"), "{found:?}");
    assert_ne!(found[0].verdict(), FindingVerdict::Unspecified);
    let standby = rig(replica(clock::now())).await;
    let refused = admin(&standby).await.check_switchover(check).await.expect_err("the leader answers");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[tokio::test]
async fn changes_are_rests() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let at = WallTime(4_000_000_000_000);
    let wanted = RestartRequest {
        scheduled_at: Some(Timestamp { seconds: at.0 / 1000, nanos: 0 }),
        role: "replica".to_owned(),
        below_version: "15.4".to_owned(),
        pending_only: true,
        timeout_ms: 1500,
    };
    let text = admin.restart(wanted).await.expect("the fake loop accepts all").into_inner().text;
    assert_eq!(text, "restarted successfully");
    let filter = RestartFilter {
        role: Some("replica".to_owned()),
        below_version: Some(150_004),
        pending_only: true,
        timeout_ms: Some(1500),
    };
    assert_eq!(rig.world().asked, [Ask::Restart { at: Some(at), filter }]);
    rig.world().reply = Reply::RestartRefused(RestartRefusal::NotRunning);
    let refused = admin.restart(RestartRequest::default()).await.expect_err("the loop refuses");
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "PostgreSQL is not running"));
    let wrong = RestartRequest { role: "king".to_owned(), ..RestartRequest::default() };
    let refused = admin.restart(wrong).await.expect_err("no such role");
    assert_eq!(refused.code(), Code::InvalidArgument);
    rig.world().reply = Reply::Reinitializing;
    let wanted = ReinitializeRequest { force: true, from_leader: false };
    assert!(admin.reinitialize(wanted).await.is_ok());
    assert_eq!(rig.world().asked.last(), Some(&Ask::Reinitialize { force: true, from_leader: false }));
    rig.world().reply = Reply::NotScheduled;
    let refused = admin.cancel_restart(CancelRestartRequest {}).await.expect_err("nothing is scheduled");
    assert_eq!(refused.code(), Code::NotFound);
    assert!(admin.reload(ReloadRequest {}).await.is_ok());
    assert_eq!(rig.world().reloads, 1);
}

#[tokio::test]
async fn the_configuration_is_patched_and_the_cluster_paused() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let config = || rig.world().cluster.as_ref().and_then(|view| view.config.clone()).expect("set").text;
    admin.pause(PauseRequest {}).await.expect("it is accepted");
    assert_eq!(config(), r#"{"ttl":30,"postgresql":{},"pause":true}"#);
    admin.resume(ResumeRequest {}).await.expect("it is accepted");
    assert_eq!(config(), r#"{"ttl":30,"postgresql":{}}"#);
    let patch = |json: &str| PatchConfigRequest { json: json.to_owned() };
    let written =
        admin.patch_config(patch(r#"{"ttl": 40, "tll": 1}"#)).await.expect("it is accepted").into_inner();
    assert_eq!(written.json, r#"{"ttl":40,"postgresql":{},"tll":1}"#);
    assert!(written.warnings.len() == 1 && written.warnings[0].contains("tll"), "{:?}", written.warnings);
    for wrong in ["", "[]", "{}", r#"{"ttl": "soon"}"#] {
        let refused = admin.patch_config(patch(wrong)).await.expect_err("it is wrong");
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}");
    }
}

/// What REST demands of changes, in the metadata.
#[tokio::test]
async fn changes_need_credentials_and_reads_do_not() {
    let credentials = Some(("admin".to_owned(), "s3cret".to_owned()));
    let rig = rig_with(primary(clock::now()), ApiSetup { credentials, ..ApiSetup::default() }).await;
    let mut admin = admin(&rig).await;
    assert!(admin.get_status(GetStatusRequest {}).await.is_ok());
    let with = |password: Option<&str>| {
        let mut request = Request::new(ReloadRequest {});
        if let Some(password) = password {
            let token = base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}"));
            request.metadata_mut().insert("authorization", format!("Basic {token}").parse().expect("ASCII"));
        }
        request
    };
    for (password, expected) in [(None, "no auth header received"), (Some("guess"), "not authenticated")] {
        let refused = admin.reload(with(password)).await.expect_err("it is not admitted");
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, expected));
    }
    let mut refused = admin.switchover(SwitchoverRequest::default()).await;
    assert_eq!(refused.as_mut().map(|_| ()).expect_err("it is not admitted").code(), Code::Unauthenticated);
    assert_eq!(rig.world().reloads, 0);
    assert!(admin.reload(with(Some("s3cret"))).await.is_ok());
    assert_eq!(rig.world().reloads, 1);
}

#[tokio::test]
async fn a_list_that_leaves_out_the_caller_refuses_changes() {
    let setup = ApiSetup { allowlist: vec!["192.0.2.0/24".to_owned()], ..ApiSetup::default() };
    let rig = rig_with(primary(clock::now()), setup).await;
    let mut admin = admin(&rig).await;
    let refused = admin.pause(PauseRequest {}).await.expect_err("it is not on the list");
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "Access is denied"));
}

#[tokio::test]
async fn a_switchover_reports_its_phases() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let wanted = SwitchoverRequest { leader: "n1".to_owned(), ..SwitchoverRequest::default() };
    let mut phases = admin.switchover(wanted).await.expect("it begins").into_inner();
    let mut next = async || {
        let message = phases.message().await.expect("no failure").expect("it goes on");
        message.progress.expect("always there").phase()
    };
    assert_eq!(next().await, LeadershipPhase::Checking);
    assert_eq!(next().await, LeadershipPhase::Requested);
    let n2 = Some(name("n2"));
    for (step, phase) in [
        (HandOverStep::Choosing, LeadershipPhase::Choosing),
        (HandOverStep::Stopping { to: n2.clone() }, LeadershipPhase::Stopping),
        (HandOverStep::Moving { to: n2.clone() }, LeadershipPhase::Moving),
    ] {
        rig.status.send_modify(|status| {
            Arc::make_mut(status).hand_over = Some(HandOverStatus::UnderWay(step));
        });
        assert_eq!(next().await, phase);
    }
    let lead = |role: Role| {
        rig.status.send_modify(|status| {
            let view = Arc::make_mut(Arc::make_mut(status).view.as_mut().expect("set"));
            view.leader = Some(LeaderKey { name: name("n2"), lease: None, term: Term(8) });
            view.members.get_mut(&name("n2")).expect("a member").record.role = role;
        });
    };
    lead(Role::Replica);
    assert_eq!(next().await, LeadershipPhase::LeaderChanged);
    lead(Role::Primary);
    assert_eq!(next().await, LeadershipPhase::Promoted);
    assert_eq!(phases.message().await.expect("no failure"), None);
}

#[tokio::test]
async fn a_switchover_that_is_refused_or_fails_ends_with_its_reason() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    for (leader, code, text) in [
        ("", Code::InvalidArgument, "Switchover could be performed only from a specific leader"),
        ("n2", Code::FailedPrecondition, "leader name does not match"),
    ] {
        let wanted = SwitchoverRequest { leader: leader.to_owned(), ..SwitchoverRequest::default() };
        let mut phases = admin.switchover(wanted).await.expect("it begins").into_inner();
        assert!(phases.message().await.is_ok_and(|first| first.is_some()));
        let refused = phases.message().await.expect_err("it is refused");
        assert_eq!((refused.code(), refused.message()), (code, text));
    }
    assert!(rig.world().failover.is_empty(), "nothing was written");
    let mut phases = admin
        .failover(FailoverRequest { candidate: "n2".to_owned(), ..FailoverRequest::default() })
        .await
        .expect("it begins")
        .into_inner();
    assert!(phases.message().await.is_ok() && phases.message().await.is_ok());
    rig.world().cluster.as_mut().expect("set").failover = None;
    let failed = phases.message().await.expect_err("the leader cleared the request");
    assert_eq!((failed.code(), failed.message()), (Code::Aborted, "Failover failed: all is well"));
    let later = SwitchoverRequest {
        leader: "n1".to_owned(),
        scheduled_at: Some(Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        ..SwitchoverRequest::default()
    };
    let mut phases = admin.switchover(later).await.expect("it begins").into_inner();
    assert!(phases.message().await.is_ok());
    let last = phases.message().await.expect("no failure").expect("it goes on").progress.expect("there");
    assert_eq!((last.phase(), last.text.as_str()), (LeadershipPhase::Scheduled, "Switchover scheduled"));
    assert_eq!(
        admin.cancel_switchover(CancelSwitchoverRequest {}).await.expect("it is").into_inner().text,
        "scheduled switchover deleted"
    );
}

/// A message at once, then only with a change; nothing of a loop that has ended.
#[tokio::test]
async fn a_watched_status_changes_with_the_member() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let mut watched =
        admin.watch_status(WatchStatusRequest { interval_min_ms: 1 }).await.expect("it begins").into_inner();
    let mut next = async || watched.message().await.map(|message| message?.status);
    let first = next().await.expect("no failure").expect("always there");
    assert!(first.primary && !first.paused);
    // Without any other change its proof becomes too old.
    let later = next().await.expect("no failure").expect("always there");
    assert!(!later.primary, "{later:?}");
    rig.status.send_modify(|status| Arc::make_mut(status).settings.pause = true);
    let paused = next().await.expect("no failure").expect("always there");
    assert!(paused.paused, "{paused:?}");
}

#[tokio::test]
async fn health_checks_answer_and_are_watched() {
    let rig = rig(primary(clock::now())).await;
    let mut health = HealthClient::new(channel(&rig).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let status = |answer: tonic_health::pb::HealthCheckResponse| answer.status();
    let checked = health.check(ask("primary")).await.expect("it answers").into_inner();
    assert_eq!(status(checked), ServingStatus::Serving);
    let checked = health.check(ask("replica")).await.expect("it answers").into_inner();
    assert_eq!(status(checked), ServingStatus::NotServing);
    assert_eq!(health.check(ask("tea")).await.expect_err("none of it").code(), Code::NotFound);
    let long = "x".repeat(5_000);
    assert_eq!(health.check(ask(&long)).await.expect_err("too long").code(), Code::InvalidArgument);
    let mut watched = health.watch(ask("primary")).await.expect("it begins").into_inner();
    for expected in [ServingStatus::Serving, ServingStatus::NotServing] {
        let message = tokio::time::timeout(Duration::from_secs(20), watched.message()).await;
        let message = message.expect("soon").expect("no failure").expect("it goes on");
        assert_eq!(status(message), expected);
    }
}

/// Streams that nobody ends have places of their own, which a caller gives back by going away.
#[tokio::test]
async fn watchers_are_limited_and_leave_room_for_others() {
    let rig = rig(primary(clock::now())).await;
    let mut admin = admin(&rig).await;
    let watch = WatchStatusRequest::default();
    let mut watchers = Vec::new();
    let refused = loop {
        match admin.watch_status(watch).await {
            Ok(watcher) => watchers.push(watcher),
            Err(refused) => break refused,
        }
        assert!(watchers.len() <= 32);
    };
    let text = "not possible now: too many streams at once, try again";
    assert_eq!((refused.code(), refused.message(), watchers.len()), (Code::ResourceExhausted, text, 32));
    assert!(admin.list_members(ListMembersRequest {}).await.is_ok());
    drop(watchers);
    let again = async { while admin.watch_status(watch).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("the places are free again");
}

/// The newer reflection, which grpcurl asks first.
#[tokio::test]
async fn every_service_and_its_file_is_found_by_reflection() {
    let rig = rig(primary(clock::now())).await;
    let mut reflection = ServerReflectionClient::new(channel(&rig).await);
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("matriarch.v1.Admin".to_owned()),
        MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned()),
    ];
    let questions = futures::stream::iter(questions.map(ask));
    let mut answers = reflection.server_reflection_info(questions).await.expect("it answers").into_inner();
    let mut next = async || {
        let answer = answers.message().await.expect("no failure").expect("it goes on");
        answer.message_response.expect("always there")
    };
    let MessageResponse::ListServicesResponse(listed) = next().await else { panic!("another answer") };
    let names: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"matriarch.v1.Admin") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    for _ in 0..2 {
        let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("another answer") };
        assert_eq!(file.file_descriptor_proto.len(), 1);
    }
}
