//! A PostgreSQL without a supervisor becomes a cluster, and later runs without one again; its owner loses no file, no
//! row and no login.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Cluster, Member, PASSWORD, Plan, command_as, connect, give, postgres_bin, settings};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const APP_PASSWORD: &str = "of the application";
/// With a byte that is not UTF-8, line ends of another system, and no line end at the end.
const THEIRS: &[u8] = b"# f\xfcr uns\r\nlocal all all peer\r\nhost replication replicator 127.0.0.1/32 md5\n\
    host all all 127.0.0.1/32 md5";

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let made = command_as(postgres_bin().join(program), folder).args(arguments).output().expect("it starts");
    assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

/// An existing primary with access rules written by hand, passwords stored as this `hash`, and WAL and one tablespace
/// outside the data directory.
fn standalone(member: &Member, sockets: &Path, hash: &str) {
    let folder = &member.folder;
    let wal = folder.join("wal").display().to_string();
    run(folder, "initdb", &["-D", "data", "-X", &wal, "-U", "postgres", "-A", "trust", "--no-sync"]);
    let own = format!(
        "port = {}\nunix_socket_directories = '{}'\npassword_encryption = {hash}\nfsync = off\n\
         wal_level = replica\nmax_connections = 130\n",
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
        "SET password_encryption = '{hash}'; ALTER ROLE postgres PASSWORD '{superuser}';
         CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{superuser}';
         CREATE ROLE rewinder LOGIN SUPERUSER PASSWORD '{superuser}';
         CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}';
         DO $$ BEGIN CREATE ROLE \"{os_user}\" LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    );
    let space = format!("CREATE TABLESPACE far LOCATION '{}'", space_of(member));
    let table = "CREATE TABLE kept TABLESPACE far AS SELECT 'by hand' AS row";
    let to = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1"];
    run(folder, "psql", &[&to[..], &["-c", &statements, "-c", &space, "-c", table]].concat());
    fs::write(member.data().join("pg_hba.conf"), THEIRS).expect("our own place is writable");
    run(folder, "pg_ctl", &["-D", "data", "reload"]);
}

/// The path of a member's tablespace.
fn space_of(member: &Member) -> String {
    let space = member.folder.join("space");
    fs::create_dir_all(&space).expect("our own place is writable");
    give(&space);
    space.display().to_string()
}

/// On one machine each member needs its own places for the files outside the data directory.
fn map_places(cluster: &Cluster) {
    let theirs = space_of(&cluster.members[0]);
    for member in &cluster.members[1..] {
        let mapping = format!("{theirs}={}", space_of(member));
        let mut config = member.read_config();
        config["postgresql"]["basebackup"] =
            json!([{ "tablespace-mapping": mapping }, { "waldir": member.folder.join("wal") }]);
        member.write_config(&config);
    }
}

fn start(member: &Member) {
    let log = member.folder.join("by-hand.log").display().to_string();
    run(&member.folder, "pg_ctl", &["-D", "data", "-w", "-l", &log, "start"]);
}

/// A user who logged in by a password, or as a user of this machine, still can.
async fn owners_get_in(member: &Member, sockets: &Path) {
    let mut app = settings(&[member.postgres]);
    app.user("app").password(APP_PASSWORD);
    connect(&app).await.unwrap_or_else(|error| panic!("app at {}: {error}", member.name));
    let (port, sockets) = (member.postgres.to_string(), sockets.display().to_string());
    let psql = ["-w", "-h", &sockets, "-p", &port, "-d", "postgres", "-Atc", "SELECT 'by peer'"];
    assert_eq!(run(&member.folder, "psql", &psql), "by peer");
}

/// The owner's content, and the present content.
fn files_of(member: &Member) -> Vec<Vec<u8>> {
    let names = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
    names.map(|name| fs::read(member.data().join(name)).expect("it is there")).into()
}

async fn becomes_a_cluster_and_back(running: bool, hash: &str) {
    let dynamic = json!({ "synchronous_mode": if running { "quorum" } else { "off" } });
    let plan = Plan::new(3).dynamic(dynamic).all(json!({ "postgresql": { "pg_hba": null } }));
    let mut cluster = plan.prepare().await;
    let sockets = cluster.place.folder("s");
    standalone(&cluster.members[0], &sockets, hash);
    map_places(&cluster);
    let theirs = files_of(&cluster.members[0]);
    owners_get_in(&cluster.members[0], &sockets).await;
    if !running {
        run(&cluster.members[0].folder, "pg_ctl", &["-D", "data", "-w", "stop"]);
    }
    becomes_a_cluster(&mut cluster, &sockets, running).await;
    if running {
        ends_in_pause(&mut cluster).await;
    } else {
        ends_in_good_order(&mut cluster).await;
        // An owner who forgets the way back is not locked out either.
        start(&cluster.members[0]);
        owners_get_in(&cluster.members[0], &sockets).await;
        run(&cluster.members[0].folder, "pg_ctl", &["-D", "data", "-w", "stop"]);
    }
    goes_back(&cluster.members[0], running).await;
    owners_get_in(&cluster.members[0], &sockets).await;
    assert_eq!(files_of(&cluster.members[0]), theirs, "byte for byte");
}

