//! PostgreSQL runs but does not answer; the supervisor still does.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::Plan;

/// The loop's limit for new parameters in PostgreSQL, and a reserve for an answer.
const HANGS_FOR: Duration = Duration::from_secs(6);
/// An order needs no answer of PostgreSQL, but a decision waits three seconds for one.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

/// The standby's PostgreSQL is frozen, and a new parameter is to be applied.
#[tokio::test]
async fn orders_are_answered_while_postgres_hangs() {
    let cluster = Plan::new(2).start().await;
    let standby = &cluster.members[1];
    standby.signal_postgres(Signal::SIGSTOP);
    let change = json!({ "postgresql": { "parameters": { "work_mem": "7MB" } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster
        .stays(HANGS_FOR, "m2 answers orders", async || {
            let asked_at = Instant::now();
            let status = standby.send("DELETE", "/restart", None).await.status;
            println!("{status} after {:?}", asked_at.elapsed());
            status == 404 && asked_at.elapsed() < ANSWERED_WITHIN
        })
        .await;
    standby.signal_postgres(Signal::SIGCONT);
    cluster
        .wait_until(Duration::from_secs(20), "m2 has the new parameter", async || {
            standby.value("SHOW work_mem").await == "7MB"
        })
        .await;
    cluster.wait_until_well().await;
}
