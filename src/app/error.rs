//! Why `run` could not begin, or ended.

use std::io;
use std::path::PathBuf;

use crate::agent::AgentError;
use crate::api::ApiError;
use crate::os::tls::TlsError;

/// Why `run` could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// PostgreSQL refuses to run as root, and there is no other user to become.
    #[error(
        "PostgreSQL does not run as root, and there is no user `{user}` to become: create one, or start this as the \
         user that shall own {data_dir}"
    )]
    Root {
        /// The user that was looked for.
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
    /// What the supervisor needs beside the data directory cannot be there.
    #[error("{why}: {expected}")]
    BesideData {
        /// What stands in the way.
        why: String,
        /// What to do.
        expected: String,
    },
    /// The REST interface cannot listen.
    #[error("cannot serve REST")]
    Api(#[source] ApiError),
    /// The certificates of the REST interface cannot be used.
    #[error("cannot use the certificates of the REST interface")]
    Certificates(#[source] TlsError),
    /// The member itself.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The operating system refused something.
    #[error("{what}")]
    System {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) fn system(what: &str, source: io::Error) -> RunError {
    RunError::System { what: format!("cannot {what}"), source }
}
