//! As a container's entrypoint: PID 1, started as root, without a configuration file, with the conventions of the
//! official image.

mod container;

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use container::Container;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

use crate::support::{Etcd, PASSWORD, Place, until};

/// Long enough for a bootstrap or a clone on a busy machine.
const SOON: Duration = Duration::from_secs(90);

/// Only root can create a container; for other users there is nothing to test.
fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The value that a superuser reads.
async fn ask(container: &Container, sql: &str) -> String {
    let answer = container.value("postgres", PASSWORD, "postgres", sql).await;
    answer.unwrap_or_else(|error| panic!("{sql}: {error}\n{}", container.log()))
}

/// No file, and only the variables for the cluster, etcd and two secrets; everything else comes from the pod. Nothing
/// runs as root, the image's variables have the image's effects, orphans are reaped, and SIGTERM ends the container
/// cleanly.
#[tokio::test]
async fn a_pod_needs_no_configuration_file_and_no_root_process() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let etcd = Etcd::start(&place, 1).await;
    let mut pod = Container::prepare(&place, &etcd, 0);
    let said = [
        ("POSTGRES_USER", "boss"),
        ("POSTGRES_DB", "shop"),
        ("POSTGRES_INITDB_ARGS", "-k --lc-collate=C"),
        (
            "MATRIARCH_BOOTSTRAP_PG_HBA",
            "host all all all scram-sha-256\nhost replication all all scram-sha-256",
        ),
    ];
    pod.variables.extend(said.map(|(name, value)| (name.to_owned(), value.to_owned())));
    pod.words.extend(["-c", "max_connections=57", "-c", "work_mem=7MB"].map(str::to_owned));
    pod.start();
    pod.wait_for("/primary", SOON).await;
    for path in ["/startup", "/liveness", "/readiness"] {
        assert_eq!(pod.status(path).await, 200, "{path}");
    }
    let expected = "boss t shop UTF8 C C.UTF-8 on 57 7MB 16MB";
    let facts = "SELECT concat_ws(' ', rolname, rolsuper, current_database(), pg_encoding_to_char(encoding),
                        datcollate, datctype, current_setting('data_checksums'), current_setting('max_connections'),
                        current_setting('work_mem'), current_setting('shared_buffers'))
                 FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user";
    assert_eq!(pod.value("boss", PASSWORD, "shop", facts).await.as_deref(), Ok(expected), "{}", pod.log());
    let shown = pod.cluster().await;
    assert_eq!(shown["members"][0]["name"], "pg-0", "{shown}");
    assert_eq!(shown["members"][0]["host"], "pg-0.pg.test.svc", "{shown}");

    let owner = User::from_name("postgres").expect("passwd").expect("the user postgres").uid.as_raw();
    let processes = pod.processes();
    assert!(processes.len() > 5, "supervisor, guard and Postgres: {processes:?}");
    for pid in processes {
        let uid = std::fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid());
        let title = matriarch::os::process::title(pid);
        assert!(uid.is_err() || uid.is_ok_and(|uid| uid == owner), "{title:?} runs as its user");
    }
    let data = std::fs::metadata(pod.data()).expect("it is there");
    assert_eq!((data.uid(), data.mode() & 0o777), (owner, 0o700));
    let sockets = std::fs::metadata(pod.folder.join("run")).expect("it is there");
    assert_eq!((sockets.uid(), sockets.mode() & 0o7777), (owner, 0o3775));

    leaves_no_orphans(&pod).await;
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.exit_code(SOON).await, Some(0), "{}", pod.log());
    assert!(pod.log().contains("database system is shut down"), "{}", pod.log());
}

/// PID 1 has to reap a process whose parent is gone.
async fn leaves_no_orphans(pod: &Container) {
    let init = pod.init().expect("it runs");
    let sleeper = || {
        let titled = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
        };
        pod.processes().into_iter().chain(matriarch::os::process::children(init)).find(titled)
    };
    let mut command = Command::new("nsenter");
    command.args(["--target", &init.to_string(), "--pid", "--mount", "sh", "-c", "sleep 2 & "]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("nsenter starts").success());
    assert!(sleeper().is_some(), "it runs on without its parent");
    let zombie = || {
        let stats = matriarch::os::process::all().filter_map(matriarch::os::process::stat);
        stats.filter(|stat| stat.parent == init && stat.is_zombie()).count()
    };
    let gone = until(SOON, async || (sleeper().is_none() && zombie() == 0).then_some(())).await;
    assert!(gone.is_some(), "an orphan stays\n{}", pod.log());
}

