//! While nothing is wrong but short stalls, the leader stays, unless an operator has asked for another one.

use std::fmt;
use std::time::Duration;

use matriarch::model::Term;

use crate::sim::clock::At;
use crate::sim::world::Sim;

/// After a switchover the former leader is synchronous again by then.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);

/// What was last seen of the keys, and what was counted.
#[derive(Debug, Default)]
pub(crate) struct LeaderWatch {
    is_watched: bool,
    revision: i64,
    leader: Option<(String, Term)>,
    /// An operator's request was there.
    is_asked: bool,
    attempt: Option<i64>,
    /// Commits that began before do not count.
    waits_from: At,
    /// So far.
    pub(crate) alarms: Alarms,
}

/// What came of stalls, and was no change of leadership.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alarms {
    /// How often a member began to suspect its leader.
    suspicions: u64,
    /// Attempts to replace a leader: commits wait meanwhile.
    attempts: u64,
    /// Changes of leadership that an operator asked for.
    ordered: u64,
}

impl Alarms {
    /// Adds those of another story.
    pub(crate) fn add(&mut self, other: &Alarms) {
        self.suspicions += other.suspicions;
        self.attempts += other.attempts;
        self.ordered += other.ordered;
    }
}

impl fmt::Display for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alarms { suspicions, attempts, ordered } = self;
        write!(
            f,
            "{suspicions} suspicions, {attempts} attempts to replace a leader, {ordered} leaders replaced by order"
        )
    }
}

/// The cluster is up, and from now on its leader stays. Waits count from here, too.
pub(crate) fn watch(sim: &Sim) {
    let mut world = sim.world();
    world.ledger.memory.calm =
        LeaderWatch { is_watched: true, leader: world.leader(), ..LeaderWatch::default() };
    world.ledger.longest_wait = Duration::ZERO;
}

/// Whatever happens now is counted no more.
pub(crate) fn stop_watching(sim: &Sim) {
    sim.world().ledger.memory.calm.is_watched = false;
}

/// A member suspects the leader, and did not before.
pub(crate) fn suspects(sim: &Sim) {
    let mut world = sim.world();
    let calm = &mut world.ledger.memory.calm;
    calm.alarms.suspicions += u64::from(calm.is_watched);
}

/// A commit that began then is acknowledged. What a former leader's recovery costs after a switchover is no wait for
/// nothing.
pub(crate) fn acknowledged(sim: &Sim, began: At) {
    let now = sim.now();
    let mut world = sim.world();
    let calm = &world.ledger.memory.calm;
    if calm.is_watched && calm.waits_from <= began {
        let waited = Duration::from_nanos(now.0 - began.0);
        world.ledger.longest_wait = world.ledger.longest_wait.max(waited);
    }
}

/// After every step.
pub(crate) fn check(sim: &Sim) {
    let now = sim.now();
    let mut world = sim.world();
    let (calm, revision) = (&world.ledger.memory.calm, world.etcd.store.revision);
    if !calm.is_watched || calm.revision == revision {
        return;
    }
    let (leader, attempt) = (world.leader(), world.attempt().map(|key| key.attempt));
    let asked = world.etcd.store.keys.contains_key(&world.keys.path("failover"));
    let calm = &mut world.ledger.memory.calm;
    calm.revision = revision;
    calm.alarms.attempts += u64::from(attempt.is_some() && attempt != calm.attempt);
    calm.attempt = attempt;
    let before = std::mem::replace(&mut calm.leader, leader);
    let was_asked = std::mem::replace(&mut calm.is_asked, asked);
    if before == calm.leader {
        return;
    }
    if asked || was_asked {
        calm.waits_from = now + RECOVERED_WITHIN;
        calm.alarms.ordered += 1;
        return;
    }
    let text = format!("{before:?} led, and now it is {:?}", calm.leader);
    world.ledger.break_promise("false_alarm", text);
}
