//! Data directories of other clusters or programs.

use std::time::Duration;

use crate::support::{Plan, command_as, postgres_bin};

/// A member starts on the data directory of another cluster. It refuses with both identifiers in the message, and does
/// not touch the directory.
#[tokio::test]
async fn another_clusters_data_directory_is_refused() {
    let mut cluster = Plan::new(2).prepare().await;
    let member = &cluster.members[1];
    let initdb = command_as(postgres_bin().join("initdb"), &member.folder)
        .args(["-D", "data", "-U", "postgres", "-A", "trust"])
        .output()
        .expect("initdb starts");
    assert!(initdb.status.success(), "{initdb:?}");
    let created = member.created_at();
    cluster.members[0].start();
    cluster.wait_for(Duration::from_secs(60), "m1 leads", |seen| seen.leader() == Some("m1")).await;
    let ours = cluster.etcd.get("/service/herd/initialize").await.expect("it is initialized");
    let member = &mut cluster.members[1];
    member.expected_errors.push(String::new());
    member.start();
    assert_eq!(
        member.exit_code(Duration::from_secs(60)).await,
        Some(8),
        "documented: foreign data directory"
    );
    assert!(member.log_text().contains(&ours), "the message says whose:\n{}", member.log_text());
    assert_eq!(member.created_at(), created, "it is not touched");
}

/// The data directory contains no database. The member refuses, and the files stay.
#[tokio::test]
async fn a_directory_without_a_database_is_refused() {
    let mut cluster = Plan::new(1).prepare().await;
    let member = &mut cluster.members[0];
    member.expected_errors.push(String::new());
    std::fs::create_dir(member.data()).expect("our own place is writable");
    let letter = member.data().join("letter.txt");
    std::fs::write(&letter, "dear reader").expect("our own place is writable");
    member.start();
    let code = member.exit_code(Duration::from_secs(60)).await;
    assert_eq!(code, Some(8), "{}", member.log_text());
    assert_eq!(std::fs::read_to_string(&letter).expect("it is there"), "dear reader");
    assert_eq!(cluster.etcd.get("/service/herd/initialize").await, None);
}
