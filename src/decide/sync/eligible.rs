//! The members that the key `sync` permits to lead.

use super::super::attach;
use super::super::position::{Position, comparable};
use super::super::tick::Tick;
use super::state::members;
use crate::model::{MemberName, PeerAnswer, SyncMode, SyncRecord};

/// The key `sync` where it decides which members may lead. It does not in a restored store that no leader has
/// confirmed.
pub(in crate::decide) fn vouching<'a>(tick: &Tick<'a>) -> Option<&'a SyncRecord> {
    let unsettled = tick.is_unsettled();
    tick.sync_record().filter(|_| !unsettled)
}

/// Whether `who` at `position` certainly has every acknowledged commit; true where nothing is promised.
///
/// The leader of the key has, and in mode on each of the voters. In mode quorum a member also has if it is at least as
/// far as `quorum` other members of the promise: they and it together include one with all commits.
pub(in crate::decide) fn may_lead(tick: &Tick<'_>, who: &MemberName, position: Position) -> bool {
    let Some(record) = vouching(tick) else { return true };
    if record.is_leader(who) {
        return true;
    }
    // A key that was written in mode quorum keeps its meaning, whatever the mode is now.
    let needed = record.quorum + usize::from(!record.is_voter(who));
    let on = tick.seen.settings.sync.mode == SyncMode::On;
    (!on || record.is_voter(who)) && needed <= not_ahead(tick, record, who, position)
}

/// The number of other members of the promise that are certainly no further than `position`, and stay so.
fn not_ahead(tick: &Tick<'_>, record: &SyncRecord, who: &MemberName, position: Position) -> usize {
    let behind = |name: &&MemberName| {
        let answer = tick.answer_of(name).filter(|answer| answer.reachable && answer.exact);
        answer.is_some_and(|answer| {
            // WAL that arrives after the answer may be acknowledged: members I count on must have disconnected from the
            // old primary.
            let still = *who != tick.seen.me.name || !answer.receives;
            still && is_no_further(answer, position)
        })
    };
    members(record).into_iter().filter(|name| !name.is_same(who)).filter(behind).count()
}

fn is_no_further(answer: &PeerAnswer, position: Position) -> bool {
    let known = answer.lsn.is_known() && answer.timeline.is_some() && position.0.is_some();
    known && comparable((answer.timeline, answer.lsn)) <= comparable(position)
}

/// Whether the position of `member` matters when a leader is chosen. The former leader's does not: it may be ahead, but
/// not by acknowledged commits.
pub(in crate::decide) fn counts(tick: &Tick<'_>, member: &MemberName) -> bool {
    vouching(tick).is_none_or(|record| record.is_voter(member))
}

/// No member leads. A former primary that still runs must not get another commit confirmed by a standby that has
/// already reported its position. So standbys disconnect from it first. Where each of them has all commits by itself,
/// no member is asked and none has to disconnect.
pub(in crate::decide) fn let_go(tick: &mut Tick<'_>) {
    let unsettled = tick.is_unsettled();
    let asked = unsettled || tick.sync_record().is_some_and(|record| record.quorum > 0);
    if asked && !tick.seen.settings.pause {
        attach::let_go(tick);
    }
}

/// Whether a planned hand-over to `member` is impossible: in mode on, unless it is a voter.
pub(in crate::decide) fn must_be_voter(tick: &Tick<'_>, member: &MemberName) -> bool {
    tick.seen.settings.sync.mode == SyncMode::On
        && tick.sync_record().is_some_and(|record| !record.is_voter(member))
}
