//! Heartbeats between real members: a standby hears its leader, and hears when it is silent.

use std::time::Duration;

use matriarch::os::clock;
use matriarch::peer::{HeartbeatSource, PeerError, PeerKeys, Peers};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Cluster, Member, PASSWORD, Plan, Proxy, until};

const SOON: Duration = Duration::from_secs(20);

/// What this member says of its leader's heartbeats.
async fn heartbeats(member: &Member) -> Value {
    let Some(answer) = member.get("/health").await else { return Value::Null };
    answer.json()["leader_heartbeats"].clone()
}

async fn wait_for_state(cluster: &Cluster, index: usize, state: &str) {
    let what = format!("its leader is {state}");
    cluster
        .wait_until(SOON, &what, async || heartbeats(&cluster.members[index]).await["state"] == state)
        .await;
}

async fn metric(member: &Member, name: &str) -> Option<f64> {
    let page = member.get("/metrics").await?.body;
    page.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}

/// Waits until the second member calls its leader silent. How long that took.
async fn turns_silent(cluster: &Cluster) -> Duration {
    let since = clock::now();
    let silent = async || (heartbeats(&cluster.members[1]).await["state"] == "silent").then(clock::now);
    let at = until(SOON, silent).await.unwrap_or_else(|| panic!("never silent\n{}", cluster.story()));
    let took = at.since(since);
    println!("silent after {took:?}");
    took
}

/// A leader whose supervisor is stopped turns silent and is heard again; it leads all the time.
#[tokio::test]
async fn a_standby_hears_its_leader_and_its_silence() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 20 })).start().await;
    let (m1, m2) = (&cluster.members[0], &cluster.members[1]);
    wait_for_state(&cluster, 1, "heard").await;
    assert_eq!(heartbeats(m1).await, Value::Null, "it hears nobody");
    let key = cluster.etcd.get("/service/herd/members/m1").await.expect("it is there");
    assert!(key.contains(r#""capabilities":["heartbeats"]"#), "{key}");
    let age = metric(m2, "matriarch_heartbeat_age_seconds").await;
    assert!(age.is_some_and(|age| age < 1.0), "{age:?}");
    cluster
        .stays(Duration::from_secs(5), "m1 is heard", async || heartbeats(m2).await["state"] == "heard")
        .await;
    for _ in 0..2 {
        let allowed = metric(m2, "matriarch_suspect_after_seconds").await.expect("it is heard");
        m1.signal_supervisor(Signal::SIGSTOP);
        let took = turns_silent(&cluster).await;
        m1.signal_supervisor(Signal::SIGCONT);
        wait_for_state(&cluster, 1, "heard").await;
        assert!(took.as_secs_f64() < allowed + 1.0, "{took:?} instead of {allowed} s");
    }
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"));
    let switched = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(switched.status, 200, "{}", switched.body);
    wait_for_state(&cluster, 0, "heard").await;
    cluster.wait_until(SOON, "it hears nobody", async || heartbeats(m2).await.is_null()).await;
}

/// The second member reaches its leader through this alone.
async fn behind_a_proxy() -> (Cluster, Proxy) {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 20 })).prepare().await;
    let proxy = Proxy::before(format!("127.0.0.1:{}", cluster.members[0].api)).await;
    let mut config = cluster.members[0].read_config();
    config["restapi"]["connect_address"] = proxy.host.clone().into();
    cluster.members[0].write_config(&config);
    cluster.start().await;
    wait_for_state(&cluster, 1, "heard").await;
    (cluster, proxy)
}

/// The way from the standby to its leader is cut and mended.
#[tokio::test]
async fn a_standby_that_is_cut_off_hears_silence() {
    let (cluster, proxy) = behind_a_proxy().await;
    proxy.cut();
    let took = turns_silent(&cluster).await;
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    proxy.mend();
    wait_for_state(&cluster, 1, "heard").await;
}

/// Members get a new password one after the other. Whichever is first, new sessions begin all the time.
#[tokio::test]
async fn a_password_is_replaced_member_by_member() {
    let (cluster, proxy) = behind_a_proxy().await;
    for (password, order) in [("second", [1, 0]), ("third", [0, 1])] {
        for index in order {
            let member = &cluster.members[index];
            let mut config = member.read_config();
            config["postgresql"]["authentication"]["replication"]["password"] = password.into();
            member.write_config(&config);
            let replaced = || member.log_text().matches("passwords were replaced").count();
            let before = replaced();
            member.signal_supervisor(Signal::SIGHUP);
            cluster.wait_until(SOON, "it has the new password", async || before < replaced()).await;
            proxy.cut();
            turns_silent(&cluster).await;
            proxy.mend();
            wait_for_state(&cluster, 1, "heard").await;
        }
    }
}

/// A caller that does not know the password hears nothing, and does not disturb those who do.
#[tokio::test]
async fn a_stranger_hears_nothing() {
    let cluster = Plan::new(2).start().await;
    wait_for_state(&cluster, 1, "heard").await;
    let hear = async |password: &str| {
        let text = str::to_owned;
        let source = HeartbeatSource {
            scope: text("herd"),
            from: text("m3"),
            leader: text("m1"),
            api_url: format!("http://127.0.0.1:{}/patroni", cluster.members[0].api),
        };
        let keys = PeerKeys::of(&[text(password)], false, "herd");
        let mut heartbeats = Peers::default().listen(&source, &keys).await?;
        heartbeats.next().await
    };
    for password in ["", "guess"] {
        let refused = hear(password).await.expect_err("it is refused");
        assert!(matches!(refused, PeerError::Refused { .. }), "{refused}");
    }
    assert!(hear(PASSWORD).await.is_ok());
    assert_eq!(heartbeats(&cluster.members[1]).await["state"], "heard");
}

/// A replication user without a password.
pub(crate) fn without_password() -> Value {
    let rules = ["local all all scram-sha-256", "host replication replicator 127.0.0.1/32 trust"];
    json!({ "postgresql": {
        "authentication": { "replication": { "password": null } },
        "pg_hba": [rules[0], rules[1], "host all all 127.0.0.1/32 scram-sha-256"],
    } })
}

/// Without a password and without certificates nobody could know a member.
#[tokio::test]
async fn without_a_password_there_are_no_heartbeats() {
    let cluster = Plan::new(2).member(0, without_password()).member(1, without_password()).start().await;
    for member in &cluster.members {
        assert!(member.log_text().contains("members do not hear each other's heartbeats"), "{}", member.name);
    }
    cluster
        .stays(Duration::from_secs(3), "it is unknown", async || {
            heartbeats(&cluster.members[1]).await.is_null()
        })
        .await;
}

/// A leader that runs Patroni sends none, and nothing follows from that.
#[tokio::test]
async fn nothing_is_said_of_a_leader_that_sends_none() {
    let dynamic = json!({ "ttl": 20, "loop_wait": 2, "retry_timeout": 3 });
    let mut cluster = Plan::new(2).dynamic(dynamic).prepare().await;
    cluster.members[0].start_patroni();
    cluster.wait_for(3 * SOON, "m1 leads", |seen| seen.leader() == Some("m1")).await;
    cluster.members[1].start();
    cluster.wait_until_well().await;
    cluster
        .stays(Duration::from_secs(3), "it is unknown", async || {
            heartbeats(&cluster.members[1]).await.is_null()
        })
        .await;
}
