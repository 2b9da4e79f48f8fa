//! The queue of a worker that does one thing at a time: what waits, and what is under way. The agent's threads and
//! the simulation's tasks take their work from it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{JobKind, Moment};

/// No work takes longer, on a machine that does anything at all: each has deadlines, which a disk that hangs does not
/// keep.
pub const WORK_MAX: Duration = Duration::from_secs(15);

/// What waits, in its order: at most one of each name.
pub struct WorkQueue<W> {
    /// The number of the newest.
    newest: u64,
    /// The number of the last one that is over.
    over: u64,
    waiting: VecDeque<QueuedWork<W>>,
    under_way: Option<StartedWork>,
}

struct QueuedWork<W> {
    number: u64,
    name: &'static str,
    work: W,
}

struct StartedWork {
    number: u64,
    began_at: Moment,
}

impl<W> Default for WorkQueue<W> {
    fn default() -> WorkQueue<W> {
        WorkQueue { newest: 0, over: 0, waiting: VecDeque::new(), under_way: None }
    }
}

impl<W> WorkQueue<W> {
    /// Takes in work. It replaces work of the same name that has not begun.
    pub fn push(&mut self, name: &'static str, work: W) {
        self.newest += 1;
        self.waiting.retain(|waiting| waiting.name != name);
        self.waiting.push_back(QueuedWork { number: self.newest, name, work });
    }

    /// What the worker does next, unless something is under way.
    pub fn begin(&mut self, now: Moment) -> Option<W> {
        if self.under_way.is_some() {
            return None;
        }
        let QueuedWork { number, work, .. } = self.waiting.pop_front()?;
        self.under_way = Some(StartedWork { number, began_at: now });
        Some(work)
    }

    /// What was under way is over.
    pub fn end(&mut self) {
        if let Some(ended) = self.under_way.take() {
            self.over = ended.number;
        }
    }

    /// The number of the newest work that was taken in.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The number of the last work that is over. What has a lower number is over, or was replaced.
    pub fn over(&self) -> u64 {
        self.over
    }

    /// When the work under way should have been over; `None`: none is overdue.
    pub fn overdue_since(&self, now: Moment) -> Option<Moment> {
        let due = self.under_way.as_ref()?.began_at + WORK_MAX;
        (due < now).then_some(due)
    }
}

/// Whether the statements that were decided before a long action have to be over when it begins: both would write the
/// same files, or the action rests on them. Nothing delays a stop or the leader key.
pub fn needs_statements(job: JobKind) -> bool {
    match job {
        JobKind::Bootstrap
        | JobKind::Clone
        | JobKind::UndoClone
        | JobKind::StartStandby
        | JobKind::StartPrimary
        | JobKind::Checkpoint
        | JobKind::PrePromote
        | JobKind::Promote
        | JobKind::CrashRecovery
        | JobKind::Rewind
        | JobKind::CheckpointAfterPromotion => true,
        JobKind::Stop
        | JobKind::TakeLeadership
        | JobKind::HandOver
        | JobKind::ReleaseLeadership
        | JobKind::ReclaimLeadership => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(queue: &mut WorkQueue<&'static str>) -> Option<&'static str> {
        queue.begin(Moment::default())
    }

    #[test]
    fn work_is_done_in_order_and_what_has_not_begun_is_replaced() {
        let mut queue = WorkQueue::default();
        queue.push("follow", "b");
        assert_eq!(began(&mut queue), Some("b"));
        for (name, work) in [("follow", "c"), ("slots", "more"), ("follow", "d")] {
            queue.push(name, work);
        }
        let newest = queue.newest();
        assert_eq!((began(&mut queue), queue.over()), (None, 0), "one at a time");
        queue.end();
        assert_eq!((began(&mut queue), queue.over() < newest), (Some("more"), true));
        queue.end();
        assert_eq!(began(&mut queue), Some("d"));
        queue.end();
        assert_eq!((began(&mut queue), queue.over()), (None, newest));
    }

    #[test]
    fn only_work_under_way_is_overdue() {
        let (mut queue, now) = (WorkQueue::default(), Moment::from_millis(1_000));
        let late = now + WORK_MAX + Duration::from_millis(1);
        queue.push("look", ());
        assert_eq!(queue.overdue_since(late), None);
        queue.begin(now);
        assert_eq!(queue.overdue_since(now + WORK_MAX), None);
        assert_eq!(queue.overdue_since(late), Some(now + WORK_MAX));
        queue.end();
        assert_eq!(queue.overdue_since(late), None);
    }
}
