//! What is asked and done, in which order.

use super::*;
use crate::model::{Leading, LeaseFacts};

fn wait(until: u64) -> LeaseQuestion {
    LeaseQuestion::Wait { until: at(until) }
}

fn keep_alive(lease: LeaseId, ttl: Duration) -> LeaseQuestion {
    LeaseQuestion::KeepAlive { lease, timing: LeaseTiming { ttl } }
}

fn read(ttl: Duration) -> LeaseQuestion {
    LeaseQuestion::ReadLeader { timing: LeaseTiming { ttl } }
}

fn asks(ask: LeaseQuestion) -> LeaseNext {
    LeaseNext { effects: Vec::new(), ask }
}

fn does(effects: impl Into<Vec<LeaseEffect>>, ask: LeaseQuestion) -> LeaseNext {
    LeaseNext { effects: effects.into(), ask }
}

/// What a leader's failed round comes to: the members are asked beside it.
fn fails(now: u64, wakes: u64) -> LeaseNext {
    let round = PromiseRound { term: Term(5), lease: MINE, ttl: LONG, sent_at: at(now) };
    let timing = LeaseTiming { ttl: LONG };
    let within = timing.stop_at(timing.deadline(at(0))).since(at(now)) / 2;
    does(
        [LeaseEffect::AskMembers { round, first: Default::default(), within }, LeaseEffect::Publish],
        wait(wakes),
    )
}

/// Gives one answer after the other, all at that moment; what comes after the last.
fn after(rounds: &mut LeaseRounds, now: u64, answers: impl IntoIterator<Item = LeaseAnswer>) -> LeaseNext {
    let all = answers.into_iter().map(|answer| rounds.next(answer, at(now)));
    all.last().expect("there is an answer")
}

/// A machine that leads in term 5 on the lease [`MINE`], renewed at 0.
fn leading() -> LeaseRounds {
    let mut rounds = rounds(Some(MINE));
    after(&mut rounds, 0, [woke(LONG), renewed(MINE, LONG, 0), leader(MINE, 5)]);
    rounds
}

/// The deadline that a renewal of this TTL gives.
fn deadline(ttl: Duration, sent_at: u64) -> Option<Moment> {
    Some(LeaseTiming { ttl }.deadline(at(sent_at)))
}

/// Brings a machine that leads to where it moves leadership to [`OTHER`].
fn moving(rounds: &mut LeaseRounds, now: u64) -> LeaseNext {
    let granted = LeaseAnswer::Granted(OTHER);
    let answers = [woke(SHORT), granted, renewed(OTHER, SHORT, now), leader(MINE, 5)];
    after(rounds, now, answers);
    after(rounds, now, [LeaseAnswer::GuardHolds(true), leader(MINE, 5)])
}

fn kept(error: WriteError) -> LeaseEffect {
    LeaseEffect::Say(LeaseNotice::TtlKept { ttl: SHORT, error })
}

#[test]
fn a_first_round_has_a_lease_granted_and_confirms_it() {
    let mut rounds = rounds(None);
    assert_eq!(rounds.next(woke(LONG), at(10)), asks(LeaseQuestion::Grant { ttl: LONG }));
    let granted = rounds.next(LeaseAnswer::Granted(MINE), at(20));
    assert_eq!(granted, does([LeaseEffect::Publish], keep_alive(MINE, LONG)));
    assert_eq!(rounds.facts().deadline, None, "a grant alone proves nothing");
    assert_eq!(rounds.next(renewed(MINE, LONG, 30), at(40)), asks(read(LONG)));
    assert_eq!(rounds.facts().deadline, None, "nor does an answer without the read");
    let confirmed = rounds.next(nobody(), at(50));
    // The guard has the deadline before anybody rests on it, and the next renewal counts from the round's beginning.
    assert_eq!(confirmed, does([LeaseEffect::TellGuard, LeaseEffect::Publish], wait(5_010)));
    assert_eq!((rounds.facts().deadline, rounds.facts().leading), (deadline(LONG, 30), Leading::No));
}

