//! Scenarios: a restarted supervisor finds a running primary, and the leader key on its own lease.

use matriarch::model::{Action, Job, Leading, Reason, StopMode};

use super::world::{World, primary, up};

/// Looks twice a second. Returns when and why the primary is stopped, in milliseconds after the first look.
fn stopped_after(leading: Leading, millis: u64) -> Option<(u64, Reason)> {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    let began_at = world.now;
    while world.now.since(began_at).as_millis() < u128::from(millis) {
        world.seen.lease.leading = leading;
        if leading == Leading::Unknown {
            world.seen.lease.deadline = None;
        }
        let decision = world.tick();
        for action in &decision.actions {
            if let Action::Start(Job::Stop { mode: StopMode::Immediate, .. }) = action {
                return Some((world.now.since(began_at).as_millis() as u64, decision.because));
            }
        }
        world.later(500);
    }
    None
}

/// An unknown lease is not a lost lease: while etcd is slow to answer the first renewal, only the guard's deadline
/// limits the primary.
#[test]
fn an_adopted_primary_survives_a_slow_first_renewal() {
    assert_eq!(stopped_after(Leading::Unknown, 30_000), None);
}

/// After a renewal that found no key, the view has one second to contradict it.
#[test]
fn an_adopted_primary_stops_when_the_first_renewal_denies_its_leadership() {
    assert_eq!(stopped_after(Leading::No, 30_000), Some((1_000, Reason::LeaseExpiring)));
}
