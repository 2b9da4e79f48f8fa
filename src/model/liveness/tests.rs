use super::*;
use crate::model::{Process, SyncSettings};
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(10);
const PID: i32 = 42;

fn at(millis: u64) -> Moment {
    Moment::from_millis(1_000_000 + millis)
}

fn watched() -> Liveness {
    let mut liveness = Liveness::new(TTL, at(0));
    liveness.watch(Some(PID), false, at(0));
    liveness
}

/// The probe runs every 100 ms in this period.
fn run(liveness: &mut Liveness, from: u64, to: u64) {
    (from..=to).step_by(100).for_each(|millis| liveness.ran(at(millis)));
}

fn checkpointer() -> StoppedPart {
    StoppedPart::Process("checkpointer".to_owned())
}

fn is_dead(liveness: &Liveness, millis: u64) -> bool {
    matches!(liveness.verdict(at(millis)), LivenessVerdict::Dead(_))
}

#[test]
fn both_proofs_must_be_recent() {
    for (proved, dead) in [(Proof::Connection, "no flushed write"), (Proof::Write, "no new connection")] {
        let mut liveness = watched();
        run(&mut liveness, 0, 4900);
        liveness.proved(PID, proved, at(4900));
        assert!(matches!(liveness.verdict(at(4999)), LivenessVerdict::Doubtful { .. }));
        liveness.ran(at(5000));
        let LivenessVerdict::Dead(death) = liveness.verdict(at(5000)) else { panic!("{proved:?}") };
        assert!(death.to_string().starts_with(dead), "{death}");
        assert!(liveness.withheld(at(5000)).is_some_and(|why| why.starts_with(dead)));
    }
}

#[test]
fn new_proofs_restore_the_verdict_alive() {
    let mut liveness = watched();
    run(&mut liveness, 0, 6000);
    assert!(is_dead(&liveness, 6000));
    liveness.proved(PID, Proof::Connection, at(6000));
    liveness.proved(PID, Proof::Write, at(6000));
    assert_eq!(liveness.verdict(at(6100)), LivenessVerdict::Alive);
    assert_eq!(liveness.withheld(at(6100)), None);
}

#[test]
fn a_stopped_process_is_dead_only_when_it_stays_stopped() {
    let mut liveness = watched();
    for millis in (0..=20_000).step_by(100) {
        liveness.ran(at(millis));
        liveness.proved(PID, Proof::Connection, at(millis));
        liveness.proved(PID, Proof::Write, at(millis));
        // A debugger that lets the process run every four seconds.
        let stopped = (millis % 4000 != 0).then(checkpointer);
        liveness.stopped(PID, stopped, at(millis));
        assert!(!is_dead(&liveness, millis), "{millis}");
    }
    run(&mut liveness, 20_100, 24_900);
    liveness.stopped(PID, Some(checkpointer()), at(20_100));
    liveness.proved(PID, Proof::Connection, at(25_100));
    liveness.proved(PID, Proof::Write, at(25_100));
    run(&mut liveness, 25_000, 25_100);
    let LivenessVerdict::Dead(death) = liveness.verdict(at(25_100)) else { panic!("stopped for 5 s") };
    assert_eq!(death.to_string(), "the checkpointer is stopped, for 5.0 s");
}

/// The verdicts about a Postgres all of whose processes are stopped, before and at `millis`.
fn stopped_whole(settings: &Settings, has_voters: bool, millis: u64) -> (LivenessVerdict, LivenessVerdict) {
    let mut liveness = watched();
    liveness.configure(settings, has_voters);
    run(&mut liveness, 0, 900);
    for proof in [Proof::Connection, Proof::Write] {
        liveness.proved(PID, proof, at(1100));
    }
    liveness.stopped(PID, Some(StoppedPart::Process("postmaster".to_owned())), at(1000));
    liveness.stopped(PID, Some(StoppedPart::Whole), at(1100));
    run(&mut liveness, 1000, millis - 1);
    let before = liveness.verdict(at(millis - 1));
    liveness.ran(at(millis));
    (before, liveness.verdict(at(millis)))
}

#[test]
fn one_that_is_stopped_whole_dies_sooner_where_members_do_not_wait_for_the_lease() {
    let died =
        |millis: u64| LivenessVerdict::Dead(Death::StoppedWhole { within: Duration::from_millis(millis) });
    let sync = SyncSettings { mode: SyncMode::Quorum, ..SyncSettings::default() };
    let recruits = Settings { sync, ..Settings::default() };
    let by_lease = Settings { failover: FailoverBy::Lease, ..recruits.clone() };
    assert_eq!(stopped_whole(&recruits, true, 1700), (LivenessVerdict::Alive, died(600)));
    for (settings, has_voters) in [(by_lease, true), (Settings::default(), true), (recruits, false)] {
        let (before, at_last) = stopped_whole(&settings, has_voters, 6100);
        assert!(matches!(before, LivenessVerdict::Doubtful { .. }), "{before:?}");
        assert_eq!(at_last, died(5000));
    }
}

