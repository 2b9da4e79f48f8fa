//! etcd is empty: the choice of the data for the cluster.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan, command_as, postgres_bin};

const SOON: Duration = Duration::from_secs(60);

/// A member with an empty volume is first, and the one with data comes three seconds later. No new cluster is made: the
/// existing data is the cluster.
#[tokio::test]
async fn a_late_member_with_data_keeps_the_cluster() {
    let patient = json!({ "bootstrap": { "wait_for_members": "20s" } });
    let mut cluster = Plan::new(2).member(1, patient).start().await;
    cluster.members[0].sql("CREATE TABLE t ()").await.expect("it takes writes");
    let identity = cluster.etcd.get("/service/herd/initialize").await.expect("it was made");
    end(&mut cluster, &[1, 0]).await;
    cluster.etcd.delete_below("/service/herd").await;
    std::fs::remove_dir_all(cluster.members[1].data()).expect("our own place is writable");
    cluster.members[1].start();
    log_shows(&cluster, 1, "no other member has registered for 20 s").await;
    cluster
        .stays(Duration::from_secs(3), "nothing is made", async || {
            cluster.etcd.get("/service/herd/initialize").await.is_none()
        })
        .await;
    cluster.members[0].start();
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"));
    assert_eq!(cluster.etcd.get("/service/herd/initialize").await, Some(identity));
    cluster.members[1].sql("SELECT FROM t").await.expect("it is a clone");
}

/// etcd was wiped, and only a standby is left. It serves readers, and `list` names the command that makes it the
/// leader, with the consequences; a failover without the confirmation names it too. Afterwards a member with other data
/// is not touched and its log names the choices, and the former leader follows.
#[tokio::test]
async fn a_lone_standby_leads_with_the_command_from_list() {
    let mut cluster = Plan::new(3).prepare().await;
    let initdb = command_as(postgres_bin().join("initdb"), &cluster.members[2].folder)
        .args(["-D", "data", "-U", "postgres", "-A", "trust"])
        .output()
        .expect("initdb starts");
    assert!(initdb.status.success(), "{initdb:?}");
    let others = cluster.members[2].created_at();
    cluster.members[0].start();
    cluster.wait_for(SOON, "m1 leads", |seen| seen.leader() == Some("m1")).await;
    cluster.members[1].start();
    cluster.wait_for(SOON, "m2 streams", |seen| seen.streams("m2")).await;
    cluster.members[0].sql("CREATE TABLE t ()").await.expect("it takes writes");
    cluster
        .wait_until(SOON, "m2 has it", async || cluster.members[1].sql("SELECT FROM t").await.is_ok())
        .await;
    let identity = cluster.etcd.get("/service/herd/initialize").await.expect("it was made");
    end(&mut cluster, &[1, 0]).await;
    cluster.etcd.delete_below("/service/herd").await;

    cluster.members[1].start();
    let word = "matriarch failover --candidate m2 --rebuild";
    cluster
        .wait_until(SOON, "list names the command", async || {
            let listed = cluster.members[1].command(&["list"]).await;
            String::from_utf8_lossy(&listed.stdout).contains(word)
        })
        .await;
    assert_eq!(cluster.members[1].value("SELECT pg_is_in_recovery()").await, "t");
    cluster.members[1].sql("SELECT FROM t").await.expect("it serves readers");
    let refused = cluster.members[1].command(&["failover", "--candidate", "m2", "--force"]).await;
    let said =
        format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(!refused.status.success() && said.contains(word), "{said}");
    let told = cluster.members[1].command(&["failover", "--candidate", "m2", "--rebuild", "--force"]).await;
    assert!(told.status.success(), "{told:?}");
    cluster.wait_until_writable(1, SOON).await;
    let kept = async || cluster.etcd.get("/service/herd/initialize").await.as_ref() == Some(&identity);
    cluster.wait_until(SOON, "etcd knows the cluster again", kept).await;

    let other = &mut cluster.members[2];
    other.expected_errors.push(String::new());
    other.start();
    assert_eq!(other.exit_code(SOON).await, Some(8), "documented: foreign data directory");
    assert!(other.log_text().contains("etcdctl del --prefix"), "{}", other.log_text());
    assert_eq!(other.created_at(), others, "it is not touched");
    cluster.members[0].start();
    cluster.wait_for(SOON, "m1 follows", |seen| seen.leader() == Some("m2") && seen.streams("m1")).await;
}

async fn log_shows(cluster: &Cluster, index: usize, text: &str) {
    let shows = async || cluster.members[index].log_text().contains(text);
    cluster.wait_until(SOON, text, shows).await;
}

/// Ends members in this order, and waits for each.
async fn end(cluster: &mut Cluster, order: &[usize]) {
    for index in order {
        let member = &mut cluster.members[*index];
        member.terminate();
        assert_eq!(member.exit_code(SOON).await, Some(0), "{}:\n{}", member.name, member.log_text());
    }
}
