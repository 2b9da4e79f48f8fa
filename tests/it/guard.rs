//! The guard: whatever happens to the supervisor, its primary is dead before another member can lead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use matriarch::model::Moment;
use matriarch::os::clock;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Cluster, Plan, Writer, command_as, connect, settings, until};

mod programs;

/// The rest of a lease after its drift allowance, at most.
const LEASE: Duration = Duration::from_secs(5);

/// Waits until no process of this member's Postgres is left. That must be before the lease can have ended. The guard's
/// own time counts if the guard logged one, because on a busy machine the test notices late too.
async fn dies_in_time(cluster: &Cluster, index: usize, since: Moment) {
    let member = &cluster.members[index];
    let gone = until(LEASE * 3, async || (member.postgres_processes() == 0).then_some(())).await;
    assert!(gone.is_some(), "its Postgres lives\n{}", cluster.story());
    let mut seen_at = clock::now();
    let line = until(Duration::from_secs(2), async || none_left_at(&member.log_text())).await;
    if let Some(told) = line.filter(|told| since < *told) {
        seen_at = told;
    }
    let took = seen_at.since(since);
    println!("no process left after {took:?}");
    assert!(took < LEASE, "its Postgres lived on for {took:?}\n{}", cluster.story());
}

/// The time in the guard's last line.
fn none_left_at(log: &str) -> Option<Moment> {
    let (_, rest) = log.rsplit_once("none left at ")?;
    let (seconds, millis) = rest.split_once('s')?.0.split_once('.')?;
    Some(Moment::from_millis(seconds.parse::<u64>().ok()? * 1000 + millis.parse::<u64>().ok()?))
}

/// The supervisor is killed. The guard ends its Postgres before the lease ends, another member takes over, and the
/// guard exits too.
#[tokio::test]
async fn a_killed_supervisors_primary_dies_before_its_lease() {
    let mut cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let guard = cluster.members[0].guard();
    assert!(guard.is_some(), "{}", cluster.story());
    let since = clock::now();
    cluster.members[0].kill_supervisor();
    dies_in_time(&cluster, 0, since).await;
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let ended = async || cluster.members[0].guard().is_none();
    cluster.wait_until(Duration::from_secs(5), "the guard has ended", ended).await;
    assert!(none_left_at(&cluster.members[0].log_text()).is_some(), "{}", cluster.story());
    cluster.members[0].start();
    cluster.wait_until_well().await;
    drop(writer);
}

/// The supervisor is frozen. The guard acts in the same way. When the supervisor continues, it follows the new leader.
#[tokio::test]
async fn a_frozen_supervisors_primary_dies_before_its_lease() {
    let mut cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let since = clock::now();
    cluster.members[0].signal_supervisor(Signal::SIGSTOP);
    dies_in_time(&cluster, 0, since).await;
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    writer.wait_for_more(20, Duration::from_secs(20)).await;
    cluster.members[0].signal_supervisor(Signal::SIGCONT);
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert!(cluster.members[0].supervisor_lives(), "{}", cluster.story());
}

/// The processes of a frozen Postgres react only to SIGKILL.
#[tokio::test]
async fn a_frozen_postgres_is_killed_to_the_last_process() {
    let mut cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    assert!(cluster.members[0].postgres_processes() > 5, "postmaster, backends, walsenders");
    let since = clock::now();
    // The order matters: the kernel wakes the stopped processes of a group whose last parent dies.
    cluster.members[0].kill_supervisor();
    cluster.members[0].signal_postgres(Signal::SIGSTOP);
    dies_in_time(&cluster, 0, since).await;
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    writer.wait_for_more(20, Duration::from_secs(20)).await;
}

/// The guard has to fire although many threads compete for every processor.
#[tokio::test]
async fn the_guard_fires_in_time_on_a_busy_machine() {
    let mut cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let load = Load::start(4 * std::thread::available_parallelism().map_or(2, usize::from));
    let since = clock::now();
    cluster.members[0].kill_supervisor();
    dies_in_time(&cluster, 0, since).await;
    drop(load);
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
}

