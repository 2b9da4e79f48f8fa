//! Scenarios: nobody gets WAL from a leader before its history was compared, in this term, with all that lies here.

use std::time::Duration;

use matriarch::decide::{Decision, Following};
use matriarch::model::{
    Action, Branch, ControlFile, ControlState, DataDirectory, Job, JobKind, LeaderBranch, LeaderKey, LeaseId,
    Lsn, MemberState, Outcome, PostgresFacts, Process, Reason, Role, Standby, Switch, Term, Timeline,
    TimelineHistory,
};

use super::world::{START, World, control, down, leader, name, silent, standby, up};

/// Where the segments end that the copy here has.
const SEGMENTS_END: u64 = 4096;

pub(super) fn branch(switches: &[(u32, u64)], timeline: u32, end: Option<u64>) -> Branch {
    let switch = |&(timeline, lsn): &(u32, u64)| Switch {
        timeline: Timeline(timeline),
        lsn: Lsn(lsn),
        reason: String::new(),
    };
    Branch {
        history: TimelineHistory(switches.iter().map(switch).collect()),
        timeline: Timeline(timeline),
        end: end.map(Lsn),
    }
}

/// What pg_rewind left when it had copied from a member on timeline 1, up to 1000.
fn copy(backup_label: bool) -> ControlFile {
    ControlFile {
        min_recovery: Lsn(1000),
        min_recovery_timeline: Timeline(1),
        minimal_wal: false,
        backup_label,
        backup_start: Lsn(if backup_label { 0 } else { 900 }),
        segments: Some(branch(&[], 1, Some(SEGMENTS_END))),
        ..control(ControlState::InArchiveRecovery)
    }
}

fn running(copy: ControlFile) -> PostgresFacts {
    PostgresFacts { data: DataDirectory::Ready(copy), ..silent() }
}

fn stopped(copy: ControlFile) -> PostgresFacts {
    PostgresFacts {
        data: DataDirectory::Ready(copy),
        process: Process::Down { exit: None },
        ..down(ControlState::InArchiveRecovery)
    }
}

impl World {
    /// This member leads as a primary, in this term.
    fn led_by(&mut self, text: &str, term: u64) -> &mut World {
        let key = leader(text, LeaseId(0xB));
        self.cluster().leader = Some(LeaderKey { term: Term(term as i64), ..key });
        (self.cluster().revision, self.cluster().listed) = (term as i64, term as i64);
        let record = &mut self.cluster().members.get_mut(&name(text)).expect("a member").record;
        (record.role, record.state) = (Role::Primary, MemberState::Running);
        self
    }

    /// It has just told its history.
    pub(super) fn tells(&mut self, text: &str, history: Branch) -> &mut World {
        self.seen.leader_branch = Some(LeaderBranch {
            name: name(text),
            asked_at: self.now,
            answer: Ok(history),
            has_slot: true,
            oldest: Lsn(0),
        });
        self
    }

    /// etcd has confirmed no renewal for five seconds.
    fn cut_off(&mut self) -> &mut World {
        self.seen.lease.deadline = Some(self.now + Duration::from_secs(5));
        self
    }

    /// Ticks every 100 ms for so long, told the history each time; the first decision that starts a long action.
    fn until_started(&mut self, millis: u64, text: &str, history: &Branch) -> Option<Decision> {
        for _ in 0..millis / 100 {
            self.later(100).tells(text, history.clone());
            let decision = self.tick();
            assert_eq!(source(&decision), None, "it cannot be compared while it does not answer");
            if decision.actions.iter().any(|action| matches!(action, Action::Start(_))) {
                return Some(decision);
            }
        }
        None
    }
}

/// Whom a running standby is pointed at.
fn source(decision: &Decision) -> Option<String> {
    decision.actions.iter().find_map(|action| match action {
        Action::Follow(Some(target)) => Some(target.name.to_string()),
        _other => None,
    })
}

fn job(decision: &Decision) -> Option<&Job> {
    decision.actions.iter().find_map(|action| match action {
        Action::Start(job) => Some(job),
        _other => None,
    })
}

fn starts_behind(decision: &Decision) -> Option<Option<String>> {
    match job(decision) {
        Some(Job::StartStandby { follow, .. }) => Some(follow.as_ref().map(|target| target.name.to_string())),
        _other => None,
    }
}

