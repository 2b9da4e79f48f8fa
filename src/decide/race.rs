//! The leader race: the choice of a new leader while the cluster has none.

use std::time::Duration;

use super::ledgers::LeaderKeyPhase;
use super::position::comparable;
use super::take::take;
use super::tick::Tick;
use super::{
    attach, bootstrap, eligibility, failsafe, lag, peers, promised, publish, requests, stop, store, sync,
    unfenced,
};
use crate::model::{
    Action, ClusterView, FailoverRequest, LeaderKey, Leading, MemberName, OwnFault, PeerAnswer, Reason,
    SqlFacts, SyncReason, Term, WaitingOn,
};

/// A running primary whose lease is doubted by a renewal has this long until a newer view or renewal clears it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
/// How soon to ask again when somebody else should take the key and has not.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// My Postgres is a standby and nobody leads.
pub(super) fn run(tick: &mut Tick<'_>, sql: &SqlFacts) -> Reason {
    sync::keep_names(tick);
    attach::leave_stale_source(tick, sql);
    match failsafe::standing(tick).cloned() {
        Some(promise) => promised::follow(tick, &promise),
        None => sync::let_go(tick),
    }
    requests::advance(tick);
    if let Some(reason) = not_begun(tick) {
        return reason;
    }
    let Some(cluster) = tick.cluster() else { return Reason::ClusterUnknown };
    let asked = RaceRequest::of(tick, cluster);
    if let Some(reason) = barred(tick, cluster, &asked) {
        return reason;
    }
    if let Some(reason) = primary_may_live(tick, &asked, sql) {
        return reason;
    }
    let lag_disqualified = lag_disqualified(tick, cluster, &asked, sql);
    if let Some(reason) = lag_disqualified.as_ref().filter(|_| !tick.is_unsettled()) {
        let reason = reason.clone();
        stand_back(tick);
        return reason;
    }
    if asked.is_unquestioned(tick) {
        return failsafe::may_have_promised(tick).unwrap_or_else(|| take(tick, Reason::AskedToLead));
    }
    compare(tick, &asked, sql, lag_disqualified)
}

/// Nobody needs to wait for me: I lack too much.
fn stand_back(tick: &mut Tick<'_>) {
    if let Some(leaderless) = tick.memory.leader_key.vacant_mut() {
        leaderless.lag_disqualified = true;
    }
}

/// What the key `failover` asks of the race.
struct RaceRequest<'a> {
    request: Option<&'a FailoverRequest>,
    /// I am its candidate.
    is_mine: bool,
}

impl<'a> RaceRequest<'a> {
    fn of(tick: &Tick<'_>, cluster: &'a ClusterView) -> RaceRequest<'a> {
        let request = cluster.failover.as_ref().map(|key| &key.request);
        let request = request.filter(|request| request.scheduled_at.is_none());
        let me = &tick.seen.me.name;
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
    fn is_unquestioned(&self, tick: &Tick<'_>) -> bool {
        let free = sync::vouching(tick).is_none() && !tick.is_unsettled();
        self.forced().is_some() || (self.is_mine && free)
    }
}

/// What comes before a race.
pub(super) fn not_begun(tick: &mut Tick<'_>) -> Option<Reason> {
    if tick.memory.restart.is_some() {
        return Some(Reason::Restarting);
    }
    if tick.cluster().is_none() {
        return Some(Reason::ClusterUnknown);
    }
    if tick.seen.writing.is_some() {
        return Some(Reason::TakingLeadership);
    }
    (!tick.has_lease()).then_some(Reason::NoLeaseYet)
}

/// A primary may live that no lease fences any more.
fn primary_may_live(tick: &mut Tick<'_>, asked: &RaceRequest<'_>, sql: &SqlFacts) -> Option<Reason> {
    let forced = asked.forced();
    if let Some(reason) = unfenced::bars(tick, forced).or_else(|| failsafe::bars(tick)) {
        return Some(reason);
    }
    match forced {
        Some(request) => {
            let rivals = rivals(tick);
            store::bars(tick, request, rivals)
        }
        // WAL comes from the remote primary, and no member is promoted.
        None if tick.in_standby_cluster() => None,
        None => unfenced::lives(tick, sql),
    }
}

