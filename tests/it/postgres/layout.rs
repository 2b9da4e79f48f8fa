//! Clones over data outside the data directory: a linked `pg_wal`, a tablespace, a data directory that is a link.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use matriarch::model::{DataDirectory, FollowTarget};
use matriarch::os::child;
use matriarch::postgres::{CloneStatus, Error, Postgres, Setup};
use tokio::sync::watch;

use super::herd::{Herd, order};
use super::{SOON, client, facts_until, start, stop, streams, target};

fn folder(herd: &Herd, name: &str) -> PathBuf {
    let (path, owner) = (herd.root.join(name), fs::metadata(&herd.root).expect("ours"));
    fs::create_dir_all(&path).expect("ours");
    chown(&path, Some(owner.uid()), Some(owner.gid())).expect("chown");
    path
}

/// A primary with a table in a tablespace.
async fn spacious_primary(herd: &Herd) -> Postgres {
    let leader = herd.primary("a").await;
    let place = folder(herd, "ts-a");
    let session = client(&leader).await;
    let space = format!("CREATE TABLESPACE far LOCATION '{}'", place.display());
    session.batch_execute(&space).await.expect("a tablespace");
    session.batch_execute("CREATE TABLE kept TABLESPACE far AS SELECT 7 AS n").await.expect("a table");
    leader
}

/// A member whose WAL and tablespace lie outside its data directory, which is a link.
fn scattered(herd: &Herd) -> Postgres {
    let real = folder(herd, "real-b");
    symlink(&real, herd.root.join("b")).expect("a link");
    let setup = herd.setup("b");
    let mapping = format!("tablespace-mapping={0}/ts-a={0}/ts-b", herd.root.display());
    let waldir = format!("waldir={}", herd.root.join("wal-b").display());
    let basebackup = vec![mapping, waldir, "max-rate=20M".to_owned()];
    let parameters = herd.parameters(&setup);
    Postgres::new(Setup { basebackup, ..setup }, parameters)
}

async fn clone(member: &Postgres, from: &FollowTarget) -> Result<(), Error> {
    member.make_replica(order(from), watch::channel(CloneStatus::default()).0).await
}

/// It streams, has the table, and its files lie where they did.
async fn is_whole(member: &Postgres, leader: &Postgres) {
    start(member, Some(leader)).await;
    facts_until(member, "streaming", streams).await;
    let n: i32 = client(member).await.query_one("SELECT n FROM kept", &[]).await.expect("the table").get(0);
    assert_eq!(n, 7);
    let (data_dir, root) = (&member.setup().data_dir, member.setup().data_dir.parent().expect("a parent"));
    assert!(data_dir.is_symlink() && root.join("real-b/PG_VERSION").exists());
    assert_eq!(fs::read_link(data_dir.join("pg_wal")).expect("a link"), root.join("wal-b"));
    let space = fs::read_dir(data_dir.join("pg_tblspc")).expect("tablespaces").flatten().next();
    assert_eq!(fs::read_link(space.expect("one").path()).expect("a link"), root.join("ts-b"));
    let left: Vec<_> = fs::read_dir(root).expect("ours").flatten().map(|entry| entry.file_name()).collect();
    let left = left.iter().map(|name| name.to_string_lossy());
    let left: Vec<_> = left.filter(|name| name.contains("aside") || name.contains("half-made")).collect();
    assert_eq!(left, Vec::<String>::new());
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path.join("global/pg_control")).expect("a control file").ino()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_replaces_the_targets_of_links() {
    let herd = Herd::new("links");
    let leader = spacious_primary(&herd).await;
    let member = scattered(&herd);
    clone(&member, &target(&leader)).await.expect("the first clone");
    is_whole(&member, &leader).await;
    stop(&member).await;
    fs::write(herd.root.join("ts-b/.matriarch-clone-7-7"), "").expect("as one that was killed leaves it");
    clone(&member, &target(&leader)).await.expect("a clone over all of it");
    is_whole(&member, &leader).await;
    stop(&member).await;
    // The layout stays without any configuration for it.
    let (setup, parameters) = (member.setup().clone(), member.parameters());
    let plain = Postgres::new(Setup { basebackup: Vec::new(), ..setup }, parameters);
    clone(&plain, &target(&leader)).await.expect("a clone that keeps the layout");
    is_whole(&plain, &leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_clone_restores_the_data() {
    let herd = Herd::new("back");
    let leader = spacious_primary(&herd).await;
    let member = scattered(&herd);
    clone(&member, &target(&leader)).await.expect("the first clone");
    is_whole(&member, &leader).await;
    stop(&member).await;
    let before = inode(&member.setup().data_dir);
    let nobody = FollowTarget { conn_url: "postgres://127.0.0.1:9/postgres".to_owned(), ..target(&leader) };
    assert!(matches!(clone(&member, &nobody).await, Err(Error::Program { .. })));
    assert!(matches!(member.look().await.0, DataDirectory::Ready(_)));
    assert_eq!(inode(&member.setup().data_dir), before, "it is the former one");
    is_whole(&member, &leader).await;
    stop(&member).await;

    // A clone that is killed in the middle leaves a mark. The next one starts anew and fails, and the previous data is
    // restored.
    let (progress, mut seen) = watch::channel(CloneStatus::default());
    let from = target(&leader);
    let begun = async { seen.wait_for(|now| now.done > 0).await.map(drop) };
    tokio::select! {
        ended = member.make_replica(order(&from), progress) => panic!("too fast: {ended:?}"),
        begun = begun => begun.expect("progress"),
    }
    assert!(matches!(member.look().await.0, DataDirectory::HalfMade { .. }));
    assert!(matches!(member.start_standby(None, SOON).await, Err(Error::Unfit(_))));
    assert!(clone(&member, &nobody).await.is_err());
    assert_eq!(inode(&member.setup().data_dir), before, "it is still the former one");
    is_whole(&member, &leader).await;
    stop(&member).await;
    clone(&member, &target(&leader)).await.expect("and can be cloned");
    is_whole(&member, &leader).await;
}

/// Two members on one machine, with a tablespace without a mapping: the directory to be moved aside is the leader's
/// own.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_moves_no_tablespace_of_its_source() {
    let herd = Herd::new("shared");
    let leader = spacious_primary(&herd).await;
    let member = scattered(&herd);
    clone(&member, &target(&leader)).await.expect("the first clone");
    let space = fs::read_dir(member.setup().data_dir.join("pg_tblspc")).expect("tablespaces").flatten();
    for link in space.map(|space| space.path()) {
        fs::remove_file(&link).expect("ours");
        symlink(herd.root.join("ts-a"), &link).expect("a link");
    }
    let refused = clone(&member, &target(&leader)).await.expect_err("it is the leader's");
    assert!(refused.to_string().contains("tablespace-mapping"), "{refused}");
    let n: i32 = client(&leader).await.query_one("SELECT n FROM kept", &[]).await.expect("the table").get(0);
    assert_eq!(n, 7);
    assert_eq!(fs::read_dir(herd.root.join("ts-a")).expect("a directory").count(), 1, "no mark is left");
    assert!(matches!(member.look().await.0, DataDirectory::Ready(_)), "nothing was touched");
}

/// In a separate mount namespace, which removes the mount however the test ends.
#[test]
fn a_clone_onto_a_mount_point_empties_it() {
    const ALONE: &str = "TEST_MOUNT_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
        return runtime.block_on(clone_onto_a_mount_point());
    }
    let mut alone = std::process::Command::new("unshare");
    alone.arg("--mount").arg(std::env::current_exe().expect("this program"));
    alone.args(["--exact", "postgres::layout::a_clone_onto_a_mount_point_empties_it"]).env(ALONE, "1");
    assert!(child::spawn_std(&mut alone).expect("spawn").wait().expect("wait").success());
}