/// It waited for five seconds, and was then pointed at whoever led, whatever lay here.
#[test]
fn a_copy_that_is_not_consistent_is_stopped_and_compared() {
    let mut world = World::new();
    world.led_by("b", 50).postgres(running(copy(false)));
    let stops = world.until_started(6000, "b", &branch(&[], 1, None)).expect("it does not wait for ever");
    assert_eq!(job(&stops).map(Job::kind), Some(JobKind::Stop));
    assert_eq!(stops.because, Reason::InconsistentCopy { leader: name("b") });
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(stopped(copy(false)));
    world.tick();
    let starts = world.later(100).tells("b", branch(&[], 1, None)).tick();
    assert_eq!(starts_behind(&starts), Some(Some("b".to_owned())), "{starts:?}");
}

/// A PostgreSQL that starts takes no connection, so that no driver can see that it has left its source. Each order to
/// leave failed, and each began the wait anew: the copy waited for ever.
#[test]
fn a_copy_that_cannot_be_seen_to_leave_its_source_is_stopped_all_the_same() {
    let mut world = World::new();
    world.led_by("b", 50).postgres(running(copy(false)));
    let stops = (0..6).find_map(|_| {
        world.memory.following = None;
        world.until_started(1000, "b", &branch(&[], 1, None))
    });
    let stops = stops.expect("it does not wait for ever");
    assert_eq!(stops.because, Reason::InconsistentCopy { leader: name("b") });
}

/// `backup_label` was proof enough that the history is the leader's; but the copy is of another member's.
#[test]
fn a_copy_of_another_member_gets_no_source_where_the_leader_left_that_history_before() {
    let mut world = World::new();
    world.led_by("c", 50).postgres(stopped(copy(true))).tick();
    let theirs = branch(&[(1, 2000)], 2, None);
    let starts = world.later(100).tells("c", theirs.clone()).tick();
    assert_eq!(starts_behind(&starts), Some(None), "some of its WAL may be from beyond 2000: {starts:?}");
    // It does not become consistent by itself, and holds nothing that its source did not have.
    let began = world.now;
    world.later(100).ends(JobKind::StartStandby, Outcome::Done).postgres(running(copy(false)));
    world.seen.postgres.process = Process::Up { pid: 7, since: began, standby_start: true };
    let stops = world.until_started(40_000, "c", &theirs).expect("it does not wait for ever");
    assert_eq!(job(&stops).map(Job::kind), Some(JobKind::Stop));
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(stopped(copy(false)));
    world.tick();
    let clones = world.later(100).tells("c", theirs).tick();
    assert_eq!(job(&clones).map(Job::kind), Some(JobKind::Clone), "{clones:?}");
}

/// Seed 108808: ten starts failed on a full disk, and the data was cloned once more. The copy was not started, but
/// cloned again, for ever.
#[test]
fn a_new_copy_is_started_whatever_failed_before() {
    let mut world = World::new();
    world.seen.settings.remove_data_directory_on_diverged_timelines = true;
    world.led_by("c", 50).postgres(stopped(copy(true))).tick();
    let theirs = branch(&[(1, SEGMENTS_END)], 2, None);
    world.memory.failures.starts = 10;
    let clones = world.later(100).tells("c", theirs.clone()).tick();
    assert_eq!(job(&clones).map(Job::kind), Some(JobKind::Clone), "{clones:?}");
    world.later(100).ends(JobKind::Clone, Outcome::Done).tick();
    let starts = world.later(100).tells("c", theirs).tick();
    assert_eq!(starts_behind(&starts), Some(Some("c".to_owned())), "{starts:?}");
}

/// All that lies here is from before the place where the new leader's history left.
#[test]
fn a_copy_of_another_member_gets_a_source_where_all_of_it_is_the_leaders() {
    let mut world = World::new();
    world.led_by("c", 50).postgres(stopped(copy(true))).tick();
    let starts = world.later(100).tells("c", branch(&[(1, SEGMENTS_END)], 2, None)).tick();
    assert_eq!(starts_behind(&starts), Some(Some("c".to_owned())), "{starts:?}");
}

