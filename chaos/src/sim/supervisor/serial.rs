//! A task that does one thing at a time beside the loop: a driver of the product's own queue, as
//! `src/agent/serial.rs` is one. It dies and is frozen with its supervisor.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use matriarch::core::work_queue::WorkQueue;
use matriarch::model::Moment;

use super::Agent;
use crate::sim::executor::Executor;
use crate::sim::signal::Signal;

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The way to the task; clones share it.
#[derive(Clone)]
pub(crate) struct SerialTask {
    agent: Agent,
    queue: Rc<RefCell<WorkQueue<SerialWork>>>,
    bell: Signal,
    done: Signal,
}

struct SerialWork {
    cancellation: Cancellation,
    work: Work,
}

/// That nobody wants a work any more.
#[derive(Clone, Default)]
struct Cancellation {
    cancelled: Rc<Cell<bool>>,
    bell: Signal,
}

/// Cancels the work when it is dropped, at the point where it waits.
pub(crate) struct CancelOnDrop {
    cancellation: Cancellation,
    exec: Executor,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.cancellation.cancelled.set(true);
        self.cancellation.bell.give(&self.exec);
    }
}

impl SerialTask {
    pub(super) fn start(agent: &Agent) -> SerialTask {
        let task = SerialTask {
            agent: agent.clone(),
            queue: Rc::default(),
            bell: Signal::default(),
            done: Signal::default(),
        };
        let worker = task.clone();
        agent.spawn(async move { worker.work_off().await });
        task
    }

    /// Hands over work that is done whatever becomes of the caller.
    pub(super) fn run(&self, name: &'static str, work: impl Future<Output = ()> + 'static) {
        self.hand_over(name, Cancellation::default(), Box::pin(work));
    }

    /// The same, as long as the caller wants it.
    pub(super) fn run_wanted(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + 'static,
    ) -> CancelOnDrop {
        let cancellation = Cancellation::default();
        self.hand_over(name, cancellation.clone(), Box::pin(work));
        CancelOnDrop { cancellation, exec: self.agent.sim.exec.clone() }
    }

    fn hand_over(&self, name: &'static str, cancellation: Cancellation, work: Work) {
        self.queue.borrow_mut().push(name, SerialWork { cancellation, work });
        self.bell.give(&self.agent.sim.exec);
    }

    pub(super) fn overdue_since(&self, now: Moment) -> Option<Moment> {
        self.queue.borrow().overdue_since(now)
    }

    /// Waits until all that was handed over so far is over.
    pub(super) fn idle(&self) -> impl Future<Output = ()> + use<> {
        let (newest, task) = (self.queue.borrow().newest(), self.clone());
        async move {
            while task.queue.borrow().over() < newest {
                task.done.wait(&task.agent.sim.exec).await;
            }
        }
    }

    async fn work_off(self) {
        let exec = self.agent.sim.exec.clone();
        loop {
            let now = self.agent.now();
            let next = self.queue.borrow_mut().begin(now);
            let Some(SerialWork { cancellation, work }) = next else {
                self.bell.wait(&exec).await;
                continue;
            };
            unless_cancelled(&exec, &cancellation, work).await;
            self.queue.borrow_mut().end();
            self.done.give(&exec);
        }
    }
}

async fn unless_cancelled(exec: &Executor, cancellation: &Cancellation, mut work: Work) {
    let mut cancelled = std::pin::pin!(async {
        while !cancellation.cancelled.get() {
            cancellation.bell.wait(exec).await;
        }
    });
    std::future::poll_fn(|context| match cancelled.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => work.as_mut().poll(context),
    })
    .await;
}
