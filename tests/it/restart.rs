//! The operator restarts PostgreSQL.

use crate::support::Plan;

/// A primary is the same one afterwards: unlogged tables keep their rows, and its timeline goes on.
#[tokio::test]
async fn a_restart_of_the_primary_keeps_unlogged_tables_and_the_timeline() {
    let cluster = Plan::new(2).start().await;
    cluster.members[0].sql("CREATE UNLOGGED TABLE scratch AS SELECT 7 AS id").await.expect("m1 leads");
    for member in ["m2", "m1"] {
        let output = cluster.members[0].command(&["restart", "herd", member, "--force"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{}", cluster.story());
        let seen = cluster.wait_until_well().await;
        assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline), "{member}");
    }
    assert_eq!(cluster.members[0].value("SELECT count(*) FROM scratch").await, "1");
}
