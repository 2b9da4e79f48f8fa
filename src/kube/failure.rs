//! Failures of Kubernetes API requests: a closed list of kinds, each with the API's message.

use std::time::Duration;

use crate::model::{PodFailure, Term};
use crate::os::error_chain::ErrorChain;

/// Longer answers are truncated.
const TEXT_MAX: usize = 200;

/// One failed request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct KubeFailure {
    pub(super) kind: PodFailure,
    pub(super) text: String,
    /// The pause that the server asked for.
    pub(super) retry_after: Option<Duration>,
}

impl KubeFailure {
    pub(super) fn new(kind: PodFailure, text: impl Into<String>) -> KubeFailure {
        KubeFailure { kind, text: text.into(), retry_after: None }
    }

    /// The failure for an answer with an error status.
    pub(super) fn refused(status: u16, retry_after: Option<Duration>, body: &[u8]) -> KubeFailure {
        let kind = match status {
            401 => PodFailure::Unauthorized,
            403 => PodFailure::Forbidden,
            404 => PodFailure::NotFound,
            409 => PodFailure::Conflict,
            410 => PodFailure::Gone,
            429 => PodFailure::TooMany,
            500..=599 => PodFailure::Server,
            _ => PodFailure::Other,
        };
        let told: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let told = told.as_ref().and_then(|told| told.get("message")?.as_str().map(str::to_owned));
        let told = told.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
        let told: String = told.chars().take(TEXT_MAX).collect();
        KubeFailure {
            retry_after,
            ..KubeFailure::new(kind, format!("the API server answered {status}: {told}"))
        }
    }

    pub(super) fn silent(within: Duration) -> KubeFailure {
        KubeFailure::new(
            PodFailure::Silent,
            format!("no answer of the API server within {} ms", within.as_millis()),
        )
    }

    /// Another pod, my own pod, or a slice was written by a leader of a later term.
    pub(super) fn newer_term(what: &str, found: Term, mine: Term) -> KubeFailure {
        let text = format!("{what} was written in term {found}, and I lead in term {mine}");
        KubeFailure::new(PodFailure::NewerTerm, text)
    }
}

impl From<kube::Error> for KubeFailure {
    fn from(error: kube::Error) -> KubeFailure {
        if let kube::Error::Api(status) = &error {
            return KubeFailure::refused(status.code, None, status.message.as_bytes());
        }
        let text: String = error.chain().chars().take(TEXT_MAX).collect();
        KubeFailure::new(PodFailure::Unreachable, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_servers_message() {
        let failure = KubeFailure::refused(403, None, br#"{"kind":"Status","message":"pods is forbidden"}"#);
        assert_eq!(failure.kind, PodFailure::Forbidden);
        assert_eq!(failure.text, "the API server answered 403: pods is forbidden");
        assert_eq!(
            KubeFailure::refused(429, None, b"too many\n").text,
            "the API server answered 429: too many"
        );
        assert_eq!(KubeFailure::refused(503, None, b"").kind, PodFailure::Server);
    }
}
