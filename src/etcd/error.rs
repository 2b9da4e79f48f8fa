//! Errors of etcd requests, and the conclusions that each error permits.

use std::time::Duration;

use etcd_client::Error;

use crate::core::store::{CorruptKey, WriteError};

/// Why a request to etcd gave no valid answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// The user name, password or certificate was refused; waiting does not help.
    #[error("etcd refused the credentials: {0}")]
    Authentication(String),
    /// Certain: the lease in the request does not exist, and nothing was written.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// Certain: etcd refuses writes because its database has reached its size limit (alarm NOSPACE), and this one was
    /// not done. Reads, renewals, revocations and deletions still work.
    #[error("etcd refuses writes: {0}")]
    NoSpace(String),
    /// No endpoint answered properly. A write may or may not have happened; a read shows which.
    #[error("the result is unknown: {0}")]
    Unknown(String),
    /// No endpoint answered in time. A write may or may not have happened; a read shows which.
    #[error("no answer from etcd within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The value of a key is unusable.
    #[error(transparent)]
    Corrupt(#[from] CorruptKey),
    /// The setup itself cannot work: an unreadable certificate, a malformed address.
    #[error("the etcd settings are wrong: {0}")]
    Setup(String),
}

impl EtcdError {
    /// Whether another endpoint can change neither this answer nor the result of an earlier request.
    pub(super) fn is_definite(&self) -> bool {
        match self {
            EtcdError::LeaseNotFound | EtcdError::Corrupt(_) => true,
            EtcdError::Authentication(_)
            | EtcdError::NoSpace(_)
            | EtcdError::Unknown(_)
            | EtcdError::Timeout(_)
            | EtcdError::Setup(_) => false,
        }
    }

    /// The result of the answers of two endpoints: a refusal only if both refuse for the same reason. A member that
    /// lags may not know a user yet, and another endpoint may have done what one refused.
    pub(super) fn and(self, other: EtcdError) -> EtcdError {
        match (self, other) {
            (EtcdError::Authentication(_), EtcdError::Authentication(text)) => {
                EtcdError::Authentication(text)
            }
            (EtcdError::NoSpace(_), EtcdError::NoSpace(text)) => EtcdError::NoSpace(text),
            (EtcdError::Setup(_), EtcdError::Setup(text)) => EtcdError::Setup(text),
            (EtcdError::Unknown(one), EtcdError::Unknown(other)) if one == other => EtcdError::Unknown(one),
            (one, other) => EtcdError::Unknown(format!("{}; {}", one.in_short(), other.in_short())),
        }
    }

    fn in_short(&self) -> String {
        match self {
            EtcdError::Unknown(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl From<Error> for EtcdError {
    fn from(error: Error) -> EtcdError {
        let text = match &error {
            Error::GRpcStatus(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        let says = |part: &str| text.contains(part);
        if says("requested lease not found") || says("lease keep alive error: lease not found") {
            EtcdError::LeaseNotFound
        } else if says("database space exceeded") {
            EtcdError::NoSpace(text)
        } else if says("authentication failed") || says("permission denied") || needs_login(&error) {
            EtcdError::Authentication(text)
        } else if matches!(error, Error::InvalidUri(_) | Error::InvalidArgs(_)) {
            EtcdError::Setup(text)
        } else {
            EtcdError::Unknown(text)
        }
    }
}

impl From<EtcdError> for WriteError {
    fn from(error: EtcdError) -> WriteError {
        match error {
            EtcdError::LeaseNotFound => WriteError::LeaseNotFound,
            EtcdError::NoSpace(why) => WriteError::NoSpace(why),
            EtcdError::Authentication(_)
            | EtcdError::Unknown(_)
            | EtcdError::Timeout(_)
            | EtcdError::Corrupt(_)
            | EtcdError::Setup(_) => WriteError::Unknown(error.to_string()),
        }
    }
}

/// Whether etcd refused the request before processing it because the token is missing, expired or outdated: a new login
/// and a repetition are safe.
pub(super) fn needs_login(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    let text = status.message();
    ["invalid auth token", "user name is empty", "revision of auth store is old", "auth: token"]
        .iter()
        .any(|part| text.contains(part))
}

/// Whether authentication is switched off in etcd, so that a login is refused and unnecessary.
pub(super) fn auth_is_off(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> EtcdError {
        EtcdError::Authentication("etcdserver: invalid auth token".to_owned())
    }

    fn full() -> EtcdError {
        EtcdError::NoSpace("etcdserver: mvcc: database space exceeded".to_owned())
    }

    fn unknown(text: &str) -> EtcdError {
        EtcdError::Unknown(text.to_owned())
    }

    #[test]
    fn a_refusal_counts_only_if_all_endpoints_refuse() {
        assert_eq!(refused().and(refused()), refused());
        assert_eq!(full().and(full()), full());
        let mixed = unknown("connection refused").and(refused());
        let text = "connection refused; etcd refused the credentials: etcdserver: invalid auth token";
        assert_eq!(mixed, unknown(text));
        assert!(matches!(EtcdError::Timeout(Duration::from_secs(1)).and(full()), EtcdError::Unknown(_)));
        assert_eq!(unknown("no leader").and(unknown("no leader")), unknown("no leader"));
    }
}
