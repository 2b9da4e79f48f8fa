//! The certificates and the settings, at work: etcd as its pods start it, and members that speak TLS to it and to each
//! other.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::objects::overlay;
use super::pods::pods;
use super::{secrets, settings};
use crate::support::{Place, Plan, command_as, free_port, query, user};

/// Writes a Secret's files, for the account that the members run as, and gives their folder.
fn mount(place: &Place, name: &str) -> PathBuf {
    let folder = place.folder(name);
    for key in ["ca.crt", "tls.crt", "tls.key"] {
        let file = folder.join(key);
        std::fs::write(&file, secrets::text(name, key)).expect("our own place is writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("our own place is writable");
        user::give(&file);
    }
    folder
}

/// Starts etcd with the environment of dev's pod, for a pod named etcd-0 whose names all lead to this machine. Ends
/// with `place`.
fn start_etcd(place: &Place, client: u16) -> Child {
    let bundle = overlay("dev");
    let pod = pods(&bundle).into_iter().find(|pod| pod.owner == "StatefulSet etcd").expect("it is there");
    let tls = mount(place, "etcd-tls");
    let folder = place.folder("etcd");
    let mut command = command_as("etcd", &folder);
    let (peer, metrics) = (free_port(), free_port());
    let moved = [
        ("pg-1", "etcd-0".to_owned()),
        ("etcd-0.etcd", "localhost".to_owned()),
        ("0.0.0.0", "127.0.0.1".to_owned()),
        (":2379", format!(":{client}")),
        (":2380", format!(":{peer}")),
        (":2381", format!(":{metrics}")),
        ("/etc/etcd/tls", tls.display().to_string()),
        ("/var/lib/etcd/member", folder.join("member").display().to_string()),
    ];
    for (name, value) in settings::environment(&pod.spec.containers[0]) {
        let here = |value: String, (from, to): &(&str, String)| value.replace(from, to);
        command.env(name, moved.iter().fold(value, here));
    }
    let log = std::fs::File::create(folder.join("log")).expect("our own place is writable");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("etcd starts")
}

/// etcd takes the members by their certificate, a standby streams by TLS from a primary that it verifies, and whoever
/// comes over the network without TLS stays outside.
#[tokio::test]
async fn a_cluster_runs_on_the_printed_certificates() {
    let place = Place::new();
    let port = free_port();
    let mut etcd = start_etcd(&place, port);
    let (client, server) = (mount(&place, "pg-etcd-client-tls"), mount(&place, "pg-postgres-tls"));
    let shared: Value =
        serde_saphyr::from_str(&settings::files(&overlay("dev"))["10-matriarch.yml"]).expect("YAML");
    let mut cluster = Plan::new(2)
        .all(json!({
            "etcd3": {
                "hosts": format!("localhost:{port}"), "protocol": "https", "cacert": client.join("ca.crt"),
                "cert": client.join("tls.crt"), "key": client.join("tls.key"),
            },
        }))
        .prepare()
        .await;
    let mut rules = shared["postgresql"]["pg_hba"].as_array().expect("a list").clone();
    // How this test asks.
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
    assert_eq!(query(port, streams).await.expect("it answers"), [["t"]]);
    query(port, "CREATE ROLE app LOGIN PASSWORD 'x'").await.expect("it takes writes");
    let mut plain = crate::support::settings(&[port]);
    plain.user("app").password("x").connect_timeout(Duration::from_secs(5));
    let refused = crate::support::connect(&plain).await.expect_err("not without TLS");
    assert!(refused.contains("no encryption"), "{refused}");
    assert!(matches!(etcd.try_wait(), Ok(None)), "etcd runs on");
    drop(cluster);
    drop(place);
    let _ = etcd.wait();
}
