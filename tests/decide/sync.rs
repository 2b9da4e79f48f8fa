//! Synchronous replication: which member may be promoted, and the order in which the promise changes.

use matriarch::model::{
    Action, ControlState, Job, JobKind, Leading, Lsn, MemberName, Reason, SyncKey, SyncMode, SyncOwner,
    SyncReason, SyncRecord, SyncSettings, SyncState, TakeLeadershipPreconditions, Term, Timeline, Walsender,
};
use serde_json::json;

use super::world::{World, down, name, primary, standby, up};

mod candidates;
mod names;

/// The content of the key while no other member has written it.
const REVISION: i64 = 77;

fn jobs(actions: &[Action]) -> Vec<JobKind> {
    let job = |action: &Action| match action {
        Action::Start(job) => Some(job.kind()),
        _ => None,
    };
    actions.iter().filter_map(job).collect()
}

pub(super) fn record(leader: &str, quorum: usize, voters: &[&str]) -> SyncRecord {
    SyncRecord {
        leader: Some(name(leader)),
        quorum,
        voters: voters.iter().map(|voter| name(voter)).collect(),
    }
}

/// The ordered writes to the key, each with the revision that it replaces.
fn promises(actions: &[Action]) -> Vec<(Option<SyncRecord>, i64)> {
    let write = |action: &Action| match action {
        Action::PublishSync { record, mod_revision, .. } => Some((record.clone(), *mod_revision)),
        _ => None,
    };
    actions.iter().filter_map(write).collect()
}

fn names(actions: &[Action]) -> Vec<Option<String>> {
    let set = |action: &Action| match action {
        Action::SetSyncNames(names) => Some(names.clone()),
        _ => None,
    };
    actions.iter().filter_map(set).collect()
}

impl World {
    /// The mode, and the content of the key `sync`.
    pub(super) fn synchronous(&mut self, mode: SyncMode, record: SyncRecord) -> &mut World {
        self.seen.settings.sync.mode = mode;
        self.cluster().sync = Some(SyncKey { record, mod_revision: REVISION });
        self
    }

    /// b led in mode quorum, and its commits waited for one of a and c.
    fn a_quorum_lost_its_leader() -> World {
        let mut world = World::new();
        world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"])).nobody_leads();
        world.receives_nothing();
        world.tick();
        world.later(5).gone("b");
        world
    }

    pub(super) fn gone(&mut self, member: &str) -> &mut World {
        self.answers(member, 10);
        self.peer(member).reachable = false;
        self
    }

    fn peer(&mut self, member: &str) -> &mut matriarch::model::PeerAnswer {
        self.seen.peers.get_mut(&name(member)).expect("it has answered")
    }

    /// Postgres has these names, set by the supervisor, and its checkpointer is idle.
    fn names_in_effect(&mut self, text: &str) -> &mut World {
        self.later(10);
        self.seen.postgres.sync_owner = SyncOwner::Supervisor(text.to_owned());
        let sql = self.seen.postgres.sql.as_mut().expect("it answers");
        text.clone_into(&mut sql.sync.names);
        sql.sync.checkpointer_rests = true;
        sql.at = self.now;
        self
    }

    /// The last write to the key is done.
    fn written(&mut self, record: Option<SyncRecord>, mod_revision: i64) -> &mut World {
        self.cluster().sync = record.map(|record| SyncKey { record, mod_revision });
        self.cluster().revision = 200;
        self.later(5)
    }
}

fn streams(member: &str, flushed: u64) -> Walsender {
    Walsender {
        name: member.to_owned(),
        streams: true,
        sync: SyncState::Quorum,
        written: Some(Lsn(flushed)),
        flushed: Some(Lsn(flushed)),
        replayed: Some(Lsn(flushed)),
    }
}

fn not_vouched_for() -> Reason {
    Reason::Sync(SyncReason::NotVouchedFor { leader: name("b") })
}

