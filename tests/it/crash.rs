//! The primary's Postgres dies; its supervisor keeps running.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// The postmaster is killed. The supervisor knows at once and starts it again in place: same leader, same timeline,
/// nothing lost. So it is after a restart that an operator asked for.
#[tokio::test]
async fn a_killed_postmaster_comes_back_in_place() {
    let cluster = Plan::new(2).start().await;
    let primary = &cluster.members[0];
    let writer = Writer::start(primary, cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let before = primary.postmaster();
    primary.kill_postmaster();
    cluster.wait_until_writable(0, Duration::from_secs(30)).await;
    writer.wait_for_more(20, Duration::from_secs(20)).await;
    assert_ne!(primary.postmaster(), before);
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    let answer = primary.post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    writer.wait_for_more(20, Duration::from_secs(20)).await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    writer.stop_and_verify(primary).await;
}

/// With `primary_start_timeout: 0` no restart is tried: a standby takes over although the lease is long, and the old
/// primary comes back as a standby.
#[tokio::test]
async fn without_a_start_timeout_another_takes_over_at_once() {
    let patient = json!({ "primary_start_timeout": 0, "ttl": 60, "loop_wait": 10 });
    let cluster = Plan::new(3).dynamic(patient).start().await;
    cluster.members[0].kill_postmaster();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 1);
}

/// A standby's postmaster is killed: it comes back and streams; the primary does not notice.
#[tokio::test]
async fn a_killed_standby_comes_back() {
    let cluster = Plan::new(2).start().await;
    let before = cluster.members[1].postmaster();
    cluster.members[1].kill_postmaster();
    cluster
        .wait_until(Duration::from_secs(20), "m2 has a new postmaster", async || {
            cluster.members[1].postmaster().is_some_and(|pid| Some(pid) != before)
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"));
}

/// An address of this machine other than the loopback's, if there is one: rules for 127.0.0.1 do not match it.
fn own_address() -> String {
    let towards = |(from, to): (&str, &str)| {
        let socket = std::net::UdpSocket::bind((from, 0)).ok()?;
        // Nothing is sent: the kernel only chooses the source address.
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip().to_string())
    };
    let own = [("0.0.0.0", "198.51.100.1")].into_iter().find_map(towards);
    own.unwrap_or_else(|| "127.0.0.2".to_owned())
}

/// Members listen on their own address only, as most do. The postmaster of the primary was killed. The former primary
/// starts with its clients locked out, but its supervisor can connect: it comes back as a streaming standby.
#[tokio::test]
async fn a_locked_out_member_that_listens_on_its_own_address_comes_back() {
    let quorum = json!({ "synchronous_mode": "quorum", "ttl": 30, "loop_wait": 5 });
    let mut plan = Plan::new(3).dynamic(quorum);
    for index in 0..3 {
        let listen = format!("{}:{}", own_address(), crate::support::free_port());
        let rules = ["host replication replicator all scram-sha-256", "host all all all scram-sha-256"];
        let postgresql = json!({ "listen": listen, "connect_address": listen, "pg_hba": rules });
        plan = plan.member(index, json!({ "postgresql": postgresql }));
    }
    let cluster = plan.start().await;
    cluster
        .wait_for(Duration::from_secs(30), "all others are quorum standbys", |seen| {
            seen.members().iter().filter(|member| member["role"] == "quorum_standby").count() == 2
        })
        .await;
    cluster.members[0].kill_postmaster();
    let successor = |seen: &crate::support::Seen| seen.leader().is_some_and(|leader| leader != "m1");
    cluster.wait_for(Duration::from_secs(30), "another member than m1 leads", successor).await;
    cluster.wait_until_well().await;
    let body = cluster.members[0].get("/patroni").await.expect("it answers").json();
    assert_eq!(body["postgres_access"], "private_socket", "{body:#}");
}
