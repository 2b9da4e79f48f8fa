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

/// The steps that follow from these answers, and the outcome.
fn run(mut machine: Machine, lease: &LeaseFacts, answers: Vec<JobAnswer>) -> (Vec<JobStep>, Option<Outcome>) {
    let mut steps = Vec::new();
    for answer in [JobAnswer::Begin].into_iter().chain(answers) {
        match machine.next(answer, Now { lease, at: Moment::default() }) {
            JobNext::Do(step) => steps.push(step),
            JobNext::End(outcome) => return (steps, Some(outcome)),
        }
    }
    (steps, None)
}

fn promotion() -> Machine {
    machine(Job::Promote { term: TERM, above: Timeline(4) })
}

/// The answers until the first step that arms the guard.
fn until_armed() -> Vec<JobAnswer> {
    let claimed = JobAnswer::Written(Ok(Cas::Done(9)));
    vec![
        JobAnswer::Done,
        JobAnswer::Done,
        JobAnswer::Key(Ok(None)),
        claimed,
        JobAnswer::Done,
        JobAnswer::Done,
        JobAnswer::Done,
    ]
}

#[test]
fn a_promotion_arms_the_guard_before_the_trigger_and_before_the_signal() {
    let answers = until_armed().into_iter().chain(vec![JobAnswer::Done; 5]).collect();
    let (steps, outcome) = run(promotion(), &leading(), answers);
    let (claim, _) = actor().keys.claim_timeline((TERM, LEASE), Timeline(4), None);
    let expected = vec![
        JobStep::Promote(PromotionStep::AwaitPromotable),
        JobStep::BeginStrip(TERM),
        JobStep::Read("/service/test/timeline".to_owned()),
        JobStep::Commit(claim),
        JobStep::AwaitStripped,
        JobStep::Promote(PromotionStep::ReserveTimelines(Timeline(4))),
        JobStep::Promote(PromotionStep::Prepare),
        JobStep::Promote(PromotionStep::Arm),
        JobStep::Promote(PromotionStep::WriteTrigger),
        JobStep::Promote(PromotionStep::Arm),
        JobStep::Promote(PromotionStep::Signal),
        JobStep::Promote(PromotionStep::AwaitPrimary),
    ];
    assert_eq!(steps, expected);
    assert_eq!(outcome, Some(Outcome::Done));
}

#[test]
fn a_promotion_without_an_armed_guard_writes_no_trigger() {
    let refused = JobAnswer::Failed("no guard".to_owned());
    let (steps, outcome) = run(promotion(), &leading(), until_armed().into_iter().chain([refused]).collect());
    assert_eq!(steps.last(), Some(&JobStep::Promote(PromotionStep::Arm)));
    assert_eq!(outcome, Some(Outcome::Failed("no guard".to_owned())));
}

#[test]
fn a_promotion_ends_when_the_lease_is_too_short() {
    let short = LeaseFacts { deadline: Some(Moment::default() + Duration::from_millis(500)), ..leading() };
    let (steps, outcome) =
        run(promotion(), &short, until_armed().into_iter().chain([JobAnswer::Done]).collect());
    assert_eq!(steps.last(), Some(&JobStep::Promote(PromotionStep::Arm)));
    assert!(matches!(outcome, Some(Outcome::Failed(_))));
}

#[test]
fn a_timeline_that_another_leader_claimed_ends_the_promotion() {
    let lost = JobAnswer::Written(Ok(Cas::Lost));
    let (steps, outcome) =
        run(promotion(), &leading(), vec![JobAnswer::Done, JobAnswer::Done, JobAnswer::Key(Ok(None)), lost]);
    assert!(matches!(steps.last(), Some(JobStep::Commit(_))));
    assert!(matches!(outcome, Some(Outcome::Failed(_))));
}

fn bootstrap() -> Machine {
    machine(Job::Bootstrap { seen: 5 })
}

