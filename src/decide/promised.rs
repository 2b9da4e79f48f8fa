//! etcd shows no leader, and a member goes on by promises, this one's among them: my standby stays behind it, or comes
//! behind it again after a restart. Its commits may wait for this.
//!
//! Following is no more than that: the promise keeps me from leading, and this changes nothing about it. A member that
//! was asked after me may have refused, and lead by now. So a source counts only while WAL comes from it. Otherwise it
//! is left, and taken again only after it has answered that it is a primary, with a history that has all that lies
//! here. Nor does a promise count that was made after the leader key was seen vacant: another member may lead by then
//! that has counted this one's answer that it receives nothing.

use super::attach::{self, AttachSource};
use super::history;
use super::memory::Following;
use super::tick::{PROMISED_TERM, Tick};
use crate::model::{Action, LeaderKey, Promise, WaitingOn};

/// Points a standby without a source at the member that it has promised. A standby whose source went silent has been
/// taken off it before.
pub(super) fn follow(tick: &mut Tick<'_>, promise: &Promise) {
    let leader = LeaderKey { name: promise.leader.clone(), lease: None, term: PROMISED_TERM };
    let has_source = !matches!(tick.memory.following, Some(Following::Nobody { .. }));
    let is_late = tick.memory.answers_since <= Some(promise.since);
    if has_source || is_late || tick.follow_target(&leader.name).is_none() {
        return;
    }
    let since = history::left_at(tick);
    let theirs = history::leader_branch_since(tick, &leader, since);
    tick.wake_in(history::ask_again_in(tick, &leader), WaitingOn::Leader);
    if let Some(theirs) = theirs
        && let AttachSource::Proved(target) = attach::source(tick, &leader, &theirs)
    {
        tick.act(Action::Follow(Some(target)));
    }
}
