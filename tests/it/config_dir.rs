//! Configuration files outside the data directory.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, postgres_bin};

/// A clone takes over the access rules and the base file of its source. The archive of that file is one that pg_rewind
/// is told of.
#[tokio::test]
async fn copies_of_the_files_reach_a_clone_and_a_rewind_uses_their_archive() {
    let mut cluster = Plan::new(2).prepare().await;
    for member in &cluster.members {
        let mut config = member.read_config();
        let elsewhere = member.folder.join("etc");
        std::fs::create_dir(&elsewhere).expect("our own place is writable");
        std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o777)).expect("it is ours");
        let calls = member.folder.join("rewinds");
        let program = member.folder.join("pg_rewind");
        let real = postgres_bin().join("pg_rewind");
        let text = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", calls.display(), real.display());
        std::fs::write(&program, text).expect("our own place is writable");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
        config["postgresql"]["config_dir"] = json!(elsewhere);
        config["postgresql"]["config_base_name"] = json!("own");
        config["postgresql"]["bin_name"] = json!({ "pg_rewind": program });
        config["bootstrap"]["pg_hba"] = config["postgresql"]["pg_hba"].take();
        member.write_config(&config);
    }
    cluster.members[0].start();
    cluster.wait_until_writable(0, Duration::from_secs(60)).await;
    let base = cluster.members[0].folder.join("etc/own.base.conf");
    let by_hand = std::fs::read_to_string(&base).expect("a base file")
        + "\nrestore_command = 'false'\nlog_min_duration_statement = 12345\n";
    std::fs::write(&base, by_hand).expect("our own place is writable");
    let rules = cluster.members[0].folder.join("etc/pg_hba.conf");
    let by_hand =
        std::fs::read_to_string(&rules).expect("access rules") + "host all all 127.0.0.2/32 trust\n";
    std::fs::write(&rules, by_hand).expect("our own place is writable");
    let restarted = cluster.members[0].post("/restart", &json!({})).await;
    assert_eq!(restarted.status, 200, "{}", restarted.body);

    cluster.members[1].start();
    cluster.wait_until_well().await;
    assert_eq!(cluster.members[1].value("SHOW log_min_duration_statement").await, "12345ms");
    let rules =
        std::fs::read_to_string(cluster.members[1].folder.join("etc/pg_hba.conf")).expect("access rules");
    assert!(rules.contains("127.0.0.2/32 trust"), "{rules}");

    cluster.members[0].sql("CREATE TABLE t AS SELECT 1 AS id").await.expect("m1 leads");
    cluster.members[1].cut_off().await;
    cluster.members[0].sql("INSERT INTO t SELECT generate_series(100, 200)").await.expect("m1 leads");
    cluster.members[0].kill_all();
    cluster.members[1].go_on();
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    cluster.members[0].start();
    cluster.wait_until_well().await;
    let calls = std::fs::read_to_string(cluster.members[0].folder.join("rewinds")).expect("it was rewound");
    let elsewhere = format!("--config-file={}", cluster.members[0].folder.join("etc/own.conf").display());
    assert!(calls.contains("--restore-target-wal") && calls.contains(&elsewhere), "{calls}");
}