fn made() -> Vec<JobAnswer> {
    vec![JobAnswer::Written(Ok(Cas::Done(6))), JobAnswer::SystemId(4711)]
}

/// The supervisor was frozen while initdb ran: its lease expired, and another member created the cluster.
#[test]
fn a_bootstrap_whose_claim_ran_out_sets_its_directory_aside() {
    let answers = made().into_iter().chain([JobAnswer::Written(Ok(Cas::Lost)), JobAnswer::Done]).collect();
    let (steps, outcome) = run(bootstrap(), &leading(), answers);
    assert_eq!(steps.last(), Some(&JobStep::Postgres(PostgresStep::SetAside)));
    assert_eq!(outcome, Some(Outcome::Lost));
}

/// The answer to the last write was lost: the key is read until the result is known.
#[test]
fn a_bootstrap_with_an_unknown_result_reads_the_key() {
    let unknown = || JobAnswer::Written(Err(WriteError::Unknown("no answer".to_owned())));
    let key = |value: &str, lease: i64| {
        JobAnswer::Key(Ok(Some(StoredKey {
            value: value.as_bytes().to_vec(),
            lease,
            mod_revision: 8,
            create_revision: 8,
        })))
    };
    let ends = |rest: Vec<JobAnswer>| {
        run(
            bootstrap(),
            &leading(),
            made().into_iter().chain([unknown(), JobAnswer::Done]).chain(rest).collect(),
        )
    };
    assert_eq!(ends(vec![key("4711", 0)]).1, Some(Outcome::Done));
    assert_eq!(ends(vec![key("4712", 0), JobAnswer::Done]).1, Some(Outcome::Lost));
    assert_eq!(ends(vec![JobAnswer::Key(Ok(None)), JobAnswer::Done]).1, Some(Outcome::Lost));
    assert_eq!(ends(vec![key("", LEASE.0), JobAnswer::Written(Ok(Cas::Done(9)))]).1, Some(Outcome::Done));
    let silent = JobAnswer::Key(Err(WriteError::Unknown("no answer".to_owned())));
    let (steps, outcome) = ends(vec![silent, JobAnswer::Done]);
    assert_eq!(steps.last(), Some(&JobStep::Read("/service/test/initialize".to_owned())));
    assert_eq!(outcome, None);
}

#[test]
fn a_bootstrap_that_fails_frees_the_key() {
    let answers = vec![
        JobAnswer::Written(Ok(Cas::Done(6))),
        JobAnswer::Failed("no space".to_owned()),
        JobAnswer::Written(Ok(Cas::Done(7))),
    ];
    let (steps, outcome) = run(bootstrap(), &leading(), answers);
    assert_eq!(steps.last(), Some(&JobStep::Commit(actor().keys.free_initialize(LEASE))));
    assert_eq!(outcome, Some(Outcome::Failed("no space".to_owned())));
}

/// A renewal reads the leader key, whatever the result of the write.
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
        let (steps, outcome) = run(release(), &leading(), vec![JobAnswer::Written(written), JobAnswer::Done]);
        assert_eq!(steps.last(), Some(&JobStep::RenewLease));
        assert_eq!(outcome, Some(expected));
    }
}

#[test]
fn only_the_leader_starts_with_lowered_minimums_and_the_settings_of_a_primary() {
    let start = || machine(Job::StartStandby { follow: None, within: Duration::ZERO, lowers: true });
    let starts = |role| JobStep::Postgres(PostgresStep::Start { follow: None, within: Duration::ZERO, role });
    let (steps, _) = run(start(), &leading(), vec![JobAnswer::Done; 3]);
    assert_eq!(
        steps[1..],
        [JobStep::Postgres(PostgresStep::LowerMinimums), starts(Some(SettingsRole::Primary))]
    );
    let (steps, _) = run(start(), &LeaseFacts::default(), vec![JobAnswer::Done; 2]);
    assert_eq!(steps[1..], [starts(None)]);
}