async fn clone_onto_a_mount_point() {
    let herd = Herd::new("mount");
    let leader = herd.primary("a").await;
    let volume = folder(&herd, "b");
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&volume).status();
    assert!(mounted.expect("mount").success());
    let member = herd.member("b");
    chown(&volume, member.setup().uid_gid.map(|(user, _)| user), None).expect("chown");
    clone(&member, &target(&leader)).await.expect("into an empty volume");
    clone(&member, &target(&leader)).await.expect("into a full one");
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
    stop(&member).await;
    let nobody = FollowTarget { conn_url: "postgres://127.0.0.1:9/postgres".to_owned(), ..target(&leader) };
    assert!(clone(&member, &nobody).await.is_err());
    assert_eq!(member.look().await.0, DataDirectory::Empty, "it could not be set aside");
    clone(&member, &target(&leader)).await.expect("and can be cloned again");
}

/// Nobody leads any more whom it could be cloned from.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_clone_is_undone() {
    let herd = Herd::new("undo");
    let leader = herd.primary("a").await;
    let member = herd.member("b");
    let interrupt = async || {
        let limited = Setup { basebackup: vec!["max-rate=1M".to_owned()], ..member.setup().clone() };
        let slow = Postgres::new(limited, member.parameters());
        let (progress, mut seen) = watch::channel(CloneStatus::default());
        let from = target(&leader);
        tokio::select! {
            result = slow.make_replica(order(&from), progress) => panic!("too fast: {result:?}"),
            begun = seen.wait_for(|now| now.done > 0) => drop(begun.expect("progress")),
        }
        assert_eq!(member.look().await.0, DataDirectory::HalfMade { by: "clone".to_owned() });
    };
    interrupt().await;
    member.undo_clone().await.expect("undone");
    assert_eq!(member.look().await.0, DataDirectory::Empty, "nothing was here before");
    assert!(matches!(member.undo_clone().await, Err(Error::Unfit(_))), "none was interrupted");
    member
        .make_replica(order(&target(&leader)), watch::channel(CloneStatus::default()).0)
        .await
        .expect("clone");
    fs::write(member.setup().data_dir.join("mine"), "").expect("written");
    interrupt().await;
    member.undo_clone().await.expect("undone");
    assert!(matches!(member.look().await.0, DataDirectory::Ready(_)));
    assert!(member.setup().data_dir.join("mine").exists(), "it is the former directory");
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
}
