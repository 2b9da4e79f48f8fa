//! Reasons why `run` could not begin, or ended.

use std::io;
use std::path::PathBuf;

use crate::agent::AgentError;
use crate::api::ApiError;
use crate::os::tls::TlsError;

/// Why `run` could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// PostgreSQL refuses to run as root, and there is no other user.
    #[error(
        "PostgreSQL does not run as root, and there is no user `{user}` to become: create one, or start this as the \
         user that shall own {data_dir}"
    )]
    Root {
        /// The expected user.
        user: &'static str,
        /// The data directory of the configuration.
        data_dir: PathBuf,
    },
    /// PostgreSQL's programs are missing or of an unsupported version.
    #[error("{0}")]
    Programs(String),
    /// The data directory was made by another major version.
    #[error("{0}")]
    OtherVersion(String),
    /// The directory beside the data directory is not writable.
    #[error("{why}: {expected}")]
    BesideData {
        /// The fault.
        why: String,
        /// The remedy.
        expected: String,
    },
    /// The REST interface cannot listen.
    #[error("cannot serve REST")]
    Api(#[source] ApiError),
    /// The certificates of the REST interface cannot be used.
    #[error("cannot use the certificates of the REST interface")]
    Certificates(#[source] TlsError),
    /// The member failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The operating system refused an operation.
    #[error("{what}")]
    System {
        /// The operation.
        what: String,
        /// The error.
        #[source]
        source: io::Error,
    },
}

pub(super) fn system(what: &str, source: io::Error) -> RunError {
    RunError::System { what: format!("cannot {what}"), source }
}
