//! The parts of the page again, whenever one has changed: server-sent events.
//!
//! Each stream has a task beside the loop, which draws the parts and sends those that differ from what it sent before.
//! The task ends with the stream, with the server, or when a client does not read.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::HEADERS;
use super::facts::UiFacts;
use super::page::PARTS;
use super::routes::{as_page, off};
use crate::api::ApiSetup;
use crate::api::answer::HttpAnswer;
use crate::api::dispatch::Routes;
use crate::api::request_limits::RequestClass;

/// The least time between two events: a change of leadership has many steps, and each is a new status.
const EVERY: Duration = Duration::from_secs(1);
/// A quiet stream sends a comment after this time, so that proxies and browsers know that it lives.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// A client that has not read for this time is given up.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// Whether the request is for the stream.
pub(in crate::api) fn is_stream<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/ui/events"
}

/// Begins a stream. `under_way` is kept until it ends.
pub(in crate::api) fn stream(
    routes: &Routes,
    setup: &ApiSetup,
    mut ending: watch::Receiver<bool>,
    under_way: impl Send + 'static,
) -> Result<Response<EventStream>, HttpAnswer> {
    if !setup.web_page {
        return Err(off());
    }
    let place = routes.place(RequestClass::Page).map_err(|refusal| as_page("Not now", refusal))?;
    let (sender, parts) = mpsc::channel(1);
    let ui = routes.ui.clone();
    routes.calls.spawn(async move {
        let _held = (place, under_way);
        tokio::select! {
            () = send(&ui, &sender) => {}
            () = sender.closed() => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    });
    let mut response = Response::new(EventStream(parts));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies would collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Sends what changes, until the client does not read or the loop has ended.
async fn send(ui: &UiFacts, sender: &mpsc::Sender<Bytes>) {
    let mut statuses = ui.handle.statuses();
    let mut sent: BTreeMap<&str, String> = BTreeMap::new();
    let mut spoke_at = Instant::now();
    loop {
        statuses.mark_unchanged();
        let mut text = String::new();
        let shown = ui.now().await;
        for part in &PARTS {
            let drawn = (part.draw)(&shown).into_string();
            if sent.get(part.id) != Some(&drawn) {
                text.push_str(&event(part.id, &drawn));
                sent.insert(part.id, drawn);
            }
        }
        if text.is_empty() && QUIET_MAX <= spoke_at.elapsed() {
            text.push_str(": all is as it was\n\n");
        }
        if !text.is_empty() {
            match tokio::time::timeout(READ_WITHIN, sender.send(text.into())).await {
                Ok(Ok(())) => spoke_at = Instant::now(),
                Ok(Err(_)) | Err(_) => return,
            }
        }
        tokio::time::sleep(EVERY).await;
        let quiet_until = spoke_at + QUIET_MAX;
        tokio::select! {
            changed = statuses.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(quiet_until) => {}
        }
    }
}

/// One event. Its data has a line for each line of the text, so no text can end it early.
fn event(name: &str, text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(|line| format!("data: {line}\n"));
    format!("event: {name}\n{}\n", lines.collect::<String>())
}

/// The body of a stream.
pub(in crate::api) struct EventStream(mpsc::Receiver<Bytes>);

impl Body for EventStream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_all_lines_of_its_text() {
        assert_eq!(event("state", "a\nb\rc"), "event: state\ndata: a\ndata: b\ndata: c\n\n");
        assert_eq!(event("lag", ""), "event: lag\ndata: \n\n");
    }
}
