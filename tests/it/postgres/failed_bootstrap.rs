//! A new cluster that could not be made.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_bootstrap_is_kept_aside() {
    let herd = Herd::new("failed");
    let setup = Setup { post_bootstrap: Some(vec!["false".to_owned()]), ..herd.setup("a") };
    let parameters = herd.parameters(&setup);
    let member = Postgres::new(setup, parameters);
    assert!(matches!(member.bootstrap().await, Err(Error::Program { .. })));
    assert_eq!(member.look().await.0, DataDirectory::Empty);
    assert!(Path::new(&herd.root).join("a.failed/PG_VERSION").exists());
}

/// Its WAL directory must not prevent the next clone.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_bootstrap_with_a_wal_directory_can_be_repeated() {
    let herd = Herd::new("failed-wal");
    let (wal, name) = (herd.root.join("wal-a"), "a");
    let initdb = vec![format!("waldir={}", wal.display())];
    let setup = Setup { initdb, ..herd.setup(name) };
    let parameters = herd.parameters(&setup);
    let failing = Setup { post_bootstrap: Some(vec!["false".to_owned()]), ..setup.clone() };
    let member = Postgres::new(failing, parameters.clone());
    assert!(matches!(member.bootstrap().await, Err(Error::Program { .. })));
    assert!(herd.root.join("wal-a.failed").is_dir());
    Postgres::new(setup, parameters).bootstrap().await.expect("the next try");
    assert_eq!(std::fs::read_link(herd.root.join("a/pg_wal")).expect("a link"), wal);
}
