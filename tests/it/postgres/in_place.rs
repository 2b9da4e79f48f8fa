//! The start of a primary as the primary that it was.

use matriarch::fence::{ArmedDeadlines, Deadlines, GuardPhase, Link, LinkSetup};
use matriarch::model::Process;
use matriarch::os::clock;
use matriarch::postgres::{Postgres, Started};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::herd::Herd;
use super::{SOON, client, down, pid, start, stop};

fn timeline(facts: &matriarch::model::SqlFacts) -> u32 {
    facts.timeline.expect("a timeline").0
}

/// A primary whose postmaster is killed while a commit is only in its WAL.
async fn crashed(herd: &Herd) -> Postgres {
    let leader = herd.primary("a").await;
    let session = client(&leader).await;
    session.batch_execute("CREATE TABLE kept (row int); INSERT INTO kept VALUES (1)").await.expect("write");
    kill(Pid::from_raw(pid(&leader)), Signal::SIGKILL).expect("kill");
    down(&leader).await;
    leader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_goes_on_on_its_timeline_after_a_crash_and_after_a_stop() {
    let herd = Herd::new("goes-on");
    let leader = crashed(&herd).await;
    for round in 0..2 {
        let mut held = leader.hold_primary().await.expect("hold");
        let waits = pid(&leader);
        assert!(!leader.setup().data_dir.join("standby.signal").exists());
        held.release().await.expect("release");
        assert_eq!(held.await_ready(SOON).await.expect("ready"), Started::Ready);
        let facts = leader.sql_facts().await.expect("facts");
        assert!(facts.is_primary(), "{facts:?}");
        assert_eq!((timeline(&facts), pid(&leader)), (2, waits), "{round}: the process stays the same one");
        let rows = client(&leader).await.query_one("SELECT count(*) FROM kept", &[]).await.expect("read");
        assert_eq!(rows.get::<_, i64>(0), 1);
        stop(&leader).await;
    }
    // Whatever an interrupted start left behind: it is a standby again.
    start(&leader, None).await;
    assert!(!leader.sql_facts().await.expect("facts").is_primary());
    stop(&leader).await;
    let refused = leader.hold_primary().await.err().expect("it was a standby").to_string();
    assert!(refused.contains("no primary when it went down"), "{refused}");
}

/// A supervisor that dies, or gives the start up, closes the input of the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_not_released_ends_without_having_started_postgresql() {
    let herd = Herd::new("not-released");
    let leader = crashed(&herd).await;
    let log = |leader: &Postgres| leader.setup().data_dir.join("postmaster.pid").exists();
    let left_by_the_crash = log(&leader);
    let held = leader.hold_primary().await.expect("hold");
    assert!(matches!(*leader.process().borrow(), Process::Up { standby_start: false, .. }));
    drop(held);
    down(&leader).await;
    assert_eq!(log(&leader), left_by_the_crash);
    start(&leader, None).await;
    let facts = leader.sql_facts().await.expect("facts");
    assert!(!facts.is_primary(), "{facts:?}");
}

/// The guard is armed for it while it waits, and kills it whatever it has become.
#[tokio::test(flavor = "multi_thread")]
async fn the_guard_of_a_process_that_waits_kills_what_it_becomes() {
    let herd = Herd::new("held-guard");
    let leader = crashed(&herd).await;
    for released in [false, true] {
        let mut held = leader.hold_primary().await.expect("hold");
        let setup = LinkSetup {
            program: env!("CARGO_BIN_EXE_matriarch").into(),
            data_dir: leader.setup().data_dir.clone(),
            watchdog: None,
            separate: None,
        };
        let (link, _found) = Link::start(setup).expect("a guard");
        let by = clock::now() + std::time::Duration::from_millis(1500);
        let deadlines = Deadlines { stop_at: by, kill_at: by };
        let target = leader.processes().expect("it waits");
        link.arm(ArmedDeadlines { deadlines, target, watchdog_at: None });
        assert!(link.holds(SOON));
        if released {
            held.release().await.expect("release");
            held.await_ready(SOON).await.expect("ready");
            assert!(leader.sql_facts().await.expect("facts").is_primary());
        }
        down(&leader).await;
        assert!(by <= clock::now(), "killed before the deadline");
        let mut facts = link.facts();
        let over = facts.wait_for(|facts| facts.phase == GuardPhase::Over);
        tokio::time::timeout(SOON, over).await.expect("in time").expect("a guard");
        link.leave(SOON);
        assert!(held.release().await.is_err(), "it is gone");
    }
}
