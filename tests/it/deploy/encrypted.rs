//! The certificates and the settings in use: etcd started as in its pods, and members that use TLS to etcd and to each
//! other.

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::overlay;
use super::settings;
use super::started::{Etcd, mount};
use crate::support::{Place, Plan, query};

/// etcd accepts the members by their certificate, a standby streams by TLS from a primary that it verifies, and a
/// network client without TLS is refused.
#[tokio::test]
async fn a_cluster_runs_on_the_printed_certificates() {
    let place = Place::new();
    let mut etcd = Etcd::start(&place, &overlay("dev"));
    let (client, server) = (mount(&place, "pg-etcd-client-tls"), mount(&place, "pg-postgres-tls"));
    let shared: Value =
        serde_saphyr::from_str(&settings::files(&overlay("dev"))["10-matriarch.yml"]).expect("YAML");
    let mut cluster = Plan::new(2)
        .all(json!({
            "etcd3": {
                "hosts": etcd.hosts(), "protocol": "https", "cacert": client.join("ca.crt"),
                "cert": client.join("tls.crt"), "key": client.join("tls.key"),
            },
        }))
        .prepare()
        .await;
    let mut rules = shared["postgresql"]["pg_hba"].as_array().expect("a list").clone();
    // The settings of this test's client.
    rules.push(json!("host all postgres 127.0.0.1/32 scram-sha-256"));
    for member in &cluster.members {
        let mut config = member.read_config();
        crate::support::merge(
            &mut config,
            &json!({"postgresql": {
                "parameters": {
                    "ssl": "on", "ssl_cert_file": server.join("tls.crt"), "ssl_key_file": server.join("tls.key"),
                    "ssl_ca_file": server.join("ca.crt"),
                },
                "authentication": {"replication": {"sslmode": "verify-ca", "sslrootcert": server.join("ca.crt")}},
                "pg_hba": rules,
            }}),
        );
        member.write_config(&config);
    }
    cluster.start().await;
    let port = cluster.members[0].postgres;
    let streams = "SELECT s.ssl FROM pg_stat_replication JOIN pg_stat_ssl s USING (pid)";
    // That m2 streams is its own word so far.
    let primary = &cluster.members[0];
    let shown = async || !primary.value(streams).await.is_empty();
    cluster.wait_until(Duration::from_secs(20), "m2 streams", shown).await;
    assert_eq!(primary.value(streams).await, "t");
    query(port, "CREATE ROLE app LOGIN PASSWORD 'x'").await.expect("it takes writes");
    let mut plain = crate::support::settings(&[port]);
    plain.user("app").password("x").connect_timeout(Duration::from_secs(5));
    let refused = crate::support::connect(&plain).await.expect_err("not without TLS");
    assert!(refused.contains("no encryption"), "{refused}");
    assert!(etcd.runs(), "etcd runs on");
}