/// Scripts run in the order of their names, each according to its type, and only where the cluster is made: neither on
/// the replica nor when the container is started again.
#[tokio::test]
async fn scripts_run_once_in_order_by_their_kind() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let etcd = Etcd::start(&place, 1).await;
    let mut pods = [Container::prepare(&place, &etcd, 0), Container::prepare(&place, &etcd, 1)];
    let note = |what: &str| format!("INSERT INTO notes (what) VALUES ('{what}');\n");
    for pod in &mut pods {
        pod.variables.insert("POSTGRES_DB".to_owned(), "shop".to_owned());
        pod.script("00-table.sql", "CREATE TABLE notes (id serial, what text);\n", 0o644);
        let executed = "#!/bin/sh\npsql -v ON_ERROR_STOP=1 --username \"$POSTGRES_USER\" --dbname \"$POSTGRES_DB\" \
                        -c \"INSERT INTO notes (what) VALUES ('executed as $(id -un) in $PGDATA')\"\n";
        pod.script("10-executed.sh", executed, 0o755);
        let sourced = "words=(read by bash)\ndocker_process_sql <<< \"INSERT INTO notes (what) VALUES ('${words[*]}')\"\n";
        pod.script("20-sourced.sh", sourced, 0o644);
        pod.script("30-packed.sql.gz", packed(&note("packed")), 0o644);
        pod.script("40-README", note("never"), 0o644);
        pod.script("5-last.sql", note("last"), 0o644);
    }
    pods[0].start();
    pods[0].wait_for("/primary", SOON).await;
    let executed = format!("executed as postgres in {}", pods[0].data().display());
    let expected = format!("{executed}|read by bash|packed|last");
    let notes = "SELECT string_agg(what, '|' ORDER BY id) FROM notes";
    let read = pods[0].value("postgres", PASSWORD, "shop", notes).await;
    assert_eq!(read, Ok(expected.clone()), "{}", pods[0].log());
    assert!(pods[0].log().contains("40-README"), "what is left out is said\n{}", pods[0].log());

    pods[1].start();
    pods[1].wait_for("/readiness", SOON).await;
    pods[0].signal(Signal::SIGINT);
    assert_eq!(pods[0].exit_code(SOON).await, Some(0), "{}", pods[0].log());
    pods[1].wait_for("/primary", SOON).await;
    pods[0].start();
    pods[0].wait_for("/readiness", SOON).await;
    for pod in &pods {
        assert_eq!(
            pod.value("postgres", PASSWORD, "shop", notes).await,
            Ok(expected.clone()),
            "{}",
            pod.name
        );
    }
}

fn packed(text: &str) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    gzip.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = gzip.spawn().expect("gzip starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends").stdout
}

/// A script that fails ends the bootstrap, with its output in the log, and half-made data is never used as a cluster.
/// With the script repaired, the same pod makes one.
#[tokio::test]
async fn a_failing_script_stops_the_bootstrap() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let etcd = Etcd::start(&place, 1).await;
    let mut pod = Container::prepare(&place, &etcd, 0);
    pod.script(
        "1.sql",
        "CREATE TABLE before ();\nSELECT no_such_function();\nCREATE TABLE after ();\n",
        0o644,
    );
    pod.start();
    assert_eq!(pod.exit_code(SOON).await, Some(10), "documented: bootstrap failed\n{}", pod.log());
    assert!(pod.log().contains("function no_such_function() does not exist"), "{}", pod.log());
    assert!(!pod.data().join("PG_VERSION").exists(), "it is out of the way");
    assert_eq!(etcd.get("/service/herd/initialize").await, None);
    pod.script("1.sql", "CREATE TABLE mended ();\n", 0o644);
    pod.start();
    pod.wait_for("/primary", SOON).await;
    assert_eq!(
        ask(&pod, "SELECT string_agg(relname, ',') FROM pg_class WHERE relkind = 'r' AND oid > 16383").await,
        "mended"
    );
}

/// The container is killed with all its processes, and started again in place: it is the primary again long before the
/// lease of its previous incarnation would have ended.
#[tokio::test]
async fn a_supervisor_restarted_in_place_does_not_wait_for_its_previous_lease() {
    if !is_root() {
        return;
    }
    let ttl = Duration::from_secs(60);
    let place = Place::new();
    let etcd = Etcd::start(&place, 1).await;
    let mut pod = Container::prepare(&place, &etcd, 0);
    let dcs = format!("ttl: {}\nloop_wait: 2\nretry_timeout: 3\n", ttl.as_secs());
    pod.variables.insert("MATRIARCH_BOOTSTRAP_DCS".to_owned(), dcs);
    pod.start();
    pod.wait_for("/primary", SOON).await;
    ask(&pod, "SELECT pg_logical_emit_message(false, 'test', 'written')::text").await;
    let killed_at = Instant::now();
    pod.kill().await;
    assert_eq!(etcd.get("/service/herd/leader").await.as_deref(), Some("pg-0"), "its lease lives on");
    pod.start();
    pod.wait_for("/primary", ttl / 2).await;
    println!("primary again after {:?}", killed_at.elapsed());
    assert!(pod.log().contains("previous incarnation"), "{}", pod.log());
}

