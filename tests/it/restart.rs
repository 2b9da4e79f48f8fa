//! The operator restarts PostgreSQL.

use std::time::Duration;

use crate::support::Plan;

/// A primary comes back through recovery, which empties unlogged tables: a warning says so before, and only for a
/// primary.
#[tokio::test]
async fn the_cost_of_a_restart_of_the_primary_is_reported() {
    let cluster = Plan::new(2).start().await;
    cluster.members[0].sql("CREATE UNLOGGED TABLE scratch AS SELECT 7 AS id").await.expect("m1 leads");
    for (member, costs) in [("m2", false), ("m1", true)] {
        let output = cluster.members[0].command(&["restart", "herd", member, "--force"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{}", cluster.story());
        assert_eq!(
            said.contains("m1 is the leader") && said.contains("empties unlogged tables"),
            costs,
            "{said}"
        );
        cluster.wait_until_well().await;
    }
    cluster
        .wait_until(Duration::from_secs(10), "the table is there, and empty", async || {
            cluster.members[0].value("SELECT count(*) FROM scratch").await == "0"
        })
        .await;
}
