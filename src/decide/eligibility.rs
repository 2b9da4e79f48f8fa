//! The eligibility of other members to lead, judged by their answers.

use super::tick::Tick;
use super::{failsafe, lag, streaming, sync};
use crate::model::{HandOverRefusal, HandingOver, Ineligible, MemberName, PeerAnswer, Reply, SqlFacts};

/// Why `name`, which gave this answer, cannot take over from me; `None` when it can. `any`: also an asynchronous
/// member.
pub(super) fn to_take_over(
    tick: &Tick<'_>,
    (name, answer): (&MemberName, &PeerAnswer),
    sql: &SqlFacts,
    any: bool,
) -> Option<Ineligible> {
    let hands_over = HandingOver {
        leader: &tick.seen.me.name,
        lsn: sql.lsn(),
        timeline: sql.timeline,
        limit: tick.seen.settings.maximum_lag_on_failover,
    };
    let streams = streaming::receives(tick, name, Some(answer), sql);
    let synchronous = any || !sync::must_be_voter(tick, name);
    hands_over.eligible(answer, streams, synchronous).err()
}

/// Judges these answers as an operator's switchover would, without beginning one.
pub(super) fn judge(tick: &Tick<'_>, answers: &[(MemberName, PeerAnswer)]) -> Reply {
    if let Some(why) = tick.writes_refused() {
        return Reply::SwitchoverRefused(HandOverRefusal::WritesRefused { why: why.to_owned() });
    }
    let Some(sql) = tick.seen.postgres.answering() else {
        return Reply::SwitchoverRefused(HandOverRefusal::Silent);
    };
    let unfit = |(name, answer): &(MemberName, PeerAnswer)| {
        let unfit = to_take_over(tick, (name, answer), sql, false);
        unfit.map(|why| (name.clone(), why))
    };
    Reply::CandidatesJudged { unfit: answers.iter().filter_map(unfit).collect() }
}

/// Why `name` could not become leader after I give the leader key away.
pub(super) fn to_succeed(tick: &Tick<'_>, name: &MemberName, answer: &PeerAnswer) -> Option<Ineligible> {
    // A synchronous member has all acknowledged commits, so its lag does not matter.
    let by_lag = sync::vouching(tick).is_none();
    answer.eligible_standby().err().or_else(|| to_win(tick, name, answer, by_lag))
}

/// Why `name`, which may lead, would not win a race. `by_lag`: also when it lacks more WAL than may be lost.
pub(super) fn to_win(
    tick: &Tick<'_>,
    name: &MemberName,
    answer: &PeerAnswer,
    by_lag: bool,
) -> Option<Ineligible> {
    if answer.yields {
        return Some(Ineligible::Yields);
    }
    if !failsafe::may_lead(tick, name) {
        return Some(Ineligible::NotInFailsafe);
    }
    let bytes = lag::too_far_behind(tick, lag::shared_at_most(tick, answer)).filter(|_| by_lag);
    if let Some(bytes) = bytes {
        let limit = tick.seen.settings.maximum_lag_on_failover;
        return Some(Ineligible::TooFarBehind { bytes, limit });
    }
    let vouched = sync::may_lead(tick, name, (answer.timeline, answer.lsn));
    (!vouched).then_some(Ineligible::NotVouchedFor)
}
