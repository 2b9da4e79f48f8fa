//! Each machine with a driver that answers from a list.

use super::*;
use crate::model::{Leading, LeaseId};

const LEASE: LeaseId = LeaseId(7);
const TERM: Term = Term(3);

fn leading() -> LeaseFacts {
    LeaseFacts {
        lease: Some(LEASE),
        ttl: Duration::from_secs(10),
        leading: Leading::Yes(TERM),
        deadline: Some(Moment::default() + Duration::from_secs(10)),
        ..LeaseFacts::default()
    }
}

fn actor() -> Actor {
    Actor { name: MemberName::new("a").expect("a valid name"), keys: Keys::new("/service/test") }
}

fn machine(job: Job) -> Machine {
    Machine::of(actor(), job, || "{}".to_owned())
}

/// The steps that these answers lead to, and how the machine ends.
fn run(mut machine: Machine, lease: &LeaseFacts, answers: Vec<Answer>) -> (Vec<Step>, Option<Outcome>) {
    let mut steps = Vec::new();
    for answer in [Answer::Begin].into_iter().chain(answers) {
        match machine.next(answer, Now { lease, at: Moment::default() }) {
            Next::Do(step) => steps.push(step),
            Next::End(outcome) => return (steps, Some(outcome)),
        }
    }
    (steps, None)
}

fn promotion() -> Machine {
    machine(Job::Promote { term: TERM, above: Timeline(4) })
}

/// The answers until the guard is asked to be armed for the first time.
fn until_armed() -> Vec<Answer> {
    let claimed = Answer::Written(Ok(Cas::Done(9)));
    vec![Answer::Done, Answer::Done, Answer::Key(Ok(None)), claimed, Answer::Done, Answer::Done, Answer::Done]
}

#[test]
fn a_promotion_arms_the_guard_before_the_trigger_and_before_the_signal() {
    let answers = until_armed().into_iter().chain(vec![Answer::Done; 5]).collect();
    let (steps, outcome) = run(promotion(), &leading(), answers);
    let (claim, _) = actor().keys.claim_timeline((TERM, LEASE), Timeline(4), None);
    let expected = vec![
        Step::Promote(PromotionStep::AwaitPromotable),
        Step::BeginStrip(TERM),
        Step::Read("/service/test/timeline".to_owned()),
        Step::Commit(claim),
        Step::AwaitStripped,
        Step::Promote(PromotionStep::ReserveTimelines(Timeline(4))),
        Step::Promote(PromotionStep::Prepare),
        Step::Promote(PromotionStep::Arm),
        Step::Promote(PromotionStep::WriteTrigger),
        Step::Promote(PromotionStep::Arm),
        Step::Promote(PromotionStep::Signal),
        Step::Promote(PromotionStep::AwaitPrimary),
    ];
    assert_eq!(steps, expected);
    assert_eq!(outcome, Some(Outcome::Done));
}

#[test]
fn a_promotion_without_an_armed_guard_writes_no_trigger() {
    let refused = Answer::Failed("no guard".to_owned());
    let (steps, outcome) = run(promotion(), &leading(), until_armed().into_iter().chain([refused]).collect());
    assert_eq!(steps.last(), Some(&Step::Promote(PromotionStep::Arm)));
    assert_eq!(outcome, Some(Outcome::Failed("no guard".to_owned())));
}

#[test]
fn a_promotion_ends_when_the_lease_is_too_short() {
    let short = LeaseFacts { deadline: Some(Moment::default() + Duration::from_millis(500)), ..leading() };
    let (steps, outcome) =
        run(promotion(), &short, until_armed().into_iter().chain([Answer::Done]).collect());
    assert_eq!(steps.last(), Some(&Step::Promote(PromotionStep::Arm)));
    assert!(matches!(outcome, Some(Outcome::Failed(_))));
}

#[test]
fn a_timeline_that_another_leader_claimed_ends_the_promotion() {
    let lost = Answer::Written(Ok(Cas::Lost));
    let (steps, outcome) =
        run(promotion(), &leading(), vec![Answer::Done, Answer::Done, Answer::Key(Ok(None)), lost]);
    assert!(matches!(steps.last(), Some(Step::Commit(_))));
    assert!(matches!(outcome, Some(Outcome::Failed(_))));
}

fn bootstrap() -> Machine {
    machine(Job::Bootstrap { seen: 5 })
}

fn made() -> Vec<Answer> {
    vec![Answer::Written(Ok(Cas::Done(6))), Answer::SystemId(4711)]
}

