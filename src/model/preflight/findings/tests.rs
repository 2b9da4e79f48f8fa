use super::*;
use crate::model::preflight::PreparedTransactions;
use crate::model::{Lsn, Moment, PeerAnswer, Timeline};
use std::time::Duration;

fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a valid name")
}

fn answer(lsn: u64, replayed: u64) -> PeerAnswer {
    PeerAnswer {
        reachable: true,
        in_recovery: true,
        lsn: Lsn(lsn),
        replayed: Lsn(replayed),
        timeline: Some(Timeline(3)),
        trouble: None,
        ..PeerAnswer::unreachable(Moment::default(), String::new())
    }
}

fn candidate(text: &str) -> PreflightCandidate {
    let facts =
        PreflightFacts { server_version: 170_002, disks: vec![disk(50 << 30)], ..PreflightFacts::default() };
    PreflightCandidate { name: name(text), answer: answer(900, 900), unfit: None, facts: Ok(facts) }
}

fn disk(free_bytes: u64) -> FreeSpace {
    FreeSpace { directory: "/data".to_owned(), free_bytes, total_bytes: 100 << 30 }
}

/// A leader at 1000 and one candidate at 900 that has replayed everything.
fn well() -> Preflight {
    let delay = StandbyDelay { name: "B".to_owned(), flush_ms: Some(3), replay_ms: Some(4) };
    let facts = PreflightFacts { lsn: Lsn(1000), standbys: vec![delay], ..PreflightFacts::default() };
    Preflight {
        leader: name("a"),
        timeline: Some(Timeline(3)),
        facts: Ok(facts),
        refusal: None,
        candidates: vec![candidate("b")],
        lag_bytes_max: 500,
        stop_within: Duration::from_secs(60),
    }
}

impl Preflight {
    fn change_leader(mut self, change: impl FnOnce(&mut PreflightFacts)) -> Preflight {
        change(self.facts.as_mut().expect("set"));
        self
    }

    fn change_candidate(mut self, change: impl FnOnce(&mut PreflightFacts)) -> Preflight {
        change(self.candidates[0].facts.as_mut().expect("set"));
        self
    }

    fn find(&self, what: FindingKind) -> Finding {
        let all = self.findings();
        all.iter().find(|it| it.what == what).unwrap_or_else(|| panic!("{what:?}: {all:?}")).clone()
    }

    fn verdicts(&self) -> Vec<(FindingKind, FindingVerdict)> {
        let all = self.findings().into_iter();
        all.map(|it| (it.what, it.verdict)).filter(|(_, verdict)| *verdict != FindingVerdict::Fine).collect()
    }
}

#[test]
fn a_healthy_cluster_has_only_numbers() {
    let preflight = well();
    assert_eq!(preflight.verdicts(), []);
    let numbers = [
        (FindingKind::ReceiveLag, 100, Some(500)),
        (FindingKind::ReceiveDelay, 3, Some(RECEIVE_MS)),
        (FindingKind::ReplayLag, 0, Some(REPLAY_BYTES)),
        (FindingKind::ReplayDelay, 4, Some(REPLAY_MS)),
        (FindingKind::Timeline, 3, Some(3)),
        (FindingKind::LongTransaction, 0, Some(TRANSACTION_MS)),
        (FindingKind::PreparedTransactions, 0, Some(0)),
        (FindingKind::FreeSpace, 50 << 30, Some(FREE_BYTES)),
    ];
    for (what, value, limit) in numbers {
        let finding = preflight.find(what);
        assert_eq!((finding.value, finding.limit), (Some(value), limit), "{finding:?}");
        assert!(finding.unit.is_some(), "{finding:?}");
    }
}

