//! Wrong input: a clear message, no harm, and a documented exit code.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Etcd, Member, PASSWORD, Place, Plan, free_port, merge};

const SOON: Duration = Duration::from_secs(30);

/// Files that are no configuration: invalid YAML, no mapping, missing.
#[tokio::test]
async fn an_invalid_configuration_file_is_refused() {
    let place = Place::new();
    let member = Member::prepare(&place, "m1", &json!({}), &json!({}));
    for text in ["scope: [unclosed\n", "just a text\n", "scope: a\nscope: b\n"] {
        std::fs::write(member.config_file(), text).expect("our own place is writable");
        let output = member.binary(&["check", &member.config_file().to_string_lossy()]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text:?}: {said}");
        assert!(said.contains("config.yml"), "it names the file: {said}");
    }
    let output = member.binary(&["run", "/nonexistent/config.yml"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

/// Several faults at once: `check` reports each of them with its key, and `run` does not start.
#[tokio::test]
async fn all_faults_are_reported_together() {
    let mut cluster = Plan::new(1).prepare().await;
    let faults = json!({
        "scope": null,
        "restapi": { "listen": "nowhere" },
        "bootstrap": { "dcs": { "ttl": "soon" } },
        "postgresql": { "bin_dir": "/nonexistent/bin", "authentication": { "replication": null } },
    });
    change(&cluster, &faults);
    let member = &mut cluster.members[0];
    let output = member.binary(&["check", &member.config_file().to_string_lossy()]).await;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for key in ["scope", "restapi.listen", "bootstrap.dcs.ttl", "bin_dir", "replication"] {
        assert!(said.contains(key), "{key} is not named:\n{said}");
    }
    member.expected_errors.push(String::new());
    member.start();
    assert_eq!(member.exit_code(SOON).await, Some(3), "{}", member.log_text());
}

/// The data directory belongs to its user, but its parent does not, as after `mkdir -p` as root and `chown` of the last
/// directory. `check` and `run` name the remedy, and the remedy works.
#[tokio::test]
async fn a_data_directory_in_an_unwritable_one_is_refused_with_advice() {
    let mut cluster = Plan::new(1).prepare().await;
    let theirs = cluster.place.folder("m1/theirs");
    let data_dir = cluster.place.folder("m1/theirs/patroni");
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).expect("ours");
    std::fs::set_permissions(&theirs, Permissions::from_mode(0o555)).expect("ours");
    change(&cluster, &json!({ "postgresql": { "data_dir": data_dir } }));
    let member = &mut cluster.members[0];
    let output = member.binary(&["check", &member.config_file().to_string_lossy()]).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("postgresql.data_dir") && said.contains("chown"), "{said}");
    member.expected_errors.push("cannot be written by user".to_owned());
    member.start();
    assert_eq!(member.exit_code(SOON).await, Some(3), "{}", member.log_text());
    let advised = format!("{}/data", data_dir.display());
    assert!(said.contains(&advised) && member.log_text().contains(&advised), "{}", member.log_text());
    change(&cluster, &json!({ "postgresql": { "data_dir": advised } }));
    cluster.start().await;
}

/// An unknown key, or a parameter that PostgreSQL does not know, is a warning that names the nearest known one, and an
/// error with `--strict`.
#[tokio::test]
async fn an_unknown_key_is_a_warning() {
    let cluster = Plan::new(1).prepare().await;
    change(&cluster, &json!({ "postgresql": { "data_dirr": "x", "parameters": { "work_memm": "8MB" } } }));
    let member = &cluster.members[0];
    let file = member.config_file().to_string_lossy().into_owned();
    let lenient = member.binary(&["check", &file]).await;
    assert!(lenient.status.success(), "{lenient:?}");
    let said = [lenient.stdout, lenient.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("data_dirr") && said.contains("did you mean `data_dir`?"), "{said}");
    assert!(said.contains("parameters.work_memm") && said.contains("did you mean `work_mem`?"), "{said}");
    let strict = member.binary(&["check", "--strict", &file]).await;
    assert_eq!(strict.status.code(), Some(3), "{strict:?}");
}

/// `check` and the start report which clients may change something over REST, in every configuration.
#[tokio::test]
async fn the_write_access_over_rest_is_reported() {
    let mut cluster = Plan::new(1).prepare().await;
    let login = json!({ "username": "admin", "password": "x" });
    for (settings, words) in [
        (json!({}), "from this machine and from members of the cluster only"),
        (json!({ "allow_unauthenticated_writes": true }), "from everybody who reaches the port"),
        (json!({ "authentication": login, "allow_unauthenticated_writes": null }), "as `restapi` says"),
    ] {
        change(&cluster, &json!({ "restapi": settings }));
        let file = cluster.members[0].config_file().to_string_lossy().into_owned();
        let output = cluster.members[0].binary(&["check", "--strict", &file]).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains(words), "{said}");
    }
    change(&cluster, &json!({ "restapi": { "authentication": null } }));
    cluster.start().await;
    let log = cluster.members[0].log_text();
    let warnings = log.lines().filter(|line| line.contains("requests that change something"));
    assert_eq!(warnings.filter(|line| line.contains("WARN")).count(), 1, "{log}");
}

/// Another program listens on the REST port.
#[tokio::test]
async fn a_rest_port_in_use_is_reported() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &mut cluster.members[0];
    member.expected_errors.push(String::new());
    let _other = std::net::TcpListener::bind(("127.0.0.1", member.api)).expect("the port is ours");
    member.start();
    assert_eq!(member.exit_code(SOON).await, Some(6), "{}", member.log_text());
    assert!(member.log_text().contains(&member.api.to_string()), "{}", member.log_text());
}

