//! A restarted supervisor adopts its running Postgres.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer, postgres_bin};

/// The primary's supervisor is killed and started again within the TTL. It finds its running Postgres, adopts it, and
/// continues to lead: no restart, no failover, no lost and no interrupted write.
#[tokio::test]
async fn a_restarted_supervisor_adopts_its_primary() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let before = cluster.members[0].postmaster().expect("it runs");
    cluster.members[0].kill_supervisor();
    writer.wait_for_more(10, Duration::from_secs(10)).await;
    cluster.members[0].start();
    cluster
        .wait_until(Duration::from_secs(30), "m1 answers as primary again", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    writer.wait_for_more(10, Duration::from_secs(10)).await;
    assert_eq!(cluster.members[0].postmaster(), Some(before), "Postgres was not restarted");
    let history = writer.stop_and_verify(&cluster.members[0]).await;
    assert!(history.unknown.is_empty(), "no client was disturbed: {:?}", history.unknown);
}

/// The same for a standby: it continues to stream, with the same postmaster.
#[tokio::test]
async fn a_restarted_supervisor_adopts_its_standby() {
    let mut cluster = Plan::new(2).start().await;
    let before = cluster.members[1].postmaster().expect("it runs");
    cluster.members[1].kill_supervisor();
    cluster.members[1].start();
    cluster
        .wait_until(Duration::from_secs(30), "m2 answers as standby again", async || {
            cluster.members[1].status("/replica").await == 200
        })
        .await;
    cluster.wait_until_well().await;
    assert_eq!(cluster.members[1].postmaster(), Some(before), "Postgres was not restarted");
}

/// etcd loses all keys while the members run. The running primary writes the cluster's keys again; no standby does.
#[tokio::test]
async fn an_empty_etcd_is_rebuilt_by_the_primary() {
    let cluster = Plan::new(2).start().await;
    let before = cluster.etcd.get("/service/herd/initialize").await;
    cluster.etcd.delete_below("/service/herd").await;
    cluster
        .wait_until(Duration::from_secs(30), "initialize and config are there again", async || {
            cluster.etcd.get("/service/herd/initialize").await == before
                && cluster.etcd.get("/service/herd/config").await.is_some()
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
}

/// The link to PostgreSQL's programs is moved to another place, as by an upgrade of the package, and the supervisor is
/// started again. It finds its primary under the new name of the program, and does not dismiss the guard.
#[tokio::test]
async fn a_primary_is_adopted_although_its_programs_moved() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &cluster.members[0];
    let (current, copy) = (member.folder.join("current"), member.folder.join("copy"));
    std::os::unix::fs::symlink(postgres_bin(), &current).expect("a link");
    copy_programs(&copy);
    let mut config = member.read_config();
    config["postgresql"]["bin_dir"] = json!(current);
    member.write_config(&config);
    cluster.members[0].start();
    cluster.wait_until_well().await;
    let before = cluster.members[0].postmaster().expect("it runs");
    cluster.members[0].kill_supervisor();
    std::fs::remove_file(&current).expect("removed");
    std::os::unix::fs::symlink(&copy, &current).expect("a link");
    cluster.members[0].start();
    cluster
        .wait_until(Duration::from_secs(30), "m1 answers as primary again", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    assert_eq!(cluster.members[0].postmaster(), Some(before), "Postgres was not restarted");
    assert!(cluster.members[0].log_text().contains("continues under its guard"), "{}", cluster.story());
}

/// It is unknown whether PostgreSQL runs: the guard keeps its deadline and fires, the pid file stays, and nothing else
/// is started. When the state is known again, the member comes back.
#[tokio::test]
async fn a_guard_stays_armed_while_the_running_postgres_is_unknown() {
    let mut cluster = Plan::new(1).start().await;
    let (data, aside) = (cluster.members[0].data(), cluster.members[0].folder.join("aside"));
    let before = cluster.members[0].postmaster().expect("it runs");
    cluster.members[0].kill_supervisor();
    std::fs::rename(&data, &aside).expect("renamed");
    std::fs::write(&data, "").expect("a file in its place");
    cluster.members[0].expected_errors.push("No such file or directory".to_owned());
    cluster.members[0].start();
    let said =
        async || cluster.members[0].log_text().contains("cannot determine whether PostgreSQL runs here");
    cluster.wait_until(Duration::from_secs(10), "it says so", said).await;
    assert!(cluster.members[0].guard().is_some(), "the guard is there\n{}", cluster.story());
    assert!(aside.join("postmaster.pid").exists(), "nobody has removed the pid file");
    let fired = async || !cluster.members[0].has_process(before);
    cluster.wait_until(Duration::from_secs(15), "the guard has fired", fired).await;
    std::fs::remove_file(&data).expect("removed");
    std::fs::rename(&aside, &data).expect("renamed");
    cluster.wait_until_well().await;
}

/// `bin_name.postgres` may be a program that runs postgres: by exec, or as a child that it waits for.
#[tokio::test]
async fn postgres_behind_a_wrapper_program_is_supervised() {
    for (name, last) in [("exec", "exec \"$real\" \"$@\"\n"), ("child", "\"$real\" \"$@\"\nexit $?\n")] {
        let mut cluster = Plan::new(2).prepare().await;
        for member in &cluster.members {
            let programs = member.folder.join("programs");
            link_programs(&programs);
            let wrapper = programs.join("start-server");
            let real = postgres_bin().join("postgres");
            std::fs::write(&wrapper, format!("#!/bin/sh\nreal={}\n{last}", real.display())).expect("written");
            std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .expect("ours");
            let mut config = member.read_config();
            config["postgresql"]["bin_dir"] = json!(programs);
            config["postgresql"]["bin_name"] = json!({ "postgres": "start-server" });
            member.write_config(&config);
        }
        cluster.members[0].start();
        cluster.wait_for(Duration::from_secs(60), "m1 leads", |seen| seen.leader() == Some("m1")).await;
        cluster.members[1].start();
        cluster.wait_until_well().await;
        let before = cluster.members[0].postmaster().expect("it runs");
        cluster.members[0].kill_supervisor();
        cluster.members[0].start();
        cluster.wait_until_well().await;
        assert_eq!(cluster.members[0].postmaster(), Some(before), "{name}: adopted\n{}", cluster.story());
        cluster.members[0].kill_all();
        cluster.wait_for_successor(0, Duration::from_secs(30)).await;
        assert!(!cluster.members[1].data().join("promote").exists(), "{name}: no trigger is left");
    }
}

fn link_programs(folder: &Path) {
    std::fs::create_dir_all(folder).expect("our own place is writable");
    for program in std::fs::read_dir(postgres_bin()).expect("its programs").flatten() {
        std::os::unix::fs::symlink(program.path(), folder.join(program.file_name())).expect("a link");
    }
}

fn copy_programs(folder: &Path) {
    std::fs::create_dir_all(folder).expect("our own place is writable");
    for program in std::fs::read_dir(postgres_bin()).expect("its programs").flatten() {
        std::fs::copy(program.path(), folder.join(program.file_name())).expect("a copy");
    }
}
