//! A PostgreSQL that somebody runs by hand becomes a cluster, and its owner loses neither a file nor a login.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Member, PASSWORD, Plan, command_as, connect, postgres_bin, settings};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const APP_PASSWORD: &str = "stored as md5";
/// With a byte that is no UTF-8, the line ends of another system, and none at the end.
const THEIRS: &[u8] = b"# f\xfcr uns\r\nlocal all all peer\r\nhost replication replicator 127.0.0.1/32 md5\n\
    host all all 127.0.0.1/32 md5";

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let made = command_as(postgres_bin().join(program), folder).args(arguments).output().expect("it starts");
    assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

/// The primary of somebody who stores MD5 hashes and whose rules are written by hand.
fn standalone(member: &Member, sockets: &Path) {
    let folder = &member.folder;
    run(folder, "initdb", &["-D", "data", "-U", "postgres", "-A", "trust", "--no-sync"]);
    let own = format!(
        "port = {}\nunix_socket_directories = '{}'\npassword_encryption = md5\nfsync = off\nwal_level = replica\n\
         max_connections = 130\n",
        member.postgres,
        sockets.display()
    );
    let file = member.data().join("postgresql.conf");
    let initial = fs::read_to_string(&file).expect("initdb wrote it");
    fs::write(&file, initial + &own).expect("our own place is writable");
    start(member);
    let port = member.postgres.to_string();
    let os_user = run(folder, "/usr/bin/id", &["-un"]);
    let superuser = PASSWORD.replace('\'', "''");
    let statements = format!(
        "SET password_encryption = md5; ALTER ROLE postgres PASSWORD '{superuser}';
         CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{superuser}';
         CREATE ROLE rewinder LOGIN SUPERUSER PASSWORD '{superuser}';
         CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}';
         DO $$ BEGIN CREATE ROLE \"{os_user}\" LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    );
    let to = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres"];
    run(folder, "psql", &[&to[..], &["-v", "ON_ERROR_STOP=1", "-c", &statements]].concat());
    fs::write(member.data().join("pg_hba.conf"), THEIRS).expect("our own place is writable");
    run(folder, "pg_ctl", &["-D", "data", "reload"]);
}

fn start(member: &Member) {
    let log = member.folder.join("by-hand.log").display().to_string();
    run(&member.folder, "pg_ctl", &["-D", "data", "-w", "-l", &log, "start"]);
}

/// Whoever came by a password or as a user of this machine still does.
async fn owners_get_in(member: &Member, sockets: &Path) {
    let mut app = settings(&[member.postgres]);
    app.user("app").password(APP_PASSWORD);
    connect(&app).await.unwrap_or_else(|error| panic!("app at {}: {error}", member.name));
    let (port, sockets) = (member.postgres.to_string(), sockets.display().to_string());
    let psql = ["-w", "-h", &sockets, "-p", &port, "-d", "postgres", "-Atc", "SELECT 'by peer'"];
    assert_eq!(run(&member.folder, "psql", &psql), "by peer");
}

async fn becomes_a_cluster(running: bool) {
    let mut cluster = Plan::new(2).all(json!({ "postgresql": { "pg_hba": null } })).prepare().await;
    let sockets = cluster.place.folder("s");
    standalone(&cluster.members[0], &sockets);
    owners_get_in(&cluster.members[0], &sockets).await;
    if !running {
        run(&cluster.members[0].folder, "pg_ctl", &["-D", "data", "-w", "stop"]);
    }
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].start();
    cluster.wait_for(SOON, "m1 leads", |seen| seen.leader() == Some("m1")).await;
    cluster.wait_until_writable(0, SOON).await;
    if running {
        assert_eq!(cluster.members[0].postmaster(), postmaster, "nothing was restarted");
    }
    owners_get_in(&cluster.members[0], &sockets).await;
    cluster.members[1].start();
    cluster.wait_until_well().await;
    for member in &cluster.members {
        let hba = fs::read(member.data().join("pg_hba.conf")).expect("it is there");
        assert!(hba.ends_with(THEIRS), "{}: {}", member.name, String::from_utf8_lossy(&hba));
    }
    let kept = fs::read(cluster.members[0].data().join("pg_hba.conf.before-matriarch")).expect("a copy");
    assert_eq!(kept, THEIRS);
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.wait_until_well().await;
    owners_get_in(&cluster.members[0], &sockets).await;
    owners_get_in(&cluster.members[1], &sockets).await;
    // It had more than is configured: that ends with a restart of each, the leader first.
    for index in [1, 0] {
        let answer = cluster.members[index].post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(cluster.members[index].value("SHOW max_connections").await, "100");
        cluster.wait_until_well().await;
    }
    let done = |seen: &crate::support::Seen| {
        ["m1", "m2"].iter().all(|name| seen.member(name)["pending_restart"] != true)
    };
    cluster.wait_for(SOON, "nothing is pending", done).await;
}

/// Written with `wal_level = minimal`, from which no standby starts: it is raised before it is started as one, and the
/// cluster grows and hands over as any other.
#[tokio::test]
async fn a_primary_with_minimal_wal_becomes_a_cluster() {
    let mut cluster = Plan::new(2).all(json!({ "postgresql": { "pg_hba": null } })).prepare().await;
    let sockets = cluster.place.folder("s");
    standalone(&cluster.members[0], &sockets);
    run(&cluster.members[0].folder, "pg_ctl", &["-D", "data", "-w", "stop"]);
    let file = cluster.members[0].data().join("postgresql.conf");
    let theirs =
        fs::read_to_string(&file).expect("it is there") + "wal_level = minimal\nmax_wal_senders = 0\n";
    fs::write(&file, theirs).expect("our own place is writable");
    start(&cluster.members[0]);
    run(&cluster.members[0].folder, "pg_ctl", &["-D", "data", "-w", "stop"]);
    let control = run(&cluster.members[0].folder, "pg_controldata", &["data"]);
    let is_minimal = |line: &str| line.starts_with("wal_level setting:") && line.ends_with("minimal");
    assert!(control.lines().any(is_minimal), "{control}");
    cluster.start().await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.wait_until_well().await;
}

#[tokio::test]
async fn a_running_primary_becomes_a_cluster() {
    becomes_a_cluster(true).await;
}

#[tokio::test]
async fn a_stopped_primary_becomes_a_cluster() {
    becomes_a_cluster(false).await;
}