async fn becomes_a_cluster(cluster: &mut Cluster, sockets: &Path, running: bool) {
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].start();
    cluster.wait_for(SOON, "m1 leads", |seen| seen.leader() == Some("m1")).await;
    cluster.wait_until_writable(0, SOON).await;
    if running {
        assert_eq!(cluster.members[0].postmaster(), postmaster, "nothing was restarted");
    }
    owners_get_in(&cluster.members[0], sockets).await;
    cluster.members[1].start();
    cluster.members[2].start();
    cluster.wait_until_well().await;
    for member in &cluster.members {
        let hba = fs::read(member.data().join("pg_hba.conf")).expect("it is there");
        assert!(hba.ends_with(THEIRS), "{}: {}", member.name, String::from_utf8_lossy(&hba));
        let wal = fs::read_link(member.data().join("pg_wal")).expect("a link");
        assert_eq!(wal, member.folder.join("wal"));
    }
    let kept = fs::read(cluster.members[0].data().join("pg_hba.conf.before-matriarch")).expect("a copy");
    assert_eq!(kept, THEIRS);
    hand_over(cluster, 0, 1).await;
    cluster.members[1].sql("INSERT INTO kept VALUES ('as a cluster')").await.expect("m2 leads");
    owners_get_in(&cluster.members[0], sockets).await;
    owners_get_in(&cluster.members[1], sockets).await;
    // It had higher values than the configured ones: they are lowered by a restart of each member, the leader first.
    for index in [1, 0, 2] {
        let answer = cluster.members[index].post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(cluster.members[index].value("SHOW max_connections").await, "100");
        cluster.wait_until_well().await;
    }
    let done = |seen: &crate::support::Seen| {
        ["m1", "m2", "m3"].iter().all(|name| seen.member(name)["pending_restart"] != true)
    };
    cluster.wait_for(SOON, "nothing is pending", done).await;
    hand_over(cluster, 1, 0).await;
}

async fn hand_over(cluster: &Cluster, from: usize, to: usize) {
    let (leader, candidate) = (&cluster.members[from], &cluster.members[to]);
    let request = json!({ "leader": leader.name, "candidate": candidate.name });
    let answer = leader.post("/switchover", &request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.wait_until_well().await;
    cluster.wait_until_writable(to, SOON).await;
}

/// The supervisors end for good, the leader's last; that one stops its PostgreSQL.
async fn ends_in_good_order(cluster: &mut Cluster) {
    end_supervisors(cluster).await;
    assert_eq!(cluster.members[0].postmaster(), None, "{}", cluster.story());
}

/// The same in pause: no PostgreSQL is stopped, and clients of the primary notice nothing.
async fn ends_in_pause(cluster: &mut Cluster) {
    let postmaster = cluster.members[0].postmaster();
    let output = cluster.members[0].command(&["pause", "--wait", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    end_supervisors(cluster).await;
    assert_eq!(cluster.members[0].postmaster(), postmaster, "{}", cluster.story());
    for member in &cluster.members[1..] {
        run(&member.folder, "pg_ctl", &["-D", "data", "-w", "-m", "fast", "stop"]);
    }
}

async fn end_supervisors(cluster: &mut Cluster) {
    for index in [2, 1, 0] {
        cluster.members[index].terminate();
        let ended = cluster.members[index].exit_code(SOON).await;
        assert_eq!(ended, Some(0), "{}", cluster.story());
    }
}

/// Exactly the commands of the operator's guide, in the data directory.
async fn goes_back(member: &Member, running: bool) {
    let manual =
        include_str!("../../deploy/guide/adoption.md").split("### And back").nth(1).expect("a section");
    let commands: Vec<&str> = manual.lines().filter_map(|line| line.strip_prefix("    ")).take(6).collect();
    let [files, access, reload, restart, slots, role] = commands[..] else { panic!("{commands:?}") };
    let execute = |command: &str| {
        let path = format!("{}:/usr/bin:/bin", postgres_bin().display());
        let mut shell = command_as("sh", &member.data());
        shell.env("PATH", path).env("PGDATA", member.data()).env("PGHOST", "127.0.0.1");
        shell
            .env("PGPORT", member.postgres.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", PASSWORD);
        let done = shell.args(["-ec", command]).output().expect("it starts");
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    };
    execute(files);
    execute(access);
    if running {
        execute(reload);
        member.sql("INSERT INTO kept VALUES ('left running')").await.expect("commits wait for nobody");
        execute(restart);
    } else {
        start(member);
    }
    execute(&slots.replace("pg_2", "m2").replace("pg_3", "m3"));
    execute(role);
    let rows = member.value("SELECT string_agg(row, ', ' ORDER BY row) FROM kept").await;
    let left_running = if running { ", left running" } else { "" };
    assert_eq!(rows, format!("as a cluster, by hand{left_running}"));
    assert_eq!(member.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    assert_eq!(member.value("SELECT pg_is_in_recovery()").await, "f");
    assert_eq!(member.value("SHOW max_connections").await, "130");
    assert_eq!(member.value("SHOW restart_after_crash").await, "on", "nothing is left of our command line");
}

/// Written with `wal_level = minimal`, from which no standby can start: the level is raised before the start as a
/// standby, and the cluster grows and hands over like any other.
#[tokio::test]
async fn a_primary_with_minimal_wal_becomes_a_cluster() {
    let mut cluster = Plan::new(2).all(json!({ "postgresql": { "pg_hba": null } })).prepare().await;
    let sockets = cluster.place.folder("s");
    standalone(&cluster.members[0], &sockets, "md5");
    map_places(&cluster);
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
async fn a_running_primary_becomes_a_cluster_and_goes_back_in_pause() {
    becomes_a_cluster_and_back(true, "md5").await;
}

#[tokio::test]
async fn a_stopped_primary_becomes_a_cluster_and_goes_back() {
    becomes_a_cluster_and_back(false, "scram-sha-256").await;
}