/// The guard is killed, and its replacement too: each time another guard takes over, and no client notices.
#[tokio::test]
async fn a_killed_guard_is_replaced_and_nothing_stops() {
    let cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    let postmaster = cluster.members[0].postmaster();
    for _ in 0..3 {
        writer.wait_for_more(20, Duration::from_secs(10)).await;
        let killed = cluster.members[0].signal_guard(Signal::SIGKILL);
        replaced(&cluster, killed, Duration::from_secs(2)).await;
    }
    lives_on(&cluster, LEASE * 2).await;
    assert_eq!(cluster.members[0].postmaster(), postmaster);
    let history = writer.stop_and_verify(&cluster.members[0]).await;
    assert!(history.unknown.is_empty(), "no client was disturbed: {:?}", history.unknown);
}

/// A frozen guard would not fire: it is detected within two seconds, killed and replaced.
#[tokio::test]
async fn a_frozen_guard_is_replaced_and_nothing_stops() {
    let cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let postmaster = cluster.members[0].postmaster();
    let frozen = cluster.members[0].signal_guard(Signal::SIGSTOP);
    replaced(&cluster, frozen, Duration::from_secs(3)).await;
    lives_on(&cluster, LEASE * 2).await;
    assert_eq!(cluster.members[0].postmaster(), postmaster);
    let history = writer.stop_and_verify(&cluster.members[0]).await;
    assert!(history.unknown.is_empty(), "no client was disturbed: {:?}", history.unknown);
}

/// A replacement guard has the deadline of its predecessor: although the supervisor is killed before its next renewal,
/// the guard fires.
#[tokio::test]
async fn a_replaced_guard_fires_like_the_first() {
    let mut cluster = Plan::new(2).start().await;
    let killed = cluster.members[0].signal_guard(Signal::SIGKILL);
    replaced(&cluster, killed, Duration::from_secs(3)).await;
    let since = clock::now();
    cluster.members[0].kill_supervisor();
    dies_in_time(&cluster, 0, since).await;
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
}

/// Guard and supervisor are killed together: the primary has no fence. The supervisor that starts again cannot know the
/// deadline, and stops the primary at once.
#[tokio::test]
async fn an_unguarded_primary_is_stopped_at_once() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].signal_supervisor(Signal::SIGSTOP);
    cluster.members[0].signal_guard(Signal::SIGKILL);
    cluster.members[0].kill_supervisor();
    assert_eq!(cluster.members[0].postmaster(), postmaster, "nobody is left to stop it");
    cluster.members[0].start();
    let stopped = async || cluster.members[0].postmaster() != postmaster;
    cluster.wait_until(Duration::from_secs(5), "the primary without a guard is stopped", stopped).await;
    assert!(cluster.members[0].log_text().contains("stopping PostgreSQL at once"), "{}", cluster.story());
    cluster.wait_until_well().await;
}

/// The same with a frozen guard: it does not answer the new supervisor, which stops the primary and kills the guard.
#[tokio::test]
async fn a_primary_whose_guard_is_frozen_is_stopped_at_once() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].signal_supervisor(Signal::SIGSTOP);
    let frozen = cluster.members[0].signal_guard(Signal::SIGSTOP);
    cluster.members[0].kill_supervisor();
    cluster.members[0].start();
    let stopped =
        async || cluster.members[0].postmaster() != postmaster && !cluster.members[0].has_process(frozen);
    cluster.wait_until(Duration::from_secs(6), "primary and frozen guard are gone", stopped).await;
    cluster.wait_until_well().await;
}

/// A supervisor that is ended in pause leaves its primary running, longer than any lease, and finds it again.
#[tokio::test]
async fn an_end_in_pause_leaves_the_primary_alone() {
    let mut cluster = Plan::new(1).start().await;
    let postmaster = cluster.members[0].postmaster();
    let output = cluster.members[0].command(&["pause", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let paused = |seen: &crate::support::Seen| seen.0["pause"] == true;
    cluster.wait_for(Duration::from_secs(10), "the pause is shown", paused).await;
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(30)).await, Some(0));
    let alone = async || cluster.members[0].postmaster() == postmaster && postmaster.is_some();
    cluster.stays(LEASE * 2, "the primary runs on", alone).await;
    assert_eq!(cluster.members[0].guard(), None);
}

