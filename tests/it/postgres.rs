//! The local Postgres against the real programs, run as the user `postgres`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use matriarch::fence::{ArmedDeadlines, Deadlines, Found, GuardPhase, Link, LinkSetup};
use matriarch::model::{
    ControlState, DataDirectory, Divergence, FollowTarget, MemberName, Process, SlotChanges, SqlFacts,
    Standby, StopMode,
};
use matriarch::os::{child, clock, process, reap};
use matriarch::postgres::{Adoption, CloneStatus, Error, Postgres, Setup, Started, Stopped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

mod access;
mod failed_bootstrap;
mod herd;
mod in_place;
mod judge;
mod layout;
mod replica;
mod restore;
mod rewind;
mod slots;

use herd::{Herd, order};

const SOON: Duration = Duration::from_secs(30);

fn target(leader: &Postgres) -> FollowTarget {
    let setup = leader.setup();
    FollowTarget {
        name: MemberName::new(&*setup.name).expect("a name"),
        conn_url: format!("postgres://127.0.0.1:{}/postgres", setup.port),
        slot: None,
    }
}

async fn start(member: &Postgres, leader: Option<&Postgres>) {
    let begun = clock::now();
    let follow = leader.map(target);
    let started = member.start_standby(follow.as_ref(), SOON).await.expect("start");
    assert_eq!(started, Started::Ready);
    println!("start {:?}", clock::now().since(begun));
}

async fn promote(member: &Postgres) {
    let begun = clock::now();
    let mut promotion = member.prepare_promotion(SOON).await.expect("prepare").expect("a standby");
    promotion.write_trigger().expect("write the trigger");
    promotion.signal().expect("signal");
    promotion.await_primary().await.expect("promote");
    println!("promote {:?}", clock::now().since(begun));
}

async fn stop(member: &Postgres) -> Stopped {
    let begun = clock::now();
    let stopped = member.stop(StopMode::Fast, SOON).await.expect("stop");
    println!("stop {:?} {stopped:?}", clock::now().since(begun));
    stopped
}

async fn facts_until(member: &Postgres, what: &str, holds: impl Fn(&SqlFacts) -> bool) -> SqlFacts {
    let deadline = clock::now() + SOON;
    loop {
        let facts = member.sql_facts().await;
        match facts {
            Ok(facts) if holds(&facts) => return facts,
            other => assert!(clock::now() < deadline, "{what}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn streams(facts: &SqlFacts) -> bool {
    matches!(&facts.standby, Standby::Yes { receiver: Some(receiver), .. } if receiver.status == "streaming")
}

fn pid(member: &Postgres) -> i32 {
    match *member.process().borrow() {
        Process::Up { pid, .. } => pid,
        Process::Down { .. } => panic!("down"),
    }
}

async fn down(member: &Postgres) {
    let mut process = member.process();
    let down = process.wait_for(|process| matches!(process, Process::Down { .. }));
    tokio::time::timeout(SOON, down).await.expect("down in time").expect("a sender");
    assert_eq!(left(member.setup()), Vec::<i32>::new());
}

/// All remaining processes of that PostgreSQL: each of them works in the data directory.
fn left(setup: &Setup) -> Vec<i32> {
    let directory = setup.data_dir.canonicalize().expect("data directory");
    let program = setup.program("postgres").canonicalize().expect("postgres");
    let works_here = |pid: &i32| {
        process::cwd(*pid).as_ref() == Some(&directory)
            && process::exe(*pid).as_ref() == Some(&program)
            && process::is_thread_group_leader(*pid)
            && process::stat(*pid).is_some_and(|stat| !stat.is_zombie())
    };
    process::all().filter(works_here).collect()
}

async fn client(member: &Postgres) -> tokio_postgres::Client {
    let setup = member.setup();
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(setup.port).user("postgres").dbname("postgres");
    config.password(setup.superuser.password.newest().expect("a password"));
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_and_its_standby() {
    let herd = Herd::new("new");
    let leader = herd.primary("a").await;
    let facts = leader.sql_facts().await.expect("facts");
    assert!(facts.is_primary() && facts.flushed.is_known());
    assert_eq!(facts.timeline.map(|timeline| timeline.0), Some(2));
    let slots = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let create = SlotChanges { create: slots(&["b", "c"]), ..SlotChanges::default() };
    leader.set_slots(&create).await.expect("create slots");
    let drop = SlotChanges { drop: slots(&["c"]), create: slots(&["b"]), ..SlotChanges::default() };
    leader.set_slots(&drop).await.expect("drop a slot");
    leader.checkpoint(SOON).await.expect("checkpoint");

    let standby = herd.standby("b", &leader).await;
    let facts = facts_until(&standby, "streaming", streams).await;
    assert_eq!(facts.timeline.map(|timeline| timeline.0), Some(2));
    let with_slot = FollowTarget { slot: Some("b".to_owned()), ..target(&leader) };
    assert!(standby.follow(Some(&with_slot)).await.expect("follow"));
    let slot = |facts: &SqlFacts| {
        matches!(&facts.standby, Standby::Yes { receiver: Some(receiver), .. }
            if receiver.slot.as_deref() == Some("b") && receiver.port == Some(leader.setup().port))
    };
    facts_until(&standby, "streaming through the slot", slot).await;
    slots::move_on_a_standby(&standby).await;
    let facts = facts_until(&leader, "replication seen", |facts| !facts.replication.is_empty()).await;
    assert_eq!(facts.replication[0]["application_name"], "b");
    assert_eq!(facts.slots.keys().collect::<Vec<_>>(), ["b"]);
    let history = standby_history(&leader, &standby).await;
    assert_eq!(history, Divergence::None);
    assert_eq!(stop(&standby).await, Stopped::Fast);
    assert_eq!(stop(&leader).await, Stopped::Fast);
    let (DataDirectory::Ready(control), history) = leader.look().await else { panic!("not ready") };
    assert_eq!((control.state, history.0.len()), (ControlState::ShutDown, 1));
}

async fn standby_history(leader: &Postgres, member: &Postgres) -> Divergence {
    let theirs = leader.leader_history(&target(leader)).await.expect("history");
    assert!(!theirs.in_recovery);
    let (data, history) = member.look().await;
    let sql = member.sql_facts().await.ok();
    let facts = matriarch::model::PostgresFacts {
        data,
        history,
        process: member.process().borrow().clone(),
        sql_trouble: sql.is_none().then(|| "down".to_owned()),
        sql,
        ..Default::default()
    };
    facts.branch().expect("a branch").divergence_from(&theirs.branch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postmaster_is_down_at_once() {
    let herd = Herd::new("kill");
    let leader = herd.primary("a").await;
    let clients = [client(&leader).await, client(&leader).await];
    let begun = clock::now();
    kill(Pid::from_raw(pid(&leader)), Signal::SIGKILL).expect("kill");
    down(&leader).await;
    println!("down after {:?}", clock::now().since(begun));
    drop(clients);
    start(&leader, None).await;
    promote(&leader).await;
    assert_eq!(leader.sql_facts().await.expect("facts").timeline.map(|timeline| timeline.0), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_with_sigkill() {
    let herd = Herd::new("stairs");
    let leader = herd.primary("a").await;
    let session = client(&leader).await;
    let backend: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.expect("pid").get(0);
    kill(Pid::from_raw(backend), Signal::SIGSTOP).expect("stop");
    let stopped = leader.stop(StopMode::Fast, Duration::from_millis(300)).await.expect("stop");
    assert_eq!(stopped, Stopped::Killed);
    assert_eq!(left(leader.setup()), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn adoption_and_stale_pid_files() {
    let herd = Herd::new("adopt");
    let leader = herd.primary("a").await;
    let (setup, parameters, running) = (leader.setup().clone(), leader.parameters(), pid(&leader));
    drop(leader);
    let adopted = Postgres::new(setup.clone(), parameters.clone());
    assert_eq!(adopted.adopt(None).await, Adoption::Running);
    assert_eq!(pid(&adopted), running);
    assert_eq!(stop(&adopted).await, Stopped::Fast);

    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).expect("send");
        std::thread::park();
    });
    let tid = told.recv().expect("a thread");
    let text =
        format!("{tid}\n{}\n1\n{}\n{}\n*\n", setup.data_dir.display(), setup.port, herd.root.display());
    fs::write(setup.data_dir.join("postmaster.pid"), text).expect("write");
    let member = Postgres::new(setup, parameters);
    assert_eq!(member.adopt(None).await, Adoption::Nothing);
    start(&member, None).await;
    stop(&member).await;
    thread.thread().unpark();
    thread.join().expect("join");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_clone_is_redone() {
    let herd = Herd::new("clone");
    let leader = herd.primary("a").await;
    let member = herd.member("b");
    let limited = Setup { basebackup: vec!["max-rate=1M".to_owned()], ..member.setup().clone() };
    let slow = Postgres::new(limited, member.parameters());
    let (progress, mut seen) = watch::channel(CloneStatus::default());
    let from = target(&leader);
    let begun = async { seen.wait_for(|now| now.done > 0).await.map(drop) };
    tokio::select! {
        result = slow.make_replica(order(&from), progress) => panic!("too fast: {result:?}"),
        begun = begun => begun.expect("progress"),
    }
    let half = DataDirectory::HalfMade { by: "clone".to_owned() };
    assert_eq!(member.look().await.0, half);
    assert!(matches!(member.start_standby(None, SOON).await, Err(Error::Unfit(_))));
    member
        .make_replica(order(&target(&leader)), watch::channel(CloneStatus::default()).0)
        .await
        .expect("clone");
    start(&member, Some(&leader)).await;
    facts_until(&member, "streaming", streams).await;
}

#[test]
fn the_fence_fires_while_the_runtime_is_blocked() {
    let herd = Herd::new("fence");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let leader = herd.primary("a").await;
        let session = client(&leader).await;
        let backend: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.expect("pid").get(0);
        kill(Pid::from_raw(backend), Signal::SIGSTOP).expect("stop");
        let program = env!("CARGO_BIN_EXE_matriarch").into();
        let data_dir = leader.setup().data_dir.clone();
        let link_setup = LinkSetup { program, separate: None, data_dir, watchdog: None };
        let (link, found) = Link::start(link_setup).expect("a link");
        assert_eq!(found, Found::Nothing);
        let processes = leader.processes().expect("it runs");
        let arm = |stop_at, kill_at| {
            link.arm(ArmedDeadlines {
                deadlines: Deadlines { stop_at, kill_at },
                target: processes,
                watchdog_at: None,
            })
        };
        arm(clock::now() + Duration::from_secs(60), clock::now() + Duration::from_secs(61));
        assert!(link.holds(SOON));
        let now = clock::now();
        arm(now + Duration::from_millis(100), now + Duration::from_millis(400));
        let deadline = now + SOON;
        // The only thread of the runtime waits here, so only the fence can act.
        while !left(leader.setup()).is_empty() {
            assert!(clock::now() < deadline, "left: {:?}", left(leader.setup()));
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("fenced after {:?}", clock::now().since(now));
        let mut facts = link.facts();
        facts.wait_for(|facts| facts.phase == GuardPhase::Over).await.expect("the guard fires");
        down(&leader).await;
    });
}

/// If no guard can be started, nothing may run that needs one.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_guard_a_primary_is_stopped() {
    let herd = Herd::new("guardless");
    let leader = herd.primary("a").await;
    let data_dir = leader.setup().data_dir.clone();
    let (link, _) =
        Link::start(LinkSetup { program: "/bin/false".into(), separate: None, data_dir, watchdog: None })
            .expect("a link");
    let later = clock::now() + Duration::from_secs(60);
    let deadlines = Deadlines { stop_at: later, kill_at: later };
    link.arm(ArmedDeadlines { deadlines, target: leader.processes().expect("it runs"), watchdog_at: None });
    assert!(!link.holds(Duration::from_millis(500)), "nobody holds it");
    down(&leader).await;
    assert!(clock::now() < later && left(leader.setup()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_access_rules_are_rolled_back() {
    let herd = Herd::new("hba");
    let leader = herd.primary("a").await;
    let good = leader.parameters();
    let mut broken = good.clone();
    broken.pg_hba = Some(vec!["host all all 127.0.0.1/32 nonsense".to_owned()]);
    broken.parameters.insert("work_mem".to_owned(), "7MB".to_owned());
    broken.parameters.insert("shared_buffers".to_owned(), "17MB".to_owned());
    let Err(Error::BrokenAccessRules { errors }) = leader.apply(broken).await else { panic!("accepted") };
    assert!(errors[0].contains("nonsense"), "{errors:?}");
    assert_eq!(leader.parameters().pg_hba, good.pg_hba);
    let session = client(&leader).await;
    let deadline = clock::now() + SOON;
    while session.query_one("SHOW work_mem", &[]).await.expect("show").get::<_, &str>(0) != "7MB" {
        assert!(clock::now() < deadline);
    }
    let pending = leader.pending_restart().await.expect("pending");
    assert_eq!(pending["shared_buffers"], ("16MB".to_owned(), "17MB".to_owned()));
}

/// In a separate process: a reaper takes every unregistered child, including those of other tests.
#[test]
fn the_reaper_takes_orphans_only() {
    const ALONE: &str = "TEST_REAPER_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        return runtime.block_on(reap_an_orphan());
    }
    let mut alone = Command::new(std::env::current_exe().expect("this program"));
    alone.args(["--exact", "postgres::the_reaper_takes_orphans_only"]).env(ALONE, "1");
    assert!(child::spawn_std(&mut alone).expect("spawn").wait().expect("wait").success());
}

async fn reap_an_orphan() {
    reap::become_subreaper().expect("subreaper");
    let mut shell = tokio::process::Command::new("sh");
    // The orphan ends soon after its parent, a child of this test, which ended with 7 and has not been waited for.
    shell.args(["-c", "sh -c 'exec sleep 0.05' & exit 7"]);
    let mut own = child::spawn(&mut shell, child::OnOwnerExit::DiesWithItsOwner).expect("spawn");
    let deadline = clock::now() + SOON;
    while reap::reap_orphans() == 0 {
        assert!(clock::now() < deadline, "no orphan");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(reap::reap_orphans(), 0);
    assert_eq!(own.wait().await.expect("its exit").code(), Some(7));
}
