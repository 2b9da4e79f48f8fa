//! gRPC at the address of REST: `matriarch.v1.Admin`, `matriarch.v1.Peer`, health checking and reflection.
//!
//! ```text
//! answer ──► CallKind ──► access, as REST's ──► AdminService ──► operate, switchover, config ──► agent::Handle
//!                │                          └─► reflection           └─► messages: Status to protobuf, pure
//!                ├──────► HealthService ──► probes
//!                └──► a member's proof ──► PeerService ──► agent::PeerChannel
//! ```
//!
//! Requests become REST's bodies, and REST's refusals become status codes with the same sentences: nothing is decided
//! here. What is not in [`CallKind`] is not carried out.

mod admin;
mod health;
mod messages;
mod operations;
mod peer;
mod progress;
mod refusal;
mod stream;
mod watching;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use matriarch_proto::v1::admin_server::AdminServer;
use matriarch_proto::v1::peer_server::PeerServer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::body::Body as CallBody;
use tonic::codegen::Service;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder as Reflection;

use self::admin::AdminService;
use self::health::HealthService;
use self::peer::PeerService;
use super::ApiSetup;
use super::answer::HttpAnswer;
use super::dispatch::{BODY_BYTES_MAX, BODY_WITHIN, Caller, Routes};
use super::http2::UnderWay;
use super::request_limits::RequestClass;
use crate::agent::Handle;

/// More than the message of a call that is answered at once.
const SHORT_BYTES_MAX: usize = 4 << 10;
/// How long a client may go on asking for descriptors in one stream.
const REFLECTION_WITHIN: Duration = Duration::from_secs(60);

/// Whether the request is a call.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// The kinds of calls, by how they are admitted and carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallKind {
    /// Answered from the published status, as health checks are.
    AtOnce,
    /// A read of etcd.
    Read,
    /// A change.
    Change,
    /// A change that has deadlines of its own.
    LongChange,
    /// A stream that lasts for as long as the caller likes.
    Stream,
    /// A stream of requests for descriptors.
    Reflection,
    /// A stream for a member, whose first message waits for nothing.
    Heartbeats,
}

impl CallKind {
    fn of(path: &str) -> Option<CallKind> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        match (service, method) {
            ("matriarch.v1.Admin", "GetStatus")
            | ("matriarch.v1.Peer", "Hello")
            | ("grpc.health.v1.Health", "Check") => Some(CallKind::AtOnce),
            ("matriarch.v1.Peer", "Heartbeats") => Some(CallKind::Heartbeats),
            (
                "matriarch.v1.Admin",
                "ListMembers" | "GetConfig" | "GetHistory" | "CheckSwitchover" | "ListOperations"
                | "GetOperation",
            ) => Some(CallKind::Read),
            ("matriarch.v1.Admin", "Switchover" | "Failover" | "Restart") => Some(CallKind::LongChange),
            (
                "matriarch.v1.Admin",
                "CancelSwitchover" | "CancelRestart" | "Reload" | "Reinitialize" | "Pause" | "Resume"
                | "PatchConfig",
            ) => Some(CallKind::Change),
            ("matriarch.v1.Admin", "WatchStatus") | ("grpc.health.v1.Health", "Watch") => {
                Some(CallKind::Stream)
            }
            (
                "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection",
                "ServerReflectionInfo",
            ) => Some(CallKind::Reflection),
            _ => None,
        }
    }

    fn changes(self) -> bool {
        matches!(self, CallKind::Change | CallKind::LongChange)
    }

    fn class(self) -> Option<RequestClass> {
        match self {
            CallKind::AtOnce => None,
            CallKind::Read => Some(RequestClass::Read),
            CallKind::Change | CallKind::LongChange => Some(RequestClass::Change),
            CallKind::Stream | CallKind::Reflection => Some(RequestClass::Stream),
            CallKind::Heartbeats => Some(RequestClass::Heartbeats),
        }
    }

    /// Its message is short, and nothing in it waits: it is carried out where health checks are, whatever else goes on.
    fn is_quick(self) -> bool {
        matches!(self, CallKind::AtOnce | CallKind::Heartbeats)
    }
}

/// What a call holds until its end.
struct Admission {
    setup: Arc<ApiSetup>,
    caller: Caller,
    _place: Option<OwnedSemaphorePermit>,
    _under_way: UnderWay,
}

/// Answers a call. Never fails: every failure is a status.
pub(super) async fn answer(
    routes: Arc<Routes>,
    request: Request<Incoming>,
    caller: Caller,
    setup: Arc<ApiSetup>,
    under_way: UnderWay,
) -> Response<CallBody> {
    let answered = admitted(&routes, request, caller, setup, under_way).await;
    answered.unwrap_or_else(tonic::Status::into_http)
}

