//! Settings of PostgreSQL that hold in one role only.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Member, Plan, connect, query, settings};

const SOON: Duration = Duration::from_secs(30);

/// `app` may log in at a primary, `report` at a standby.
fn rules(user: &str) -> Value {
    json!([
        "local all all scram-sha-256",
        "host replication replicator 127.0.0.1/32 scram-sha-256",
        "host all postgres,rewinder 127.0.0.1/32 scram-sha-256",
        format!("host all {user} 127.0.0.1/32 trust"),
    ])
}

/// PostgreSQL reads `track_activity_query_size` only at its start.
async fn cluster() -> Cluster {
    let postgresql = json!({
        "parameters": { "max_connections": 40 },
        "parameters_primary": { "work_mem": "9MB", "track_activity_query_size": 2048, "max_connections": 300 },
        "parameters_replica": { "work_mem": "2MB" },
        "pg_hba_primary": rules("app"),
        "pg_hba_replica": rules("report"),
    });
    let cluster = Plan::new(2).dynamic(json!({ "postgresql": postgresql })).start().await;
    cluster.members[0].sql("CREATE ROLE app LOGIN; CREATE ROLE report LOGIN").await.expect("a primary");
    cluster
}

async fn lets_in(member: &Member, user: &str) -> bool {
    let mut login = settings(&[member.postgres]);
    let let_in = connect(login.user(user)).await;
    if let Err(why) = &let_in {
        assert!(why.contains("no pg_hba.conf entry") || why.contains("does not exist"), "{why}");
    }
    let_in.is_ok()
}

/// The settings of a member with this role.
async fn has_role(member: &Member, primary: bool) -> bool {
    member.value("SHOW work_mem").await == if primary { "9MB" } else { "2MB" }
        && member.value("SHOW max_connections").await == "40"
        && lets_in(member, "app").await == primary
        && lets_in(member, "report").await != primary
}

async fn wait_for_roles(cluster: &Cluster, leader: usize) {
    let level = async || {
        has_role(&cluster.members[leader], true).await && has_role(&cluster.members[1 - leader], false).await
    };
    cluster.wait_until(SOON, &format!("m{} has the settings of a primary", leader + 1), level).await;
}

/// Exactly these members wait for a restart, which would bring this value.
async fn wait_for_pending(cluster: &Cluster, pending: &[(&str, &str)]) {
    let level = |seen: &crate::support::Seen| {
        ["m1", "m2"].iter().all(|name| {
            let member = seen.member(name);
            let new = member.pointer("/pending_restart_reason/track_activity_query_size/new_value");
            let expected = pending.iter().find(|(waits, _)| waits == name).map(|(_, value)| *value);
            (member["pending_restart"] == true) == expected.is_some()
                && new.and_then(Value::as_str) == expected
        })
    };
    cluster.wait_for(SOON, &format!("a restart is pending: {pending:?}"), level).await;
}

/// New sessions at this member, until it is a primary: none meets a primary with the settings of a standby.
async fn first_sessions_of_a_primary(port: u16) {
    let question = "SELECT pg_is_in_recovery(), current_setting('work_mem')";
    loop {
        if let Ok(rows) = query(port, question).await {
            let row: Vec<&str> = rows[0].iter().map(String::as_str).collect();
            assert_ne!(row, ["f", "2MB"], "a primary with the settings of a standby");
            if row[0] == "f" {
                return;
            }
        }
    }
}

#[tokio::test]
async fn settings_follow_the_role() {
    let mut cluster = cluster().await;
    wait_for_roles(&cluster, 0).await;
    wait_for_pending(&cluster, &[]).await;
    assert_eq!(cluster.members[0].value("SHOW track_activity_query_size").await, "2kB");
    assert_eq!(cluster.members[1].value("SHOW track_activity_query_size").await, "1kB");
    let log = cluster.members[0].log_text();
    assert!(
        log.contains("postgresql.parameters_primary.max_connections: found `300`; it has no effect"),
        "{log}"
    );

    let sessions = tokio::spawn(first_sessions_of_a_primary(cluster.members[1].postgres));
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    sessions.await.expect("only settings of a primary");
    wait_for_roles(&cluster, 1).await;
    wait_for_pending(&cluster, &[("m2", "2048")]).await;
    let answer = cluster.members[1].post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for_pending(&cluster, &[]).await;
    wait_for_roles(&cluster, 1).await;
    assert_eq!(cluster.members[1].value("SHOW track_activity_query_size").await, "2kB");

    // A supervisor that finds its PostgreSQL running keeps the settings of its role.
    cluster.members.iter_mut().for_each(Member::kill_supervisor);
    cluster.members.iter_mut().for_each(Member::start);
    cluster.wait_until_well().await;
    let change = json!({ "postgresql": { "parameters_replica": { "work_mem": "3MB" } } });
    let answer = cluster.members[1].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let changed = async || cluster.members[0].value("SHOW work_mem").await == "3MB";
    cluster.wait_until(SOON, "the standby has its new setting", changed).await;
    assert_eq!(cluster.members[1].value("SHOW work_mem").await, "9MB");
}

/// Rules for a primary that PostgreSQL cannot read are noticed on the standby, and kept out of its promotion.
#[tokio::test]
async fn broken_rules_of_another_role_do_not_wait_for_the_change_of_the_role() {
    let mut cluster = cluster().await;
    wait_for_roles(&cluster, 0).await;
    cluster.members.iter_mut().for_each(|member| member.expected_errors.push("hba".to_owned()));
    let broken =
        json!({ "postgresql": { "pg_hba_primary": ["hostt all nonsense"], "parameters": { "jit": "off" } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&broken)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let noticed = async || cluster.members.iter().all(|member| member.log_text().contains("pg_hba.conf:7"));
    cluster.wait_until(SOON, "both have noticed", noticed).await;
    wait_for_roles(&cluster, 0).await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    wait_for_roles(&cluster, 1).await;
    let answer = cluster.members[1].post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for_roles(&cluster, 1).await;
    assert_eq!(cluster.members[1].value("SHOW jit").await, "off");
}
