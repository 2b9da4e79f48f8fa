//! Maintenance mode: no automatic action.

use std::time::Duration;

use crate::support::Plan;

/// In pause a dead primary is neither started nor replaced; after the end of the pause the cluster mends itself.
#[tokio::test]
async fn nothing_happens_in_pause_and_everything_after() {
    let cluster = Plan::new(2).start().await;
    let output = cluster.members[1].command(&["pause", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let paused = |seen: &crate::support::Seen| seen.0["pause"] == true;
    cluster.wait_for(Duration::from_secs(10), "the pause is shown", paused).await;
    cluster
        .wait_until(Duration::from_secs(20), "both members know of the pause", async || {
            let mut known = true;
            for member in &cluster.members {
                known &= member.get("/patroni").await.is_some_and(|answer| answer.json()["pause"] == true);
            }
            known
        })
        .await;
    cluster.members[0].kill_postmaster();
    let down = async || cluster.members[0].postmaster().is_none();
    cluster.wait_until(Duration::from_secs(10), "the postmaster of m1 is gone", down).await;
    cluster
        .stays(Duration::from_secs(8), "no postmaster on m1, no promotion of m2", async || {
            cluster.members[0].postmaster().is_none()
                && cluster.members[1].value("SELECT pg_is_in_recovery()").await == "t"
        })
        .await;
    let output = cluster.members[1].command(&["resume", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    cluster.wait_until_well().await;
    cluster.wait_until_writable(cluster.leader().await, Duration::from_secs(30)).await;
}
