//! A real HAProxy with the configuration that Patroni ships: clients reach the primary, before and after a switchover.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan, command_as, free_port, query};

/// HAProxy checks `OPTIONS /` on each member, and its one port leads to the primary.
#[tokio::test]
async fn haproxy_follows_the_primary() {
    let cluster = Plan::new(2).start().await;
    let port = free_port();
    let _haproxy = start_haproxy(&cluster, port);
    wait_for_backend(&cluster, port, 0).await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for_backend(&cluster, port, 1).await;
}

async fn wait_for_backend(cluster: &Cluster, port: u16, index: usize) {
    let wanted = cluster.members[index].postgres.to_string();
    let what = format!("HAProxy leads to {}, which takes writes", cluster.members[index].name);
    cluster
        .wait_until(Duration::from_secs(30), &what, async || {
            let found = query(port, "CREATE TABLE IF NOT EXISTS through (); SHOW port").await;
            found.is_ok_and(|rows| rows.iter().flatten().any(|value| *value == wanted))
        })
        .await;
}

/// Starts HAProxy in the cluster's place, so that it ends with the test.
fn start_haproxy(cluster: &Cluster, port: u16) -> tokio::process::Child {
    let folder = cluster.place.folder("haproxy");
    let servers: String = cluster
        .members
        .iter()
        .map(|member| {
            let (name, postgres, api) = (&member.name, member.postgres, member.api);
            format!("    server {name} 127.0.0.1:{postgres} check port {api}\n")
        })
        .collect();
    let config = format!(
        "defaults\n    mode tcp\n    timeout client 30s\n    timeout server 30s\n    timeout connect 2s\n    \
         timeout check 2s\nlisten herd\n    bind 127.0.0.1:{port}\n    option httpchk\n    \
         http-check expect status 200\n    \
         default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n{servers}"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).expect("our own place is writable");
    let log = std::fs::File::create(folder.join("log")).expect("our own place is writable");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = command_as("haproxy", &folder);
    command.env("PATH", format!("{path}:/usr/sbin")).args(["-db", "-f"]).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let started = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    started.expect("haproxy starts: see `make setup`")
}