#[test]
fn time_without_probe_runs_does_not_count_against_postgres() {
    let mut liveness = watched();
    run(&mut liveness, 0, 1000);
    assert!(!is_dead(&liveness, 60_000), "nobody looked");
    assert!(liveness.withheld(at(60_000)).is_some(), "and nobody proved anything");
    liveness.ran(at(60_000));
    assert!(!is_dead(&liveness, 60_000));
    assert_eq!(liveness.withheld(at(60_000)), None);
    run(&mut liveness, 60_000, 64_000);
    assert!(is_dead(&liveness, 64_000), "it had run for 5 s by then");
}

#[test]
fn an_excuse_delays_death_and_suspension_or_pause_keep_the_lease() {
    let mut liveness = watched();
    liveness.excuse_until(at(20_000));
    run(&mut liveness, 0, 24_900);
    assert!(!is_dead(&liveness, 24_900), "it was told to stop, and had until 20 s for it");
    liveness.ran(at(25_000));
    assert!(is_dead(&liveness, 25_000));
    liveness.suspend_liveness_check(at(26_000));
    assert_eq!(liveness.withheld(at(25_999)), None);
    assert!(liveness.withheld(at(26_000)).is_some());
    liveness.configure(&Settings { pause: true, ..Settings::default() }, true);
    assert_eq!(liveness.withheld(at(26_000)), None);
}

#[test]
fn a_new_postmaster_has_to_prove_itself_from_its_start() {
    let mut liveness = watched();
    run(&mut liveness, 0, 6000);
    liveness.watch(None, false, at(6000));
    assert_eq!(liveness.verdict(at(6000)), LivenessVerdict::Alive);
    liveness.watch(Some(43), false, at(6000));
    liveness.proved(PID, Proof::Write, at(6100));
    assert!(!liveness.has_written(43));
    assert_eq!(liveness.verdict(at(6100)), LivenessVerdict::Alive);
}

proptest! {
    #[test]
    fn the_spans_are_in_order_for_every_legal_ttl(seconds in 3u64..3600) {
        let timing = LivenessTiming { ttl: Duration::from_secs(seconds), suspect_after: None };
        prop_assert!(timing.dead_after() < timing.ttl);
        prop_assert!(timing.probe_every() + timing.try_within() < timing.dead_after());
    }

    /// Whatever the gaps between runs of the probe: Postgres is alive while its proofs are no further apart than the
    /// limit, in the time in which the probe ran. Once that time reaches the limit without a proof, it is dead.
    #[test]
    fn only_time_in_which_the_probe_ran_counts(
        ttl in 3u64..60,
        gaps in proptest::collection::vec(1u64..4000, 1..60),
        proof_at in proptest::collection::vec(proptest::bool::weighted(0.3), 60),
    ) {
        let timing = LivenessTiming { ttl: Duration::from_secs(ttl), suspect_after: None };
        let mut liveness = Liveness::new(timing.ttl, at(0));
        liveness.watch(Some(PID), false, at(0));
        let (mut now, mut unproved) = (0, Duration::ZERO);
        for (gap, proof) in gaps.into_iter().zip(proof_at) {
            now += gap;
            liveness.ran(at(now));
            unproved += Duration::from_millis(gap).min(GAP_MAX);
            if proof {
                liveness.proved(PID, Proof::Connection, at(now));
                liveness.proved(PID, Proof::Write, at(now));
                unproved = Duration::ZERO;
            }
            prop_assert_eq!(is_dead(&liveness, now), timing.dead_after() <= unproved);
        }
    }
}

#[test]
fn a_hanging_loop_loses_the_lease_only_without_proofs_of_postgres() {
    let mut liveness = Liveness::new(TTL, at(0));
    run(&mut liveness, 0, 40_000);
    assert_eq!(liveness.withheld(at(40_000)), None, "it has not begun");
    liveness.loop_runs(at(25_000));
    assert_eq!(liveness.withheld(at(35_000)), None, "slow is not hung");
    let why = liveness.withheld(at(35_001)).expect("it hangs, and nothing is proved");
    assert!(why.starts_with("the loop has hung for 10 s"), "{why}");
    liveness.watch(Some(PID), false, at(35_500));
    liveness.proved(PID, Proof::Connection, at(39_000));
    liveness.proved(PID, Proof::Write, at(39_000));
    assert_eq!(liveness.withheld(at(40_000)), None, "a primary that works keeps its lease");
    liveness.watch(None, false, at(40_000));
    assert!(liveness.withheld(at(40_000)).is_some(), "it died, and nobody saw it");
    liveness.loop_runs(at(40_000));
    assert_eq!(liveness.withheld(at(40_000)), None);
}

