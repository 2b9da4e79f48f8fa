//! Whom the key `sync` vouches for.

use super::super::race::comparable;
use super::super::turn::Turn;
use super::state::members;
use crate::model::{Lsn, MemberName, SyncMode, SyncRecord, Timeline};

/// How far a member is: its timeline first, because what it wrote came after the fork.
pub(in crate::decide) type Position = (Option<Timeline>, Lsn);

/// Whether `who`, who is this far, holds every acknowledged commit by all that is known; true where nothing is
/// promised.
///
/// The leader of the key does, and in mode on each of the voters. In mode quorum so does whoever is at least as far as
/// `quorum` other members of the promise: among them and itself one holds everything.
pub(in crate::decide) fn may_lead(turn: &Turn<'_>, who: &MemberName, position: Position) -> bool {
    let Some(record) = turn.sync_record() else { return true };
    if record.is_leader(who) {
        return true;
    }
    // A key that was written in mode quorum counts as it was meant, whatever the mode is now.
    let needed = record.quorum + usize::from(!record.is_voter(who));
    let on = turn.seen.settings.sync.mode == SyncMode::On;
    (!on || record.is_voter(who)) && needed <= not_ahead(turn, record, who, position)
}

/// How many other members of the promise are known to be no further than `position`.
fn not_ahead(turn: &Turn<'_>, record: &SyncRecord, who: &MemberName, position: Position) -> usize {
    let behind = |name: &&MemberName| {
        let answer = turn.seen.peers.iter().find(|(peer, _)| peer.is_same(name)).map(|(_, answer)| answer);
        answer.is_some_and(|answer| {
            let lately = turn.is_answer_of_now(answer);
            let theirs = (answer.timeline, answer.lsn);
            lately && answer.reachable && answer.lsn.is_known() && comparable(theirs) <= comparable(position)
        })
    };
    members(record).into_iter().filter(|name| !name.is_same(who)).filter(behind).count()
}

/// Whether `member` is one of those whose position matters when somebody has to be chosen. The former leader's
/// does not: it may be ahead, but of nothing that was acknowledged.
pub(in crate::decide) fn counts(turn: &Turn<'_>, member: &MemberName) -> bool {
    turn.sync_record().is_none_or(|record| record.is_voter(member))
}

/// True if a planned hand-over to `member` is out: in mode on, for anyone who is no voter.
pub(in crate::decide) fn must_be_voter(turn: &Turn<'_>, member: &MemberName) -> bool {
    turn.seen.settings.sync.mode == SyncMode::On
        && turn.sync_record().is_some_and(|record| !record.is_voter(member))
}