/// Of b, a and c, at least one besides b holds every commit. Whether a does is known only when c has reported its
/// position.
#[test]
fn in_mode_quorum_a_candidate_needs_enough_answers() {
    let mut world = World::a_quorum_lost_its_leader();
    assert_eq!(world.gone("c").tick().because, not_vouched_for());
    world.answers("c", 1000);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// A standby that was just started has more WAL on its disk than it has replayed.
#[test]
fn an_inexact_position_is_no_vote() {
    let mut world = World::a_quorum_lost_its_leader();
    world.answers("c", 1000).peer("c").exact = false;
    assert_eq!(world.tick().because, not_vouched_for());
}

/// The former leader may still run: WAL that it sends after the answer may be acknowledged.
#[test]
fn a_standby_that_still_receives_wal_does_not_vote() {
    let mut world = World::a_quorum_lost_its_leader();
    world.answers("c", 1000).peer("c").receives = true;
    assert_eq!(world.tick().because, not_vouched_for());
    world.peer("c").receives = false;
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// Nor may more WAL arrive here after the others were queried.
#[test]
fn a_receiving_standby_does_not_take_the_key() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"])).nobody_leads();
    assert!(world.tick().actions.contains(&Action::Follow(None)), "it lets go first");
    world.later(5).gone("b").answers("c", 1000);
    assert_eq!(world.tick().because, not_vouched_for());
    world.receives_nothing();
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// If each voter holds every commit, no member is queried, and none has to disconnect from the former leader.
#[test]
fn in_mode_on_a_voter_needs_no_votes() {
    let mut world = World::new();
    world.synchronous(SyncMode::On, record("b", 0, &["a"])).nobody_leads();
    let asked = world.tick();
    assert!(!asked.actions.contains(&Action::Follow(None)), "{:?}", asked.actions);
    world.later(5).gone("b").gone("c");
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

fn by(sync: i64) -> TakeLeadershipPreconditions {
    TakeLeadershipPreconditions {
        sync,
        unfenced: 0,
        failsafe: 0,
        unlocked: World::new().cluster().revision,
        deposes: None,
    }
}

/// Votes refer to the content of the key: if that changes before this member has the leader key, they are void.
#[test]
fn taking_leadership_compares_the_revision_of_the_sync_key() {
    let mut world = World::a_quorum_lost_its_leader();
    let taken = world.answers("c", 1000).tick().actions;
    assert!(taken.contains(&Action::Start(Job::TakeLeadership { by: by(REVISION) })), "{taken:?}");

    let mut without = World::new();
    without.nobody_leads().tick();
    let taken = without.later(5).gone("b").answers("c", 1000).tick().actions;
    assert!(taken.contains(&Action::Start(Job::TakeLeadership { by: by(0) })), "{taken:?}");
}

/// An asynchronous standby that happens to be ahead is not waited for, and cannot take the key.
#[test]
fn in_mode_on_only_voters_count() {
    let mut voter = World::new();
    voter.synchronous(SyncMode::On, record("b", 0, &["a"])).nobody_leads().tick();
    voter.later(5).gone("b").answers("c", 5000);
    assert_eq!(jobs(&voter.tick().actions), [JobKind::TakeLeadership]);

    let mut other = World::new();
    other.synchronous(SyncMode::On, record("b", 0, &["c"])).nobody_leads().tick();
    other.later(5).gone("b").gone("c");
    assert_eq!(other.tick().because, not_vouched_for());
}

/// The position of a member that must not lead counts all the same.
#[test]
fn a_voter_with_the_tag_nofailover_is_asked() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"])).nobody_leads();
    let key = world.cluster().members.get_mut(&name("c")).expect("a member");
    key.record.tags.0.insert("nofailover".to_owned(), json!(true));
    let asked = world.tick().actions;
    let is_asked = |action: &Action| matches!(action, Action::AskPeers { who } if who.iter().any(|(member, _)| *member == name("c")));
    assert!(asked.iter().any(is_asked), "{asked:?}");
}

/// The WAL that it lacks was never acknowledged, however much that is.
#[test]
fn a_voter_is_never_too_far_behind() {
    let mut world = World::new();
    world.cluster().status.as_mut().expect("set").optime = Some(Lsn(1 << 40));
    world.synchronous(SyncMode::On, record("b", 0, &["a"])).nobody_leads().tick();
    world.later(5).gone("b").gone("c");
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// The names first, so that no commit of the new primary escapes them; then the key; then the promotion.
#[test]
fn a_promotion_waits_for_names_and_key() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"])).i_lead();
    let first = world.tick();
    assert_eq!((first.because, promises(&first.actions)), (Reason::Sync(SyncReason::Preparing), vec![]));
    let wanted = names(&first.actions)[0].clone().expect("names");
    assert_eq!(wanted, "ANY 1 (b,c)");
    world.names_in_effect(&wanted).tick();
    let written = world.names_in_effect(&wanted).tick();
    let next = record("a", 1, &["b", "c"]);
    assert_eq!(promises(&written.actions), [(Some(next.clone()), REVISION)]);
    assert_eq!(jobs(&written.actions), []);
    assert_eq!(jobs(&world.later(5).tick().actions), [], "not before the write is seen done");
    let promoted = world.written(Some(next), 201).tick();
    assert_eq!(jobs(&promoted.actions), [JobKind::Promote]);
}

/// A candidate that judged by the former key must not win after a promotion, even if the content of the key stays the
/// same.
#[test]
fn the_key_is_written_before_every_promotion() {
    let mut world = World::new();
    let mine = record("a", 0, &[]);
    let written = world.synchronous(SyncMode::On, mine.clone()).i_lead().names_in_effect("").tick();
    assert_eq!(
        (promises(&written.actions), jobs(&written.actions)),
        (vec![(Some(mine.clone()), REVISION)], vec![])
    );
    assert_eq!(jobs(&world.written(Some(mine), 201).tick().actions), [JobKind::Promote]);
}

/// The mode was switched off while there was no leader: the key does not cover the commits that will be acknowledged.
#[test]
fn without_a_mode_the_sync_key_is_deleted_before_the_promotion() {
    let mut world = World::new();
    world.synchronous(SyncMode::Off, record("b", 0, &["a", "c"])).i_lead();
    let written = world.tick();
    assert_eq!((promises(&written.actions), jobs(&written.actions)), (vec![(None, REVISION)], vec![]));
    assert_eq!(jobs(&world.written(None, 0).tick().actions), [JobKind::Promote]);
}

/// Leadership was handed to this member, and its view is older than that: the mode may have been switched on since.
#[test]
fn a_view_older_than_the_term_allows_no_promotion() {
    let mut world = World::new();
    let revision = world.i_lead().cluster().revision;
    world.seen.lease.leading = Leading::Yes(Term(revision + 1));
    let waits = world.tick();
    assert_eq!((waits.because, jobs(&waits.actions)), (Reason::Sync(SyncReason::Preparing), vec![]));
    world.cluster().revision = revision + 1;
    assert_eq!(jobs(&world.later(5).tick().actions), [JobKind::Promote]);
}

/// Other names were set by hand, or another leader wrote the key: commits that were acknowledged since may be on no
/// other member.
#[test]
fn a_promise_that_the_names_break_is_withdrawn() {
    let cases = [("", record("a", 0, &["b", "c"])), ("ANY 1 (b,c)", record("b", 1, &["a", "c"]))];
    for (in_effect, said) in cases {
        let mut world = World::new();
        world.synchronous(SyncMode::Quorum, said).i_lead().postgres(up(primary(2000)));
        let written = world.names_in_effect(in_effect).tick();
        assert_eq!(promises(&written.actions), [(Some(record("a", 0, &[])), REVISION)], "{in_effect}");
    }
}

/// A supervisor starts: a write of its previous incarnation may still arrive, so nothing else is changed before the key
/// was written once.
#[test]
fn a_restarted_leader_rewrites_the_sync_key_first() {
    let mut world = World::new();
    let said = record("a", 1, &["b", "c"]);
    world.synchronous(SyncMode::Quorum, said.clone()).i_lead().postgres(up(primary(2000)));
    let sql = world.seen.postgres.sql.as_mut().expect("it answers");
    sql.sync.walsenders = vec![streams("b", 2000)];
    let written = world.names_in_effect("ANY 1 (b,c)").tick();
    assert_eq!(promises(&written.actions), [(Some(said.clone()), REVISION)]);
    let quiet = world.later(100).tick();
    assert_eq!((promises(&quiet.actions), names(&quiet.actions)), (vec![], vec![]), "the answer is awaited");
    // The answer is lost: the same write again, over the same revision.
    assert_eq!(promises(&world.later(1000).tick().actions), [(Some(said), REVISION)]);
}

/// After a crash, recovery brings back commits that perhaps no standby holds. No client reads them before a standby
/// does.
#[test]
fn clients_are_locked_out_after_an_unclean_stop() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("a", 1, &["b", "c"])).i_lead();
    world.postgres(down(ControlState::InProduction));
    world.gone("b").gone("c").tick();
    let closed = world.later(5).gone("b").gone("c").tick().actions;
    assert!(closed.contains(&Action::SetClientLockout { closed: true }), "{closed:?}");

    let mut serving = World::new();
    let said = record("a", 1, &["b", "c"]);
    serving.synchronous(SyncMode::Quorum, said.clone()).i_lead().postgres(up(primary(2000)));
    serving.seen.postgres.clients_locked_out = true;
    serving.names_in_effect("ANY 1 (b,c)").tick();
    let waiting = serving.written(Some(said), 201).names_in_effect("ANY 1 (b,c)").tick();
    let by: Vec<MemberName> = vec![name("b"), name("c")];
    assert_eq!(waiting.because, Reason::Sync(SyncReason::ClientsLockedOut { by }));
    let sql = serving.seen.postgres.sql.as_mut().expect("it answers");
    sql.sync.walsenders = vec![streams("c", 1999)];
    let open = Action::SetClientLockout { closed: false };
    assert!(!serving.names_in_effect("ANY 1 (b,c)").tick().actions.contains(&open), "c lacks a byte");
    let sql = serving.seen.postgres.sql.as_mut().expect("it answers");
    sql.sync.walsenders = vec![streams("c", 2000)];
    assert!(serving.names_in_effect("ANY 1 (b,c)").tick().actions.contains(&open));
}

