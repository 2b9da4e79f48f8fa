//! The members' promises, while etcd does not answer.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{FailsafeMembers, Leading, MemberName};

fn names(list: &str) -> BTreeSet<MemberName> {
    list.split_whitespace().map(|name| MemberName::new(name).expect("a name")).collect()
}

fn members(list: &str) -> Option<FailsafeMembers> {
    Some(names(list).into_iter().map(|name| (name, String::new())).collect())
}

/// A machine that leads in term 5 on the lease [`MINE`], renewed at 0.
fn leading() -> LeaseRounds {
    let mut rounds = rounds(Some(MINE));
    for answer in [woke(LONG), renewed(MINE, LONG, 0), leader(MINE, 5)] {
        rounds.next(answer, at(0));
    }
    rounds
}

/// The question that is asked when a renewal fails then; `None`: none is.
fn asked(rounds: &mut LeaseRounds, millis: u64) -> Option<(PromiseRound, Duration)> {
    rounds.next(woke(LONG), at(millis));
    let effects = rounds.next(unknown(), at(millis)).effects;
    effects.into_iter().find_map(|effect| match effect {
        LeaseEffect::AskMembers { round, within, .. } => Some((round, within)),
        _other => None,
    })
}

fn answers(
    round: PromiseRound,
    asked: &str,
    promised: &str,
    needed: Option<FailsafeMembers>,
) -> PromiseAnswers {
    let asked = members(asked).expect("some");
    PromiseAnswers { round, asked, promised: names(promised), needed }
}

#[test]
fn a_leader_without_etcd_goes_on_for_a_ttl_from_its_question() {
    let mut rounds = leading();
    let (round, within) = asked(&mut rounds, 5_000).expect("the members are asked");
    assert_eq!((round.term, round.lease, round.sent_at), (Term(5), MINE, at(5_000)));
    assert!(within < LONG / 2, "half of the time that is left: {within:?}");
    assert_eq!(asked(&mut rounds, 5_200), None, "once a quarter of the TTL");
    assert!(rounds.promised(&answers(round, "b c", "b c", members("b c")), at(6_000)));
    let until = LeaseTiming { ttl: LONG }.deadline(at(5_000));
    assert_eq!(rounds.facts().covered_until(), Some(until));
    assert_eq!(rounds.facts().deadline, Some(LeaseTiming { ttl: LONG }.deadline(at(0))), "the lease's own");
}

#[test]
fn one_member_that_does_not_promise_is_one_too_few() {
    let mut rounds = leading();
    let (round, _) = asked(&mut rounds, 5_000).expect("the members are asked");
    for (asked, promised, needed) in [
        ("b c", "b", members("b c")),
        ("b c", "", members("b c")),
        // The key names another member since.
        ("b c", "b c", members("b c d")),
        // Failsafe mode was switched off since.
        ("b c", "b c", None),
    ] {
        let short = answers(round, asked, promised, needed);
        assert!(!rounds.promised(&short, at(6_000)), "{short:?}");
    }
    assert_eq!(rounds.facts().promised_until, None);
    assert!(asked(&mut rounds, 6_200).is_some(), "they are asked again at once");
}

/// A promise delays a failover: nobody makes one that is of no use.
#[test]
fn who_did_not_promise_is_asked_first() {
    let mut rounds = leading();
    let (round, _) = asked(&mut rounds, 5_000).expect("the members are asked");
    rounds.promised(&answers(round, "b c", "b", members("b c")), at(6_000));
    let next = rounds.next(woke(LONG), at(6_200));
    assert!(matches!(next.ask, LeaseQuestion::KeepAlive { .. }));
    let effects = rounds.next(unknown(), at(6_200)).effects;
    let first = effects.into_iter().find_map(|effect| match effect {
        LeaseEffect::AskMembers { first, .. } => Some(first),
        _other => None,
    });
    assert_eq!(first, Some(names("c")));
}

/// A cluster of one member has nobody to ask.
#[test]
fn alone_nobody_has_to_promise() {
    let mut rounds = leading();
    let (round, _) = asked(&mut rounds, 5_000).expect("nobody is asked");
    let alone = PromiseAnswers {
        round,
        asked: BTreeMap::new(),
        promised: BTreeSet::new(),
        needed: Some(BTreeMap::new()),
    };
    assert!(rounds.promised(&alone, at(5_000)));
}

#[test]
fn promises_that_come_too_late_or_for_another_lease_prove_nothing() {
    let mut rounds = leading();
    let (round, _) = asked(&mut rounds, 5_000).expect("the members are asked");
    let all = |round| answers(round, "b", "b", members("b"));
    assert!(!rounds.promised(&all(PromiseRound { lease: OTHER, ..round }), at(6_000)));
    assert!(!rounds.promised(&all(PromiseRound { term: Term(4), ..round }), at(6_000)));
    let over = rounds.facts().covered_until().expect("it leads");
    assert!(!rounds.promised(&all(round), over), "somebody may have led since");
}

#[test]
fn nobody_is_asked_by_a_dead_primary_or_without_leadership() {
    let mut rounds = leading();
    let withheld = LeaseAnswer::Woke { ttl: LONG, withheld: Some("it is dead".to_owned()) };
    assert!(
        !rounds
            .next(withheld, at(5_000))
            .effects
            .iter()
            .any(|it| matches!(it, LeaseEffect::AskMembers { .. }))
    );
    rounds.next(woke(LONG), at(5_000));
    rounds.next(renewed(MINE, LONG, 5_000), at(5_000));
    rounds.next(nobody(), at(5_000));
    assert_eq!(asked(&mut rounds, 10_000), None);
}

/// etcd is back without the lease: the promises last while leadership is taken anew, unless another member leads.
#[test]
fn promises_outlast_the_lease_and_end_with_another_leader() {
    for (read, lasts) in [(nobody(), true), (leader(OTHER, 9), false)] {
        let mut rounds = leading();
        let (round, _) = asked(&mut rounds, 5_000).expect("the members are asked");
        rounds.promised(&answers(round, "b", "b", members("b")), at(5_100));
        rounds.next(woke(LONG), at(21_000));
        rounds.next(LeaseAnswer::Failed(WriteError::LeaseNotFound), at(21_000));
        rounds.next(read, at(21_000));
        rounds.next(LeaseAnswer::Granted(LeaseId(9)), at(21_000));
        let facts = rounds.facts();
        assert_eq!((facts.leading, facts.is_promised(at(21_000))), (Leading::Unknown, lasts));
        assert_eq!(facts.vanished, lasts.then_some(MINE));
    }
}

/// A shorter TTL would count from promises that were made for the longer one.
#[test]
fn the_ttl_changes_only_when_no_promise_stands() {
    let mut rounds = leading();
    let (round, _) = asked(&mut rounds, 5_000).expect("the members are asked");
    rounds.promised(&answers(round, "b", "b", members("b")), at(5_100));
    assert!(matches!(rounds.next(woke(SHORT), at(6_000)).ask, LeaseQuestion::KeepAlive { lease: MINE, .. }));
    rounds.next(renewed(MINE, LONG, 6_000), at(6_000));
    rounds.next(leader(MINE, 5), at(6_000));
    assert!(matches!(rounds.next(woke(SHORT), at(25_000)).ask, LeaseQuestion::Grant { ttl: SHORT }));
}
