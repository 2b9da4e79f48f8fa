//! The leader race: the choice of a new leader while the cluster has none.

use std::time::Duration;

use super::ledgers::LeaderKeyPhase;
use super::position::comparable;
use super::turn::Turn;
use super::{bootstrap, eligibility, lag, peers, publish, requests, stop, store, sync, unfenced};
use crate::model::{
    Action, ClusterView, FailoverRequest, Grounds, Job, LeaderKey, Leading, MemberName, OwnFault, PeerAnswer,
    Reason, SqlFacts, SyncReason, Term, WaitingOn,
};

/// A running primary whose lease is doubted by a renewal has this long until a newer view or renewal clears it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
/// How soon to ask again when somebody else should take the key and has not.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// My Postgres is a standby and nobody leads.
pub(super) fn run(turn: &mut Turn<'_>, sql: &SqlFacts) -> Reason {
    sync::keep_names(turn);
    sync::let_go(turn);
    requests::go_on(turn);
    if let Some(reason) = not_begun(turn) {
        return reason;
    }
    let Some(cluster) = turn.cluster() else { return Reason::ClusterUnknown };
    let asked = RaceRequest::of(turn, cluster);
    if let Some(reason) = barred(turn, cluster, &asked) {
        return reason;
    }
    if let Some(reason) = primary_may_live(turn, &asked, sql) {
        return reason;
    }
    let too_old = too_old(turn, cluster, &asked, sql);
    if let Some(reason) = too_old.as_ref().filter(|_| !turn.is_unsettled()) {
        let reason = reason.clone();
        stand_back(turn);
        return reason;
    }
    if asked.is_unquestioned(turn) {
        return take(turn, Reason::AskedToLead);
    }
    compare(turn, &asked, sql, too_old)
}

/// Nobody needs to wait for me: I lack too much.
fn stand_back(turn: &mut Turn<'_>) {
    if let Some(leaderless) = turn.memory.leader_key.vacant_mut() {
        leaderless.too_old = true;
    }
}

/// What the key `failover` asks of the race.
struct RaceRequest<'a> {
    request: Option<&'a FailoverRequest>,
    /// I am its candidate.
    is_mine: bool,
}

impl<'a> RaceRequest<'a> {
    fn of(turn: &Turn<'_>, cluster: &'a ClusterView) -> RaceRequest<'a> {
        let request = cluster.failover.as_ref().map(|key| &key.request);
        let request = request.filter(|request| request.scheduled_at.is_none());
        let me = &turn.seen.me.name;
        RaceRequest {
            request,
            is_mine: request.is_some_and(|request| request.candidate.as_ref() == Some(me)),
        }
    }

    /// I am to lead, whatever that loses. A failover takes the loss; a switchover whose leader is gone does not.
    fn forced(&self) -> Option<&'a FailoverRequest> {
        self.request.filter(|request| self.is_mine && request.is_failover())
    }

    /// I am to lead, and nobody else has to be asked.
    fn is_unquestioned(&self, turn: &Turn<'_>) -> bool {
        let free = sync::vouching(turn).is_none() && !turn.is_unsettled();
        self.forced().is_some() || (self.is_mine && free)
    }
}

/// What comes before a race.
fn not_begun(turn: &mut Turn<'_>) -> Option<Reason> {
    if turn.memory.restart.is_some() {
        return Some(Reason::Restarting);
    }
    if turn.cluster().is_none() {
        return Some(Reason::ClusterUnknown);
    }
    if turn.seen.writing.is_some() {
        return Some(Reason::TakingLeadership);
    }
    (!turn.has_lease()).then_some(Reason::NoLeaseYet)
}

/// A primary may live that no lease fences any more.
fn primary_may_live(turn: &mut Turn<'_>, asked: &RaceRequest<'_>, sql: &SqlFacts) -> Option<Reason> {
    let forced = asked.forced();
    if let Some(reason) = unfenced::bars(turn, forced) {
        return Some(reason);
    }
    match forced {
        Some(_) => store::bars(turn),
        None => unfenced::lives(turn, sql),
    }
}

