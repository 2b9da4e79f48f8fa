//! The check that the candidate of a hand-over receives the last WAL of its leader.

use std::time::Duration;

use super::tick::Tick;
use crate::model::{HandOverRefusal, Lsn, MemberName, Moment, PeerAnswer, SqlFacts, gets_wal};

/// A candidate that lacks the shutdown checkpoint and receives no WAL for this long will not receive it: PostgreSQL
/// stops only after its walsenders have sent all WAL.
const RECEIVES_WITHIN: Duration = Duration::from_secs(2);

/// A candidate without an answer for this long after the stop is given up.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Whether WAL goes from here to this member now, directly or through the member that it replicates from.
pub(super) fn receives(
    tick: &Tick<'_>,
    name: &MemberName,
    answer: Option<&PeerAnswer>,
    sql: &SqlFacts,
) -> bool {
    let through = tick.others().find(|(other, _)| *other == name);
    let relayed = answer.is_some_and(|answer| answer.receives);
    let through = through.and_then(|(_, key)| key.record.tags.replicatefrom()).filter(|_| relayed);
    gets_wal(&sql.sync.streaming(), name, through.as_ref())
}

/// Why the candidate will not receive the shutdown checkpoint; `None` while it may. Records its position.
pub(super) fn stalls(
    tick: &mut Tick<'_>,
    to: &MemberName,
    checkpoint: Lsn,
    stopped_at: Moment,
) -> Option<HandOverRefusal> {
    let hand_over = tick.memory.hand_over.as_mut()?;
    let answer = tick.peers.get(to).filter(|answer| answer.reachable && stopped_at <= answer.asked_at);
    let Some(answer) = answer else {
        let why = || HandOverRefusal::CandidateSilent { to: to.clone(), seconds: ANSWERS_WITHIN.as_secs() };
        return (stopped_at + ANSWERS_WITHIN <= tick.now).then(why);
    };
    let (reached, at) = *hand_over.reached.get_or_insert((answer.lsn, stopped_at));
    if reached < answer.lsn {
        hand_over.reached = Some((answer.lsn, tick.now));
        return None;
    }
    let stalls = reached <= checkpoint && at + RECEIVES_WITHIN <= tick.now;
    stalls.then(|| HandOverRefusal::CandidateReceivesNothing { to: to.clone(), checkpoint })
}
