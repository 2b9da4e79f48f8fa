//! The answer to one request, before it becomes bytes.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::ApiSetup;
use super::request_limits::RequestClass;
use crate::agent::OrderError;
use crate::model::{Lsn, OperationId, json_spaced};

/// The most warnings in one answer: clients limit the length of headers.
const WARNINGS_MAX: usize = 8;

/// Status, headers and body. A handler returns it; a refusal is an `Err` with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    /// `None`: a status line only.
    kind: Option<&'static str>,
    pub(super) body: Bytes,
    extra: Option<(&'static str, String)>,
    /// Headers of every answer of its kind.
    fixed: &'static [(&'static str, &'static str)],
}

impl HttpAnswer {
    /// Only a status.
    pub(super) fn bare(status: u16) -> HttpAnswer {
        HttpAnswer { status, kind: None, body: Bytes::new(), extra: None, fixed: &[] }
    }

    /// A JSON body.
    pub(super) fn json(status: u16, value: &Value) -> HttpAnswer {
        HttpAnswer::written_json(status, json_spaced(value).into())
    }

    /// A JSON body that has been written before.
    pub(super) fn written_json(status: u16, body: Bytes) -> HttpAnswer {
        HttpAnswer { kind: Some("application/json"), body, ..HttpAnswer::bare(status) }
    }

    /// A sentence for people.
    pub(super) fn text(status: u16, text: impl Into<String>) -> HttpAnswer {
        HttpAnswer { kind: Some("text/html"), body: text.into().into(), ..HttpAnswer::bare(status) }
    }

    /// A body of this type, with headers that no setting replaces.
    pub(super) fn fixed(
        kind: &'static str,
        body: impl Into<Bytes>,
        fixed: &'static [(&'static str, &'static str)],
    ) -> HttpAnswer {
        HttpAnswer { kind: Some(kind), body: body.into(), fixed, ..HttpAnswer::bare(200) }
    }

    /// This answer's status and own header, with the rest of another one.
    pub(super) fn shown_as(self, other: HttpAnswer) -> HttpAnswer {
        HttpAnswer { status: self.status, extra: self.extra, ..other }
    }

    /// The Prometheus text format.
    pub(super) fn metrics(text: String) -> HttpAnswer {
        HttpAnswer { kind: Some("text/plain"), body: text.into(), ..HttpAnswer::bare(200) }
    }

    /// 401 with the realm.
    pub(super) fn unauthorized(text: &str) -> HttpAnswer {
        let extra = Some(("www-authenticate", "Basic realm=\"Patroni\"".to_owned()));
        HttpAnswer { extra, ..HttpAnswer::text(401, text) }
    }

    /// The same answer with a position in a header, as leaders in failsafe mode read it.
    pub(super) fn with_position(self, lsn: Option<Lsn>) -> HttpAnswer {
        let extra = lsn.map(|lsn| ("lsn", lsn.0.to_string()));
        HttpAnswer { extra: extra.or(self.extra), ..self }
    }

    /// The same answer with the operation that it is about, in a header: the body is for old clients.
    pub(super) fn with_operation(self, operation: OperationId) -> HttpAnswer {
        HttpAnswer { extra: Some(("operation", operation.to_string())), ..self }
    }

    /// The same answer with warnings in a header: the body is for old clients.
    pub(super) fn warn(self, warnings: &[String]) -> HttpAnswer {
        let plain = |c: char| match c {
            '"' => '\'',
            c if c == ' ' || c.is_ascii_graphic() => c,
            _ => '?',
        };
        let warn = |text: &String| format!("299 - \"{}\"", text.chars().map(plain).collect::<String>());
        let mut lines: Vec<String> = warnings.iter().take(WARNINGS_MAX).map(warn).collect();
        if let more @ 1.. = warnings.len().saturating_sub(WARNINGS_MAX) {
            lines.push(warn(&format!("and {more} more, which the log names")));
        }
        let extra = (!lines.is_empty()).then(|| ("warning", lines.join(", ")));
        HttpAnswer { extra: extra.or(self.extra), ..self }
    }

    /// The page for a protocol error.
    pub(super) fn page(status: u16, message: &str, explanation: &str) -> HttpAnswer {
        let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let body = format!(
            "<!DOCTYPE HTML>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Error response</title></head>\n\
             <body>\n<h1>Error response</h1>\n<p>Error code: {status}</p>\n<p>Message: {message}.</p>\n\
             <p>Error code explanation: {status} - {explanation}.</p>\n</body>\n</html>\n"
        );
        HttpAnswer { kind: Some("text/html;charset=utf-8"), body: body.into(), ..HttpAnswer::bare(status) }
    }

    /// 501 with the text that old clients expect.
    pub(super) fn unsupported(method: &str) -> HttpAnswer {
        HttpAnswer::page(
            501,
            &format!("Unsupported method ('{method}')"),
            "Server does not support this operation",
        )
    }

    /// etcd or the loop failed.
    pub(super) fn unavailable(error: &OrderError) -> HttpAnswer {
        HttpAnswer::text(503, format!("not possible now: {error}"))
    }

    /// The loop does not answer at all.
    pub(super) fn stuck() -> HttpAnswer {
        HttpAnswer::text(503, "not possible now: the supervisor's loop does not answer")
    }

    /// All places of a class are taken.
    pub(super) fn too_many(class: RequestClass) -> HttpAnswer {
        HttpAnswer::text(503, format!("not possible now: too many {} at once, try again", class.words()))
    }

    /// The response, with the headers of `setup`.
    pub(super) fn into_response(self, setup: &ApiSetup) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let Some(kind) = self.kind else {
            return response;
        };
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static(setup.server_tokens.header()));
        for (name, value) in &setup.extra_headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in self.fixed {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if kind.starts_with("text/html") {
            // Patroni's clients expect this type for a sentence, which may repeat what was asked: no script in it runs.
            headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("sandbox"));
        }
        if let Some((name, value)) = self.extra.and_then(|(name, value)| Some((name, value.try_into().ok()?)))
        {
            headers.insert(HeaderName::from_static(name), value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_one_header_that_every_client_can_read() {
        let told = |warnings: &[String]| {
            let answer = HttpAnswer::text(200, "x").warn(warnings).into_response(&ApiSetup::default());
            answer.headers().get("warning").map(|value| value.to_str().expect("ASCII").to_owned())
        };
        assert_eq!(told(&[]), None);
        let said = told(&["a \"b\"\n\u{e4}".to_owned(), "c".to_owned()]);
        assert_eq!(said.as_deref(), Some("299 - \"a 'b'??\", 299 - \"c\""));
        let many = told(&vec!["x".to_owned(); 10]).expect("there");
        assert!(many.ends_with("299 - \"and 2 more, which the log names\""), "{many}");
    }
}