/// The supervisor was frozen while initdb ran: its lease ended, and another member made the cluster.
#[test]
fn a_bootstrap_whose_claim_ran_out_sets_its_directory_aside() {
    let answers = made().into_iter().chain([Answer::Written(Ok(Cas::Lost)), Answer::Done]).collect();
    let (steps, outcome) = run(bootstrap(), &leading(), answers);
    assert_eq!(steps.last(), Some(&Step::Postgres(PostgresStep::SetAside)));
    assert_eq!(outcome, Some(Outcome::Lost));
}

/// The answer to the last write was lost: the key is read until it is known.
#[test]
fn a_bootstrap_of_unknown_end_reads_back() {
    let unknown = || Answer::Written(Err(WriteError::Unknown("no answer".to_owned())));
    let key = |value: &str, lease: i64| {
        Answer::Key(Ok(Some(StoredKey { value: value.as_bytes().to_vec(), lease, mod_revision: 8 })))
    };
    let ends = |rest: Vec<Answer>| {
        run(
            bootstrap(),
            &leading(),
            made().into_iter().chain([unknown(), Answer::Done]).chain(rest).collect(),
        )
    };
    assert_eq!(ends(vec![key("4711", 0)]).1, Some(Outcome::Done));
    assert_eq!(ends(vec![key("4712", 0), Answer::Done]).1, Some(Outcome::Lost));
    assert_eq!(ends(vec![Answer::Key(Ok(None)), Answer::Done]).1, Some(Outcome::Lost));
    assert_eq!(ends(vec![key("", LEASE.0), Answer::Written(Ok(Cas::Done(9)))]).1, Some(Outcome::Done));
    let silent = Answer::Key(Err(WriteError::Unknown("no answer".to_owned())));
    let (steps, outcome) = ends(vec![silent, Answer::Done]);
    assert_eq!(steps.last(), Some(&Step::Read("/service/test/initialize".to_owned())));
    assert_eq!(outcome, None);
}

#[test]
fn a_bootstrap_that_fails_frees_the_key() {
    let answers = vec![
        Answer::Written(Ok(Cas::Done(6))),
        Answer::Failed("no space".to_owned()),
        Answer::Written(Ok(Cas::Done(7))),
    ];
    let (steps, outcome) = run(bootstrap(), &leading(), answers);
    assert_eq!(steps.last(), Some(&Step::Commit(actor().keys.free_initialize(LEASE))));
    assert_eq!(outcome, Some(Outcome::Failed("no space".to_owned())));
}

/// A renewal reads who leads, whatever became of the write.
#[test]
fn a_change_of_the_leader_key_ends_with_a_renewal() {
    let release = || machine(Job::ReleaseLeadership { term: TERM, status: None });
    for (written, expected) in [
        (Ok(Cas::Done(9)), Outcome::Done),
        (Ok(Cas::Lost), Outcome::Lost),
        (Err(WriteError::LeaseNotFound), Outcome::LeaseGone),
        (Err(WriteError::NoSpace("full".to_owned())), Outcome::Refused("full".to_owned())),
        (Err(WriteError::Unknown("late".to_owned())), Outcome::Unknown("late".to_owned())),
    ] {
        let (steps, outcome) = run(release(), &leading(), vec![Answer::Written(written), Answer::Done]);
        assert_eq!(steps.last(), Some(&Step::RenewLease));
        assert_eq!(outcome, Some(expected));
    }
}

#[test]
fn only_the_leader_lowers_its_minimums_before_a_start() {
    let start = || machine(Job::StartStandby { follow: None, within: Duration::ZERO });
    let (steps, _) = run(start(), &leading(), vec![Answer::Done; 2]);
    assert_eq!(steps[1], Step::Postgres(PostgresStep::LowerMinimums));
    let (steps, _) = run(start(), &LeaseFacts::default(), vec![Answer::Done]);
    assert!(matches!(steps[1], Step::Postgres(PostgresStep::Start { .. })));
}

#[test]
fn an_emergency_stop_waits_for_no_label() {
    let stop = |mode| machine(Job::Stop { mode, within: Duration::ZERO });
    assert_eq!(run(stop(StopMode::Fast), &leading(), vec![]).0, [Step::Unlabel]);
    assert!(matches!(
        run(stop(StopMode::Immediate), &leading(), vec![]).0[0],
        Step::Postgres(PostgresStep::Stop { .. })
    ));
}
