//! Connections with HTTP/2: the same routes as with HTTP/1, and gRPC.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Either;
use hyper::Request;
use hyper::body::{Buf, Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tonic::body::Body as CallBody;

use super::grpc;
use super::http::Visit;
use super::request_limits::Connection;
use super::ui;

/// The most requests of one connection at once.
const REQUESTS_MAX: u32 = 64;
/// The interval between questions whether a client is still there, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The same for another member: a leader has to notice that the last member that heard it cannot be reached.
const PING_MEMBER_EVERY: Duration = Duration::from_millis(500);
const MEMBER_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// A connection without requests is closed after this time, with a notice, so that a client loses no request. It is
/// shorter than the time after which any connection that waits is closed.
const IDLE_MAX: Duration = Duration::from_secs(8);

/// Serves the connection, until the client, the server, or the limits for connections that wait end it.
pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, visit: Visit) {
    let (under_way, mut idle) = watch::channel(0);
    let Visit { caller, waits, routes, setup, mut ending } = visit;
    let pages_end = ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = UnderWay::begin(&under_way, &waits);
        let (routes, setup, ending) = (routes.clone(), setup.borrow().clone(), pages_end.clone());
        async move {
            let response = if ui::is_stream(&request) {
                match ui::stream(&routes, &setup, ending, under_way) {
                    Ok(stream) => stream.map(|stream| Either::Right(CallBody::new(stream))),
                    Err(refusal) => refusal.into_response(&setup).map(Either::Left),
                }
            } else if grpc::is_call(&request) {
                grpc::answer(routes, request, caller, setup, under_way).await.map(Either::Right)
            } else {
                let answer = routes.answer(request, caller, &setup).await;
                // Sending waits for the client, as every connection with HTTP/1 does.
                drop(under_way);
                answer.into_response(&setup).map(Either::Left)
            };
            Ok::<_, Infallible>(response)
        }
    });
    let (ping_every, answers_within) = match caller.is_member && !caller.is_local {
        true => (PING_MEMBER_EVERY, MEMBER_ANSWERS_WITHIN),
        false => (PING_EVERY, PING_EVERY),
    };
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ping_every)
            .keep_alive_timeout(answers_within)
            .max_concurrent_streams(REQUESTS_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let outcome = tokio::select! {
        outcome = &mut connection => Some(outcome),
        _ = ending.wait_for(|ending| *ending) => None,
        () = idle_too_long(&mut idle) => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::trace!(%error, "a connection to the REST interface broke");
    }
}

/// Resolves when no request has been under way for some time.
async fn idle_too_long(under_way: &mut watch::Receiver<usize>) {
    loop {
        let busy = async { under_way.wait_for(|number| *number > 0).await.is_ok() };
        let goes_on = match tokio::time::timeout(IDLE_MAX, busy).await {
            Err(_) => return,
            Ok(true) => under_way.wait_for(|number| *number == 0).await.is_ok(),
            Ok(false) => false,
        };
        if !goes_on {
            // The connection has ended.
            std::future::pending().await
        }
    }
}

/// A request under way, of the several that a connection may have: while there is one, the connection does not wait.
pub(super) struct UnderWay {
    number: watch::Sender<usize>,
    connection: Arc<Connection>,
}

impl UnderWay {
    fn begin(number: &watch::Sender<usize>, connection: &Arc<Connection>) -> UnderWay {
        number.send_modify(|number| {
            *number += 1;
            if *number == 1 {
                connection.answer();
            }
        });
        UnderWay { number: number.clone(), connection: connection.clone() }
    }
}

impl UnderWay {
    /// Does what waits for the client. Meanwhile the connection counts as one that waits.
    pub(super) async fn while_waiting<T>(self, work: impl Future<Output = T>) -> (T, UnderWay) {
        let (number, connection) = (self.number.clone(), self.connection.clone());
        drop(self);
        let done = work.await;
        (done, UnderWay::begin(&number, &connection))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.number.send_modify(|number| {
            *number -= 1;
            if *number == 0 {
                self.connection.wait();
            }
        });
    }
}

/// A stream whose first bytes have been read already.
pub(super) struct Resumed<S> {
    first: Bytes,
    stream: S,
}

impl<S> Resumed<S> {
    pub(super) fn new(first: Bytes, stream: S) -> Resumed<S> {
        Resumed { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Resumed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
