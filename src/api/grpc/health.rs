//! gRPC health checking: each health check of REST is a service of its name.

use std::time::Duration;

use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Admission;
use super::stream::{Messages, stream};
use crate::agent::{self, Handle};
use crate::api::probes;
use crate::api::query::Query;
use crate::model::Moment;
use crate::os::clock;

/// The interval between looks at a status that does not change: its proofs become older.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The code of a health check that succeeds.
const OK: u16 = 200;

/// The service, over the published status.
pub(super) struct HealthService {
    pub(super) handle: Handle,
}

/// The answer of the health check of this name, `primary` or `replica?lag=10MB`. The empty name is the member itself.
fn serving(status: &agent::Status, service: &str, now: Moment) -> ServingStatus {
    let (name, query) = service.split_once('?').unwrap_or((service, ""));
    let query = Query::parse(query);
    let code = match name {
        "" | "matriarch.v1.Admin" | "liveness" => probes::liveness(status, now),
        "readiness" => probes::readiness(status, &query, now),
        "startup" => probes::startup(status, now),
        "primary" | "read-write" | "leader" | "standby-leader" | "replica" | "read-only" | "synchronous"
        | "asynchronous" | "quorum" | "read-only-sync" | "read-only-quorum" | "health" => {
            probes::health(status, &format!("/{name}"), &query, now)
        }
        _ => return ServingStatus::ServiceUnknown,
    };
    if code == OK { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Messages<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match serving(&self.handle.status(), &service, clock::now()) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found("there is no such health check: the names are those of REST"))
            }
            known => Ok(Response::new(HealthCheckResponse { status: known.into() })),
        }
    }

    async fn watch(
        &self,
        mut request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let admission = request.extensions_mut().remove::<std::sync::Arc<Admission>>();
        let (service, mut statuses) = (request.into_inner().service, self.handle.statuses());
        Ok(stream(async move |sender| {
            let _admission = admission;
            let mut last = None;
            loop {
                let now = serving(&statuses.borrow_and_update(), &service, clock::now());
                if last != Some(now) && !sender.send(HealthCheckResponse { status: now.into() }).await {
                    return;
                }
                last = Some(now);
                tokio::select! {
                    changed = statuses.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = sender.closed() => return,
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{primary, replica};

    #[test]
    fn each_health_check_is_a_service() {
        let now = clock::now();
        let cases = [
            ("", ServingStatus::Serving, ServingStatus::Serving),
            ("primary", ServingStatus::Serving, ServingStatus::NotServing),
            ("replica", ServingStatus::NotServing, ServingStatus::Serving),
            ("replica?lag=1", ServingStatus::NotServing, ServingStatus::NotServing),
            ("readiness", ServingStatus::Serving, ServingStatus::Serving),
            ("sql", ServingStatus::ServiceUnknown, ServingStatus::ServiceUnknown),
        ];
        for (name, of_primary, of_replica) in cases {
            assert_eq!(serving(&primary(now), name, now), of_primary, "{name} of the primary");
            assert_eq!(serving(&replica(now), name, now), of_replica, "{name} of the replica");
        }
        let later = now + probes::PROOF_AGE_MAX + Duration::from_millis(1);
        assert_eq!(serving(&primary(now), "primary", later), ServingStatus::NotServing, "the proof is old");
    }
}