/// Members that may hold more are asked, and go first where they do.
fn compare(turn: &mut Turn<'_>, asked: &RaceRequest<'_>, sql: &SqlFacts, too_old: Option<Reason>) -> Reason {
    let rivals = rivals(turn);
    if !peers::ask(turn, &rivals) {
        return Reason::AskingMembers;
    }
    let unproved = store::unproved(turn, (sql.timeline, sql.lsn()), too_old);
    if let Some(reason) = unproved.or_else(|| not_vouched_for(turn, sql)) {
        peers::ask_again(turn, rivals, sql.receives());
        return reason;
    }
    if asked.is_mine {
        // A member that is ahead holds nothing more that was acknowledged, and goes behind.
        return take(turn, Reason::AskedToLead);
    }
    if let Some(reason) = somebody_first(turn, asked.request, sql) {
        turn.wake_in(ASK_AGAIN, WaitingOn::Members);
        return reason;
    }
    take(turn, Reason::HealthiestMember)
}

fn take(turn: &mut Turn<'_>, because: Reason) -> Reason {
    store::hear(turn);
    let unfenced = turn.cluster().and_then(|cluster| cluster.unfenced.as_ref());
    let unfenced = unfenced.map_or(0, |key| key.mod_revision);
    let by = Grounds { sync: turn.sync_revision(), unfenced, unlocked: turn.memory.vacant_at() };
    turn.start(Job::TakeLeadership { by });
    match turn.writes_refused() {
        Some(_) => Reason::WritesRefused,
        None => because,
    }
}

/// Why the key `sync` does not let me lead.
fn not_vouched_for(turn: &Turn<'_>, sql: &SqlFacts) -> Option<Reason> {
    let record = sync::vouching(turn)?;
    let vouched = sync::may_lead(turn, &turn.seen.me.name, (sql.timeline, sql.lsn()));
    let vouched = vouched && (record.quorum == 0 || (sql.is_exact() && !sql.receives()));
    let leader = record.leader.clone()?;
    (!vouched).then_some(Reason::Sync(SyncReason::NotVouchedFor { leader }))
}

/// Why I must not even compare.
fn barred(turn: &mut Turn<'_>, cluster: &ClusterView, asked: &RaceRequest<'_>) -> Option<Reason> {
    if !bootstrap::may_rebuild(turn, cluster) {
        return Some(Reason::ReplicaMustNotRebuild { me: turn.seen.me.name.clone() });
    }
    if let Some(fault) = turn.seen.own_fault() {
        return reason_of(turn, fault);
    }
    if asked.is_mine { None } else { held_back(turn) }
}

fn reason_of(turn: &Turn<'_>, fault: OwnFault) -> Option<Reason> {
    match fault {
        OwnFault::NoFailoverTag => Some(Reason::NoFailoverTag),
        OwnFault::WatchdogFailed => Some(Reason::WatchdogFailed),
        OwnFault::PodEnds => turn.pod_end().map(Reason::PodEnds),
    }
}

/// Nobody asked for me, and others go first.
fn held_back(turn: &mut Turn<'_>) -> Option<Reason> {
    if turn.seen.settings.pause {
        return Some(Reason::Paused);
    }
    let until = turn.memory.yield_until.filter(|until| turn.now < *until)?;
    turn.wake_at(until, WaitingOn::Members);
    Some(Reason::Yielding)
}

/// I lack more than may be lost. A member that is vouched for holds what counts, however much was not acknowledged.
fn too_old(
    turn: &Turn<'_>,
    cluster: &ClusterView,
    asked: &RaceRequest<'_>,
    sql: &SqlFacts,
) -> Option<Reason> {
    if asked.forced().is_some() || sync::vouching(turn).is_some() {
        return None;
    }
    if let Some(bytes) = lag::too_far_behind(turn, lag::shared(turn, sql)) {
        return Some(Reason::TooFarBehind { bytes });
    }
    let old_timeline = turn.seen.settings.check_timeline && sql.timeline < cluster.timeline();
    old_timeline.then_some(Reason::OldTimeline)
}