/// A Secret is replaced, and one pod sees it before the other: the replica stays, streams again after a reconnect, and
/// can lead. The roles get the new passwords when the primary's pod has them, without a restart.
#[tokio::test]
async fn passwords_follow_their_files() {
    if !is_root() {
        return;
    }
    let new = "an other: 'secret' \\\\ of a test";
    let place = Place::new();
    let etcd = Etcd::start(&place, 1).await;
    let mut pods = [Container::prepare(&place, &etcd, 0), Container::prepare(&place, &etcd, 1)];
    pods[0].start();
    pods[0].wait_for("/primary", SOON).await;
    pods[1].start();
    pods[1].wait_for("/readiness", SOON).await;
    let postmaster = ask(&pods[0], "SELECT pg_postmaster_start_time()::text").await;

    renew_secrets(&pods[1], new).await;
    connects_anew(&pods[1], PASSWORD).await;
    // The operator's reload comes before the supervisor has noticed that the files have changed.
    pods[0].secret("password", new);
    pods[0].secret("replication", new);
    pods[0].signal(Signal::SIGHUP);
    let started = "SELECT pg_postmaster_start_time()::text";
    let lets_in = async || pods[0].value("postgres", new, "postgres", started).await.ok();
    assert_eq!(until(SOON, lets_in).await, Some(postmaster), "{}", pods[0].log());
    let refused = pods[0].value("postgres", PASSWORD, "postgres", started).await;
    assert!(refused.as_ref().is_err_and(|error| error.contains("28P01")), "{refused:?}");
    connects_anew(&pods[1], new).await;

    pods[0].signal(Signal::SIGTERM);
    pods[1].wait_for("/primary", SOON).await;
    assert_eq!(pods[0].exit_code(SOON).await, Some(0), "{}", pods[0].log());
    pods[0].start();
    pods[0].wait_for("/readiness", SOON).await;

    // Once more, while nothing runs.
    for pod in &mut pods {
        pod.kill().await;
        pod.secret("password", PASSWORD);
        pod.secret("replication", PASSWORD);
    }
    for pod in &mut pods {
        pod.start();
    }
    let well = async || {
        let mut led = 0;
        for pod in &pods {
            let answers =
                pod.value("postgres", PASSWORD, "postgres", "SELECT pg_is_in_recovery()::text").await;
            led += usize::from(answers.ok()? == "false" && pod.status("/primary").await == 200);
        }
        (led == 1).then_some(())
    };
    assert!(until(SOON, well).await.is_some(), "{}{}", pods[0].log(), pods[1].log());
    for pod in &pods {
        assert!(!pod.log().contains("of a test") && !pod.log().contains("SCRAM-SHA-256$"), "{}", pod.log());
    }
}

/// Replaces both secrets of this pod, and waits until the supervisor has read them.
async fn renew_secrets(pod: &Container, new: &str) {
    pod.secret("password", new);
    pod.secret("replication", new);
    let seen = async || pod.log().contains("passwords were replaced").then_some(());
    assert!(until(SOON, seen).await.is_some(), "{}", pod.log());
}

/// Ends this replica's WAL receiver, and waits until another one streams.
async fn connects_anew(pod: &Container, password: &str) {
    let ask = async |sql: &str| pod.value("postgres", password, "postgres", sql).await;
    let streaming = "SELECT string_agg(pid::text, '') FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    let streams = async || ask(streaming).await.ok().filter(|pid| !pid.is_empty());
    let before = until(SOON, streams).await;
    assert!(before.is_some(), "it streams\n{}", pod.log());
    let receives =
        |pid: &i32| matriarch::os::process::title(*pid).is_some_and(|title| title.contains("walreceiver"));
    let receiver = pod.processes().into_iter().find(receives).expect("it streams");
    kill(Pid::from_raw(receiver), Signal::SIGTERM).expect("it runs");
    let anew = async || streams().await.filter(|pid| Some(pid) != before.as_ref());
    assert!(until(SOON, anew).await.is_some(), "it streams again\n{}", pod.log());
}

/// SIGTERM on the primary, as from a drain: another member leads at once, and this one ends cleanly.
#[tokio::test]
async fn a_primary_hands_over_on_sigterm() {
    if !is_root() {
        return;
    }
    let ttl = Duration::from_secs(60);
    let place = Place::new();
    let etcd = Etcd::start(&place, 1).await;
    let mut pods = [Container::prepare(&place, &etcd, 0), Container::prepare(&place, &etcd, 1)];
    for pod in &mut pods {
        let dcs = format!("{{ttl: {}, loop_wait: 2, retry_timeout: 3}}", ttl.as_secs());
        pod.variables.insert("MATRIARCH_BOOTSTRAP_DCS".to_owned(), dcs);
    }
    pods[0].start();
    pods[0].wait_for("/primary", SOON).await;
    pods[1].start();
    pods[1].wait_for("/readiness", SOON).await;
    pods[0].signal(Signal::SIGTERM);
    pods[1].wait_for("/primary", ttl / 2).await;
    assert_eq!(pods[0].exit_code(SOON).await, Some(0), "{}", pods[0].log());
}
