//! A thread that does one thing at a time, beside the loop: a disk or a server that hangs holds up this thread only.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::work_queue::WorkQueue;
use crate::model::Moment;
use crate::os::clock;

/// The way to the thread, which ends with the last clone.
#[derive(Clone)]
pub(super) struct SerialThread {
    queue: Arc<Mutex<WorkQueue<SerialWork>>>,
    bell: mpsc::UnboundedSender<()>,
    done: watch::Receiver<u64>,
}

struct SerialWork {
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
        let queue = Arc::new(Mutex::new(WorkQueue::default()));
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
        locked(&self.queue).push(name, SerialWork { cancelled, work: Box::pin(work) });
        // The thread lives as long as this sender, unless the work has panicked: nothing would be done any more.
        self.bell.send(()).expect("the thread works");
    }

    /// When the work under way should have been over; `None`: none is overdue.
    pub(super) fn overdue_since(&self, now: Moment) -> Option<Moment> {
        locked(&self.queue).overdue_since(now)
    }

    /// Waits until all that was handed over so far is over.
    pub(super) fn idle(&self) -> impl Future<Output = ()> + Send + use<> {
        let (newest, mut done) = (locked(&self.queue).newest(), self.done.clone());
        async move {
            // A thread that has gone does nothing more.
            let _ = done.wait_for(|over| newest <= *over).await;
        }
    }
}

async fn work_off(
    queue: &Mutex<WorkQueue<SerialWork>>,
    mut rung: mpsc::UnboundedReceiver<()>,
    told: &watch::Sender<u64>,
) {
    while rung.recv().await.is_some() {
        // Work that was replaced has left its ring behind.
        let Some(next) = locked(queue).begin(clock::now()) else { continue };
        tokio::select! {
            biased;
            _ = next.cancelled => {}
            () = next.work => {}
        }
        let over = {
            let mut queue = locked(queue);
            queue.end();
            queue.over()
        };
        told.send_replace(over);
    }
}

fn locked(queue: &Mutex<WorkQueue<SerialWork>>) -> MutexGuard<'_, WorkQueue<SerialWork>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::work_queue::WORK_MAX;

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