/// Somebody took the loss that comes with me as leader: etcd knows it before I am promoted. Until then it would keep
/// everybody from leading after me, as too far behind the leader before me. True once it knows.
pub(super) fn loss_is_known(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) -> bool {
    let mine = lag::shared(turn, sql);
    let known = turn.sync_record().is_some() || lag::too_far_behind(turn, mine).is_none();
    if !known {
        publish::loss(turn, term, mine);
        turn.wake_in(ASK_AGAIN, WaitingOn::Lease);
    }
    known
}

/// Members whose answers count: reachable in principle, and allowed to lead.
fn rivals(turn: &Turn<'_>) -> Vec<(MemberName, String)> {
    let record = sync::vouching(turn);
    let unsettled = turn.is_unsettled();
    let votes =
        |name| unsettled || record.is_some_and(|record| record.is_voter(name) || record.is_leader(name));
    let allowed = turn.others().filter(|(name, key)| !key.record.tags.nofailover() || votes(name));
    allowed.filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?))).collect()
}

/// The member that goes before me, by the rules: a live primary, one that is ahead, one that has priority among equals,
/// and the candidate somebody asked for. Members that do not answer stop nobody.
fn somebody_first(turn: &Turn<'_>, request: Option<&FailoverRequest>, sql: &SqlFacts) -> Option<Reason> {
    let known = turn.others().filter_map(|(name, _)| Some((name, turn.peers.get(name)?)));
    let mut fit = known.filter(|(_, answer)| answer.eligible().is_ok());
    fit.find_map(|(member, answer)| goes_first(turn, request, sql, member, answer))
}

fn goes_first(
    turn: &Turn<'_>,
    request: Option<&FailoverRequest>,
    sql: &SqlFacts,
    member: &MemberName,
    answer: &PeerAnswer,
) -> Option<Reason> {
    if !answer.in_recovery {
        return Some(Reason::PrimaryStillAlive { member: member.clone() });
    }
    if request.is_some_and(|request| is_awaited(turn, request, sql, member, answer)) {
        return Some(Reason::CandidateGoesFirst { member: member.clone() });
    }
    let led = request.is_some_and(|request| request.leader.as_ref() == Some(member));
    let stands_back = led || answer.yields || !sync::counts(turn, member);
    if stands_back { None } else { is_better(turn, sql, member, answer) }
}

/// It is the candidate that was asked for, and able to lead. Where what members hold decides, one that holds less does
/// not go first.
fn is_awaited(
    turn: &Turn<'_>,
    request: &FailoverRequest,
    sql: &SqlFacts,
    member: &MemberName,
    answer: &PeerAnswer,
) -> bool {
    let (mine, theirs) = ((sql.timeline, sql.lsn()), (answer.timeline, answer.lsn));
    let asked = request.candidate.as_ref() == Some(member);
    let holds_less = turn.is_unsettled() && comparable(theirs) < comparable(mine);
    let able = !holds_less && eligibility::to_win(turn, member, answer, true).is_none();
    asked && (request.is_failover() || able)
}

/// It is ahead, or as far as I am and has priority.
fn is_better(turn: &Turn<'_>, sql: &SqlFacts, member: &MemberName, answer: &PeerAnswer) -> Option<Reason> {
    let member = member.clone();
    let (mine, theirs) = ((sql.timeline, sql.lsn()), (answer.timeline, answer.lsn));
    if comparable(mine) < comparable(theirs) {
        return Some(Reason::MemberAhead { member, bytes: answer.lsn.bytes_since(sql.lsn()) });
    }
    let has_priority = turn.seen.me.tags.failover_priority() < answer.tags.failover_priority();
    (sql.lsn() == answer.lsn && has_priority).then_some(Reason::MemberHasPriority { member })
}

/// Whether another member could lead in my place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidates {
    /// They have not answered yet.
    Asking,
    /// At least one can.
    Some,
    /// None can.
    None,
}