/// Members that may hold more are asked, and go first where they do.
fn compare(
    tick: &mut Tick<'_>,
    asked: &RaceRequest<'_>,
    sql: &SqlFacts,
    lag_disqualified: Option<Reason>,
) -> Reason {
    let rivals = rivals(tick);
    if !peers::ask(tick, &rivals) {
        return Reason::AskingMembers;
    }
    let unproved = store::unproved(tick, (sql.timeline, sql.lsn()), lag_disqualified);
    if let Some(reason) = unproved.or_else(|| not_vouched_for(tick, sql)) {
        peers::ask_again(tick, rivals, sql.receives());
        return reason;
    }
    if let Some(reason) = failsafe::may_have_promised(tick) {
        return reason;
    }
    if asked.is_mine {
        // A member that is ahead holds nothing more that was acknowledged, and goes behind.
        return take(tick, Reason::AskedToLead);
    }
    if let Some(reason) = somebody_first(tick, asked.request, sql) {
        tick.wake_in(ASK_AGAIN, WaitingOn::Members);
        return reason;
    }
    take(tick, Reason::HealthiestMember)
}

/// Why the key `sync` does not let me lead.
fn not_vouched_for(tick: &Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    let record = sync::vouching(tick)?;
    let vouched = sync::may_lead(tick, &tick.seen.me.name, (sql.timeline, sql.lsn()));
    let vouched = vouched && (record.quorum == 0 || (sql.is_exact() && !sql.receives()));
    let leader = record.leader.clone()?;
    (!vouched).then_some(Reason::Sync(SyncReason::NotVouchedFor { leader }))
}

/// Why I must not even compare.
fn barred(tick: &mut Tick<'_>, cluster: &ClusterView, asked: &RaceRequest<'_>) -> Option<Reason> {
    if !bootstrap::may_rebuild(tick, cluster) {
        return Some(Reason::ReplicaMustNotRebuild { me: tick.seen.me.name.clone() });
    }
    if let Some(fault) = tick.seen.own_fault() {
        return reason_of(tick, fault);
    }
    if asked.is_mine { None } else { held_back(tick) }
}

fn reason_of(tick: &Tick<'_>, fault: OwnFault) -> Option<Reason> {
    match fault {
        OwnFault::NoFailoverTag => Some(Reason::NoFailoverTag),
        OwnFault::WatchdogFailed => Some(Reason::WatchdogFailed),
        OwnFault::PodEnds => tick.pod_end().map(Reason::PodEnds),
    }
}

/// Nobody asked for me, and others go first.
pub(super) fn held_back(tick: &mut Tick<'_>) -> Option<Reason> {
    if tick.seen.settings.pause {
        return Some(Reason::Paused);
    }
    let until = tick.memory.yield_until.filter(|until| tick.now < *until)?;
    tick.wake_at(until, WaitingOn::Members);
    Some(Reason::Yielding)
}

/// I lack more than may be lost. A member that is vouched for holds what counts, however much was not acknowledged.
fn lag_disqualified(
    tick: &Tick<'_>,
    cluster: &ClusterView,
    asked: &RaceRequest<'_>,
    sql: &SqlFacts,
) -> Option<Reason> {
    // In a standby cluster no member is promoted, and the published position may be that of a primary of before.
    if asked.forced().is_some() || sync::vouching(tick).is_some() || tick.in_standby_cluster() {
        return None;
    }
    if let Some(bytes) = lag::too_far_behind(tick, lag::shared(tick, sql)) {
        return Some(Reason::TooFarBehind { bytes });
    }
    let old_timeline = tick.seen.settings.check_timeline && sql.timeline < cluster.timeline();
    old_timeline.then_some(Reason::OldTimeline)
}