/// A member that was rewound behind `b` is not consistent yet; `b` is gone and `c` leads.
#[test]
fn a_silent_follower_goes_behind_the_next_leader() {
    let mut world = World::new();
    world.led_by("b", 50).postgres(stopped(copy(true))).tick();
    let starts = world.later(100).tells("b", branch(&[], 1, None)).tick();
    assert_eq!(starts_behind(&starts), Some(Some("b".to_owned())));
    world.later(100).ends(JobKind::StartStandby, Outcome::Done).postgres(running(copy(false)));
    for _ in 0..100 {
        assert_eq!(
            job(&world.later(100).tick()),
            None,
            "the leader it was compared with sends what it needs"
        );
    }
    let leaves = world.led_by("c", 60).later(100).tick();
    assert!(leaves.actions.contains(&Action::Follow(None)), "{leaves:?}");
    let theirs = branch(&[(1, SEGMENTS_END)], 2, None);
    world.until_started(6000, "c", &theirs).expect("it does not wait for ever");
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(stopped(copy(false)));
    world.tick();
    let starts = world.later(100).tells("c", theirs).tick();
    assert_eq!(starts_behind(&starts), Some(Some("c".to_owned())), "{starts:?}");
}

/// Recovery of what lies here takes as long as it takes: such a standby needs nothing from anybody for it.
#[test]
fn a_long_recovery_is_waited_for() {
    let mut world = World::new();
    world.led_by("b", 50).postgres(silent());
    let decision = world.until_started(600_000, "b", &branch(&[], 1, None));
    assert_eq!(decision, None);
}

/// The same member leads in a new term: it may have been rewound behind another meanwhile.
#[test]
fn a_standby_is_compared_anew_in_every_term() {
    let mut world = World::new();
    world.led_by("b", 50).tick();
    assert_eq!(source(&world.later(100).tells("b", branch(&[], 1, None)).tick()), Some("b".to_owned()));
    assert_eq!(source(&world.later(100).tick()), None);
    let asks = world.later(100).led_by("b", 70).tick();
    let asked = |action: &Action| matches!(action, Action::AskLeaderBranch { .. });
    assert!(source(&asks).is_none() && asks.actions.iter().any(asked), "told in the former term: {asks:?}");
    let parted = world.later(100).tells("b", branch(&[(1, 500)], 2, None)).tick();
    assert_eq!(source(&parted), None, "{parted:?}");
    let stays = matches!(&world.memory.following, Some(Following::Source { term: Term(50), .. }));
    assert!(stays, "it is not taken for compared: {:?}", world.memory.following);
}

/// Also without synchronous replication, which may be switched on at any time.
#[test]
fn a_standby_that_has_not_read_all_that_it_has_gets_no_source() {
    let mut world = World::new();
    let mut sql = standby(1000);
    if let Standby::Yes { received, receiver, .. } = &mut sql.standby {
        (*received, *receiver) = (Lsn(0), None);
    }
    world.led_by("b", 50).postgres(up(sql.clone())).tick();
    let reads = world.later(100).tells("b", branch(&[], 1, None)).tick();
    assert_eq!((source(&reads), &reads.because), (None, &Reason::ReadingOwnWal { leader: name("b") }));
    sql.sync.replay_rests = true;
    let follows = world.later(100).postgres(up(sql)).tells("b", branch(&[], 1, None)).tick();
    assert_eq!(source(&follows), Some("b".to_owned()));
    assert!(START < world.now);
}

/// A receiver that was told to end has WAL to flush yet, or PostgreSQL replays and has not ended it: what it shows to
/// hold is not all that it is going to hold.
#[test]
fn a_standby_that_still_receives_from_before_gets_no_source() {
    let mut world = World::new();
    world.led_by("b", 50).tick();
    assert_eq!(source(&world.later(100).tells("b", branch(&[], 1, None)).tick()), Some("b".to_owned()));
    let leaves = world.led_by("c", 60).later(100).tells("c", branch(&[], 1, Some(1000))).tick();
    assert!(leaves.actions.contains(&Action::Follow(None)), "{leaves:?}");
    for told in [branch(&[], 1, Some(1000)), branch(&[(1, 1000)], 2, None), branch(&[], 1, None)] {
        let waits = world.later(100).tells("c", told).tick();
        assert_eq!((source(&waits), &waits.because), (None, &Reason::FormerSource { leader: name("c") }));
    }
    let follows = world.later(100).receives_nothing().tells("c", branch(&[(1, 1000)], 2, None)).tick();
    assert_eq!(source(&follows), Some("c".to_owned()), "{follows:?}");
}

