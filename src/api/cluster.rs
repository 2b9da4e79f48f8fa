//! `/cluster` and `/history`: the state in etcd as a response body.

use std::sync::Arc;

use super::answer::HttpAnswer;
use super::wire;
use crate::agent::{Handle, OrderError};
use crate::model::ClusterView;

/// `/cluster`, always from a linearizable read, because scripts wait with it for a switchover.
pub(super) async fn cluster(handle: &Handle) -> HttpAnswer {
    match handle.read_cluster().await {
        Ok(view) => HttpAnswer::json(200, &wire::cluster_body(&handle.status().scope, &view)),
        Err(error) => HttpAnswer::unavailable(&error),
    }
}

/// `/history`.
pub(super) async fn history(handle: &Handle) -> HttpAnswer {
    match newest(handle).await {
        Ok(view) => HttpAnswer::json(200, &wire::history_body(view.history.as_deref().unwrap_or_default())),
        Err(error) => HttpAnswer::unavailable(&error),
    }
}

/// A fresh read, or the view of the last `ttl` when etcd does not answer.
pub(super) async fn newest(handle: &Handle) -> Result<Arc<ClusterView>, OrderError> {
    match handle.read_cluster().await {
        Ok(view) => Ok(Arc::new(view)),
        Err(error) => handle.status().view.clone().ok_or(error),
    }
}
