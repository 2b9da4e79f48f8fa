//! The actions of a guard's process: a short list of fixed size, because a guard allocates nothing.

use super::{Deadlines, GuardAnswer};
use crate::model::Moment;

/// The longest lists are those at the end of a kill and for an order to arm.
const ACTIONS_MAX: usize = 4;

/// One action. A driver performs the actions of one step in order before it gives the next input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardAction<'a, T> {
    /// These are the processes to kill from now on; open them while the system still responds.
    TakeTarget(&'a T),
    /// The kernel is to kill shortly after this moment, even while the guard itself is frozen.
    SetDeadManTimer(Moment),
    /// The kernel is to kill no process.
    ClearDeadManTimer,
    /// The watchdog resets the machine at this time; `None`: no watchdog is needed.
    FeedWatchdog(Option<Moment>),
    /// Disarm the machine's watchdog.
    CloseWatchdog,
    /// Update the dead-man timer: server processes start and end.
    FollowProcesses,
    /// Touch the memory and files that a kill needs, so that they stay in memory.
    WarmUp,
    /// SIGQUIT to the postmaster.
    Stop,
    /// SIGKILL to every process; the result is the next input.
    Kill,
    /// Write one line to the log: all processes are dead.
    Report {
        /// The deadlines.
        deadlines: Deadlines,
        /// The highest number of processes that were found alive.
        killed: u32,
    },
    /// Answer the supervisor, if one is connected.
    Answer(GuardAnswer),
}

/// The actions of one step, in order.
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
