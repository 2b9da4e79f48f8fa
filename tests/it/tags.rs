//! The tags of a member, changed while it runs.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Cluster, Plan};

const SOON: Duration = Duration::from_secs(20);

/// Tags are taken at SIGHUP and at `POST /reload`: in etcd, in the health checks, and in the choice of standbys.
#[tokio::test]
async fn a_reload_takes_new_tags() {
    let cluster = Plan::new(2).dynamic(json!({ "synchronous_mode": true })).start().await;
    let m2 = &cluster.members[1];
    wait_for_sync_standby(&cluster, &json!("m2")).await;
    assert_eq!((m2.status("/replica").await, m2.status("/replica?tag_dc=b").await), (200, 503));

    let tags =
        json!({ "dc": "b", "noloadbalance": true, "nosync": true, "nofailover": false, "clonefrom": true });
    write_tags(&cluster, &tags);
    m2.signal_supervisor(Signal::SIGHUP);
    wait_for_tags(&cluster, &json!({ "dc": "b", "noloadbalance": true, "nosync": true, "clonefrom": true }))
        .await;
    assert_eq!((m2.status("/replica").await, m2.status("/read-only?tag_dc=b").await), (503, 503));
    let shown = m2.get("/patroni").await.expect("it answers").json();
    assert_eq!(shown["tags"]["dc"], "b", "{shown}");
    wait_for_sync_standby(&cluster, &Value::Null).await;

    write_tags(&cluster, &json!({ "dc": "c" }));
    assert_eq!(m2.post("/reload", &json!({})).await.status, 202);
    wait_for_tags(&cluster, &json!({ "dc": "c" })).await;
    assert_eq!((m2.status("/replica?tag_dc=c").await, m2.status("/replica?tag_dc=b").await), (200, 503));
    wait_for_sync_standby(&cluster, &json!("m2")).await;
}

fn write_tags(cluster: &Cluster, tags: &Value) {
    let m2 = &cluster.members[1];
    let mut config = m2.read_config();
    config["tags"] = tags.clone();
    m2.write_config(&config);
}

async fn wait_for_tags(cluster: &Cluster, tags: &Value) {
    let key = async || {
        let text = cluster.etcd.get("/service/herd/members/m2").await.unwrap_or_default();
        serde_json::from_str::<Value>(&text).unwrap_or_default()["tags"] == *tags
    };
    cluster.wait_until(SOON, &format!("the record of m2 has {tags}"), key).await;
}

async fn wait_for_sync_standby(cluster: &Cluster, standby: &Value) {
    let key = async || {
        let text = cluster.etcd.get("/service/herd/sync").await.unwrap_or_default();
        serde_json::from_str::<Value>(&text).unwrap_or_default()["sync_standby"] == *standby
    };
    cluster.wait_until(SOON, &format!("the synchronous standby is {standby}"), key).await;
}
