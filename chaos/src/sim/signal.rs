//! The primitives that tasks wait on: a signal, and a reply.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use super::executor::{Executor, TaskId};

/// Something that tasks wait for. It wakes them; what has changed they see for themselves.
#[derive(Clone, Default)]
pub(crate) struct Signal(Rc<WakeSignal>);

#[derive(Default)]
struct WakeSignal {
    given: Cell<u64>,
    waiting: RefCell<Vec<TaskId>>,
}

impl Signal {
    /// Wakes all that wait.
    pub(crate) fn give(&self, executor: &Executor) {
        self.0.given.set(self.0.given.get() + 1);
        let waiting = std::mem::take(&mut *self.0.waiting.borrow_mut());
        for task in waiting {
            let late = executor.rng(|rng| rng.micros(1, 40));
            executor.wake_at(task, executor.now() + late);
        }
    }

    /// Waits for the next one.
    pub(crate) async fn wait(&self, executor: &Executor) {
        let given = self.0.given.get();
        std::future::poll_fn(|_| {
            if self.0.given.get() != given {
                return Poll::Ready(());
            }
            if let Some(task) = executor.current() {
                let mut waiting = self.0.waiting.borrow_mut();
                if !waiting.contains(&task) {
                    waiting.push(task);
                }
            }
            Poll::Pending
        })
        .await;
    }
}

/// An answer that is still to come.
pub(crate) struct Reply<T>(Rc<RefCell<Option<T>>>, Signal);

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Reply<T> {
        Reply(self.0.clone(), self.1.clone())
    }
}

impl<T> Reply<T> {
    pub(crate) fn new() -> Reply<T> {
        Reply(Rc::default(), Signal::default())
    }

    pub(crate) fn fill(&self, executor: &Executor, value: T) {
        *self.0.borrow_mut() = Some(value);
        self.1.give(executor);
    }

    /// Waits for it; for ever, if it was lost.
    pub(crate) async fn wait(&self, executor: &Executor) -> T {
        loop {
            let value = self.0.borrow_mut().take();
            match value {
                Some(value) => return value,
                None => self.1.wait(executor).await,
            }
        }
    }
}