#[test]
fn nothing_is_asked_while_renewals_are_withheld() {
    let mut rounds = leading();
    let before = rounds.facts().clone();
    let withheld = LeaseAnswer::Woke { ttl: SHORT, withheld: Some("it is dead".to_owned()) };
    assert_eq!(rounds.next(withheld, at(5_000)), does([LeaseEffect::Publish], wait(5_200)));
    let trouble = Some("not renewed: it is dead".to_owned());
    assert_eq!(*rounds.facts(), LeaseFacts { trouble, ..before });
}

#[test]
fn trouble_keeps_the_deadline_wherever_it_comes() {
    let answers = [renewed(MINE, LONG, 5_000), leader(MINE, 5)];
    for good in 0..answers.len() {
        let mut rounds = leading();
        after(&mut rounds, 5_000, [woke(LONG)].into_iter().chain(answers[..good].iter().cloned()));
        assert_eq!(rounds.next(unknown(), at(9_000)), fails(9_000, 9_200));
        assert_eq!(rounds.facts().deadline, deadline(LONG, 0));
        assert_eq!(rounds.facts().trouble.as_deref(), Some("no answer"));
        let again = after(&mut rounds, 9_200, [woke(LONG), renewed(MINE, LONG, 9_200), leader(MINE, 5)]);
        assert_eq!(again.ask, wait(14_200));
        assert_eq!((rounds.facts().deadline, &rounds.facts().trouble), (deadline(LONG, 9_200), &None));
    }
}

#[test]
fn a_lease_not_found_is_gone_only_if_the_leader_key_agrees() {
    let not_found = LeaseAnswer::Failed(WriteError::LeaseNotFound);
    let mut rounds = leading();
    let reads = after(&mut rounds, 5_000, [woke(LONG), not_found.clone()]);
    assert_eq!(reads, asks(read(LONG)));
    let contradicted = rounds.next(leader(MINE, 5), at(5_100));
    assert_eq!(contradicted, fails(5_100, 5_300));
    assert_eq!((rounds.facts().lease, rounds.facts().deadline), (Some(MINE), deadline(LONG, 0)));

    let gone = after(&mut rounds, 6_000, [woke(LONG), not_found, leader(OTHER, 6)]);
    let says = [LeaseEffect::Say(LeaseNotice::Gone(MINE)), LeaseEffect::Publish];
    assert_eq!(gone, does(says, LeaseQuestion::Grant { ttl: LONG }));
    let again = [LeaseAnswer::Granted(LeaseId(9)), renewed(LeaseId(9), LONG, 6_100), leader(OTHER, 6)];
    assert_eq!(after(&mut rounds, 6_200, again).ask, wait(11_000), "in the same round");
    assert_eq!((rounds.facts().lease, rounds.facts().leading), (Some(LeaseId(9)), Leading::No));
}

#[test]
fn differing_raft_terms_are_tried_once_more() {
    let deposed = LeaseAnswer::Leader(LeaderRead { raft_term: 3, leader: Some((MINE, Term(5))) });
    let mut rounds = leading();
    let again = after(&mut rounds, 5_000, [woke(LONG), renewed(MINE, LONG, 5_000), deposed.clone()]);
    assert_eq!(again, asks(keep_alive(MINE, LONG)));
    let mut twice = rounds.clone();
    assert_eq!(after(&mut rounds, 5_100, [renewed(MINE, LONG, 5_050), leader(MINE, 5)]).ask, wait(10_000));
    assert_eq!(rounds.facts().deadline, deadline(LONG, 5_050));
    assert_eq!(after(&mut twice, 5_100, [renewed(MINE, LONG, 5_050), deposed]).ask, wait(5_300));
    assert_eq!(twice.facts().deadline, deadline(LONG, 0));
    assert_eq!(twice.facts().trouble.as_deref(), Some("keepalive and read come from different raft terms"));
}

