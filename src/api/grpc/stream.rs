//! A stream of messages, sent by a task.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tonic::{Response, Status};

/// The most messages that wait for the caller.
const AHEAD_MAX: usize = 4;
/// A caller that takes no message for this long loses the stream.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// The end that is returned to the caller.
pub(super) struct Messages<T>(mpsc::Receiver<Result<T, Status>>);

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// The end of the task that sends.
pub(super) struct MessageSender<T>(mpsc::Sender<Result<T, Status>>);

impl<T> MessageSender<T> {
    /// False: the caller is gone, or does not read.
    pub(super) async fn send(&self, message: T) -> bool {
        self.0.send_timeout(Ok(message), TAKEN_WITHIN).await.is_ok()
    }

    /// Ends the stream with a failure.
    pub(super) async fn fail(&self, status: Status) {
        // A caller that is gone need not know.
        let _ = self.0.send_timeout(Err(status), TAKEN_WITHIN).await;
    }

    /// Resolves when the caller is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A stream of what `work` sends.
pub(super) fn stream<T, F>(work: impl FnOnce(MessageSender<T>) -> F) -> Response<Messages<T>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    tokio::spawn(work(MessageSender(sender)));
    Response::new(Messages(receiver))
}