/// Somebody took the loss that comes with me as leader: etcd knows it before I am promoted. Until then it would keep
/// everybody from leading after me, as too far behind the leader before me. True once it knows.
pub(super) fn loss_is_known(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> bool {
    let mine = lag::shared(tick, sql);
    let known = tick.sync_record().is_some()
        || publish::leads_standby_cluster(tick)
        || lag::too_far_behind(tick, mine).is_none();
    if !known {
        publish::loss(tick, term, mine);
        tick.wake_in(ASK_AGAIN, WaitingOn::Lease);
    }
    known
}

/// Members whose answers count: reachable in principle, and allowed to lead.
fn rivals(tick: &Tick<'_>) -> Vec<(MemberName, String)> {
    let record = sync::vouching(tick);
    let unsettled = tick.is_unsettled();
    let votes =
        |name| unsettled || record.is_some_and(|record| record.is_voter(name) || record.is_leader(name));
    let allowed = tick.others().filter(|(name, key)| !key.record.tags.nofailover() || votes(name));
    allowed.filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?))).collect()
}

/// The member that goes before me, by the rules: a live primary, one that is ahead, one that has priority among equals,
/// and the candidate somebody asked for. Members that do not answer stop nobody.
fn somebody_first(tick: &Tick<'_>, request: Option<&FailoverRequest>, sql: &SqlFacts) -> Option<Reason> {
    let known = tick.others().filter_map(|(name, _)| Some((name, tick.peers.get(name)?)));
    let mut fit = known.filter(|(_, answer)| answer.eligible().is_ok());
    fit.find_map(|(member, answer)| goes_first(tick, request, sql, member, answer))
}

fn goes_first(
    tick: &Tick<'_>,
    request: Option<&FailoverRequest>,
    sql: &SqlFacts,
    member: &MemberName,
    answer: &PeerAnswer,
) -> Option<Reason> {
    if !answer.in_recovery {
        return Some(Reason::PrimaryStillAlive { member: member.clone() });
    }
    if request.is_some_and(|request| is_awaited(tick, request, sql, member, answer)) {
        return Some(Reason::CandidateGoesFirst { member: member.clone() });
    }
    let led = request.is_some_and(|request| request.leader.as_ref() == Some(member));
    let may_lead = failsafe::may_lead(tick, member) && sync::counts(tick, member);
    let stands_back = led || answer.yields || !may_lead;
    if stands_back { None } else { is_better(tick, sql, member, answer) }
}

/// It is the candidate that was asked for, and able to lead. Where what members hold decides, one that holds less does
/// not go first.
fn is_awaited(
    tick: &Tick<'_>,
    request: &FailoverRequest,
    sql: &SqlFacts,
    member: &MemberName,
    answer: &PeerAnswer,
) -> bool {
    let (mine, theirs) = ((sql.timeline, sql.lsn()), (answer.timeline, answer.lsn));
    let asked = request.candidate.as_ref() == Some(member);
    let holds_less = tick.is_unsettled() && comparable(theirs) < comparable(mine);
    let able = !holds_less && eligibility::to_win(tick, member, answer, true).is_none();
    asked && failsafe::may_lead(tick, member) && (request.is_failover() || able)
}