#[test]
fn a_resumed_lease_has_the_ttl_of_its_first_renewal() {
    let mut rounds = rounds(Some(MINE));
    assert_eq!(rounds.facts().lease, Some(MINE), "known from the first moment");
    assert_eq!(rounds.next(woke(LONG), at(0)).ask, keep_alive(MINE, LONG));
    // It has to be renewed in the time that it has.
    assert_eq!(after(&mut rounds, 10, [renewed(MINE, SHORT, 0), leader(MINE, 5)]).ask, wait(1_500));
    let changes = rounds.next(woke(LONG), at(1_500));
    assert_eq!(changes, asks(LeaseQuestion::Grant { ttl: LONG }), "and gets the TTL that is wanted");
}

#[test]
fn the_guard_holds_the_earlier_deadline_before_leadership_moves() {
    let mut rounds = leading();
    assert_eq!(rounds.next(woke(SHORT), at(5_000)), asks(LeaseQuestion::Grant { ttl: SHORT }));
    assert_eq!(rounds.next(LeaseAnswer::Granted(OTHER), at(5_000)), asks(keep_alive(OTHER, SHORT)));
    assert_eq!(rounds.next(renewed(OTHER, SHORT, 5_000), at(5_000)), asks(read(LONG)));
    let shown = rounds.next(leader(MINE, 5), at(5_000));
    assert_eq!(shown, does([LeaseEffect::Publish], LeaseQuestion::AskGuard));
    assert_eq!(rounds.facts().deadline, deadline(SHORT, 5_000));
    assert!(rounds.facts().owns(MINE) && rounds.facts().owns(OTHER));
    assert_eq!(rounds.next(LeaseAnswer::GuardHolds(true), at(5_100)), asks(read(LONG)));
    let txn = keys().move_leadership((Term(6), MINE), OTHER);
    assert_eq!(rounds.next(leader(MINE, 6), at(5_100)), asks(LeaseQuestion::Commit(txn)), "as it is now");
    let moved = rounds.next(LeaseAnswer::Moved(Cas::Done(9)), at(5_200));
    let says = LeaseNotice::TtlChanged { lease: OTHER, ttl: SHORT, term: Some(Term(9)) };
    assert_eq!(moved, does([LeaseEffect::Say(says), LeaseEffect::Publish], keep_alive(OTHER, SHORT)));
    assert_eq!((rounds.facts().lease, rounds.facts().leading), (Some(OTHER), Leading::Yes(Term(9))));
    assert_eq!(after(&mut rounds, 5_300, [renewed(OTHER, SHORT, 5_200), leader(OTHER, 9)]).ask, wait(6_500));
}

#[test]
fn a_guard_that_refuses_keeps_the_lease_as_it_is() {
    let mut rounds = leading();
    let granted = LeaseAnswer::Granted(OTHER);
    after(&mut rounds, 5_000, [woke(SHORT), granted, renewed(OTHER, SHORT, 5_000), leader(MINE, 5)]);
    let refused = rounds.next(LeaseAnswer::GuardHolds(false), at(5_000));
    let why = WriteError::Unknown("the guard has not confirmed the other deadline".to_owned());
    assert_eq!(refused, does([kept(why)], keep_alive(MINE, LONG)));
    assert!(!rounds.facts().owns(OTHER));
    // The shorter TTL is wanted still: it is asked for again, and the rounds are as frequent as it needs.
    assert_eq!(after(&mut rounds, 5_100, [renewed(MINE, LONG, 5_000), leader(MINE, 5)]).ask, wait(6_500));
    assert_eq!(rounds.facts().deadline, deadline(LONG, 5_000));
    assert_eq!(rounds.next(woke(SHORT), at(9_999)).ask, keep_alive(MINE, LONG));
    after(&mut rounds, 9_999, [renewed(MINE, LONG, 9_999), leader(MINE, 5)]);
    assert_eq!(rounds.next(woke(SHORT), at(10_000)).ask, LeaseQuestion::Grant { ttl: SHORT });
}

