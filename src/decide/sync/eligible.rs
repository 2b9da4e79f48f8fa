//! The members that the key `sync` permits to lead.

use super::super::attach;
use super::super::position::{Position, comparable};
use super::super::tick::Tick;
use super::state::members;
use crate::model::{MemberName, PeerAnswer, SyncMode, SyncRecord};

/// The key `sync`, where it says who may lead: not in a store that went back in time, before a leader has confirmed it.
pub(in crate::decide) fn vouching<'a>(tick: &Tick<'a>) -> Option<&'a SyncRecord> {
    let unsettled = tick.is_unsettled();
    tick.sync_record().filter(|_| !unsettled)
}

/// Whether `who`, who is this far, holds every acknowledged commit by all that is known; true where nothing is
/// promised.
///
/// The leader of the key does, and in mode on each of the voters. In mode quorum so does whoever is at least as far as
/// `quorum` other members of the promise: among them and itself one holds everything.
pub(in crate::decide) fn may_lead(tick: &Tick<'_>, who: &MemberName, position: Position) -> bool {
    let Some(record) = vouching(tick) else { return true };
    if record.is_leader(who) {
        return true;
    }
    // A key that was written in mode quorum counts as it was meant, whatever the mode is now.
    let needed = record.quorum + usize::from(!record.is_voter(who));
    let on = tick.seen.settings.sync.mode == SyncMode::On;
    (!on || record.is_voter(who)) && needed <= not_ahead(tick, record, who, position)
}

/// How many other members of the promise are known to be no further than `position`, and to stay so.
fn not_ahead(tick: &Tick<'_>, record: &SyncRecord, who: &MemberName, position: Position) -> usize {
    let behind = |name: &&MemberName| {
        let answer = tick.answer_of(name).filter(|answer| answer.reachable && answer.exact);
        answer.is_some_and(|answer| {
            // What comes in after the answer may be acknowledged: whom I count on has let go of the old primary.
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

/// Whether `member` is one of those whose position matters when somebody has to be chosen. The former leader's
/// does not: it may be ahead, but of nothing that was acknowledged.
pub(in crate::decide) fn counts(tick: &Tick<'_>, member: &MemberName) -> bool {
    vouching(tick).is_none_or(|record| record.is_voter(member))
}

/// Nobody leads: a former primary that is still about must not get another commit confirmed by a standby that was asked
/// how far it is. So standbys let go of it first. Where each of them holds everything by itself nobody is asked.
pub(in crate::decide) fn let_go(tick: &mut Tick<'_>) {
    let unsettled = tick.is_unsettled();
    let asked = unsettled || tick.sync_record().is_some_and(|record| record.quorum > 0);
    if asked && !tick.seen.settings.pause {
        attach::let_go(tick);
    }
}

/// True if a planned hand-over to `member` is out: in mode on, for anyone who is no voter.
pub(in crate::decide) fn must_be_voter(tick: &Tick<'_>, member: &MemberName) -> bool {
    tick.seen.settings.sync.mode == SyncMode::On
        && tick.sync_record().is_some_and(|record| !record.is_voter(member))
}
