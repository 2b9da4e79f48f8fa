//! A thread that does one thing at a time, beside the loop: a disk or a server that hangs holds up this thread only.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::model::Moment;
use crate::os::clock;

/// No work takes longer, on a machine that does anything at all: each has deadlines, which a disk that hangs does not
/// keep.
const WORK_MAX: Duration = Duration::from_secs(15);

/// The way to the thread, which ends with the last clone.
#[derive(Clone)]
pub(super) struct SerialThread {
    queue: Arc<Mutex<Queue>>,
    bell: mpsc::UnboundedSender<()>,
    done: watch::Receiver<u64>,
}

/// What waits, in its order: at most one of each name.
#[derive(Default)]
struct Queue {
    last: u64,
    waiting: VecDeque<QueuedWork>,
    /// When the work under way began.
    began_at: Option<Moment>,
}

struct QueuedWork {
    number: u64,
    name: &'static str,
    cancelled: oneshot::Receiver<()>,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Cancels the work when it is dropped: at the latest point where it waits for something.
#[must_use]
pub(super) struct CancelOnDrop {
    _alive: Option<oneshot::Sender<()>>,
}

impl SerialThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(name: &str) -> io::Result<SerialThread> {
        let queue = Arc::new(Mutex::new(Queue::default()));
        let (bell, rung) = mpsc::unbounded_channel();
        let (told, done) = watch::channel(0);
        let (runtime, theirs) = (Handle::current(), Arc::clone(&queue));
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(work_off(&theirs, rung, &told)))?;
        Ok(SerialThread { queue, bell, done })
    }

    /// Hands over work that is done whatever becomes of the caller. It replaces work of the same name that has not
    /// begun.
    pub(super) fn run(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (alive, cancelled) = oneshot::channel();
        self.hand_over(name, cancelled, async move {
            let _alive = alive;
            work.await;
        });
    }

    /// The same, as long as the caller wants it.
    pub(super) fn run_wanted(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> CancelOnDrop {
        let (alive, cancelled) = oneshot::channel();
        self.hand_over(name, cancelled, work);
        CancelOnDrop { _alive: Some(alive) }
    }

    fn hand_over(
        &self,
        name: &'static str,
        cancelled: oneshot::Receiver<()>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut queue = locked(&self.queue);
        queue.last += 1;
        let number = queue.last;
        queue.waiting.retain(|waiting| waiting.name != name);
        queue.waiting.push_back(QueuedWork { number, name, cancelled, work: Box::pin(work) });
        drop(queue);
        // The thread lives as long as this sender, unless the work has panicked: nothing would be done any more.
        self.bell.send(()).expect("the thread works");
    }

    /// When the work under way should have been over; `None`: none is overdue.
    pub(super) fn overdue_since(&self, now: Moment) -> Option<Moment> {
        let due = locked(&self.queue).began_at? + WORK_MAX;
        (due < now).then_some(due)
    }

    /// Waits until all that was handed over so far is over.
    pub(super) fn idle(&self) -> impl Future<Output = ()> + Send + use<> {
        let (last, mut done) = (locked(&self.queue).last, self.done.clone());
        async move {
            // A thread that has gone does nothing more.
            let _ = done.wait_for(|done| last <= *done).await;
        }
    }
}

async fn work_off(queue: &Mutex<Queue>, mut rung: mpsc::UnboundedReceiver<()>, told: &watch::Sender<u64>) {
    while rung.recv().await.is_some() {
        // Work that was replaced has left its ring behind.
        let Some(next) = begin(queue) else { continue };
        tokio::select! {
            biased;
            _ = next.cancelled => {}
            () = next.work => {}
        }
        locked(queue).began_at = None;
        told.send_replace(next.number);
    }
}

fn begin(queue: &Mutex<Queue>) -> Option<QueuedWork> {
    let mut queue = locked(queue);
    let next = queue.waiting.pop_front()?;
    queue.began_at = Some(clock::now());
    Some(next)
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hanging_work_delays_only_later_work() {
        let thread = SerialThread::start("test").expect("there are threads");
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let (told, mut done) = mpsc::unbounded_channel();
        // It hangs without giving the thread back.
        thread.run("first", async move { hangs.recv().expect("the test releases it") });
        let before = thread.idle();
        for (name, text) in [("second", "replaced"), ("third", "third"), ("second", "second")] {
            let told = told.clone();
            thread.run(name, async move { told.send(text).expect("the test listens") });
        }
        let after = thread.idle();
        tokio::pin!(before);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut before).await.is_err());
        assert_eq!(thread.overdue_since(clock::now()), None);
        assert!(thread.overdue_since(clock::now() + WORK_MAX).is_some(), "it hangs");
        release.send(()).expect("it hangs");
        before.await;
        after.await;
        assert_eq!(thread.overdue_since(clock::now() + WORK_MAX), None);
        assert_eq!((done.try_recv(), done.try_recv()), (Ok("third"), Ok("second")));
        assert!(done.try_recv().is_err(), "one of each name");
    }

    #[tokio::test]
    async fn unwanted_work_ends() {
        let thread = SerialThread::start("test").expect("there are threads");
        let wanted = thread.run_wanted("look", std::future::pending());
        let never = tokio::time::timeout(Duration::from_millis(20), thread.idle());
        assert!(never.await.is_err());
        drop(wanted);
        thread.idle().await;
    }
}