/// It may have been rewound behind another meanwhile, and what it sent before lies in the socket.
#[test]
fn a_standby_leaves_a_leader_that_was_promoted_anew() {
    let mut world = World::new();
    world.led_by("b", 50).tick();
    assert_eq!(source(&world.later(100).tells("b", branch(&[], 1, None)).tick()), Some("b".to_owned()));
    let promoted = branch(&[(1, 1000)], 2, None);
    world.led_by("b", 70).later(100).tick();
    let leaves = world.later(100).tells("b", promoted.clone()).tick();
    assert!(leaves.actions.contains(&Action::Follow(None)), "{leaves:?}");
    let follows = world.later(100).receives_nothing().tells("b", promoted).tick();
    assert_eq!(source(&follows), Some("b".to_owned()));
}

/// Neither a restart of the supervisor nor a term that begins without a promotion interrupts the stream.
#[test]
fn a_standby_on_the_leaders_own_timeline_goes_on_receiving() {
    let mut world = World::new();
    for term in [50, 70] {
        world.led_by("b", term).later(100).tick();
        let stays = world.later(100).tells("b", branch(&[], 1, None)).tick();
        assert_eq!(source(&stays), Some("b".to_owned()), "{stays:?}");
        assert!(!stays.actions.contains(&Action::Follow(None)), "{stays:?}");
    }
}

/// A former supervisor's standby that receives nothing may be configured to stream from any member, which may have been
/// rewound behind the leader since. That leader may be frozen, and tell nothing before the other one is promoted.
#[test]
fn a_restarted_supervisor_leaves_a_source_that_it_does_not_know() {
    for (text, leads) in [("leader", true), ("race", false)] {
        let mut world = World::new();
        if leads {
            world.led_by("b", 50);
        } else {
            world.nobody_leads();
        }
        let leaves = world.receives_nothing().tick();
        assert!(leaves.actions.contains(&Action::Follow(None)), "{text}: {leaves:?}");
        let once = world.later(100).tick();
        assert!(!once.actions.contains(&Action::Follow(None)), "{text}: {once:?}");
    }
}

/// PostgreSQL would ask the same source again by itself, and that may have been rewound behind another meanwhile, of
/// which a member that etcd cannot reach does not hear.
#[test]
fn a_stream_that_ended_unknown_to_etcd_is_not_taken_up_before_histories_are_compared() {
    let mut world = World::new();
    world.led_by("b", 50).tick();
    world.later(100).tells("b", branch(&[], 1, None)).tick();
    world.later(100).tick();
    let asks = world.later(5000).cut_off().receives_nothing().tells("b", branch(&[], 1, None)).tick();
    assert!(asks.actions.contains(&Action::RenewLease), "{asks:?}");
    assert!(!asks.actions.contains(&Action::Follow(None)), "{asks:?}");
    let leaves = world.later(200).cut_off().tick();
    assert!(leaves.actions.contains(&Action::Follow(None)), "{leaves:?}");
    assert_eq!(source(&leaves), None, "what it said before the stream ended does not count: {leaves:?}");
    let parted = world.later(100).cut_off().tells("b", branch(&[(1, 500)], 2, None)).tick();
    assert_eq!(source(&parted), None, "{parted:?}");
    let follows = world.later(100).cut_off().tells("b", branch(&[(1, 1000)], 2, None)).tick();
    assert_eq!(source(&follows), Some("b".to_owned()), "{follows:?}");
    let waits = world.later(100).cut_off().tick();
    assert!(!waits.actions.contains(&Action::Follow(None)), "it has not begun to stream yet: {waits:?}");
    let doubts = world.later(1000).cut_off().tick();
    assert!(doubts.actions.contains(&Action::Follow(None)), "it did not come to stream: {doubts:?}");
}

/// Where etcd says that the term goes on, PostgreSQL takes the stream up again by itself.
#[test]
fn a_stream_that_ended_in_a_term_that_goes_on_is_taken_up() {
    let mut world = World::new();
    world.led_by("b", 50).tick();
    world.later(100).tells("b", branch(&[], 1, None)).tick();
    world.receives_nothing();
    for _ in 0..30 {
        let stays = world.later(200).tick();
        let leaves = |action: &Action| matches!(action, Action::Follow(None) | Action::RenewLease);
        assert!(!stays.actions.iter().any(leaves), "{stays:?}");
    }
}

/// It waits for nothing that etcd could say.
#[test]
fn a_standby_without_a_source_does_not_ask_etcd_again_and_again() {
    let mut world = World::new();
    world.seen.me.tags.0.insert("nostream".to_owned(), serde_json::json!(true));
    world.led_by("b", 50).receives_nothing().tick();
    for _ in 0..10 {
        let rests = world.later(200).cut_off().tick();
        assert!(!rests.actions.contains(&Action::RenewLease), "{rests:?}");
    }
}