/// It stopped cleanly: it holds no commit beyond the promise.
#[test]
fn clients_are_not_locked_out_after_a_clean_stop() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("a", 1, &["b", "c"])).i_lead();
    world.postgres(down(ControlState::ShutDown));
    let started = world.tick().actions;
    assert_eq!(jobs(&started), [JobKind::StartStandby]);
    assert!(!started.contains(&Action::SetClientLockout { closed: true }), "{started:?}");
}

/// No configuration was read, so the wanted mode is unknown and the members use defaults. The key still binds the
/// leader and the standbys in a race, until a configuration says off.
#[test]
fn a_key_binds_until_a_configuration_releases_it() {
    let said = record("a", 1, &["b", "c"]);
    let mut leading = World::new();
    leading.synchronous(SyncMode::Off, said.clone()).i_lead().postgres(up(primary(2000)));
    leading.seen.settings.sync = SyncSettings::default().bound_by(Some(&said));
    let kept = leading.names_in_effect("ANY 1 (b,c)").tick();
    assert_eq!(promises(&kept.actions), [(Some(said), REVISION)], "at most its own");
    assert_eq!(names(&kept.actions), []);
    leading.seen.settings.sync = SyncSettings::default();
    leading.memory = matriarch::decide::Memory::default();
    assert_eq!(promises(&leading.later(10).tick().actions), [(None, REVISION)]);

    let mut racing = World::a_quorum_lost_its_leader();
    racing.seen.settings.sync = SyncSettings::default().bound_by(Some(&record("b", 1, &["a", "c"])));
    assert_eq!(racing.gone("c").tick().because, not_vouched_for());
    racing.answers("c", 1000);
    assert_eq!(jobs(&racing.tick().actions), [JobKind::TakeLeadership]);

    let mut released = World::a_quorum_lost_its_leader();
    released.seen.settings.sync = SyncSettings::default();
    assert_eq!(
        jobs(&released.gone("c").tick().actions),
        [JobKind::TakeLeadership],
        "off asks nobody who is gone"
    );
}

/// Answers of different timelines are compared by the timeline first. An answer without a timeline is not compared.
#[test]
fn an_answer_without_a_timeline_is_no_vote() {
    let mut world = World::a_quorum_lost_its_leader();
    world.answers("c", 10).peer("c").timeline = None;
    assert_eq!(world.tick().because, not_vouched_for());
    world.peer("c").timeline = Some(Timeline(2));
    assert_eq!(world.tick().because, not_vouched_for());
    world.postgres(up(matriarch::model::SqlFacts { timeline: Some(Timeline(3)), ..standby(5) }));
    world.receives_nothing();
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}
