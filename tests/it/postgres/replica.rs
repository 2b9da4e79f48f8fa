//! Replicas by the scripts of an operator.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use matriarch::model::{DataDirectory, ReplicaMethod, ReplicaScript, ScriptWords};
use matriarch::os::process;
use matriarch::postgres::{CloneStatus, Error, Postgres, ReplicaOrder};
use tokio::sync::watch;

use super::herd::{Herd, bin_dir, order};
use super::{facts_until, start, streams, target};

/// A script that copies as told, with whatever comes before in `first`.
const COPIES: &str = r#"
for word in "$@"; do
    case $word in --datadir=*) data=${word#*=};; --connstring=*) source=${word#*=};; esac
done
pg_basebackup --pgdata "$data" --dbname "$source" --checkpoint fast
"#;

/// A method that runs a script with these lines.
fn method(herd: &Herd, name: &str, lines: &str) -> ReplicaScript {
    let path = herd.root.join(name);
    fs::write(&path, format!("#!/bin/sh\nPATH={}:$PATH\n{lines}\n", bin_dir().display()))
        .expect("our own place is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    ReplicaScript {
        name: name.to_owned(),
        command: ScriptWords {
            words: vec![path.display().to_string()],
            is_told: true,
            arguments: vec![("stanza".to_owned(), "main".to_owned())],
        },
        keeps_data: false,
        needs_no_source: false,
    }
}

async fn make(member: &Postgres, leader: &Postgres, methods: Vec<ReplicaMethod>) -> Result<(), Error> {
    let order = ReplicaOrder { methods, ..order(&target(leader)) };
    member.make_replica(order, watch::channel(CloneStatus::default()).0).await
}

fn lives(pid_file: &Path) -> bool {
    let text = fs::read_to_string(pid_file).expect("it was written");
    process::stat(text.trim().parse().expect("a pid")).is_some_and(|stat| !stat.is_zombie())
}

/// The first method fails and leaves half a directory and a process that keeps its output open; the second is told what
/// it needs, without a password.
#[tokio::test(flavor = "multi_thread")]
async fn methods_are_tried_in_order() {
    let herd = Herd::new("methods");
    let leader = herd.primary("a").await;
    let member = herd.member("b");
    let (data, root) = (member.setup().data_dir.clone(), herd.root.display());
    let broken = format!(
        "yes | head -c 10000000; mkdir -p {0}/base; touch {0}/junk; setsid sleep 600 & echo $! > {root}/stays; \
         echo no tape >&2; exit 3",
        data.display()
    );
    let copies = format!(
        "echo \"$@\" > {root}/told; echo $PGPASSFILE >> {root}/told; test ! -e {}/junk",
        data.display()
    );
    let mut methods = vec![
        method(&herd, "broken", &broken),
        method(&herd, "copies", &format!("{copies} || exit 1; {COPIES}")),
    ];
    let failing = vec![ReplicaMethod::Script(methods[0].clone())];
    let error = make(&member, &leader, failing).await.expect_err("it fails").to_string();
    assert!(error.contains("exit status: 3") && error.ends_with("no tape"), "{error}");
    assert_eq!(member.look().await.0, DataDirectory::Empty, "its half was removed");
    assert!(!lives(&herd.root.join("stays")), "and its process was ended");
    let methods = methods.drain(..).map(ReplicaMethod::Script).collect();
    make(&member, &leader, methods).await.expect("the second method copies");
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
    let told = fs::read_to_string(herd.root.join("told")).expect("it was called");
    let begins = format!(
        "--stanza=main --scope=herd --role=replica --datadir={} --connstring=dbname=",
        data.display()
    );
    assert!(told.starts_with(&begins) && told.contains("user=replicator"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    assert!(told.ends_with(&format!("{}\n", member.setup().pgpass.display())), "{told}");
}

/// `keep_data`: the method gets what is there, also after its own failure. What it leaves is never started.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_may_start_from_the_data_that_is_there() {
    let herd = Herd::new("keeps");
    let leader = herd.primary("a").await;
    let member = herd.standby("b", &leader).await;
    super::stop(&member).await;
    let (data, root) = (member.setup().data_dir.clone(), herd.root.display());
    fs::write(data.join("mine"), "").expect("written");
    let lines = format!(
        "test -e {0}/mine || exit 9; test -e {root}/again || {{ touch {root}/again {0}/half; exit 4; }}; \
         test -e {0}/half || exit 8; rm -r {0}/*; {COPIES}",
        data.display()
    );
    let keeps = ReplicaScript { keeps_data: true, ..method(&herd, "keeps", &lines) };
    let keeps = || vec![ReplicaMethod::Script(keeps.clone())];
    let error = make(&member, &leader, keeps()).await.expect_err("the first time").to_string();
    assert!(error.contains("exit status: 4"), "{error}");
    assert_eq!(member.look().await.0, DataDirectory::HalfMade { by: "restore".to_owned() });
    assert!(data.join("mine").exists());
    make(&member, &leader, keeps()).await.expect("it goes on where it was");
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
    super::stop(&member).await;
    // The next method gets an empty directory. When it fails too, what was there is put back as it was.
    fs::write(data.join("mine"), "").expect("written");
    fs::remove_file(herd.root.join("again")).expect("it is ours");
    let failing = ReplicaMethod::Script(method(&herd, "fails", "exit 5"));
    let error = make(&member, &leader, keeps().into_iter().chain([failing]).collect()).await;
    assert!(error.expect_err("both fail").to_string().contains("exit status: 5"));
    assert_eq!(member.look().await.0, DataDirectory::HalfMade { by: "restore".to_owned() });
    assert!(data.join("mine").exists());
    // A method may have restored the link of a backup, which leads into another cluster.
    let theirs = herd.root.join("theirs/PG_15_202209061");
    fs::create_dir_all(&theirs).expect("it is ours");
    std::os::unix::fs::symlink(herd.root.join("theirs"), data.join("pg_tblspc/99999")).expect("it is ours");
    fs::remove_file(herd.root.join("again")).expect("it is ours");
    let then = keeps().into_iter().chain([ReplicaMethod::Basebackup]).collect();
    make(&member, &leader, then).await.expect("pg_basebackup copies");
    assert!(!data.join("mine").exists() && theirs.exists());
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
}

/// What an archive has may belong to another cluster. The former data is put back when nothing else helps.
#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_cluster_is_no_replica() {
    let herd = Herd::new("other");
    let leader = herd.primary("a").await;
    let member = herd.standby("b", &leader).await;
    super::stop(&member).await;
    fs::write(member.setup().data_dir.join("mine"), "").expect("written");
    let methods = vec![ReplicaMethod::Script(method(&herd, "copies", COPIES))];
    let order = ReplicaOrder { methods, system_id: Some(7), ..order(&target(&leader)) };
    let made = member.make_replica(order.clone(), watch::channel(CloneStatus::default()).0).await;
    let error = made.expect_err("the identifier differs").to_string();
    assert!(error.contains("and this one's is 7"), "{error}");
    assert!(member.setup().data_dir.join("mine").exists(), "it is the former directory");
    let order = ReplicaOrder { from: None, ..order };
    let made = member.make_replica(order, watch::channel(CloneStatus::default()).0).await;
    assert!(made.expect_err("none").to_string().contains("no configured method works without a leader"));
    assert!(matches!(member.look().await.0, DataDirectory::Ready(_)));
}

/// A cancelled script ends with its group. A process of it that is left, as after the death of the supervisor, ends
/// before another method writes here.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_script_writes_nothing_more() {
    let herd = Herd::new("cancels");
    let leader = herd.primary("a").await;
    let member = herd.member("b");
    let (group, left) = (herd.root.join("group"), herd.root.join("left"));
    let lines = format!(
        "setsid sleep 600 & echo $! > {0}.new; mv {0}.new {0}; sleep 600 & echo $! > {1}.new; mv {1}.new {1}; wait",
        left.display(),
        group.display()
    );
    let hangs = vec![ReplicaMethod::Script(method(&herd, "hangs", &lines))];
    tokio::select! {
        ended = make(&member, &leader, hangs) => panic!("it hangs: {ended:?}"),
        () = until(|| group.exists()) => {}
    }
    until(|| !lives(&group)).await;
    assert!(lives(&left), "it has a session of its own");
    make(&member, &leader, vec![ReplicaMethod::Basebackup]).await.expect("a base backup");
    assert!(!lives(&left));
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
}

async fn until(level: impl Fn() -> bool) {
    for _ in 0..500 {
        if level() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 10 s");
}