/// Asks who could lead in my place.
pub(super) fn candidates(turn: &mut Turn<'_>) -> Candidates {
    if turn.writes_refused().is_some() {
        // Nobody can take a key that cannot be written.
        return Candidates::None;
    }
    let rivals = rivals(turn);
    let all_answered = peers::ask(turn, &rivals);
    let fit = |(name, _): &(MemberName, String)| {
        let answer = turn.peers.get(name).filter(|answer| turn.is_answer_of_now(answer));
        answer.is_some_and(|answer| eligibility::to_succeed(turn, name, answer).is_none())
    };
    match rivals.iter().any(fit) {
        true => Candidates::Some,
        false if all_answered => Candidates::None,
        false => Candidates::Asking,
    }
}

/// The leader key vanished under a running primary: take it back at once, or stop as soon as somebody else has it.
pub(super) fn retake(turn: &mut Turn<'_>, sql: Option<&SqlFacts>) -> Reason {
    let led_since = led_by_another_since(turn, sql).filter(|_| turn.seen.job.is_none());
    if let Some(reason) = led_since {
        stop::before_fence(turn);
        return reason;
    }
    if let Some(reason) = sql.and_then(|sql| store::unproved(turn, (sql.timeline, sql.lsn()), None)) {
        let rivals = rivals(turn);
        peers::ask_again(turn, rivals, false);
        return reason;
    }
    turn.wake_in(ASK_AGAIN, WaitingOn::Lease);
    if turn.seen.writing.is_some() {
        return Reason::KeyVanished;
    }
    match turn.has_lease() {
        true => take(turn, Reason::KeyVanished),
        false => Reason::NoLeaseYet,
    }
}

/// By its records the cluster had another leader after this primary: it may lack what was acknowledged there.
fn led_by_another_since(turn: &Turn<'_>, sql: Option<&SqlFacts>) -> Option<Reason> {
    let other = sync::vouching(turn).filter(|record| !record.is_leader(&turn.seen.me.name));
    if let Some(leader) = other.and_then(|record| record.leader.clone()) {
        return Some(Reason::Sync(SyncReason::NotVouchedFor { leader }));
    }
    let older = sql.zip(turn.cluster()).is_some_and(|(sql, cluster)| sql.timeline < cluster.timeline());
    older.then_some(Reason::OldTimeline)
}

/// The key hangs on my lease; the next renewal confirms it.
pub(super) fn confirming(turn: &mut Turn<'_>) -> Reason {
    // Without any answer nothing is doubted: the guard holds the deadline until which a primary may go on.
    let doubted = turn.seen.lease.leading == Leading::No;
    let late = matches!(
        turn.memory.leader_key,
        LeaderKeyPhase::Unconfirmed { since } if since + CONFIRM_WITHIN <= turn.now
    );
    if doubted && late && turn.seen.postgres.may_be_primary() {
        // A renewal said that the key is not mine, and no newer view says otherwise: the view may be stuck.
        stop::before_fence(turn);
        return Reason::LeaseExpiring;
    }
    turn.act(Action::RenewLease);
    turn.wake_in(ASK_AGAIN, WaitingOn::Lease);
    Reason::Confirming
}

/// My name leads under a lease of a former life of this supervisor. Nothing of it runs (the table made sure), so
/// the lease is revoked and I stand as a candidate like any other.
pub(super) fn revoke_former_self(turn: &mut Turn<'_>, key: &LeaderKey) -> Reason {
    let mine = turn.cluster().and_then(|cluster| cluster.members.get(&turn.seen.me.name));
    let same_place =
        mine.is_none_or(|mine| mine.record.api_url.as_deref() == Some(turn.seen.me.api_url.as_str()));
    match key.lease {
        Some(lease) if same_place => {
            turn.act(Action::RevokeLease { lease });
            turn.wake_in(Duration::from_millis(500), WaitingOn::Lease);
        }
        Some(_) | None => {}
    }
    Reason::FormerSelf
}