/// etcd is not running when a member starts: the member waits and reports it, and starts as soon as etcd does.
#[tokio::test]
async fn an_unreachable_etcd_is_waited_for() {
    let mut cluster = Plan::new(1).prepare().await;
    cluster.etcd.kill();
    let member = &mut cluster.members[0];
    member.start();
    cluster
        .wait_until(SOON, "the log names etcd's address", async || {
            cluster.members[0].log_text().contains(&cluster.etcd.hosts()[0])
        })
        .await;
    assert!(cluster.members[0].supervisor_lives(), "it waits");
    assert!(!cluster.members[0].data().join("PG_VERSION").exists(), "and makes nothing meanwhile");
    cluster.etcd.start_again().await;
    cluster.wait_until_well().await;
}

/// etcd requires a password and gets a wrong one: the member reports it and creates nothing.
#[tokio::test]
async fn a_wrong_etcd_password_is_reported() {
    let mut cluster = Plan::new(1).prepare().await;
    enable_authentication(&cluster.etcd).await;
    change(&cluster, &json!({ "etcd3": { "username": "root", "password": "wrong" } }));
    cluster.members[0].expected_errors.push(String::new());
    cluster.members[0].start();
    cluster
        .wait_until(SOON, "the log speaks of authentication", async || {
            let log = cluster.members[0].log_text().to_lowercase();
            log.contains("authentication") || log.contains("password")
        })
        .await;
    assert!(!cluster.members[0].data().join("PG_VERSION").exists());
}

/// With the right password the cluster works, also when etcd's tokens expire.
#[tokio::test]
async fn etcd_with_users_works() {
    let mut cluster = Plan::new(1).prepare().await;
    enable_authentication(&cluster.etcd).await;
    change(&cluster, &json!({ "etcd3": { "username": "root", "password": PASSWORD } }));
    cluster.members[0].start();
    cluster.wait_until_well().await;
}

/// A standby with a wrong replication password: the standby reports it, and the primary is not affected.
#[tokio::test]
async fn a_wrong_replication_password_is_reported() {
    let wrong = json!({ "postgresql": { "authentication": { "replication": { "password": "wrong" } } } });
    let mut cluster = Plan::new(2).member(1, wrong).prepare().await;
    cluster.members[1].expected_errors.push(String::new());
    cluster.members[0].start();
    cluster.wait_for(Duration::from_secs(60), "m1 leads", |seen| seen.leader() == Some("m1")).await;
    cluster.members[1].start();
    cluster
        .wait_until(SOON, "m2 says what is wrong", async || {
            cluster.members[1].log_text().contains("password authentication failed")
        })
        .await;
    cluster
        .wait_until(SOON, "m1 is the primary", async || cluster.members[0].status("/primary").await == 200)
        .await;
}

/// Requests that change something need the REST API's credentials; requests that read do not.
#[tokio::test]
async fn writes_need_the_credentials() {
    let account = json!({ "restapi": { "authentication": { "username": "ops", "password": "secret" } } });
    let cluster = Plan::new(1).all(account).start().await;
    let member = &cluster.members[0];
    let change = json!({ "loop_wait": 4 });
    let refused = crate::support::request(member.api, "PATCH", "/config", None, Some(&change), SOON).await;
    let refused = refused.expect("it answers");
    assert_eq!(refused.status, 401);
    assert!(
        refused.head.to_lowercase().contains("www-authenticate: basic realm=\"patroni\""),
        "{}",
        refused.head
    );
    assert_eq!(member.status("/config").await, 200);
    assert_eq!(member.send("PATCH", "/config", Some(&change)).await.status, 200);
}

/// Bodies that are no JSON objects are refused, and unknown keys are named.
#[tokio::test]
async fn bad_bodies_are_refused() {
    let cluster = Plan::new(1).start().await;
    let member = &cluster.members[0];
    assert_eq!(member.post("/switchover", &json!([1])).await.status, 400);
    assert_eq!(member.send("PATCH", "/config", None).await.status, 411);
    let answer = member.post("/restart", &json!({ "colour": "green" })).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("colour"), "{}", answer.body);
    assert_eq!(member.post("/nowhere", &json!({})).await.status, 501);
    assert_eq!(member.status("/primary").await, 200);
}

/// Two members with the same Postgres port: the second does not displace the first.
#[tokio::test]
async fn a_postgres_port_in_use_is_reported() {
    let mut cluster = Plan::new(1).prepare().await;
    let taken = free_port();
    let _other = std::net::TcpListener::bind(("127.0.0.1", taken)).expect("the port is ours");
    let address = format!("127.0.0.1:{taken}");
    change(&cluster, &json!({ "postgresql": { "listen": address, "connect_address": address } }));
    let member = &mut cluster.members[0];
    member.expected_errors.push(String::new());
    member.start();
    cluster
        .wait_until(SOON, "the log names the port", async || {
            cluster.members[0].log_text().contains(&taken.to_string())
        })
        .await;
}

/// Merges into the first member's configuration.
fn change(cluster: &Cluster, over: &Value) {
    let mut config = cluster.members[0].read_config();
    merge(&mut config, over);
    cluster.members[0].write_config(&config);
}

async fn enable_authentication(etcd: &Etcd) {
    etcd.write("/v3/auth/user/add", &json!({ "name": "root", "password": PASSWORD })).await;
    etcd.write("/v3/auth/role/add", &json!({ "name": "root" })).await;
    etcd.write("/v3/auth/user/grant", &json!({ "user": "root", "role": "root" })).await;
    etcd.write("/v3/auth/enable", &json!({})).await;
}
