//! A rolling update of a StatefulSet ends its pods from the highest ordinal down.

use matriarch::model::{MemberName, SqlFacts};

use super::world::{World, name, primary, up};

/// This member leads as the pod `leader`; the others are the pods of b and c.
fn pods(leader: &str, others: [&str; 2]) -> World {
    let mut world = World::new();
    world.i_lead();
    world.seen.me.name = name(leader);
    let cluster = world.cluster();
    cluster.leader.as_mut().expect("I lead").name = name(leader);
    for (former, pod) in ["a", "b", "c"].into_iter().zip([leader, others[0], others[1]]) {
        let key = cluster.members.remove(&name(former)).expect("a member of the world");
        cluster.members.insert(name(pod), key);
    }
    let mut sql: SqlFacts = primary(1000);
    for (walsender, pod) in sql.sync.walsenders.iter_mut().zip(others) {
        pod.clone_into(&mut walsender.name);
    }
    world.postgres(up(sql)).tick();
    world
}

/// The target of this leader's hand-over at its shutdown, when the others answer with these positions.
fn successor(leader: &str, others: [(&str, u64); 2]) -> Option<MemberName> {
    let mut world = pods(leader, others.map(|(pod, _)| pod));
    world.seen.shutting_down = true;
    world.later(10).tick();
    world.later(5);
    for (pod, lsn) in others {
        world.answers(pod, lsn);
    }
    world.tick();
    world.memory.hand_over.as_ref().and_then(|hand_over| hand_over.to.clone())
}

#[test]
fn a_leader_that_ends_hands_over_to_a_pod_that_was_updated() {
    for (updated, due) in [(1000, 1000), (900, 1000)] {
        assert_eq!(successor("pg-1", [("pg-0", due), ("pg-2", updated)]), Some(name("pg-2")));
    }
}

/// No pod was updated, or all were: the choice is the pod that an update would end last.
#[test]
fn without_an_updated_pod_the_one_updated_last_is_chosen() {
    assert_eq!(successor("pg-2", [("pg-0", 900), ("pg-1", 1000)]), Some(name("pg-0")));
    assert_eq!(successor("pg-10", [("pg-2", 900), ("pg-9", 1000)]), Some(name("pg-2")));
    assert_eq!(successor("pg-0", [("pg-1", 900), ("pg-2", 1000)]), Some(name("pg-2")), "both were updated");
}

#[test]
fn names_of_different_statefulsets_do_not_count() {
    assert_eq!(successor("a-1", [("b-2", 900), ("c-0", 1000)]), Some(name("c-0")));
    assert_eq!(successor("a", [("b-2", 900), ("c", 1000)]), Some(name("c")));
}

/// A rolling update of three pods hands over once, or twice if it begins with the leader.
#[test]
fn a_rolling_update_needs_the_fewest_hand_overs() {
    let ordinals = [2, 1, 0];
    for (first, expected) in [(0, 1), (1, 1), (2, 2)] {
        let (mut leader, mut hand_overs) = (first, 0);
        for ended in ordinals {
            if ended == leader {
                let pod = |ordinal: &i32| format!("pg-{ordinal}");
                let [one, two] = [(leader + 1) % 3, (leader + 2) % 3].map(|ordinal| pod(&ordinal));
                let to = successor(&pod(&leader), [(&one, 1000), (&two, 1000)]).expect("both are fit");
                leader = to.as_str()["pg-".len()..].parse().expect("an ordinal");
                hand_overs += 1;
            }
        }
        assert_eq!(hand_overs, expected, "begun with the primary on pg-{first}");
    }
}