#[test]
fn whatever_fails_before_the_guard_is_asked_keeps_the_lease_as_it_is() {
    let answers = [LeaseAnswer::Granted(OTHER), renewed(OTHER, SHORT, 5_000)];
    for good in 0..=answers.len() {
        let mut rounds = leading();
        after(&mut rounds, 5_000, [woke(SHORT)].into_iter().chain(answers[..good].iter().cloned()));
        let failed = rounds.next(unknown(), at(5_000));
        assert_eq!(failed.ask, keep_alive(MINE, LONG), "after {good} answers");
        assert_eq!((rounds.facts().moving_to, rounds.facts().deadline), (None, deadline(LONG, 0)));
    }
}

#[test]
fn a_move_that_is_lost_leaves_the_new_lease_without_leadership() {
    for lost in [true, false] {
        let mut rounds = leading();
        moving(&mut rounds, 5_000);
        let next = match lost {
            true => rounds.next(LeaseAnswer::Moved(Cas::Lost), at(5_100)),
            // It is not known what became of it, and the key is another's when it is read again.
            false => after(&mut rounds, 5_100, [unknown(), woke(SHORT), leader(LeaseId(9), 8)]),
        };
        assert_eq!(next.ask, keep_alive(OTHER, SHORT));
        assert_eq!((rounds.facts().lease, rounds.facts().leading), (Some(OTHER), Leading::No));
    }
}

#[test]
fn nothing_is_renewed_before_the_outcome_of_a_move_is_known() {
    let mut rounds = leading();
    moving(&mut rounds, 5_000);
    assert_eq!(rounds.next(unknown(), at(8_000)), does([LeaseEffect::Publish], wait(8_200)));
    assert!(rounds.facts().owns(MINE) && rounds.facts().owns(OTHER));
    assert_eq!(rounds.facts().deadline, deadline(SHORT, 5_000), "the earlier one holds");
    // Not even the TTL that is wanted by now makes a difference.
    assert_eq!(rounds.next(woke(LONG), at(8_200)), asks(read(LONG)));
    assert_eq!(rounds.next(unknown(), at(8_300)).ask, wait(8_500), "nor a read that fails");
    let mut undone = rounds.clone();

    let done = after(&mut rounds, 8_500, [woke(LONG), leader(OTHER, 9)]);
    assert_eq!(done.ask, keep_alive(OTHER, SHORT), "it was done");
    assert_eq!(rounds.facts().leading, Leading::Yes(Term(9)));

    let again = after(&mut undone, 8_500, [woke(LONG), leader(MINE, 5)]);
    assert_eq!(again.ask, LeaseQuestion::Commit(keys().move_leadership((Term(5), MINE), OTHER)));
}

#[test]
fn a_move_that_etcd_refuses_keeps_the_lease_as_it_is() {
    for error in [WriteError::NoSpace("full".to_owned()), WriteError::LeaseNotFound] {
        let mut rounds = leading();
        moving(&mut rounds, 5_000);
        let refused = rounds.next(LeaseAnswer::Failed(error.clone()), at(5_100));
        assert_eq!(refused, does([kept(error)], keep_alive(MINE, LONG)));
        after(&mut rounds, 5_200, [renewed(MINE, LONG, 5_100), leader(MINE, 5)]);
        assert_eq!((rounds.facts().moving_to, rounds.facts().deadline), (None, deadline(LONG, 5_100)));
    }
}

#[test]
fn an_answer_to_another_question_is_trouble() {
    let mut rounds = leading();
    let next = after(&mut rounds, 5_000, [woke(LONG), LeaseAnswer::GuardHolds(true)]);
    assert_eq!(next, fails(5_000, 5_200));
    assert_eq!(rounds.facts().deadline, deadline(LONG, 0));
}
