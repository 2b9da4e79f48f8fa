//! The eligibility of other members to lead, judged by their answers.

use super::turn::Turn;
use super::{lag, streaming, sync};
use crate::model::{HandingOver, Ineligible, MemberName, PeerAnswer, SqlFacts};

/// Why `name` cannot take over what I hand over; `None` when it can, or was not asked.
pub(super) fn to_take_over(turn: &Turn<'_>, name: &MemberName, sql: &SqlFacts) -> Option<Ineligible> {
    let hands_over = HandingOver {
        leader: &turn.seen.me.name,
        lsn: sql.lsn(),
        timeline: sql.timeline,
        limit: turn.seen.settings.maximum_lag_on_failover,
    };
    let (streams, synchronous) = (streaming::receives(turn, name, sql), !sync::must_be_voter(turn, name));
    hands_over.eligible(turn.peers.get(name)?, streams, synchronous).err()
}

/// Why `name` could not come to lead when I give the leader key away.
pub(super) fn to_succeed(turn: &Turn<'_>, name: &MemberName, answer: &PeerAnswer) -> Option<Ineligible> {
    // Who is vouched for holds what counts, however much was not acknowledged.
    let by_lag = sync::vouching(turn).is_none();
    answer.eligible_standby().err().or_else(|| to_win(turn, name, answer, by_lag))
}

/// Why `name`, which may lead, would not win a race; `by_lag`: also when it lacks more than may be lost.
pub(super) fn to_win(
    turn: &Turn<'_>,
    name: &MemberName,
    answer: &PeerAnswer,
    by_lag: bool,
) -> Option<Ineligible> {
    if answer.yields {
        return Some(Ineligible::Yields);
    }
    let bytes = lag::too_far_behind(turn, lag::shared_at_most(turn, answer)).filter(|_| by_lag);
    if let Some(bytes) = bytes {
        let limit = turn.seen.settings.maximum_lag_on_failover;
        return Some(Ineligible::TooFarBehind { bytes, limit });
    }
    let vouched = sync::may_lead(turn, name, (answer.timeline, answer.lsn));
    (!vouched).then_some(Ineligible::NotVouchedFor)
}
