//! A whole member is frozen, including its guard: the kernel kills its postmaster before another member can lead.

use std::time::Duration;

use matriarch::model::Moment;
use matriarch::os::clock;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Cluster, Freezer, Plan, Writer, until};

/// The rest of a lease after its drift allowance, at most.
const LEASE: Duration = Duration::from_secs(5);

/// Waits until this postmaster is dead, although every process that could kill it is frozen.
async fn dies_frozen(cluster: &Cluster, postmaster: u32, since: Moment) {
    let dead = async || (!cluster.members[0].has_process(postmaster)).then(clock::now);
    let at = until(LEASE * 3, dead).await;
    let took = at.map(|at| at.since(since));
    println!("the postmaster was dead after {took:?}");
    assert!(took.is_some_and(|took| took < LEASE), "dead after {took:?}\n{}", cluster.story());
}

/// The freezer of cgroup v2 holds supervisor, guard and Postgres. When they are thawed after a failover, the rest of
/// Postgres acknowledges no statement that was sent in the meantime, and the member follows the new leader.
#[tokio::test]
async fn a_frozen_members_postmaster_dies_before_its_lease() {
    let cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let Some(freezer) = Freezer::around(&cluster.members[0]) else { return };
    with_timer_processes(&cluster).await;
    let (idle, port) = idle_client(&cluster).await;
    // Longer than the guard needs to notice a new backend.
    cluster
        .stays(Duration::from_secs(3), "m1 leads", async || cluster.members[0].postmaster().is_some())
        .await;
    let postmaster = cluster.members[0].postmaster().expect("m1 leads");
    let since = clock::now();
    freezer.freeze();
    // The statement lies in the backend's socket when the kernel kills. A backend that survived would answer it.
    let late = tokio::spawn(async move { idle.batch_execute("CREATE TABLE too_late ()").await });
    let arrived = async || is_unread(cluster.members[0].postgres, port);
    cluster.wait_until(LEASE, "the statement lies in the backend's socket", arrived).await;
    dies_frozen(&cluster, postmaster, since).await;
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    writer.wait_for_more(20, Duration::from_secs(20)).await;
    assert!(freezer.is_frozen());
    freezer.thaw();
    assert!(late.await.expect("no panic").is_err(), "acknowledged by the former primary");
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
}

/// The same with every process stopped by a signal.
#[tokio::test]
async fn a_stopped_members_postmaster_dies_before_its_lease() {
    let cluster = Plan::new(2).start().await;
    with_timer_processes(&cluster).await;
    let postmaster = cluster.members[0].postmaster().expect("m1 leads");
    let since = clock::now();
    cluster.members[0].signal_all(Signal::SIGSTOP);
    dies_frozen(&cluster, postmaster, since).await;
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    cluster.members[0].signal_all(Signal::SIGCONT);
    cluster.wait_until_well().await;
}

/// A freeze that ends in time has no effect.
#[tokio::test]
async fn a_briefly_stopped_member_keeps_leading() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    with_timer_processes(&cluster).await;
    let postmaster = cluster.members[0].postmaster();
    for _ in 0..3 {
        cluster.members[0].signal_all(Signal::SIGSTOP);
        tokio::time::sleep(LEASE / 10).await;
        cluster.members[0].signal_all(Signal::SIGCONT);
        with_timer_processes(&cluster).await;
    }
    leads_on(&cluster, postmaster).await;
}

/// The end or stop of one timer process does not fire the timer: both are replaced, and Postgres continues. The same
/// applies when the guard dies, and its timer processes with it.
#[tokio::test]
async fn the_end_of_a_timer_process_or_guard_kills_no_postgres() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    // Timer processes with a shorter life are not replaced at once.
    let old_enough = LEASE + Duration::from_secs(1);
    let postmaster = cluster.members[0].postmaster();
    let guard = cluster.members[0].guard();
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        leads_for(&cluster, postmaster, old_enough).await;
        let timer_processes = with_timer_processes(&cluster).await;
        cluster.members[0].signal_process(timer_processes[0], signal);
        let replaced = async || {
            let now = cluster.members[0].timer_processes();
            now.len() == 2 && !now.contains(&timer_processes[0]) && !now.contains(&timer_processes[1])
        };
        cluster.wait_until(LEASE * 2, "other timer_processes are there", replaced).await;
    }
    assert_eq!(cluster.members[0].guard(), guard);
    let timer_processes = with_timer_processes(&cluster).await;
    cluster.members[0].signal_guard(Signal::SIGKILL);
    let gone = async || !timer_processes.iter().any(|pid| cluster.members[0].has_process(*pid));
    cluster.wait_until(LEASE, "the timer_processes of a dead guard are gone", gone).await;
    with_timer_processes(&cluster).await;
    leads_on(&cluster, postmaster).await;
}

/// Waits until the kernel's dead-man timer is armed.
async fn with_timer_processes(cluster: &Cluster) -> Vec<u32> {
    let timer_processes =
        until(LEASE * 2, async || Some(cluster.members[0].timer_processes()).filter(|it| it.len() == 2))
            .await;
    timer_processes.unwrap_or_else(|| panic!("the guard has no fuse\n{}", cluster.story()))
}

async fn leads_on(cluster: &Cluster, postmaster: Option<u32>) {
    leads_for(cluster, postmaster, LEASE * 3).await;
}

/// m1 answers as primary for `span`, with the same postmaster.
async fn leads_for(cluster: &Cluster, postmaster: Option<u32>, span: Duration) {
    let serves = async || cluster.members[0].status("/primary").await == 200;
    cluster.stays(span, "m1 answers as primary", serves).await;
    assert_eq!(cluster.members[0].postmaster(), postmaster, "{}", cluster.story());
}

/// Whether the server that listens on `server` has unread data from the client's port (proc_net_tcp(5)).
fn is_unread(server: u16, client: u16) -> bool {
    let connections = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let ends = [format!(":{server:04X}"), format!(":{client:04X}")];
    connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|words| match words[..] {
        [_, local, remote, _, queues, ..] => {
            local.ends_with(&ends[0]) && remote.ends_with(&ends[1]) && !queues.ends_with(":00000000")
        }
        _ => false,
    })
}

/// A connection to m1 whose backend waits for a statement, and the connection's source port. A backend that has not yet
/// begun to wait would read the statement at once.
async fn idle_client(cluster: &Cluster) -> (tokio_postgres::Client, u16) {
    let client = crate::support::connect(&crate::support::settings(&[cluster.members[0].postgres])).await;
    let client = client.expect("m1 takes clients");
    let who = client.query_one("SELECT pg_backend_pid(), inet_client_port()", &[]).await.expect("m1 answers");
    let (pid, port) = (who.get::<_, i32>(0), who.get::<_, i32>(1));
    let waits = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}");
    let waits = async || cluster.members[0].value(&waits).await == "ClientRead";
    cluster.wait_until(LEASE * 2, "the backend waits for a statement", waits).await;
    (client, port.try_into().expect("a port"))
}
