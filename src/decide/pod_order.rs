//! To which pod of a StatefulSet a leader that ends hands over. A rolling update ends the pods from the highest
//! ordinal down, so that those above the leader's have been updated, and the lowest is ended last. Whether an update is
//! under way need not be known: otherwise one is as good as another.

use std::cmp::Reverse;

use crate::model::MemberName;

/// What a rolling update that ends the leader's pod has to do with another pod. The greater is the better candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Update {
    /// It is still to come, in the order of the ordinals: the lowest leads for longest.
    Due(Reverse<u32>),
    /// It has been here.
    Done,
}

/// `None` where the two are not pods of one StatefulSet, by their names.
pub(super) fn update(leader: &MemberName, other: &MemberName) -> Option<Update> {
    let ((set, leader), (other_set, other)) = (set_and_ordinal(leader)?, set_and_ordinal(other)?);
    let update = if leader < other { Update::Done } else { Update::Due(Reverse(other)) };
    (set == other_set).then_some(update)
}

/// The name of a pod is that of its StatefulSet and an ordinal.
fn set_and_ordinal(name: &MemberName) -> Option<(&str, u32)> {
    let (set, ordinal) = name.as_str().rsplit_once('-')?;
    Some((set, ordinal.parse().ok()?))
}
