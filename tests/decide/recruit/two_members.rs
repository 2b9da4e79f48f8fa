//! Two members: nobody else can say which of them is cut off.

use matriarch::model::{RecruitKey, RecruitWrite, SyncMode, Term};

use super::super::world::{World, name, primary, up};
use super::{ATTEMPT, attempt_of, deposes, detached, record, suspecting, writes};

#[test]
fn a_leader_withdraws_the_attempt_of_the_only_other_member() {
    let mut leader = World::new();
    leader.seen.settings.sync.mode = SyncMode::On;
    leader.i_lead().postgres(up(primary(2000)));
    let term = leader.cluster().leader.as_ref().expect("I lead").term;
    let key = RecruitKey { candidate: name("b"), term, attempt: ATTEMPT };
    leader.cluster().recruit = Some(key.clone());
    assert_eq!(writes(&mut leader), [], "c has witnessed it");
    leader.cluster().members.remove(&name("c"));
    assert_eq!(writes(&mut leader), [RecruitWrite::Withdraw { attempt: ATTEMPT }]);
    leader.cluster().recruit = Some(RecruitKey { term: Term(term.0 - 1), ..key });
    assert_eq!(writes(leader.later(1000)), [], "it is over");

    let mut candidate = suspecting(0);
    candidate.cluster().members.remove(&name("c"));
    record(&mut candidate).voters = [name("a")].into();
    attempt_of(&mut candidate, "a");
    candidate.tick();
    detached(candidate.later(20));
    assert!(!deposes(candidate.later(229)), "249 ms");
    assert!(deposes(candidate.later(1)));
}
