//! The guard: whatever happens to the supervisor, its primary is dead before anybody else can lead.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Cluster, Plan, Writer, until};

/// What a lease, and the drift allowance in it, leaves at most.
const LEASE: Duration = Duration::from_secs(5);

/// Waits until no process of this member's Postgres is left, which must be before the lease can have ended.
async fn dies_in_time(cluster: &Cluster, index: usize, since: Instant) {
    let member = &cluster.members[index];
    let gone = until(LEASE, async || (member.postgres_processes() == 0).then_some(())).await;
    let took = since.elapsed();
    assert!(gone.is_some() && took < LEASE, "its Postgres lives after {took:?}\n{}", cluster.story());
    println!("no process left after {took:?}");
}

/// The supervisor is killed. The guard ends its Postgres before the lease does, another member takes over, and the
/// guard itself goes, too.
#[tokio::test]
async fn a_killed_supervisors_primary_dies_before_its_lease() {
    let mut cluster = Plan::new(2).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let guard = cluster.members[0].guard();
    assert!(guard.is_some(), "{}", cluster.story());
    let since = Instant::now();
    cluster.members[0].kill_supervisor();
    dies_in_time(&cluster, 0, since).await;
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let ended = async || cluster.members[0].guard().is_none();
    cluster.wait_until(Duration::from_secs(5), "the guard has ended", ended).await;
    assert!(cluster.members[0].log_text().contains("the lease's deadline passed"), "{}", cluster.story());
    cluster.members[0].start();
    cluster.wait_until_well().await;
    drop(writer);
}
