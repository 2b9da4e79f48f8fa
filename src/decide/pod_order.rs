//! The pod of a StatefulSet to which a leader hands over when its own pod ends.
//!
//! A rolling update ends the pods from the highest ordinal down. So the pods above the leader's are already updated,
//! and the lowest is ended last. Whether an update is under way need not be known: without one, each pod is as good as
//! another.

use std::cmp::Reverse;

use crate::model::MemberName;

/// The progress of a rolling update that ends the leader's pod, for another pod. The greater is the better candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Update {
    /// The update has not reached it. Updates go down in ordinals, so the lowest can lead for longest.
    Due(Reverse<u32>),
    /// The update is done with it.
    Done,
}

/// `None` where the names are not those of two pods of one StatefulSet.
pub(super) fn update(leader: &MemberName, other: &MemberName) -> Option<Update> {
    let ((set, leader), (other_set, other)) = (set_and_ordinal(leader)?, set_and_ordinal(other)?);
    let update = if leader < other { Update::Done } else { Update::Due(Reverse(other)) };
    (set == other_set).then_some(update)
}

/// A pod's name is that of its StatefulSet and an ordinal.
fn set_and_ordinal(name: &MemberName) -> Option<(&str, u32)> {
    let (set, ordinal) = name.as_str().rsplit_once('-')?;
    Some((set, ordinal.parse().ok()?))
}