#[test]
fn a_try_that_the_probe_slept_through_is_no_time_without_a_proof() {
    let mut liveness = watched();
    let next_at = liveness.tried((PID, Proof::Write), at(100), Err("late".to_owned()), at(60_000));
    assert_eq!(next_at, at(60_200));
    assert!(!is_dead(&liveness, 60_000));
    let next_at = liveness.tried((PID, Proof::Write), at(60_200), Ok(()), at(60_300));
    assert_eq!((next_at, liveness.has_written(PID)), (at(60_200) + liveness.timing().probe_every(), true));
}

#[test]
fn only_a_postmaster_that_may_be_primary_has_to_prove_anything() {
    let mut liveness = watched();
    let up = |standby_start| Process::Up { pid: 43, since: at(100), standby_start };
    for (process, watched) in [(up(true), None), (up(false), Some(43)), (Process::Down { exit: None }, None)]
    {
        let looked = liveness.look(&process, at(200));
        assert_eq!((looked, liveness.watched(Proof::Write)), (watched, watched), "{process:?}");
    }
}

/// It cannot write, and proves that its postmaster forks.
#[test]
fn the_leader_of_a_standby_cluster_proves_all_but_a_write() {
    let standby = Process::Up { pid: PID, since: at(0), standby_start: true };
    let mut liveness = Liveness::new(TTL, at(0));
    assert_eq!(liveness.look(&standby, at(0)), None, "a standby that does not lead");
    liveness.lead_standby_cluster(Some(PID));
    assert_eq!(liveness.look(&standby, at(100)), Some(PID));
    assert_eq!((liveness.watched(Proof::Connection), liveness.watched(Proof::Write)), (Some(PID), None));
    for millis in (0..20_000).step_by(500) {
        liveness.look(&standby, at(millis));
        liveness.proved(PID, Proof::Connection, at(millis));
        assert_eq!(liveness.verdict(at(millis)), LivenessVerdict::Alive);
    }
    for millis in (20_000..25_000).step_by(200) {
        liveness.look(&standby, at(millis));
    }
    assert!(matches!(liveness.verdict(at(25_000)), LivenessVerdict::Dead(Death::NoConnection { .. })));
    assert!(liveness.withheld(at(25_000)).is_some());
    let promoted = Process::Up { pid: PID, since: at(0), standby_start: false };
    liveness.look(&promoted, at(25_000));
    assert_eq!(liveness.watched(Proof::Write), Some(PID));
    assert_eq!(liveness.verdict(at(25_000)), LivenessVerdict::Alive, "it has the time of a new primary");
    liveness.lead_standby_cluster(None);
    assert_eq!(liveness.look(&standby, at(26_000)), None);
}

/// Crash recovery may take long: until it accepts writes, the loop that waits for it answers for the lease.
#[test]
fn a_postmaster_that_starts_as_a_primary_owes_its_proofs_from_when_it_is_one() {
    let mut liveness = Liveness::new(TTL, at(0));
    liveness.loop_runs(at(0));
    liveness.starts(PID);
    for millis in (0..60_000).step_by(200) {
        liveness.look(&Process::Up { pid: PID, since: at(0), standby_start: false }, at(millis));
        // It is asked meanwhile, and answers that it recovers.
        liveness.tried((PID, Proof::Connection), at(millis), Ok(()), at(millis));
        let ended = if millis < 1000 { Ok(()) } else { Err("the database system is starting up".to_owned()) };
        liveness.tried((PID, Proof::Write), at(millis), ended, at(millis));
        assert_eq!(liveness.verdict(at(millis)), LivenessVerdict::Alive, "{millis}");
    }
    assert!(liveness.withheld(at(59_800)).is_some_and(|why| why.starts_with("the loop has hung")));
    liveness.loop_runs(at(60_000));
    assert_eq!(liveness.withheld(at(59_800)), None);
    liveness.has_started(PID, at(60_000));
    run(&mut liveness, 60_000, 64_900);
    assert!(!is_dead(&liveness, 64_900));
    run(&mut liveness, 65_000, 65_100);
    assert!(is_dead(&liveness, 65_100), "from then on it is like any other");
}

#[test]
fn a_stopped_process_of_a_postmaster_that_starts_is_seen() {
    let mut liveness = watched();
    liveness.starts(PID);
    for millis in (0..=6000).step_by(100) {
        liveness.ran(at(millis));
        liveness.stopped(PID, Some(StoppedPart::Process("startup process".to_owned())), at(millis));
    }
    assert!(is_dead(&liveness, 6000));
    assert!(liveness.withheld(at(6000)).is_some());
}