type Case = (Preflight, FindingKind, &'static str);

fn troubles_of_leader() -> Vec<Case> {
    let transaction = OpenTransaction {
        pid: 4711,
        user: Some("u".to_owned()),
        database: Some("d".to_owned()),
        age_ms: 312_000,
    };
    let prepared = PreparedTransactions { count: 2, gid: "g1".to_owned(), age_ms: 5000 };
    let slot = |held_bytes| PreflightSlot { name: "s".to_owned(), held_bytes, ..PreflightSlot::default() };
    vec![
        (
            well().change_leader(|it| it.transaction = Some(transaction)),
            FindingKind::LongTransaction,
            "u in d is 312.0 s old, and the stop rolls it back: wait for its end, or end it with SELECT \
             pg_terminate_backend(4711)",
        ),
        (
            well().change_leader(|it| it.prepared = Some(prepared)),
            FindingKind::PreparedTransactions,
            "2 prepared transactions keep their locks on the next leader, `g1` for 5.0 s now",
        ),
        (
            well().change_leader(|it| it.archiver = Some(ArchiverFacts { waiting: 40, failed: None })),
            FindingKind::Archiver,
            "40 files wait for the archive",
        ),
        (
            well().change_leader(|it| {
                it.archiver = Some(ArchiverFacts { waiting: 1, failed: Some("0001".to_owned()) });
            }),
            FindingKind::Archiver,
            "0001 could not be archived",
        ),
        (
            well().change_leader(|it| it.slots = vec![slot(Some(1)), slot(Some(3 << 30))]),
            FindingKind::HeldWal,
            "the slot s, which nobody uses now, holds 3.0 GB of WAL: if nobody needs it",
        ),
        (
            well().change_leader(|it| it.standbys[0].flush_ms = Some(2000)),
            FindingKind::ReceiveDelay,
            "after 2.0 s",
        ),
        (
            well().change_leader(|it| it.standbys[0].replay_ms = Some(9000)),
            FindingKind::ReplayDelay,
            "9.0 s ago",
        ),
    ]
}

fn troubles_of_candidate() -> Vec<Case> {
    vec![
        (
            well().change_candidate(|it| it.replay_paused = true),
            FindingKind::ReplayHeld,
            "given up 60.0 s after the primary has stopped: SELECT pg_wal_replay_resume() on b",
        ),
        (
            well().change_candidate(|it| it.apply_delay_ms = 3_600_000),
            FindingKind::ReplayHeld,
            "3600.0 s late (recovery_min_apply_delay)",
        ),
        (
            well().change_candidate(|it| it.disks = vec![disk(5)]),
            FindingKind::FreeSpace,
            "5 B of 100 GB are free in /data on b: make room there first",
        ),
        (
            Preflight { facts: Err("no answer".to_owned()), ..well() },
            FindingKind::Facts,
            "the facts of a are unknown",
        ),
    ]
}

/// Each trouble by itself: the only finding that is not fine, with the words that tell what to do.
#[test]
fn every_trouble_has_its_own_warning() {
    for (preflight, what, words) in troubles_of_leader().into_iter().chain(troubles_of_candidate()) {
        assert_eq!(preflight.verdicts(), [(what, FindingVerdict::Warns)], "{:?}", preflight.findings());
        let troubles = preflight.findings().into_iter().filter(|it| it.verdict == FindingVerdict::Warns);
        let texts: Vec<String> = troubles.map(|it| it.text).collect();
        assert!(texts[0].contains(words), "{texts:?}");
    }
}

/// What is on its way all the time says nothing: the last commit of a quiet cluster may be hours old.
#[test]
fn the_age_of_the_last_commit_counts_only_with_wal_behind_it() {
    let mut preflight = well().change_candidate(|it| it.replay_delay_ms = Some(7_200_000));
    preflight.candidates[0].answer = answer(900, 850);
    assert_eq!(preflight.verdicts(), []);
    preflight.candidates[0].answer = answer(900 + ON_ITS_WAY_BYTES, 850);
    assert_eq!(preflight.verdicts(), [(FindingKind::ReplayDelay, FindingVerdict::Warns)]);
    preflight.candidates[0].answer = answer(850 + REPLAY_BYTES, 850);
    assert_eq!(preflight.find(FindingKind::ReplayLag).verdict, FindingVerdict::Warns);
}

#[test]
fn a_logical_slot_must_be_on_the_candidate_and_usable() {
    let slot = PreflightSlot { name: "cdc".to_owned(), logical: true, ..PreflightSlot::default() };
    let copy = |change: fn(&mut PreflightSlot)| {
        let mut copy = slot.clone();
        change(&mut copy);
        vec![copy]
    };
    let cases = [
        (false, vec![], "name it in `slots`"),
        (true, vec![], "set sync_replication_slots"),
        (false, copy(|it| it.lost = true), "is invalid"),
        (true, copy(|_| {}), "is not synchronized yet"),
        (true, copy(|it| (it.synced, it.temporary) = (true, true)), "is not synchronized yet"),
        (true, copy(|it| it.synced = true), "b has the logical slot cdc"),
        (false, copy(|_| {}), "b has the logical slot cdc"),
        (false, copy(|it| it.logical = false), "has no copy"),
    ];
    for (failover, copies, words) in cases {
        let leaders = PreflightSlot { failover, ..slot.clone() };
        let preflight =
            well().change_leader(|it| it.slots = vec![leaders]).change_candidate(|it| it.slots = copies);
        let found = preflight.find(FindingKind::LogicalSlot);
        assert!(found.text.contains(words), "{found:?}");
        assert_eq!(found.verdict == FindingVerdict::Fine, words.starts_with("b has"), "{found:?}");
    }
    // Before PostgreSQL 17 the supervisor copies slots, whatever their flags.
    let leaders = PreflightSlot { failover: true, ..slot.clone() };
    let old = well().change_leader(|it| it.slots = vec![leaders]).change_candidate(|it| {
        it.server_version = 160_000;
        it.slots = vec![slot];
    });
    assert_eq!(old.verdicts(), []);
}

/// The verdict is the one of the rule, and the numbers are those that it used.
#[test]
fn an_unfit_candidate_refuses_only_where_no_other_can_take_over() {
    let mut preflight = well();
    preflight.candidates[0].unfit = Some(Ineligible::TooFarBehind { bytes: 700, limit: 500 });
    let refused = [
        (FindingKind::Candidate, FindingVerdict::Refuses),
        (FindingKind::ReceiveLag, FindingVerdict::Refuses),
    ];
    assert_eq!(preflight.verdicts(), refused);
    assert_eq!(preflight.find(FindingKind::ReceiveLag).value, Some(700));
    preflight.candidates.push(candidate("c"));
    assert!(preflight.findings().iter().all(|it| it.verdict != FindingVerdict::Refuses));
    preflight.refusal = Some("no".to_owned());
    assert_eq!(preflight.find(FindingKind::Request).verdict, FindingVerdict::Refuses);
}

#[test]
fn nothing_is_said_of_a_candidate_that_does_not_answer() {
    let mut preflight = well();
    preflight.candidates[0].answer = PeerAnswer::unreachable(Moment::default(), "refused".to_owned());
    preflight.candidates[0].unfit = Some(Ineligible::Silent { trouble: Some("refused".to_owned()) });
    let of_b = preflight.findings().into_iter().filter(|it| it.member == name("b"));
    assert_eq!(of_b.map(|it| it.what).collect::<Vec<_>>(), [FindingKind::Candidate]);
}