/// It is ahead, or as far as I am and has priority.
fn is_better(tick: &Tick<'_>, sql: &SqlFacts, member: &MemberName, answer: &PeerAnswer) -> Option<Reason> {
    let member = member.clone();
    let (mine, theirs) = ((sql.timeline, sql.lsn()), (answer.timeline, answer.lsn));
    if comparable(mine) < comparable(theirs) {
        return Some(Reason::MemberAhead { member, bytes: answer.lsn.bytes_since(sql.lsn()) });
    }
    let has_priority = tick.seen.me.tags.failover_priority() < answer.tags.failover_priority();
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
pub(super) fn candidates(tick: &mut Tick<'_>) -> Candidates {
    if tick.writes_refused().is_some() {
        // Nobody can take a key that cannot be written.
        return Candidates::None;
    }
    let rivals = rivals(tick);
    let all_answered = peers::ask(tick, &rivals);
    let fit = |(name, _): &(MemberName, String)| {
        let answer = tick.peers.get(name).filter(|answer| tick.is_answer_of_now(answer));
        answer.is_some_and(|answer| eligibility::to_succeed(tick, name, answer).is_none())
    };
    match rivals.iter().any(fit) {
        true => Candidates::Some,
        false if all_answered => Candidates::None,
        false => Candidates::Asking,
    }
}

/// The leader key vanished under a running primary: take it back at once, or stop as soon as somebody else has it.
pub(super) fn retake(tick: &mut Tick<'_>, sql: Option<&SqlFacts>) -> Reason {
    if let Some(reason) = led_by_another_since(tick, sql) {
        if tick.seen.job.is_none() {
            stop::before_fence(tick);
        }
        return reason;
    }
    if let Some(reason) = sql.and_then(|sql| store::unproved(tick, (sql.timeline, sql.lsn()), None)) {
        let rivals = rivals(tick);
        peers::ask_again(tick, rivals, false);
        return reason;
    }
    tick.wake_in(ASK_AGAIN, WaitingOn::Lease);
    if tick.seen.writing.is_some() {
        return Reason::KeyVanished;
    }
    match tick.has_lease() {
        true => take(tick, Reason::KeyVanished),
        false => Reason::NoLeaseYet,
    }
}

/// By its records the cluster had another leader after this primary: it may lack what was acknowledged there.
fn led_by_another_since(tick: &Tick<'_>, sql: Option<&SqlFacts>) -> Option<Reason> {
    let other = sync::vouching(tick).filter(|record| !record.is_leader(&tick.seen.me.name));
    if let Some(leader) = other.and_then(|record| record.leader.clone()) {
        return Some(Reason::Sync(SyncReason::NotVouchedFor { leader }));
    }
    let older = sql.zip(tick.cluster()).is_some_and(|(sql, cluster)| sql.timeline < cluster.timeline());
    older.then_some(Reason::OldTimeline)
}

/// The key hangs on my lease; the next renewal confirms it.
pub(super) fn confirming(tick: &mut Tick<'_>) -> Reason {
    // Without any answer nothing is doubted: the guard holds the deadline until which a primary may go on.
    // While the members' promises last, nobody else can have it.
    let doubted = tick.seen.lease.leading == Leading::No && !tick.seen.lease.is_promised(tick.now);
    let late = matches!(
        tick.memory.leader_key,
        LeaderKeyPhase::Unconfirmed { since } if since + CONFIRM_WITHIN <= tick.now
    );
    if doubted && late && tick.seen.postgres.may_be_primary() {
        // A renewal said that the key is not mine, and no newer view says otherwise: the view may be stuck.
        stop::before_fence(tick);
        return Reason::LeaseExpiring;
    }
    tick.act(Action::RenewLease);
    tick.wake_in(ASK_AGAIN, WaitingOn::Lease);
    Reason::Confirming
}

/// My name leads under a lease of a previous incarnation of this supervisor. Nothing of it runs (the table made sure),
/// so the lease is revoked and I stand as a candidate like any other.
pub(super) fn revoke_previous_incarnation(tick: &mut Tick<'_>, key: &LeaderKey) -> Reason {
    let mine = tick.cluster().and_then(|cluster| cluster.members.get(&tick.seen.me.name));
    let same_place =
        mine.is_none_or(|mine| mine.record.api_url.as_deref() == Some(tick.seen.me.api_url.as_str()));
    match key.lease {
        Some(lease) if same_place => {
            tick.act(Action::RevokeLease { lease });
            tick.wake_in(Duration::from_millis(500), WaitingOn::Lease);
        }
        Some(_) | None => {}
    }
    Reason::FormerSelf
}