#[test]
fn an_emergency_stop_waits_for_no_label_and_no_script() {
    let stop = |mode| machine(Job::Stop { mode, within: Duration::ZERO });
    let (planned, outcome) = run(stop(StopMode::Fast), &leading(), vec![JobAnswer::Done; 3]);
    let script = OperatorScript::BeforeStop { within: Duration::ZERO };
    let stops = PostgresStep::Stop { mode: StopMode::Fast, within: Duration::ZERO };
    assert_eq!(planned, [JobStep::Unlabel, JobStep::Script(script), JobStep::Postgres(stops)]);
    assert_eq!(outcome, Some(Outcome::Done));
    assert!(matches!(
        run(stop(StopMode::Immediate), &leading(), vec![]).0[0],
        JobStep::Postgres(PostgresStep::Stop { .. })
    ));
}

/// A hand-over has a deadline for the whole of its stop.
#[test]
fn the_time_of_before_stop_is_part_of_the_stop() {
    let lease = leading();
    let stops_after = |seconds: u64| {
        let mut stop = machine(Job::Stop { mode: StopMode::Fast, within: Duration::from_secs(40) });
        let at = |seconds| Now { lease: &lease, at: Moment::default() + Duration::from_secs(seconds) };
        stop.next(JobAnswer::Begin, at(0));
        let script = stop.next(JobAnswer::Done, at(0));
        let expected = OperatorScript::BeforeStop { within: Duration::from_secs(20) };
        assert_eq!(script, JobNext::Do(JobStep::Script(expected)));
        match stop.next(JobAnswer::Done, at(seconds)) {
            JobNext::Do(JobStep::Postgres(PostgresStep::Stop { within, .. })) => within.as_secs(),
            other => unreachable!("{other:?}"),
        }
    };
    assert_eq!([0, 15, 30].map(stops_after), [40, 25, 20]);
}

/// It becomes read-write by itself, so the guard is armed for its process before that is let go.
#[test]
fn a_primary_is_held_until_its_guard_is_armed() {
    let within = Duration::from_secs(300);
    let start = |first| machine(Job::StartPrimary { term: TERM, within, first });
    let held = vec![
        JobStep::StartPrimary(PrimaryStartStep::Hold),
        JobStep::Promote(PromotionStep::Arm),
        JobStep::StartPrimary(PrimaryStartStep::Release),
        JobStep::StartPrimary(PrimaryStartStep::AwaitReady(within)),
    ];
    let ended = run(start(false), &leading(), vec![JobAnswer::Done; 4]);
    assert_eq!(ended, (held.clone(), Some(Outcome::Done)));
    let stripped = [JobStep::BeginStrip(TERM), JobStep::AwaitStripped];
    let (steps, outcome) = run(start(true), &leading(), vec![JobAnswer::Done; 6]);
    assert_eq!((steps, outcome), (stripped.into_iter().chain(held).collect(), Some(Outcome::Done)));
}

#[test]
fn a_primary_is_not_released_without_a_guard_or_a_lease() {
    let start = || machine(Job::StartPrimary { term: TERM, within: Duration::ZERO, first: false });
    let refused = vec![JobAnswer::Done, JobAnswer::Failed("no guard".to_owned())];
    let (steps, outcome) = run(start(), &leading(), refused);
    assert_eq!(steps.last(), Some(&JobStep::Promote(PromotionStep::Arm)));
    assert_eq!(outcome, Some(Outcome::Failed("no guard".to_owned())));
    let short = LeaseFacts { deadline: Some(Moment::default() + Duration::from_millis(500)), ..leading() };
    let other = LeaseFacts { leading: Leading::Yes(Term(4)), ..leading() };
    for lease in [short, other] {
        let (steps, outcome) = run(start(), &lease, vec![JobAnswer::Done; 4]);
        assert_eq!(steps.last(), Some(&JobStep::Promote(PromotionStep::Arm)), "{lease:?}");
        assert!(matches!(outcome, Some(Outcome::Failed(_))), "{lease:?}");
    }
}