async fn admitted(
    routes: &Routes,
    request: Request<Incoming>,
    caller: Caller,
    setup: Arc<ApiSetup>,
    under_way: UnderWay,
) -> Result<Response<CallBody>, tonic::Status> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    let kind = CallKind::of(path)
        .ok_or_else(|| tonic::Status::unimplemented(format!("there is no method {path} here")))?;
    if kind.changes() {
        routes.admit(&head, caller, &setup, true).await.map_err(|why| refusal::status(&why))?;
    }
    // Such a call has no place yet, so its client must be able to hold nothing.
    let (short, under_way) = match kind.is_quick() {
        true => under_way.while_waiting(read(&mut body, SHORT_BYTES_MAX)).await,
        false => (Ok(Bytes::new()), under_way),
    };
    let short = short?;
    let session = match kind {
        CallKind::Heartbeats => Some(peer::admit(&routes.handle, &head, &short)?),
        _ => None,
    };
    let place = kind.class().map(|class| routes.place(class)).transpose();
    let place = place.map_err(|why| tonic::Status::resource_exhausted(refusal::sentence(&why)))?;
    let admission = Arc::new(Admission { setup, caller, _place: place, _under_way: under_way });
    let body = match kind {
        _ if kind.is_quick() => CallBody::new(Full::new(short)),
        CallKind::Reflection => {
            let ends = Box::pin(tokio::time::sleep(REFLECTION_WITHIN));
            CallBody::new(ReflectionRequests { body, ends, _admission: admission.clone() })
        }
        _ => CallBody::new(Full::new(read(&mut body, BODY_BYTES_MAX).await?)),
    };
    let mut request = Request::from_parts(head, body);
    request.extensions_mut().insert(admission);
    session.map(|session| request.extensions_mut().insert(session));
    let call = carry_out(routes.handle.clone(), request);
    let patience = routes.patience();
    let patient = async move {
        match kind {
            CallKind::Read | CallKind::Change => tokio::time::timeout(patience, call)
                .await
                .map_err(|_| tonic::Status::unavailable(refusal::sentence(&HttpAnswer::stuck()))),
            _ => Ok(call.await),
        }
    };
    match kind.is_quick() {
        true => patient.await,
        false => {
            let ended = routes.calls.spawn(patient).await;
            ended.unwrap_or_else(|error| Err(tonic::Status::internal(error.to_string())))
        }
    }
}

/// The whole message of a call that has one.
async fn read(body: &mut Incoming, bytes_max: usize) -> Result<Bytes, tonic::Status> {
    match tokio::time::timeout(BODY_WITHIN, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) | Err(_) => {
            Err(tonic::Status::invalid_argument("the request is too long, or did not arrive in time"))
        }
    }
}

async fn carry_out(handle: Handle, request: Request<CallBody>) -> Response<CallBody> {
    let path = request.uri().path();
    let answered = if path.starts_with("/matriarch.v1.Admin/") {
        AdminServer::new(AdminService { handle }).call(request).await
    } else if path.starts_with("/matriarch.v1.Peer/") {
        PeerServer::new(PeerService { handle }).call(request).await
    } else if path.starts_with("/grpc.health.v1.Health/") {
        HealthServer::new(HealthService { handle }).call(request).await
    } else {
        let newest = path.starts_with("/grpc.reflection.v1.");
        let described = Reflection::configure()
            .register_encoded_file_descriptor_set(matriarch_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let unusable = |error| tonic::Status::internal(format!("the descriptors are unusable: {error}"));
        match newest {
            true => match described.build_v1() {
                Ok(mut server) => server.call(request).await,
                Err(error) => Ok(unusable(error).into_http()),
            },
            false => match described.build_v1alpha() {
                Ok(mut server) => server.call(request).await,
                Err(error) => Ok(unusable(error).into_http()),
            },
        }
    };
    answered.unwrap_or_else(|never| match never {})
}

/// The requests of a reflection stream. They end after some time, and with them the stream.
struct ReflectionRequests {
    body: Incoming,
    ends: Pin<Box<Sleep>>,
    _admission: Arc<Admission>,
}

impl Body for ReflectionRequests {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;
    use tonic_health::pb::FILE_DESCRIPTOR_SET;

    use super::*;

    /// A method that is missing here could not be called.
    #[test]
    fn every_method_that_is_described_has_a_kind() {
        for encoded in [matriarch_proto::DESCRIPTORS, FILE_DESCRIPTOR_SET] {
            let set: FileDescriptorSet = prost::Message::decode(encoded).expect("generated");
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        assert!(CallKind::of(&path).is_some(), "{path}");
                    }
                }
            }
        }
        for unknown in ["/matriarch.v1.Admin/Drop", "/matriarch.v1.Admin", "", "/x/GetStatus"] {
            assert_eq!(CallKind::of(unknown), None, "{unknown}");
        }
    }

    /// Every method for operators that has no reason to be open needs access; members prove themselves otherwise.
    #[test]
    fn only_reads_are_open() {
        let open = [
            ["GetStatus", "WatchStatus", "ListMembers", "GetConfig"],
            ["GetHistory", "CheckSwitchover", "ListOperations", "GetOperation"],
        ]
        .concat();
        let set: FileDescriptorSet = prost::Message::decode(matriarch_proto::DESCRIPTORS).expect("generated");
        let services =
            set.file.iter().flat_map(|file| &file.service).filter(|service| service.name() == "Admin");
        for method in services.flat_map(|service| &service.method) {
            let kind = CallKind::of(&format!("/matriarch.v1.Admin/{}", method.name())).expect("it has one");
            assert_eq!(kind.changes(), !open.contains(&method.name()), "{}", method.name());
        }
    }
}
