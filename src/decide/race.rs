//! The leader race: the choice of a new leader while the cluster has none.

use std::time::Duration;

use super::position::comparable;
use super::turn::Turn;
use super::{bootstrap, eligibility, lag, peers, publish, requests, stop, store, sync, unfenced};
use crate::model::{
    Action, ClusterView, FailoverRequest, Grounds, Job, LeaderKey, Leading, MemberName, Reason, SqlFacts,
    SyncReason, Term, WaitingOn,
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
    if turn.memory.restart.is_some() {
        return Reason::Restarting;
    }
    let Some(cluster) = turn.cluster() else { return Reason::ClusterUnknown };
    if turn.seen.writing.is_some() {
        return Reason::TakingLeadership;
    }
    if !turn.has_lease() {
        return Reason::NoLeaseYet;
    }
    let request =
        cluster.failover.as_ref().map(|key| &key.request).filter(|request| request.scheduled_at.is_none());
    let asked_for_me = request.is_some_and(|request| request.candidate.as_ref() == Some(&turn.seen.me.name));
    if let Some(reason) = barred(turn, cluster, asked_for_me) {
        return reason;
    }
    // A failover takes the loss; a switchover whose leader is gone does not.
    let takes_loss = request.is_some_and(FailoverRequest::is_failover);
    let forced = request.filter(|_| asked_for_me && takes_loss);
    if let Some(reason) = unfenced::bars(turn, forced) {
        return reason;
    }
    if forced.is_none()
        && let Some(reason) = unfenced::lives(turn, sql)
    {
        return reason;
    }
    if let Some(reason) = forced.and_then(|_| store::bars(turn)) {
        return reason;
    }
    // Who is vouched for holds what counts, however much was not acknowledged.
    let by_lag = forced.is_none() && sync::vouching(turn).is_none();
    let too_old = too_old(turn, cluster, sql).filter(|_| by_lag);
    if let Some(reason) = &too_old
        && !turn.is_unsettled()
    {
        turn.memory.too_old = true;
        return reason.clone();
    }
    let free = sync::vouching(turn).is_none() && !turn.is_unsettled();
    if forced.is_some() || (asked_for_me && free) {
        return take(turn, Reason::AskedToLead);
    }
    let rivals = rivals(turn);
    if !peers::ask(turn, &rivals) {
        return Reason::AskingMembers;
    }
    if let Some(reason) = store::unproved(turn, (sql.timeline, sql.lsn()), too_old) {
        peers::ask_again(turn, rivals, sql.receives());
        return reason;
    }
    if let Some(reason) = not_vouched_for(turn, sql) {
        peers::ask_again(turn, rivals, sql.receives());
        return reason;
    }
    if asked_for_me {
        // Whoever is ahead holds nothing more that was acknowledged, and goes behind.
        return take(turn, Reason::AskedToLead);
    }
    if let Some(reason) = somebody_first(turn, request, sql) {
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
fn barred(turn: &mut Turn<'_>, cluster: &ClusterView, asked_for_me: bool) -> Option<Reason> {
    if !bootstrap::may_rebuild(turn, cluster) {
        return Some(Reason::ReplicaMustNotRebuild { me: turn.seen.me.name.clone() });
    }
    if turn.seen.me.tags.nofailover() {
        return Some(Reason::NoFailoverTag);
    }
    if turn.seen.watchdog_failed {
        return Some(Reason::WatchdogFailed);
    }
    if let Some(end) = turn.pod_end() {
        return Some(Reason::PodEnds(end));
    }
    if turn.seen.settings.pause && !asked_for_me {
        return Some(Reason::Paused);
    }
    match turn.memory.yield_until.filter(|_| turn.memory.yields(turn.now)) {
        Some(until) if !asked_for_me => {
            turn.wake_at(until, WaitingOn::Members);
            Some(Reason::Yielding)
        }
        Some(_) | None => None,
    }
}

fn too_old(turn: &Turn<'_>, cluster: &ClusterView, sql: &SqlFacts) -> Option<Reason> {
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

/// The member that goes before me, by the rules: a live primary, whoever is ahead, whoever has priority among
/// equals, and the candidate somebody asked for. Members that do not answer stop nobody.
fn somebody_first(turn: &Turn<'_>, request: Option<&FailoverRequest>, sql: &SqlFacts) -> Option<Reason> {
    let mine = (sql.timeline, sql.lsn());
    let my_priority = turn.seen.me.tags.failover_priority();
    let known = turn.others().filter_map(|(name, _)| Some((name, turn.peers.get(name)?)));
    for (member, answer) in known.filter(|(_, answer)| answer.eligible().is_ok()) {
        let member = member.clone();
        if !answer.in_recovery {
            return Some(Reason::PrimaryStillAlive { member });
        }
        let goes_first = |request: &FailoverRequest| {
            let asked = request.candidate.as_ref() == Some(&member);
            let theirs = (answer.timeline, answer.lsn);
            // Where what members hold decides, who holds less does not go first.
            let holds_less = turn.is_unsettled() && comparable(theirs) < comparable(mine);
            let able = !holds_less && eligibility::to_win(turn, &member, answer, true).is_none();
            asked && (request.is_failover() || able)
        };
        if request.is_some_and(goes_first) {
            return Some(Reason::CandidateGoesFirst { member });
        }
        if request.is_some_and(|request| request.leader.as_ref() == Some(&member))
            || !sync::counts(turn, &member)
        {
            continue;
        }
        if answer.yields {
            continue;
        }
        let theirs = (answer.timeline, answer.lsn);
        if comparable(mine) < comparable(theirs) {
            return Some(Reason::MemberAhead { member, bytes: answer.lsn.bytes_since(sql.lsn()) });
        }
        if mine.1 == theirs.1 && my_priority < answer.tags.failover_priority() {
            return Some(Reason::MemberHasPriority { member });
        }
    }
    None
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
    let older = sql.zip(turn.cluster()).is_some_and(|(sql, cluster)| sql.timeline < cluster.timeline());
    let led_since = sync::vouching(turn).filter(|record| !record.is_leader(&turn.seen.me.name));
    let led_since = led_since.and_then(|record| record.leader.clone());
    if (older || led_since.is_some()) && turn.seen.job.is_none() {
        stop::before_fence(turn);
        return led_since
            .map_or(Reason::OldTimeline, |leader| Reason::Sync(SyncReason::NotVouchedFor { leader }));
    }
    if let Some(sql) = sql
        && let Some(reason) = store::unproved(turn, (sql.timeline, sql.lsn()), None)
    {
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

/// The key hangs on my lease; the next renewal confirms it.
pub(super) fn confirming(turn: &mut Turn<'_>) -> Reason {
    let since = turn.memory.unconfirmed_since.unwrap_or(turn.now);
    // Without any answer nothing is doubted: the guard holds the deadline until which a primary may go on.
    let doubted = turn.seen.lease.leading == Leading::No;
    if doubted && turn.seen.postgres.may_be_primary() && since + CONFIRM_WITHIN <= turn.now {
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
