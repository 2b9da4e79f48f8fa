//! The configuration that lives in etcd, applied while running.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, Writer};

/// A line in the operator's own file, which no key of the configuration names: `reload` puts it in force.
#[tokio::test]
async fn a_reload_reaches_postgresql_though_no_parameter_changed() {
    let cluster = Plan::new(1).start().await;
    let member = &cluster.members[0];
    let base = member.data().join("postgresql.base.conf");
    let mut text = std::fs::read_to_string(&base).expect("it is there");
    text.push_str("\nlog_min_duration_statement = 12345\n");
    std::fs::write(&base, text).expect("our own place is writable");
    assert_eq!(member.post("/reload", &json!({})).await.status, 202);
    cluster
        .wait_until(Duration::from_secs(10), "the line is in force", async || {
            member.value("SHOW log_min_duration_statement").await == "12345ms"
        })
        .await;
}

/// One change contains a parameter that a reload applies and one that needs a restart. The first is in force
/// everywhere; the second is shown as pending, with its reason, until the operator restarts.
#[tokio::test]
async fn a_reload_applies_what_it_can_and_the_rest_is_pending() {
    let cluster = Plan::new(2).start().await;
    let change = json!({ "postgresql": { "parameters": { "work_mem": "7MB", "max_connections": 120 } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["postgresql"]["parameters"]["max_connections"], 120);
    for member in &cluster.members {
        let what = format!("{} uses the new work_mem", member.name);
        cluster
            .wait_until(Duration::from_secs(20), &what, async || member.value("SHOW work_mem").await == "7MB")
            .await;
        assert_eq!(member.value("SHOW max_connections").await, "100", "not before a restart");
    }
    let pending = |seen: &crate::support::Seen| {
        let reason = |name| seen.member(name).pointer("/pending_restart_reason/max_connections").cloned();
        ["m1", "m2"].iter().all(|name| seen.member(name)["pending_restart"] == true && reason(name).is_some())
    };
    cluster.wait_for(Duration::from_secs(20), "both show the pending restart", pending).await;
    for member in cluster.members.iter().rev() {
        let answer = member.post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(member.value("SHOW max_connections").await, "120");
    }
    let done = |seen: &crate::support::Seen| {
        seen.is_well(2) && ["m1", "m2"].iter().all(|name| seen.member(name)["pending_restart"] != true)
    };
    cluster.wait_for(Duration::from_secs(30), "nothing is pending", done).await;
}

/// `matriarch edit-config` and `show-config`: set values are shown, and a null removes one.
#[tokio::test]
async fn the_command_line_edits_and_shows() {
    let cluster = Plan::new(1).start().await;
    let member = &cluster.members[0];
    let output = member.command(&["edit-config", "-s", "loop_wait=3", "-s", "my.key=text", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let output = member.command(&["show-config", "-o", "json"]).await;
    let shown: Value = serde_json::from_slice(&output.stdout).expect("show-config prints JSON");
    assert_eq!((&shown["loop_wait"], &shown["my"]["key"]), (&json!(3), &json!("text")), "{shown}");
    let output = member.command(&["edit-config", "-s", "my.key=null", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let config = member.get("/config").await.expect("it answers").json();
    assert_eq!((config.get("my"), &config["loop_wait"]), (None, &json!(3)), "{config}");
}

/// A `pg_hba` from etcd that Postgres cannot read must not lock clients out: the cluster continues to serve, also after
/// a crash.
#[tokio::test]
async fn a_broken_pg_hba_does_not_take_the_cluster_down() {
    let rules = [
        "local all all scram-sha-256",
        "host replication all 127.0.0.1/32 scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
    ];
    let mut cluster = Plan::new(2)
        .all(json!({ "postgresql": { "pg_hba": null } }))
        .dynamic(json!({ "postgresql": { "pg_hba": rules } }))
        .start()
        .await;
    for member in &mut cluster.members {
        member.expected_errors.push("hba".to_owned());
    }
    let broken = json!({ "postgresql": { "pg_hba": ["hostt all nonsense"] } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&broken)).await;
    if answer.status == 200 {
        cluster
            .stays(Duration::from_secs(6), "both serve", async || {
                cluster.members[0].value("SELECT 1").await == "1"
                    && cluster.members[1].value("SELECT 1").await == "1"
            })
            .await;
        cluster.members[0].kill_postmaster();
        cluster.wait_until_well().await;
        cluster.wait_until_writable(cluster.leader().await, Duration::from_secs(30)).await;
    } else {
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}

/// The TTL is raised and lowered under a primary that serves: its key moves from lease to lease, and no client notices.
#[tokio::test]
async fn a_new_ttl_stops_no_primary() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    let postmaster = cluster.members[0].postmaster();
    for ttl in [60, 3, 60] {
        let answer = cluster.members[0].send("PATCH", "/config", Some(&json!({ "ttl": ttl }))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let moved = async || cluster.etcd.ttl("/service/herd/leader").await == Some(ttl);
        cluster
            .wait_until(Duration::from_secs(20), &format!("the key hangs on a lease of {ttl} s"), moved)
            .await;
        writer.wait_for_more(20, Duration::from_secs(10)).await;
    }
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    assert_eq!(cluster.members[0].postmaster(), postmaster);
    let history = writer.stop_and_verify(&cluster.members[0]).await;
    assert!(history.unknown.is_empty(), "no client was disturbed: {:?}", history.unknown);
}

const CONFIG: &str = "/service/herd/config";
const SYNC: &str = "/service/herd/sync";

async fn stored(cluster: &Cluster, key: &str) -> Value {
    let text = cluster.etcd.get(key).await;
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

/// A cluster with synchronous replication that was switched on by the operator, not by the local file.
async fn switched_to_quorum() -> (Cluster, Value) {
    // Long enough for a restart of supervisors on a busy machine.
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 30 })).start().await;
    let answer =
        cluster.members[0].send("PATCH", "/config", Some(&json!({ "synchronous_mode": "quorum" }))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let promised = json!({ "leader": "m1", "quorum": 0, "sync_standby": "m2" });
    let level = async || stored(&cluster, SYNC).await == promised;
    cluster.wait_until(Duration::from_secs(40), "m2 is in the key sync", level).await;
    (cluster, promised)
}

async fn restart_supervisors(cluster: &mut Cluster) {
    cluster.members.iter_mut().for_each(crate::support::Member::kill_supervisor);
    cluster.members.iter_mut().for_each(crate::support::Member::start);
}

/// A change that no member could use is refused as a whole: over REST and from the command line, with every fault
/// named.
#[tokio::test]
async fn an_invalid_value_is_refused_on_write() {
    let cluster = Plan::new(1).start().await;
    let before = cluster.etcd.get(CONFIG).await;
    let change = json!({ "loop_wait": "abc", "synchronous_mode": [], "postgresql": { "parameters": 7 } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let output = cluster.members[0]
        .command(&[
            "edit-config",
            "-s",
            "loop_wait=abc",
            "-s",
            "synchronous_mode=[]",
            "-s",
            "postgresql.parameters=7",
            "--force",
        ])
        .await;
    assert!(!output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for said in [&answer.body, &told] {
        for part in [
            "loop_wait: found `abc`; write a number of seconds",
            "synchronous_mode: found a list; write on, off or quorum",
            "postgresql.parameters: found 7; write",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    assert_eq!(cluster.etcd.get(CONFIG).await, before, "nothing was written");
}

/// Another tool writes invalid values, also for the synchronous mode. Each key keeps its last valid value, even after a
/// restart of all supervisors: the mode stays, and so does the key `sync`.
#[tokio::test]
async fn invalid_values_change_neither_the_synchronous_mode_nor_the_sync_key() {
    let (mut cluster, promised) = switched_to_quorum().await;
    let mut config = stored(&cluster, CONFIG).await;
    (config["loop_wait"], config["synchronous_mode"]) = (json!("abc"), json!({ "is": "quorum" }));
    cluster.etcd.put(CONFIG, &config.to_string()).await;
    let warned = async || {
        let said = |member: &crate::support::Member| {
            let log = member.log_text();
            log.contains("loop_wait: found `abc`") && log.contains("`\"quorum\"` is in force")
        };
        cluster.members.iter().all(said)
    };
    cluster.wait_until(Duration::from_secs(20), "both warn", warned).await;
    restart_supervisors(&mut cluster).await;
    cluster.wait_until_well().await;
    let level = async || {
        stored(&cluster, SYNC).await == promised
            && cluster.members[0].value("SHOW synchronous_standby_names").await == "ANY 1 (m2)"
    };
    cluster.wait_until(Duration::from_secs(20), "m2 is in the key sync again", level).await;
    cluster.stays(Duration::from_secs(6), "the promise of m2 stands", level).await;
    let released =
        cluster.members[0].send("PATCH", "/config", Some(&json!({ "synchronous_mode": false }))).await;
    assert_eq!(released.status, 200, "{}", released.body);
    let gone = async || cluster.etcd.get(SYNC).await.is_none();
    cluster.wait_until(Duration::from_secs(20), "the key sync is gone", gone).await;
}

/// The key is deleted while no supervisor runs. The leader writes the configuration that was last in force, not the one
/// for a new cluster in its file. The copy beside the data is readable only for its owner.
#[tokio::test]
async fn an_emptied_configuration_is_restored_from_the_one_in_force() {
    use std::os::unix::fs::PermissionsExt;
    let (mut cluster, promised) = switched_to_quorum().await;
    let config = stored(&cluster, CONFIG).await;
    let kept = |cluster: &Cluster, index: usize| -> Value {
        let text = std::fs::read_to_string(cluster.members[index].data().join("patroni.dynamic.json"));
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    };
    let level = async || kept(&cluster, 0) == config && kept(&cluster, 1) == config;
    cluster.wait_until(Duration::from_secs(20), "both keep it on their disk", level).await;
    let file = cluster.members[0].data().join("patroni.dynamic.json");
    let mode = std::fs::metadata(file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    cluster.members.iter_mut().for_each(crate::support::Member::kill_supervisor);
    cluster.etcd.delete(CONFIG).await;
    cluster.members.iter_mut().for_each(crate::support::Member::start);
    let refilled = async || stored(&cluster, CONFIG).await == config;
    cluster.wait_until(Duration::from_secs(40), "the key config is there again", refilled).await;
    cluster.wait_until_well().await;
    let vouched = async || {
        let record = stored(&cluster, SYNC).await;
        record["leader"] == promised["leader"] || record["sync_standby"] == promised["leader"]
    };
    cluster.wait_until(Duration::from_secs(20), "the key sync vouches for somebody", vouched).await;
}

/// A parameter with which no PostgreSQL of this version would start: refused in a write, left out if it is present
/// already, also at the bootstrap. Parameters that fail only in combination are named in the report of the failed
/// start.
#[tokio::test]
async fn an_invalid_parameter_is_refused_or_omitted() {
    let first = json!({ "postgresql": { "parameters": { "stats_temp_directoryy": "x" } } });
    let mut cluster = Plan::new(1).dynamic(first).start().await;
    cluster.members[0].expected_errors.push("superuser_reserved_connections".to_owned());
    let member = &cluster.members[0];
    let left_out = |name: &str| {
        member.log_text().lines().filter(|line| line.contains("is omitted") && line.contains(name)).count()
    };
    assert_eq!(left_out("stats_temp_directoryy"), 1);
    let before = cluster.etcd.get(CONFIG).await;
    let change = json!({ "work_memm": "8MB", "work_mem": "8XB", "my.setting": "x", "max_connections": 7 });
    let change = json!({ "postgresql": { "parameters": change } });
    let answer = member.send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("max_connections: found `7`; write a number from 25"), "{}", answer.body);
    let parameters = json!({ "work_memm": "8MB", "work_mem": "8XB", "my.setting": "x" });
    let answer =
        member.send("PATCH", "/config", Some(&json!({ "postgresql": { "parameters": parameters } }))).await;
    let output =
        member.command(&["edit-config", "-p", "work_memm=8MB", "-p", "work_mem=8XB", "--force"]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((answer.status, output.status.success()), (400, false), "{told}");
    for said in [&answer.body, &told] {
        for part in
            ["work_memm: found `8MB`", "did you mean `work_mem`?", "work_mem: found `8XB`", "Valid units"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    assert_eq!(cluster.etcd.get(CONFIG).await, before, "nothing was written");

    let mut config = stored(&cluster, CONFIG).await;
    config["postgresql"]["parameters"] =
        json!({ "work_memm": "8MB", "work_mem": "8XB", "log_min_duration_statement": "7s" });
    cluster.etcd.put(CONFIG, &config.to_string()).await;
    let applied = async || member.value("SHOW log_min_duration_statement").await == "7s";
    cluster.wait_until(Duration::from_secs(20), "the rest is applied", applied).await;
    let answer = member.post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(member.value("SHOW work_mem").await, "4MB");
    assert_eq!((left_out("work_memm"), left_out("work_mem = ")), (1, 1), "it is said once");

    let together =
        |value: Value| json!({ "postgresql": { "parameters": { "superuser_reserved_connections": value } } });
    let answer = member.send("PATCH", "/config", Some(&together(json!(100)))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let written = async || {
        let text = std::fs::read_to_string(member.data().join("postgresql.conf")).unwrap_or_default();
        text.contains("superuser_reserved_connections = '100'")
    };
    cluster.wait_until(Duration::from_secs(20), "the parameter is taken", written).await;
    let answer = member.post("/restart", &json!({})).await;
    assert_ne!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.contains("superuser_reserved_connections (100) must be less than"),
        "{}",
        answer.body
    );
    let listed = async || {
        let output = member.command(&["list"]).await;
        String::from_utf8_lossy(&output.stdout).contains("superuser_reserved_connections")
            || String::from_utf8_lossy(&output.stderr).contains("superuser_reserved_connections")
    };
    cluster.wait_until(Duration::from_secs(20), "list names it", listed).await;
    let answer = member.send("PATCH", "/config", Some(&together(Value::Null))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.wait_until_writable(0, Duration::from_secs(60)).await;
}
