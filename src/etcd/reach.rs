//! Whether each endpoint of etcd answers, for `check`.

use std::time::Duration;

use futures::future::join_all;

use super::{Etcd, EtcdError, EtcdSetup};

/// How long an endpoint may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The endpoints that do not answer, each with the error: to the configured login, where there is one.
///
/// # Errors
/// [`EtcdError::Setup`] when there is no endpoint.
pub async fn unreachable(setup: EtcdSetup) -> Result<Vec<(String, EtcdError)>, EtcdError> {
    let etcd = Etcd::connect(setup)?;
    let ask = async |url: &String| {
        let answer = async { Ok(etcd.open(url).await?.status().await.map(drop)?) };
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        Some((url.clone(), answer.unwrap_or(Err(EtcdError::Timeout(ANSWER_WITHIN))).err()?))
    };
    let answers = join_all(etcd.endpoint_urls().iter().map(ask)).await;
    Ok(answers.into_iter().flatten().collect())
}