/// A supervisor that starts again takes over the guard's deadline unchanged. Without etcd it cannot confirm its lease,
/// so the primary dies at that deadline, not later.
#[tokio::test]
async fn a_restarted_supervisor_does_not_extend_the_deadline() {
    let mut cluster = Plan::new(2).start().await;
    let guard = cluster.members[0].guard();
    cluster.etcd.freeze();
    let since = clock::now();
    cluster.members[0].kill_supervisor();
    cluster.members[0].start();
    let relieved = async || cluster.members[0].guard().is_some_and(|now| Some(now) != guard);
    cluster.wait_until(Duration::from_secs(3), "a new guard has taken over", relieved).await;
    dies_in_time(&cluster, 0, since).await;
    cluster.etcd.thaw();
    cluster.wait_until_well().await;
}

/// There are far more clients than the guard may have descriptors: it reports that, needs no processor time for it,
/// never ends a healthy primary, and still kills all processes at the deadline.
#[tokio::test]
async fn a_guard_with_few_descriptors_neither_spins_nor_stops_its_primary() {
    let roomy = json!({ "postgresql": { "parameters": { "max_connections": 150 } } });
    let mut cluster = Plan::new(1).dynamic(roomy).start().await;
    let (postmaster, guard) = (cluster.members[0].postmaster(), cluster.members[0].guard().expect("it runs"));
    // As the guard's own user: root needs a capability for it that a container may lack.
    let mut prlimit = command_as("prlimit", &cluster.members[0].folder);
    let limited = prlimit.args(["--pid", &guard.to_string(), "--nofile=64:64"]).status();
    assert!(limited.expect("util-linux is there").success(), "its limit is set");
    let config = settings(&cluster.ports());
    let mut clients = Vec::new();
    while clients.len() < 100 {
        clients.push(connect(&config).await.expect("there is room"));
    }
    let said = async || cluster.members[0].log_text().contains("too few file descriptors");
    cluster.wait_until(Duration::from_secs(10), "it says that they are too few", said).await;
    let (before, span) = (processor_time(guard), LEASE * 2);
    lives_on(&cluster, span).await;
    let took = processor_time(guard).saturating_sub(before);
    println!("the guard took {took:?} of {span:?}");
    assert!(took < span / 4, "it took {took:?} of {span:?}");
    assert_eq!((cluster.members[0].postmaster(), cluster.members[0].guard()), (postmaster, Some(guard)));
    let since = clock::now();
    cluster.members[0].kill_supervisor();
    cluster.members[0].signal_postgres(Signal::SIGSTOP);
    dies_in_time(&cluster, 0, since).await;
    drop(clients);
}

/// The processor time of a process so far.
fn processor_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = text.rsplit_once(')').expect("its name");
    // User and system time, in ticks of 10 ms.
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// A clean end of the supervisor ends the guard too.
#[tokio::test]
async fn an_orderly_end_leaves_no_guard() {
    let mut cluster = Plan::new(1).start().await;
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(30)).await, Some(0));
    let member = &cluster.members[0];
    let gone = async || member.guard().is_none();
    cluster.wait_until(Duration::from_secs(3), "no guard is left", gone).await;
    for name in ["data.matriarch-guard", "data.matriarch-guard-idle"] {
        assert!(!member.folder.join(name).exists(), "{name} is left");
    }
}

/// Waits until another guard has replaced `former`, and `former` is dead.
async fn replaced(cluster: &Cluster, former: u32, within: Duration) {
    let member = &cluster.members[0];
    let another = async || member.guard().is_some_and(|now| now != former) && !member.has_process(former);
    cluster.wait_until(within, "a new guard has taken over", another).await;
}

/// m1 leads and answers as primary for `span`, which is longer than a lease.
async fn lives_on(cluster: &Cluster, span: Duration) {
    let serves = async || cluster.members[0].status("/primary").await == 200;
    cluster.stays(span, "m1 answers as primary", serves).await;
}

/// Threads that only use processor time.
struct Load {
    ends: Arc<AtomicBool>,
}

impl Load {
    fn start(threads: usize) -> Load {
        let ends = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let ends = ends.clone();
            std::thread::spawn(move || while !ends.load(Ordering::Relaxed) {});
        }
        Load { ends }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
