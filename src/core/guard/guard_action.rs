//! What a guard's process is to do: a short list of fixed size, because a guard allocates nothing.

use super::{Deadlines, GuardAnswer};
use crate::model::Moment;

/// The longest list is that of the end of a kill and that of an order to arm.
const ACTIONS_MAX: usize = 4;

/// One deed. A driver carries the deeds of one step out in their order, and then only gives the next input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardAction<'a, T> {
    /// These are the processes to kill from now on; get hold of them while the system answers.
    TakeTarget(&'a T),
    /// The kernel is to kill a little after this moment, also while the guard itself is frozen.
    SetDeadManTimer(Moment),
    /// The kernel is to kill nobody.
    ClearDeadManTimer,
    /// The machine has until then; `None`: no watchdog is wanted.
    FeedWatchdog(Option<Moment>),
    /// Disarm the machine's watchdog.
    CloseWatchdog,
    /// Server processes come and go: let the dead-man timer know the present ones.
    FollowProcesses,
    /// There is time: go through what a kill needs, so that it stays in memory.
    WarmUp,
    /// SIGQUIT to the postmaster.
    Stop,
    /// SIGKILL to every process; what was found is the next input.
    Kill,
    /// One line in the log: everything is dead.
    Report {
        /// When it was to be stopped and killed.
        deadlines: Deadlines,
        /// The most processes that were found alive.
        killed: u32,
    },
    /// Tell the supervisor, if one is connected.
    Answer(GuardAnswer),
}

/// The deeds of one step, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardActions<'a, T>([Option<GuardAction<'a, T>>; ACTIONS_MAX]);

impl<'a, T: Copy> GuardActions<'a, T> {
    pub(super) fn none() -> GuardActions<'a, T> {
        GuardActions([const { None }; ACTIONS_MAX])
    }

    pub(super) fn add(&mut self, guard_action: GuardAction<'a, T>) {
        let free = self.0.iter_mut().find(|place| place.is_none());
        debug_assert!(free.is_some(), "more deeds than there is room for");
        if let Some(free) = free {
            *free = Some(guard_action);
        }
    }
}

impl<'a, T> IntoIterator for GuardActions<'a, T> {
    type Item = GuardAction<'a, T>;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<GuardAction<'a, T>>, ACTIONS_MAX>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}
