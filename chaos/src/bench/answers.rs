//! How fast `/primary` answers, one connection a question, as load balancers ask.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::rig::{Rig, request};

/// Who ask at the same time.
const CLIENTS: usize = 8;
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// How fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// By the primary.
    pub(crate) a_second: f64,
    /// Half of them took no longer.
    pub(crate) median_ms: f64,
    /// All but one in a hundred took no longer.
    pub(crate) p99_ms: f64,
}

/// Asks the primary for so long.
pub(super) async fn ask(rig: &mut Rig, span: Duration) -> Result<Answers> {
    let primary = rig.wait_for_leader(span).await?;
    let address = format!("{}:8008", rig.members[primary].address());
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let address = address.clone();
        clients.spawn(async move {
            let mut took = Vec::new();
            while began.elapsed() < span {
                let asked = Instant::now();
                let answer = request(&address, "GET", "/primary", None, ANSWERS_WITHIN).await;
                if answer.is_some_and(|answer| answer.status == 200) {
                    took.push(asked.elapsed());
                }
            }
            took
        });
    }
    let mut took: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    let seconds = began.elapsed().as_secs_f64();
    ensure!(!took.is_empty(), "/primary does not answer");
    took.sort_unstable();
    let milliseconds = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    Ok(Answers {
        a_second: took.len() as f64 / seconds,
        median_ms: milliseconds(50),
        p99_ms: milliseconds(99),
    })
}
