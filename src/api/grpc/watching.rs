//! The stream of a member's status.

use std::time::Duration;

use matriarch_proto::v1::{Status, WatchStatusResponse};

use super::messages;
use super::stream::MessageSender;
use crate::agent::{Handle, OrderError};
use crate::os::clock;

/// The shortest time between two messages, if the caller names none.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest time between two messages.
const INTERVAL_MAX: Duration = Duration::from_secs(10);
/// The interval between looks at a status that does not change: its proofs become older.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Sends the status now, with each change, and now and then without one, until the caller is gone.
pub(super) async fn watch(handle: Handle, interval_min_ms: u32, sender: &MessageSender<WatchStatusResponse>) {
    let interval = match interval_min_ms {
        0 => INTERVAL_MIN,
        milliseconds => Duration::from_millis(milliseconds.into()).min(INTERVAL_MAX),
    };
    let mut statuses = handle.statuses();
    let mut sent: Option<(Status, _)> = None;
    loop {
        let now = clock::now();
        let status = messages::status(&statuses.borrow_and_update(), now);
        let known = sent.as_ref().is_some_and(|(known, sent_at)| {
            now.since(*sent_at) < INTERVAL_MAX && ageless(known.clone()) == ageless(status.clone())
        });
        if !known {
            sent = Some((status.clone(), now));
            if !sender.send(WatchStatusResponse { status: Some(status) }).await {
                return;
            }
            tokio::time::sleep(interval).await;
        }
        tokio::select! {
            changed = statuses.changed() => if changed.is_err() {
                return sender.fail(tonic::Status::unavailable(OrderError::Gone.to_string())).await;
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = sender.closed() => return,
        }
    }
}

/// Without what changes while nothing happens.
fn ageless(mut status: Status) -> Status {
    if let Some(lease) = &mut status.lease {
        lease.remaining_ms = 0;
    }
    if let Some(postgres) = &mut status.postgres {
        postgres.age_ms = 0;
    }
    if let Some(cluster) = &mut status.cluster {
        cluster.revision = 0;
    }
    status
}
