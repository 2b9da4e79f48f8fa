//! Scenarios: the way behind a new leader where standbys confirm commits. Its first commit waits for them.

use matriarch::model::{Action, Branch, LeaderBranch, LeaseId, Lsn, MemberName, Role, SyncMode};
use serde_json::json;

use super::sync::record;
use super::world::{World, leader, name};

/// `b` leads, and is not primary yet.
fn promoting() -> World {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"]));
    world.cluster().members.get_mut(&name("b")).expect("a member").record.role = Role::Replica;
    world.receives_nothing();
    world
}

impl World {
    /// `b` answers now that it has replayed as far as `end`.
    fn told(&mut self, end: u64, has_slot: bool) {
        let answer = Ok(Branch { end: Some(Lsn(end)), ..self.seen.postgres.branch().expect("it has one") });
        self.seen.leader_branch =
            Some(LeaderBranch { name: name("b"), asked_at: self.now, answer, has_slot, oldest: Lsn(0) });
    }
}

fn asked(actions: &[Action]) -> Option<MemberName> {
    let whom = |action: &Action| match action {
        Action::AskLeaderBranch { from } => Some(from.name.clone()),
        _other => None,
    };
    actions.iter().find_map(whom)
}

fn follows(actions: &[Action]) -> Option<MemberName> {
    let whom = |action: &Action| match action {
        Action::Follow(Some(target)) => Some(target.name.clone()),
        _other => None,
    };
    actions.iter().find_map(whom)
}

/// They connect while it is promoted, and not to be refused.
#[test]
fn a_new_leader_is_followed_while_it_is_promoted() {
    let mut world = promoting();
    assert_eq!(asked(&world.tick().actions), Some(name("b")));
    for (end, has_slot, why) in
        [(1000, false, "its slot is not there yet"), (999, true, "it may not have replayed all that it has")]
    {
        world.told(end, has_slot);
        let early = world.later(60).tick().actions;
        assert_eq!((asked(&early), follows(&early)), (Some(name("b")), None), "{why}");
    }
    world.told(1000, true);
    assert_eq!(follows(&world.later(60).tick().actions), Some(name("b")));
}

/// Of the members whose names become the same slot the first has it, and the others stream without.
#[test]
fn one_slot_goes_to_one_member() {
    for (other, has_slot) in [("A", false), ("a.1", true)] {
        let mut world = promoting();
        let key = world.cluster().members[&name("c")].clone();
        world.cluster().members.insert(name(other), key);
        world.tick();
        world.told(1000, true);
        let slot = world.later(60).tick().actions.into_iter().find_map(|action| match action {
            Action::Follow(Some(target)) => Some(target.slot),
            _other => None,
        });
        assert_eq!(slot.map(|slot| slot.is_some()), Some(has_slot), "beside {other}");
    }
}

/// Leadership moves twice within the time that an answer counts: the second leader is asked at once.
#[test]
fn each_new_leader_is_asked_for_its_history() {
    let mut world = promoting();
    assert_eq!(asked(&world.tick().actions), Some(name("b")));
    world.cluster().leader = Some(leader("c", LeaseId(9)));
    assert_eq!(asked(&world.later(60).tick().actions), Some(name("c")));
}

/// A leader that is slow to answer, or to be promoted, is not buried in connections.
#[test]
fn a_slow_leader_is_asked_one_question_at_a_time() {
    let mut world = promoting();
    assert_eq!(asked(&world.tick().actions), Some(name("b")));
    world.told(999, true);
    assert_eq!(asked(&world.later(60).tick().actions), Some(name("b")));
    assert_eq!(asked(&world.later(60).tick().actions), None, "it has not answered that yet");
    let mut questions = 0;
    for _ in 0..100 {
        world.told(999, true);
        questions += usize::from(asked(&world.later(60).tick().actions).is_some());
    }
    assert!((50..65).contains(&questions), "{questions} in six seconds: of the last three not one in 60 ms");
}

/// Its slot is on the member that it streams from.
#[test]
fn a_cascading_standby_needs_no_slot_on_the_leader() {
    let mut world = promoting();
    world.seen.me.tags.0.insert("replicatefrom".to_owned(), json!("c"));
    assert_eq!(asked(&world.tick().actions), Some(name("b")));
    world.told(1000, false);
    assert_eq!(follows(&world.later(60).tick().actions), Some(name("c")));
}
